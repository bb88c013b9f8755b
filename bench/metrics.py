"""Agreement of a segmentation with its reference: Dice (DSC), surface Dice at a tolerance (NSD), scores per label.

Empty masks, everywhere in this file: both empty is NaN, because nothing was asked and nothing was answered, and a mean
must leave it out; exactly one empty is 0.0.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage
from scipy.spatial import cKDTree

from bench.surface import neighbour_codes, on_surface, surface_areas, unmatched
from zoo.errors import InputError

Box = tuple[slice, ...]


class LabelScore(NamedTuple):
    """Scores of one label.

    Attributes:
        label: its value in the label maps.
        dsc: Dice, 0 to 1; NaN where the label is in neither map.
        nsd: surface Dice at the tolerance, 0 to 1; NaN where the label is in neither map.
        prediction_voxels: how many voxels were predicted.
        reference_voxels: how many the reference has.
    """

    label: int
    dsc: float
    nsd: float
    prediction_voxels: int
    reference_voxels: int


def dice(prediction: NDArray[np.bool_], reference: NDArray[np.bool_]) -> float:
    """Dice coefficient 2 |P and R| / (|P| + |R|) of two masks.

    Args:
        prediction: bool, (H, W) or (D, H, W).
        reference: bool, the same shape.

    Returns:
        0 to 1; NaN where both are empty.

    Raises:
        InputError: the masks are not boolean, not 2D or 3D, or differ in shape.
    """
    _check_masks(prediction, reference)
    total = int(np.count_nonzero(prediction) + np.count_nonzero(reference))
    return 2 * int(np.count_nonzero(prediction & reference)) / total if total else math.nan


def nsd(
    prediction: NDArray[np.bool_],
    reference: NDArray[np.bool_],
    spacing_mm: Sequence[float],
    tolerance_mm: float = 2.0,
) -> float:
    """Normalised surface Dice: the share of both surfaces that lies within a tolerance of the other.

    The number that `compute_surface_dice_at_tolerance` of the package `surface-distance` gives, which weights surface
    elements by their size (Nikolov et al. 2018, see `bench.surface`), to the rounding of a float64 sum. They can part
    at one place: where several elements are equally far, and as far as the tolerance, and only some of these distances
    are rounded above it, the package takes one of them and this function the smallest.

    Args:
        prediction: bool, (H, W) or (D, H, W).
        reference: bool, the same shape.
        spacing_mm: voxel size in the order of the axes, each > 0.
        tolerance_mm: largest distance that still counts as agreement, >= 0.

    Returns:
        0 to 1; NaN where both are empty, 0 where one is.

    Raises:
        InputError: the masks are not boolean, not 2D or 3D, or differ in shape; the spacing has another number of axes
            or is not positive; the tolerance is negative or not finite.
    """
    _check_masks(prediction, reference)
    _check_distances(spacing_mm, tolerance_mm, prediction.ndim)
    box = _bounding_box(prediction | reference)
    if box is None:
        return math.nan
    codes = [neighbour_codes(mask[box]) for mask in (prediction, reference)]
    surfaces = [on_surface(code) for code in codes]
    areas = surface_areas(spacing_mm)
    total = missed = np.zeros(len(areas), np.int64)
    for code, surface, other in zip(codes, surfaces, reversed(surfaces), strict=True):
        total = total + _histogram(code[surface], len(areas))
        missed = missed + _histogram(code[unmatched(surface, other, spacing_mm, tolerance_mm)], len(areas))
    # Elements are counted by code and weighted once: exact where all or none agree.
    return float((total - missed) @ areas / (total @ areas))


def hd95_mm(prediction: NDArray[np.bool_], reference: NDArray[np.bool_], spacing_mm: Sequence[float]) -> float:
    """Robust Hausdorff distance: the 95th percentile of the distances between both surfaces, the larger direction's.

    Surface elements are weighted by their size; the number that `compute_robust_hausdorff` of `surface-distance` gives.

    Args:
        prediction: bool, (H, W) or (D, H, W).
        reference: bool, the same shape.
        spacing_mm: voxel size in the order of the axes, each > 0.

    Returns:
        Millimetres; NaN where both are empty, infinite where one is.

    Raises:
        InputError: as in `nsd`.
    """
    _check_masks(prediction, reference)
    _check_distances(spacing_mm, 0, prediction.ndim)
    box = _bounding_box(prediction | reference)
    if box is None:
        return math.nan
    codes = [neighbour_codes(mask[box]) for mask in (prediction, reference)]
    if not all(code.any() for code in codes):
        return math.inf
    surfaces = [np.argwhere(on_surface(code)) * np.asarray(spacing_mm) for code in codes]
    areas = [surface_areas(spacing_mm)[code[on_surface(code)]] for code in codes]
    distances = [np.asarray(cKDTree(surfaces[1 - side]).query(surfaces[side])[0]) for side in (0, 1)]
    return max(_percentile(values, weights, 0.95) for values, weights in zip(distances, areas, strict=True))


def _percentile(values: NDArray[np.float64], weights: NDArray[np.float64], part: float) -> float:
    """The smallest value at which the weights of the values up to it make up `part` of all."""
    order = np.argsort(values, kind="stable")
    summed = np.cumsum(weights[order]) / weights.sum()
    return float(values[order][min(int(np.searchsorted(summed, part)), len(values) - 1)])


def score_labels(
    prediction: NDArray[np.integer],
    reference: NDArray[np.integer],
    labels: Iterable[int],
    spacing_mm: Sequence[float],
    tolerance_mm: float = 2.0,
) -> list[LabelScore]:
    """Scores of each of `labels`, in their order.

    Args:
        prediction: label map of integers (uint16 in this project), (H, W) or (D, H, W); 0 is background.
        reference: label map of the same shape.
        labels: values to score, each > 0. Which these are is the caller's choice, since means over the labels present
            and over 1 to the largest differ.
        spacing_mm: voxel size in the order of the axes, each > 0.
        tolerance_mm: as in `nsd`.

    Returns:
        One `LabelScore` for each label.

    Raises:
        InputError: the maps are not integers, not 2D or 3D, or differ in shape; a label is not positive; spacing or
            tolerance as in `nsd`.
    """
    _check_label_maps(prediction, reference)
    _check_distances(spacing_mm, tolerance_mm, prediction.ndim)
    wanted = [int(label) for label in labels]
    if any(label < 1 for label in wanted):
        raise InputError("labels", str(min(wanted)), "values of at least 1 (0 is the background)")
    return [
        _score(label, prediction[box] == label, reference[box] == label, spacing_mm, tolerance_mm)
        for label, box in label_boxes(prediction, reference, wanted)
    ]


def label_boxes(
    prediction: NDArray[np.integer], reference: NDArray[np.integer], labels: Sequence[int]
) -> Iterator[tuple[int, Box]]:
    """Each label, >= 1, with the smallest box around it in both maps together: an empty one where it is in neither."""
    nowhere = (slice(0, 0),) * prediction.ndim
    largest = max(labels, default=0)
    found = [ndimage.find_objects(both, largest) if largest else [] for both in (prediction, reference)]
    for label in labels:
        boxes = [own[label - 1] for own in found]
        yield label, _joint_box([box for box in boxes if box is not None]) or nowhere


def _score(
    label: int,
    prediction: NDArray[np.bool_],
    reference: NDArray[np.bool_],
    spacing_mm: Sequence[float],
    tolerance_mm: float,
) -> LabelScore:
    return LabelScore(
        label,
        dice(prediction, reference),
        nsd(prediction, reference, spacing_mm, tolerance_mm),
        int(np.count_nonzero(prediction)),
        int(np.count_nonzero(reference)),
    )


def _histogram(codes: NDArray[np.uint8], length: int) -> NDArray[np.int64]:
    return np.bincount(codes, minlength=length).astype(np.int64, copy=False)


def _bounding_box(mask: NDArray[np.bool_]) -> Box | None:
    """Smallest box around `mask`, as slices; None where it is empty."""
    box = []
    for axis in range(mask.ndim):
        occupied = np.flatnonzero(mask.any(axis=tuple(other for other in range(mask.ndim) if other != axis)))
        if not len(occupied):
            return None
        box.append(slice(int(occupied[0]), int(occupied[-1]) + 1))
    return tuple(box)


def _joint_box(boxes: Sequence[Box]) -> Box:
    """Smallest box around all `boxes`; () where there is none."""
    return tuple(
        slice(min(along.start for along in alongs), max(along.stop for along in alongs))
        for alongs in zip(*boxes, strict=True)
    )


def _check_masks(prediction: NDArray[np.bool_], reference: NDArray[np.bool_]) -> None:
    for name, mask in (("prediction", prediction), ("reference", reference)):
        if mask.dtype != np.bool_:
            raise InputError(name, f"dtype {mask.dtype}", "a boolean mask, such as labels == 1")
    _check_shapes(prediction.shape, reference.shape)


def _check_label_maps(prediction: NDArray[np.integer], reference: NDArray[np.integer]) -> None:
    for name, labels in (("prediction", prediction), ("reference", reference)):
        if labels.dtype.kind not in "iu":
            raise InputError(name, f"dtype {labels.dtype}", "a label map of integers, such as uint16")
    _check_shapes(prediction.shape, reference.shape)


def _check_shapes(prediction: tuple[int, ...], reference: tuple[int, ...]) -> None:
    if len(reference) not in (2, 3):
        raise InputError("reference", f"shape {reference}", "2 or 3 axes")
    if prediction != reference:
        raise InputError("prediction", f"shape {prediction}", f"the reference's shape {reference}")


def _check_distances(spacing_mm: Sequence[float], tolerance_mm: float, ndim: int) -> None:
    if len(spacing_mm) != ndim or not all(0 < size < math.inf for size in spacing_mm):
        raise InputError("spacing_mm", str(tuple(spacing_mm)), f"{ndim} positive finite numbers, in the axes' order")
    if not 0 <= tolerance_mm < math.inf:
        raise InputError("tolerance_mm", str(tolerance_mm), "a finite number, at least 0")
