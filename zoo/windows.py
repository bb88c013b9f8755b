"""Windows of an embedding: where alone a mask is wanted, so that the decoder need not up-scale the rest.

A window (4,) counts positions of the embedding, `column_min row_min column_max row_max`, maxima excluded. Each position
is 4x4 pixels of the low-resolution mask.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from zoo.registry import EMBEDDING_SIZE
from zoo.transforms import LOW_RES_PX, Fit

#: The logit of pixels that nobody asked for: no mask.
OUTSIDE = np.float32(-1)
#: Low-resolution pixels of an embedding's position, along an axis.
CELL_PX = LOW_RES_PX // EMBEDDING_SIZE


def pixels_in(box: NDArray[np.integer]) -> tuple[slice, slice]:
    """Rows and columns of an image's pixels in a box (4,) xyxy, ends included, to index it with."""
    x_min, y_min, x_max, y_max = map(int, box)
    return slice(y_min, y_max + 1), slice(x_min, x_max + 1)


def window_of(box: NDArray[np.integer], fit: Fit) -> NDArray[np.int64]:
    """The smallest window that `restore_logits` needs for the image's pixels in a box.

    Args:
        box: (4,) xyxy in the image's pixels, ends included.
        fit: of the image in the prompt frame.
    """
    height, width = fit.image_shape
    new_height, new_width = fit.new_shape
    window = np.empty(4, np.int64)
    for axis, new, old in ((0, new_width, width), (1, new_height, height)):
        first, last = _taps(int(box[axis]), int(box[axis + 2]), new / old)
        if fit.size != LOW_RES_PX:
            first, last = _taps(first, last, LOW_RES_PX / fit.size)
        # A pixel more at each end: at whole numbers rounding decides which taps have a weight, however small.
        window[axis], window[axis + 2] = (first - 1) // CELL_PX, (last + 1) // CELL_PX + 1
    return np.clip(window, 0, EMBEDDING_SIZE)


def _taps(first: int, last: int, scale: float) -> tuple[int, int]:
    """First and last pixel that the pixels `first` to `last` of an image `1 / scale` as large are interpolated from."""
    return int(np.floor((first + 0.5) * scale - 0.5)), int(np.floor((last + 0.5) * scale - 0.5)) + 1


def positions_in(windows: NDArray[np.int64]) -> NDArray[np.int64]:
    """Positions (N,) in windows (B, 4), counted row by row through the embedding of each of B boxes after another."""
    side = np.arange(EMBEDDING_SIZE)
    columns = (side >= windows[:, 0, None]) & (side < windows[:, 2, None])
    rows = (side >= windows[:, 1, None]) & (side < windows[:, 3, None])
    return np.flatnonzero(rows[:, :, None] & columns[:, None, :])


def logits_of(pixels: NDArray[np.float32], positions: NDArray[np.int64], boxes: int) -> NDArray[np.float32]:
    """Low-resolution logits (B, 1, 256, 256), `OUTSIDE` but for the pixels (N, 4, 4) of some positions (N,)."""
    cells = np.full((boxes * EMBEDDING_SIZE**2, CELL_PX, CELL_PX), OUTSIDE, np.float32)
    cells[positions] = pixels
    grid = cells.reshape(boxes, EMBEDDING_SIZE, EMBEDDING_SIZE, CELL_PX, CELL_PX)
    return grid.transpose(0, 1, 3, 2, 4).reshape(boxes, 1, LOW_RES_PX, LOW_RES_PX)
