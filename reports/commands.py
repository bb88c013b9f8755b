"""`repmedsam report` and `repmedsam compare`."""

from __future__ import annotations

import gc
import math
from concurrent.futures.process import BrokenProcessPool
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import click

from bench.record import DEFAULT_RECORDS


def record_files(path: Path) -> list[Path]:
    """A file, or the records of a folder."""
    return sorted(path.glob("*.jsonl")) if path.is_dir() else [path]


@click.command()
@click.argument("records", nargs=-1, type=click.Path(exists=True, path_type=Path))
@click.option(
    "-o",
    "--out",
    type=click.Path(file_okay=False, path_type=Path),
    help="Folder for report.md, report.html, the figures, and CSV and LaTeX of every table.",
)
@click.option(
    "--format",
    "formats",
    multiple=True,
    type=click.Choice(["markdown", "html", "csv", "latex"]),
    help="Only this in the folder, beside the figures; repeat for more.",
)
@click.option("--figures/--no-figures", default=True, show_default=True, help="Draw figures, too.")
@click.option(
    "--baseline", metavar="NAME", help="Encoder that ratios are taken to. [default: tinyvit, else the slowest]"
)
@click.option(
    "--readme",
    "readmes",
    multiple=True,
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="Also renew the tables between the marks `<!-- generated` and `<!-- end` of this page; repeat for more.",
)
def report(
    records: tuple[Path, ...],
    out: Path | None,
    formats: tuple[str, ...],
    figures: bool,
    baseline: str | None,
    readmes: tuple[Path, ...],
) -> None:
    """Turn records into markdown tables and plots.

    RECORDS are files or folders of records; by default, what `bench` writes by default.

    \b
    Examples:
      repmedsam report                                 tables on the terminal
      repmedsam report runs/bench.jsonl -o runs/report
      repmedsam report -o runs/paper --format latex
    """
    from reports.pictures import drawing_process

    if formats and out is None:
        raise click.UsageError("--format needs --out, the folder to write to")
    # What is read lives until the report is written: looking for garbage in it takes a tenth of the time.
    gc.disable()
    paths = [file for path in records or (DEFAULT_RECORDS,) for file in record_files(path)]
    try:
        with drawing_process() if out and figures else nullcontext() as pool:
            # Imported while that process gets ready.
            from reports.render import FORMATS, render_report, renew_page

            text = render_report(paths, out, baseline=baseline, formats=formats or FORMATS, figures=figures, pool=pool)
        click.echo(text)
        for readme in readmes:
            renew_page(readme, paths, baseline=baseline)
    except ValueError as error:
        raise click.ClickException(str(error)) from error
    except OSError as error:
        found = f"{error.filename or out}: found no way to read or write it ({error.strerror})"
        expected = "records that can be read and a folder with space left"
        raise click.ClickException(f"{found}; expected {expected}") from error
    except BrokenProcessPool as error:
        found = "the process that draws them was ended from outside (for want of memory?)"
        raise click.ClickException(f"figures: {found}; --no-figures leaves them out") from error
    finally:
        gc.enable()
    if out:
        click.echo(f"written to {out}", err=True)


class Limit(click.ParamType[float]):
    """A finite number that is not negative, with or without its unit.

    Attributes:
        name: of what it is.
        unit: that may stand behind it.
        whole: what of it is 1.
    """

    def __init__(self, name: str, unit: str = "", whole: float = 1.0) -> None:
        self.name, self.unit, self.whole = name, unit, whole

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        """The number, as a part of `whole`."""
        try:
            number = float(str(value).removesuffix(self.unit))
        except ValueError:
            number = math.nan
        if not 0 <= number < math.inf:
            self.fail(f"found {value!r}; expected a {self.name} such as 5{self.unit}", param, ctx)
        return number / self.whole


@click.command(short_help="Compare two sets of records, for a CI job.")
@click.argument("before", type=click.Path(exists=True, path_type=Path))
@click.argument("after", type=click.Path(exists=True, path_type=Path))
@click.option("--across-machines", is_flag=True, help="Compare records of different machines all the same.")
@click.option(
    "--fail-if-slower",
    type=Limit("percentage", "%", 100),
    metavar="PERCENT",
    help="Exit 1 if a latency is shown to grow by more.",
)
@click.option(
    "--fail-if-dsc-drop",
    type=Limit("number of points"),
    metavar="POINTS",
    help="Exit 1 if a mean DSC loses more points (0-100).",
)
def compare(
    before: Path, after: Path, across_machines: bool, fail_if_slower: float | None, fail_if_dsc_drop: float | None
) -> None:
    """Compare two files or folders of records: ratios of medians, DSC label by label.

    A latency differs where the 95 % interval of its ratio leaves out 1, and a DSC where Wilcoxon's test over the cases
    (p < 0.05) and the interval of the mean difference both say so, from 6 cases on; "mixed" where the two disagree, and
    otherwise "no difference shown". Several runs a side, measured in turns into a folder each, tell a change from a
    process that is slow from its start to its end. For a CI job: the exit code is 1 beyond the limits.

    \b
    Example:
      repmedsam compare main/ branch/ --fail-if-slower 5% --fail-if-dsc-drop 0.5
    """
    from reports.compare import compare as compare_records

    try:
        result = compare_records(record_files(before), record_files(after), across_machines=across_machines)
    except ValueError as error:
        raise click.ClickException(str(error)) from error
    click.echo(result.to_markdown())
    if failures := result.failures(fail_if_slower, fail_if_dsc_drop):
        raise click.ClickException("; ".join(failures))
