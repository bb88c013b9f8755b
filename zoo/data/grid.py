"""Orientation: between the voxel axes of a file and the axial slices that everything here works on.

Slices are axial, as a radiologist sees them: x grows to the patient's left, y to the back, z to the head (LPS).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from nibabel.orientations import apply_orientation, axcodes2ornt, inv_ornt_aff, io_orientation, ornt_transform
from numpy.typing import NDArray

_LPS = axcodes2ornt(("L", "P", "S"))


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

    @property
    def slices_affine(self) -> NDArray[np.float64]:
        """(4, 4): voxel (x, y, z) of the axial slices to RAS mm."""
        scale = np.diag([self.unit_mm] * 3 + [1.0])
        turned: NDArray[np.float64] = scale @ self.affine @ inv_ornt_aff(self._to_lps(), self.shape)
        return turned

    @property
    def spacing_mm(self) -> tuple[float, ...]:
        """Voxel size along (z, y, x) of the slices."""
        return tuple(float(size) for size in np.linalg.norm(self.slices_affine[:3, :3], axis=0)[::-1])

    def to_slices(self, voxels: NDArray[Any]) -> NDArray[Any]:
        """(I, J, K) of the file to (D, H, W)."""
        turned: NDArray[Any] = apply_orientation(voxels, self._to_lps()).transpose(2, 1, 0)
        return turned

    def to_file(self, voxels: NDArray[Any]) -> NDArray[Any]:
        """(D, H, W) back to (I, J, K) of the file."""
        back = ornt_transform(_LPS, io_orientation(self.affine))
        turned: NDArray[Any] = apply_orientation(voxels.transpose(2, 1, 0), back)
        return turned

    def boxes_to_slices(self, boxes: NDArray[np.int64]) -> NDArray[np.int64]:
        """Inclusive boxes (N, 6) `i_min j_min k_min i_max j_max k_max` of the file to `x_min y_min z_min ...`."""
        turned = np.empty_like(boxes)
        for axis, (target, direction) in enumerate(self._to_lps()):
            low, high = boxes[:, axis], boxes[:, axis + 3]
            if direction < 0:
                low, high = self.shape[axis] - 1 - high, self.shape[axis] - 1 - low
            turned[:, int(target)], turned[:, int(target) + 3] = low, high
        return turned

    def _to_lps(self) -> NDArray[np.float64]:
        turn: NDArray[np.float64] = ornt_transform(io_orientation(self.affine), _LPS)
        return turn
