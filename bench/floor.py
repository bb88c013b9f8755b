"""The floor of every accuracy table: what a box prompt alone is worth, without looking at the image."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from zoo.data.case import Case


def ellipse_segmentation(case: Case) -> NDArray[np.uint16]:
    """Paints the ellipse (2D) or ellipsoid (3D) inscribed in each box of `case`.

    A pixel belongs to it where its centre does: ((x - cx) / rx)^2 + ((y - cy) / ry)^2 (+ the same for z) <= 1, with
    the box's centre and half its inclusive width, so that an ellipse touches the outer edges of its outermost pixels.

    Args:
        case: boxes within the image, as `zoo.data.case.validate_boxes` has it.

    Returns:
        uint16 label map of `case.spatial_shape`, holding `case.object_labels`; where boxes overlap, the later object
        lies over the earlier. Every object is painted on at least one pixel before that.
    """
    labels = np.zeros(case.spatial_shape, np.uint16)
    for box, value in zip(case.boxes, case.object_labels, strict=True):
        # Boxes are in the order x, y(, z), axes in the order (z,) y, x.
        first, last = np.split(box, 2)
        region = labels[tuple(slice(low, high + 1) for low, high in zip(first[::-1], last[::-1], strict=True))]
        region[_inscribed_ellipsoid(region.shape)] = value
    return labels


def _inscribed_ellipsoid(shape: tuple[int, ...]) -> NDArray[np.bool_]:
    """Bool array of `shape`: the ellipsoid that touches all its sides."""
    squares = [
        ((2 * index + 1) / extent - 1) ** 2 for index, extent in zip(np.ogrid[*map(slice, shape)], shape, strict=True)
    ]
    return np.asarray(sum(squares) <= 1)
