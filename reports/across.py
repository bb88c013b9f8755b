"""Several machines side by side: by shares and ratios, which carry over, not by seconds, which do not."""

from __future__ import annotations

import math
from collections.abc import Sequence

from reports.candidates import Candidate, fastest_of
from reports.encoders import EncoderRow, timed
from reports.machine import MachineReport
from reports.peak import encoder_shares
from reports.tables import NOTHING, Table, milliseconds, times_cell

ACROSS_NOTE = (
    "Each cell: latency of the encoder; its speed-up over the baseline of the same machine; where that was calibrated, "
    "its share of that machine's peak. Of several weights or versions the fastest is shown, beside the baseline if one "
    "was. Seconds of different machines are never divided by each other."
)


def across_tables(reports: Sequence[MachineReport]) -> list[Table]:
    """What two machines or more have measured alike, a column a machine; nothing where there is no such thing."""
    cells: dict[tuple[str, ...], dict[str, str]] = {}
    for report in reports:
        of_peak = {share.candidate: share.of_peak for share in encoder_shares(report.encoders, report.peaks)}
        alike: dict[tuple[str, ...], list[EncoderRow]] = {}
        for row in timed(report.encoders):
            alike.setdefault(_identity(row.candidate), []).append(row)
        for identity, rows in alike.items():
            row = fastest_of(rows)
            cell = _cell(row, of_peak.get(row.candidate, math.nan))
            cells.setdefault(identity, {})[_heading(report)] = cell
    shown = [
        dict(zip(("encoder", "variant", "runtime", "precision", "threads"), identity, strict=True))
        | {_heading(report): by_machine.get(_heading(report), NOTHING) for report in reports}
        for identity, by_machine in cells.items()
        if len(by_machine) > 1
    ]
    return [Table("machines", "Machines side by side", shown, shown, (ACROSS_NOTE,))] if shown else []


def _identity(who: Candidate) -> tuple[str, ...]:
    """What is the same thing on another machine: versions and random weights may differ."""
    pinned = f" on CPU {who.cpus}" if who.cpus else ""
    return who.encoder, who.variant, who.backend, who.precision, f"{who.threads}{pinned}"


def _heading(report: MachineReport) -> str:
    return f"{report.title} ({report.machine})"


def _cell(row: EncoderRow, of_peak: float) -> str:
    ratio = "baseline" if row.is_baseline else times_cell(row.speedup)
    share = f"{100 * of_peak:.0f} % of peak" if math.isfinite(of_peak) else ""
    return ", ".join(filter(None, (f"{milliseconds(row.median_s)} ms", ratio, share)))
