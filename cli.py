"""The command line: `python cli.py COMMAND`, installed as `repmedsam COMMAND`. Heavy imports stay inside commands."""

from __future__ import annotations

import importlib
import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from compress.options import options

if TYPE_CHECKING:
    from bench.candidate import Recipe
    from zoo.data.cases import CaseSource

DEFAULT_RECORDS = Path("runs/bench.jsonl")


#: Commands that live beside what they command, imported when they are asked for.
COMMANDS = {
    "distill": "compress.training.commands",
    "embed": "compress.training.commands",
    "export": "compress.export_commands",
    "quantize": "compress.export_commands",
    "train": "compress.training.commands",
    "weights": "compress.weights_commands",
}


class Commands(click.Group):
    """Imports commands when they are asked for, and shows input errors as one line."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Names of all commands, sorted."""
        return sorted({*super().list_commands(ctx), *COMMANDS})

    def get_command(self, ctx: click.Context, name: str) -> click.Command | None:
        """The command `name`, imported if need be."""
        if name in COMMANDS:
            command: click.Command = getattr(importlib.import_module(COMMANDS[name]), name)
            return command
        return super().get_command(ctx, name)

    def invoke(self, ctx: click.Context) -> Any:
        """Runs a command."""
        from zoo.errors import InputError

        try:
            return super().invoke(ctx)
        except InputError as error:
            raise click.ClickException(str(error)) from error


@click.group(cls=Commands, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(package_name="rep-medsam", message="%(prog)s %(version)s")
def main() -> None:
    """Model zoo, compression and benchmarks for promptable medical segmentation on a laptop CPU.

    \b
    First steps:
      repmedsam list                                    encoders and runtimes
      repmedsam bench --encoder repvit --encoder tinyvit
      repmedsam report -o runs/report                   tables and plots of what was measured
    """


@main.command("list")
def list_command() -> None:
    """Show the encoders, where their weights come from, and the runtimes."""
    from rich.console import Console
    from rich.table import Table

    from zoo.backends import list_backends, runnable_here
    from zoo.registry import encoder_spec, list_encoders

    encoders = Table("name", "input px", "model", "published weights", "their licence", title="Encoders")
    encoders.columns[0].no_wrap = True
    for column in encoders.columns[1:]:
        column.overflow = "fold"
    for name in list_encoders():
        spec = encoder_spec(name)
        size = f"{spec.image_size} or {name}@SIZE" if spec.adaptable else str(spec.image_size)
        encoders.add_row(name, size, spec.title, spec.weights_from, spec.licence)
    runtimes = Table("name", "precisions", "on this machine", title="Runtimes (--backend)")
    here = runnable_here()
    for name, precisions in list_backends().items():
        runtimes.add_row(name, ", ".join(precisions), ", ".join(p for n, p in here if n == name) or "nothing")
    console = Console()
    console.print(encoders, runtimes)
    console.print("int8: of graphs that `quantize` wrote (bench --candidate).")
    console.print(
        "Any feature backbone of timm: timm:NAME or timm:NAME@SIZE; with a tag, timm:NAME.TAG, its published weights.\n"
        "Weights (--weights): a checkpoint's path, a card of `weights list`, or random:SEED, good for timing only."
    )


candidate_options = options(
    click.option(
        "--encoder",
        "encoders",
        multiple=True,
        default=["repvit", "tinyvit"],
        show_default=True,
        metavar="NAME",
        help="Encoder, see `list`; repeat to compare, or `all`.",
    ),
    click.option(
        "--weights",
        multiple=True,
        metavar="[NAME=]WEIGHTS",
        help="Checkpoint or weight card (of encoder NAME), or random:SEED, the default: good for timing only.",
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
        metavar="NAME",
        help="Runtime, see `list`; repeat to compare.",
    ),
    click.option("--precision", default="fp32", show_default=True, help="Precision of the runtime."),
    click.option("--sweep", is_flag=True, help="Every runtime and float precision that this machine has."),
    click.option(
        "--candidate",
        "folders",
        multiple=True,
        type=click.Path(exists=True, file_okay=False, path_type=Path),
        help="Folder that `export` or `quantize` wrote; repeat for more.",
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
        metavar="DIR_OR_GLOB",
        help="File, folder, glob, IMAGE=LABELS (NIfTI) or phantom[:NAME]; repeat for more.",
    ),
    click.option("--max-objects", type=click.IntRange(min=1), help="Keep only the largest objects of a case."),
    click.option(
        "--max-slices",
        type=click.IntRange(min=1),
        help="Keep only so many neighbouring slices of a volume, those with most objects.",
    ),
)

protocol_options = options(
    click.option(
        "--protocol",
        "protocols",
        multiple=True,
        type=click.Choice(["per_object", "cached", "batched"]),
        default=["batched"],
        show_default=True,
        help="Volumes: encode slices again for every object, once, or once and decode objects together.",
    ),
    click.option(
        "--z-range",
        type=click.Choice(["inclusive", "exclusive"]),
        default="inclusive",
        show_default=True,
        help="Whether a box's z_max belongs to the object.",
    ),
    click.option(
        "--box-dilation-px",
        type=click.IntRange(min=0),
        default=3,
        show_default=True,
        help="Margin around a mask before it prompts its neighbour.",
    ),
    click.option(
        "--box-rounding",
        type=click.Choice(["truncate", "float"]),
        default="truncate",
        show_default=True,
        help="Of a volume's boxes scaled to the encoder's frame; those of images are truncated.",
    ),
    click.option(
        "--resize",
        type=click.Choice(["area", "linear", "cubic"]),
        help="How slices are brought to the encoder's size.  [default: as the encoder was published]",
    ),
    click.option(
        "--propagate/--no-propagate",
        default=True,
        show_default=True,
        help="Prompt each slice with its neighbour's mask.",
    ),
    click.option(
        "--mask-value",
        type=click.Choice(["binary", "label"]),
        default="binary",
        show_default=True,
        help="What a neighbour's mask holds while it is resized.",
    ),
)


@main.command()
@candidate_options
@case_options
@protocol_options
@click.option(
    "--rounds",
    type=click.IntRange(min=1),
    default=20,
    show_default=True,
    help="Measured calls of each encoder and decoder, interleaved.",
)
@click.option("--passes", type=click.IntRange(min=0), default=3, show_default=True, help="Warm passes over each case.")
@click.option(
    "--cold/--no-cold", default=True, show_default=True, help="Also segment each case once in a fresh process."
)
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
    precision: str,
    sweep: bool,
    folders: tuple[Path, ...],
    threads: int,
    cases: tuple[str, ...],
    max_objects: int | None,
    max_slices: int | None,
    protocols: tuple[str, ...],
    rounds: int,
    passes: int,
    cold: bool,
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
      repmedsam bench --cases scans/ --protocol per_object --protocol cached --max-objects 6
      repmedsam bench --encoder repvit --weights rep_medsam.pth --cases 'validation/*.npz'
      repmedsam bench --encoder repvit --sweep --candidate runs/repvit-int8
    """
    from bench.cold import cold_request, spawn_cold_pass
    from bench.progress import TerminalProgress
    from bench.runner import Settings, Sweep
    from compress.build import build_candidate, recipe_of
    from zoo.backends import runnable_here
    from zoo.sam.rule import Protocol3D

    runtimes = runnable_here() if sweep else [(backend, precision) for backend in dict.fromkeys(backends)]
    recipes = _recipes(encoders, weights, variant, runtimes, threads)
    recipes += [recipe_of(folder, threads=threads) for folder in folders]
    settings = Settings(
        protocols=tuple(Protocol3D(name, **rule) for name in dict.fromkeys(protocols)),
        rounds=rounds,
        passes=passes,
        cold=cold,
    )

    def cold_run(recipe: Recipe, source: CaseSource, protocol: Protocol3D | None) -> dict[str, Any]:
        case = {"reference": source.reference, "max_objects": max_objects, "max_slices": max_slices}
        command = [sys.executable, str(Path(__file__).resolve()), "cold-pass"]
        return spawn_cold_pass(command, cold_request(recipe, case, protocol))

    with TerminalProgress() as progress:
        run = Sweep(recipes, build_candidate, cold_run, settings, out, progress)
        try:
            run.run([source for spec in cases for source in _find_cases(spec, max_objects, max_slices)])
        except KeyboardInterrupt:
            progress.message(f"stopped; what was measured is in {out}, the same command goes on from there")
            raise SystemExit(130) from None
    if run.skipped:
        click.echo(f"{run.skipped} measurements were in {out} already (delete it, or name another --out, to repeat)")
    click.echo(f"records: {out}   next: {Path(sys.argv[0]).name} report {out}")
    if run.failures:
        raise click.ClickException(f"{run.failures} measurements failed; each has an error record in {out}")


@main.command("cold-pass", hidden=True)
def cold_pass() -> None:
    """Segment one case in this process, as asked on standard input: the fresh process of `bench --cold`."""
    from bench.cold import run_cold_pass
    from compress.build import build_candidate

    def load(case: dict[str, Any]) -> Any:
        return _find_cases(case["reference"], case["max_objects"], case["max_slices"])[0].load()

    run_cold_pass(json.load(sys.stdin), build_candidate, load)


@main.command()
@click.argument("records", nargs=-1, type=click.Path(exists=True, path_type=Path))
@click.option(
    "-o",
    "--out",
    type=click.Path(file_okay=False, path_type=Path),
    help="Folder for report.md, a CSV of every table, and the figures.",
)
@click.option(
    "--baseline", metavar="NAME", help="Encoder that ratios are taken to. [default: tinyvit, else the slowest]"
)
@click.option(
    "--readme",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="Also renew the short tables between the marks `<!-- generated` and `<!-- end` of this file.",
)
def report(records: tuple[Path, ...], out: Path | None, baseline: str | None, readme: Path | None) -> None:
    """Turn records into markdown tables and plots.

    RECORDS are files or folders of records; by default, what `bench` writes by default.

    \b
    Examples:
      repmedsam report                                 tables on the terminal
      repmedsam report runs/bench.jsonl -o runs/report
    """
    from reports.render import render_report, renew_readme

    paths = [file for path in records or (DEFAULT_RECORDS,) for file in _record_files(path)]
    try:
        click.echo(render_report(paths, out, baseline=baseline))
        if readme:
            renew_readme(readme, paths, baseline=baseline)
    except ValueError as error:
        raise click.ClickException(str(error)) from error
    if out:
        click.echo(f"written to {out}", err=True)


@main.command()
@click.argument("records", nargs=-1, type=click.Path(exists=True, path_type=Path))
@click.option("--max-latency", type=float, metavar="MS", help="Encoder and one box together, in milliseconds.")
@click.option("--min-dsc", type=click.FloatRange(0, 1), default=0.0, help="Mean DSC, from 0 to 1.")
def recommend(records: tuple[Path, ...], max_latency: float | None, min_dsc: float) -> None:
    """Name the best candidate that was measured on this machine, within limits.

    RECORDS are files or folders of records; by default, what `bench` writes by default. Exit code 1 if none will do.

    \b
    Example:
      repmedsam recommend --max-latency 200 --min-dsc 0.8
    """
    from bench.machine import describe_machine
    from reports.recommend import describe
    from reports.recommend import recommend as choose

    paths = [file for path in records or (DEFAULT_RECORDS,) for file in _record_files(path)]
    limit_s = float("inf") if max_latency is None else max_latency / 1000
    try:
        best, table = choose(paths, describe_machine()["id"], limit_s, min_dsc)
    except ValueError as error:
        raise click.ClickException(str(error)) from error
    click.echo(table)
    if best is None:
        raise click.ClickException("no candidate is within the limits")
    click.echo(f"\n{describe(best.candidate)}")


class Percent(click.ParamType[float]):
    """`5%` or `5`: percent as a part of one."""

    name = "percent"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        """The part of one."""
        try:
            return float(str(value).removesuffix("%")) / 100
        except ValueError:
            self.fail(f"found {value!r}; expected a percentage such as 5%", param, ctx)


@main.command()
@click.argument("before", type=click.Path(exists=True, path_type=Path))
@click.argument("after", type=click.Path(exists=True, path_type=Path))
@click.option("--across-machines", is_flag=True, help="Compare records of different machines all the same.")
@click.option(
    "--fail-if-slower", type=Percent(), metavar="PERCENT", help="Exit 1 if a latency is shown to grow by more."
)
@click.option(
    "--fail-if-dsc-drop", type=float, metavar="POINTS", help="Exit 1 if a mean DSC loses more points (0-100)."
)
def compare(
    before: Path, after: Path, across_machines: bool, fail_if_slower: float | None, fail_if_dsc_drop: float | None
) -> None:
    """Compare two files or folders of records: ratios of medians, DSC label by label.

    A difference counts where its 95 % interval leaves out 1, and a DSC's where Wilcoxon's test over the labels says so
    (p < 0.05); otherwise "no difference shown". For a CI job: the exit code is 1 beyond the limits.

    \b
    Example:
      repmedsam compare main.jsonl branch.jsonl --fail-if-slower 5% --fail-if-dsc-drop 0.5
    """
    from reports.compare import compare as compare_records

    try:
        result = compare_records(_record_files(before), _record_files(after), across_machines=across_machines)
    except ValueError as error:
        raise click.ClickException(str(error)) from error
    click.echo(result.to_markdown())
    if failures := result.failures(fail_if_slower, fail_if_dsc_drop):
        raise click.ClickException("; ".join(failures))


def _record_files(path: Path) -> list[Path]:
    return sorted(path.glob("*.jsonl")) if path.is_dir() else [path]


def _recipes(
    encoders: tuple[str, ...],
    weights: tuple[str, ...],
    variant: str,
    runtimes: list[tuple[str, str]],
    threads: int,
) -> list[Recipe]:
    """One recipe for each encoder and runtime."""
    from bench.candidate import Recipe
    from zoo.errors import InputError
    from zoo.registry import encoder_spec, list_encoders

    asked = [name for item in encoders for name in (list_encoders() if item == "all" else [item])]
    names = dict.fromkeys(asked)
    chosen = dict(_split_weights(item, list(names)) for item in weights)
    if unused := chosen.keys() - names.keys() - {""}:
        raise InputError("--weights", f"weights for {', '.join(sorted(unused))}", f"one of: {', '.join(names)}")
    for name in names:
        encoder_spec(name)
    return [
        Recipe(name, chosen.get(name, chosen.get("")), variant, backend, precision, threads)
        for name in names
        for backend, precision in runtimes
    ]


def _split_weights(item: str, names: list[str]) -> tuple[str, str]:
    """(NAME, weights) of NAME=PATH, or the only encoder's, or ("", random:SEED) for all."""
    from zoo.errors import InputError

    name, separator, path = item.partition("=")
    if separator:
        return name, path
    if item.startswith("random"):
        return "", item
    if len(names) != 1:
        raise InputError(
            "--weights", f"{item!r} and {len(names)} encoders", "NAME=PATH, so that it is clear whose it is"
        )
    return names[0], item


def _find_cases(spec: str, max_objects: int | None, max_slices: int | None) -> list[CaseSource]:
    from zoo.data.cases import find_cases

    return [source.limited(max_objects, max_slices) for source in find_cases(spec)]


if __name__ == "__main__":
    main()
