"""Orientation: between the voxel axes of a file and the slices that everything here works on.

Slices lie as a radiologist sees them. They are axial, unless the volume was plainly acquired in another plane: where
voxels are `THICK` times as long in one direction as in the others, slices are stacked in that direction.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Literal

import numpy as np
from nibabel.orientations import apply_orientation, axcodes2ornt, inv_ornt_aff, io_orientation, ornt_transform
from numpy.typing import NDArray

Plane = Literal["sagittal", "coronal", "axial"]

#: So many times the next longer side is a voxel of a volume that was acquired slice by slice.
THICK = 2.0
#: How much of that rounding in headers may take away: an image and its labels must come to the same plane.
ROUNDING = 1e-3
#: Where x, y and z of the slices of a plane grow to, in the order of the direction that they are stacked in: left to
#: right, back to front, foot to head.
_PLANES: tuple[tuple[Plane, str], ...] = (("sagittal", "PIL"), ("coronal", "LIP"), ("axial", "LPS"))
_TARGETS = {plane: axcodes2ornt(tuple(codes)) for plane, codes in _PLANES}


@dataclass(frozen=True)
class Grid:
    """Where a volume's voxels lie, in the axes of its file.

    Attributes:
        affine: float64 (4, 4): voxel (i, j, k) of the file to RAS coordinates, as nibabel has it.
        shape: (I, J, K) of the file.
        unit_mm: of the coordinates; not 1 where a file says that it is in micrometres.
        nifti_fields: of a NIfTI header, that say so in its own ways, which programs read with different preferences.
    """

    affine: NDArray[np.float64]
    shape: tuple[int, int, int]
    unit_mm: float = 1.0
    nifti_fields: Mapping[str, NDArray[Any]] = field(default_factory=dict)

    @cached_property
    def plane(self) -> Plane:
        """Of the slices: across the axis along which there is one voxel, or the voxels are much the longest."""
        if self.shape.count(1) == 1:
            return _PLANES[int(io_orientation(self.affine)[self.shape.index(1), 0])][0]
        sizes = np.linalg.norm(self.affine[:3, :3], axis=0)
        second, thickest = np.argsort(sizes)[1:]
        if sizes[thickest] < THICK * (1 - ROUNDING) * sizes[second]:
            return "axial"
        return _PLANES[int(io_orientation(self.affine)[thickest, 0])][0]

    @property
    def slices_affine(self) -> NDArray[np.float64]:
        """(4, 4): voxel (x, y, z) of the slices to RAS mm."""
        scale = np.diag([self.unit_mm] * 3 + [1.0])
        turned: NDArray[np.float64] = scale @ self.affine @ inv_ornt_aff(self._turn(), self.shape)
        return turned

    @property
    def spacing_mm(self) -> tuple[float, ...]:
        """Voxel size along (z, y, x) of the slices."""
        return tuple(float(size) for size in np.linalg.norm(self.slices_affine[:3, :3], axis=0)[::-1])

    def to_slices(self, voxels: NDArray[Any]) -> NDArray[Any]:
        """(I, J, K) of the file to (D, H, W)."""
        turned: NDArray[Any] = apply_orientation(voxels, self._turn()).transpose(2, 1, 0)
        return turned

    def to_file(self, voxels: NDArray[Any]) -> NDArray[Any]:
        """(D, H, W) back to (I, J, K) of the file."""
        back = ornt_transform(_TARGETS[self.plane], io_orientation(self.affine))
        turned: NDArray[Any] = apply_orientation(voxels.transpose(2, 1, 0), back)
        return turned

    def boxes_to_slices(self, boxes: NDArray[np.int64]) -> NDArray[np.int64]:
        """Inclusive boxes (N, 6) `i_min j_min k_min i_max j_max k_max` of the file to `x_min y_min z_min ...`."""
        turned = np.empty_like(boxes)
        for axis, (target, direction) in enumerate(self._turn()):
            low, high = boxes[:, axis], boxes[:, axis + 3]
            if direction < 0:
                low, high = self.shape[axis] - 1 - high, self.shape[axis] - 1 - low
            turned[:, int(target)], turned[:, int(target) + 3] = low, high
        return turned

    def slice_in_file(self, z: int) -> tuple[str, int]:
        """The axis of the file that its slices are stacked along, `x`, `y` or `z`, and the index of slice `z` there."""
        ((axis, direction),) = ((a, direction) for a, (target, direction) in enumerate(self._turn()) if target == 2)
        return "xyz"[axis], z if direction > 0 else self.shape[axis] - 1 - z

    def _turn(self) -> NDArray[np.float64]:
        turn: NDArray[np.float64] = ornt_transform(io_orientation(self.affine), _TARGETS[self.plane])
        return turn
