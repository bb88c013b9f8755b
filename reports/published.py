"""Figures quoted from public sources: `published/*.csv`. Nothing here was measured by this toolkit."""

from __future__ import annotations

import csv
import math
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from reports.case_info import CaseInfo
from reports.tables import Table, significant

FOLDER = Path(__file__).parent / "published"
HEADING = "Quoted, not measured here"
#: (protocol, encoder) of a column of Rep-MedSAM's table of cases.
COLUMNS = {
    ("per_object", "tinyvit"): "baseline_s",
    ("per_object", "repvit"): "proposed_s",
    ("cached", "repvit"): "updated_s",
}
TITLES = {
    "rep_medsam_encoders": "Encoders, as published by Rep-MedSAM",
    "rep_medsam_cases": "Six 3D cases, as published by Rep-MedSAM (seconds)",
    "case_latency_others": "The same cases, as published by others (seconds)",
    "systems": "Systems: cost, seconds a case and memory",
    "accuracy": "Systems: accuracy on the CVPR 2024 challenge's data (percent)",
}


@dataclass(frozen=True)
class Published:
    """What Rep-MedSAM's README reports for a case and way of running it.

    Attributes:
        seconds: of the whole case.
        speedup: the published baseline's seconds over these.
        same_size: whether the case at hand has the published shape and number of objects.
    """

    seconds: float = math.nan
    speedup: float = math.nan
    same_size: bool = True


@cache
def read_published(name: str) -> list[dict[str, str]]:
    """Rows of one of `published/*.csv`, as text: digits stay as they were printed."""
    with (FOLDER / f"{name}.csv").open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def published_case(case: CaseInfo, protocol: str, encoder: str, precision: str) -> Published:
    """The quoted figure that belongs beside a measured row: by case id, protocol and encoder, in fp32.

    The case's id may carry a prefix: `phantom_3DBox_CT_0566` has that case's shape, not its image.
    """
    column = COLUMNS.get((protocol, encoder)) if precision == "fp32" else None
    row = next((row for row in read_published("rep_medsam_cases") if row["case_id"] in case.case_id), None)
    if column is None or row is None:
        return Published()
    size = (int(row["depth"]), int(row["height"]), int(row["width"]), int(row["objects"]))
    seconds = float(row[column])
    return Published(seconds, float(row["baseline_s"]) / seconds, size == (*case.shape, case.objects))


def quoted_tables() -> list[Table]:
    """All quoted figures as tables; that of the cases with the ratios which follow from it."""
    tables = []
    for name, title in TITLES.items():
        rows = read_published(name)
        shown = [_with_ratios(row) for row in rows] if name == "rep_medsam_cases" else rows
        tables.append(Table(f"published_{name}", title, shown, rows, _notes(name)))
    return tables


def _with_ratios(row: dict[str, str]) -> dict[str, str]:
    """A row of the six cases with the published seconds as ratios to the published baseline."""
    size = "x".join(row[axis] for axis in ("depth", "height", "width"))
    cells = {
        "case": row["case_id"],
        "shape": size,
        "objects": row["objects"],
        "per_object + TinyViT": row["baseline_s"],
    }
    for title, column in (("per_object + RepViT", "proposed_s"), ("cached + RepViT", "updated_s")):
        cells[title] = f"{row[column]} ({significant(float(row['baseline_s']) / float(row[column]))}x)"
    return cells | {"source": row["source"]}


def _notes(name: str) -> tuple[str, ...]:
    if name in ("rep_medsam_encoders", "systems"):
        return ("`gflops_as_printed`: the sources' word; fvcore, which they name or use, counts multiply-adds.",)
    return ()
