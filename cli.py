"""The command line: `python cli.py COMMAND`, installed as `repmedsam COMMAND`. Heavy imports stay inside commands."""

from __future__ import annotations

import errno
import importlib
import sys
from functools import partial
from io import TextIOWrapper
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from bench.record import DEFAULT_RECORDS
from compress.options import Between
from reports.commands import record_files
from zoo.cores import usable_cores

if TYPE_CHECKING:
    from collections.abc import Sequence

    from bench.score import CaseScores

#: Commands that live beside what they command, imported when they are asked for.
COMMANDS = {
    "bench": "compress.bench_command",
    "cold-pass": "compress.bench_command",
    "compare": "reports.commands",
    "distill": "compress.training.commands",
    "embed": "compress.training.commands",
    "export": "compress.export_commands",
    "prepare": "zoo.data.commands",
    "quantize": "compress.export_commands",
    "report": "reports.commands",
    "segment": "compress.segment_command",
    "train": "compress.training.commands",
    "weights": "compress.weights_commands",
}
#: Cases, and labels of a case, that a note names.
MOST_TOLD = 5


class Commands(click.Group):
    """Imports commands when they are asked for, and shows input errors as one line."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Names of all commands, sorted."""
        return sorted({*super().list_commands(ctx), *COMMANDS})

    def get_command(self, ctx: click.Context, name: str) -> click.Command | None:
        """The command `name`, imported if need be."""
        if name in COMMANDS:
            command: click.Command = getattr(importlib.import_module(COMMANDS[name]), name.replace("-", "_"))
            return command
        return super().get_command(ctx, name)

    def invoke(self, ctx: click.Context) -> Any:
        """Runs a command. What the system refuses, such as a full disk, is shown as one line, too."""
        from zoo.errors import InputError

        # Names of files need not be text, and are told all the same.
        if isinstance(sys.stdout, TextIOWrapper):
            sys.stdout.reconfigure(errors="backslashreplace")
        try:
            return super().invoke(ctx)
        except InputError as error:
            raise click.ClickException(str(error)) from error
        except OSError as error:
            if error.errno == errno.EPIPE:
                raise  # a reader that has had enough, such as `head`
            if error.filename is None:
                raise click.ClickException(f"{ctx.invoked_subcommand}: {error}") from error
            found = f"{error.filename}: found {error.strerror}"
            raise click.ClickException(f"{found}; expected a file that can be read or written") from error


@click.group(cls=Commands, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(package_name="rep-medsam", message="%(prog)s %(version)s")
def main() -> None:
    """Model zoo, compression and benchmarks for promptable medical segmentation on a laptop CPU.

    \b
    First steps:
      repmedsam list                                    encoders and runtimes
      repmedsam segment -i synthetic:3d:2 -o out --overlay        masks of a built-in volume
      repmedsam bench --encoder repvit --encoder tinyvit
      repmedsam report -o runs/report                   tables and plots of what was measured
    """


@main.command("list", short_help="Show encoders, where weights come from, runtimes.")
def list_command() -> None:
    """Show the encoders, where their weights come from, and the runtimes."""
    from rich.console import Console
    from rich.table import Table

    from zoo.backends import list_backends, runnable_here
    from zoo.registry import encoder_spec, list_encoders
    from zoo.weights import RANDOM, default_weights

    encoders = Table("name", "input px", "model", "ours ship", "published weights", "their licence", title="Encoders")
    encoders.columns[0].no_wrap = True
    for column in encoders.columns[1:]:
        column.overflow = "fold"
    for name in list_encoders():
        spec = encoder_spec(name)
        size = f"{spec.image_size} or {name}@SIZE" if spec.adaptable else str(spec.image_size)
        ships = "" if default_weights(name) == RANDOM else "yes"
        encoders.add_row(name, size, spec.title, ships, spec.weights_from, spec.licence)
    runtimes = Table("name", "precisions", "on this machine", title="Runtimes (--backend)")
    here = runnable_here()
    for name, precisions in list_backends().items():
        runtimes.add_row(name, ", ".join(precisions), ", ".join(p for n, p in here if n == name) or "nothing")
    console = Console()
    console.print(encoders, runtimes)
    console.print("int8, int8+bf16: of graphs that `quantize` wrote (bench --candidate).")
    console.print(
        "Any feature backbone of timm: timm:NAME or timm:NAME@SIZE; with a tag, timm:NAME.TAG, its published weights.\n"
        "Weights (--weights): a checkpoint's path, a card of `weights list`, or random:SEED, good for timing only; by "
        "default what ships for the encoder, if anything does: its licence is in `weights list`."
    )


@main.command(short_help="Score segmentations against labels.")
@click.option(
    "-s", "--segs", required=True, type=click.Path(exists=True, path_type=Path), help="File or folder of segmentations."
)
@click.option(
    "-g", "--labels", required=True, metavar="LABELS", help="Label maps of the same names, or images with their labels."
)
@click.option(
    "-o", "--out", type=click.Path(file_okay=False, path_type=Path), help="Folder for CSV, records, markdown."
)
@click.option("--against", type=click.Path(exists=True, path_type=Path), help="Other segmentations to compare with.")
@click.option(
    "--rules",
    type=click.Choice(["plain", "cvpr24"]),
    default="plain",
    show_default=True,
    help="cvpr24: as the challenge's script scores: labels 1 to the largest, NSD 0 where a case's mean DSC is not "
    "above 0.2, an image as a slice of 1 mm, the spacing in the npz's order.",
)
@click.option("--tolerance-mm", type=Between(min=0), default=2.0, show_default=True, help="Of the NSD.")
@click.option("--workers", type=click.IntRange(min=1), default=usable_cores(), show_default=True, help="Processes.")
def score(
    segs: Path, labels: str, out: Path | None, against: Path | None, rules: Any, tolerance_mm: float, workers: int
) -> None:
    """Score segmentations against labels: DSC, NSD, HD95 and volume of every label.

    A label in one of the maps only scores 0. Tables on the terminal; --out also writes scores.csv (a row a label),
    scores.md and scores.jsonl (records, as `bench` writes them). With --against, both segmentations are compared label
    by label: mean difference with a bootstrap interval over cases, and Wilcoxon's signed-rank test over the cases' mean
    differences, from 6 cases on.

    \b
    Examples:
      repmedsam score -s outputs/ -g npz/
      repmedsam score -s outputs/ -g npz/ --rules cvpr24 --against baseline/ -o runs/scores
    """
    from bench.score_records import write_records
    from reports.scores import by_case, by_label, paired, score_table, shortened, summary
    from zoo.files import check_folder, whole_file

    if against and against.resolve() == segs.resolve():
        raise click.UsageError("--segs and --against are the same")
    if out:
        check_folder(out)
    name = segs.resolve().name
    cases, failures, lacking = _scores(segs, labels, rules, tolerance_mm, workers)
    scores = score_table(row for case in cases for row in case.rows)
    tables = {"Over labels": summary(scores), "By case": by_case(scores, skip_undefined=rules != "cvpr24")}
    if of_labels := by_label(scores):
        tables["By label"] = of_labels
    if against:
        others, failed, _ = _scores(against, labels, rules, tolerance_mm, workers)
        failures += failed
        names = (name, against.resolve().name)
        if name == names[1]:
            names = (str(segs), str(against))
        tables["Compared"] = paired(scores, score_table(row for case in others for row in case.rows), names)
    notes = _notes(cases, lacking)
    click.echo("\n\n".join([f"{title}:\n\n{shortened(table)}" for title, table in tables.items()] + notes))
    if out:
        text = "\n\n".join([f"## {title}\n\n{table}" for title, table in tables.items()] + notes)
        for file, content in (("scores.csv", scores.to_csv(index=False)), ("scores.md", f"{text}\n")):
            with whole_file(out / file) as part:
                part.write_text(content, encoding="utf-8")
        write_records(out / "scores.jsonl", segs.resolve(), cases, rules, tolerance_mm)
        click.echo(f"written to {out}", err=True)
    if failures:
        raise click.ClickException(f"{failures} could not be scored")


def _notes(cases: Sequence[CaseScores], lacking: int) -> list[str]:
    """What the tables do not say by themselves."""
    from zoo.errors import first_of

    notes = []
    if lacking:
        notes.append(f"Without {lacking} case{'s' * (lacking != 1)} with labels that have no segmentation.")
    if bare := [case.pair.case_id for case in cases if not case.rows]:
        notes.append(f"Cases without labels, in no mean ({len(bare)}): {first_of(bare, MOST_TOLD)}.")
    full = [case for case in cases if case.segmented and case.expected]
    if apart := [case for case in full if {*case.segmented}.isdisjoint(case.expected)]:
        told = (
            f"{case.pair.case_id} ({first_of(case.segmented, MOST_TOLD)} for {first_of(case.expected, MOST_TOLD)})"
            for case in apart
        )
        notes.append(f"No label in common with the reference, so all scores are 0: {first_of(told, MOST_TOLD)}.")
    unknown = sum(row.original is None and row.reference_ml > 0 for case in cases for row in case.rows)
    if unknown:
        notes.append(
            f"By label: without {unknown} labels of npz, which number anew in each case and do not say of what."
        )
    if any(case.spacing_mm == (1.0, 1.0) for case in cases):
        notes.append("Of pictures that say no size a pixel counts as 1 mm: NSD, HD95 and volumes are in pixels.")
    return notes


def _scores(
    segs: Path, labels: str, rules: Any, tolerance_mm: float, workers: int
) -> tuple[list[CaseScores], int, int]:
    """Scores by case, how many could not be scored, and how many have no segmentation; each of which is told of."""
    from rich.console import Console
    from rich.progress import track

    from bench.score import find_pairs, score_pair, unsegmented
    from zoo.errors import InputError, first_of
    from zoo.executors.local import LocalExecutor

    console = Console(stderr=True)
    pairs = find_pairs(segs, labels)
    done = LocalExecutor(workers).map(partial(score_pair, rules=rules, tolerance_mm=tolerance_mm), pairs)
    if missing := unsegmented(pairs, labels):
        console.print(f"not scored, no segmentation in {segs}: {first_of(missing, 10)}", soft_wrap=True)
    scored: list[CaseScores] = []
    for pair, result in track(done, f"scoring {segs.resolve().name}", len(pairs), console=console, transient=True):
        if isinstance(result, Exception):
            told = str(result) if isinstance(result, InputError) else f"{pair.segmentation}: {result!r}"
            console.print(told, style="red", markup=False, highlight=False, soft_wrap=True)
        else:
            scored.append(result)
    if not any(case.rows for case in scored):
        raise click.ClickException("no label could be scored")
    return sorted(scored, key=lambda case: case.pair.case_id), len(pairs) - len(scored), len(missing)


@main.command(short_help="Name the best candidate measured on this machine.")
@click.argument("records", nargs=-1, type=click.Path(exists=True, path_type=Path))
@click.option("--max-latency", type=Between(min=0), metavar="MS", help="Encoder and a box together, in milliseconds.")
@click.option("--min-dsc", type=Between(0, 1), default=0.0, help="Mean DSC, from 0 to 1.")
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

    paths = [file for path in records or (DEFAULT_RECORDS,) for file in record_files(path)]
    limit_s = float("inf") if max_latency is None else max_latency / 1000
    best, table = choose(paths, describe_machine()["id"], limit_s, min_dsc)
    click.echo(table)
    if best is None:
        raise click.ClickException("no candidate is within the limits")
    click.echo(f"\n{describe(best.candidate)}")


if __name__ == "__main__":
    main()
