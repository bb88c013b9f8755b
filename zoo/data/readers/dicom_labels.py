"""Labels in DICOM: structures of radiotherapy (RTSTRUCT) and segmentations (SEG), through pydicom (extra `dicom`).

Objects are told by the numbers that the file gives them; no name or other value of a tag gets into a message.
Source: DICOM PS3.3, sections C.8.8.6 (ROI contours) and C.8.20 (segmentations).
"""

from __future__ import annotations

import logging
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
from numpy.typing import NDArray
from pydicom import Dataset
from pydicom.errors import InvalidDicomError
from pydicom.pixels.utils import iter_pixels

from zoo.data.grid import Grid
from zoo.data.masks import MOST_LABELS
from zoo.data.readers.dicom import check_lengths
from zoo.errors import InputError, first_of
from zoo.notes import note

STRUCTURES = "1.2.840.10008.5.1.4.1.1.481.3"
#: What is no object of a patient: the skin around all of it, the table under it.
_NO_OBJECT = ("EXTERNAL", "SUPPORT")
#: How far, in voxels, the points of a contour may be from a slice, and the pixels of a frame from the voxels.
TOLERANCE_VOXELS = 0.1
#: Of voxels, to which the points of contours are rounded: neither arithmetic nor the decimals that a file has of
#: millimetres are to decide on which side of a voxel's centre they lie.
DECIMALS = 3
#: A message lists no more numbers than this.
MOST_TOLD = 8
#: What pydicom, and who looks for values that are missing or of other types, raise of a damaged file;
#: `NotImplementedError` is pydicom's of pixels in an encoding that it has no decoder for.
UNREADABLE = (
    *(AttributeError, EOFError, InvalidDicomError, LookupError, MemoryError, NotImplementedError, OSError),
    *(RuntimeError, TypeError, ValueError),
)
_LPS_TO_RAS = np.diag([-1.0, -1.0, 1.0])

Voxels = NDArray[np.bool_]
#: From pixels of a frame to their voxels, as indices.
Where = Callable[[Voxels], tuple[NDArray[np.int64], ...]]


def read_dicom_labels(path: Path, grid: Grid, frame: str = "") -> Iterator[tuple[int, Voxels]]:
    """The objects of a file one after the other, each by its number and its voxels (I, J, K) in an image's own axes.

    Contours are filled by the even-odd rule over all of an object's in a slice: one within another is a hole. Voxels
    whose centre a contour runs through belong to the object. Slices between those that have contours stay empty. Skin
    and table are passed over.

    Args:
        path: of an RTSTRUCT, or a SEG of bits, fractions (cut at half) or labels.
        grid: of the image that the objects were drawn on.
        frame: UID of the image's frame of reference; empty where it has none.

    Raises:
        InputError: no readable file, one of another frame of reference, no object in it, or one that does not lie in
            the image's slices.
    """
    file = _read(path)
    try:
        _check_frame(path, file, frame)
        drawn = file.file_meta.MediaStorageSOPClassUID == STRUCTURES
        seen: set[int] = set()
        for number, voxels in (_structures if drawn else _segments)(path, file, grid):
            if number in seen or not 0 < number <= MOST_LABELS:
                raise InputError(path, f"an object of number {number}", f"numbers 1 to {MOST_LABELS}, each once")
            seen.add(number)
            yield number, voxels
    except InputError:
        raise
    except UNREADABLE as error:
        raise InputError(path, f"no readable labels ({type(error).__name__})", "a whole RTSTRUCT or SEG") from error


def _read(path: Path) -> Dataset:
    check_lengths(path)
    try:
        with _quiet():
            return pydicom.dcmread(path)
    except UNREADABLE as error:
        raise InputError(path, "a file that cannot be read", "a whole RTSTRUCT or SEG") from error


def _check_frame(path: Path, file: Dataset, frame: str) -> None:
    """Refuses objects that were drawn on an image of another day, or of another patient, whose slices lie alike.

    Raises:
        InputError: the file and the image name frames of reference, and the file not that of the image.
    """
    named = [one.get("FrameOfReferenceUID") for one in (file, *_items(file, "ReferencedFrameOfReference"))]
    named += [structure.get("ReferencedFrameOfReferenceUID") for structure in _items(file, "StructureSetROI")]
    known = {str(uid) for uid in named if uid}
    if frame and known and frame not in known:
        raise InputError(path, "another frame of reference than the image's", "labels drawn on this very series")


@contextmanager
def _quiet() -> Iterator[None]:
    """Without pydicom's warnings: they quote odd values, and those name patients."""
    log = logging.getLogger("pydicom")
    level = log.level
    log.setLevel(logging.CRITICAL)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        log.setLevel(level)


def _to_voxels(grid: Grid, points_lps: NDArray[np.float64]) -> NDArray[np.float64]:
    """Points (N, 3) in the patient's LPS mm to voxel coordinates (N, 3) of the file's axes."""
    ras = points_lps @ _LPS_TO_RAS
    inverse = np.linalg.inv(grid.affine)
    return ras @ inverse[:3, :3].T + inverse[:3, 3]


def _structures(path: Path, file: Dataset, grid: Grid) -> Iterator[tuple[int, Voxels]]:
    kinds = {
        int(told.ReferencedROINumber): told.get("RTROIInterpretedType") for told in _items(file, "RTROIObservations")
    }
    outside: list[int] = []
    for roi in _items(file, "ROIContour"):
        number = int(roi.ReferencedROINumber)
        if kinds.get(number) in _NO_OBJECT:
            continue
        closed = [one for one in _items(roi, "Contour") if str(one.ContourGeometricType).startswith("CLOSED")]
        points = [np.array(one.ContourData, np.float64).reshape(-1, 3) for one in closed]
        polygons = [_to_voxels(grid, one) for one in points if len(one) > 2]
        voxels = _filled(path, number, polygons, grid.shape)
        if polygons and not voxels.any():
            outside.append(number)
        elif polygons:
            yield number, voxels
    if outside:
        note(f"{path}: structures without a voxel of the image are passed over: {first_of(outside, MOST_TOLD)}")


def _items(dataset: Dataset, name: str) -> Sequence[Dataset]:
    """Items of a sequence; none where it is missing."""
    found: Sequence[Dataset] = dataset.get(f"{name}Sequence") or ()
    return found


def _filled(path: Path, number: int, polygons: Sequence[NDArray[np.float64]], shape: tuple[int, ...]) -> Voxels:
    """The voxels whose centres lie in an odd number of polygons (N, 3), each in a slice of the image, or on an edge."""
    voxels = np.zeros(shape, bool)
    # Of all together: a contour as thin as a line is flat in two ways.
    axis = int(np.argmin(sum(np.ptp(polygon, axis=0) for polygon in polygons)))
    in_slices: dict[int, list[NDArray[np.float64]]] = {}
    for polygon in polygons:
        place = round(float(polygon[:, axis].mean()))
        if np.abs(polygon[:, axis] - place).max() > TOLERANCE_VOXELS:
            found = f"a contour of structure {number} that lies askew or between slices"
            raise InputError(path, found, "contours in the slices of the image")
        if 0 <= place < shape[axis]:
            in_slices.setdefault(place, []).append(np.delete(polygon, axis, axis=1))
    for place, own in in_slices.items():
        in_slice = np.moveaxis(voxels, axis, 0)[place]
        in_slice[:] = inside(own, (in_slice.shape[0], in_slice.shape[1]))
    return voxels


def inside(polygons: Sequence[NDArray[np.float64]], shape: tuple[int, int]) -> Voxels:
    """Which points of a grid of whole numbers lie in an odd number of polygons, or on an edge of one.

    Contours of masks run through the centres of the outermost pixels, where OpenCV finds them, as in rt-utils.

    Args:
        polygons: (N, 2) each, closed by an edge from the last point to the first.
        shape: (A, B) of the grid.
    """
    starts = np.concatenate(polygons).round(DECIMALS)
    ends = np.concatenate([np.roll(polygon, -1, axis=0) for polygon in polygons]).round(DECIMALS)
    line, edge, crossed = _crossings(starts, ends, shape[0])
    # An end on a line counts for the edge above it alone, so that each line is crossed an even number of times.
    once = line < np.maximum(starts[edge, 0], ends[edge, 0])
    turns = np.zeros((shape[0], shape[1] + 1), np.int64)
    np.add.at(turns, (line[once], np.clip(np.ceil(crossed[once]), 0, shape[1]).astype(np.int64)), 1)
    found = np.cumsum(turns, axis=1)[:, :-1] % 2 == 1
    for points, (at, _, other) in (
        (found, (line, edge, crossed)),
        (found.T, _crossings(starts[:, ::-1], ends[:, ::-1], shape[1])),  # for edges along a line
    ):
        on = (other == np.round(other)) & (other >= 0) & (other < points.shape[1])
        points[at[on], other[on].astype(np.int64)] = True
    return found


def _crossings(
    starts: NDArray[np.float64], ends: NDArray[np.float64], lines: int
) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.float64]]:
    """Where edges (N, 2) meet lines of whole first coordinates: of each place the line, the edge, the second one."""
    (a, b), (next_a, next_b) = starts.T, ends.T
    at = np.arange(lines)[:, None]
    line, edge = np.nonzero((np.minimum(a, next_a) <= at) & (at <= np.maximum(a, next_a)) & (a != next_a))
    share = (line - a[edge]) / (next_a[edge] - a[edge])
    return line, edge, np.round(b[edge] + share * (next_b[edge] - b[edge]), DECIMALS)


def _segments(path: Path, file: Dataset, grid: Grid) -> Iterator[tuple[int, Voxels]]:
    """Segment by segment, of whose frames one is in memory at a time: there are thousands, hardly compressed."""
    if file.SegmentationType == "LABELMAP":
        yield from _of_label_map(path, file, grid)
        return
    half = int(file.MaximumFractionalValue) / 2 if file.SegmentationType == "FRACTIONAL" else 0
    for number, own in sorted(_frames_by_number(file).items()):
        voxels = np.zeros(grid.shape, bool)
        for frame, where in _placed(path, file, own, grid):
            voxels[where(frame > half)] = True
        if voxels.any():
            yield number, voxels


def _of_label_map(path: Path, file: Dataset, grid: Grid) -> Iterator[tuple[int, Voxels]]:
    """The segments of frames that hold their numbers."""
    background = int(file.get("PixelPaddingValue", 0))
    labels = np.full(grid.shape, background, np.uint16)
    for frame, where in _placed(path, file, range(len(file.PerFrameFunctionalGroupsSequence)), grid):
        labels[where(frame != background)] = frame[frame != background]
    for value in np.unique(labels[labels != background]).tolist():
        yield value, labels == value


def _frames_by_number(file: Dataset) -> Mapping[int, list[int]]:
    """For each segment's number the numbers of its frames, from 0."""
    found: dict[int, list[int]] = {}
    for frame, own in enumerate(file.PerFrameFunctionalGroupsSequence):
        (identity,) = _group(file, own, "SegmentIdentification")
        found.setdefault(int(identity.ReferencedSegmentNumber), []).append(frame)
    return found


def _placed(path: Path, file: Dataset, numbers: Sequence[int], grid: Grid) -> Iterator[tuple[NDArray[Any], Where]]:
    """Frames (H, W) by their numbers, one after the other, and where their pixels lie among the voxels (I, J, K)."""
    frames = iter_pixels(file, indices=numbers)
    for number in numbers:
        with _quiet():
            frame = next(frames)
        start, steps = _place(path, file, file.PerFrameFunctionalGroupsSequence[number], frame.shape, grid)
        yield frame, partial(_voxels_of, start, steps)


def _voxels_of(start: NDArray[np.float64], steps: NDArray[np.float64], mask: Voxels) -> tuple[NDArray[np.int64], ...]:
    return tuple(np.round(start + np.argwhere(mask) @ steps).astype(np.int64).T)


def _group(file: Dataset, own: Dataset, name: str) -> Sequence[Dataset]:
    """What a frame is told by itself, or with all others."""
    (shared,) = file.SharedFunctionalGroupsSequence
    return _items(own, name) or _items(shared, name)


def _place(
    path: Path, file: Dataset, own: Dataset, shape: Sequence[int], grid: Grid
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Where a frame (H, W) lies in voxels: its first pixel (3,), and a step down and a step to the right (2, 3).

    Raises:
        InputError: pixels between or beyond the voxels.
    """
    (position,), (orientation,), (measures,) = (
        _group(file, own, name) for name in ("PlanePosition", "PlaneOrientation", "PixelMeasures")
    )
    first = np.array(position.ImagePositionPatient, np.float64)
    cosines = np.array(orientation.ImageOrientationPatient, np.float64).reshape(2, 3)
    row_mm, column_mm = map(float, measures.PixelSpacing)
    along_row, along_column = cosines[0] * column_mm, cosines[1] * row_mm
    last_row, last_column = shape[0] - 1, shape[1] - 1
    corners = first + np.array([[0, 0], [last_row, 0], [0, last_column]]) @ np.stack([along_column, along_row])
    start, down, right = _to_voxels(grid, corners)
    off = max(np.abs(one - np.round(one)).max() for one in (start, down, right))
    inside_image = all(((np.round(c) >= 0) & (np.round(c) < grid.shape)).all() for c in (start, down + right - start))
    if off > TOLERANCE_VOXELS or not inside_image:
        raise InputError(path, "frames that do not lie on the image's voxels", "a segmentation of this very image")
    return start, np.stack([(down - start) / max(1, last_row), (right - start) / max(1, last_column)])
