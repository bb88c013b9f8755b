"""The floor of every accuracy table: what a box prompt alone is worth, without looking at the image."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from zoo.data.case import Case, box_pixels
from zoo.sam.box_prior import box_prior


def ellipse_segmentation(case: Case) -> NDArray[np.uint16]:
    """Paints the ellipse (2D) or ellipsoid (3D) inscribed in each box of `case`.

    A pixel belongs to it where its centre does: ((x - cx) / rx)^2 + ((y - cy) / ry)^2 (+ the same for z) <= 1, with
    the box's centre and half its inclusive width, so that an ellipse touches the outer edges of its outermost pixels.

    Args:
        case: boxes within the image, as `zoo.data.case.validate_boxes` has it.

    Returns:
        uint16 label map of `case.spatial_shape`, holding `case.object_labels`; the ellipse of a smaller box lies over
        that of a larger one, as `density` of `zoo.sam.overlap` has it. Before that every object has a pixel at least.
    """
    labels = np.zeros(case.spatial_shape, np.uint16)
    for number in np.argsort(-box_pixels(case.boxes), kind="stable"):
        # Boxes are in the order x, y(, z), axes in the order (z,) y, x.
        first, last = np.split(case.boxes[number], 2)
        region = labels[tuple(slice(low, high + 1) for low, high in zip(first[::-1], last[::-1], strict=True))]
        region[box_prior(case.boxes[number]) >= 0] = case.object_labels[number]
    return labels
