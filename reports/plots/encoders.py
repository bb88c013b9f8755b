"""The figure of encoder latency."""

from __future__ import annotations

from collections.abc import Sequence

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from reports.candidates import fastest_of
from reports.encoders import EncoderRow, timed
from reports.machine import MachineReport
from reports.plots.style import (
    INK,
    finish,
    mark_entries,
    mark_style,
    new_figure,
    plain_log,
    precision_colours,
    speedup_text,
    unpaired_note,
)
from reports.tables import counts, milliseconds

#: Latencies further apart than this many times are drawn on a logarithmic axis.
LOG_SCALE_FROM = 20


def encoder_figure(report: MachineReport) -> Figure | None:
    """A line an encoder: every sample, quartiles and median of each of its runtimes and precisions."""
    lines = _lines(timed(report.encoders))
    if not lines:
        return None
    rows = [row for line in lines.values() for row in line]
    figure = new_figure(1.9 + 0.34 * len(lines))
    axes = figure.subplots()
    for place, line in enumerate(lines.values()):
        _draw_line(axes, place, line)
    axes.set_yticks(range(len(lines)), list(lines))
    axes.set_ylim(len(lines) - 0.4, -0.6)
    fastest_ms, slowest_ms = (1e3 * bound(bound(row.encode_samples.values) for row in rows) for bound in (min, max))
    if slowest_ms > LOG_SCALE_FROM * fastest_ms:
        axes.set_xlim(0.8 * fastest_ms, slowest_ms * (slowest_ms / fastest_ms) ** 0.55)
        plain_log(axes, "x")
    else:
        axes.set_xlim(0, 1.6 * slowest_ms)
    axes.set_xlabel("encoder latency of one image (ms); beside: the fastest")
    n = f"n = {counts(row.encode_s.n for row in rows)} calls; mark: median, bar: quartiles, dots: every call"
    n += unpaired_note(map(fastest_of, lines.values()))
    legend = mark_entries((row.candidate for row in rows), precision_colours())
    finish(figure, "Image encoders", report, rows, n, legend, 7)
    return figure


def _lines(rows: Sequence[EncoderRow]) -> dict[str, list[EncoderRow]]:
    """Rows by encoder (and threads, where they differ), in the order of the table: the slowest first."""
    several = len({row.candidate.threads for row in rows}) > 1
    lines: dict[str, list[EncoderRow]] = {}
    for row in rows:
        threads = f", {row.candidate.threads} threads" if several else ""
        lines.setdefault(f"{row.candidate.encoder}{threads}", []).append(row)
    return lines


def _draw_line(axes: Axes, place: int, line: Sequence[EncoderRow]) -> None:
    colours = precision_colours()
    for row in line:
        colour = colours.get(row.candidate.precision, INK)
        samples_ms = [1e3 * seconds for seconds in row.encode_samples.values]
        axes.plot(samples_ms, [place] * len(samples_ms), ".", color=colour, alpha=0.35, markersize=5, zorder=2)
        quartiles_ms = [1e3 * row.encode_s.q1, 1e3 * row.encode_s.q3]
        axes.plot(quartiles_ms, [place, place], color=colour, linewidth=4, alpha=0.6, solid_capstyle="butt", zorder=3)
        axes.plot(1e3 * row.median_s, place, linestyle="none", zorder=4, **mark_style(row.candidate, colour))
    fastest = fastest_of(line)
    right_ms = 1e3 * max(max(row.encode_samples.values) for row in line)
    who = f"{fastest.candidate.backend} {fastest.candidate.precision}"
    text = f"{milliseconds(fastest.median_s)} ms   {speedup_text(fastest)}   {who if len(line) > 1 else ''}"
    axes.annotate(text, (right_ms, place), (9, 0), textcoords="offset points", va="center", fontsize=9)
