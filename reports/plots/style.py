"""What all figures share: size, themes, palette, titles, and how a file is written."""

from __future__ import annotations

import io
import math
import os
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import ScalarFormatter
from PIL import Image

from reports.accuracy import AccuracyRow
from reports.cases import CaseRow
from reports.encoders import EncoderRow
from reports.machine import MachineReport
from reports.tables import significant

WIDTH_IN, DPI = 8.0, 150
#: Okabe and Ito's palette as seaborn has it: apart for colour-blind eyes, in grey, and on both grounds.
PALETTE = "colorblind"
MARKERS = "osD^vP*X"


def _theme(ink: str, ground: str, grid: str) -> Any:
    inks = ("text.color", "axes.labelcolor", "axes.edgecolor", "xtick.color", "ytick.color")
    return {
        "font.size": 10,
        "axes.spines.top": False,
        "axes.spines.right": False,
        "axes.grid": True,
        "axes.grid.axis": "x",
        "axes.axisbelow": True,
        "grid.color": grid,
        "figure.facecolor": ground,
        "axes.facecolor": ground,
        "savefig.facecolor": ground,
        "legend.labelcolor": ink,
        **dict.fromkeys(inks, ink),
    }


#: matplotlib's settings by the page's colour scheme; the grounds are those of GitHub's pages.
THEMES = {"light": _theme("#262626", "#ffffff", "#e6e6e6"), "dark": _theme("#dddddd", "#0d1117", "#2b313a")}


def ink() -> str:
    """The colour of text in the theme that is drawn."""
    return str(mpl.rcParams["text.color"])


def new_figure(height_in: float) -> tuple[Figure, Axes]:
    """A figure of the report's width with one pair of axes."""
    figure = Figure(figsize=(WIDTH_IN, height_in), layout="constrained")
    return figure, figure.subplots()


def title(
    figure: Figure, text: str, report: MachineReport, rows: Sequence[EncoderRow] | Sequence[CaseRow], n: str
) -> None:
    """What is shown, and where, with how many threads, how often and in which runs it was measured."""
    runs = sorted({run for row in rows for run in row.run_ids})
    more = f" and {len(runs) - 2} more" if len(runs) > 2 else ""
    how = f"{counts(row.candidate.threads for row in rows)} threads; n = {n}; run {', '.join(runs[:2])}{more}"
    figure.suptitle(f"{text}\n{report.title}\n{how}", fontsize=10, x=0.01, ha="left")


def counts(numbers: Iterable[int]) -> str:
    """`20`, or `10 to 20`."""
    found = sorted(set(numbers))
    return str(found[0]) if len(found) == 1 else f"{found[0]} to {found[-1]}"


def name(row: AccuracyRow | CaseRow) -> str:
    """Candidate and protocol."""
    return " | ".join(filter(None, (row.label, row.protocol)))


def speedup_text(row: EncoderRow | CaseRow) -> str:
    """`2.3x`, `baseline`, or nothing."""
    if row.is_baseline:
        return "baseline"
    return f"{significant(row.speedup.value)}x" if math.isfinite(row.speedup.value) else ""


def timed(rows: Sequence[EncoderRow]) -> list[EncoderRow]:
    """Rows that have a latency."""
    return [row for row in rows if math.isfinite(row.median_s)]


def legend_below(figure: Figure, columns: int) -> None:
    """One legend of all axes, each name once."""
    entries: dict[str, Any] = {}
    for axes in figure.axes:
        entries |= {name: handle for handle, name in zip(*axes.get_legend_handles_labels(), strict=True)}
    figure.legend(entries.values(), entries.keys(), loc="outside lower center", ncols=columns, frameon=False)


def plain_log(axes: Axes, *which: str) -> None:
    """Logarithmic axes with plain numbers on them."""
    for axis in which:
        (axes.set_xscale if axis == "x" else axes.set_yscale)("log")
        (axes.xaxis if axis == "x" else axes.yaxis).set_major_formatter(ScalarFormatter())


def save(figure: Figure, path: Path) -> None:
    """Writes a figure whole or not at all, in 256 colours: a third of the size, and nobody sees it."""
    drawn = io.BytesIO()
    figure.savefig(drawn, dpi=DPI, format="png")
    partial = path.with_name(f".{path.name}.{os.getpid()}")
    with Image.open(drawn) as picture:
        picture.convert("RGB").quantize(256).save(partial, format="png", optimize=True)
    partial.replace(path)
