"""Figures of what was measured on one machine, each for light and for dark pages. Needs no display."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

import matplotlib as mpl
from matplotlib.figure import Figure

from reports.machine import MachineReport
from reports.pictures import CAPTIONS, Picture
from reports.plots.accuracy import accuracy_figure, distribution_figure
from reports.plots.cases import scaling_figure, stages_figure
from reports.plots.encoders import encoder_figure
from reports.plots.roofline import roofline_figure
from reports.plots.style import STYLE, save

#: What draws each figure, or gives None where there is no data for it.
DRAWINGS: Mapping[str, Callable[[MachineReport], Figure | None]] = {
    "accuracy_latency": accuracy_figure,
    "dsc_distribution": distribution_figure,
    "case_stages": stages_figure,
    "case_scaling": scaling_figure,
    "encoder_latency": encoder_figure,
    "roofline": roofline_figure,
}


def draw_figures(report: MachineReport, out_dir: Path, suffix: str = "") -> list[Picture]:
    """Draws what there is data for.

    Args:
        report: of one machine; its records are not looked at.
        out_dir: folder that exists; files are written whole or not at all.
        suffix: of file names, to tell machines apart.
    """
    pictures = []
    with mpl.rc_context(STYLE):
        for name, caption in CAPTIONS.items():
            if figure := DRAWINGS[name](report):
                picture = Picture(caption, f"{name}{suffix}.png", f"{name}{suffix}_dark.png")
                save(figure, out_dir / picture.light, out_dir / picture.dark)
                pictures.append(picture)
    return pictures
