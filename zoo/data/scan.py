"""Scans: images and label maps of any file that the toolkit reads, as slices or as a picture."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import product
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from zoo.data.grid import Grid
from zoo.data.intensity import CT_MINIMUM_HU
from zoo.data.masks import Objects, is_smoothed, paint
from zoo.data.modality import UNKNOWN, modality_from_name
from zoo.data.readers import nifti, picture
from zoo.data.readers.dicom import holds_labels
from zoo.errors import InputError
from zoo.ledger import is_told_of
from zoo.notes import note

#: By how much a label may be off that a file keeps as an integer times a slope.
SCALING_ERROR = 1e-3
#: How far a voxel of the labels may lie from the same one of the image, in its voxels.
GEOMETRY_TOLERANCE_VOXELS = 0.05
_ITK_SUFFIXES = (".nrrd", ".nhdr", ".mha", ".mhd")
#: Of headers whose voxels lie in a file beside them.
_DETACHED = (".nhdr", ".mhd")
DICOM_SUFFIX, _DICOM_MAGIC = ".dcm", (128, b"DICM")
#: Of the files that are read as scans; folders of DICOM files are, too.
SUFFIXES = (*nifti.SUFFIXES, *_ITK_SUFFIXES, DICOM_SUFFIX, *picture.SUFFIXES, ".npy")


@dataclass(frozen=True)
class Scan:
    """What a file holds.

    Attributes:
        path: of the file, or of the folder of a DICOM series.
        voxels: numbers as stored: (D, H, W) slices, see `zoo.data.grid`, or a picture (H, W) or (H, W, 3).
        spacing_mm: voxel size along (z, y, x) or (y, x); 1 where the file does not say.
        modality: as its name or its header tells it, or `unknown`.
        grid: where the voxels lie in the file; None for a picture.
        frame: UID of a DICOM series' frame of reference, which what is drawn on it has, too; empty where it has none.
    """

    path: Path
    voxels: NDArray[Any]
    spacing_mm: tuple[float, ...]
    modality: str
    grid: Grid | None = None
    frame: str = ""

    @property
    def spatial_shape(self) -> tuple[int, ...]:
        """(D, H, W) or (H, W)."""
        return self.voxels.shape if self.grid else self.voxels.shape[:2]


def read_scan(path: Path) -> Scan:
    """The image of a file: NIfTI, NRRD, MetaImage, DICOM file or folder, PNG, JPEG, TIFF, BMP or npy.

    Raises:
        InputError: no readable image, or one with NaN.
    """
    scan = _read(path, labels=False)
    if scan.voxels.dtype.kind == "f" and not np.isfinite(scan.voxels).all():
        raise InputError(path, "NaN or infinite voxels", "finite intensities")
    return scan


def is_dicom(path: Path) -> bool:
    """Whether a file is a DICOM file, by its suffix or, where it has none of those known, by its content.

    Scanners export `IM000001` and names that are all numbers and dots as often as `.dcm`.
    """
    name = path.name.lower()
    if name.endswith((".npz", *SUFFIXES)) or name == "dicomdir":
        return name.endswith(DICOM_SUFFIX)
    offset, magic = _DICOM_MAGIC
    try:
        with path.open("rb") as stream:
            return stream.read(offset + len(magic))[offset:] == magic
    except OSError:
        return False


def dicom_files_in(folder: Path) -> list[Path]:
    """The DICOM files of a folder, sorted; hidden ones, such as macOS' `._IM0001.dcm` beside `IM0001.dcm`, are none."""
    shown = [file for file in folder.iterdir() if not file.name.startswith(".")]
    return sorted(file for file in shown if file.is_file() and is_dicom(file))


def is_drawn(path: Path) -> bool:
    """Whether a file is a DICOM file of structures or a segmentation, which is drawn into the slices of its image."""
    return is_dicom(path) and holds_labels(path)


def are_single_images(files: Sequence[Path]) -> bool:
    """Whether DICOM files, two or more, belong to a series each, as X-rays do, and are no slices of one."""
    try:
        return _itk(files[0]).are_of_several_series(files)
    except InputError:
        return False


def files_of(path: Path) -> list[Path]:
    """The files that a scan is read from: the DICOM files of a folder; with a header, that of its voxels."""
    if path.is_dir():
        return dicom_files_in(path)
    if path.suffix.lower() in _DETACHED:
        try:
            return [path, *_itk(path).data_files(path)]
        except InputError:
            return [path]
    return [path]


def read_labels(paths: Sequence[Path], image: Scan | None = None) -> NDArray[np.uint16]:
    """The label map of `read_objects`.

    Raises:
        InputError: no readable labels, or of another shape or geometry.
    """
    return read_objects(paths, image).labels


def read_objects(paths: Sequence[Path], image: Scan | None = None) -> Objects:
    """Labels of one file, or of several files with one object each, which get the labels 1 to N in order.

    Of a DICOM file of structures or a segmentation, objects have the numbers that it gives them.

    Args:
        paths: of the files.
        image: whose shape and geometry the labels must have; DICOM's are drawn into its slices.

    Returns:
        Labels of the image's spatial shape, and where files overlap, what of whom lies below.

    Raises:
        InputError: no readable labels, or of another shape or geometry, or an object that others cover wholly.
    """
    if drawn := [path for path in paths if is_drawn(path)]:
        return _read_drawn(drawn, paths, image)
    if len(paths) == 1:
        return Objects(_read_label_map(paths[0], image))
    masks = ((number, path.name, _read_label_map(path, image) > 0) for number, path in enumerate(paths, start=1))
    return replace(paint(paths[0].parent, masks), names=object_names(paths, image.path if image else None))


def object_names(paths: Sequence[Path], image: Path | None = None) -> dict[int, str]:
    """What files of one object each are called, by label: their stems, without the image's where they begin with it."""
    before = stem(image) if image else ""
    return {number: stem(path).removeprefix(before).strip("_-. ") for number, path in enumerate(paths, start=1)}


def _read_drawn(drawn: Sequence[Path], paths: Sequence[Path], image: Scan | None) -> Objects:
    """Objects of the one DICOM file of structures or a segmentation.

    Raises:
        InputError: other files beside it, no image or no volume that it was drawn on, or another than that.
    """
    path = drawn[0]
    if len(paths) > 1:
        raise InputError(path, f"one of {len(paths)} label files", "a file of structures or a segmentation by itself")
    if image is None or image.grid is None:
        raise InputError(path, "structures or a segmentation without slices", "the DICOM series that it was drawn on")
    try:
        from zoo.data.readers.dicom_labels import read_dicom_labels
    except ModuleNotFoundError as error:
        raise InputError(
            path, "labels that pydicom reads, which is not here", "pip install 'rep-medsam[dicom]'"
        ) from error
    to_slices = image.grid.to_slices
    found = read_dicom_labels(path, image.grid, image.frame)
    masks = ((number, f"object {number}", to_slices(voxels)) for number, voxels in found)
    return paint(path, masks, leave_covered=True)


def _read_label_map(path: Path, image: Scan | None) -> NDArray[np.uint16]:
    scan = _read(path, labels=True)
    voxels = scan.voxels
    if voxels.ndim == 3 and scan.grid is None:
        if (voxels != voxels[..., :1]).any():
            raise InputError(path, "a picture in colours", "labels as grey values")
        voxels = voxels[..., 0]
    if path.suffix.lower() in picture.SUFFIXES and is_smoothed(voxels):
        note(f"{path}: found the soft edges of a resized mask, cut at half of white; {len(np.unique(voxels))} values")
        voxels = np.asarray(voxels > 127, np.uint8)
    if image is not None:
        if voxels.shape != image.spatial_shape:
            raise InputError(path, f"shape {voxels.shape}", f"{image.spatial_shape}, that of {image.path.name}")
        _check_geometry(path, scan.grid, image)
    return whole_labels(path, voxels)


def _check_geometry(path: Path, grid: Grid | None, image: Scan) -> None:
    if grid is None or image.grid is None:
        return
    if path.suffix.lower() in picture.SUFFIXES and image.path.suffix.lower() not in picture.SUFFIXES:
        expected = f"labels in a format that says where they lie, as {image.path.name} does"
        raise InputError(path, "pages of a picture, which say of no place", expected)
    # Programs that draw labels write the image's numbers and forget its unit.
    same_unit = replace(grid, unit_mm=image.grid.unit_mm)
    corners = np.array([*product(*((0, size - 1) for size in image.spatial_shape[::-1]), (1,))], np.float64).T
    # Where the corners of the labels are among the voxels of the image.
    found = np.linalg.solve(image.grid.slices_affine, same_unit.slices_affine @ corners)
    off = float(np.abs(found - corners).max())
    if not off <= GEOMETRY_TOLERANCE_VOXELS:
        raise InputError(path, f"an affine that is off by {off:.3g} voxels", f"the geometry of {image.path.name}")


def whole_labels(path: Path, voxels: NDArray[Any]) -> NDArray[np.uint16]:
    """Voxels as labels.

    The white of a black and white picture or npy is label 1, unless `segment` wrote the file: its labels are taken as
    they are. Masks in JPEG files, and in npy files of floats that are not whole or go up to 255, are cut at half their
    range.

    Raises:
        InputError: values that are no labels.
    """
    suffix = path.suffix.lower()
    if suffix == ".npy" and _is_grey_mask(voxels):
        return np.asarray(voxels > 127.5, np.uint16)
    if suffix in (".jpg", ".jpeg"):
        return np.asarray(voxels > 127, np.uint16)
    if suffix in (*picture.SUFFIXES, ".npy", DICOM_SUFFIX) and _is_black_and_white(voxels) and not is_told_of(path):
        return np.asarray(voxels > 0, np.uint16)
    # Integers are whole; asking them would take a float64 copy of the volume.
    if voxels.dtype.kind == "f" and np.isfinite(voxels).all():
        voxels = _unscaled(voxels)
    whole = voxels.dtype.kind in "biu" or (np.isfinite(voxels).all() and (voxels == np.trunc(voxels)).all())
    if not whole or voxels.min() < 0 or voxels.max() > np.iinfo(np.uint16).max:
        odd = voxels[voxels != np.trunc(voxels)]
        found = f"{voxels.dtype} values {voxels.min()} to {voxels.max()}{f', {odd[0]} among them' if odd.size else ''}"
        raise InputError(path, found, "whole labels 0 to 65535")
    return voxels.astype(np.uint16, copy=False)


def _is_black_and_white(voxels: NDArray[Any]) -> bool:
    """Whether greys of 8 or 16 bits are a mask's."""
    values = set(np.unique(voxels))
    return values <= {0, 255} or values <= {0, 65535}


def _unscaled(voxels: NDArray[Any]) -> NDArray[Any]:
    """Whole numbers that a file has kept as integers times a slope, which rounds them; others as they are."""
    whole = np.rint(voxels)
    return whole if np.abs(voxels - whole).max(initial=0) <= SCALING_ERROR else voxels


def _is_grey_mask(voxels: NDArray[Any]) -> bool:
    """Whether floats are the greys of a mask, and no labels."""
    if voxels.dtype.kind != "f" or not np.isfinite(voxels).all() or not 0 < voxels.max() <= 255:
        return False
    return bool(voxels.max() == 255 or (voxels != np.trunc(voxels)).any())


def _read(path: Path, *, labels: bool) -> Scan:
    if is_drawn(path):
        expected = "IMAGE=LABELS with the series that they were drawn on; `prepare` makes an npz of both"
        raise InputError(path, "structures or a segmentation, which have no image", expected)
    modality = modality_from_name(stem(path))
    if path.is_dir() or path.name.lower().endswith(_ITK_SUFFIXES) or is_dicom(path):
        return _read_by_itk(path, modality)
    if path.name.lower().endswith(nifti.SUFFIXES):
        voxels, grid = nifti.read_nifti(path)
        return _volume(path, voxels, grid, modality)
    if path.suffix.lower() == ".npy":
        return Scan(path, picture.read_npy(path, labels=labels), (1.0, 1.0), modality)
    if path.suffix.lower() in picture.SUFFIXES:
        pixels = picture.read_picture(path, labels=labels)
        if pixels.ndim == 3 and pixels.shape[2] != 3:
            depth, height, width = pixels.shape
            grid = Grid(np.diag([-1.0, -1.0, 1.0, 1.0]), (width, height, depth))
            return Scan(path, pixels, (1.0, 1.0, 1.0), modality, grid)
        return Scan(path, pixels, (1.0, 1.0), modality)
    raise InputError(path, f"a name that ends in {path.suffix or 'nothing'}", ", ".join(SUFFIXES))


def _itk(path: Path) -> ModuleType:
    try:
        from zoo.data.readers import itk
    except ModuleNotFoundError as error:
        raise InputError(path, "a format that SimpleITK reads, which is not here", "pip install SimpleITK") from error
    return itk


def _read_by_itk(path: Path, modality: str) -> Scan:
    itk = _itk(path)
    if path.is_dir():
        voxels, grid, told, frame = itk.read_dicom_series(path)
        return replace(_volume(path, voxels, grid, modality, told), frame=frame)
    if not path.name.lower().endswith(_ITK_SUFFIXES):
        pixels, spacing_mm, told = itk.read_dicom_picture(path)
        return Scan(path, pixels, spacing_mm, told if told != "unknown" else modality)
    voxels, grid = itk.read_itk(path)
    return _volume(path, voxels, grid, modality)


def _volume(path: Path, voxels: NDArray[Any], grid: Grid, named: str, told: str = UNKNOWN) -> Scan:
    """A volume of the modality that its header tells, or else its name, or else its voxels."""
    modality = told if told != UNKNOWN else named
    if modality == UNKNOWN:
        modality = "CT" if voxels.min() <= CT_MINIMUM_HU else "MR"
    elif told == UNKNOWN and named != "CT" and (least := voxels.min()) <= CT_MINIMUM_HU:
        note(f"{path}: read as {named}, as its name says, though {least:g} is a CT's value; --modality CT if it is one")
    return Scan(path, grid.to_slices(voxels), grid.spacing_mm, modality, grid)


def stem(path: Path) -> str:
    """A file's name without its suffix, `.nii.gz` counting as one; a folder's name."""
    lower = path.name.lower()
    suffix = next((suffix for suffix in sorted(SUFFIXES, key=len, reverse=True) if lower.endswith(suffix)), "")
    return path.name[: len(path.name) - len(suffix)] if suffix else path.stem if lower.endswith(".npz") else path.name
