"""From a scan and its labels to a case: intensities, small objects, instances, boxes."""

from __future__ import annotations

import zlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from zoo.data.case import Case, boxes_from_labels, validate_boxes
from zoo.data.intensity import PERCENTILES, SOFT_TISSUE, Window, to_uint8
from zoo.data.masks import MOST_LABELS, Mask, Objects
from zoo.data.scan import Scan, read_objects, read_scan, stem
from zoo.errors import InputError

Labels = NDArray[np.uint16]


@dataclass(frozen=True)
class Preparation:
    """How a scan becomes a case. The defaults change no label.

    Attributes:
        modality: in place of what the file tells.
        window: of a CT.
        percentiles: of the non-zero voxels, that other modalities are scaled between.
        remove_labels: labels that become background.
        instances: every connected part of a label becomes an object of its own, numbered from 1.
        min_voxels: connected parts of a volume's labels with fewer voxels are dropped.
        min_pixels: connected parts of a slice's or picture's labels with fewer pixels are dropped.
        labelled_slices: a volume is cut to the slices from the first label to the last.
        box_jitter_px: each side of a box moves outward by 0 to so many pixels, within the slice.
        seed: of the jitter, which also depends on the case's name.
    """

    modality: str | None = None
    window: Window = SOFT_TISSUE
    percentiles: tuple[float, float] = PERCENTILES
    remove_labels: tuple[int, ...] = ()
    instances: bool = False
    min_voxels: int = 0
    min_pixels: int = 0
    labelled_slices: bool = False
    box_jitter_px: int = 0
    seed: int = 0


def load_pair(
    image_path: Path, labels_paths: Sequence[Path], preparation: Preparation | None = None, case_id: str | None = None
) -> Case:
    """Reads an image and its labels, of one file or of one a object; boxes are taken from the labels.

    Raises:
        InputError: a file, type, shape, geometry or value that cannot be used, or no object.
    """
    scan = read_scan(image_path)
    return prepare_case(
        scan, read_objects(labels_paths, scan), preparation or Preparation(), case_id or stem(image_path)
    )


def prepare_case(scan: Scan, objects: Objects, preparation: Preparation, case_id: str) -> Case:
    """The case of a scan and its labels.

    Args:
        scan: of the image.
        objects: of its spatial shape. Instances are told apart, and have their boxes, by the label map alone, and they
            have no names.
        preparation: how.
        case_id: of the case.

    Raises:
        InputError: no object is left.
    """
    _, drawn = boxes_from_labels(objects.labels)
    labels = prepare_labels(objects.labels, preparation)
    boxes, object_labels = Objects(labels, _prepare_masks(objects.covered, preparation)).boxes()
    left_out = np.setdiff1d(drawn, [*object_labels, *preparation.remove_labels])
    if preparation.instances:
        labels = split_instances(labels)
        boxes, object_labels = boxes_from_labels(labels)
    if not len(boxes):
        raise InputError(scan.path, "no labelled object that is kept", "labels; see the least sizes that are asked for")
    boxes = jitter_boxes(boxes, labels.shape, preparation, case_id)
    case = case_of_boxes(scan, boxes, object_labels, preparation, case_id)
    names = {} if preparation.instances else objects.names
    case = replace(case, labels=labels, left_out=tuple(left_out.tolist()), label_names=names)
    if preparation.labelled_slices and case.is_volume:
        labelled = np.flatnonzero(labels.any(axis=(1, 2)))
        case = case.cut_slices(int(labelled[0]), int(labelled[-1]))
    return case


def case_of_boxes(
    scan: Scan, boxes: NDArray[np.int64], object_labels: Labels, preparation: Preparation, case_id: str
) -> Case:
    """The case of a scan and boxes in its slices.

    Raises:
        InputError: a box that cannot be used.
    """
    boxes = validate_boxes(scan.path, boxes, scan.spatial_shape)
    modality = preparation.modality or scan.modality
    image = image_of(scan, modality, preparation)
    affine = scan.grid.slices_affine if scan.grid else None
    return Case(case_id, modality, image, boxes, object_labels, scan.spacing_mm, None, scan.path, affine)


def image_of(scan: Scan, modality: str, preparation: Preparation) -> NDArray[np.uint8]:
    """uint8 (D, H, W), or (H, W, 3) of a picture. Pictures of bytes are left as they are.

    Raises:
        InputError: a CT whose numbers are no HU, under a window that is.
    """
    voxels = scan.voxels
    if scan.grid is None and voxels.dtype == np.bool_:
        voxels = voxels.astype(np.uint8) * 255
    if scan.grid is not None or voxels.dtype != np.uint8:
        if modality == "CT":
            _check_hounsfield(scan, preparation.window)
        voxels = to_uint8(voxels, modality, preparation.window, preparation.percentiles)
    if scan.grid is not None:
        return voxels
    return voxels if voxels.ndim == 3 else np.repeat(voxels[..., None], 3, axis=2)


def _check_hounsfield(scan: Scan, window: Window) -> None:
    """Refuses a window that begins below 0 where no voxel does: fat and air do, so the numbers are shifted or scaled.

    Raises:
        InputError: such a window and such voxels.
    """
    low = window.level - window.width / 2
    if low < 0 and scan.voxels.min() >= 0:
        expected = (
            "HU; else --window LEVEL/WIDTH from 0 up, in the file's own numbers, "
            "or --modality, to scale between percentiles as other modalities are"
        )
        raise InputError(scan.path, f"a CT without a value below 0, for a window from {low:g}", expected)


def prepare_labels(labels: Labels, preparation: Preparation) -> Labels:
    """Labels without those to remove and without small parts."""
    kept = np.where(np.isin(labels, preparation.remove_labels), 0, labels).astype(np.uint16)
    if labels.ndim == 3:
        kept = drop_small(kept, preparation.min_voxels)
        for z in np.flatnonzero(kept.any(axis=(1, 2))):
            kept[z] = drop_small(kept[z], preparation.min_pixels)
    else:
        kept = drop_small(kept, preparation.min_pixels)
    return kept


def _prepare_masks(masks: Mapping[int, Mask], preparation: Preparation) -> dict[int, Mask]:
    """Masks by label, as `prepare_labels` leaves each alone."""

    def prepared(inside: NDArray[np.bool_], label: int) -> NDArray[np.bool_]:
        return prepare_labels(inside * np.uint16(label), preparation) > 0

    return {label: mask.changed(partial(prepared, label=label)) for label, mask in masks.items()}


def drop_small(labels: Labels, least: int) -> Labels:
    """A copy without connected parts (diagonal neighbours count) of fewer than `least` pixels or voxels."""
    kept = labels.copy()
    if least > 1:
        for part, region in _parts(labels):
            if np.count_nonzero(part) < least:
                kept[region][part] = 0
    return kept


def split_instances(labels: Labels) -> Labels:
    """Connected parts numbered from 1, in order of their labels.

    Raises:
        InputError: more parts than a label map can hold.
    """
    instances = np.zeros_like(labels)
    for number, (part, region) in enumerate(_parts(labels), start=1):
        if number > MOST_LABELS:
            raise InputError("labels", f"more than {MOST_LABELS} connected parts", "fewer objects")
        instances[region][part] = number
    return instances


def _parts(labels: Labels) -> Iterator[tuple[NDArray[np.bool_], tuple[slice, ...]]]:
    """Each connected part of each label: its mask within a region of the array."""
    neighbours = np.ones((3,) * labels.ndim)
    for value, region in enumerate(ndimage.find_objects(labels), start=1):
        if region is not None:
            parts, _ = ndimage.label(labels[region] == value, neighbours)
            for number, inner in enumerate(ndimage.find_objects(parts), start=1):
                outer = tuple(slice(a.start + b.start, a.start + b.stop) for a, b in zip(region, inner, strict=True))
                yield parts[inner] == number, outer


def jitter_boxes(
    boxes: NDArray[np.int64], shape: tuple[int, ...], preparation: Preparation, case_id: str
) -> NDArray[np.int64]:
    """Boxes grown within their slices by a random number of pixels on each side."""
    if not preparation.box_jitter_px:
        return boxes
    rng = np.random.default_rng((preparation.seed, zlib.crc32(case_id.encode(errors="surrogateescape"))))
    low, high = boxes[:, :2], boxes[:, boxes.shape[1] // 2 :][:, :2]
    grown = boxes.copy()
    half = boxes.shape[1] // 2
    grown[:, :2] = np.maximum(low - rng.integers(0, preparation.box_jitter_px + 1, low.shape), 0)
    limit = np.array(shape[::-1][:2]) - 1
    grown[:, half : half + 2] = np.minimum(high + rng.integers(0, preparation.box_jitter_px + 1, high.shape), limit)
    return grown
