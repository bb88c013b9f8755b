"""The figure of how much of the machine each encoder uses."""

from __future__ import annotations

import math

import seaborn as sns
from matplotlib.figure import Figure

from reports.machine import MachineReport
from reports.peak import PRECISIONS, Peak, Share, shares
from reports.plots.style import MARKERS, PALETTE, counts, ink, legend_below, new_figure, plain_log, title
from reports.tables import significant


def roofline_figure(report: MachineReport) -> Figure | None:
    """Achieved multiply-adds a second of each encoder against its cost, under the machine's measured peaks."""
    used = shares(report.encoders, report.peaks)
    if not used:
        return None
    figure, axes = new_figure(5.0)
    colours = dict(zip(PRECISIONS, sns.color_palette(PALETTE, len(PRECISIONS)), strict=True))
    runtimes = sorted({share.row.candidate.backend for share in used})
    for share in used:
        who = share.row.candidate
        axes.scatter(
            share.row.encoder_gmacs,
            share.gmacs_per_s,
            s=60,
            marker=MARKERS[runtimes.index(who.backend) % len(MARKERS)],
            color=colours.get(who.precision, ink()),
            edgecolor=ink(),
            linewidth=0.6,
            label=f"{who.backend} {who.precision}",
            zorder=3,
        )
    for share in _highest(used):
        place = share.row.encoder_gmacs, share.gmacs_per_s
        axes.annotate(share.row.candidate.encoder, place, (0, 7), textcoords="offset points", fontsize=7.5, ha="center")
    peak = report.peaks[max(report.peaks)]
    for precision, colour in colours.items():
        limit = peak.gmacs_per_s(precision)
        if math.isfinite(limit):
            text = f"{precision} peak: {significant(limit)} GMAC/s"
            axes.axhline(limit, color=colour, linestyle="--", linewidth=1.4, label=text)
    axes.grid(visible=True, axis="both")
    plain_log(axes, "x", "y")
    axes.margins(x=0.12, y=0.12)
    axes.set_xlabel("multiply-adds of one image (GMACs)")
    axes.set_ylabel("achieved (GMAC/s)")
    legend_below(figure, 3)
    n = f"{counts(share.row.encode_s.n for share in used)} calls; peak n = {_peak_n(peak)}, run {peak.run_id}"
    title(figure, "Achieved multiply-adds against the machine's peak", report, [share.row for share in used], n)
    return figure


def _highest(used: list[Share]) -> list[Share]:
    """Of each encoder the point that reaches highest: where its name goes."""
    best: dict[str, Share] = {}
    for share in sorted(used, key=lambda share: share.gmacs_per_s):
        best[share.row.candidate.encoder] = share
    return list(best.values())


def _peak_n(peak: Peak) -> int:
    return peak.stream_s.n
