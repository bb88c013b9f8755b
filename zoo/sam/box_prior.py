"""What a box alone says about where its object is, before anyone has looked at the image."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from zoo.backends import Floats
from zoo.windows import pixels_in


def box_prior(box: NDArray[np.integer], z: int | None = None) -> NDArray[np.float64]:
    """1 - r^2 of the centre of each pixel in a box, where r = 1 is the inscribed ellipse or ellipsoid.

    Objects fill the middle of their boxes more often than the corners. As logits this is a prior: up to 1 in the
    middle, 0 on the ellipse, down to -1 in the corners of an image's box and to -2 in those of a volume's.

    Args:
        box: (4,) x_min y_min x_max y_max or (6,) with z, ends included, as in a `Case`.
        z: one slice of a volume's box; None is all of it.

    Returns:
        (h, w) of an image or of a slice, (d, h, w) of a whole volume's box.
    """
    first, last = np.split(box, 2)
    # Boxes are in the order x, y(, z), axes in the order (z,) y, x.
    at = [np.arange(low, high + 1) for low, high in zip(first[::-1], last[::-1], strict=True)]
    if z is not None:
        at[0] = np.array([z])
    ends = zip(np.ix_(*at), first[::-1], last[::-1], strict=True)
    prior = 1 - sum(((2 * (grid - low) + 1) / (high - low + 1) - 1) ** 2 for grid, low, high in ends)
    return np.asarray(prior[0] if z is not None else prior)


def add_box_prior(
    logits: Floats, box: NDArray[np.integer], weight: float, z: int | None = None, corner: tuple[int, int] = (0, 0)
) -> None:
    """Adds an object's prior to its logits (h, w), in place and within its box.

    Args:
        logits: of an image, a part of it or a slice.
        box: (4,) of the image or (6,) of the volume.
        weight: of the prior.
        z: the slice.
        corner: (x, y) in the image of the first of `logits`.
    """
    if weight:
        in_plane = box if z is None else box[[0, 1, 3, 4]]
        logits[pixels_in(in_plane - np.tile(corner, 2))] += weight * box_prior(box, z)
