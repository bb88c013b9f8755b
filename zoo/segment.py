"""Segmenting files: what to segment, with which boxes, and what is written."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from gzip import GzipFile
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from zoo.data.boxes import boxes_in_slices, clicks_in_slices, is_exactly, name_in, read_boxes, read_clicks, spellings
from zoo.data.built_in import load_built_in
from zoo.data.case import Case, validate_boxes
from zoo.data.cases import CaseSource
from zoo.data.clicks import Click, check_clicks
from zoo.data.grid import Grid
from zoo.data.npz import load_challenge_npz, load_label_values, save_segmentation
from zoo.data.prepare import Preparation, case_of_boxes
from zoo.data.readers.nifti import nifti_of
from zoo.data.scan import read_objects, read_scan, stem
from zoo.errors import InputError
from zoo.files import whole_file

Labels = NDArray[np.uint16]


@dataclass(frozen=True)
class Prompted:
    """A case to segment, and what becomes of its segmentation.

    Attributes:
        case: with boxes.
        suffix: of the file that is written.
        grid: where the voxels of a scan's volume lie in its file.
        label_values: what the labels of an npz were in the scan's labels, where it says so.
    """

    case: Case
    suffix: Literal[".npz", ".nii.gz", ".png"] = ".npz"
    grid: Grid | None = None
    label_values: Labels | None = None


def load_prompted(
    source: CaseSource,
    preparation: Preparation,
    boxes_file: Path | None = None,
    boxes: NDArray[np.int64] | None = None,
    clicks: tuple[Click, ...] = (),
) -> Prompted:
    """Reads an image and its boxes.

    Args:
        source: of the image; what it holds itself, or else its label files, are asked for boxes where neither a file
            of boxes nor boxes are given.
        preparation: of images that are not a challenge npz.
        boxes_file: JSON or CSV, see `zoo.data.boxes`.
        boxes: (N, 4) or (N, 6) in the axes of the file, for labels 1 to N.
        clicks: beside them, in the axes of the file.

    Raises:
        InputError: an image or boxes that cannot be used.
    """
    given = None
    if boxes is not None:
        given = boxes, np.arange(1, len(boxes) + 1, dtype=np.uint16)
    elif boxes_file is not None:
        given = boxes_of_file(boxes_file, source)
        clicks = clicks_of_file(boxes_file, source)
    where = boxes_file or Path("--box")
    if source.image_path is None:
        case = load_built_in(source.reference)
        if given is not None:
            boxes = validate_boxes(f"{where} for {source.reference}", given[0], case.spatial_shape)
            case = replace(case, boxes=boxes, object_labels=given[1], labels=None, label_names={})
        check_clicks(f"{where} for {source.reference}", clicks, case.boxes)
        return Prompted(replace(case, clicks=clicks))
    if source.npz:
        case = load_challenge_npz(source.npz, given, labels=False, where=f"{where} for {source.npz}")
        check_clicks(f"{where} for {source.npz}", clicks, case.boxes)
        values = load_label_values(source.npz) if given is None else None
        return Prompted(replace(case, case_id=source.case_id, clicks=clicks), label_values=values)
    scan = read_scan(source.image_path)
    names: Mapping[int, str] = {}
    if given is not None:
        in_file, labels = given
        in_slices = boxes_in_slices(where, in_file, scan)
        clicks = clicks_in_slices(where, clicks, in_file, scan)
    elif source.labels_paths:
        objects = read_objects(source.labels_paths, scan)
        in_slices, labels = objects.boxes()
        names = objects.names
        if not len(labels):
            raise InputError(source.labels_paths[0], "no label", f"labelled objects of {source.image_path.name}")
    else:
        raise source.lacks("no boxes", "--boxes FILE, --box, or a label file beside the image")
    case = case_of_boxes(scan, in_slices, labels, preparation, source.case_id)
    case = replace(case, clicks=clicks, label_names=names)
    return Prompted(case, ".nii.gz" if scan.grid else ".png", scan.grid)


def boxes_of_file(path: Path, source: CaseSource) -> tuple[NDArray[np.int64], Labels]:
    """Boxes and labels that a file has for a case, by its id or the name of its image.

    Raises:
        InputError: as `read_boxes`.
    """
    return read_boxes(path, *_names_of(source), image=source.image_path)


def clicks_of_file(path: Path, source: CaseSource) -> tuple[Click, ...]:
    """Clicks beside the boxes of `boxes_of_file`.

    Raises:
        InputError: as `read_clicks`.
    """
    return read_clicks(path, *_names_of(source), image=source.image_path)


def check_names(path: Path, sources: Sequence[CaseSource]) -> None:
    """Refuses a file of boxes that calls several cases by one name, or one case by several; other faults are told of
    with their case.

    Raises:
        InputError: a name of several cases, unless it is one's exactly; names of one, unless others are called so.
    """
    called: dict[str, list[CaseSource]] = {}
    for source in sources:
        with suppress(InputError):
            if (name := name_in(path, *_names_of(source), image=source.image_path)) is not None:
                called.setdefault(name, []).append(source)
    for name, alike in called.items():
        if len(alike) > 1 and sum(is_exactly(name, one.case_id, one.image_path) for one in alike) != 1:
            one, other, *_ = alike
            found = f"{name}, which may be {one.image_path} and {other.image_path}"
            raise InputError(path, found, f"{one.case_id} and {other.case_id}, or more of their paths")
    for name, (source, *_) in called.items():
        names = spellings(path, *_names_of(source), image=source.image_path)
        if unread := names.difference(called):
            found = f"boxes of {' and '.join(sorted({name, *unread}))} for {source.image_path or source.case_id}"
            raise InputError(path, found, "one name a case")


def told_boxes(path: Path, source: CaseSource) -> str:
    """A file of boxes, and why a case has none in it."""
    try:
        boxes_of_file(path, source)
    except InputError as error:
        return f"{path}: {error.found}"
    return str(path)


def _names_of(source: CaseSource) -> list[str]:
    """By which a file of boxes may know a case."""
    return [source.case_id, *([stem(source.image_path)] if source.image_path else [])]


def finished(source: CaseSource, out: Path) -> Path | None:
    """The segmentation of `source` that the folder `out` holds already."""
    found = (out / f"{source.case_id}{suffix}" for suffix in (".npz", ".nii.gz", ".png"))
    return next((path for path in found if path.exists()), None)


def write_segmentation(segmentation: Labels, prompted: Prompted, path: Path) -> None:
    """Writes a label map, whole or not at all: npz (`segs`), NIfTI in the geometry of the scan's file, or PNG.

    Args:
        segmentation: of the case's spatial shape.
        prompted: what was segmented.
        path: its suffix tells the format.

    Raises:
        InputError: no room or no right to write.
    """
    if path.suffix == ".npz":
        save_segmentation(segmentation, path, prompted.label_values, prompted.case.label_names)
    elif path.suffix == ".png":
        narrow = segmentation.astype(np.uint8) if segmentation.max() <= np.iinfo(np.uint8).max else segmentation
        with whole_file(path) as part:
            Image.fromarray(narrow).save(part, format="PNG")
    else:
        if prompted.grid is None:
            raise InputError(prompted.case.case_id, "a case without a geometry", "a volume of a scan's file, for NIfTI")
        image = nifti_of(prompted.grid.to_file(segmentation), prompted.grid)
        with whole_file(path) as part, part.open("wb") as file, GzipFile("", "wb", fileobj=file, mtime=0) as stream:
            image.to_stream(stream)


def parse_boxes(texts: Sequence[str]) -> NDArray[np.int64] | None:
    """Boxes of the command line, `X0,Y0,X1,Y1` or `X0,Y0,Z0,X1,Y1,Z1` each; None where there are none.

    Raises:
        InputError: no such numbers.
    """
    if not texts:
        return None
    try:
        return np.array([[int(number) for number in text.split(",")] for text in texts], np.int64)
    except (ValueError, OverflowError) as error:
        raise InputError("--box", " ".join(texts), "whole numbers: x0,y0,x1,y1, or x0,y0,z0,x1,y1,z1") from error


def parse_clicks(texts: Sequence[str], boxes: NDArray[np.int64]) -> tuple[Click, ...]:
    """Clicks of the command line, `X,Y,1` or `X,Y,Z,1` each, 0 in place of 1 for what does not belong to the object.

    Each goes to the smallest of the boxes that it lies in.

    Raises:
        InputError: no such numbers, or in no box.
    """
    return tuple(_parse_click(text, boxes) for text in texts)


def _parse_click(text: str, boxes: NDArray[np.int64]) -> Click:
    expected = "whole numbers x,y,1 or x,y,z,1 in a --box, with 0 for what does not belong to the object"
    try:
        *voxel, belongs = (int(number) for number in text.split(","))
    except ValueError as error:
        raise InputError("--click", text, expected) from error
    axes = len(voxel)
    around: list[tuple[int, int]] = []
    if belongs in (0, 1) and boxes.shape[1] == 2 * axes:
        inside = ((boxes[:, :axes] <= voxel) & (boxes[:, axes:] >= voxel)).all(1)
        sizes = (boxes[:, axes:] - boxes[:, :axes] + 1).prod(1)
        around = [(int(sizes[number]), int(number)) for number in np.flatnonzero(inside)]
    if not around:
        raise InputError("--click", text, expected)
    return Click(min(around)[1], tuple(voxel), bool(belongs))
