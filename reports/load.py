"""Reading record files: what is torn is counted, what was measured twice counts once."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from bench.record import read_records
from reports.candidates import Reading


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
        records: one for each kind and key, the latest, in order of writing.
        files: each file with its counts.
        history: all records, with those that a later one of the same kind and key replaced.
    """

    records: tuple[Reading, ...]
    files: tuple[RecordFile, ...]
    history: tuple[Reading, ...]

    @property
    def superseded(self) -> int:
        """Records that a later one of the same kind and key replaced."""
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
        ValueError: a file is missing, or the files hold no record at all; the message names them.
        bench.record.RecordError: a record is of a newer schema than this version reads.
    """
    if missing := [str(path) for path in paths if not path.is_file()]:
        raise ValueError(f"no records: no such file: {', '.join(missing)} (`bench` writes records)")
    contents = {path: [Reading(**vars(record)) for record in read_records([path])] for path in dict.fromkeys(paths)}
    records = _named_alike([record for content in contents.values() for record in content])
    if not records:
        raise ValueError(f"no records in: {', '.join(map(str, paths)) or 'no files at all'} (`bench` writes records)")
    files = tuple(_record_file(path, content) for path, content in contents.items())
    latest = keep_latest(records)
    return Loaded(tuple(latest), files, tuple(records))


def _named_alike(records: Sequence[Reading]) -> list[Reading]:
    """Records of equal cases call them by the latest of their names."""
    of_cases = [record for record in records if record.case]
    names = {record.case_info: record.case_info.case_id for record in sorted(of_cases, key=_written)}
    return [
        replace(record, case=record.case | {"case_id": name})
        if record.case and (name := names[record.case_info]) != record.case_info.case_id
        else record
        for record in records
    ]


def keep_latest(records: Iterable[Reading]) -> list[Reading]:
    """One record for each kind and key: the one written last, by its time and then by its place.

    The kind is part of it because an error carries the key of what it failed to measure: it must not hide a figure.
    """
    ordered = sorted(records, key=_written)
    return list({(record.kind, record.key): record for record in ordered}.values())


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
