"""Figures of what was measured on one machine, each in light and in dark. Needs no display."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import matplotlib as mpl
from matplotlib.figure import Figure

from reports.machine import MachineReport
from reports.plots.accuracy import accuracy_figure, distribution_figure
from reports.plots.cases import scaling_figure, stages_figure
from reports.plots.encoders import encoder_figure
from reports.plots.roofline import roofline_figure
from reports.plots.style import THEMES, place_like, save


@dataclass(frozen=True)
class Picture:
    """A figure as files.

    Attributes:
        caption: what it shows.
        light: file name of the one for light pages.
        dark: file name of the one for dark pages.
    """

    caption: str
    light: str
    dark: str

    def to_markdown(self) -> str:
        """An image that follows the reader's colour scheme, where the page allows it; the light one elsewhere."""
        source = f'<source media="(prefers-color-scheme: dark)" srcset="{self.dark}">'
        return f'<picture>{source}<img alt="{self.caption}" src="{self.light}"></picture>'


#: File stem, caption, and what draws it (or None where there is no data for it), in the order of the report.
DRAWINGS: tuple[tuple[str, str, Callable[[MachineReport], Figure | None]], ...] = (
    ("accuracy_latency", "Accuracy against latency", accuracy_figure),
    ("dsc_distribution", "Distribution of the DSC", distribution_figure),
    ("case_stages", "Stages of 3D cases", stages_figure),
    ("case_scaling", "Latency against objects and slices", scaling_figure),
    ("encoder_latency", "Encoder latency", encoder_figure),
    ("roofline", "Achieved multiply-adds against the machine's peak", roofline_figure),
)


def draw_figures(report: MachineReport, out_dir: Path, suffix: str = "") -> list[Picture]:
    """Draws what there is data for.

    Args:
        report: of one machine.
        out_dir: folder that exists; files are written whole or not at all.
        suffix: of file names, to tell machines apart.
    """
    pictures = []
    for name, caption, draw in DRAWINGS:
        picture = Picture(caption, f"{name}{suffix}.png", f"{name}{suffix}_dark.png")
        if _draw_themes(draw, report, {"light": out_dir / picture.light, "dark": out_dir / picture.dark}):
            pictures.append(picture)
    return pictures


def _draw_themes(
    draw: Callable[[MachineReport], Figure | None], report: MachineReport, files: Mapping[str, Path]
) -> bool:
    """One figure, a file a theme; whether there is data for it."""
    first: Figure | None = None
    for theme, path in files.items():
        with mpl.rc_context(THEMES[theme]):
            figure = draw(report)
            if figure is None:
                return False
            if first is not None:
                place_like(figure, first)
            save(figure, path)
        first = figure
    return True
