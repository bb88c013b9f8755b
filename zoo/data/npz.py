"""The challenge's npz: `imgs`, `gts`, `boxes`, `spacing` (CVPR 2024 "Segment Anything in Medical Images on Laptop").

Boxes are `x_min y_min x_max y_max` or `x_min y_min z_min x_max y_max z_max`, spacing is (x, y, z) in mm. `gts` are 1 to
N, whatever they are of; keys of ours say what they were in the file that the case was made of (`label_values`), and,
where each was a file of its own, what it was called (`label_names`, empty where nobody says).
Headers are read before anything is inflated, so that a huge or pickled array is refused at no cost.
"""

from __future__ import annotations

import math
import zipfile
import zlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from zoo.data.case import Case, boxes_from_labels, check_size, validate_boxes
from zoo.data.modality import modality_from_name
from zoo.errors import InputError
from zoo.files import whole_file


def load_challenge_npz(
    path: Path,
    prompts: tuple[NDArray[np.int64], NDArray[np.uint16]] | None = None,
    *,
    labels: bool = True,
    where: str | None = None,
) -> Case:
    """Reads a case of the challenge.

    Without `boxes`, they are taken from `gts` and each asks for its label; with `boxes`, they ask for labels 1 to N,
    and a `gts` that numbers its objects otherwise is renumbered in their order.

    Args:
        path: of the file.
        prompts: boxes and the labels that they ask for, in place of the file's.
        labels: whether the case's labels are wanted. Without, `gts` is left alone unless it tells the boxes.
        where: the prompts come from, for messages.

    Raises:
        InputError: a file, key, type, shape or value that cannot be used.
    """
    arrays = _read_arrays(path, ("imgs", "boxes", "spacing", "affine", "label_names"))
    if labels or (prompts is None and "boxes" not in arrays):
        arrays |= _read_arrays(path, ("gts",))
    if "imgs" not in arrays:
        raise InputError(path, f"keys {', '.join(_keys(path))}", "at least imgs, and boxes or gts")
    image, is_volume = _image(path, arrays["imgs"])
    shape = image.shape if is_volume else image.shape[:2]
    label_map = _labels(f"{path}:gts", arrays["gts"], shape) if "gts" in arrays else None
    if prompts is not None:
        boxes, object_labels = validate_boxes(where or path, prompts[0], shape), prompts[1]
    elif "boxes" in arrays:
        boxes = validate_boxes(f"{path}:boxes", arrays["boxes"], shape)
        object_labels = np.arange(1, len(boxes) + 1, dtype=np.uint16)
        label_map = None if label_map is None else _numbered_by_box(f"{path}:gts", label_map, boxes)
    elif label_map is not None:
        boxes, object_labels = boxes_from_labels(label_map)
        validate_boxes(f"{path}:gts", boxes, shape)
    else:
        raise InputError(path, "neither boxes nor gts", "boxes, or labels to take them from")
    spacing_mm = _spacing(f"{path}:spacing", arrays.get("spacing"), len(shape))
    kept = label_map if labels else None
    affine = _affine(f"{path}:affine", arrays["affine"]) if "affine" in arrays else None
    names = _names(f"{path}:label_names", arrays["label_names"]) if "label_names" in arrays and prompts is None else {}
    return Case(
        case_id=path.stem,
        modality=modality_from_name(path.stem),
        image=image,
        boxes=boxes,
        object_labels=object_labels,
        spacing_mm=spacing_mm,
        labels=kept,
        source=path,
        affine=affine,
        label_names=names,
    )


def save_challenge_npz(case: Case, path: Path, label_values: Sequence[int] | None = None) -> None:
    """Writes a case as the challenge's npz, whole or not at all.

    Args:
        case: with labels 1 to N.
        path: of the file.
        label_values: what they were before, where that is known.

    Raises:
        InputError: boxes of other labels than 1 to N, in this order: the file has no place for them.
    """
    if not np.array_equal(case.object_labels, np.arange(1, len(case.boxes) + 1)):
        raise InputError(path, f"boxes of labels {_listed(case.object_labels)}", f"of labels 1 to {len(case.boxes)}")
    arrays = {"imgs": case.image, "boxes": case.boxes, "spacing": np.array(case.spacing_mm[::-1])}
    if case.labels is not None:
        arrays["gts"] = case.labels
    if case.affine is not None:
        arrays["affine"] = case.affine
    if label_values is not None:
        arrays["label_values"] = np.array(label_values, np.uint16)
    if case.label_names:
        arrays["label_names"] = _array_of(case.label_names)
    with whole_file(path) as part, part.open("wb") as stream:
        np.savez_compressed(stream, **arrays)  # type: ignore[arg-type]


def _listed(labels: NDArray[np.uint16], most: int = 5) -> str:
    return ", ".join(map(str, labels[:most])) + (", ..." if len(labels) > most else "")


def save_segmentation(
    segmentation: NDArray[np.uint16],
    path: Path,
    label_values: NDArray[np.uint16] | None = None,
    label_names: Mapping[int, str] | None = None,
) -> None:
    """Writes a label map as the challenge asks for it, under the key `segs`, whole or not at all.

    Args:
        segmentation: with labels 1 to N.
        path: of the file.
        label_values: what they were in the scan's labels, where that is known.
        label_names: what they stand for, where that is known.
    """
    known: dict[str, NDArray[Any]] = {} if label_values is None else {"label_values": label_values}
    known |= {"label_names": _array_of(label_names)} if label_names else {}
    with whole_file(path) as part, part.open("wb") as stream:
        np.savez_compressed(stream, segs=segmentation, **known)  # type: ignore[arg-type]


def load_label_map(path: Path) -> NDArray[np.uint16]:
    """The label map of a challenge npz: `segs` of a segmentation, else `gts` of a case, numbered as its boxes are.

    Raises:
        InputError: neither, or no labels.
    """
    arrays = _read_arrays(path, ("segs",)) or _read_arrays(path, ("gts", "boxes"))
    key = next((key for key in ("segs", "gts") if key in arrays), None)
    if key is None:
        raise InputError(path, "neither segs nor gts", "a label map under one of these keys")
    labels = _labels(f"{path}:{key}", arrays[key], arrays[key].shape)
    if "boxes" not in arrays:
        return labels
    return _numbered_by_box(f"{path}:gts", labels, validate_boxes(f"{path}:boxes", arrays["boxes"], labels.shape))


def labelled_slices(path: Path) -> list[int] | None:
    """Slices of a challenge npz whose `gts` has labels; None of a 2D image. Nothing else of the file is read.

    Raises:
        InputError: no labels.
    """
    found = _read_arrays(path, ("gts",)).get("gts")
    if found is None:
        raise InputError(path, "no gts", "labels to train with")
    labels = _labels(f"{path}:gts", found, found.shape)
    return None if labels.ndim == 2 else [int(z) for z in np.flatnonzero(labels.any(axis=(1, 2)))]


def load_label_values(path: Path) -> NDArray[np.uint16] | None:
    """What the labels 1 to N of a challenge npz were in the file that it was made of; None where it does not say.

    Raises:
        InputError: no label values.
    """
    values = _read_arrays(path, ("label_values",)).get("label_values")
    return None if values is None else _labels(f"{path}:label_values", values, (values.size,))


def original_labels(path: Path) -> dict[int, int]:
    """As `load_label_values`, by label; empty where the file does not say.

    Raises:
        InputError: no label values.
    """
    values = load_label_values(path)
    return {} if values is None else dict(enumerate(values.tolist(), start=1))


def load_label_names(path: Path) -> dict[int, str]:
    """What labels of a challenge npz are called; empty where the file does not say.

    Raises:
        InputError: no names.
    """
    names = _read_arrays(path, ("label_names",)).get("label_names")
    return {} if names is None else _names(f"{path}:label_names", names)


def load_spacing(path: Path, dimensions: int) -> tuple[float, ...]:
    """Spacing of a challenge npz in the order of its axes; 1 mm where it has none.

    Raises:
        InputError: no positive numbers.
    """
    return _spacing(f"{path}:spacing", _read_arrays(path, ("spacing",)).get("spacing"), dimensions)


def _read_arrays(path: Path, keys: tuple[str, ...]) -> dict[str, NDArray[Any]]:
    """The arrays of `keys` that the archive holds; each header is checked before its data is read."""
    try:
        with zipfile.ZipFile(path) as archive:
            names = set(archive.namelist())
            return {key: _read_member(path, archive, key) for key in keys if f"{key}.npy" in names}
    # Of a damaged archive; of an unknown compression (NotImplementedError); of an encrypted one (RuntimeError).
    except (zipfile.BadZipFile, zlib.error, EOFError, OSError, NotImplementedError, RuntimeError) as error:
        raise InputError(path, f"no readable npz archive ({error})", "a whole .npz file") from error


def _keys(path: Path) -> list[str]:
    """Names of what a readable archive holds, those that fit in a message."""
    with zipfile.ZipFile(path) as archive:
        return [name.removesuffix(".npy")[:20] for name in archive.namelist()[:10]]


def _read_member(path: Path, archive: zipfile.ZipFile, key: str) -> NDArray[Any]:
    where = f"{path}:{key}"
    with archive.open(f"{key}.npy") as stream:
        try:
            version = np.lib.format.read_magic(stream)
            read_header = {1: np.lib.format.read_array_header_1_0, 2: np.lib.format.read_array_header_2_0}
            shape, _, dtype = read_header[version[0]](stream)
        except Exception as error:  # numpy evaluates the header's text, which fails in a dozen ways.
            raise InputError(where, f"a broken array header ({error})", "a numpy array") from error
    if dtype.hasobject:
        raise InputError(where, "pickled objects", "plain numbers; pickles are never loaded")
    # A text is as long as its header says, whatever the number of texts.
    check_size(where, shape if dtype.kind in "biufc" else (*shape, dtype.itemsize))
    with archive.open(f"{key}.npy") as stream:
        try:
            return np.lib.format.read_array(stream, allow_pickle=False)
        except (ValueError, MemoryError) as error:
            raise InputError(where, f"a broken array ({error})", f"{dtype} {shape}") from error


def _image(path: Path, imgs: NDArray[Any]) -> tuple[NDArray[np.uint8], bool]:
    """The image as (H, W, 3) or (D, H, W), and whether it is a volume."""
    where = f"{path}:imgs"
    if imgs.dtype != np.uint8:
        nan = " with NaN" if imgs.dtype.kind == "f" and np.isnan(imgs).any() else ""
        raise InputError(where, f"{imgs.dtype}{nan}", "uint8 0-255 (window and scale the image first)")
    if imgs.ndim not in (2, 3) or 0 in imgs.shape:
        raise InputError(where, f"shape {imgs.shape}", "(H, W), (H, W, 3) or (D, H, W)")
    if imgs.ndim == 2:
        return np.repeat(imgs[..., None], 3, axis=2), False
    named_volume = path.name.upper().startswith("3D")
    is_rgb = imgs.shape[2] == 3 and not named_volume
    if path.name.upper().startswith("2D") and not is_rgb:
        raise InputError(where, f"shape {imgs.shape} in a file named 2D", "(H, W) or (H, W, 3)")
    return imgs, not is_rgb


def _labels(where: str, gts: NDArray[Any], shape: tuple[int, ...]) -> NDArray[np.uint16]:
    if gts.shape != shape:
        raise InputError(where, f"shape {gts.shape}", f"{shape}, that of the image")
    if gts.dtype.kind not in "biu":
        raise InputError(where, f"{gts.dtype}", "integers")
    if not gts.size:
        raise InputError(where, f"shape {gts.shape}", "at least one pixel")
    if gts.dtype.kind != "b" and (gts.min() < 0 or gts.max() > np.iinfo(np.uint16).max):
        raise InputError(where, f"values {gts.min()} to {gts.max()}", "0 to 65535")
    return gts.astype(np.uint16, copy=False)


def _numbered_by_box(where: str, labels: NDArray[np.uint16], boxes: NDArray[np.int64]) -> NDArray[np.uint16]:
    """Labels as 1 to N in the order of their boxes, where a file has numbered them otherwise.

    Raises:
        InputError: labels that are not those of the boxes.
    """
    count = len(boxes)
    if labels.max() <= count:
        return labels
    tight, values = boxes_from_labels(labels)
    if _lie_in(tight[values <= count], boxes):
        return labels
    if not _lie_in(tight, boxes):
        raise InputError(
            where, f"labels {_listed(values)} and {count} boxes", "labels 1 to N, in the order of the boxes"
        )
    numbers = np.zeros(int(values[-1]) + 1, np.uint16)
    numbers[values] = np.arange(1, count + 1)
    return numbers[labels]


def _lie_in(found: NDArray[np.int64], boxes: NDArray[np.int64]) -> bool:
    """Whether there are as many boxes as others, and each lies in the other of its place."""
    if len(found) != len(boxes):
        return False
    (first, last), (lowest, highest) = np.split(found, 2, axis=1), np.split(boxes, 2, axis=1)
    return bool((first >= lowest).all() and (last <= highest).all())


def _array_of(names: Mapping[int, str]) -> NDArray[np.str_]:
    """Names of the labels 1 to N, empty where one has none."""
    return np.array([names.get(label, "") for label in range(1, max(names) + 1)], np.str_)


def _names(where: str, names: NDArray[Any]) -> dict[int, str]:
    if names.ndim != 1 or names.dtype.kind != "U":
        raise InputError(where, f"{names.dtype} {names.shape}", "a text for each label")
    return {label: name for label, name in enumerate(names.tolist(), start=1) if name}


def _affine(where: str, affine: NDArray[Any]) -> NDArray[np.float64]:
    if affine.shape != (4, 4) or affine.dtype.kind not in "iuf" or not np.isfinite(affine).all():
        raise InputError(where, f"{affine.dtype} {affine.shape}", "a finite 4x4 matrix")
    return affine.astype(np.float64)


def _spacing(where: str, spacing: NDArray[Any] | None, dimensions: int) -> tuple[float, ...]:
    """Spacing by axis of the array; 1 mm where the file has none."""
    if spacing is None:
        return (1.0,) * dimensions
    if spacing.ndim != 1 or len(spacing) < dimensions or spacing.dtype.kind not in "iuf":
        raise InputError(
            where, f"{spacing.dtype} {spacing.shape}", f"{dimensions} numbers (x, y{', z' * (dimensions - 2)})"
        )
    values = tuple(float(value) for value in spacing[:dimensions][::-1])
    if not all(math.isfinite(value) and value > 0 for value in values):
        raise InputError(where, f"{spacing.tolist()}", "positive millimetres")
    return values
