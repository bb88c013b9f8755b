"""Preparing many files: in parallel, resumably, with a line of report for each."""

from __future__ import annotations

import contextlib
import json
import re
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from zoo.data.case import Case
from zoo.data.cases import CaseSource
from zoo.data.npz import original_labels, save_challenge_npz
from zoo.data.prepare import Preparation
from zoo.errors import InputError
from zoo.executors.local import LocalExecutor
from zoo.files import append_json, read_json, whole_file

Format = Literal["npz", "npy"]
REPORT_FILE = "prepare.jsonl"
#: Of labels and of images to train with.
NPY_FOLDERS = ("gts", "imgs")


@dataclass(frozen=True)
class Outcome:
    """What became of one file: a line of the report.

    Attributes:
        case_id: of the source.
        source: what it is found by.
        output: file name (npz), or number of slices written (npy); empty where it failed.
        modality: as told or given.
        shape: of the image.
        spacing_mm: by axis of the image.
        labels: the file's label values, in the order of the labels 1 to N that they became.
        left_out: the file's label values of which nothing was as large as asked for.
        settings: of the preparation, and of the source's limits.
        seconds: that it took.
        error: why it failed, or None.
    """

    case_id: str
    source: str
    output: str = ""
    modality: str = ""
    shape: tuple[int, ...] = ()
    spacing_mm: tuple[float, ...] = ()
    labels: tuple[int, ...] = ()
    left_out: tuple[int, ...] = ()
    settings: str = ""
    seconds: float = 0.0
    error: str | None = None


def prepare_all(
    sources: Sequence[CaseSource],
    out: Path,
    preparation: Preparation,
    kind: Format,
    workers: int,
) -> Iterator[Outcome]:
    """Prepares every source that `out` does not hold yet, as prepared by the same settings.

    Args:
        sources: with distinct case ids.
        out: folder; its `prepare.jsonl` gets a line for each source when it is done.
        preparation: how.
        kind: challenge npz, or `imgs/` and `gts/` with an npy file a slice.
        workers: processes; 1 works in this one.

    Yields:
        What became of each source, in the order they are done. A source that failed does not stop the others.
    """
    out.mkdir(parents=True, exist_ok=True)
    held = _held(out / REPORT_FILE)
    todo = [source for source in sources if not _is_held(held.get(source.case_id), source, out, preparation, kind)]
    unfinished = set(todo)
    yield from (held[source.case_id] for source in sources if source not in unfinished)
    work = partial(prepare_one, out=out, preparation=preparation, kind=kind)
    for source, result in LocalExecutor(workers).map(work, todo):
        outcome = result if isinstance(result, Outcome) else _failed(source, result)
        append_json(out / REPORT_FILE, asdict(outcome))
        yield outcome


def prepare_one(source: CaseSource, out: Path, preparation: Preparation, kind: Format) -> Outcome:
    """Prepares one source.

    Raises:
        InputError: it cannot be used.
    """
    started = time.monotonic()
    case, labels = source.load(preparation).renumbered()
    values = _values_before(source, labels)
    return Outcome(
        case_id=source.case_id,
        source=source.reference,
        output=_write_npz(case, out, values) if kind == "npz" else _write_npy(case, out),
        modality=case.modality,
        shape=case.image.shape,
        spacing_mm=case.spacing_mm,
        labels=values or labels,
        left_out=case.left_out,
        settings=_settings(source, preparation, kind),
        seconds=time.monotonic() - started,
    )


def _failed(source: CaseSource, error: Exception) -> Outcome:
    told = str(error) if isinstance(error, InputError) else f"{source.reference}: {error or type(error).__name__}"
    return Outcome(source.case_id, source.reference, error=told)


def _values_before(source: CaseSource, labels: tuple[int, ...]) -> tuple[int, ...] | None:
    """What some labels of a file are: themselves, and of an npz what it says that they were, if it does."""
    if source.npz is None:
        return labels
    known = original_labels(source.npz)
    return tuple(known[label] for label in labels) if known.keys() >= set(labels) else None


def _write_npz(case: Case, out: Path, values: tuple[int, ...] | None) -> str:
    """Named as the challenge names its files, which tells modality and dimensions."""
    name = case.case_id
    if not name.startswith(("2DBox_", "3DBox_")):
        name = f"{'3DBox' if case.is_volume else '2DBox'}_{case.modality}_{name}"
    save_challenge_npz(case, out / f"{name}.npz", values)
    return f"{name}.npz"


def _write_npy(case: Case, out: Path) -> str:
    assert case.labels is not None
    if not case.is_volume:
        slices = [(case.case_id, case.image, case.labels)]
    else:
        labelled = np.flatnonzero(case.labels.any(axis=(1, 2)))
        slices = [(f"{case.case_id}-{z:03d}", case.image[z], case.labels[z]) for z in labelled]
    written = {f"{name}.npy" for name, _, _ in slices}
    for folder in NPY_FOLDERS:
        for stale in _slices_of(case.case_id, out / folder):
            if stale.name not in written:
                stale.unlink()
    for name, image, labels in slices:
        arrays: dict[str, NDArray[Any]] = dict(zip(NPY_FOLDERS, (labels, image), strict=True))
        for folder, array in arrays.items():
            with whole_file(out / folder / f"{name}.npy") as part, part.open("wb") as stream:
                np.save(stream, array, allow_pickle=False)
    return str(len(slices))


def _slices_of(case_id: str, folder: Path) -> list[Path]:
    """Files that an earlier run wrote of a case."""
    names = re.compile(rf"{re.escape(case_id)}(-\d{{3,}})?\.npy")
    return [file for file in folder.glob("*.npy") if names.fullmatch(file.name)]


def _settings(source: CaseSource, preparation: Preparation, kind: Format) -> str:
    # A challenge npz is prepared already.
    how = asdict(preparation) if source.npz is None else None
    return json.dumps([how, source.max_objects, source.max_slices, kind], sort_keys=True)


def _is_held(outcome: Outcome | None, source: CaseSource, out: Path, preparation: Preparation, kind: Format) -> bool:
    if outcome is None or outcome.error or outcome.source != source.reference:
        return False
    if outcome.settings != _settings(source, preparation, kind):
        return False
    if kind == "npz":
        return (out / outcome.output).exists()
    return all(str(len(_slices_of(source.case_id, out / folder))) == outcome.output for folder in NPY_FOLDERS)


def _held(report: Path) -> dict[str, Outcome]:
    """The last outcome of each case that the report tells; a torn last line is passed over."""
    found: dict[str, Outcome] = {}
    for told in read_json(report):
        with contextlib.suppress(TypeError):
            found[told["case_id"]] = Outcome(**told)
    return found
