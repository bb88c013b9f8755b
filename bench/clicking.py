"""A person who sets masks right, imitated: after each look a click in the middle of every object's largest error.

The convention of interactive segmentation (Sofiiuk et al., arXiv:2102.06583): of what was missed and what was found too
much, the place that is farthest from being right.
"""

from __future__ import annotations

from dataclasses import replace

import cv2
import numpy as np
from numpy.typing import NDArray

from zoo.data.case import Case
from zoo.data.clicks import Click


def click_on_errors(case: Case, segmentation: NDArray[np.uint16]) -> Case:
    """The case with one click more for each object whose mask is not right yet.

    Args:
        case: with labels.
        segmentation: label map of its spatial shape.
    """
    if case.labels is None:
        return case
    clicks = list(case.clicks)
    axes = len(case.spatial_shape)
    for number, (box, label) in enumerate(zip(case.boxes, case.object_labels, strict=True)):
        low, high = box[:axes], box[axes:]
        region = tuple(slice(start, stop + 1) for start, stop in zip(low[::-1], high[::-1], strict=True))
        place = _worst_place(segmentation[region] == label, case.labels[region] == label)
        if place is not None:
            voxel, belongs = place
            clicks.append(Click(number, tuple(int(v) for v in low + voxel), belongs))
    return replace(case, clicks=tuple(clicks))


def _worst_place(found: NDArray[np.bool_], wanted: NDArray[np.bool_]) -> tuple[NDArray[np.intp], bool] | None:
    """(x, y) or (x, y, z) within two masks of the click, and whether something was missed there; None if all is right.

    In a volume it is in the slice with most wrong voxels.
    """
    wrong = found != wanted
    if not wrong.any():
        return None
    if wrong.ndim == 3:
        z = int(wrong.sum((1, 2)).argmax())
        inner = _worst_place(found[z], wanted[z])
        assert inner is not None
        return np.append(inner[0], z), inner[1]
    missed, extra = _depths(wanted & ~found), _depths(found & ~wanted)
    belongs = bool(missed.max() >= extra.max())
    deepest = missed if belongs else extra
    y, x = np.unravel_index(int(deepest.argmax()), deepest.shape)
    return np.array([x, y]), belongs


def _depths(mask: NDArray[np.bool_]) -> NDArray[np.float32]:
    """Distance of each pixel of a mask (H, W) to the nearest one that is not in it; its border is not."""
    padded = np.pad(mask, 1).astype(np.uint8)
    return np.asarray(cv2.distanceTransform(padded, cv2.DIST_L2, 5), np.float32)[1:-1, 1:-1]
