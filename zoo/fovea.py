"""The fovea: what of an embedding a decoder sees position by position to answer a box, and how the rest.

SAM's decoder compares a few tokens with all 4096 positions of an embedding, for each box anew, though little of it is
near the box. Here it sees the positions around the box, and of the others the mean of each cell of 4x4, which counts
for sixteen where tokens weigh positions against each other. That is SAM's decoder, but for rounding, on an embedding,
an encoding of positions and a mask that are blurred outside the fovea (of a mask, each of a position's 4x4 pixels by
itself); but on as many positions as are left.

It is no equal path, then: ckpts/light_repvit_m0_9.md tells what it changes, docs/results.md what it gains.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from zoo.registry import EMBEDDING_SIZE

#: Positions along the side of a cell, whose mean stands for them where they are not in the fovea.
CELL = 4
#: Cells of an embedding.
CELLS = (EMBEDDING_SIZE // CELL) ** 2
#: Of a box's extent, that the fovea reaches beyond it on each side, and on to the end of a cell.
MARGIN = 0.125
#: Positions of the largest fovea: what a box that needs more would save does not make up for an image of its own.
LARGEST = 3072
#: What the number of positions is a multiple of: runtimes prepare themselves for each new shape, which takes 5 ms.
SEEN_STEP = 64
#: Boxes times positions that are decoded together: fewer call too often, more do not stay in a cache.
TOGETHER = 8192


@dataclass(frozen=True)
class Fovea:
    """What is seen of an embedding to answer B boxes.

    Attributes:
        seen: int64 (B, S), positions that are seen one by one; 0 where there are fewer than S.
        counts: float32 (B, S + CELLS): for how many positions each of `seen`, and then each cell stands; 0 where `seen`
            has nothing to say, and of cells within the fovea.
        wanted: int64 (N,), places in `counts`, through all rows, of the positions that `positions_in` tells.
    """

    seen: NDArray[np.int64]
    counts: NDArray[np.float32]
    wanted: NDArray[np.int64]


def fovea_of(windows: NDArray[np.int64]) -> Fovea:
    """What is seen to decode windows (B, 4), see `zoo.windows`; each row depends on its own window alone."""
    foveae = _around(windows)
    each = [_positions(fovea) for fovea in foveae]
    most = -(-max(map(len, each)) // SEEN_STEP) * SEEN_STEP
    seen = np.zeros((len(each), most), np.int64)
    fine = np.zeros((len(each), most), np.float32)
    for row, positions in enumerate(each):
        seen[row, : len(positions)], fine[row, : len(positions)] = positions, 1
    within = _inside(np.arange(CELLS), foveae // CELL, EMBEDDING_SIZE // CELL)
    counts = np.concatenate([fine, np.where(within, 0, CELL**2).astype(np.float32)], axis=1)
    of, place = np.nonzero(_inside(seen, windows, EMBEDDING_SIZE) & (fine > 0))
    return Fovea(seen, counts, of * counts.shape[1] + place)


def has_small_fovea(windows: NDArray[np.int64]) -> NDArray[np.bool_]:
    """Which of windows (B, 4) are decoded with a fovea: others are answered sooner from all of an embedding."""
    small: NDArray[np.bool_] = _sizes(windows) <= LARGEST
    return small


def batches_of(windows: NDArray[np.int64]) -> list[list[int]]:
    """Which of windows (B, 4) are decoded together, the largest first: those of foveae of like size."""
    sizes = _sizes(windows) + CELLS
    batches: list[list[int]] = []
    for place in np.argsort(-sizes, kind="stable").tolist():
        if batches and (len(batches[-1]) + 1) * sizes[batches[-1][0]] <= TOGETHER:
            batches[-1].append(place)
        else:
            batches.append([place])
    return batches


def _sizes(windows: NDArray[np.int64]) -> NDArray[np.int64]:
    """Positions in the fovea of each of windows (B, 4)."""
    low, high = np.split(_around(windows), 2, axis=1)
    sizes: NDArray[np.int64] = (high - low).prod(axis=1)
    return sizes


def _around(windows: NDArray[np.int64]) -> NDArray[np.int64]:
    """Windows (B, 4) with their margin, in whole cells, of which each has one or more."""
    low, high = windows[:, :2], windows[:, 2:]
    margin = np.ceil(MARGIN * (high - low)).astype(np.int64)
    start = np.clip((low - margin) // CELL * CELL, 0, EMBEDDING_SIZE - CELL)
    end = np.clip(-(-(high + margin) // CELL) * CELL, start + CELL, EMBEDDING_SIZE)
    return np.concatenate([start, end], axis=1)


def _positions(window: NDArray[np.int64]) -> NDArray[np.int64]:
    """The positions in a window (4,), row by row."""
    x_min, y_min, x_max, y_max = window
    return (np.arange(y_min, y_max)[:, None] * EMBEDDING_SIZE + np.arange(x_min, x_max)).ravel()


def _inside(positions: NDArray[np.int64], windows: NDArray[np.int64], side: int) -> NDArray[np.bool_]:
    """Whether positions (B, P) or (P,) of a grid are in each of the windows (B, 4): (B, P)."""
    x, y = positions % side, positions // side
    x_min, y_min, x_max, y_max = windows.T[..., None]
    inside: NDArray[np.bool_] = (x >= x_min) & (x < x_max) & (y >= y_min) & (y < y_max)
    return inside
