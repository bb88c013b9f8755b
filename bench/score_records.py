"""The records that `score` writes."""

from __future__ import annotations

import hashlib
import uuid
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from bench.machine import describe_machine, git_state, package_versions
from bench.record import Record, append_record, finite, read_records, record_key
from bench.score import CaseScores, LabelRow, Rules
from zoo.data.modality import modality_from_name
from zoo.files import sha256_of, whole_file

#: Name of the weights of segmentations: they were given, whatever made them.
GIVEN = "given"


def write_records(path: Path, folder: Path, cases: Sequence[CaseScores], rules: Rules, tolerance_mm: float) -> None:
    """Writes an `accuracy` record for each case, in place of those that the file holds of these segmentations.

    Args:
        path: the records' file.
        folder: of the segmentations, an absolute path. The candidate is called by its name; a hash of the path tells it
            from others of that name.
        cases: with their scores.
        rules: that they were scored by, the candidate's variant: scores of two rules do not compare.
        tolerance_mm: of the NSD.
    """
    candidate = {
        "encoder": f"segmentations {folder.name}",
        "weights": {"name": GIVEN, "sha256": _digest([str(folder)]), "trained": True},
        "variant": rules,
    }
    machine, packages, git = describe_machine(), package_versions(), git_state()
    run_id = uuid.uuid4().hex[:12]
    records = [
        one
        for one in (read_records([path]) if path.is_file() else ())
        if one.candidate != candidate or one.measurements.get("tolerance_mm") != tolerance_mm
    ]
    for scored in cases:
        case = {
            "case_id": scored.pair.case_id,
            "modality": modality_from_name(scored.pair.case_id),
            "shape": list(scored.shape),
            "objects": sum(row.reference_ml > 0 for row in scored.rows),
            "spacing_mm": list(scored.spacing_mm),
            "source": scored.pair.references[0].name,
            "sha256": _digest([scored.pair.case_id, *map(sha256_of, scored.pair.references)]),
        }
        measurements = _measurements(scored.rows, rules, tolerance_mm)
        key = record_key("accuracy", candidate, machine["id"], case, rules=rules, tolerance_mm=tolerance_mm)
        record = Record("accuracy", candidate, measurements, machine, run_id, key, case, packages=packages, git=git)
        records.append(record)
    with whole_file(path) as part:
        for record in records:
            append_record(part, record)


def _digest(parts: Sequence[str]) -> str:
    return hashlib.sha256("\n".join(parts).encode(errors="surrogateescape")).hexdigest()


def _measurements(rows: Sequence[LabelRow], rules: Rules, tolerance_mm: float) -> dict[str, Any]:
    return {
        "labels": [row.label for row in rows],
        "dsc": [finite(row.dsc) for row in rows],
        "nsd": [finite(row.nsd) for row in rows],
        "hd95_mm": [finite(row.hd95_mm) for row in rows],
        "volume_ml": [row.volume_ml for row in rows],
        "reference_ml": [row.reference_ml for row in rows],
        "tolerance_mm": tolerance_mm,
        "rules": rules,
    }
