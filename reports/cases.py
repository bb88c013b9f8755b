"""The tables of cases, 3D and 2D: what a whole case takes, split into stages, beside what was published."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace

from bench.record import SCRIPTS
from reports.candidates import (
    Candidate,
    Reading,
    choose_baseline,
    fastest_of,
    label_candidates,
)
from reports.case_info import CaseInfo
from reports.fields import integer
from reports.published import Published, published_case
from reports.rules import UsualRule, label_protocols
from reports.statistics import Ratio, Samples, Spread, finite_samples, median_of, ratio_of_medians, spread_of
from reports.tables import NOTHING, SPEEDUP, Table, flatten, significant, speedup_cell, whole

#: Of one pass, in the order they come in; keys of a record's measurements are `STAGE_s`.
STAGES = ("load", "preprocess", "encode", "decode", "postprocess")
#: Named once, in a case's first row.
CASE_COLUMNS = ("case", "shape", "objects")
#: Figures and READMEs show a case with more rows in its main ones.
MAX_ROWS = 12
PROCESS_NOTE = "Whole process: from calling that process to its end, masks written, as the challenge timed a container."
STAGES_NOTE = (
    "Median seconds of each stage over the warm passes (of the cold one where there are none), and its part of the "
    "five together."
)


@dataclass(frozen=True)
class CaseRow:
    """One case, segmented by one candidate under one protocol on one machine; NaN where it was not measured.

    Attributes:
        case: the case.
        candidate: what segmented it.
        label: short name of the candidate among the others.
        protocol: label of the protocol: the name, which images have none of, and its unusual options.
        protocol_name: the protocol's name alone.
        protocol_options: the protocol with all its options, as JSON.
        samples: total seconds of the passes that ratios are taken of: warm, or cold where there are no warm ones.
        total_s: their spread.
        temperature: `warm` or `cold`, of `samples`.
        cold_s: total seconds of a pass in a fresh process, start-up included.
        startup_s: from the call of that process until the model was ready.
        process_s: all of that process, from its call until it ended with the masks written.
        peak_rss_mib: largest resident memory of that process.
        load_s: median seconds of this stage; likewise the next four.
        encoded_slices: how many slices were encoded.
        decoded_prompts: how many prompts were decoded.
        speedup: median total of the baseline over this one's.
        is_baseline: whether ratios of this case and its number of threads are taken to this row.
        published: what Rep-MedSAM's README reports.
    """

    case: CaseInfo
    candidate: Candidate
    label: str
    protocol: str
    protocol_name: str
    protocol_options: str
    samples: Samples
    total_s: Spread
    temperature: str
    cold_s: float
    startup_s: float
    process_s: float
    peak_rss_mib: float
    load_s: float
    preprocess_s: float
    encode_s: float
    decode_s: float
    postprocess_s: float
    encoded_slices: float
    decoded_prompts: float
    speedup: Ratio = field(default_factory=Ratio)
    is_baseline: bool = False
    published: Published = field(default_factory=Published)

    @property
    def median_s(self) -> float:
        """Median of `total_s`."""
        return self.total_s.median

    @property
    def run_ids(self) -> set[str]:
        """Runs that `samples` come from."""
        return {run_id for run_id, _ in self.samples.rounds}

    @property
    def stages_s(self) -> dict[str, float]:
        """Median seconds by stage."""
        return {stage: getattr(self, f"{stage}_s") for stage in STAGES}


def case_rows(records: Iterable[Reading], baseline: str | None = None) -> list[CaseRow]:
    """A row for each case, candidate and protocol of one machine: cases by id, then the slowest first.

    Args:
        records: of one machine, without superseded ones.
        baseline: encoder that ratios are taken to; see `reports.candidates.choose_baseline`. They are taken within one
            case and number of threads.
    """
    passes = [record for record in records if record.kind == "latency" and record.case]
    labels, _ = label_candidates(record.who for record in passes)
    protocols, _ = label_protocols(passes)
    groups: dict[tuple[CaseInfo, Candidate, str], list[Reading]] = {}
    for record in passes:
        groups.setdefault((record.case_info, record.who, record.protocol_id), []).append(record)
    comparable: dict[tuple[CaseInfo, int], list[CaseRow]] = {}
    for (case, candidate, protocol), group in groups.items():
        row = _case_row(case, candidate, labels[candidate], (protocol, protocols[protocol]), group)
        comparable.setdefault((case, candidate.threads), []).append(row)
    order = sorted(comparable, key=lambda key: (key[0].case_id, key[0].content, key[1]))
    return [row for key in order for row in _compare(comparable[key], baseline)]


def case_tables(rows: Sequence[CaseRow], shared: Shared) -> list[Table]:
    """Of volumes and of images, each a table of totals and one of stages; nothing where there are no rows.

    Args:
        rows: of one machine.
        shared: what their candidates and protocols share.
    """
    volumes = [row for row in rows if row.case.is_volume]
    images = [row for row in rows if not row.case.is_volume]
    return [*_tables("3d", "3D cases", volumes, shared), *_tables("2d", "2D cases", images, shared)]


def _tables(suffix: str, title: str, rows: Sequence[CaseRow], shared: Shared) -> list[Table]:
    """Totals and stages of one kind of cases."""
    if not rows:
        return []
    totals, stages = [_totals(row) for row in rows], [_stages(row) for row in rows]
    data = [flatten(row) for row in rows]
    keys = ("case_case_id", "case_shape", "case_objects", "label", "protocol", *(f"{stage}_s" for stage in STAGES))
    counts = ("encoded_slices", "decoded_prompts")
    stage_data = [{key: row[key] for key in (*keys, *counts)} for row in data]
    return [
        Table(f"cases_{suffix}", title, totals, data, _totals_notes(rows, shared), CASE_COLUMNS),
        Table(f"stages_{suffix}", f"{title}: where the time goes", stages, stage_data, (STAGES_NOTE,), CASE_COLUMNS),
    ]


def short_case_rows(rows: Sequence[CaseRow]) -> list[dict[str, str]]:
    """The rows and columns of the tables of totals that a README has room for."""
    dropped = ("cold (s), of it start-up", "whole process (s)", "peak RSS (MiB)")
    return [{name: cell for name, cell in _totals(row).items() if name not in dropped} for row in main_rows(rows)]


def compared_rows(rows: Sequence[CaseRow]) -> list[CaseRow]:
    """The rows of cases that several encoders were timed on, by several protocols if there are such; or else all."""
    encoders: dict[CaseInfo, set[str]] = {}
    protocols: dict[CaseInfo, set[str]] = {}
    for row in rows:
        encoders.setdefault(row.case, set()).add(row.candidate.encoder)
        protocols.setdefault(row.case, set()).add(row.protocol_name)
    several = [row for row in rows if len(encoders[row.case]) > 1]
    return [row for row in several if len(protocols[row.case]) > 1] or several or list(rows)


def main_rows(rows: Sequence[CaseRow]) -> list[CaseRow]:
    """All rows; of a case with more than `MAX_ROWS`, the baseline and each candidate under its fastest protocol."""
    by_case: dict[CaseInfo, list[CaseRow]] = {}
    for row in rows:
        by_case.setdefault(row.case, []).append(row)
    return [
        row for of_case in by_case.values() for row in of_case if len(of_case) <= MAX_ROWS or _is_main(row, of_case)
    ]


def _is_main(row: CaseRow, of_case: Sequence[CaseRow]) -> bool:
    return row.is_baseline or row is fastest_of([other for other in of_case if other.candidate == row.candidate])


@dataclass(frozen=True)
class Shared:
    """What case records share.

    Attributes:
        candidate: of all candidates, in words.
        rule: of most protocols that are no script's.
    """

    candidate: str
    rule: UsualRule

    def in_short(self) -> str:
        """The candidates', and of the rule what is no default."""
        return "; ".join(filter(None, (self.candidate, self.rule.in_short())))

    def note(self, rows: Sequence[CaseRow]) -> str:
        """What is true of all of some rows; scripts, which rows name, have a rule of their own."""
        others = [row for row in rows if row.protocol not in SCRIPTS]
        options = {option for row in others for option in json.loads(row.protocol_options or "{}")}
        but = "" if len(others) == len(rows) else "but for the scripts', "
        rule = self.rule.in_full(options)
        told = "; ".join(filter(None, (self.candidate, rule and but + rule)))
        return told and f"All rows: {told}."


def shared_by(records: Iterable[Reading]) -> Shared:
    """What all case records share."""
    passes = [record for record in records if record.kind == "latency" and record.case]
    return Shared(label_candidates(record.who for record in passes)[1], label_protocols(passes)[1])


def _case_row(
    case: CaseInfo, candidate: Candidate, label: str, protocol: tuple[str, str], passes: Iterable[Reading]
) -> CaseRow:
    """Of the passes under one protocol: its `protocol_id` and label."""
    ordered = sorted(passes, key=_round)
    cold = [record for record in ordered if record.is_cold]
    warm = [record for record in ordered if not record.is_cold]
    timed = warm or cold
    name = str((timed[0].protocol or {}).get("name", ""))
    samples = _samples(timed, "total_s")
    return CaseRow(
        case=case,
        candidate=candidate,
        label=label,
        protocol=protocol[1],
        protocol_name=name,
        protocol_options=protocol[0],
        samples=samples,
        total_s=spread_of(samples),
        temperature="warm" if warm else "cold",
        cold_s=_median(cold, "total_s"),
        startup_s=_median(cold, "startup_s"),
        process_s=_median(cold, "process_s"),
        peak_rss_mib=_median(cold, "peak_rss_mib"),
        load_s=_median(timed, "load_s"),
        preprocess_s=_median(timed, "preprocess_s"),
        encode_s=_median(timed, "encode_s"),
        decode_s=_median(timed, "decode_s"),
        postprocess_s=_median(timed, "postprocess_s"),
        encoded_slices=_median(timed, "encoded_slices"),
        decoded_prompts=_median(timed, "decoded_prompts"),
        published=published_case(case, name, candidate.encoder, candidate.precision),
    )


def _round(record: Reading) -> tuple[str, int]:
    """Passes of one index in one run were interleaved."""
    return record.run_id, integer(record.measurements.get("pass_index"))


def _samples(passes: Sequence[Reading], key: str) -> Samples:
    """One sample a pass."""
    return finite_samples((record.measurements.get(key) for record in passes), map(_round, passes))


def _median(passes: Sequence[Reading], key: str) -> float:
    return median_of(record.measurements.get(key) for record in passes)


def _compare(rows: Sequence[CaseRow], baseline: str | None) -> list[CaseRow]:
    """The rows of one case with their ratios, slowest first. Warm passes are not compared with cold ones."""
    chosen = choose_baseline([row for row in rows if row.temperature == "warm"] or rows, baseline)
    compared = []
    for row in rows:
        if chosen is not None and row.temperature == chosen.temperature:
            ratio = ratio_of_medians(chosen.samples, row.samples)
            compared.append(replace(row, speedup=ratio, is_baseline=row is chosen))
        else:
            compared.append(row)
    return sorted(compared, key=lambda row: -row.median_s if math.isfinite(row.median_s) else math.inf)


def _case_cells(row: CaseRow) -> dict[str, str]:
    cells = {"case": row.case.case_id, "shape": row.case.size, "objects": str(row.case.objects)}
    return cells | {"candidate": row.label} | ({"protocol": row.protocol} if row.case.is_volume or row.protocol else {})


def _totals(row: CaseRow) -> dict[str, str]:
    cells = _case_cells(row) | {
        "warm (s), median (n)": _warm_cell(row),
        "cold (s), of it start-up": _cold_cell(row),
        "whole process (s)": significant(row.process_s),
        "peak RSS (MiB)": significant(row.peak_rss_mib),
        SPEEDUP: speedup_cell(row.speedup, is_baseline=row.is_baseline),
    }
    if math.isfinite(row.published.seconds):
        mark = "" if row.published.same_size else " *"
        cells["quoted (s)"] = f"{significant(row.published.seconds)} ({significant(row.published.speedup)}x){mark}"
    return cells


def _warm_cell(row: CaseRow) -> str:
    warm = row.temperature == "warm" and row.total_s.n
    return f"{significant(row.total_s.median)} ({row.total_s.n})" if warm else NOTHING


def _cold_cell(row: CaseRow) -> str:
    if not math.isfinite(row.cold_s):
        return NOTHING
    return f"{significant(row.cold_s)}, {significant(row.startup_s)}"


def _stages(row: CaseRow) -> dict[str, str]:
    whole_s = math.fsum(seconds for seconds in row.stages_s.values() if math.isfinite(seconds))
    cells = _case_cells(row)
    for stage, seconds in row.stages_s.items():
        share = f" ({100 * seconds / whole_s:.0f} %)" if math.isfinite(seconds) and whole_s else ""
        cells[f"{stage} (s)"] = significant(seconds) + share
    return cells | {
        "slices encoded": whole(row.encoded_slices),
        "prompts decoded": whole(row.decoded_prompts),
    }


def _totals_notes(rows: Sequence[CaseRow], shared: Shared) -> tuple[str, ...]:
    notes = [told] if (told := shared.note(rows)) else []
    notes.append(
        "Warm: the model is loaded and has run before. Cold: one pass in a fresh process, start-up included; its peak "
        "memory is that of the whole process. Reading an image and its boxes is in both, reading its labels is not."
    )
    if any(math.isfinite(row.process_s) for row in rows):
        notes.append(PROCESS_NOTE)
    if any(row.temperature == "cold" for row in rows):
        notes.append("Where a row has no warm pass its speed-up is that of the cold ones.")
    if any(math.isfinite(row.published.seconds) for row in rows):
        notes.append(
            "Quoted: Rep-MedSAM's README (CPU not named) for the case of that number, not measured here; baseline is "
            "per_object + tinyvit, proposed per_object + repvit, updated cached + repvit. A `phantom_` case has the "
            "published case's shape and number of objects, not its image."
        )
    if not all(row.published.same_size for row in rows):
        notes.append("\\* the published case has another shape or number of objects: the seconds do not compare.")
    return tuple(notes)
