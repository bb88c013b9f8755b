"""Segmenting many files: one after the other, in worker processes, or on a cluster, by one executor."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from functools import lru_cache, partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from zoo.backends import Backend
from zoo.data.cases import CaseSource
from zoo.data.clicks import Click
from zoo.data.modality import calibration_doubt
from zoo.data.prepare import Preparation
from zoo.errors import InputError, first_of
from zoo.executors import AbortError, Executor
from zoo.files import append_json, check_writable, writing
from zoo.ledger import SEGMENT_LEDGER, Difference, Ledger, fingerprint
from zoo.memory import DEFAULT_MAX_BYTES, kept_embeddings
from zoo.overlay import write_animation, write_montage
from zoo.progress import Progress
from zoo.sam.case import count_steps, segment_case
from zoo.sam.rule import Protocol2D, Protocol3D
from zoo.segment import (
    Labels,
    Prompted,
    boxes_of_file,
    clicks_of_file,
    finished,
    load_prompted,
    write_segmentation,
)

#: A message names no more objects than this.
MOST_TOLD = 5
#: A runtime serves one case at a time, also where a cluster's worker has several threads.
_ONE_CASE = threading.Lock()


class NoModelError(AbortError):
    """The model cannot be opened, whatever the case; its argument is the `InputError` that says why."""


#: Begins a task of so many steps: (description, total) to what is called after each.
Start = Callable[[str, int], Callable[[], None]]


def _unseen(description: str, total: int) -> Callable[[], None]:
    """A task that nobody watches."""
    return lambda: None


@dataclass(frozen=True)
class Segmented:
    """What came of a case.

    Attributes:
        modality: of what it shows.
        made_of: the fingerprint of its files, from before they were read.
        lacking: why there is no DICOM segmentation of nothing, or None.
        failed: why what was asked for beside the masks could not be written.
        label_names: what its labels stand for, where that is known and the file of masks cannot say.
    """

    modality: str
    made_of: dict[str, str]
    lacking: str | None = None
    failed: tuple[str, ...] = ()
    label_names: Mapping[int, str] = field(default_factory=dict)


@dataclass(frozen=True)
class SegmentRun:
    """How files are segmented, in words: another process can do the same.

    Attributes:
        out: folder that is written to.
        open_backend: makes the model in its runtime; hashable, since what it made is kept for equal ones.
        model: its name, whatever runtime and threads it has.
        preparation: of scans.
        protocol: how volumes are walked.
        image_protocol: how images are segmented.
        boxes_file: see `load_prompted`.
        boxes: see `load_prompted`.
        clicks: see `load_prompted`.
        overlay: also write a PNG of each case, and a GIF of each volume.
        dicom_seg: also write a DICOM segmentation of each DICOM series.
        overwrite: what is there already is made again, whatever it was made by.
        max_memory_bytes: of a process; what a volume may keep is chosen within it.
        calibrated_with: modalities that a quantised model was calibrated with; others are warned of.
    """

    out: Path
    open_backend: Callable[[], Backend]
    model: str = ""
    preparation: Preparation = field(default_factory=Preparation)
    protocol: Protocol3D = field(default_factory=Protocol3D)
    image_protocol: Protocol2D = field(default_factory=Protocol2D)
    boxes_file: Path | None = None
    boxes: NDArray[np.int64] | None = None
    clicks: tuple[Click, ...] = ()
    overlay: bool = False
    dicom_seg: bool = False
    overwrite: bool = False
    max_memory_bytes: int = DEFAULT_MAX_BYTES
    calibrated_with: tuple[str, ...] = ()

    def settings_of(self, source: CaseSource) -> str:
        """What the masks of a case depend on beside its files; of a file of boxes its own, as the file may grow."""
        protocols = self.protocol.as_record(), self.image_protocol.as_record()
        # An npz and what is built in are prepared already.
        is_scan = source.image_path is not None and source.npz is None
        preparation = asdict(self.preparation if is_scan else Preparation())
        return json.dumps([self.model, self._boxes_of(source), preparation, *protocols], sort_keys=True)

    def _boxes_of(self, source: CaseSource) -> list[Any] | None:
        """Boxes, labels if they come from a file, and clicks if there are any; what cannot be read is told of when the
        case is segmented.
        """
        if self.boxes_file is None:
            given: list[Any] | None = None if self.boxes is None else self.boxes.tolist()
            return [given, *map(asdict, self.clicks)] if self.clicks else given
        try:
            boxes, labels = boxes_of_file(self.boxes_file, source)
            clicks = clicks_of_file(self.boxes_file, source)
        except InputError:
            return []
        return [boxes.tolist(), labels.tolist(), *map(asdict, clicks)]

    def difference(self, ledger: Ledger, source: CaseSource) -> Difference | None:
        """Between what a ledger tells of a case and what would be made of it."""
        return ledger.difference(source.case_id, _origin(source), self.settings_of(source), source.files)

    def lacks_beside(self, source: CaseSource, line: Mapping[str, Any]) -> bool:
        """Whether something is asked for beside the masks of a case that is not there, or could not be written."""
        is_series = source.image_path is not None and source.image_path.is_dir()
        wants_seg = self.dicom_seg and is_series and not line.get("empty")
        lacks_picture = self.overlay and not self._pictures_of(source.case_id)[0].exists()
        return bool(line.get("lacks")) or lacks_picture or (wants_seg and not self._seg_of(source.case_id).exists())

    def segment(self, source: CaseSource, start: Start = _unseen) -> Segmented:
        """Segments one file and writes what it came to.

        Raises:
            InputError: it cannot be segmented.
            NoModelError: nothing can be.
        """
        with _ONE_CASE:
            backend = self._backend()
            made_of = fingerprint(source.files())
            prompted = load_prompted(source, self.preparation, self.boxes_file, self.boxes, self.clicks)
            case = prompted.case
            if prompted.grid is not None and self.protocol.z_range == "exclusive":
                # Its last slice would be taken off along the slices, which may run the other way.
                found = f"--z-range exclusive for the boxes of {source.image_path}"
                raise InputError(
                    source.image_path or source.reference, found, "inclusive: boxes of scans hold both ends"
                )
            protocol = self.protocol if case.is_volume else self.image_protocol
            advance = start(f"segmenting {source.case_id}", count_steps(case, protocol))
            multiplanar = case.is_volume and self.protocol.is_multiplanar
            kept = kept_embeddings(case, self.max_memory_bytes, multiplanar=multiplanar)
            segmentation = segment_case(case, backend, protocol, on_step=advance, kept_embeddings=kept)
            lacking = self._lacks_dicom_seg(segmentation, prompted)
            self._make_way(source, prompted)
            failed = self._write_beside(segmentation, prompted)
            self._write(segmentation, prompted)
            names = {} if prompted.suffix == ".npz" else case.label_names
            return Segmented(case.modality, made_of, lacking, failed, names)

    def _backend(self) -> Backend:
        try:
            return _opened(self.open_backend)
        except InputError as error:
            raise NoModelError(error) from error

    def _write(self, segmentation: Labels, prompted: Prompted) -> None:
        """The segmentation, last of all."""
        write_segmentation(segmentation, prompted, self._path_of(prompted))

    def _make_way(self, source: CaseSource, prompted: Prompted) -> None:
        """Makes the folder one with a ledger, by which a mask is known as ours that a kill leaves without a line. Of a
        mask that was there, the line is taken back, and what was written beside it goes, unless it is of the same mask.
        """
        case_id, ledger = prompted.case.case_id, self.out / SEGMENT_LEDGER
        check_writable(ledger)
        if not self._path_of(prompted).exists():
            return
        is_other = self.overwrite or self.difference(Ledger(ledger), source) is not None
        append_json(ledger, {"case_id": case_id, "withdrawn": True})
        for path in (self._seg_of(case_id), *self._pictures_of(case_id)) if is_other else ():
            with writing(path):
                path.unlink(missing_ok=True)

    def _seg_of(self, case_id: str) -> Path:
        return self.out / f"{case_id}.seg.dcm"

    def _pictures_of(self, case_id: str) -> tuple[Path, Path]:
        """Of any case, and of a volume, too."""
        return self.out / "overlays" / f"{case_id}.png", self.out / "overlays" / f"{case_id}.gif"

    def _path_of(self, prompted: Prompted) -> Path:
        return self.out / f"{prompted.case.case_id}{prompted.suffix}"

    def _write_beside(self, segmentation: Labels, prompted: Prompted) -> tuple[str, ...]:
        """Pictures and a DICOM segmentation, where they are asked for; returns why some could not be written."""
        failed = []
        for write in (self._write_overlay, self._write_dicom_seg):
            try:
                write(segmentation, prompted)
            except Exception as error:
                told = error if isinstance(error, InputError | OSError) else repr(error)
                failed.append(f"{told} (the masks are written)")
        return tuple(failed)

    def _write_overlay(self, segmentation: Labels, prompted: Prompted) -> None:
        case, (montage, animation) = prompted.case, self._pictures_of(prompted.case.case_id)
        if self.overlay:
            write_montage(case, segmentation, montage, prompted.grid)
        if self.overlay and case.is_volume:
            write_animation(case, segmentation, animation, prompted.grid)

    def _write_dicom_seg(self, segmentation: Labels, prompted: Prompted) -> None:
        if prompted.grid is not None and self._wants_dicom_seg(prompted) and segmentation.any():
            from zoo.data.dicom_seg import write_dicom_seg

            source = Path(prompted.case.source)
            write_dicom_seg(segmentation, prompted.grid, source, self._seg_of(prompted.case.case_id))

    def _lacks_dicom_seg(self, segmentation: Labels, prompted: Prompted) -> str | None:
        if not self._wants_dicom_seg(prompted) or segmentation.any():
            return None
        return f"{prompted.case.source}: nothing was segmented; a DICOM segmentation cannot say that, so there is none"

    def _wants_dicom_seg(self, prompted: Prompted) -> bool:
        return self.dicom_seg and prompted.grid is not None and Path(prompted.case.source).is_dir()


@lru_cache(maxsize=1)
def _opened(open_backend: Callable[[], Backend]) -> Backend:
    """The runtime of this process, opened for its first case."""
    return open_backend()


def left_to_do(run: SegmentRun, sources: Sequence[CaseSource]) -> tuple[list[CaseSource], list[InputError]]:
    """Sources that the folder does not hold yet, and what it holds in the place of others.

    A segmentation that the ledger does not tell of is made again, as a run may have been killed between the two, and
    one that lacks what is asked for beside it. Where there is no ledger at all, it is another program's or a
    person's, and stays.
    """
    ledger = Ledger(run.out / SEGMENT_LEDGER)
    is_ours = (run.out / SEGMENT_LEDGER).exists()
    todo, taken = [], []
    for source in sources:
        if (path := finished(source, run.out)) is None:
            todo.append(source)
            continue
        difference = run.difference(ledger, source)
        lacks = difference is None and run.lacks_beside(source, ledger.last[source.case_id])
        if lacks or (difference == "untold" and is_ours):
            todo.append(source)
        elif difference == "untold":
            taken.append(InputError(path, f"a file that no {SEGMENT_LEDGER} tells of", "--overwrite, or another --out"))
        elif difference is not None:
            found = {
                "source": f"masks of {ledger.last[source.case_id].get('source')}",
                "settings": "masks made by other settings",
                "files": f"masks of what {_origin(source)} or its labels were before they changed",
            }[difference]
            taken.append(InputError(path, f"{found}, as {SEGMENT_LEDGER} says", "--overwrite, or another --out"))
    return todo, taken


def _origin(source: CaseSource) -> str:
    return str(source.image_path or source.reference)


def segment_all(run: SegmentRun, sources: Sequence[CaseSource], executor: Executor, progress: Progress) -> int:
    """Segments every source; one that fails leaves the others alone.

    Args:
        run: how.
        sources: with distinct case ids.
        executor: where.
        progress: shows slices where a single case is worked on at a time, else cases; what went wrong, of the first
            case with named objects their names, and once each modality that the model was not calibrated with.

    Returns:
        How many could not be segmented, or lack what was asked for beside their masks; each is told of.

    Raises:
        InputError: the model cannot be opened.
    """
    alone = executor.stays_here(len(sources))
    work = partial(run.segment, start=progress.start) if alone else run.segment
    advance = _unseen("", 0) if alone else progress.start(f"segmenting {len(sources)} cases", len(sources))
    failures = 0
    warned: set[str] = set()
    names_told = False
    try:
        for source, result in executor.map(work, sources):
            if isinstance(result, Exception):
                failures += 1
                progress.message(_told(source, result))
            else:
                line = {"case_id": source.case_id, "source": _origin(source), "settings": run.settings_of(source)}
                lacks = {"lacks": result.failed} if result.failed else {"empty": True} if result.lacking else {}
                names = {"label_names": result.label_names} if result.label_names else {}
                append_json(run.out / SEGMENT_LEDGER, {**line, "made_of": result.made_of, **lacks, **names})
                failures += bool(result.failed)
                for text in (*([result.lacking] if result.lacking else []), *result.failed):
                    progress.message(text)
                if result.label_names and not names_told:
                    names_told = True
                    told = first_of((f"{label} {name}" for label, name in result.label_names.items()), MOST_TOLD)
                    progress.message(f"{source.case_id}: labels are {told}; see label_names in {SEGMENT_LEDGER}")
                if (doubt := calibration_doubt(result.modality, run.calibrated_with)) and doubt not in warned:
                    warned.add(doubt)
                    progress.message(doubt)
            advance()
    except NoModelError as error:
        raise error.args[0] from error
    return failures


def _told(source: CaseSource, error: Exception) -> str:
    """What went wrong with a case; an input error says itself where."""
    return str(error) if isinstance(error, InputError) else f"{source.reference}: {error!r}"
