"""Boxes from a file: JSON or CSV.

Coordinates are voxel indices in the axes of the image's file, as a viewer shows them: i, j, k of a volume (columns,
rows and slices of a DICOM series), x, y of a picture; both ends belong to the box.
"""

from __future__ import annotations

import csv
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from zoo.data.case import BOX_ORDER, validate_boxes
from zoo.data.scan import Scan
from zoo.errors import InputError

_EXPECTED = (
    'JSON: [[x0, y0, z0, x1, y1, z1], ...] or [{"label": 1, "box": [...]}, ...], or either by case: {"CASE": [...]}; '
    "CSV: columns x_min, y_min, z_min, x_max, y_max, z_max, and label and case where wanted (no z for pictures)"
)
#: Of a CSV: the first that the file has all of counts.
_COLUMNS = (
    ("x_min", "y_min", "z_min", "x_max", "y_max", "z_max"),
    ("x0", "y0", "z0", "x1", "y1", "z1"),
    ("i0", "j0", "k0", "i1", "j1", "k1"),
    ("x_min", "y_min", "x_max", "y_max"),
    ("x0", "y0", "x1", "y1"),
)


def read_boxes(path: Path, *names: str) -> tuple[NDArray[np.int64], NDArray[np.uint16]]:
    """Boxes of one case, in the axes of its file.

    Args:
        path: of a JSON or CSV file of one case, or of many by their names.
        names: of the case whose boxes are wanted; the first that the file knows counts.

    Returns:
        int64 (N, 4) or (N, 6), and uint16 (N,) labels: those of the file, else 1 to N.

    Raises:
        InputError: no boxes, or none of this case.
    """
    rows = _rows(path, names)
    if len({label is None for _, label in rows}) > 1:
        raise InputError(path, "boxes with and without a label", "a label for each, or for none")
    if not rows:
        raise InputError(path, f"no box of {' or '.join(dict.fromkeys(names))}", "boxes under the name of the case")
    if len({len(box) for box, _ in rows}) > 1 or len(rows[0][0]) not in BOX_ORDER:
        raise InputError(path, f"boxes of {sorted({len(box) for box, _ in rows})} numbers", "4 (pictures) or 6 numbers")
    boxes = np.array([box for box, _ in rows], np.float64)
    labels = np.array([number if label is None else label for number, (_, label) in enumerate(rows, 1)], np.float64)
    if not np.isfinite(boxes).all() or (boxes != np.trunc(boxes)).any() or (np.abs(boxes) > 2**31).any():
        raise InputError(path, "boxes that are no whole numbers", "voxel indices")
    if not ((labels >= 1) & (labels <= np.iinfo(np.uint16).max) & (labels == np.trunc(labels))).all():
        raise InputError(path, f"labels {labels.tolist()}", "whole numbers from 1 to 65535")
    return boxes.astype(np.int64), labels.astype(np.uint16)


def check_boxes_file(path: Path) -> None:
    """Refuses a file that no boxes can be read from, before any case is.

    Raises:
        InputError: no such file, or boxes in another form.
    """
    _rows(path, ())


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


def _rows(path: Path, names: Sequence[str]) -> list[tuple[list[float], float | None]]:
    """Boxes and labels under the first of `names` that the file knows, or all where it names no cases."""
    try:
        text = path.read_text(encoding="utf-8-sig")
        return _csv_rows(text, names) if path.suffix.lower() == ".csv" else _json_rows(text, names)
    except (OSError, UnicodeDecodeError, ValueError, KeyError, TypeError, OverflowError, RecursionError) as error:
        raise InputError(path, f"boxes that cannot be read ({error})", _EXPECTED) from error


def _json_rows(text: str, names: Sequence[str]) -> list[tuple[list[float], float | None]]:
    found: Any = json.loads(text)
    if isinstance(found, dict) and "box" in found:
        found = [found]
    elif isinstance(found, dict):
        found = next((found[name] for name in names if name in found), [])
    rows: list[tuple[list[float], float | None]] = []
    for one in found:
        box, label = (one["box"], one.get("label")) if isinstance(one, dict) else (one, None)
        rows.append(([float(value) for value in box], None if label is None else float(label)))
    return rows


def _csv_rows(text: str, names: Sequence[str]) -> list[tuple[list[float], float | None]]:
    reader = csv.DictReader(text.splitlines())
    headings = set(reader.fieldnames or ())
    columns = next((columns for columns in _COLUMNS if set(columns) <= headings), None)
    if columns is None:
        raise ValueError(f"columns {', '.join(sorted(headings))}")
    rows = list(reader)
    if "case" in headings:
        known = {row["case"] for row in rows}
        rows = [row for row in rows if row["case"] == next((name for name in names if name in known), None)]
    return [([float(row[c]) for c in columns], float(row["label"]) if row.get("label") else None) for row in rows]
