"""Accuracy and speed of one run: encoder by runtime by precision, on the same labels."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from statistics import fmean

from reports.accuracy import (
    AccuracyRow,
    LabelKey,
    Mean,
    Scored,
    accuracy_rows,
    defined_dsc,
    differences_by_case,
    drawn_cases,
    on_shared_labels,
    read_scores,
)
from reports.candidates import FLOOR, Candidate, Reading
from reports.encoders import FAST_PATH, FOVEA, EncoderRow, encoder_rows, is_common, timed
from reports.paired import NOT_SHOWN, difference
from reports.statistics import Ratio, ratio_of_medians
from reports.sweep import best_sweep
from reports.tables import NOTHING, Table, counts, flatten, milliseconds, speedup_cell

TITLE = "Accuracy and speed, of one run"
WORST_NOTE = (
    "Worst set: the modality that lost most DSC against the encoder in fp32, or won least, in points; in brackets, of "
    "how many cases."
)
#: A verdict on two encoders, whichever is better.
SHOWN = "differ"
#: Named once, in an encoder's first row.
ENCODER = ("encoder",)


@dataclass(frozen=True)
class TradeoffRow:
    """Speed and accuracy of one candidate; of the ellipse in the box the accuracy alone.

    Attributes:
        candidate: what was measured.
        encode_s: median latency of the encoder.
        calls: how many that is of.
        box_s: median latency of a box among others by the fast path.
        foveated_s: likewise with a fovea; NaN in runs of before.
        speedup: over the same encoder in fp32, in torch where that was timed.
        is_reference: whether this is that one.
        images: DSC over images, of each the mean over its labels; an empty one where none was scored.
        volumes: DSC over volumes; likewise.
        image_labels: how many labels those of images go over.
        volume_labels: likewise.
        worst_set: modality and dimensions of the cases that lost most DSC (or won least) against the reference.
        worst_difference: DSC over its cases minus the reference's, on the same labels; NaN for the reference.
        worst_cases: how many they are.
        unlike: of a reference those before it whose DSC differs, as far as the cases show it.
        protocol: that volumes were segmented by.
        drawn: `images`, `volumes` or both, where these were drawn.
        scored_in: the runs that its scores are of, in a row.
        run_id: the run that timed it.
    """

    candidate: Candidate
    encode_s: float = math.nan
    calls: int = 0
    box_s: float = math.nan
    foveated_s: float = math.nan
    speedup: Ratio = field(default_factory=Ratio)
    is_reference: bool = False
    images: Mean = field(default_factory=Mean)
    volumes: Mean = field(default_factory=Mean)
    image_labels: int = 0
    volume_labels: int = 0
    worst_set: str = ""
    worst_difference: float = math.nan
    worst_cases: int = 0
    unlike: str = ""
    protocol: str = ""
    drawn: str = ""
    scored_in: str = ""
    run_id: str = ""


def tradeoff_rows(history: Sequence[Reading]) -> list[TradeoffRow]:
    """Of one sweep, see `reports.sweep`, by encoder, the slowest first; before them the ellipse in the box.

    Args:
        history: records of one machine, also those that later ones replaced: what a run has measured belongs together.
    """
    records = best_sweep(history)
    speeds = {row.candidate: row for row in timed(encoder_rows(records))}
    shared = on_shared_labels(read_scores(records), speeds.keys())
    everything = accuracy_rows(shared, lambda case: "all")
    scored = {row.candidate for row in everything if not row.is_floor and row.dsc.n}
    by_set = [row for row in accuracy_rows(shared, lambda case: case.kind) if row.candidate in scored]
    compared = _compared(
        [_row(speeds[who], list(speeds.values()), everything, by_set) for who in speeds if who in scored], shared
    )
    found = [_scored_how(row, [one for one in shared if one.candidate == row.candidate]) for row in compared]
    encoders = list(dict.fromkeys(row.candidate.encoder for row in found))
    ordered = sorted(found, key=lambda row: (encoders.index(row.candidate.encoder), -row.encode_s))
    return [_floor(everything), *ordered]


def tradeoff_tables(rows: Sequence[TradeoffRow]) -> list[Table]:
    """The table, where two candidates or more were timed and scored in one run."""
    if len([row for row in rows if row.candidate.encoder != FLOOR]) < 2:
        return []
    of_threads = len({row.candidate.threads for row in rows if row.candidate.encoder != FLOOR}) > 1
    fovea = any(math.isfinite(row.foveated_s) for row in rows)
    looks = [(who.encoder, who.variant, who.backend, who.precision, who.threads) for who in (r.candidate for r in rows)]
    weights = len(set(looks)) < len(looks)
    shown = [_shown(row, weights=weights, of_threads=of_threads, fovea=fovea) for row in rows]
    data = [flatten(row) for row in rows]
    return [Table("tradeoff", TITLE, shown, data, _notes(rows), ENCODER)]


def _scored_how(row: TradeoffRow, own: Sequence[Scored]) -> TradeoffRow:
    """With the protocol and the runs of its scores, and whether these are of drawn cases."""
    protocols = dict.fromkeys(one.protocol for one in own if one.case.is_volume and one.scores)
    runs = dict.fromkeys(one.run_id for one in own if one.scores)
    kinds = {"volumes" if case.is_volume else "images" for case in drawn_cases(own)}
    return replace(row, protocol="; ".join(protocols), drawn=", ".join(sorted(kinds)), scored_in=", ".join(runs))


def _compared(rows: Sequence[TradeoffRow], shared: Sequence[Scored]) -> list[TradeoffRow]:
    """With what the references differ from each other, tested over cases."""
    scores: dict[Candidate, dict[LabelKey, float]] = {}
    for one in shared:
        scores.setdefault(one.candidate, {}).update(defined_dsc(one.scores))
    references = [row.candidate for row in rows if row.is_reference]

    def verdict(one: Candidate, other: Candidate, *, volumes: bool) -> str:
        by_case = differences_by_case(scores[one], scores[other])
        # As the table's means: a case of many labels is one.
        means = {case: [fmean(found)] for case, found in by_case.items() if case.is_volume == volumes}
        found = difference(means).verdict(SHOWN, SHOWN) if means else NOT_SHOWN
        return "" if found.startswith(NOT_SHOWN) else found

    def unlike(who: Candidate) -> str:
        pairs = [(other, kind) for other in references[: references.index(who)] for kind in ("images", "volumes")]
        found = [(o.encoder, kind, verdict(who, o, volumes=kind == "volumes")) for o, kind in pairs]
        return ", ".join(f"{encoder} ({kind}: {told})" for encoder, kind, told in found if told)

    return [replace(row, unlike=unlike(row.candidate)) if row.is_reference else row for row in rows]


def _floor(everything: Sequence[AccuracyRow]) -> TradeoffRow:
    return _scored(TradeoffRow(Candidate(FLOOR)), everything)


def _scored(row: TradeoffRow, everything: Sequence[AccuracyRow]) -> TradeoffRow:
    """With its accuracy."""
    for one in reversed(everything):  # of several tolerances the first stays
        if one.candidate == row.candidate and one.dims == "2D":
            row = replace(row, images=one.dsc_by_case, image_labels=one.dsc.n)
        elif one.candidate == row.candidate:
            row = replace(row, volumes=one.dsc_by_case, volume_labels=one.dsc.n)
    return row


def _row(
    speed: EncoderRow, speeds: Sequence[EncoderRow], everything: Sequence[AccuracyRow], by_set: Sequence[AccuracyRow]
) -> TradeoffRow:
    who = speed.candidate
    reference = _reference_of(who, speeds)
    row = TradeoffRow(
        candidate=who,
        encode_s=speed.encode_s.median,
        calls=speed.encode_s.n,
        box_s=speed.box_s.median,
        foveated_s=speed.foveated_s.median,
        speedup=ratio_of_medians(reference.encode_samples, speed.encode_samples) if reference else Ratio(),
        is_reference=speed is reference,
        run_id=speed.run_id,
    )
    row = _scored(row, everything)
    if reference is None or row.is_reference:
        return row
    before = {(one.group, one.dims): one.dsc_by_case.mean for one in by_set if one.candidate == reference.candidate}
    sets = [one for one in by_set if one.candidate == who and (one.group, one.dims) in before]
    differences = [(one.dsc_by_case.mean - before[one.group, one.dims], one) for one in sets]
    if not differences:
        return row
    lost, worst = min(differences, key=lambda pair: pair[0])
    name = f"{worst.group} {worst.dims}"
    return replace(row, worst_set=name, worst_difference=lost, worst_cases=worst.dsc_by_case.n)


def _reference_of(who: Candidate, speeds: Sequence[EncoderRow]) -> EncoderRow | None:
    """The same encoder of the same weights and threads in fp32: in torch, or else where it is slowest."""
    fp32 = [row for row in speeds if row.candidate.precision == "fp32"]
    same = [row for row in fp32 if _model(row.candidate) == _model(who)]
    return max(same, key=lambda row: (is_common(row.candidate), row.median_s), default=None)


def _model(who: Candidate) -> tuple[str, str, int]:
    return who.encoder, who.sha256, who.threads


def _shown(row: TradeoffRow, *, weights: bool, of_threads: bool, fovea: bool) -> dict[str, str]:
    who = row.candidate
    threads = {"threads": str(who.threads or NOTHING)} if of_threads else {}
    cells = {
        "encoder": who.encoder,
        "variant": who.variant or NOTHING,
        **({"weights": who.weights_id or NOTHING} if weights else {}),
        "runtime": who.backend or NOTHING,
        "precision": who.precision or NOTHING,
        **threads,
        "encoder (ms)": milliseconds(row.encode_s),
        **({FOVEA: milliseconds(row.foveated_s)} if fovea else {FAST_PATH: milliseconds(row.box_s)}),
        "speed-up": speedup_cell(row.speedup, is_baseline=row.is_reference),
        "DSC, images": f"{row.images.mean:.3f}" if row.images.n else NOTHING,
        "DSC, volumes": f"{row.volumes.mean:.3f}" if row.volumes.n else NOTHING,
    }
    if math.isfinite(row.worst_difference):
        cells["worst set (points)"] = f"{100 * row.worst_difference:+.2f} {row.worst_set} ({row.worst_cases})"
    return cells


def _notes(rows: Sequence[TradeoffRow]) -> tuple[str, ...]:
    """Of rows of which the first is the ellipse's."""
    measured = rows[1:]
    numbers = {
        "image": (max(row.images.n for row in measured), max(row.image_labels for row in measured)),
        "volume": (max(row.volumes.n for row in measured), max(row.volume_labels for row in measured)),
    }
    drawn = measured[0].drawn
    cases = " and ".join(
        f"{n} {'drawn ' * (what in drawn)}{what}{'s' * (n != 1)} of {labels} label{'s' * (labels != 1)}"
        for what, (n, labels) in numbers.items()
        if n
    )
    weights = ", ".join(dict.fromkeys(row.candidate.weights_id for row in measured))
    calls = counts(row.calls for row in measured)
    run_id = measured[0].run_id
    scored_in = list(dict.fromkeys(run for row in measured for run in row.scored_in.split(", ")))
    together = (
        "was timed, and segmented the cases it is scored on, in this one run"
        if scored_in == [run_id]
        else f"was timed in this one run, the same weights in the same runtimes scored in {', '.join(scored_in)}"
    )
    walked = "; ".join(dict.fromkeys(row.protocol for row in measured if row.protocol))
    notes = [
        f"Run {run_id}: each candidate {together}: medians of {calls} calls. Speed-up: of the encoder, over the same "
        "one in fp32, round by round.",
        f"DSC: means over {cases}, the same for all; of each case the mean over its labels"
        f"{walked and f', volumes by {walked}'}. The ellipse in the box never looks at the image.",
    ]
    references = [row for row in measured if row.is_reference]
    if len(references) > 1:
        differ = [f"{row.candidate.encoder} and {row.unlike}" for row in references if row.unlike]
        notes.append(f"DSC of the encoders in fp32, tested over cases: {'; '.join(differ) or NOT_SHOWN}.")
    if any(row.worst_set for row in measured):
        notes.append(WORST_NOTE)
    return (*notes, f"Weights: {weights}.")
