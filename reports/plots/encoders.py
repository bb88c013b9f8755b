"""The figure of encoder latency."""

from __future__ import annotations

import seaborn as sns
from matplotlib.figure import Figure

from reports.candidates import label_candidates
from reports.machine import MachineReport
from reports.plots.style import PALETTE, counts, ink, new_figure, plain_log, speedup_text, timed, title
from reports.tables import milliseconds

#: Latencies further apart than this many times are drawn on a logarithmic axis.
LOG_SCALE_FROM = 20


def encoder_figure(report: MachineReport) -> Figure | None:
    """Every sample, quartiles and median of each candidate's encoder, with its ratio to the baseline."""
    rows = timed(report.encoders)
    if not rows:
        return None
    labels, _ = label_candidates(row.candidate for row in rows)
    figure, axes = new_figure(1.5 + 0.46 * len(rows))
    colours = sns.color_palette(PALETTE)
    for place, row in enumerate(rows):
        colour = colours[2 if row.is_baseline else 0]
        samples_ms = [1e3 * seconds for seconds in row.encode_samples.values]
        sns.stripplot(x=samples_ms, y=[place] * len(samples_ms), orient="h", ax=axes, color=colour, alpha=0.3, size=4)
        quartiles_ms = [1e3 * row.encode_s.q1, 1e3 * row.encode_s.q3]
        axes.plot(quartiles_ms, [place, place], color=colour, linewidth=7, solid_capstyle="butt", zorder=3)
        axes.plot(1e3 * row.median_s, place, "|", color=ink(), markersize=17, markeredgewidth=2, zorder=4)
        text = f"{milliseconds(row.median_s)} ms   {speedup_text(row)}"
        axes.annotate(text, (max(samples_ms), place), (8, 0), textcoords="offset points", va="center")
    axes.set_yticks(range(len(rows)), [labels[row.candidate] for row in rows])
    axes.set_ylim(len(rows) - 0.5, -0.5)
    fastest_ms, slowest_ms = (1e3 * bound(bound(row.encode_samples.values) for row in rows) for bound in (min, max))
    if slowest_ms > LOG_SCALE_FROM * fastest_ms:
        plain_log(axes, "x")
        axes.set_xlim(0.8 * fastest_ms, slowest_ms * (slowest_ms / fastest_ms) ** 0.4)
    else:
        axes.set_xlim(0, 1.45 * slowest_ms)
    axes.set_xlabel("encoder latency of one image (ms): samples, quartiles, median")
    title(figure, "Image encoders", report, rows, f"{counts(row.encode_s.n for row in rows)} calls")
    return figure
