"""What was made of what and how, a line of JSON a case: by it, a command goes on where it was stopped."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any, Literal

from zoo.files import read_json, sha256_of

#: Of `segment`, in a folder of masks that it made.
SEGMENT_LEDGER = "segment.jsonl"
#: Of `prepare`, in the folder of what it wrote.
PREPARE_LEDGER = "prepare.jsonl"

#: How what `segment` writes of a case ends, pictures aside.
WRITTEN = (".npz", ".nii.gz", ".png", ".seg.dcm")

#: Why what is there is not what would be made now: no line tells of it, or it was made of another source, by other
#: settings, or of files that have changed since.
Difference = Literal["untold", "source", "settings", "files"]


def fingerprint(files: Sequence[Path]) -> dict[str, str]:
    """What files are, for a line: a digest of their names, sizes and times, and one of their content.

    Of a file that cannot be read it says just that; whoever uses the file tells of it.
    """
    return {"stat": _digest(map(_stat, files)), "content": _digest(map(_content, files))}


class Ledger:
    """The lines of a file. Of several on a case the last one counts.

    Attributes:
        lines: those that name a case, in their order; one that a kill has torn is passed over.
        last: the line that counts, by case id; none of a case whose last one takes back the others.
    """

    def __init__(self, path: Path) -> None:
        self.lines = [line for line in read_json(path) if isinstance(line.get("case_id"), str)]
        last = {line["case_id"]: line for line in self.lines}
        self.last = {case_id: line for case_id, line in last.items() if not line.get("withdrawn")}

    def difference(
        self, case_id: str, source: str, settings: str, files: Callable[[], Sequence[Path]]
    ) -> Difference | None:
        """Between what the ledger tells of a case and what would be made of it now; None where there is none.

        Files are the same if their names, sizes and times are, or else, as they may have been copied or touched, if
        their content is. A line of an earlier version tells nothing of files: it is believed where all else agrees.

        Args:
            case_id: of the case.
            source: what its line should have as `source`.
            settings: what its line should have as `settings`.
            files: finds those that it is made of.
        """
        if (line := self.last.get(case_id)) is None:
            return "untold"
        if line.get("source") != source:
            return "source"
        if line.get("settings") != settings:
            return "settings"
        told = line.get("made_of")
        return None if not isinstance(told, Mapping) or _are_same(files(), told) else "files"


def outside_of_made(files: Sequence[Path], asked_for: Collection[Path], *ledgers: str) -> list[Path]:
    """Those of some files that do not lie in or below a folder that was made, and not asked for.

    Args:
        files: that were found, the ledgers among them.
        asked_for: folders that are looked into whatever they are.
        ledgers: names of the files that tell of a folder that it was made.
    """
    made = folders_made(files, asked_for, *ledgers)
    return [file for file in files if made.isdisjoint(file.parents)]


def folders_made(files: Sequence[Path], asked_for: Collection[Path], *ledgers: str) -> set[Path]:
    """The folders that ledgers among some files tell of; see `outside_of_made`."""
    return {file.parent for file in files if file.name in ledgers}.difference(asked_for)


def not_written(files: Sequence[Path], folders: Collection[Path]) -> list[Path]:
    """Those of some files in or below folders that `segment` wrote into that are neither told of there nor pictures."""
    written = {
        folder / f"{case_id}{suffix}"
        for folder in folders
        for case_id in (line["case_id"] for line in Ledger(folder / SEGMENT_LEDGER).lines)
        for suffix in WRITTEN
    }
    pictures = {folder / "overlays" for folder in folders}
    below = (file for file in files if not {*folders}.isdisjoint(file.parents))
    return [file for file in below if file not in written and file.parent not in pictures]


def is_told_of(path: Path) -> bool:
    """Whether a file lies in a folder that `segment` wrote, and is the segmentation of a case there."""
    ledger = path.parent / SEGMENT_LEDGER
    return ledger.exists() and path.stem in _cases_of(ledger, ledger.stat().st_mtime_ns)


@lru_cache(maxsize=4)
def _cases_of(ledger: Path, written_ns: int) -> frozenset[str]:
    return frozenset(line["case_id"] for line in Ledger(ledger).lines)


def _are_same(files: Sequence[Path], told: Mapping[str, Any]) -> bool:
    return told.get("stat") == _digest(map(_stat, files)) or told.get("content") == _digest(map(_content, files))


def _stat(file: Path) -> str:
    try:
        known = file.stat()
    except OSError:
        return "not readable"
    return f"{file.name} {known.st_size} {known.st_mtime_ns}"


def _content(file: Path) -> str:
    try:
        return sha256_of(file)
    except OSError:
        return "not readable"


def _digest(told: Iterable[str]) -> str:
    return hashlib.sha256("\n".join(told).encode(errors="surrogateescape")).hexdigest()
