"""What all figures share: size, colours, marks, captions, legends, and how a file is written."""

from __future__ import annotations

import hashlib
import math
import textwrap
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import seaborn as sns
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Rectangle
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullFormatter
from numpy.typing import NDArray
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from reports.accuracy import AccuracyRow
from reports.candidates import Candidate
from reports.cases import CaseRow
from reports.encoders import EncoderRow
from reports.machine import MachineReport
from reports.tables import UNPAIRED, counts, times_cell
from zoo.files import whole_file

WIDTH_IN, DPI = 8.0, 150
#: Above the axes: the heading and two lines on where it was measured. Below: of a legend's row.
HEADING_IN, SMALL_LINE_IN, LEGEND_ROW_IN = 0.48, 0.16, 0.24
#: Characters of the small print that fit the width.
LINE = 130
#: Okabe and Ito's palette as seaborn has it: apart for colour-blind eyes, and in grey.
PALETTE = "colorblind"
#: A runtime is a marker and a precision a filling, so that neither needs its colour to be told. A star is too thin.
RUNTIME_MARKERS = {
    "torch": "o",
    "compile": "s",
    "onnxruntime": "D",
    "openvino": "^",
    "cuda": "v",
    "onnxruntime_cuda": "X",
}
OTHER_MARKER, PRECISION_MARKER = "P", "h"
FILLINGS = {"fp32": "full", "bf16": "left", "int8": "none", "fp16": "right", "int8+bf16": "bottom"}
MARKERS = "osD^vP*X"
#: A logarithmic axis from 1 to more than this is numbered 1, 3, 10; others 1, 2, 5, 10.
MANY_TIMES = 300
#: Colours of text, of the ground and of grid lines.
INK, GROUND, GRID = "#262626", "#ffffff", "#e6e6e6"
#: What ink and ground are on dark pages; the grounds are those of GitHub's pages.
DARK_INK, DARK_GROUND = "#dddddd", "#0d1117"
#: matplotlib's settings of every figure.
STYLE: Any = {
    "font.size": 10,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.grid.axis": "x",
    "axes.axisbelow": True,
    "axes.titlesize": 10.5,
    "axes.titlelocation": "left",
    "grid.color": GRID,
    "legend.labelcolor": INK,
    "legend.frameon": False,
    **dict.fromkeys(("text.color", "axes.labelcolor", "axes.edgecolor", "xtick.color", "ytick.color"), INK),
    **dict.fromkeys(("figure.facecolor", "axes.facecolor", "savefig.facecolor"), GROUND),
}
#: Parts of red, green and blue in a colour's brightness (ITU-R BT.601).
BRIGHTNESS = (0.299, 0.587, 0.114)


@dataclass(frozen=True)
class Entry:
    """A line of a legend.

    Attributes:
        label: its text.
        style: of its sample: `Line2D`'s properties.
    """

    label: str
    style: dict[str, Any]

    def handle(self) -> Line2D:
        """The sample."""
        return Line2D([], [], **{"linestyle": "none", "markersize": 8, **self.style})


def new_figure(height_in: float) -> Figure:
    """A figure of the report's width."""
    return Figure(figsize=(WIDTH_IN, height_in), dpi=DPI, layout="constrained")


def palette(count: int) -> list[Any]:
    """Colours for so many things; from the eleventh on they come again."""
    return list(sns.color_palette(PALETTE, count))


def mark_style(candidate: Candidate, colour: Any) -> dict[str, Any]:
    """How a candidate is marked: its runtime's marker, filled by its precision."""
    return {
        "marker": RUNTIME_MARKERS.get(candidate.backend, OTHER_MARKER),
        "fillstyle": FILLINGS.get(candidate.precision, "full"),
        "color": colour,
        "markerfacecoloralt": "none",
        "markersize": 8.5,
        "markeredgewidth": 1.6,
    }


def precision_colours() -> dict[str, Any]:
    """For figures whose colours are free to tell precisions, too."""
    return dict(zip(FILLINGS, palette(len(FILLINGS)), strict=True))


def mark_entries(candidates: Iterable[Candidate], colours: Mapping[str, Any] | None = None) -> list[Entry]:
    """What `mark_style` shows of some candidates: first the runtimes, then the precisions, in `colours` if given."""
    found = list(candidates)
    runtimes = sorted({who.backend for who in found})
    precisions = [precision for precision in FILLINGS if precision in {who.precision for who in found}]
    styles = {name: mark_style(Candidate("", backend=name, precision="fp32"), INK) for name in runtimes}
    for name in precisions:
        colour = (colours or {}).get(name, INK)
        styles[name] = mark_style(Candidate("", precision=name), colour) | {"marker": PRECISION_MARKER}
    return [Entry(name, style) for name, style in styles.items()]


def finish(
    figure: Figure,
    heading: str,
    report: MachineReport,
    rows: Sequence[EncoderRow] | Sequence[CaseRow],
    n: str,
    legend: Sequence[Entry] = (),
    columns: int = 4,
    run_ids: Iterable[str] = (),
) -> None:
    """Writes above the axes what is shown and where it was measured, and below them the legend.

    Args:
        figure: with its axes drawn.
        heading: what is shown.
        report: of the machine.
        rows: what is shown was measured as.
        n: how many samples, and what their spread is drawn as.
        legend: entries, row by row.
        columns: of the legend at most; fewer where so many rows are filled evenly by them.
        run_ids: that measured what is shown, if not those of the rows.
    """
    where = f"{report.title}; {counts(row.candidate.threads for row in rows)} threads; {n}"
    source = f"Records: {report.source(set(run_ids) or {run for row in rows for run in row.run_ids})}"
    small = [*textwrap.wrap(where, LINE), textwrap.shorten(source, LINE, placeholder=" ...")]
    height_in = figure.get_figheight()
    header_in = HEADING_IN + SMALL_LINE_IN * len(small)
    legend_rows = math.ceil(len(legend) / columns)
    columns = math.ceil(len(legend) / max(legend_rows, 1))
    legend_in = 0.1 + LEGEND_ROW_IN * legend_rows if legend else 0.0
    rect = (0, legend_in / height_in, 1, 1 - (header_in + legend_in) / height_in)
    figure.get_layout_engine().set(rect=rect)  # type: ignore[union-attr, call-arg]
    left = 0.1 / WIDTH_IN
    figure.text(left, 1 - 0.1 / height_in, heading, va="top", fontsize=12, weight="bold")
    figure.text(left, 1 - 0.37 / height_in, "\n".join(small), va="top", fontsize=8, alpha=0.8, linespacing=1.4)
    if legend:
        ordered = by_column(legend, columns)
        handles = [entry.handle() for entry in ordered]
        labels = [entry.label for entry in ordered]
        figure.legend(handles, labels, loc="lower center", ncols=columns, fontsize=9, handletextpad=0.3)


def by_column(entries: Sequence[Entry], columns: int) -> list[Entry]:
    """Row by row to column by column, as matplotlib fills a legend."""
    return [entry for column in range(columns) for entry in entries[column::columns]]


def name(row: AccuracyRow | CaseRow) -> str:
    """Candidate and protocol."""
    return " | ".join(filter(None, (row.label, row.protocol)))


def speedup_text(row: EncoderRow | CaseRow) -> str:
    """`2.3x`, `2.3x u` of different runs, `baseline`, or nothing."""
    if row.is_baseline:
        return "baseline"
    return times_cell(row.speedup) if math.isfinite(row.speedup.value) else ""


def unpaired_note(rows: Iterable[EncoderRow | CaseRow]) -> str:
    """What that mark means, where a row has it."""
    marked = any(speedup_text(row).endswith(UNPAIRED) for row in rows)
    return f"; {UNPAIRED}: a ratio of different runs" if marked else ""


class PlainLogLocator(LogLocator):
    """Ticks of a logarithmic axis; evenly spaced ones where fewer than two of these are in view."""

    def tick_values(self, vmin: float, vmax: float) -> Any:
        """Where ticks are, from somewhere below `vmin` to somewhere above `vmax`."""
        ticks = super().tick_values(vmin, vmax)
        in_view = sum(vmin <= tick <= vmax for tick in ticks)
        return ticks if in_view > 1 else MaxNLocator(4, steps=(1, 2, 5, 10)).tick_values(vmin, vmax)


def plain_log(axes: Axes, *which: str) -> None:
    """Logarithmic axes with plain numbers on them."""
    for each in which:
        (axes.set_xscale if each == "x" else axes.set_yscale)("log")
        axis = axes.xaxis if each == "x" else axes.yaxis
        low, high = axes.get_xlim() if each == "x" else axes.get_ylim()
        axis.set_major_locator(PlainLogLocator(subs=(1, 2, 5) if high < MANY_TIMES * low else (1, 3)))
        axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.6g}"))
        axis.set_minor_formatter(NullFormatter())


def fingerprint(figure: Figure) -> str:
    """Hash of what a figure says: its words, and the data of its lines and bars. Pixels differ between versions."""
    said = [text.get_text() for text in figure.texts]
    drawn: list[float] = []
    for axes in figure.axes:
        said += [axes.get_title("left") or axes.get_title(), axes.get_xlabel(), axes.get_ylabel()]
        said += [text.get_text() for text in axes.texts]
        drawn += [float(number) for line in axes.lines for number in np.ravel(line.get_xydata())]
        bars = [patch for patch in axes.patches if isinstance(patch, Rectangle)]
        drawn += [float(number) for bar in bars for number in (*bar.get_xy(), bar.get_width())]
    return hashlib.sha256(repr((said, [f"{number:.6g}" for number in drawn])).encode()).hexdigest()[:16]


def darkened(colours: NDArray[Any]) -> NDArray[np.uint8]:
    """Colours (N, 3), 0 to 255, as dark pages have them: the brightness from ground to ink turned round, the hue kept.

    But for what leaves 0 to 255 this is an affine map, and so is drawing one colour half over another: a picture in
    mapped colours is what drawing in mapped colours would give.
    """
    brightness = (colours @ np.array(BRIGHTNESS))[:, None]
    ground, ink, dark_ground, dark_ink = (255 * np.array(to_rgb(c)) for c in (GROUND, INK, DARK_GROUND, DARK_INK))
    towards_ink = (ground.mean() - brightness) / (ground - ink).mean()
    mapped = dark_ground + towards_ink * (dark_ink - dark_ground) + colours - brightness
    return mapped.round().clip(0, 255).astype(np.uint8)


def save(figure: Figure, light: Path, dark: Path) -> None:
    """Writes a figure in the colours of light and of dark pages, each file whole or not at all.

    256 colours make a third of the size, and nobody sees it; the two files differ in these alone. Their text chunk
    `fingerprint` tells whether what they show is still so.
    """
    about = PngInfo()
    about.add_text("fingerprint", fingerprint(figure))
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    drawn = Image.fromarray(np.asarray(canvas.buffer_rgba())).convert("RGB")
    picture = drawn.quantize(256, Image.Quantize.FASTOCTREE)
    _write(picture, light, about)
    colours = np.array(picture.getpalette(), np.uint8).reshape(-1, 3)
    picture.putpalette(darkened(colours).tobytes())
    _write(picture, dark, about)


def _write(picture: Image.Image, path: Path, about: PngInfo) -> None:
    with whole_file(path) as part:
        picture.save(part, format="png", pnginfo=about)
