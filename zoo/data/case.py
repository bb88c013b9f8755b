"""`Case`: one image or volume with its box prompts and, where known, its labels."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from zoo.data.clicks import Click, clicks_of_kept
from zoo.errors import InputError

#: Largest image that is read, in elements (D*H*W or H*W*C): larger ones are refused before they are inflated.
MAX_ELEMENTS = 2**28
BOX_ORDER = {4: "x_min y_min x_max y_max", 6: "x_min y_min z_min x_max y_max z_max"}


@dataclass(frozen=True)
class Case:
    """One image to segment, in the field's array conventions.

    Attributes:
        case_id: name, unique within a run; the file's stem for files.
        modality: `CT`, `MR`, ... or `unknown`.
        image: uint8, (H, W, 3) for a 2D image or (D, H, W) for a volume of slices.
        boxes: int64, (N, 4) `x_min y_min x_max y_max` or (N, 6) `x_min y_min z_min x_max y_max z_max`,
            in voxels, both ends inclusive.
        object_labels: uint16 (N,), the label value that each box asks for: what is written into a segmentation,
            and what is compared with `labels`.
        spacing_mm: voxel size in the order of the image's axes: (y, x) or (z, y, x).
        labels: uint16, (H, W) or (D, H, W); None where nobody drew them.
        source: where it came from: a path, or `phantom`.
        affine: float64 (4, 4): voxel (x, y, z) of a volume to RAS coordinates in mm, where the file says.
        left_out: label values of the file that no box asks for, being smaller than what was to be kept.
        clicks: beside the boxes.
        label_names: what a label value stands for, where that is known.
    """

    case_id: str
    modality: str
    image: NDArray[np.uint8]
    boxes: NDArray[np.int64]
    object_labels: NDArray[np.uint16]
    spacing_mm: tuple[float, ...]
    labels: NDArray[np.uint16] | None = None
    source: str | Path = "phantom"
    affine: NDArray[np.float64] | None = None
    left_out: tuple[int, ...] = ()
    clicks: tuple[Click, ...] = ()
    label_names: Mapping[int, str] = field(default_factory=dict)

    @property
    def is_volume(self) -> bool:
        """Whether this is a 3D case."""
        return self.boxes.shape[1] == 6

    @property
    def spatial_shape(self) -> tuple[int, ...]:
        """(H, W) or (D, H, W), in voxels."""
        return self.image.shape if self.is_volume else self.image.shape[:2]

    def renumbered(self) -> tuple[Case, tuple[int, ...]]:
        """The case with its objects' labels as 1 to N, in the order of the boxes, and what they were.

        A challenge npz has no other way to say which box asks for which label.

        Raises:
            InputError: nobody drew labels.
        """
        if self.labels is None:
            raise InputError(self.source, "no labels", "labels to prepare for training and scoring")
        wanted = np.arange(1, len(self.boxes) + 1, dtype=np.uint16)
        numbers = np.zeros(int(max(self.labels.max(), self.object_labels.max())) + 1, np.uint16)
        numbers[self.object_labels] = wanted
        values = tuple(self.object_labels.tolist())
        names = {new: self.label_names[old] for new, old in enumerate(values, start=1) if old in self.label_names}
        return replace(self, labels=numbers[self.labels], object_labels=wanted, label_names=names), values

    def keep_objects(self, count: int) -> Case:
        """The same case with its `count` largest objects by box volume, in their original order."""
        if count >= len(self.boxes):
            return self
        keep = np.sort(np.argsort(-box_pixels(self.boxes), kind="stable")[:count])
        return replace(
            self,
            boxes=self.boxes[keep],
            object_labels=self.object_labels[keep],
            clicks=clicks_of_kept(self.clicks, keep),
        )

    def keep_slices(self, count: int) -> Case:
        """The same volume cut to `count` neighbouring slices, those in which the objects have most slices together.

        Of several such runs it is the middle one: objects are largest there, and what there is at their ends shows
        little. Objects that none of the slices shows are dropped. A 2D case stays as it is.
        """
        if not self.is_volume or count >= len(self.image):
            return self
        together = np.convolve(
            self._shown_in_slices(0, len(self.image) - 1).sum(axis=1), np.ones(count, int), mode="valid"
        )
        fullest = np.flatnonzero(together == together.max())
        first = int(fullest[len(fullest) // 2])
        return self.cut_slices(first, first + count - 1)

    def cut_slices(self, first: int, last: int) -> Case:
        """The same volume from slice `first` to slice `last`, without the objects that none of them shows."""
        keep = np.flatnonzero(self._shown_in_slices(first, last).any(axis=0))
        boxes = self.boxes[keep].copy()
        boxes[:, [2, 5]] = np.clip(boxes[:, [2, 5]], first, last) - first
        inside = (click for click in clicks_of_kept(self.clicks, keep) if first <= click.voxel[2] <= last)
        return replace(
            self,
            image=self.image[first : last + 1],
            labels=None if self.labels is None else self.labels[first : last + 1],
            boxes=boxes,
            object_labels=self.object_labels[keep],
            affine=None if self.affine is None else self.affine @ _shift_z(first),
            clicks=tuple(replace(click, voxel=(*click.voxel[:2], click.voxel[2] - first)) for click in inside),
        )

    def _shown_in_slices(self, first: int, last: int) -> NDArray[np.bool_]:
        """Which of the slices `first` to `last` show which objects (N): those of their boxes, and where labels are
        known those with some.
        """
        z = np.arange(first, last + 1)[:, None]
        reached: NDArray[np.bool_] = (self.boxes[:, 2] <= z) & (z <= self.boxes[:, 5])
        if self.labels is None:
            return reached
        values = int(max(self.labels.max(), self.object_labels.max())) + 1
        there = np.array(
            [np.bincount(labels.ravel(), minlength=values) > 0 for labels in self.labels[first : last + 1]]
        )
        return reached & there[:, self.object_labels]


def _shift_z(slices: int) -> NDArray[np.float64]:
    shift = np.eye(4)
    shift[2, 3] = slices
    return shift


def check_size(where: str | Path, shape: Sequence[int]) -> None:
    """Refuses an array of `shape` that is too large to be an image, before it is inflated.

    Raises:
        InputError: more than `MAX_ELEMENTS` elements.
    """
    if math.prod(shape) > MAX_ELEMENTS:
        raise InputError(where, f"shape {tuple(shape)}, {math.prod(shape):,} elements", f"at most {MAX_ELEMENTS:,}")


def box_pixels(boxes: NDArray[np.integer]) -> NDArray[np.int64]:
    """Pixels or voxels (N,) in boxes (N, 4) or (N, 6), ends included."""
    first, last = np.split(boxes.astype(np.int64), 2, axis=1)
    return np.asarray(np.prod(last - first + 1, axis=1))


def boxes_from_labels(labels: NDArray[np.integer]) -> tuple[NDArray[np.int64], NDArray[np.uint16]]:
    """Tight inclusive boxes of every non-zero label, and the label values, in ascending order.

    Args:
        labels: (H, W) or (D, H, W), values 0 to 65535.

    Returns:
        boxes int64 (N, 4) or (N, 6) as in `Case`, label values uint16 (N,).
    """
    found = [(value, where) for value, where in enumerate(ndimage.find_objects(labels), start=1) if where is not None]
    boxes = [
        [axis.start for axis in reversed(where)] + [axis.stop - 1 for axis in reversed(where)] for _, where in found
    ]
    values = np.array([value for value, _ in found], np.uint16)
    return np.array(boxes, np.int64).reshape(-1, 2 * labels.ndim), values


def validate_boxes(where: str | Path, boxes: NDArray[np.generic], shape: tuple[int, ...]) -> NDArray[np.int64]:
    """Boxes as int64 (N, 4) or (N, 6), or an `InputError` that names the first bad box.

    Args:
        where: file and key, for the message.
        boxes: any numbers; whole ones in a float array are accepted.
        shape: (H, W) or (D, H, W) of the image.

    Raises:
        InputError: another shape, no numbers, NaN, fractions, no box at all, reversed ends, or ends outside `shape`.
    """
    columns = 2 * len(shape)
    if boxes.ndim != 2 or boxes.shape[1] != columns:
        raise InputError(where, f"shape {boxes.shape}", f"(N, {columns}) for an image of shape {shape}")
    if not len(boxes):
        raise InputError(where, "0 boxes", "at least one: nothing is segmented without a prompt")
    if boxes.dtype.kind not in "iuf" or not np.isfinite(boxes).all() or (boxes != np.trunc(boxes)).any():
        raise InputError(where, f"{boxes.dtype} values that are no whole numbers", "whole voxel indices")
    whole = boxes.astype(np.int64)
    sizes = np.array(shape[::-1])
    for number, box in enumerate(whole):
        low, high = box[: len(shape)], box[len(shape) :]
        if (low > high).any():
            raise InputError(
                where, f"box {number} {box.tolist()}, whose minimum is past its maximum", BOX_ORDER[columns]
            )
        if (low < 0).any() or (high >= sizes).any():
            hint = "; ends are inclusive, so a half-open box needs 1 taken off" if (high == sizes).any() else ""
            expected = f"indices within 0..{(sizes - 1).tolist()} (x, y{', z' if columns == 6 else ''}){hint}"
            raise InputError(where, f"box {number} {box.tolist()}", expected)
    return whole
