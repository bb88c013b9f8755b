"""NIfTI image and label pairs, in any stored orientation."""

from __future__ import annotations

import math
import zlib
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
from nibabel.filebasedimages import ImageFileError
from nibabel.orientations import axcodes2ornt, io_orientation, ornt_transform
from nibabel.spatialimages import HeaderDataError
from numpy.typing import NDArray

from zoo.data.case import MAX_ELEMENTS, Case, boxes_from_labels, validate_boxes
from zoo.data.npz import modality_from_name
from zoo.errors import InputError

#: Window of a CT in HU: the challenge's soft-tissue preset.
CT_LEVEL_HU, CT_WIDTH_HU = 40.0, 400.0
#: Percentiles of the non-zero voxels that other modalities are scaled between, as in the challenge.
PERCENTILES = (0.5, 99.5)
#: An image without a telling name whose minimum lies below this is a CT: air is -1000 HU.
CT_MINIMUM = -200
#: How far the geometry of image and labels may differ.
GEOMETRY_TOLERANCE_MM = 1e-2


def load_nifti_pair(image_path: Path, labels_path: Path, case_id: str | None = None) -> Case:
    """Reads an image and its labels; boxes are taken from the labels.

    Slices are axial, as a radiologist sees them: x grows to the patient's left, y to the back, z to the head.

    Raises:
        InputError: a file, type, shape, geometry or value that cannot be used.
    """
    voxels, affine, spacing_mm = _load(image_path)
    label_voxels, label_affine, _ = _load(labels_path)
    if label_voxels.shape != voxels.shape:
        raise InputError(labels_path, f"shape {label_voxels.shape}", f"{voxels.shape}, that of {image_path.name}")
    if not np.allclose(affine, label_affine, atol=GEOMETRY_TOLERANCE_MM):
        off = float(np.abs(affine - label_affine).max())
        raise InputError(labels_path, f"an affine that is off by {off:.3g}", f"the geometry of {image_path.name}")
    labels = _whole_labels(labels_path, label_voxels)
    boxes, object_labels = boxes_from_labels(labels)
    validate_boxes(labels_path, boxes, labels.shape)
    if not np.isfinite(voxels).all():
        raise InputError(image_path, "NaN or infinite voxels", "finite intensities")
    name = case_id or stem(image_path)
    modality = modality_from_name(stem(image_path))
    if modality == "unknown":
        modality = "CT" if voxels.min() <= CT_MINIMUM else "MR"
    image = to_uint8(voxels, modality)
    return Case(name, modality, image, boxes, object_labels, spacing_mm, labels, image_path)


def stem(path: Path) -> str:
    """File name without `.nii` or `.nii.gz`."""
    return path.name.removesuffix(".gz").removesuffix(".nii")


def to_uint8(voxels: NDArray[np.floating], modality: str) -> NDArray[np.uint8]:
    """Intensities to 0-255: a CT by its window, others between percentiles of the non-zero voxels."""
    if modality == "CT":
        low, high = CT_LEVEL_HU - CT_WIDTH_HU / 2, CT_LEVEL_HU + CT_WIDTH_HU / 2
    else:
        inside = voxels[voxels != 0]
        if not inside.size:
            return np.zeros(voxels.shape, np.uint8)
        low, high = (float(value) for value in np.percentile(inside, PERCENTILES))
    scaled = (voxels - low) / max(high - low, 1e-8)
    return (np.clip(scaled, 0, 1) * 255).astype(np.uint8)


def _load(path: Path) -> tuple[NDArray[Any], NDArray[np.float64], tuple[float, float, float]]:
    """Voxels (D, H, W), the LPS affine of their axes in file order, and spacing (z, y, x)."""
    try:
        file: Any = nib.load(path)
        shape = file.shape[:3] if len(file.shape) == 4 and file.shape[3] == 1 else file.shape
        if len(shape) != 3 or 0 in shape:
            raise InputError(path, f"shape {file.shape}", "a 3D volume")
        if math.prod(shape) > MAX_ELEMENTS:
            raise InputError(path, f"shape {shape}, {math.prod(shape):,} voxels", f"at most {MAX_ELEMENTS:,}")
        if not np.isfinite(file.affine).all() or abs(np.linalg.det(file.affine)) < 1e-12:
            raise InputError(path, "an affine that cannot be inverted", "a voxel-to-world matrix")
        to_lps = ornt_transform(io_orientation(file.affine), axcodes2ornt(("L", "P", "S")))
        turned = file.slicer[..., 0] if len(file.shape) == 4 else file
        turned = turned.as_reoriented(to_lps)
        voxels = np.asanyarray(turned.dataobj).transpose(2, 1, 0)
    except (ImageFileError, HeaderDataError, OSError, EOFError, ValueError, zlib.error) as error:
        if isinstance(error, InputError):
            raise
        raise InputError(path, f"no readable NIfTI ({error})", "a whole .nii or .nii.gz file") from error
    if voxels.dtype.kind not in "biuf":
        raise InputError(path, f"{voxels.dtype} voxels", "numbers")
    x, y, z = (float(size) for size in turned.header.get_zooms()[:3])
    return voxels, turned.affine, (z, y, x)


def _whole_labels(path: Path, voxels: NDArray[Any]) -> NDArray[np.uint16]:
    whole = np.isfinite(voxels).all() and (voxels == np.trunc(voxels)).all()
    if not whole or voxels.min() < 0 or voxels.max() > np.iinfo(np.uint16).max:
        raise InputError(path, f"{voxels.dtype} values {voxels.min()} to {voxels.max()}", "whole labels 0 to 65535")
    return voxels.astype(np.uint16)
