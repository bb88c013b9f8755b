"""The figure of how much of the machine each encoder uses."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from reports.machine import MachineReport
from reports.peak import GPU, Peak, Share, encoder_shares
from reports.plots.style import (
    INK,
    finish,
    mark_entries,
    mark_style,
    new_figure,
    plain_log,
    precision_colours,
)
from reports.tables import counts, significant


def roofline_figure(report: MachineReport) -> Figure | None:
    """Achieved multiply-adds a second of each encoder against its cost, under the machine's measured peaks."""
    if not report.peaks:
        return None
    peak = max(reversed(report.peaks), key=lambda peak: peak.threads)  # the latest of equals
    used = [share for share in encoder_shares(report.encoders, report.peaks) if _is_under(share, peak)]
    if not used:
        return None
    figure = new_figure(5.6)
    axes = figure.subplots()
    colours = precision_colours()
    for share in used:
        style = mark_style(share.candidate, colours.get(share.candidate.precision, INK))
        axes.plot(share.gmacs, share.gmacs_per_s, linestyle="none", zorder=3, **style)
    plain_log(axes, "x", "y")
    axes.margins(x=0.18, y=0.1)
    _draw_peaks(axes, peak, colours)
    _write_names(axes, used)
    axes.grid(visible=True, axis="both")
    axes.set_xlabel("multiply-adds of one image (GMACs)")
    axes.set_ylabel("achieved (GMAC/s); dashed: a matrix product's")
    rows = [row for row in report.encoders if row.candidate in {share.candidate for share in used}]
    n = f"n = {counts(share.n for share in used)} calls, mark: median; peaks: run {peak.run_id}, n = {peak.stream_s.n}"
    legend = mark_entries((share.candidate for share in used), colours)
    finish(figure, "Achieved multiply-adds against the machine's peak", report, rows, n, legend, 7)
    return figure


def _is_under(share: Share, peak: Peak) -> bool:
    """Whether a share is of this peak: not that of a GPU, of another number of threads, or of other CPUs."""
    who = share.candidate
    return (who.threads, who.cpus) == (peak.threads, peak.cpus) and GPU not in who.backend


def _draw_peaks(axes: Axes, peak: Peak, colours: Mapping[str, Any]) -> None:
    across = axes.get_yaxis_transform()
    for precision, colour in colours.items():
        limit = peak.gmacs_per_s(precision)
        if math.isfinite(limit):
            axes.axhline(limit, color=colour, linestyle="--", linewidth=1.4, zorder=1)
            text = f"{precision}: {significant(limit)}"
            axes.text(1.01, limit, text, va="center", fontsize=8.5, color=colour, transform=across)


def _write_names(axes: Axes, used: Sequence[Share]) -> None:
    """Of each encoder, at the point that reaches highest; from left to right beside and above each other."""
    best: dict[str, Share] = {}
    for share in sorted(used, key=lambda share: share.gmacs_per_s):
        best[share.candidate.encoder] = share
    for share in best.values():
        place = share.gmacs, share.gmacs_per_s
        axes.annotate(share.candidate.encoder, place, (7, 5), textcoords="offset points", fontsize=8, rotation=30)
