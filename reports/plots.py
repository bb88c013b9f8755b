"""Figures: encoder latency, where a 3D case's time goes, latency against accuracy. Needs no display."""

from __future__ import annotations

import io
import math
import os
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import matplotlib as mpl
import seaborn as sns
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import ScalarFormatter

from reports.accuracy import AccuracyRow
from reports.candidates import label_candidates
from reports.cases import STAGES, CaseRow, main_rows
from reports.encoders import EncoderRow
from reports.machine import MachineReport
from reports.tables import milliseconds, significant

WIDTH_IN, DPI = 8.0, 150
#: Figures stay readable up to so many cases; the tables hold all.
MAX_CASES = 8
#: Latencies further apart than this many times are drawn on a logarithmic axis.
LOG_SCALE_FROM = 20
#: Okabe and Ito's palette as seaborn has it: apart for colour-blind eyes, and in grey.
PALETTE = "colorblind"
INK = "0.15"
MARKERS = "osD^v"
STYLE: Any = {
    "font.size": 10,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.grid.axis": "x",
    "axes.axisbelow": True,
    "grid.color": "0.9",
}


def draw_figures(report: MachineReport, out_dir: Path, suffix: str = "") -> list[tuple[str, str]]:
    """Draws what there is data for.

    Args:
        report: of one machine.
        out_dir: folder that exists; files are written whole or not at all.
        suffix: of file names, to tell machines apart.

    Returns:
        (file name, caption) of each figure.
    """
    drawings = (
        ("encoder_latency", "Encoder latency", encoder_figure),
        ("case_stages", "Stages of 3D cases", stages_figure),
        ("accuracy_latency", "Accuracy against latency", accuracy_figure),
    )
    drawn = []
    for name, caption, draw in drawings:
        with mpl.rc_context(STYLE):
            figure = draw(report)
            if figure is not None:
                _save(figure, out_dir / f"{name}{suffix}.png")
                drawn.append((f"{name}{suffix}.png", caption))
    return drawn


def encoder_figure(report: MachineReport) -> Figure | None:
    """Every sample, quartiles and median of each candidate's encoder, with its ratio to the baseline."""
    rows = _timed(report.encoders)
    if not rows:
        return None
    labels, _ = label_candidates(row.candidate for row in rows)
    figure, axes = _figure(1.5 + 0.46 * len(rows))
    colours = sns.color_palette(PALETTE)
    for place, row in enumerate(rows):
        colour = colours[2 if row.is_baseline else 0]
        samples_ms = [1e3 * seconds for seconds in row.encode_samples.values]
        sns.stripplot(x=samples_ms, y=[place] * len(samples_ms), orient="h", ax=axes, color=colour, alpha=0.3, size=4)
        quartiles_ms = [1e3 * row.encode_s.q1, 1e3 * row.encode_s.q3]
        axes.plot(quartiles_ms, [place, place], color=colour, linewidth=7, solid_capstyle="butt", zorder=3)
        axes.plot(1e3 * row.median_s, place, "|", color=INK, markersize=17, markeredgewidth=2, zorder=4)
        text = f"{milliseconds(row.median_s)} ms   {_ratio(row)}"
        axes.annotate(text, (max(samples_ms), place), (8, 0), textcoords="offset points", va="center", color=INK)
    axes.set_yticks(range(len(rows)), [labels[row.candidate] for row in rows])
    axes.set_ylim(len(rows) - 0.5, -0.5)
    fastest_ms, slowest_ms = (1e3 * bound(bound(row.encode_samples.values) for row in rows) for bound in (min, max))
    if slowest_ms > LOG_SCALE_FROM * fastest_ms:
        axes.set_xscale("log")
        axes.xaxis.set_major_formatter(ScalarFormatter())
        axes.set_xlim(0.8 * fastest_ms, slowest_ms * (slowest_ms / fastest_ms) ** 0.4)
    else:
        axes.set_xlim(0, 1.45 * slowest_ms)
    axes.set_xlabel("encoder latency of one image (ms): samples, quartiles, median")
    _title(figure, "Image encoders", report, rows, f"{_counts(row.encode_s.n for row in rows)} calls")
    return figure


def stages_figure(report: MachineReport) -> Figure | None:
    """A panel a case, a bar a candidate and protocol, stacked by stage. The longest cases, where there are many."""
    panels = _panels(_volumes(report.cases))
    if not panels:
        return None
    bars = [len(rows) for rows in panels]
    figure = Figure(figsize=(WIDTH_IN, 1.6 + 0.34 * sum(bars) + 0.75 * len(bars)), layout="constrained")
    grid = figure.subplots(len(panels), 1, squeeze=False, height_ratios=[count + 1.0 for count in bars])
    for axes, rows in zip(grid[:, 0], panels, strict=True):
        _stage_panel(axes, rows)
    grid[-1, 0].set_xlabel("seconds a case (median of the passes)")
    handles, names = grid[0, 0].get_legend_handles_labels()
    figure.legend(handles, names, loc="outside lower center", ncols=len(STAGES), frameon=False)
    shown = [row for rows in panels for row in rows]
    omitted = len({row.case for row in _volumes(report.cases)}) - len(panels)
    more = f" ({omitted} shorter cases are in the table only)" if omitted else ""
    passes = f"{_counts(len(row.samples.values) for row in shown)} passes"
    _title(figure, f"3D cases: where the time goes{more}", report, shown, passes)
    return figure


def accuracy_figure(report: MachineReport) -> Figure | None:
    """Mean DSC against encoder latency of trained candidates, with the ellipse as a line; images and volumes apart."""
    points = _points(report)
    if not points:
        return None
    dims = sorted({row.dims for row, _ in points})
    figure = Figure(figsize=(WIDTH_IN, 4.8), layout="constrained")
    grid = figure.subplots(1, len(dims), squeeze=False, sharey=True)
    for axes, kind in zip(grid[0], dims, strict=True):
        floor = next(row for row in report.overall if row.is_floor and row.dims == kind)
        _accuracy_panel(axes, points, floor)
    grid[0, 0].set_ylabel("mean DSC over labels")
    legend = {name: handle for axes in grid[0] for handle, name in zip(*axes.get_legend_handles_labels(), strict=True)}
    figure.legend(legend.values(), legend.keys(), loc="outside lower center", ncols=2, frameon=False)
    labels = f"{_counts(row.dsc.n for row, _ in points)} labels"
    _title(figure, "Accuracy against latency", report, [encoder for _, encoder in points], labels)
    return figure


def _stage_panel(axes: Axes, rows: Sequence[CaseRow]) -> None:
    colours = sns.color_palette(PALETTE, len(STAGES))
    starts_s = [0.0] * len(rows)
    for stage, colour in zip(STAGES, colours, strict=True):
        seconds = [_finite(row.stages_s[stage]) for row in rows]
        axes.barh(range(len(rows)), seconds, left=starts_s, color=colour, label=stage, height=0.72, linewidth=0)
        starts_s = [start + more for start, more in zip(starts_s, seconds, strict=True)]
    for place, (row, end_s) in enumerate(zip(rows, starts_s, strict=True)):
        text = f"{significant(row.median_s)} s   {_ratio(row)}"
        axes.annotate(text, (end_s, place), (6, 0), textcoords="offset points", va="center", color=INK)
    axes.set_yticks(range(len(rows)), [_name(row) for row in rows])
    axes.set_ylim(len(rows) - 0.5, -0.5)
    axes.set_xlim(0, 1.4 * max(*starts_s, 1e-9))
    case = rows[0].case
    axes.set_title(
        f"{case.case_id}   {case.size}, {case.objects} object{'s' * (case.objects != 1)}", loc="left", fontsize=10.5
    )


def _accuracy_panel(axes: Axes, points: Sequence[tuple[AccuracyRow, EncoderRow]], floor: AccuracyRow) -> None:
    """Points of the floor's kind of cases. A colour is a candidate, a marker a protocol, in all panels alike."""
    candidates = list(dict.fromkeys(row.label for row, _ in points))
    protocols = list(dict.fromkeys(row.protocol for row, _ in points))
    colours = sns.color_palette(PALETTE, len(candidates))
    for row, encoder in points:
        if row.dims == floor.dims:
            colour = colours[candidates.index(row.label)]
            marker = MARKERS[protocols.index(row.protocol) % len(MARKERS)]
            place = 1e3 * encoder.median_s, row.dsc.mean
            axes.scatter(*place, s=90, marker=marker, color=colour, edgecolor=INK, label=_name(row), zorder=3)
    if floor.dsc.n:
        axes.axhline(floor.dsc.mean, color=INK, linestyle="--", linewidth=1.2, label=f"{floor.label} (floor)")
    axes.margins(y=0.12)
    axes.set_xlim(0, 1.12e3 * max(encoder.median_s for _, encoder in points))
    axes.set_title(f"{floor.dims} cases", loc="left", fontsize=11)
    axes.set_xlabel("encoder latency of one image (ms)")


def _timed(rows: Sequence[EncoderRow]) -> list[EncoderRow]:
    return [row for row in rows if math.isfinite(row.median_s)]


def _volumes(rows: Sequence[CaseRow]) -> list[CaseRow]:
    return main_rows([row for row in rows if row.case.is_volume and math.isfinite(row.median_s)])


def _points(report: MachineReport) -> list[tuple[AccuracyRow, EncoderRow]]:
    """Trained candidates whose accuracy and encoder latency are both known."""
    encoders = {row.candidate: row for row in _timed(report.encoders)}
    known = [row for row in report.overall if row.candidate.trained and row.dsc.n]
    return [(row, encoders[row.candidate]) for row in known if row.candidate in encoders]


def _panels(rows: Sequence[CaseRow]) -> list[list[CaseRow]]:
    """Rows by case, of the `MAX_CASES` cases that take longest, in the order of the table."""
    cases: dict[object, list[CaseRow]] = {}
    for row in rows:
        cases.setdefault(row.case, []).append(row)
    longest = sorted(cases.values(), key=lambda of_case: -max(row.median_s for row in of_case))[:MAX_CASES]
    return sorted(longest, key=lambda of_case: of_case[0].case.case_id)


def _figure(height_in: float) -> tuple[Figure, Axes]:
    figure = Figure(figsize=(WIDTH_IN, height_in), layout="constrained")
    return figure, figure.subplots()


def _title(
    figure: Figure, title: str, report: MachineReport, rows: Sequence[EncoderRow] | Sequence[CaseRow], n: str
) -> None:
    """What is shown, and where, with how many threads, how often and in which runs it was measured."""
    runs = sorted({run for row in rows for run in row.run_ids})
    more = f" and {len(runs) - 2} more" if len(runs) > 2 else ""
    how = f"{_counts(row.candidate.threads for row in rows)} threads; n = {n}; run {', '.join(runs[:2])}{more}"
    figure.suptitle(f"{title}\n{report.title}\n{how}", fontsize=10, x=0.01, ha="left")


def _counts(counts: Iterable[int]) -> str:
    """`20`, or `10 to 20`."""
    found = sorted(set(counts))
    return str(found[0]) if len(found) == 1 else f"{found[0]} to {found[-1]}"


def _name(row: AccuracyRow | CaseRow) -> str:
    return " | ".join(filter(None, (row.label, row.protocol)))


def _ratio(row: EncoderRow | CaseRow) -> str:
    if row.is_baseline:
        return "baseline"
    return f"{significant(row.speedup.value)}x" if math.isfinite(row.speedup.value) else ""


def _finite(seconds: float) -> float:
    return seconds if math.isfinite(seconds) else 0.0


def _save(figure: Figure, path: Path) -> None:
    """Writes a figure whole or not at all."""
    picture = io.BytesIO()
    figure.savefig(picture, dpi=DPI, format="png")
    partial = path.with_name(f".{path.name}.{os.getpid()}")
    partial.write_bytes(picture.getvalue())
    partial.replace(path)
