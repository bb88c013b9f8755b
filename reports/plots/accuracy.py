"""The figures of accuracy: against latency, and its distribution. Random weights are in neither."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import pandas as pd
import seaborn as sns
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from reports.accuracy import AccuracyRow, Scored
from reports.candidates import FLOOR
from reports.encoders import EncoderRow
from reports.machine import MachineReport
from reports.plots.style import MARKERS, PALETTE, WIDTH_IN, counts, ink, legend_below, name, new_figure, timed, title

#: A candidate's accuracy and its encoder's latency.
Point = tuple[AccuracyRow, EncoderRow]


def accuracy_figure(report: MachineReport) -> Figure | None:
    """Mean DSC against encoder latency of trained candidates, the Pareto front through them, the ellipse as a line."""
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
    legend_below(figure, 2)
    labels = f"{counts(row.dsc.n for row, _ in points)} labels"
    title(figure, "Accuracy against latency", report, [encoder for _, encoder in points], labels)
    return figure


def distribution_figure(report: MachineReport) -> Figure | None:
    """The DSC of every label by modality: that of trained candidates beside the ellipse's."""
    frame = _dsc_frame(report.scored)
    trained = [encoder for _, encoder in _points(report)]
    if frame is None:
        return None
    candidates, modalities = frame["candidate"].nunique(), frame["modality"].nunique()
    figure, axes = new_figure(1.8 + modalities * (0.25 + 0.24 * candidates))
    common: Any = {"data": frame, "x": "DSC", "y": "modality", "hue": "candidate", "palette": PALETTE, "ax": axes}
    sns.stripplot(**common, dodge=True, size=3.5, alpha=0.35, legend=False)
    # Beside each other as the strips are: 0.8 of a row for all candidates.
    apart = 0.8 * (1 - 1 / candidates)
    quartiles: Any = {"estimator": "median", "errorbar": ("pi", 50), "linestyle": "none", "dodge": apart}
    sns.pointplot(**common, **quartiles, marker="|", markersize=13, markeredgewidth=2.5, err_kws={"linewidth": 5})
    axes.set_xlim(-0.02, 1.02)
    axes.set_xlabel("DSC of a label: median, quartiles, every label")
    axes.set_ylabel("")
    if (legend := axes.get_legend()) is not None:
        legend.remove()
    legend_below(figure, 2)
    title(figure, "Distribution of the DSC", report, trained, f"{len(frame) // candidates} labels a candidate")
    return figure


def _dsc_frame(scored: Sequence[Scored]) -> pd.DataFrame | None:
    """A row a label, of the ellipse and of trained candidates; None where there is no trained one."""
    known = [one for one in scored if one.candidate.trained or one.candidate.encoder == FLOOR]
    if not any(one.candidate.trained for one in known):
        return None
    ordered = sorted(known, key=lambda one: one.candidate.encoder != FLOOR)
    rows = [
        {
            "candidate": " | ".join(filter(None, (one.label, one.protocol))),
            "modality": f"{one.case.modality} {'3D' if one.case.is_volume else '2D'}",
            "DSC": dsc,
        }
        for one in ordered
        for dsc, _ in one.scores.values()
        if math.isfinite(dsc)
    ]
    return pd.DataFrame(rows)


def _accuracy_panel(axes: Axes, points: Sequence[Point], floor: AccuracyRow) -> None:
    """Points of the floor's kind of cases. A colour is a candidate, a marker a protocol, in all panels alike."""
    candidates = list(dict.fromkeys(row.label for row, _ in points))
    protocols = list(dict.fromkeys(row.protocol for row, _ in points))
    colours = sns.color_palette(PALETTE, len(candidates))
    shown = [point for point in points if point[0].dims == floor.dims]
    for row, encoder in shown:
        colour = colours[candidates.index(row.label)]
        marker = MARKERS[protocols.index(row.protocol) % len(MARKERS)]
        place = 1e3 * encoder.median_s, row.dsc.mean
        axes.scatter(*place, s=90, marker=marker, color=colour, edgecolor=ink(), label=name(row), zorder=3)
        axes.annotate(row.label, place, (0, 8), textcoords="offset points", fontsize=8, ha="center")
    front = pareto_front([(1e3 * encoder.median_s, row.dsc.mean) for row, encoder in shown])
    axes.plot(*zip(*front, strict=True), drawstyle="steps-post", color=ink(), alpha=0.4, linewidth=1, zorder=2)
    if floor.dsc.n:
        axes.axhline(floor.dsc.mean, color=ink(), linestyle="--", linewidth=1.2, label=f"{floor.label} (floor)")
    axes.margins(y=0.12)
    axes.set_xlim(0, 1.2e3 * max(encoder.median_s for _, encoder in points))
    axes.set_title(f"{floor.dims} cases", loc="left", fontsize=11)
    axes.set_xlabel("encoder latency of one image (ms)")


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


def _points(report: MachineReport) -> list[Point]:
    """Trained candidates whose accuracy and encoder latency are both known."""
    encoders = {row.candidate: row for row in timed(report.encoders)}
    known = [row for row in report.overall if row.candidate.trained and row.dsc.n]
    return [(row, encoders[row.candidate]) for row in known if row.candidate in encoders]
