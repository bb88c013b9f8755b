"""Boxes from a file, JSON or CSV, and in JSON the clicks beside them.

Coordinates are voxel indices in the axes of the image's file, as a viewer shows them: i, j, k of a volume (columns,
rows and slices of a DICOM series), x, y of a picture; both ends belong to the box.
"""

from __future__ import annotations

import csv
import json
from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from itertools import chain
from pathlib import Path, PurePath, PurePosixPath
from typing import Any

import numpy as np
from numpy.typing import NDArray

from zoo.data.case import BOX_ORDER, validate_boxes
from zoo.data.clicks import Click, check_clicks
from zoo.data.scan import Scan, stem
from zoo.errors import InputError, first_of

_EXPECTED = (
    'JSON: [[x0, y0, z0, x1, y1, z1], ...] or [{"label": 1, "box": [...]}, ...], there also "clicks": '
    '[[x, y, z, 1 or 0], ...] in a box, or either by case: {"CASE": [...]}; '
    "CSV: columns x_min, y_min, z_min, x_max, y_max, z_max, and label and case where wanted (no z for pictures)"
)
#: Cases of a file of boxes that a message names.
MAX_NAMED = 5
#: Of a CSV, beside the optional ones: those that the file has.
_COLUMNS = (
    ("x_min", "y_min", "z_min", "x_max", "y_max", "z_max"),
    ("x0", "y0", "z0", "x1", "y1", "z1"),
    ("i0", "j0", "k0", "i1", "j1", "k1"),
    ("x_min", "y_min", "x_max", "y_max"),
    ("x0", "y0", "x1", "y1"),
)
_OPTIONAL = ("label", "case")


@dataclass(frozen=True)
class _Row:
    """A box as a file has it, of a case that the file names or not, and its clicks: a voxel and 1 or 0 each."""

    box: list[float]
    label: float | None
    case: str | None
    clicks: tuple[tuple[float, ...], ...] = ()


def read_boxes(path: Path, *names: str, image: Path | None = None) -> tuple[NDArray[np.int64], NDArray[np.uint16]]:
    """Boxes of one case, in the axes of its file.

    Args:
        path: of a JSON or CSV file of one case, or of many by their names.
        names: of the case whose boxes are wanted, the first of which is no other case's.
        image: file of the case; the file of boxes may name it by its path, or by as much of its end as it likes.

    Returns:
        int64 (N, 4) or (N, 6), and uint16 (N,) labels: those of the file, else 1 to N.

    Raises:
        InputError: no boxes, or none of this case, or under several names that may all be this case's.
    """
    every = _rows(path)
    rows = _of_case(path, names, image)
    if len({row.label is None for row in rows}) > 1:
        raise InputError(path, "boxes with and without a label", "a label for each, or for none")
    if not rows:
        named = list(dict.fromkeys(row.case for row in every if row.case is not None))
        has = f", but of {first_of(named, MAX_NAMED)}" if named else ""
        raise InputError(path, f"no box of {' or '.join(dict.fromkeys(names))}{has}", "boxes under the case's name")
    lengths = sorted({len(row.box) for row in rows})
    if len(lengths) > 1 or lengths[0] not in BOX_ORDER:
        raise InputError(path, f"boxes of {lengths} numbers", "4 (pictures) or 6 numbers")
    boxes = np.array([row.box for row in rows], np.float64)
    labels = np.array([number if row.label is None else row.label for number, row in enumerate(rows, 1)], np.float64)
    if not np.isfinite(boxes).all() or (boxes != np.trunc(boxes)).any() or (np.abs(boxes) > 2**31).any():
        raise InputError(path, "boxes that are no whole numbers", "voxel indices")
    if not ((labels >= 1) & (labels <= np.iinfo(np.uint16).max) & (labels == np.trunc(labels))).all():
        raise InputError(path, f"labels {labels.tolist()}", "whole numbers from 1 to 65535")
    return boxes.astype(np.int64), labels.astype(np.uint16)


def read_clicks(path: Path, *names: str, image: Path | None = None) -> tuple[Click, ...]:
    """Clicks beside the boxes that `read_boxes` finds, in the axes of the file.

    Raises:
        InputError: no voxels, or something else than 1 (of the object) or 0 (not of it) behind one.
    """
    given = [(number, click) for number, row in enumerate(_of_case(path, names, image)) for click in row.clicks]
    for _, click in given:
        if len(click) < 2 or click[-1] not in (0, 1) or not all(value.is_integer() for value in click):
            raise InputError(path, f"a click {list(click)}", "whole voxel indices, then 1 (of the object) or 0 (not)")
    return tuple(Click(number, tuple(map(int, click[:-1])), click[-1] == 1) for number, click in given)


def names_cases(path: Path) -> bool:
    """Whether a file says which case each box is of; if not, all are meant for every image.

    Raises:
        InputError: no such file, or boxes in another form.
    """
    return any(row.case is not None for row in _rows(path))


def name_in(path: Path, *names: str, image: Path | None = None) -> str | None:
    """By which a file calls the case that `read_boxes` is asked for, if it does.

    Raises:
        InputError: no boxes, or several names that may all be this case's.
    """
    cases = {row.case for row in _rows(path) if row.case is not None}
    return _case_among(path, cases, names, image)


def spellings(path: Path, *names: str, image: Path | None = None) -> set[str]:
    """All names in a file that mean the case that `read_boxes` is asked for: its names, and the ends of its image's
    path, each without the suffix or with that of the image.

    Raises:
        InputError: no boxes.
    """
    plain = {_without_suffix(one) for one in (*_ends(image), *names)}
    suffix = image.name.removeprefix(stem(image)) if image else ""
    meant = {*names, *plain, *(f"{one}{suffix}" for one in plain)}
    return {row.case for row in _rows(path) if row.case is not None and row.case.replace("\\", "/") in meant}


def is_exactly(name: str, case_id: str, image: Path | None) -> bool:
    """Whether a name in a file of boxes is the very id of a case, or the end of its image's path."""
    return name == case_id or name.replace("\\", "/") in _ends(image)


def boxes_in_slices(where: Path, boxes: NDArray[np.int64], scan: Scan) -> NDArray[np.int64]:
    """Boxes in the axes of a file to boxes in its slices.

    Raises:
        InputError: boxes of a volume for a picture, or the other way round; reversed ends, or ends outside the image.
    """
    wanted = 2 * len(scan.spatial_shape)
    if boxes.shape[1] != wanted:
        raise InputError(where, f"boxes of {boxes.shape[1]} numbers", f"{wanted}, as {scan.path.name} has them")
    # The shape of an array of slices: its axes run against those of a file.
    shape = scan.grid.shape[::-1] if scan.grid else scan.spatial_shape
    boxes = validate_boxes(f"{where} for {scan.path}", boxes, shape)
    return scan.grid.boxes_to_slices(boxes) if scan.grid else boxes


def clicks_in_slices(where: Path, clicks: Sequence[Click], boxes: NDArray[np.int64], scan: Scan) -> tuple[Click, ...]:
    """Clicks in the axes of a file to clicks in its slices.

    Args:
        where: they come from, for messages.
        clicks: in the axes of the file.
        boxes: in the axes of the file.
        scan: of the file.

    Raises:
        InputError: as `check_clicks`.
    """
    check_clicks(f"{where} for {scan.path}", clicks, boxes)
    if not scan.grid or not clicks:
        return tuple(clicks)
    voxels = np.array([click.voxel * 2 for click in clicks], np.int64)
    turned = scan.grid.boxes_to_slices(voxels)[:, :3].tolist()
    return tuple(replace(click, voxel=tuple(voxel)) for click, voxel in zip(clicks, turned, strict=True))


def _rows(path: Path) -> tuple[_Row, ...]:
    try:
        return _read(path, path.stat().st_mtime_ns)
    except (OSError, UnicodeDecodeError, ValueError, TypeError, OverflowError, RecursionError, csv.Error) as error:
        raise InputError(path, f"boxes that cannot be read ({error})", _EXPECTED) from error


@lru_cache(maxsize=2)
def _read(path: Path, written_ns: int) -> tuple[_Row, ...]:
    """Of a file as it was written at a time: it is asked for case by case."""
    text = path.read_text(encoding="utf-8-sig")
    if path.suffix.lower() == ".csv":
        return tuple(_csv_rows(text))
    return tuple(_json_rows(json.loads(text, object_pairs_hook=_each_once)))


def _each_once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """An object of JSON.

    Raises:
        ValueError: a name in it twice, of which Python would keep the last.
    """
    if twice := [name for name, count in Counter(name for name, _ in pairs).items() if count > 1]:
        raise ValueError(f"{first_of(twice, MAX_NAMED)} twice in one object")
    return dict(pairs)


def _of_case(path: Path, names: Sequence[str], image: Path | None) -> list[_Row]:
    """Rows of the case, see `_case_among`, and those of no case in particular.

    Raises:
        InputError: as `name_in`.
    """
    case = name_in(path, *names, image=image)
    return [row for row in _rows(path) if row.case is None or row.case == case]


def _case_among(path: Path, cases: Collection[str], names: Sequence[str], image: Path | None) -> str | None:
    """Which of some cases is the one of these names and this image, if any.

    It is spelled as one of the names or as the end of the image's path; else so but for the suffix; else, as the first
    name is no other case's, a file of that name in any folder.

    Raises:
        InputError: several cases may be it.
    """
    ends = _ends(image)
    spelled = chain(
        ({case for case in cases if case.replace("\\", "/") == one} for one in (*names[:1], *ends, *names[1:])),
        ({case for case in cases if _without_suffix(case) == _without_suffix(one)} for one in (*ends, *names)),
        ({case for case in cases if stem(Path(_without_suffix(case))) == own} for own in names[:1]),
    )
    alike = next(filter(None, spelled), set())
    if len(alike) > 1:
        raise InputError(path, f"boxes of {' and '.join(sorted(alike))} for {image or names[0]}", "one name a case")
    return next(iter(alike), None)


def _ends(image: Path | None) -> list[str]:
    """The path of an image, and what of it is left without its first folders, the longest first."""
    parts = image.absolute().parts if image else ()
    return [PurePath(*parts[first:]).as_posix() for first in range(len(parts))]


@lru_cache(maxsize=2**16)
def _without_suffix(case: str) -> str:
    whole = PurePosixPath(case.replace("\\", "/"))
    return str(whole.with_name(stem(Path(whole.name)))) if whole.name else case


def _json_rows(found: Any, case: str | None = None) -> Iterator[_Row]:
    if isinstance(found, dict) and case is None and not {"box", "label"} & found.keys():
        for name, boxes in found.items():
            yield from _json_rows(boxes, name)
        return
    for one in [found] if isinstance(found, dict) else found:
        own: Mapping[str, Any] = one if isinstance(one, dict) else {"box": one}
        if own.keys() - {"box", "label", "clicks"} or "box" not in own:
            raise ValueError(f"keys {', '.join(map(str, own))}")
        label = own.get("label")
        clicks = tuple(tuple(float(value) for value in click) for click in own.get("clicks", ()))
        yield _Row([float(value) for value in own["box"]], None if label is None else float(label), case, clicks)


def _csv_rows(text: str) -> Iterator[_Row]:
    lines = text.splitlines()
    separator = max(",;\t", key=lambda one: lines[0].count(one)) if lines else ","
    rows = ([cell.strip() for cell in row] for row in csv.reader(lines, delimiter=separator))
    table = [row for row in rows if any(row)]  # spreadsheets end with rows of separators alone
    headings = [heading.lower() for heading in table[0]] if table else []
    columns = next((columns for columns in _COLUMNS if set(headings) - set(_OPTIONAL) == set(columns)), None)
    if columns is None or len(headings) != len(set(headings)):
        raise ValueError(f"columns {', '.join(headings)}")
    for number, cells in enumerate(table[1:], start=1):  # without rows of nothing
        if len(cells) != len(headings):
            raise ValueError(f"row {number} of {len(cells)} cells under {len(headings)} headings")
        row = dict(zip(headings, cells, strict=True))
        numbers = [*columns, *(["label"] if row.get("label") else [])]
        if bad := [f"{name} {row[name]!r}" for name in numbers if not _is_number(row[name])]:
            raise ValueError(f"row {number} with {', '.join(bad)}")
        label, case = row.get("label"), row.get("case")  # an empty cell says nothing
        yield _Row([float(row[c]) for c in columns], float(label) if label else None, case or None)


def _is_number(cell: str) -> bool:
    try:
        float(cell)
    except ValueError:
        return False
    return True
