"""NIfTI volumes."""

from __future__ import annotations

import zlib
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
from nibabel.filebasedimages import ImageFileError
from nibabel.orientations import io_orientation
from nibabel.spatialimages import HeaderDataError
from numpy.typing import NDArray

from zoo.data.case import check_size
from zoo.data.grid import Grid
from zoo.errors import InputError

SUFFIXES = (".nii", ".nii.gz")
#: What a header may say its coordinates are in; where it does not, they are in mm.
UNITS_MM = {"mm": 1.0, "micron": 1e-3, "meter": 1e3}
#: Fields of a header that place voxels: quaternion and matrix, each with a code for what it leads to, and sizes.
_PLACING = (
    *("pixdim", "qform_code", "quatern_b", "quatern_c", "quatern_d", "qoffset_x", "qoffset_y", "qoffset_z"),
    *("sform_code", "srow_x", "srow_y", "srow_z"),
)
#: Header extensions are a few kilobytes; DICOM headers that some converters keep there, a few hundred.
MOST_EXTENSION_BYTES = 2**24
_BROKEN = (ImageFileError, HeaderDataError, OSError, EOFError, ValueError, OverflowError, MemoryError, zlib.error)


def read_nifti(path: Path) -> tuple[NDArray[Any], Grid]:
    """Voxels (I, J, K) as stored, scaled, and where they lie.

    Raises:
        InputError: no readable NIfTI volume.
    """
    try:
        _check_offset(path)
        file: Any = nib.load(path)
        shape = file.shape[:3] if len(file.shape) == 4 and file.shape[3] == 1 else file.shape
        if len(shape) != 3 or 0 in shape:
            raise InputError(path, f"shape {file.shape}", "a 3D volume")
        check_size(path, shape)
        if not _leads_to_space(file.affine):
            raise InputError(path, "an affine that cannot be inverted", "a voxel-to-world matrix")
        voxels = _voxels(file.dataobj).reshape(shape)
    except InputError:
        raise
    except _BROKEN as error:
        raise InputError(path, f"no readable NIfTI ({error})", "a whole .nii or .nii.gz file") from error
    if voxels.dtype.kind not in "biuf":
        raise InputError(path, f"{voxels.dtype} voxels", "numbers")
    fields = {name: np.array(file.header[name]) for name in _PLACING}
    affine = np.asarray(file.affine, np.float64)
    return voxels, Grid(affine, (shape[0], shape[1], shape[2]), _unit_mm(file.header), fields)


def nifti_of(voxels: NDArray[Any], grid: Grid) -> nib.Nifti1Image:
    """Voxels in the axes of a file, as a NIfTI that places them as that file does; nothing else of it is taken over."""
    header = nib.Nifti1Header()
    header.set_data_dtype(voxels.dtype)
    for name, value in grid.nifti_fields.items():
        header[name] = value
    image = nib.Nifti1Image(voxels, grid.affine, header if grid.nifti_fields else None)
    image.header.set_xyzt_units(next(unit for unit, size_mm in UNITS_MM.items() if size_mm == grid.unit_mm))
    return image


def _unit_mm(header: nib.Nifti1Header) -> float:
    try:
        return UNITS_MM.get(header.get_xyzt_units()[0], 1.0)
    except KeyError:  # a code of no unit
        return 1.0


def _voxels(stored: Any) -> NDArray[Any]:
    """Of the file's own type; scaled ones as float32, of which nibabel would make float64."""
    if stored.slope == 1 and stored.inter == 0:
        return np.asanyarray(stored)
    return np.asarray(stored, np.float32)


def _check_offset(path: Path) -> None:
    """Refuses voxels that are said to begin far behind the header: all before them is inflated and kept.

    Raises:
        InputError: they begin too far behind.
    """
    with nib.openers.ImageOpener(str(path)) as stream:
        head = stream.read(nib.Nifti2Header.sizeof_hdr)
    for kind in (nib.Nifti1Header, nib.Nifti2Header):
        if kind.may_contain_header(head):
            offset = kind(head[: kind.sizeof_hdr], check=False)["vox_offset"]
            if not offset <= MOST_EXTENSION_BYTES:
                raise InputError(
                    path, f"voxels from byte {offset}", f"a header of at most {MOST_EXTENSION_BYTES} bytes"
                )


def _leads_to_space(affine: NDArray[np.float64]) -> bool:
    """Whether an affine can be inverted and each voxel axis has a nearest axis of the world."""
    if not np.isfinite(affine).all():
        return False
    sizes = np.linalg.norm(affine[:3, :3], axis=0)  # of voxels, which may be nanometres
    if not sizes.all() or abs(np.linalg.det(affine[:3, :3] / sizes)) < 1e-12:
        return False
    axes = io_orientation(affine)[:, 0]
    return sorted(axes.tolist()) == [0, 1, 2]
