"""Reading record files: what is torn is counted, what was measured twice counts once."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from bench.record import read_records
from reports.candidates import Reading
from reports.case_info import names_apart
from zoo.errors import InputError

#: What records are.
WRITTEN = "records, as `bench` and `score` write them"


@dataclass(frozen=True)
class RecordFile:
    """What one file held.

    Attributes:
        path: of the file.
        records: lines that are records.
        skipped: lines that are none, torn by a crash or foreign.
        run_ids: of the records.
    """

    path: Path
    records: int
    skipped: int
    run_ids: tuple[str, ...] = ()


@dataclass(frozen=True)
class Loaded:
    """What several files held together.

    Attributes:
        records: of each measurement the latest, in order of writing.
        files: each file with its counts.
        history: all records, with those that a later one replaced.
    """

    records: tuple[Reading, ...]
    files: tuple[RecordFile, ...]
    history: tuple[Reading, ...]

    @property
    def superseded(self) -> int:
        """Records that later ones replaced."""
        return len(self.history) - len(self.records)

    @property
    def skipped(self) -> int:
        """Lines of all files that are no records."""
        return sum(file.skipped for file in self.files)

    @property
    def sources(self) -> dict[str, tuple[str, ...]]:
        """Names of the files that hold records of each run."""
        runs = dict.fromkeys(run_id for file in self.files for run_id in file.run_ids)
        return {run_id: tuple(file.path.name for file in self.files if run_id in file.run_ids) for run_id in runs}


def load_records(paths: Sequence[Path]) -> Loaded:
    """The records of JSON-lines files.

    Raises:
        InputError: a file is missing, the files hold no record at all, or one is of a newer schema than this version
            reads; the message names them.
    """
    if missing := [str(path) for path in paths if not path.is_file()]:
        raise InputError(", ".join(missing), "no such file", WRITTEN)
    contents = {path: [Reading(**vars(record)) for record in read_records([path])] for path in dict.fromkeys(paths)}
    records = _named_alike([record for content in contents.values() for record in content])
    if not records:
        raise InputError(", ".join(map(str, paths)) or "no files at all", "no records", WRITTEN)
    files = tuple(_record_file(path, content) for path, content in contents.items())
    latest = keep_latest(records)
    return Loaded(tuple(latest), files, tuple(records))


def _named_alike(records: Sequence[Reading]) -> list[Reading]:
    """Records of equal cases under one name, and of different ones under different names."""
    names = names_apart(record.case_info for record in sorted(records, key=_written) if record.case)
    return [
        replace(record, case=record.case | {"case_id": name})
        if record.case and (name := names[record.case_info]) != record.case_info.case_id
        else record
        for record in records
    ]


def keep_latest(records: Iterable[Reading]) -> list[Reading]:
    """One record for each measurement: the one written last, by its time and then by its place.

    Of the passes of a case, a run that measured one of them anew takes the place of all that an earlier run took: a
    median over both would be of two versions of the code.
    """
    latest = {_identity(record): record for record in sorted(records, key=_written)}
    outdated = {
        (_passes(record), record.run_id)
        for record in records
        if _is_pass(record) and latest[_identity(record)].run_id != record.run_id
    }
    return [r for r in latest.values() if not (_is_pass(r) and (_passes(r), r.run_id) in outdated)]


def _identity(record: Reading) -> tuple[object, ...]:
    """What a later record of equal identity replaces.

    A key is not enough for a case, as files and weights may be renamed. The kind is part of it because an error carries
    the key of what it failed to measure: it must not hide a figure.
    """
    if _is_pass(record):
        return *_passes(record), str(record.measurements.get("pass_index"))
    if record.kind == "accuracy":
        return *_of_case(record), str(record.measurements.get("tolerance_mm"))
    return record.kind, record.key


def _is_pass(record: Reading) -> bool:
    return record.kind == "latency" and record.case is not None


def _passes(record: Reading) -> tuple[object, ...]:
    """What all passes of a case have alike."""
    return *_of_case(record), record.is_cold


def _of_case(record: Reading) -> tuple[object, ...]:
    return record.kind, str(record.machine.get("id")), record.who, record.case_info, record.protocol_id


def latencies_of_runs(records: Iterable[Reading]) -> list[Reading]:
    """The latencies of every run, those too that a later run replaced; of copies of a record one."""
    return list({(record.run_id, record.key): record for record in records if record.kind == "latency"}.values())


def _written(record: Reading) -> str:
    return record.time_utc


def _record_file(path: Path, content: Sequence[Reading]) -> RecordFile:
    run_ids = tuple(dict.fromkeys(record.run_id for record in content))
    return RecordFile(path, len(content), _lines(path) - len(content), run_ids)


def _lines(path: Path) -> int:
    """Lines that are not blank, as `read_records` splits them."""
    return sum(1 for line in path.read_text(encoding="utf-8", errors="replace").split("\n") if line.strip())
