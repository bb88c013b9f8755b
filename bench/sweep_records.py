"""What a records file holds, and what a sweep adds to it: nothing is measured twice, and no failure is lost."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from bench.machine import describe_machine, git_state, package_versions
from bench.record import MEASUREMENTS, Kind, Record, append_record, finished_keys, record_key
from zoo.data.case import Case


class SweepRecords:
    """The records of one run, in a file that may hold those of earlier ones.

    Args:
        out: the file.
        run_id: that records are written under.
        tell: of each failure.

    Attributes:
        failures: error records written so far.
    """

    def __init__(self, out: Path, run_id: str, tell: Callable[[str], None]) -> None:
        self.out, self.run_id, self.tell, self.failures = out, run_id, tell, 0
        self._held = finished_keys(out)
        self._done = set(self._held)
        self._skipped: set[str] = set()
        self._machine = describe_machine()

    @property
    def skipped(self) -> int:
        """Measurements that were asked for and the file held before."""
        return len(self._skipped)

    def key(
        self,
        kind: Kind,
        candidate: dict[str, Any],
        case: dict[str, Any] | None = None,
        protocol: dict[str, Any] | None = None,
        **extra: str | int | float,
    ) -> str:
        """As `record_key`, on this machine."""
        return record_key(kind, candidate, self._machine["id"], case, protocol, **extra)

    def is_done(self, key: str) -> bool:
        """Whether it need not be measured: the file held it, or this run has measured it or failed to."""
        if key in self._held:
            self._skipped.add(key)
        return key in self._done

    def write(
        self,
        kind: Kind,
        key: str,
        candidate: dict[str, Any],
        measurements: dict[str, Any],
        case: dict[str, Any] | None = None,
        protocol: dict[str, Any] | None = None,
        error: dict[str, str] | None = None,
    ) -> None:
        """Adds a record, of which the arguments are fields."""
        record = Record(
            kind=kind,
            candidate=candidate,
            measurements=measurements,
            machine=self._machine,
            run_id=self.run_id,
            key=key,
            case=case,
            protocol=protocol,
            packages=package_versions(),
            git=git_state(),
            error=error,
        )
        append_record(self.out, record)
        self._done.add(key)

    def fail(
        self,
        kind: Kind,
        error: Exception,
        candidate: dict[str, Any],
        case: dict[str, Any] | None = None,
        protocol: dict[str, Any] | None = None,
        **extra: str | int | float,
    ) -> None:
        """Records a failure, under the key of what it failed to measure as far as that is known, and tells of it."""
        self.failures += 1
        told = {"type": type(error).__name__, "message": str(error) or repr(error)}
        key = self.key(kind, candidate, case, protocol, **extra)
        which = {name: extra[name] for name in MEASUREMENTS["error"] if name in extra}
        self.write("error", key, candidate, {"kind": kind, **which}, case, protocol, told)
        self.tell(f"{told['type']}: {told['message']}")


def describe_case(case: Case) -> dict[str, Any]:
    """The case as a record names it: its source by file name only, its content by hash."""
    digest = hashlib.sha256()
    for array in (case.image, case.boxes, case.object_labels, case.labels):
        if array is not None:
            digest.update(np.ascontiguousarray(array).data)
    return {
        "case_id": case.case_id,
        "modality": case.modality,
        "shape": list(case.spatial_shape),
        "objects": len(case.boxes),
        "spacing_mm": list(case.spacing_mm),
        "source": Path(case.source).name,
        "sha256": digest.hexdigest(),
    }
