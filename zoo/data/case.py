"""`Case`: one image or volume with its box prompts and, where known, its labels."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from zoo.errors import InputError

#: Largest image that is read, in elements (D*H*W or H*W*C): larger ones are refused before they are inflated.
MAX_ELEMENTS = 2**28


@dataclass(frozen=True)
class Case:
    """One image to segment, in the field's array conventions.

    Attributes:
        case_id: name, unique within a run; the file's stem for files.
        modality: `CT`, `MR`, ... or `unknown`.
        image: uint8, (H, W, 3) for a 2D image or (D, H, W) for a volume of axial slices.
        boxes: int64, (N, 4) `x_min y_min x_max y_max` or (N, 6) `x_min y_min z_min x_max y_max z_max`,
            in voxels, both ends inclusive.
        object_labels: uint16 (N,), the label value that each box asks for: what is written into a segmentation,
            and what is compared with `labels`.
        spacing_mm: voxel size in the order of the image's axes: (y, x) or (z, y, x).
        labels: uint16, (H, W) or (D, H, W); None where nobody drew them.
        source: where it came from: a path, or `phantom`.
    """

    case_id: str
    modality: str
    image: NDArray[np.uint8]
    boxes: NDArray[np.int64]
    object_labels: NDArray[np.uint16]
    spacing_mm: tuple[float, ...]
    labels: NDArray[np.uint16] | None = None
    source: str | Path = "phantom"

    @property
    def is_volume(self) -> bool:
        """Whether this is a 3D case."""
        return self.boxes.shape[1] == 6

    @property
    def spatial_shape(self) -> tuple[int, ...]:
        """(H, W) or (D, H, W), in voxels."""
        return self.image.shape if self.is_volume else self.image.shape[:2]

    def keep_objects(self, count: int) -> Case:
        """The same case with its `count` largest objects by box volume, in their original order."""
        if count >= len(self.boxes):
            return self
        half = self.boxes.shape[1] // 2
        volume = np.prod(self.boxes[:, half:] - self.boxes[:, :half] + 1, axis=1)
        keep = np.sort(np.argsort(-volume, kind="stable")[:count])
        return replace(self, boxes=self.boxes[keep], object_labels=self.object_labels[keep])


def boxes_from_labels(labels: NDArray[np.integer]) -> tuple[NDArray[np.int64], NDArray[np.uint16]]:
    """Tight inclusive boxes of every non-zero label, and the label values, in ascending order.

    Args:
        labels: (H, W) or (D, H, W) integers.

    Returns:
        boxes int64 (N, 4) or (N, 6) as in `Case`, label values uint16 (N,).
    """
    raise NotImplementedError


def validate_boxes(where: str | Path, boxes: NDArray[np.generic], shape: tuple[int, ...]) -> NDArray[np.int64]:
    """Boxes as int64 (N, 4) or (N, 6), or an `InputError` that names the first bad box.

    Refused: another shape, NaN or non-integer values, no box at all, reversed ends, anything outside `shape`
    ((H, W) or (D, H, W)); for a `z_max` that equals D the message names the half-open convention.
    """
    raise InputError(where, "?", "?")
