"""The figures of accuracy: against latency, and its distribution. Random weights are in neither."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from reports.accuracy import AccuracyRow, Scored, drawn_cases
from reports.candidates import FLOOR, Candidate
from reports.encoders import EncoderRow, is_common, timed
from reports.machine import MachineReport
from reports.plots.style import (
    INK,
    Entry,
    finish,
    mark_entries,
    mark_style,
    new_figure,
    palette,
    plain_log,
)
from reports.statistics import Samples, spread_of
from reports.tables import counts

#: A candidate's accuracy and its encoder's latency.
Point = tuple[AccuracyRow, EncoderRow]
#: A figure stays readable up to so many models, and candidates beside each other; the tables hold all.
MAX_MODELS, MAX_STRIPS = 10, 6
#: Two labels of so many characters fit beside each other.
SHORT_LABEL = 50
#: How much of a modality's row its strips take, and of a strip its dots.
STRIPS_HEIGHT, DOTS_HEIGHT = 0.8, 0.6
#: Multiples of it, modulo 1, are spread evenly, however many there are.
GOLDEN_RATIO = 0.6180339887


def accuracy_figure(report: MachineReport) -> Figure | None:
    """Mean DSC against encoder latency of trained candidates, the Pareto front through them, the ellipse as a line.

    Means go over cases, of each over the labels that all candidates have, see `on_shared_labels`. Latencies are of one
    sweep, where it timed a candidate: of runs apart, the machine's drift would stand beside the encoders.
    """
    encoders_timed = {row.candidate: row for row in (*timed(report.encoders), *timed(report.swept))}
    rows = report.compared
    points = [(row, encoders_timed[row.candidate]) for row in rows if not row.is_floor and row.dsc.n]
    if not points:
        return None
    dims = sorted({row.dims for row, _ in points})
    models = list(dict.fromkeys(_model(encoder.candidate) for _, encoder in points))[:MAX_MODELS]
    points = [point for point in points if _model(point[1].candidate) in models]
    colours = dict(zip(models, palette(len(models)), strict=True))
    marks = mark_entries(encoder.candidate for _, encoder in points)
    figure = new_figure(5.0)
    grid = figure.subplots(1, len(dims), squeeze=False, sharey=True)
    has_front = False
    for axes, kind in zip(grid[0], dims, strict=True):
        floor = next(row for row in rows if row.is_floor and row.dims == kind)
        has_front |= _accuracy_panel(axes, [point for point in points if point[0].dims == kind], floor, colours)
    grid[0, 0].set_ylabel("mean DSC over cases")
    several = len({encoder for encoder, _ in models}) < len(models)
    names = [f"{encoder} {sha256[:8]}" if several else encoder for encoder, sha256 in models]
    legend = [Entry(name, {"marker": "s", "color": c}) for name, c in zip(names, colours.values(), strict=True)]
    legend += [*marks, Entry("ellipse in the box", {"color": INK, "linestyle": "--"})]
    if has_front:
        legend.append(Entry("Pareto front", {"color": INK, "linestyle": "-", "alpha": 0.4}))
    calls = counts(encoder.encode_s.n for _, encoder in points)
    cases = counts(row.dsc_by_case.n for row, _ in points)
    drawn = " (drawn ones among them)" if drawn_cases(report.shared) else ""
    n = f"DSC: n = {cases} cases{drawn}; latency: median of n = {calls} calls, bar: quartiles"
    encoders = [encoder for _, encoder in points]
    runs = {run for encoder in encoders for run in encoder.run_ids}
    runs |= {one.run_id for one in report.shared if one.scores}
    finish(figure, "Accuracy against latency", report, encoders, n, legend, 4, runs)
    return figure


def distribution_figure(report: MachineReport) -> Figure | None:
    """The DSC of every label by modality: that of each trained weights beside the ellipse's.

    All strips of a modality hold the same labels, those that candidates are compared on, see `on_shared_labels`.
    """
    chosen = _chosen(report)
    if not chosen:
        return None
    shown = [one for one in report.shared if one.candidate in (Candidate(FLOOR), *chosen)]
    strips = _strips(shown, chosen)
    modalities = list(dict.fromkeys(modality for strip in strips.values() for modality in strip))
    figure = new_figure(1.9 + len(modalities) * (0.2 + 0.19 * len(strips)))
    axes = figure.subplots()
    colours = [INK, *palette(len(strips) - 1)]
    height = STRIPS_HEIGHT / len(strips)
    for number, (strip, colour) in enumerate(zip(strips.values(), colours, strict=True)):
        for row, modality in enumerate(modalities):
            place = row - STRIPS_HEIGHT / 2 + height * (number + 0.5)
            if modality in strip:
                _draw_strip(axes, place, height, strip[modality], colour)
    axes.set_yticks(range(len(modalities)), modalities)
    axes.set_ylim(len(modalities) - 0.5, -0.5)
    axes.set_xlim(-0.02, 1.02)
    axes.set_xlabel("DSC of a label")
    legend = [Entry(label, {"marker": "s", "color": c}) for label, c in zip(strips, colours, strict=True)]
    labels = counts(sum(map(len, strip.values())) for strip in strips.values())
    n = f"n = {labels} labels a candidate; line: median, bar: quartiles, dots: every label"
    rows = [row for row in report.encoders if row.candidate in chosen]
    columns = 2 if max(map(len, strips)) <= SHORT_LABEL else 1
    finish(figure, "Distribution of the DSC", report, rows, n, legend, columns, (one.run_id for one in shown))
    return figure


def _chosen(report: MachineReport) -> list[Candidate]:
    """One candidate of each weights, in fp32 and torch where there is one; of one weights alone one of each precision.

    Not the best of each: the highest of many means on these labels would be too high. Runtimes hardly differ.
    """
    rows = [row for row in report.compared if not row.is_floor and row.dsc.n]
    weights = {_model(row.candidate) for row in rows}
    first: dict[tuple[str, ...], AccuracyRow] = {}
    for row in rows:
        who = row.candidate
        key = _model(who) if len(weights) > 1 else (who.precision,)
        first[key] = max(first.get(key, row), row, key=_as_trained)
    ordered = sorted(first.values(), key=lambda row: -row.dsc_by_case.mean)
    return list(dict.fromkeys(row.candidate for row in ordered))[: MAX_STRIPS - 1]


def _as_trained(row: AccuracyRow) -> tuple[int, bool, bool]:
    """How near a row's candidate is to what was trained, of equal numbers of cases."""
    return row.dsc_by_case.n, row.candidate.precision == "fp32", is_common(row.candidate)


def _strips(scored: Sequence[Scored], chosen: Sequence[Candidate]) -> dict[str, dict[str, list[float]]]:
    """DSC of every label by candidate and modality, of the ellipse and of some candidates."""
    floor = [one for one in scored if one.candidate.encoder == FLOOR]
    ordered = [*floor, *(one for who in chosen for one in scored if one.candidate == who)]
    unique = {(one.candidate, one.case, one.tolerance_mm): one for one in ordered}
    strips: dict[str, dict[str, list[float]]] = {}
    for one in unique.values():
        modality = f"{one.case.kind} {'3D' if one.case.is_volume else '2D'}"
        if dsc := [dsc for dsc, _ in one.scores.values() if math.isfinite(dsc)]:
            strips.setdefault(one.label, {}).setdefault(modality, []).extend(dsc)
    return strips


def _draw_strip(axes: Axes, place: float, height: float, dsc: Sequence[float], colour: Any) -> None:
    """Every label as a dot, moved up or down so that dots of one DSC stay apart; over them quartiles and median."""
    moved = [place + height * DOTS_HEIGHT * (number * GOLDEN_RATIO % 1 - 0.5) for number in range(len(dsc))]
    axes.plot(dsc, moved, "o", color=colour, markersize=3.5, markeredgewidth=0, alpha=0.35, zorder=2)
    spread = spread_of(Samples(tuple(dsc)))
    axes.plot([spread.q1, spread.q3], [place, place], color=colour, linewidth=4, solid_capstyle="butt", zorder=3)
    axes.plot(spread.median, place, "|", color=colour, markersize=11, markeredgewidth=2.5, zorder=4)


def _model(candidate: Candidate) -> tuple[str, str]:
    """Encoder and hash of its weights."""
    return candidate.encoder, candidate.sha256


def _accuracy_panel(
    axes: Axes, points: Sequence[Point], floor: AccuracyRow, colours: Mapping[tuple[str, str], Any]
) -> bool:
    """Points of one kind of cases; whether their front is a line."""
    for row, encoder in points:
        colour = colours[_model(encoder.candidate)]
        quartiles_ms = [1e3 * encoder.encode_s.q1, 1e3 * encoder.encode_s.q3]
        axes.plot(quartiles_ms, [row.dsc_by_case.mean] * 2, color=colour, linewidth=2, alpha=0.6, zorder=2)
        style = mark_style(encoder.candidate, colour)
        axes.plot(1e3 * encoder.median_s, row.dsc_by_case.mean, linestyle="none", zorder=3, **style)
    front = pareto_front([(1e3 * encoder.median_s, row.dsc_by_case.mean) for row, encoder in points])
    axes.plot(*zip(*front, strict=True), drawstyle="steps-post", color=INK, alpha=0.5, linewidth=1.2, zorder=1)
    if floor.dsc.n:
        axes.axhline(floor.dsc_by_case.mean, color=INK, linestyle="--", linewidth=1.2)
    axes.margins(x=0.08, y=0.12)
    plain_log(axes, "x")
    axes.grid(visible=True, axis="both")
    axes.set_title(f"{floor.dims} cases")
    axes.set_xlabel("encoder latency of one image (ms)")
    return len(front) > 1


def pareto_front(points: Sequence[tuple[float, float]]) -> list[tuple[float, float]]:
    """Of (latency, accuracy) the points that no other beats in both, the fastest first.

    >>> pareto_front([(3.0, 0.8), (1.0, 0.5), (2.0, 0.4), (4.0, 0.8)])
    [(1.0, 0.5), (3.0, 0.8)]
    """
    front: list[tuple[float, float]] = []
    for latency, accuracy in sorted(points, key=lambda point: (point[0], -point[1])):
        if not front or accuracy > front[-1][1]:
            front.append((latency, accuracy))
    return front
