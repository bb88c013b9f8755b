"""Tiles of an image: the part in which a small object is segmented, so that the encoder sees more of its pixels.

An encoder shrinks a large image to its own resolution, and with it what is small in the image. Where the image has the
pixels, a small box is therefore looked at in a tile: one of a regular grid, so that neighbours share what was encoded.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

#: A box this much smaller than a tile, along the longer side of both, is looked at in a tile of half the side.
TIMES_SMALLER = 4


def tile_of(box: NDArray[np.integer], shape: tuple[int, int], resolution_px: int) -> tuple[int, int, int, int]:
    """The tile for a box: the whole image, or the one whose centre is nearest of those that are large enough.

    Tiles of one size overlap by half. Halving ends at the encoder's resolution, beyond which there is no more to see.

    Args:
        box: (4,) xyxy in the image's pixels, ends included.
        shape: (H, W) of the image.
        resolution_px: side of the encoder's input.

    Returns:
        xyxy in the image's pixels, ends included; it holds the box.
    """
    box_px = max(int(box[2] - box[0]), int(box[3] - box[1])) + 1
    side = max(shape)
    while side > resolution_px and side >= TIMES_SMALLER * box_px:
        side = -(-side // 2)
    x_min, x_max = _span(int(box[0]), int(box[2]), shape[1], side)
    y_min, y_max = _span(int(box[1]), int(box[3]), shape[0], side)
    return x_min, y_min, x_max, y_max


def _span(first: int, last: int, length: int, side: int) -> tuple[int, int]:
    """First and last pixel, along an axis of an image, of the tile for the pixels `first` to `last`."""
    side = min(side, length)
    step = max(1, side // 2)
    start = round(((first + last + 1 - side) / 2) / step) * step
    start = min(max(start, 0), length - side)
    return start, start + side - 1
