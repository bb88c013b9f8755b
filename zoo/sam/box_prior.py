"""What a box alone says about where its object is, before anyone has looked at the image."""

from __future__ import annotations

from functools import reduce

import numpy as np
from numpy.typing import NDArray

from zoo.backends import Floats
from zoo.windows import pixels_in


def box_prior(box: NDArray[np.integer]) -> NDArray[np.float64]:
    """1 - r^2 of the centre of each pixel in a box, where r = 1 is the inscribed ellipse or ellipsoid.

    Objects fill the middle of their boxes more often than the corners. As logits this is a prior: up to 1 in the
    middle, 0 on the ellipse, down to -1 in the corners of an image's box and to -2 in those of a volume's.

    Args:
        box: (4,) x_min y_min x_max y_max or (6,) with z, ends included, as in a `Case`.

    Returns:
        (h, w) of an image, (d, h, w) of a volume.
    """
    return 1 - reduce(np.add.outer, _squares(box)[::-1])


def add_box_prior(logits: Floats, box: NDArray[np.integer], weight: float, z: int | None = None) -> None:
    """Adds an object's prior to its logits (h, w), in place and within its box.

    Args:
        logits: of an image, a part of it or a slice.
        box: (4,) in the pixels of `logits`, or (6,) of the volume.
        weight: of the prior.
        z: the slice.
    """
    if not weight:
        return
    columns, rows, *slices = _squares(box)
    inside = logits[pixels_in(box if z is None else box[[0, 1, 3, 4]])]
    # One axis after another: an array of the box's size would be as large as a large image.
    inside += weight * (1 - sum(along[z - box[2]] for along in slices))
    inside -= weight * rows[:, None]
    inside -= weight * columns


def _squares(box: NDArray[np.integer]) -> list[NDArray[np.float64]]:
    """For x, y(, z) the squared distance of each pixel's centre to the box's, in half-widths of the box."""
    first, last = np.split(box, 2)
    return [
        ((2 * np.arange(high - low + 1) + 1) / (high - low + 1) - 1) ** 2 for low, high in zip(first, last, strict=True)
    ]
