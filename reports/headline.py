"""The short table of volumes: a row a case, with the fastest way of each encoder."""

from __future__ import annotations

import math
from collections.abc import Sequence

from bench.record import SCRIPTS
from reports.candidates import fastest_of
from reports.case_info import CaseInfo
from reports.cases import CaseRow, compared_rows
from reports.encoders import is_common
from reports.tables import NOTHING, UNPAIRED, Table, counts, significant, times_cell

TITLE = "Volumes: the fastest way of each encoder"
#: The way of Rep-MedSAM's updated script, its fastest.
UPDATED = ("cached", "repvit")
FASTEST_NOTE = (
    f"In brackets: how many times as fast as the baseline, timed in the same run unless marked {UNPAIRED}. Of "
    "each encoder the fastest runtime, precision and protocol of those timed in the baseline's run, or of all if none "
    "was; the table of 3D cases has them all."
)
UPDATED_NOTE = (
    "Updated: the way of Rep-MedSAM's updated script, cached + repvit in torch fp32, and the speed-up that its README "
    "quotes for it"
)
CUT_NOTE = f"{UPDATED_NOTE}; \\* of the whole published case, of which this one has other slices or objects."


def headline_tables(rows: Sequence[CaseRow]) -> list[Table]:
    """The table, where a volume was timed with several encoders.

    Args:
        rows: of all cases of one machine.
    """
    by_case: dict[CaseInfo, list[CaseRow]] = {}
    volumes = [row for row in rows if row.case.is_volume]
    warm = [row for row in volumes if row.temperature == "warm"]
    for row in compared_rows(warm or volumes):
        by_case.setdefault(row.case, []).append(row)
    encoders = list(dict.fromkeys(row.candidate.encoder for found in by_case.values() for row in found))
    baselines = {case: next((row for row in found if row.is_baseline), None) for case, found in by_case.items()}
    shown = [
        _shown(baseline, _alike(baseline, by_case[case]), encoders) for case, baseline in baselines.items() if baseline
    ]
    if not shown or len(encoders) < 2:
        return []
    labels = dict.fromkeys(f"{row.label}, {row.protocol}" for row in baselines.values() if row)
    passes = counts(row.total_s.n for found in by_case.values() for row in found if row.total_s.n)
    cold = "" if warm else " cold"
    notes = [f"Medians of {passes}{cold} passes. Baseline: {'; '.join(labels)}.", FASTEST_NOTE]
    if left := len({row.case for row in volumes}) - len(shown):
        more = "1 more volume was" if left == 1 else f"{left} more volumes were"
        notes.append(f"{more} timed with fewer encoders or protocols, or cold alone: see the table of 3D cases.")
    if len({row.candidate.threads for found in by_case.values() for row in found}) > 1:
        notes.append("Rows of other numbers of threads than the baseline's are in that table, too.")
    updated = {row["updated (s)"] for row in shown}
    if updated != {NOTHING}:
        notes.append(CUT_NOTE if any(cell.endswith("*") for cell in updated) else f"{UPDATED_NOTE}.")
    return [Table("headline", TITLE, shown, shown, tuple(notes))]


def _alike(baseline: CaseRow, rows: Sequence[CaseRow]) -> list[CaseRow]:
    """Those of as many threads."""
    return [row for row in rows if row.candidate.threads == baseline.candidate.threads]


def _shown(baseline: CaseRow, rows: Sequence[CaseRow], encoders: Sequence[str]) -> dict[str, str]:
    """A row: of the rows of one case that compare with its baseline."""
    case = baseline.case
    cells = {
        "case": case.case_id,
        "shape": case.size,
        "objects": str(case.objects),
        "baseline (s)": significant(baseline.median_s),
        "updated (s)": _updated(rows),
    }
    for encoder in encoders:
        own = [row for row in rows if row.candidate.encoder == encoder and math.isfinite(row.speedup.value)]
        cells[f"{encoder} (s)"] = _fastest(own) if own else NOTHING
    return cells


def _fastest(rows: Sequence[CaseRow]) -> str:
    row = fastest_of(rows)
    return f"{_timed(row)} {row.candidate.backend} {row.candidate.precision}"


def _updated(rows: Sequence[CaseRow]) -> str:
    """What goes by the script's rule, or else its way through a volume by another."""
    same_way = [r for r in rows if (r.protocol_name, r.candidate.encoder) == UPDATED and is_common(r.candidate)]
    if not same_way:
        return NOTHING
    row = max(same_way, key=lambda row: row.protocol in SCRIPTS)
    quoted, mark = row.published.speedup, "" if row.published.same_size else " *"
    return _timed(row) + (f", quoted {significant(quoted)}x{mark}" if math.isfinite(quoted) else "")


def _timed(row: CaseRow) -> str:
    return f"{significant(row.median_s)} ({times_cell(row.speedup)})"
