"""Figures as files: which there may be, and drawing them in a process of their own, beside the tables.

Imports next to nothing, so that this process is begun before anything else.
"""

from __future__ import annotations

import gc
import signal
from collections.abc import Iterator, Sequence
from concurrent.futures import Executor, ProcessPoolExecutor
from dataclasses import dataclass, replace
from itertools import repeat
from multiprocessing import get_context
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from reports.machine import MachineReport

#: File stem and caption of every figure, in the order of the report.
CAPTIONS = {
    "accuracy_latency": "Accuracy against latency",
    "dsc_distribution": "Distribution of the DSC",
    "case_stages": "Stages of 3D cases",
    "case_scaling": "Latency against objects and slices",
    "encoder_latency": "Encoder latency",
    "roofline": "Achieved multiply-adds against the machine's peak",
}


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


def drawing_process() -> Executor | None:
    """A process that gets ready to draw while records are read; None where there can be none, as without /dev/shm."""
    try:
        pool = ProcessPoolExecutor(1, mp_context=get_context("spawn"))
        pool.submit(_get_ready)
    except (OSError, NotImplementedError):
        return None
    return pool


def draw(
    reports: Sequence[MachineReport], suffixes: Sequence[str], out_dir: Path, pool: Executor | None = None
) -> Iterator[list[Picture]]:
    """The figures of each machine: drawn when they are asked for, or by `pool` from now on.

    Args:
        reports: a machine each.
        suffixes: of the file names of each.
        out_dir: folder that exists; files are written whole or not at all.
        pool: draws in another process, which is the last that it does.
    """
    # Records are most of a report, and no figure looks at them.
    rows = [replace(report, records=[], history=[]) for report in reports]
    if pool is None:
        return map(_draw, rows, suffixes, repeat(out_dir))
    drawn = pool.map(_draw, rows, suffixes, repeat(out_dir))
    pool.shutdown(wait=False)
    return drawn


def _draw(report: MachineReport, suffix: str, out_dir: Path) -> list[Picture]:
    from reports.plots import draw_figures

    return draw_figures(report, out_dir, suffix)


def _get_ready() -> None:
    """Of the process that draws: Ctrl-C is for the one that waits for it; garbage goes with it."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    gc.disable()
    import reports.plots  # noqa: F401
