"""Preparing many files: in parallel, resumably, with a line of report for each."""

from __future__ import annotations

import json
import re
import time
from collections import defaultdict
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from zoo.data.case import Case
from zoo.data.cases import CaseSource
from zoo.data.npz import original_labels, save_challenge_npz
from zoo.data.prepare import Preparation
from zoo.data.readers import picture
from zoo.data.scan import is_dicom
from zoo.errors import InputError
from zoo.executors.local import LocalExecutor
from zoo.files import append_json, check_writable, whole_file, writing
from zoo.ledger import PREPARE_LEDGER, Ledger, fingerprint

Format = Literal["npz", "npy"]
#: Of labels and of images to train with.
NPY_FOLDERS = ("gts", "imgs")
#: What a line says of a case between the beginning and the end of the work on it.
UNFINISHED = "begun, and not finished"
#: Case ids that other cases' files may be named by: slices of a volume, and scans named as the challenge does.
_SLICE = re.compile(r"(?P<case_id>.+)-\d{3,}")
_CHALLENGE_NAME = re.compile(r"[23]DBox_[^_]+_(?P<case_id>.+)")


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
        labels: the file's label values, in the order of the labels 1 to N that they became; of instances these alone.
        left_out: the file's label values of which nothing was as large as asked for.
        settings: of the preparation, and of the source's limits.
        made_of: the fingerprint of its files, from before they were read.
        slices: names of the files in each of `NPY_FOLDERS`.
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
    made_of: dict[str, str] = field(default_factory=dict)
    slices: tuple[str, ...] = ()
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
        out: folder; its `prepare.jsonl` gets a line for each source when it is done, and one before files of an earlier
            run are written anew.
        preparation: how.
        kind: challenge npz, or `imgs/` and `gts/` with an npy file a slice.
        workers: processes; 1 works in this one.

    Yields:
        What became of each source, in the order they are done. A source that failed does not stop the others.

    Raises:
        InputError: two sources that may be written to the same file, or a folder or ledger that cannot be written.
    """
    refuse_collisions(sources, kind)
    check_writable(out / PREPARE_LEDGER)
    ledger = Ledger(out / PREPARE_LEDGER)
    held = {source: _held(ledger, source, out, preparation, kind) for source in sources}
    yield from (outcome for outcome in held.values() if outcome is not None)
    work = partial(prepare_one, out=out, preparation=preparation, kind=kind, told=frozenset(ledger.last))
    written = _Written(ledger, sources)
    for source, result in LocalExecutor(workers).map(work, [source for source in sources if held[source] is None]):
        outcome = result if isinstance(result, Outcome) else _failed(source, result)
        if outcome.error is None:
            with writing(out):
                _remove(out, written.stale(outcome))
        append_json(out / PREPARE_LEDGER, asdict(outcome))
        yield outcome


class _Written:
    """Whose the files in a folder are, as its ledger and what is done now tell it."""

    def __init__(self, ledger: Ledger, sources: Sequence[CaseSource]) -> None:
        self._names: defaultdict[str, set[str]] = defaultdict(set)
        self._owners: dict[str, str] = {}
        # Another process may have written one of these that no line tells of yet.
        self._coming = {f"{source.case_id}.npy": source.case_id for source in sources}
        for line in ledger.lines:
            self._enter(line["case_id"], _names_of(line.get("output"), line.get("slices")))

    def stale(self, outcome: Outcome) -> set[str]:
        """What earlier runs wrote of the case in the same format, and of no other since, and what is not in its
        outcome.
        """
        own, now = outcome.case_id, _names_of(outcome.output, outcome.slices)
        self._enter(own, now)
        formats = {Path(name).suffix for name in now}
        names = {name for name in self._names[own] - {*now} if Path(name).suffix in formats}
        return {name for name in names if self._coming.get(name, self._owners[name]) == own}

    def _enter(self, case_id: str, names: Iterable[str]) -> None:
        own = [name for name in names if Path(name).name == name]
        self._names[case_id].update(own)
        self._owners.update(dict.fromkeys(own, case_id))


def _names_of(output: object, slices: Iterable[str] | None) -> list[str]:
    """Files that a line tells of: an npz, or npy of slices."""
    return [output] if isinstance(output, str) and output.endswith(".npz") else [*(slices or ())]


def refuse_collisions(sources: Sequence[CaseSource], kind: Format) -> None:
    """Refuses sources of which one may be written to a file of another.

    Raises:
        InputError: a picture `a-001` beside a volume `a`, whose slice 1 is named so; or a case `3DBox_CT_a` beside a
            scan `a`, which is named so if it is a CT.
    """
    by_id = {source.case_id: source for source in sources}
    for source in sources:
        named = (_SLICE if kind == "npy" else _CHALLENGE_NAME).fullmatch(source.case_id)
        if named is None or (other := by_id.get(named["case_id"])) is None:
            continue
        if kind == "npy":
            collide = 3 in _dimensions(other) and 2 in _dimensions(source)
        else:
            collide = int(source.case_id[0]) in _dimensions(other)
        if collide:
            found = f"a name that a file made of {other.reference} may have"
            raise InputError(source.reference, found, "other names, or a run and a folder for each")


def _dimensions(source: CaseSource) -> set[int]:
    """Of a source's image, as far as its name tells them."""
    path = source.image_path
    if path is None or path.suffix.lower() in (".tif", ".tiff"):
        return {2, 3}
    if source.npz:
        return {"2D": {2}, "3D": {3}}.get(path.name[:2].upper(), {2, 3})
    is_picture = path.suffix.lower() in (*picture.SUFFIXES, ".npy") or (path.is_file() and is_dicom(path))
    return {2} if is_picture else {3}


def prepare_one(
    source: CaseSource, out: Path, preparation: Preparation, kind: Format, told: Collection[str] = ()
) -> Outcome:
    """Prepares one source.

    Args:
        source: to prepare.
        out: as in `prepare_all`.
        preparation: likewise.
        kind: likewise.
        told: cases that the ledger in `out` tells of already.

    Raises:
        InputError: it cannot be used.
    """
    started = time.monotonic()
    made_of = fingerprint(source.files())
    case, labels = source.load(preparation).renumbered()
    # Parts of an object are numbered anew, and no longer say which object they were of.
    values = None if preparation.instances and source.npz is None else _values_before(source, labels)
    files = _npy_files(case) if kind == "npy" else {_npz_name(case): ()}
    if source.case_id in told and any((out / folder / name).exists() for folder in _folders(kind) for name in files):
        # A kill may leave new files in place of those that an earlier line tells of.
        append_json(out / PREPARE_LEDGER, asdict(Outcome(source.case_id, source.reference, error=UNFINISHED)))
    if kind == "npy":
        _write_npy(files, out)
    else:
        save_challenge_npz(case, out / _npz_name(case), values)
    return Outcome(
        case_id=source.case_id,
        source=source.reference,
        output=_npz_name(case) if kind == "npz" else str(len(files)),
        modality=case.modality,
        shape=case.image.shape,
        spacing_mm=case.spacing_mm,
        labels=values or labels,
        left_out=case.left_out,
        settings=_settings(source, preparation, kind),
        made_of=made_of,
        slices=tuple(files) if kind == "npy" else (),
        seconds=time.monotonic() - started,
    )


def _failed(source: CaseSource, error: Exception) -> Outcome:
    told = str(error) if isinstance(error, InputError) else f"{source.reference}: {error!r}"
    return Outcome(source.case_id, source.reference, error=told)


def _values_before(source: CaseSource, labels: tuple[int, ...]) -> tuple[int, ...] | None:
    """What some labels of a file are: themselves, and of an npz what it says that they were, if it does."""
    if source.npz is None:
        return labels
    known = original_labels(source.npz)
    return tuple(known[label] for label in labels) if known.keys() >= set(labels) else None


def _folders(kind: Format) -> tuple[str, ...]:
    """Folders in the one that is written to, in each of which a case has its files."""
    return NPY_FOLDERS if kind == "npy" else ("",)


def _npz_name(case: Case) -> str:
    """As the challenge names its files, which tells modality and dimensions."""
    name = case.case_id
    if not name.startswith(("2DBox_", "3DBox_")):
        name = f"{'3DBox' if case.is_volume else '2DBox'}_{case.modality}_{name}"
    return f"{name}.npz"


def _npy_files(case: Case) -> dict[str, tuple[NDArray[Any], ...]]:
    """By name the arrays of each labelled slice, in the order of `NPY_FOLDERS`."""
    assert case.labels is not None
    if not case.is_volume:
        return {f"{case.case_id}.npy": (case.labels, case.image)}
    labelled = np.flatnonzero(case.labels.any(axis=(1, 2)))
    return {f"{case.case_id}-{z:03d}.npy": (case.labels[z], case.image[z]) for z in labelled}


def _write_npy(files: Mapping[str, tuple[NDArray[Any], ...]], out: Path) -> None:
    """All slices or, where one fails, none that was not there before: no line would tell of them."""
    with ExitStack() as undone:
        for name, arrays in files.items():
            for folder, array in zip(NPY_FOLDERS, arrays, strict=True):
                path = out / folder / name
                if not path.exists():
                    undone.callback(path.unlink, missing_ok=True)
                with whole_file(path) as part, part.open("wb") as stream:
                    np.save(stream, array, allow_pickle=False)
        undone.pop_all()


def _remove(out: Path, names: Iterable[str]) -> None:
    """Files of an earlier run that the case has no more: they would be trained with, and scored."""
    for name in names:
        for folder in _folders("npz" if name.endswith(".npz") else "npy"):
            (out / folder / name).unlink(missing_ok=True)


def _settings(source: CaseSource, preparation: Preparation, kind: Format) -> str:
    # A challenge npz is prepared already.
    how = asdict(preparation) if source.npz is None else None
    return json.dumps([how, source.max_objects, source.max_slices, kind], sort_keys=True)


def _held(ledger: Ledger, source: CaseSource, out: Path, preparation: Preparation, kind: Format) -> Outcome | None:
    """The outcome of an earlier run that is just what would be made now, and whose files are there."""
    settings = _settings(source, preparation, kind)
    line = ledger.last.get(source.case_id, {})
    if line.get("error") or ledger.difference(source.case_id, source.reference, settings, source.files):
        return None
    try:
        outcome = Outcome(**line)
    except TypeError:
        return None
    files = [out / folder / name for folder in NPY_FOLDERS for name in outcome.slices]
    files = files if kind == "npy" else [out / outcome.output]
    return outcome if files and all(file.exists() for file in files) else None
