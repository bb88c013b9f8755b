"""Which measured candidate to take: the most accurate one that is fast enough, or the fastest accurate enough."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from reports.accuracy import AccuracyRow, Mean, drawn_cases
from reports.candidates import Candidate
from reports.encoders import timed
from reports.load import load_records
from reports.machine import MachineReport, machine_reports
from reports.tables import NOTHING, markdown_table, significant
from zoo.errors import InputError

#: How a box was timed, as `EncoderRow` has it, in words.
BOX = {"foveated_s": "a box with a fovea", "box_s": "a box among others", "decode_s": "one box"}
SEVERAL_RUNS = "Latencies are of several runs: between those of different hours or days lies the machine's drift."
NOT_SHARED = (
    "No label was scored for every candidate, so no DSC is compared: run bench with all of them on the same cases."
)


@dataclass(frozen=True)
class Choice:
    """A candidate with what speaks for it.

    Attributes:
        candidate: what was measured.
        latency_s: medians of the encoder and of a box, together; see `_box_timed`.
        dsc: mean over cases of the mean over the labels that all scored candidates have; NaN for random weights.
        dominated: whether another one is as fast and as accurate, and better in one of them.
    """

    candidate: Candidate
    latency_s: float
    dsc: float
    dominated: bool = False

    @property
    def is_on_front(self) -> bool:
        """Whether it was timed and scored, and none beats it: the Pareto front of speed and accuracy."""
        return math.isfinite(self.latency_s) and math.isfinite(self.dsc) and not self.dominated


def choices(report: MachineReport) -> list[Choice]:
    """All candidates of a machine that were timed, the fastest first."""
    dsc, part = _mean_dsc(report), _box_timed(report)
    found = [
        Choice(row.candidate, row.encode_s.median + getattr(row, part).median, dsc.get(row.candidate, math.nan))
        for row in timed(report.encoders)
    ]
    marked = [
        Choice(one.candidate, one.latency_s, one.dsc, any(_beats(other, one) for other in found)) for one in found
    ]
    return sorted(marked, key=lambda choice: choice.latency_s)


def _box_timed(report: MachineReport) -> str:
    """Of the ways that all candidates were timed to decode a box by, the nearest to what `segment` does by default."""
    rows = timed(report.encoders)
    return next((part for part in BOX if all(getattr(row, part).n for row in rows)), "decode_s")


def best_choice(among: Sequence[Choice], max_latency_s: float = math.inf, min_dsc: float = 0.0) -> Choice | None:
    """The most accurate candidate within the limits; the fastest, where none has an accuracy and none is asked for."""
    within = [choice for choice in among if choice.latency_s <= max_latency_s]
    if min_dsc > 0 or any(math.isfinite(choice.dsc) for choice in within):
        within = [choice for choice in within if choice.dsc >= min_dsc]
        return max(within, key=lambda choice: (choice.dsc, -choice.latency_s), default=None)
    return min(within, key=lambda choice: choice.latency_s, default=None)


def recommend(paths: Sequence[Path], machine: str, max_latency_s: float, min_dsc: float) -> tuple[Choice | None, str]:
    """The best candidate of the records of one machine, and all of them as a markdown table.

    Raises:
        InputError: no record of this machine, or none that timed an encoder.
    """
    reports = {report.machine: report for report in machine_reports(load_records(paths))}
    if machine not in reports:
        expected = f"some of this machine, {machine}: run bench"
        raise InputError("records", f"those of {', '.join(reports)}", expected)
    among = choices(reports[machine])
    if not among:
        raise InputError("records", "no timed encoder", "those of bench with --rounds above 0")
    best = best_choice(among, max_latency_s, min_dsc)
    looks = [_look(choice.candidate) for choice in among]
    alike = len(set(looks)) < len(looks)
    box = BOX[_box_timed(reports[machine])]
    table = markdown_table([_shown(choice, choice is best, box, weights=alike) for choice in among])
    if len({row.run_id for row in timed(reports[machine].encoders)}) > 1:
        table += f"\n\n{SEVERAL_RUNS}"
    if averaged := _averaged_over(reports[machine]):
        table += f"\n\n{averaged}"
    was_scored = any(not row.is_floor for row in reports[machine].compared)
    if was_scored and not any(math.isfinite(choice.dsc) for choice in among):
        table += f"\n\n{NOT_SHARED}"
    return best, table


def describe(candidate: Candidate) -> str:
    """A candidate in words."""
    runtime = f"{candidate.backend} {candidate.backend_version} {candidate.precision}"
    return f"{candidate.encoder} ({candidate.variant}) in {runtime}, weights {candidate.weights_id}"


def _mean_dsc(report: MachineReport) -> dict[Candidate, float]:
    """Over the cases that all scored candidates have: images and volumes, or the one kind that all have."""
    shared = _shared_rows(report)
    scored = {row.candidate for row in shared}
    return {who: _joined([row.dsc_by_case for row in shared if row.candidate == who]) for who in scored}


def _shared_rows(report: MachineReport) -> list[AccuracyRow]:
    """Of images and of volumes the rows, where all scored candidates have one."""
    rows = [row for row in report.compared if not row.is_floor and row.dsc.n]
    scored = {row.candidate for row in rows}
    of_kind = [[row for row in rows if row.dims == dims] for dims in ("2D", "3D")]
    return [row for kind in of_kind if {row.candidate for row in kind} == scored for row in kind]


def _averaged_over(report: MachineReport) -> str:
    """What the mean DSCs go over, in words; empty where there are none."""
    shared = _shared_rows(report)
    if not shared:
        return ""
    cases = sum({row.dims: row.dsc_by_case.n for row in shared}.values())
    labels = sum({row.dims: row.dsc.n for row in shared}.values())
    counted = f"{cases} case{'s' * (cases != 1)} of {labels} label{'s' * (labels != 1)}"
    kinds = {row.dims == "3D" for row in shared}
    drawn = sum(case.is_volume in kinds for case in drawn_cases(report.shared))
    were = f" ({drawn} of them drawn, no real ones)" if drawn else ""
    return f"DSC: mean over {counted}{were}, which all rows with a DSC share; of each case the mean over its labels."


def _joined(means: Sequence[Mean]) -> float:
    """The mean over the cases of several means."""
    cases = sum(mean.n for mean in means)
    return sum(mean.mean * mean.n for mean in means) / cases if cases else math.nan


def _beats(other: Choice, one: Choice) -> bool:
    if not (math.isfinite(other.dsc) and math.isfinite(one.dsc)):
        return False
    better = other.latency_s < one.latency_s or other.dsc > one.dsc
    return better and other.latency_s <= one.latency_s and other.dsc >= one.dsc


def _look(who: Candidate) -> tuple[object, ...]:
    """What the table tells of every candidate."""
    return who.encoder, who.variant, who.backend, who.precision, who.threads


def _shown(choice: Choice, is_best: bool, box: str, *, weights: bool) -> dict[str, str]:
    who = choice.candidate
    return {
        "": "**>**" if is_best else "",
        "encoder": who.encoder,
        "variant": who.variant,
        "runtime": f"{who.backend} {who.precision}",
        "threads": str(who.threads),
        **({"weights": who.weights_id, "version": who.backend_version} if weights else {}),
        f"encoder + {box} (ms)": significant(1000 * choice.latency_s),
        "DSC": significant(choice.dsc) if math.isfinite(choice.dsc) else NOTHING,
        "on the Pareto front": "yes" if choice.is_on_front else "",
    }
