"""The figures of 3D cases: where the time goes, and how it grows with objects and slices."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from itertools import cycle

import seaborn as sns
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from reports.cases import STAGES, CaseRow, main_rows
from reports.machine import MachineReport
from reports.plots.style import MARKERS, PALETTE, WIDTH_IN, counts, legend_below, name, plain_log, speedup_text, title
from reports.tables import significant

#: Figures stay readable up to so many cases; the tables hold all.
MAX_CASES = 8
#: What a case's latency is drawn against.
SIZES: tuple[tuple[str, Callable[[CaseRow], float]], ...] = (
    ("objects", lambda row: row.case.objects),
    ("slices", lambda row: row.case.shape[0]),
)


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
    legend_below(figure, len(STAGES))
    shown = [row for rows in panels for row in rows]
    omitted = len({row.case for row in _volumes(report.cases)}) - len(panels)
    more = f" ({omitted} shorter cases are in the table only)" if omitted else ""
    title(figure, f"3D cases: where the time goes{more}", report, shown, _passes(shown))
    return figure


def scaling_figure(report: MachineReport) -> Figure | None:
    """Seconds a case against its objects and slices, a line a candidate and protocol with cases of several sizes."""
    groups: dict[str, list[CaseRow]] = {}
    for row in _volumes(report.cases):
        groups.setdefault(name(row), []).append(row)
    panels = [(label, size, _of_several_sizes(groups, size)) for label, size in SIZES]
    panels = [panel for panel in panels if panel[2]]
    if not panels:
        return None
    shown = {name(row): row for _, _, several in panels for rows in several.values() for row in rows}
    figure = Figure(figsize=(WIDTH_IN, 4.4 + 0.2 * len(shown)), layout="constrained")
    grid = figure.subplots(1, len(panels), squeeze=False, sharey=True)
    styles = dict(zip(shown, zip(sns.color_palette(PALETTE, len(shown)), cycle(MARKERS), strict=False), strict=True))
    for axes, (label, size, several) in zip(grid[0], panels, strict=True):
        for line, rows in several.items():
            colour, marker = styles[line]
            ordered = sorted(rows, key=lambda row, size=size: (size(row), row.median_s))  # type: ignore[misc]
            places = [size(row) for row in ordered], [row.median_s for row in ordered]
            axes.plot(*places, marker=marker, color=colour, label=line, linewidth=1)
        axes.grid(visible=True, axis="both")
        plain_log(axes, "x", "y")
        ticks = sorted({size(row) for rows in several.values() for row in rows})
        axes.set_xticks(ticks, [f"{tick:g}" for tick in ticks])
        axes.minorticks_off()
        axes.set_xlabel(f"{label} of the case")
    grid[0, 0].set_ylabel("seconds a case (median)")
    legend_below(figure, 1)
    all_rows = [row for _, _, several in panels for rows in several.values() for row in rows]
    title(figure, "3D cases: latency against objects and slices", report, all_rows, _passes(all_rows))
    return figure


def _of_several_sizes(
    groups: Mapping[str, list[CaseRow]], size: Callable[[CaseRow], float]
) -> dict[str, list[CaseRow]]:
    return {line: rows for line, rows in groups.items() if len({size(row) for row in rows}) > 1}


def _stage_panel(axes: Axes, rows: Sequence[CaseRow]) -> None:
    colours = sns.color_palette(PALETTE, len(STAGES))
    starts_s = [0.0] * len(rows)
    for stage, colour in zip(STAGES, colours, strict=True):
        seconds = [_finite(row.stages_s[stage]) for row in rows]
        axes.barh(range(len(rows)), seconds, left=starts_s, color=colour, label=stage, height=0.72, linewidth=0)
        starts_s = [start + more for start, more in zip(starts_s, seconds, strict=True)]
    for place, (row, end_s) in enumerate(zip(rows, starts_s, strict=True)):
        text = f"{significant(row.median_s)} s   {speedup_text(row)}"
        axes.annotate(text, (end_s, place), (6, 0), textcoords="offset points", va="center")
    axes.set_yticks(range(len(rows)), [name(row) for row in rows])
    axes.set_ylim(len(rows) - 0.5, -0.5)
    axes.set_xlim(0, 1.4 * max(*starts_s, 1e-9))
    case = rows[0].case
    axes.set_title(
        f"{case.case_id}   {case.size}, {case.objects} object{'s' * (case.objects != 1)}", loc="left", fontsize=10.5
    )


def _volumes(rows: Sequence[CaseRow]) -> list[CaseRow]:
    return main_rows([row for row in rows if row.case.is_volume and math.isfinite(row.median_s)])


def _panels(rows: Sequence[CaseRow]) -> list[list[CaseRow]]:
    """Rows by case, of the `MAX_CASES` cases that take longest, in the order of the table."""
    cases: dict[object, list[CaseRow]] = {}
    for row in rows:
        cases.setdefault(row.case, []).append(row)
    longest = sorted(cases.values(), key=lambda of_case: -max(row.median_s for row in of_case))[:MAX_CASES]
    return sorted(longest, key=lambda of_case: of_case[0].case.case_id)


def _passes(rows: Sequence[CaseRow]) -> str:
    return f"{counts(len(row.samples.values) for row in rows)} passes"


def _finite(seconds: float) -> float:
    return seconds if math.isfinite(seconds) else 0.0
