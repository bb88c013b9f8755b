"""`repmedsam bench`."""

from __future__ import annotations

import importlib.util
import json
import os
import sys
from dataclasses import replace
from itertools import product
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

import click
from click.core import ParameterSource

from bench.record import DEFAULT_RECORDS
from compress.options import CANDIDATE_HELP, PROTOCOL_HELP, PROTOCOLS, options, protocols_of, rule_options
from zoo.errors import InputError

if TYPE_CHECKING:
    from bench.candidate import Recipe
    from bench.progress import TerminalProgress
    from zoo.data.cases import CaseSource
    from zoo.sam.rule import AnyProtocol


#: Share of the CPUs in use by others, from which on a person is warned.
BUSY = 0.2
#: What is compared where nobody says what.
DEFAULT_ENCODERS = ("repvit", "tinyvit", "light_repvit_m0_9")
#: Options that say nothing of candidates, by the name of their parameter.
OF_ENCODERS = {"backends": "--backend", "precisions": "--precision", "variant": "--variant"}


class CpuSet(click.ParamType[tuple[int, ...]]):
    """`0,1`: logical CPUs that this process may use."""

    name = "cpus"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> tuple[int, ...]:
        """The CPUs' numbers, sorted."""
        allowed = os.sched_getaffinity(0) if hasattr(os, "sched_getaffinity") else set[int]()
        if not allowed:
            self.fail("this system cannot pin a process", param, ctx)
        numbers = [number for number in str(value).split(",") if number.strip().isdigit()]
        cpus = tuple(sorted(map(int, numbers)))
        if not cpus or not allowed.issuperset(cpus) or len(numbers) != len(str(value).split(",")):
            self.fail(f"found {value!r}; expected some of {','.join(map(str, sorted(allowed)))}", param, ctx)
        return cpus


class CandidateFolder(click.ParamType[tuple[Path, str | None]]):
    """`DIR` or `DIR:PRECISION`: a candidate's folder, and the precision to run it in, None for its own."""

    name = "candidate"
    _folder = click.Path(exists=True, file_okay=False)

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> tuple[Path, str | None]:
        """The two."""
        folder, _, precision = str(value).rpartition(":")
        if not folder or Path(value).exists():
            folder, precision = str(value), ""
        return Path(str(self._folder.convert(folder, param, ctx))), precision or None


candidate_options = options(
    click.option(
        "--encoder",
        "encoders",
        multiple=True,
        metavar="NAME",
        help="Encoder, see `list`; repeat to compare, or `all`.  "
        f"[default: {', '.join(DEFAULT_ENCODERS)}; with --candidate none]",
    ),
    click.option(
        "--weights",
        multiple=True,
        metavar="[NAME=]WEIGHTS",
        help="Checkpoint or card (of encoder NAME), or random:SEED, for timing only; repeat to compare. A candidate of "
        "encoder NAME takes those that it was made of.  [default: what ships, or what the candidate's card names]",
    ),
    click.option(
        "--variant",
        type=click.Choice(["train", "reparam"]),
        default="reparam",
        show_default=True,
        help="The graph as trained, or with BatchNorms and branches folded.",
    ),
    click.option(
        "--backend",
        "backends",
        multiple=True,
        default=["torch"],
        show_default=True,
        metavar="NAME[:PRECISION]",
        help="Runtime, see `list`, in every --precision or its own; repeat to compare.",
    ),
    click.option(
        "--precision",
        "precisions",
        multiple=True,
        default=["fp32"],
        show_default=True,
        metavar="NAME",
        help="Of the runtime: fp32, fp16, bf16; repeat to compare.",
    ),
    click.option("--sweep", is_flag=True, help="Every runtime and precision that this machine has."),
    click.option(
        "--candidate",
        "folders",
        multiple=True,
        type=CandidateFolder(),
        metavar="DIR[:PRECISION]",
        help=f"{CANDIDATE_HELP}, in its precision or another that fits (bf16, int8+bf16); repeat for more.",
    ),
    click.option(
        "--threads", type=click.IntRange(min=1), default=2, show_default=True, help="Threads of one operator."
    ),
)

case_options = options(
    click.option(
        "--cases",
        multiple=True,
        default=["phantom"],
        show_default=True,
        metavar="CASES",
        help="File, folder, glob, IMAGE=LABELS, phantom[:NAME] or synthetic[:3d][:FIRST-LAST]; repeat for more.",
    ),
    click.option("--max-objects", type=click.IntRange(min=1), help="Keep only the largest objects of a case."),
    click.option(
        "--max-slices",
        type=click.IntRange(min=1),
        help="Keep only so many neighbouring slices of a volume, those with most objects.",
    ),
)


@click.command(short_help="Measure encoders: cost, latency, memory, accuracy.")
@candidate_options
@case_options
@click.option(
    "--protocol",
    "protocols",
    multiple=True,
    type=PROTOCOLS,
    default=["batched"],
    show_default=True,
    help=PROTOCOL_HELP,
)
@rule_options
@click.option(
    "--rounds",
    type=click.IntRange(min=0),
    default=20,
    show_default=True,
    help="Measured calls of each encoder and decoder, interleaved; with 0 only cases are timed.",
)
@click.option("--passes", type=click.IntRange(min=0), default=3, show_default=True, help="Warm passes over each case.")
@click.option(
    "--cold/--no-cold", default=True, show_default=True, help="Also segment each case once in a fresh process."
)
@click.option(
    "--clicks",
    type=click.IntRange(min=0),
    default=0,
    show_default=True,
    help="Also score masks after each of so many clicks, in the middle of every object's largest error.",
)
@click.option(
    "--calibrate", is_flag=True, help="Also measure the machine's peak, so that latencies are given as shares of it."
)
@click.option("--cpus", type=CpuSet(), metavar="0,1", help="Pin the process to these logical CPUs, and record it.")
@click.option(
    "--out",
    type=click.Path(dir_okay=False, path_type=Path),
    default=DEFAULT_RECORDS,
    show_default=True,
    help="Records, a JSON object a line. What it holds is not measured again.",
)
def bench(
    encoders: tuple[str, ...],
    weights: tuple[str, ...],
    variant: str,
    backends: tuple[str, ...],
    precisions: tuple[str, ...],
    sweep: bool,
    folders: tuple[tuple[Path, str | None], ...],
    threads: int,
    cases: tuple[str, ...],
    max_objects: int | None,
    max_slices: int | None,
    protocols: tuple[str, ...],
    rounds: int,
    passes: int,
    cold: bool,
    clicks: int,
    calibrate: bool,
    cpus: tuple[int, ...] | None,
    out: Path,
    **rule: Any,
) -> None:
    """Measure encoders: cost, latency, memory and accuracy, over images and volumes.

    All candidates are timed interleaved in one run. Every figure goes to the records file as it is measured: stop with
    Ctrl-C at any time, and the same command goes on from there. Cases that fail are recorded and the sweep goes on; the
    exit code is 1 then.

    \b
    Examples:
      repmedsam bench --encoder repvit --encoder tinyvit
      repmedsam bench --cases scans/ --protocol litemedsam --protocol batched --max-objects 6
      repmedsam bench --encoder repvit --weights rep_medsam.pth --cases 'validation/*.npz'
      repmedsam bench --encoder repvit --sweep --candidate runs/repvit-int8
      repmedsam bench --cases photos/ --rounds 0 --clicks 3
    """
    from bench.cold import cold_request, spawn_cold_pass
    from bench.machine import busy_share, pin
    from bench.progress import TerminalProgress
    from bench.runner import Settings, Sweep
    from compress.build import build_candidate
    from compress.card import read_card
    from compress.recipes import candidate_recipes, encoder_names, encoder_recipes, weights_by_encoder
    from zoo.backends import runnable_here
    from zoo.files import check_writable

    source_of = click.get_current_context().get_parameter_source
    if sweep and ParameterSource.COMMANDLINE in (source_of("backends"), source_of("precisions")):
        raise click.UsageError("--sweep takes every runtime and precision: leave out --backend and --precision")
    runtimes = runnable_here() if sweep else _runtimes(backends, precisions)
    made_of = {read_card(folder).encoder for folder, _ in folders}
    of_candidates = all(item.partition("=")[0] in made_of for item in weights)
    names = encoder_names(encoders or (() if folders and of_candidates and not sweep else DEFAULT_ENCODERS))
    given = [name for name in OF_ENCODERS if source_of(name) == ParameterSource.COMMANDLINE]
    if given and not names:
        raise click.UsageError(
            f"{', '.join(OF_ENCODERS[name] for name in given)} beside candidates alone, which have their own: another "
            "precision is FOLDER:PRECISION"
        )
    chosen = weights_by_encoder(weights, names)
    candidates = candidate_recipes(folders, chosen, names, threads, sweep=sweep)
    recipes = list(dict.fromkeys([*encoder_recipes(names, chosen, variant, runtimes, threads), *candidates]))
    if cpus:
        pin(cpus)
        recipes = [replace(recipe, cpus=cpus) for recipe in recipes]
    volumes, images = protocols_of(protocols, **rule)
    settings = Settings(
        protocols=volumes,
        image_protocol=images,
        rounds=rounds,
        passes=passes,
        cold=cold,
        clicks=clicks,
        calibrate=calibrate,
    )

    def cold_run(recipe: Recipe, source: CaseSource, protocol: AnyProtocol) -> dict[str, Any]:
        case = {"reference": source.reference, "max_objects": max_objects, "max_slices": max_slices}
        return spawn_cold_pass([sys.executable, _command_line(), "cold-pass"], cold_request(recipe, case, protocol))

    sources = [source for spec in cases for source in _find_cases(spec, max_objects, max_slices)]
    check_writable(out)
    with TerminalProgress() as progress, TemporaryDirectory(prefix="repmedsam-") as drawn:
        if (busy := busy_share()) > BUSY:
            progress.message(f"other programs use {busy:.0%} of the CPUs: seconds will be too long, and ratios noisy")
        for doubt in dict.fromkeys(doubt for recipe in recipes for doubt in recipe.doubts):
            progress.message(doubt)
        try:
            run = Sweep(recipes, build_candidate, cold_run, settings, out, progress)
            run.run(_on_file(sources, Path(drawn), progress))
        except KeyboardInterrupt:
            progress.message(f"stopped; what was measured is in {out}, the same command goes on from there")
            raise SystemExit(130) from None
    if run.skipped:
        click.echo(f"{run.skipped} measurements were in {out} already (delete it, or name another --out, to repeat)")
    click.echo(f"records: {out}   next: {Path(sys.argv[0]).name} report {out}")
    if run.failures:
        raise click.ClickException(f"{run.failures} measurements failed; each has an error record in {out}")


@click.command(hidden=True)
def cold_pass() -> None:
    """Segment one case in this process, as asked on standard input: the fresh process of `bench --cold`."""
    from bench.cold import run_cold_pass
    from compress.deploy import open_backend

    def load(case: dict[str, Any]) -> Any:
        return _find_cases(case["reference"], case["max_objects"], case["max_slices"])[0].load(labels=False)

    run_cold_pass(json.load(sys.stdin), open_backend, load)


def _command_line() -> str:
    """The file of the command line."""
    found = importlib.util.find_spec("cli")
    assert found is not None
    assert found.origin is not None
    return found.origin


def _runtimes(backends: tuple[str, ...], precisions: tuple[str, ...]) -> list[tuple[str, str]]:
    """Each runtime with its own precision, or with each of `precisions`.

    Raises:
        InputError: a runtime that there is not, or a precision that none of these has.
    """
    from zoo.backends import list_backends
    from zoo.errors import unknown_name

    offered = list_backends()
    chosen = {item: item.partition(":")[::2] for item in backends}
    for name, own in chosen.values():
        if name not in offered:
            raise unknown_name("--backend", name, offered)
        if own and own not in offered[name]:
            raise unknown_name(f"--backend {name}", own, offered[name])
    known = {precision for name, _ in chosen.values() for precision in offered[name]}
    for name in precisions:
        if name not in known:
            raise unknown_name("--precision", name, known)
    pairs = [pair for name, own in chosen.values() for pair in product([name], [own] if own else precisions)]
    return list(dict.fromkeys(pairs))


def _on_file(sources: list[CaseSource], folder: Path, progress: TerminalProgress) -> list[CaseSource]:
    """With what is built in drawn into `folder`: reading cases is timed, not drawing them.

    Where there is no room for that, they are drawn at each pass, which a person is told of.
    """
    built_in = [source for source in sources if source.image_path is None]
    advance = progress.start("drawing built-in cases", len(built_in)) if built_in else lambda: None
    found = []
    for source in sources:
        try:
            found.append(source.on_file(folder))
        except (InputError, OSError) as error:
            progress.message(f"{source.case_id}: its seconds hold drawing it, too: {error}")
            found.append(source)
        if source.image_path is None:
            advance()
    return found


def _find_cases(spec: str, max_objects: int | None, max_slices: int | None) -> list[CaseSource]:
    from zoo.data.cases import find_cases

    return [source.limited(max_objects, max_slices) for source in find_cases(spec)]
