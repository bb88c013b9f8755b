"""Volumes that SimpleITK reads: NRRD, MetaImage, and DICOM series in any transfer syntax that GDCM knows.

Of a DICOM file nothing is kept but voxels, geometry and modality, and but for these and the number of a series no value
of a tag gets into a message: what identifies a patient stays where it is.
"""

from __future__ import annotations

import math
import os
import re
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import SimpleITK as sitk  # noqa: N813  (as its own documentation has it)
from numpy.typing import NDArray

from zoo.data.case import check_size
from zoo.data.grid import Grid
from zoo.data.modality import DICOM_MODALITIES
from zoo.data.readers.dicom import check_lengths, holds_no_image
from zoo.data.scan import dicom_files_in
from zoo.errors import InputError
from zoo.notes import note

#: What to give in place of a file of several frames, which say where they lie each for itself.
ONE_FRAME = "a file a slice; enhanced multi-frame images can be converted, to NIfTI as well"

#: ITK's physical space is LPS, nibabel's and ours RAS.
_LPS_TO_RAS = np.diag([-1.0, -1.0, 1.0, 1.0])
_POSITION, _ORIENTATION, _MODALITY = "0020|0032", "0020|0037", "0008|0060"
_SERIES_NUMBER = "0020|0011"
_SERIES, _FRAME = "0020|000e", "0020|0052"
_INTERCEPT, _SLOPE = "0028|1052", "0028|1053"
#: Of pixels, and of those of a detector, which ITK takes for them in X-rays.
_PIXEL_SPACINGS = ("0028|0030", "0018|1164")
#: How far the direction cosines of slices may differ: as far as their headers round them.
DIRECTION_TOLERANCE = 1e-4
#: How far the pixel spacings of slices may differ, as a share of them.
SPACING_TOLERANCE = 1e-3
#: How far steps between slices may differ from each other, as a share of the step.
STEP_TOLERANCE = 0.02
#: Scouts, which a scan is planned on, have no more slices than this.
MOST_SCOUT_SLICES = 3
#: A message lists no more series than this.
MOST_TOLD = 10
#: Headers of NRRD and MetaImage are shorter than this.
HEADER_BYTES = 2**20
#: Which of them are NRRD's, and what ends those.
_NRRD, _EMPTY_LINE = (".nrrd", ".nhdr"), re.compile(rb"\n\r?\n")
#: What their fields for a file of voxels are called, in lower case, and what tells that there is none.
_DATA_FILE, _INLINE = (b"elementdatafile", b"data file", b"datafile"), b"LOCAL"

sitk.ProcessObject.SetGlobalWarningDisplay(False)


def read_itk(path: Path) -> tuple[NDArray[Any], Grid]:
    """Voxels (I, J, K) of an NRRD or MetaImage volume, and where they lie.

    Raises:
        InputError: no readable volume.
    """
    fields = _header_fields(path)
    if path.suffix.lower() in (".mha", ".mhd"):
        _check_metaimage(path, fields)
    _check_data_files(path, fields)
    reader = sitk.ImageFileReader()
    reader.SetFileName(_as_text(path))
    _read_header(reader, path, "a whole NRRD or MetaImage file")
    shape = reader.GetSize()
    if len(shape) != 3 or 0 in shape or reader.GetNumberOfComponents() != 1:
        raise InputError(path, f"shape {shape}, {reader.GetNumberOfComponents()} components", "a 3D volume of numbers")
    check_size(path, shape)
    return _voxels_and_grid(_execute(reader, path))


def data_files(path: Path) -> list[Path]:
    """The files beside an NRRD or MetaImage header that hold its voxels.

    Raises:
        InputError: the header cannot be read, or names other files.
    """
    fields = _header_fields(path)
    _check_data_files(path, fields)
    return [_data_file(path, value) for name, value in fields if name in _DATA_FILE and value != _INLINE]


def are_of_several_series(files: Sequence[Path]) -> bool:
    """Whether no two of the DICOM files that can be read are of one series; reads headers until two are."""
    found: set[str] = set()
    for file in files:
        try:
            check_lengths(file)
            series = _tag(_dicom_header(file), _SERIES)
        except InputError:
            continue
        if series in found:
            return False
        found.add(series)
    return len(found) > 1


def dicom_files(folder: Path) -> list[str]:
    """Files of the one series in a folder, in the order of its slices.

    What holds no image is passed over, and so are hidden files and, with a note, scouts: series of a few slices beside
    a longer one.

    Raises:
        InputError: none or several series, or a file that cannot be read.
    """
    read, place, there = sitk.ImageSeriesReader, _as_text(folder), dicom_files_in(folder)
    for file in there:
        check_lengths(file)
    series = [list(read.GetGDCMSeriesFileNames(place, uid)) for uid in read.GetGDCMSeriesIDs(place)]
    series = [files for files in series if not holds_no_image(Path(files[0]))]
    known = {Path(file).name for files in series for file in files}
    # GDCM passes over what it cannot read; a series without its last slice would look whole.
    for file in there:
        if file.name not in known and not holds_no_image(file):
            raise InputError(file, "a file that cannot be read", "a whole DICOM image of the folder's series")
    return _only_series(folder, sorted(series, key=len, reverse=True))


def _only_series(folder: Path, series: Sequence[list[str]]) -> list[str]:
    """The first of some series, longest first, where it is alone but for scouts.

    Raises:
        InputError: none, or others.
    """
    if len(series) == 1:
        return series[0]
    told = "; ".join(map(_told, series[:MOST_TOLD])) + ("; ..." if len(series) > MOST_TOLD else "")
    if series and len(series[0]) > MOST_SCOUT_SLICES >= len(series[1]):
        note(f"{folder}: of {len(series)} DICOM series the longest is read, the others are passed over: {told}")
        return series[0]
    listed = f" ({told})" if series else ""
    raise InputError(folder, f"{len(series)} DICOM series{listed}", "one; give each a folder of its own")


def _told(files: Sequence[str]) -> str:
    """A series in words that tell nothing of a patient, as its description might."""
    first = Path(files[0])
    header = _dicom_header(first)
    number = f"{number}, " if (number := _tag(header, _SERIES_NUMBER)).isdigit() else ""
    modality = DICOM_MODALITIES.get(_tag(header, _MODALITY), "other")
    return f"{number}{modality}: {len(files)} file{'s' * (len(files) > 1)} from {first.name} on"


def read_dicom_series(folder: Path) -> tuple[NDArray[Any], Grid, str, str]:
    """Voxels (I, J, K) of the one series in a folder, where they lie, the modality, and the UID of the frame of
    reference, empty where there is none.

    Raises:
        InputError: none or several series, slices in colours, of different shapes, directions or pixel spacings, or of
            none, missing or repeated ones.
    """
    files = dicom_files(folder)
    headers = [_dicom_header(Path(file)) for file in files]
    first = headers[0]
    if len(files) == 1 and _frames(first) > 1:
        raise InputError(folder, f"{_frames(first)} frames in one file", ONE_FRAME)
    if len(files) == 1:
        raise InputError(folder, "a single slice", "a series; a single image is read as a picture, by its file's name")
    if any(header.GetNumberOfComponents() != 1 for header in headers):
        raise InputError(folder, "slices in colours", "grey ones; a single image in colours is read by its file's name")
    positions = _positions(folder, headers)
    _check_pixel_spacings(folder, headers)
    check_size(folder, (*first.GetSize()[:2], len(files)))
    reader = sitk.ImageSeriesReader()
    reader.SetFileNames(files)
    if len({(_tag(header, _SLOPE), _tag(header, _INTERCEPT)) for header in headers}) > 1:
        # ITK takes the type of the first slice for all; a PET may scale each slice by a fraction of its own.
        reader.SetOutputPixelType(sitk.sitkFloat32)
    voxels, grid = _voxels_and_grid(_execute(reader, folder))
    # ITK stacks slices along their normal; under a tilted gantry they lie askew.
    affine = grid.affine.copy()
    affine[:3, 2] = _LPS_TO_RAS[:3, :3] @ (positions[-1] - positions[0]) / (len(files) - 1)
    modality = DICOM_MODALITIES.get(_tag(first, _MODALITY), "unknown")
    return voxels, replace(grid, affine=affine), modality, _tag(first, _FRAME)


def _frames(header: sitk.ImageFileReader) -> int:
    """Images in a DICOM file."""
    return int(math.prod(header.GetSize()[2:]))


def read_dicom_picture(path: Path) -> tuple[NDArray[Any], tuple[float, float], str]:
    """Pixels (H, W) or (H, W, 3) of a file with a single image, its (y, x) spacing in mm, and the modality.

    Raises:
        InputError: no readable image, or several.
    """
    check_lengths(path)
    reader = _dicom_header(path)
    shape = reader.GetSize()
    if _frames(reader) > 1:
        raise InputError(path, f"{_frames(reader)} frames in one file", ONE_FRAME)
    if any(size != 1 for size in shape[2:]) or reader.GetNumberOfComponents() not in (1, 3):
        raise InputError(path, f"shape {shape}", "a single image; put the slices of a series into a folder")
    check_size(path, (*shape, reader.GetNumberOfComponents()))
    pixels = sitk.GetArrayFromImage(_execute(reader, path))
    pixels = pixels.reshape(shape[1], shape[0], *pixels.shape[len(shape) :])
    return pixels, _picture_spacing(reader), DICOM_MODALITIES.get(_tag(reader, _MODALITY), "unknown")


def _picture_spacing(header: sitk.ImageFileReader) -> tuple[float, float]:
    """Of pixels (y, x), in mm. Of an X-ray ITK takes that of the detector, also where that in the patient is told."""
    told = (_lengths(_tag(header, key)) for key in _PIXEL_SPACINGS)
    y, x = next(filter(None, told), header.GetSpacing()[1::-1])
    return y, x


def _header_fields(path: Path) -> list[tuple[bytes, bytes]]:
    """Names in lower case and values of a header's fields `name = value` or `name: value`.

    Raises:
        InputError: no readable file, or a header without end, whose last fields would not be seen.
    """
    try:
        with path.open("rb") as stream:
            begun = stream.read(HEADER_BYTES)
    except OSError as error:
        raise InputError(path, f"no readable file ({error})", "a whole NRRD or MetaImage file") from error
    parted = [re.split(rb"[=:]", line, maxsplit=1) for line in begun.split(b"\n")]
    fields = [(name.strip().lower(), rest[0].strip()) for name, *rest in parted if rest]
    # The field of the voxels' file ends a MetaImage header, an empty line that of NRRD.
    ended = any(name in _DATA_FILE for name, _ in fields) or (
        path.suffix.lower() in _NRRD and _EMPTY_LINE.search(begun)
    )
    if len(begun) == HEADER_BYTES and not ended:
        raise InputError(path, f"a header that has not ended after {HEADER_BYTES:,} bytes", "a shorter one")
    return fields


def _check_metaimage(path: Path, fields: Sequence[tuple[bytes, bytes]]) -> None:
    """A MetaImage header that ITK can be given: of broken numbers of dimensions it dies.

    Raises:
        InputError: not a header of three dimensions.
    """
    if [value for name, value in fields if name == b"ndims"] != [b"3"]:
        raise InputError(path, "a header without NDims = 3", "a whole MetaImage file of a volume")


def _check_data_files(path: Path, fields: Sequence[tuple[bytes, bytes]]) -> None:
    """Voxels that lie in the file itself or in one beside it: a header could name any file, and devices that never end.

    Raises:
        InputError: another file.
    """
    for name, value in fields:
        if name in _DATA_FILE and value != _INLINE:
            file = _data_file(path, value)
            if file.parent != path.parent or not os.path.isfile(file):  # noqa: PTH113  (pathlib raises of long names)
                raise InputError(path, "voxels in another place", "voxels in the file itself, or in one file beside it")


def _data_file(path: Path, value: bytes) -> Path:
    return path.parent / os.fsdecode(value.replace(b"\0", b""))


def _dicom_header(path: Path) -> sitk.ImageFileReader:
    """The header of a file whose lengths have been checked."""
    reader = sitk.ImageFileReader()
    reader.SetImageIO("GDCMImageIO")
    reader.SetFileName(_as_text(path))
    _read_header(reader, path, "a whole DICOM file with an image")
    return reader


def _as_text(path: Path) -> str:
    """A path as ITK can be given it: of bytes that are no text the process dies.

    Raises:
        InputError: such a path.
    """
    try:
        str(path).encode()
    except UnicodeEncodeError as error:
        raise InputError(path, "a name that is no text", "a path in UTF-8") from error
    return str(path)


def _read_header(reader: sitk.ImageFileReader, path: Path, expected: str) -> None:
    if not path.is_file():
        raise InputError(path, "no such file", expected)
    try:
        reader.ReadImageInformation()
    except (RuntimeError, ValueError) as error:
        raise InputError(path, "a header that cannot be read", expected) from error


def _execute(reader: sitk.ImageFileReader | sitk.ImageSeriesReader, path: Path) -> sitk.Image:
    try:
        return reader.Execute()
    except (RuntimeError, MemoryError) as error:
        raise InputError(path, "voxels that cannot be read", "a whole file") from error


def _tag(reader: sitk.ImageFileReader, key: str) -> str:
    return reader.GetMetaData(key).strip() if reader.HasMetaDataKey(key) else ""


def _positions(folder: Path, headers: Sequence[sitk.ImageFileReader]) -> NDArray[np.float64]:
    """LPS mm (D, 3) of the first voxels of slices of one shape and direction, at equal steps."""
    shapes = {header.GetSize()[:2] for header in headers}
    if len(shapes) > 1:
        raise InputError(folder, f"slices of {len(shapes)} shapes", "one shape")
    try:
        directions, positions = (
            np.array([[float(value) for value in _tag(header, key).split("\\")] for header in headers])
            for key in (_ORIENTATION, _POSITION)
        )
    except ValueError as error:
        raise InputError(folder, "slices without a position", "image position and orientation in every file") from error
    if np.ptp(directions, axis=0).max() > DIRECTION_TOLERANCE:
        raise InputError(folder, "slices of several directions", "one direction")
    steps = np.linalg.norm(np.diff(positions, axis=0), axis=-1) if positions.shape[1:] == (3,) else np.zeros(1)
    if steps.min() <= 0 or len(np.unique(positions, axis=0)) < len(positions):
        raise InputError(folder, "slices at the same position", "one slice a position")
    if steps.max() - steps.min() > STEP_TOLERANCE * np.median(steps):
        found = f"steps of {steps.min():.3g} to {steps.max():.3g} mm between slices"
        raise InputError(folder, found, "equal steps; a slice may be missing")
    return positions


def _check_pixel_spacings(folder: Path, headers: Sequence[sitk.ImageFileReader]) -> None:
    """Refuses slices of different pixel spacings, and of none that ITK takes, in whose place it would put 1 mm.

    Raises:
        InputError: such slices.
    """
    expected = "a pixel spacing in millimetres in every file, the same in all"
    if not all(_is_told(header) for header in headers):
        raise InputError(folder, "slices without a pixel spacing", expected)
    spacings = np.array([header.GetSpacing()[:2] for header in headers])
    if (np.ptp(spacings, axis=0) > SPACING_TOLERANCE * spacings.min(axis=0)).any():
        found = f"pixel spacings of {spacings.min():.4g} to {spacings.max():.4g} mm"
        raise InputError(folder, found, expected)


def _is_told(header: sitk.ImageFileReader) -> bool:
    """Whether the pixel spacing of a slice is one that its file tells."""
    told = (_lengths(_tag(header, key)) for key in _PIXEL_SPACINGS)
    return any(np.allclose(own, header.GetSpacing()[1::-1], SPACING_TOLERANCE, 0) for own in told if own)


def _lengths(tag: str) -> list[float]:
    """Two lengths of a tag, none where it has no such."""
    try:
        lengths = [float(value) for value in tag.split("\\")]
    except ValueError:
        return []
    return lengths if len(lengths) == 2 and all(0 < length < math.inf for length in lengths) else []


def _voxels_and_grid(image: sitk.Image) -> tuple[NDArray[Any], Grid]:
    affine = np.eye(4)
    affine[:3, :3] = np.array(image.GetDirection()).reshape(3, 3) * image.GetSpacing()
    affine[:3, 3] = image.GetOrigin()
    x, y, z = image.GetSize()
    return sitk.GetArrayFromImage(image).transpose(2, 1, 0), Grid(_LPS_TO_RAS @ affine, (x, y, z))
