"""The figures of 3D cases: where the time goes, and how it grows with objects and slices."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from statistics import median
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from reports.candidates import PROTOCOL_ORDER, Candidate, label_candidates
from reports.cases import MAX_ROWS, STAGES, CaseRow, compared_rows, main_rows
from reports.machine import MachineReport
from reports.plots.style import (
    INK,
    MARKERS,
    Entry,
    finish,
    name,
    new_figure,
    palette,
    plain_log,
    speedup_text,
    unpaired_note,
)
from reports.tables import counts, significant

#: A figure stays readable up to so many bars, panels and lines; the tables hold all.
MAX_BARS, MAX_PANELS, MAX_ENCODERS = 40, 10, 5
#: Two names of encoders with all that tells them apart fit a legend's row, or four of so many characters.
SHORT_LABEL = 20


@dataclass(frozen=True)
class Size:
    """What seconds are drawn against.

    Attributes:
        label: of the axis.
        title: what the seconds are.
        of: the size of a case.
        seconds: that are drawn.
        alike: what cases on one line have alike.
    """

    label: str
    title: str
    of: Callable[[CaseRow], float]
    seconds: Callable[[CaseRow], float]
    alike: Callable[[CaseRow], int]


@dataclass(frozen=True)
class Line:
    """What is drawn as a line: cases of one candidate under one protocol."""

    candidate: Candidate
    protocol: str
    rows: list[CaseRow]


#: Against objects a slice's seconds are drawn, so that cases of all lengths stand on one line; against slices those of
#: cases with as many objects.
SIZES = (
    Size(
        "objects of the case",
        "seconds a slice (median)",
        of=lambda row: row.case.objects,
        seconds=lambda row: row.median_s / _slices(row),
        alike=lambda _: 0,
    ),
    Size(
        "slices with objects",
        "seconds a case, equal objects (median)",
        of=lambda row: _slices(row),
        seconds=lambda row: row.median_s,
        alike=lambda row: row.case.objects,
    ),
)


def stages_figure(report: MachineReport) -> Figure | None:
    """A panel a case, a bar a candidate and protocol, stacked by stage.

    Cases that several encoders were timed on, where there are any; of many the longest.
    """
    volumes = _volumes(report.cases)
    panels = _panels(compared_rows(volumes))
    if not panels:
        return None
    bars = [len(rows) for rows in panels]
    figure = new_figure(1.6 + 0.27 * sum(bars) + 0.62 * len(bars))
    grid = figure.subplots(len(panels), 1, squeeze=False, height_ratios=[count + 0.6 for count in bars])
    for axes, rows in zip(grid[:, 0], panels, strict=True):
        _stage_panel(axes, rows)
    grid[-1, 0].set_xlabel("seconds a case")
    shown = [row for rows in panels for row in rows]
    more = f"; {len(volumes) - len(shown)} more rows are in the table" if len(volumes) > len(shown) else ""
    start_up = "" if all(row.temperature == "warm" for row in shown) else ", start-up not drawn"
    n = f"median of n = {_passes(shown)}{start_up}{more}{unpaired_note(shown)}"
    colours = zip(STAGES, palette(len(STAGES)), strict=True)
    legend = [Entry(stage, {"marker": "s", "color": colour}) for stage, colour in colours]
    finish(figure, "3D cases: where the time goes", report, shown, n, legend, len(STAGES))
    return figure


def scaling_figure(report: MachineReport) -> Figure | None:
    """Latency against objects and slices: a colour an encoder, a marker a protocol, in one runtime if all have one."""
    lines = _lines(report.cases)
    panels = {size: found for size in SIZES if (found := _of_several_sizes(lines, size))}
    if not panels:
        return None
    figure = new_figure(4.6)
    grid = figure.subplots(1, len(panels), squeeze=False)
    drawn = [line for found in panels.values() for line in found]
    labels, _ = label_candidates(line.candidate for line in drawn)
    protocols = list(dict.fromkeys(line.protocol for line in drawn))
    colours = dict(zip(labels, palette(len(labels)), strict=True))
    markers = {protocol: MARKERS[place % len(MARKERS)] for place, protocol in enumerate(protocols)}
    for axes, (size, found) in zip(grid[0], panels.items(), strict=True):
        for line in found:
            _draw_line(axes, size, line.rows, colours[line.candidate], markers[line.protocol])
        plain_log(axes, "x", "y")
        axes.grid(visible=True, axis="both")
        axes.set_xlabel(size.label)
        axes.set_title(size.title)
    legend = [Entry(labels[candidate], {"color": colour, "linestyle": "-"}) for candidate, colour in colours.items()]
    legend += [Entry(protocol, {"color": INK, "marker": marker}) for protocol, marker in markers.items()]
    rows = [row for line in drawn for row in line.rows]
    runtimes = ", ".join(sorted({" ".join(_runtime(candidate)) for candidate in labels}))
    n = f"{runtimes}; n = {_passes(rows)} a point; line: median of equal sizes"
    columns = 4 if max(map(len, labels.values())) <= SHORT_LABEL else 2
    finish(figure, "3D cases: latency against objects and slices", report, rows, n, legend, columns)
    return figure


def _lines(cases: Sequence[CaseRow]) -> list[Line]:
    """Timed volumes by candidate and protocol: of each encoder one candidate.

    It is one in the runtime and precision that most encoders were timed in, if there is such, torch fp32 before others;
    of several the one with most volumes.
    """
    by_candidate: dict[Candidate, list[CaseRow]] = {}
    for row in _volumes(cases):
        by_candidate.setdefault(row.candidate, []).append(row)
    users = Counter(runtime for _, runtime in {(who.encoder, _runtime(who)) for who in by_candidate})
    common = max(users, key=lambda runtime: (users[runtime], runtime == ("torch", "fp32"), runtime), default=None)
    ordered = sorted(
        by_candidate,
        key=lambda who: (_runtime(who) != common, -len(by_candidate[who]), who.backend != "torch", who.precision),
    )
    chosen = {who.encoder: who for who in reversed(ordered)}
    lines: dict[tuple[Candidate, str], list[CaseRow]] = {}
    for who in [who for who in ordered if chosen[who.encoder] == who][:MAX_ENCODERS]:
        for row in sorted(by_candidate[who], key=_protocol_place):
            lines.setdefault((who, row.protocol), []).append(row)
    return [Line(*who, rows) for who, rows in lines.items()]


def _runtime(who: Candidate) -> tuple[str, str]:
    return who.backend, who.precision


def _of_several_sizes(lines: Sequence[Line], size: Size) -> list[Line]:
    """Of each line the cases that are alike, where they are of several sizes."""
    found = []
    for line in lines:
        alike: dict[int, list[CaseRow]] = {}
        for row in line.rows:
            alike.setdefault(size.alike(row), []).append(row)
        found += [replace(line, rows=rows) for rows in alike.values() if len(set(map(size.of, rows))) > 1]
    return found


def _draw_line(axes: Axes, size: Size, rows: Sequence[CaseRow], colour: Any, marker: str) -> None:
    by_size: dict[float, list[float]] = {}
    for row in rows:
        by_size.setdefault(size.of(row), []).append(size.seconds(row))
    middle = sorted((place, median(values)) for place, values in by_size.items())
    axes.plot(*zip(*middle, strict=True), color=colour, linewidth=1.2, alpha=0.7)
    axes.plot(*_points(by_size), marker, color=colour, markersize=6, alpha=0.8)


def _protocol_place(row: CaseRow) -> int:
    known = row.protocol_name in PROTOCOL_ORDER
    return PROTOCOL_ORDER.index(row.protocol_name) if known else len(PROTOCOL_ORDER)


def _points(by_size: dict[float, list[float]]) -> tuple[list[float], list[float]]:
    pairs = [(place, value) for place, values in by_size.items() for value in values]
    return [place for place, _ in pairs], [value for _, value in pairs]


def _stage_panel(axes: Axes, rows: Sequence[CaseRow]) -> None:
    starts_s = [0.0] * len(rows)
    for stage, colour in zip(STAGES, palette(len(STAGES)), strict=True):
        seconds = [_finite(row.stages_s[stage]) for row in rows]
        axes.barh(range(len(rows)), seconds, left=starts_s, color=colour, height=0.72, linewidth=0)
        starts_s = [start + more for start, more in zip(starts_s, seconds, strict=True)]
    for place, (row, end_s) in enumerate(zip(rows, starts_s, strict=True)):
        text = f"{significant(row.median_s)} s   {speedup_text(row)}"
        axes.annotate(text, (end_s, place), (6, 0), textcoords="offset points", va="center", fontsize=9)
    axes.set_yticks(range(len(rows)), [name(row) for row in rows], fontsize=9)
    axes.set_ylim(len(rows) - 0.5, -0.5)
    # Room for the text behind the longest bar.
    axes.set_xlim(0, 1.6 * max(*starts_s, 1e-9))
    case = rows[0].case
    title = f"{case.case_id}   {case.size}, {case.objects} object{'s' * (case.objects != 1)}"
    # Names of candidates leave the axes little width, and the title all that is left of their right end.
    axes.set_title(title, loc="right")


def _volumes(rows: Sequence[CaseRow]) -> list[CaseRow]:
    """Those that were timed: warm ones, unless there are none."""
    timed = [row for row in rows if row.case.is_volume and math.isfinite(row.median_s)]
    return [row for row in timed if row.temperature == "warm"] or timed


def _panels(rows: Sequence[CaseRow]) -> list[list[CaseRow]]:
    """Rows by case, in the order of the table; of the longest `MAX_PANELS` cases as many as `MAX_BARS` hold."""
    cases: dict[object, list[CaseRow]] = {}
    for row in main_rows(rows):
        cases.setdefault(row.case, []).append(row)
    few = sorted(map(_few, cases.values()), key=lambda of_case: -max(row.median_s for row in of_case))
    chosen: list[list[CaseRow]] = []
    for of_case in few[:MAX_PANELS]:
        if not chosen or sum(map(len, chosen)) + len(of_case) <= MAX_BARS:
            chosen.append(of_case)
    return sorted(chosen, key=lambda of_case: of_case[0].case.case_id)


def _few(rows: list[CaseRow]) -> list[CaseRow]:
    """All rows of a case; of more than `MAX_ROWS` the baseline, and of each encoder the slowest and the fastest."""
    if len(rows) <= MAX_ROWS:
        return rows
    by_encoder: dict[str, list[CaseRow]] = {}
    for row in rows:
        by_encoder.setdefault(row.candidate.encoder, []).append(row)
    kept = {id(extreme) for same in by_encoder.values() for extreme in (same[0], same[-1])}
    return [row for row in rows if row.is_baseline or id(row) in kept]


def _slices(row: CaseRow) -> float:
    """Slices that were worked on: those outside all boxes are not. Some protocols encode one several times."""
    depth = row.case.shape[0]
    return min(row.encoded_slices, depth) if row.encoded_slices > 0 else depth


def _passes(rows: Sequence[CaseRow]) -> str:
    cold = "cold " if any(row.temperature == "cold" for row in rows) else ""
    return f"{counts(len(row.samples.values) for row in rows)} {cold}passes"


def _finite(seconds: float) -> float:
    return seconds if math.isfinite(seconds) else 0.0
