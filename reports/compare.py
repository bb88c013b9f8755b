"""Two sets of records side by side: what became slower, faster, better or worse, and what was not shown to differ."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from statistics import fmean
from typing import TypeVar

from reports.accuracy import LabelKey, defined_dsc, differences_by_case
from reports.candidates import Candidate, Reading, lasting_names
from reports.case_info import CaseInfo
from reports.encoders import PARTS, part_samples
from reports.load import latencies_of_runs, load_records
from reports.machine import MachineReport, machine_reports
from reports.paired import NOT_SHOWN, Difference, difference, difference_cell, p_cell
from reports.provenance import failures_of
from reports.rules import label_protocols
from reports.statistics import MIN_SAMPLES, Ratio, Samples, ratio_of_medians, run_samples, spread_of
from reports.tables import markdown_table, milliseconds, ratio_cell, significant
from zoo.errors import InputError, first_of

#: Fewer runs a side are told of: of two that do not differ, chance alone makes three comparisons of ten a change.
ENOUGH_RUNS = 3
FEW_RUNS = (
    f"Fewer than {ENOUGH_RUNS} runs a side: a process may be slow from start to end, which looks like a change. "
    "Measure both sides in turns, several runs each, into a folder a side."
)

#: Measurements of one side alone that are named; the others are counted.
MAX_NAMED = 3

Side = TypeVar("Side")
_LabelScores = dict[LabelKey, float]


@dataclass(frozen=True)
class Latency:
    """A latency that both sides measured.

    Attributes:
        what: candidate and, of a whole case, protocol and case.
        before_s: median.
        after_s: median.
        ratio: after over before: above 1 is slower.
        runs: of the side that has fewer.
    """

    what: str
    before_s: float
    after_s: float
    ratio: Ratio
    runs: int

    @property
    def verdict(self) -> str:
        """`slower`, `faster`, or that no difference was shown."""
        if math.isnan(self.ratio.low):
            return f"{NOT_SHOWN} (fewer than {MIN_SAMPLES} samples)"
        return "slower" if self.ratio.low > 1 else "faster" if self.ratio.high < 1 else NOT_SHOWN


@dataclass(frozen=True)
class Accuracy:
    """DSC of the labels that both sides scored.

    Attributes:
        what: candidate and protocol.
        before: mean DSC over labels, 0 to 1.
        after: mean DSC.
        difference: after minus before.
        worst_set: modality and dimensions of the cases that lost most, or won least.
        worst_difference: after minus before over these cases, of each the mean over its labels.
        worst_cases: how many they are.
    """

    what: str
    before: float
    after: float
    difference: Difference
    worst_set: str
    worst_difference: float
    worst_cases: int

    @property
    def drop_points(self) -> float:
        """Points of DSC lost, 0 to 100: over all labels, or in the worst set, whose loss the others may hide."""
        return 100 * max(self.before - self.after, -self.worst_difference)

    @property
    def verdict(self) -> str:
        """`worse`, `better`, or why neither was shown."""
        return self.difference.verdict("worse", "better")


@dataclass(frozen=True)
class Comparison:
    """All that two sets of records have in common.

    Attributes:
        latencies: that both sides measured.
        accuracies: likewise.
        unmatched: what one side measured alone, a sentence each.
        failed: what failed after, and was not measured there since, a sentence each.
    """

    latencies: tuple[Latency, ...]
    accuracies: tuple[Accuracy, ...]
    unmatched: tuple[str, ...] = ()
    failed: tuple[str, ...] = ()

    def failures(self, max_slower: float | None, max_dsc_drop: float | None) -> list[str]:
        """What is beyond the limits, and what no limit could be held against, a sentence each.

        Args:
            max_slower: part by which a latency may grow (0.05 is 5 %); only growth that was shown counts.
            max_dsc_drop: points of mean DSC that may be lost, whatever the test says: on the same labels the same
                candidate scores the same, so that a drop is no noise, though it may be chance that these labels drop.
        """
        undecided = []
        if max_slower is not None and all(math.isnan(row.ratio.low) for row in self.latencies):
            undecided.append(f"no latency with the {MIN_SAMPLES} samples a side that tell whether it grew")
        if max_dsc_drop is not None and not self.accuracies:
            undecided.append("no DSC of trained weights that both sides have")
        slower = [
            f"{row.what}: {significant(100 * (row.ratio.value - 1))} % slower"
            for row in self.latencies
            if max_slower is not None and row.verdict == "slower" and row.ratio.value > 1 + max_slower
        ]
        worse = [
            f"{row.what}: {significant(row.drop_points)} points of DSC lost (worst set: {row.worst_set})"
            for row in self.accuracies
            if max_dsc_drop is not None and row.drop_points > max_dsc_drop
        ]
        is_limited = max_slower is not None or max_dsc_drop is not None
        return [*undecided, *slower, *worse, *(self.failed if is_limited else ())]

    def to_markdown(self) -> str:
        """Both tables, and what was not compared."""
        tables = ([_latency_row(row) for row in self.latencies], [_accuracy_row(row) for row in self.accuracies])
        told = [FEW_RUNS] if any(row.runs < ENOUGH_RUNS for row in self.latencies) else []
        notes = "\n".join(f"- {sentence}" for sentence in [*told, *self.unmatched, *self.failed])
        return "\n\n".join([*(markdown_table(rows) for rows in tables if rows), *filter(None, [notes])])


def compare(before: Sequence[Path], after: Sequence[Path], *, across_machines: bool = False) -> Comparison:
    """Compares what both record sets measured of the same candidates, cases and protocols.

    Raises:
        InputError: no records, other machines, or nothing in common.
    """
    one, other = (machine_reports(load_records(paths)) for paths in (before, after))
    pairs = [(a, b) for a in one for b in other if a.machine == b.machine]
    if across_machines:
        paired = {a.machine for a, _ in pairs}
        pairs += [(a, b) for a in one for b in other if paired.isdisjoint((a.machine, b.machine))]
    if not pairs:
        found = f"{', '.join(r.machine for r in one)} and {', '.join(r.machine for r in other)}"
        raise InputError("records", f"those of the machines {found}", "one machine, or --across-machines")
    latencies: list[Latency] = []
    accuracies: list[Accuracy] = []
    failed: list[str] = []
    unmatched = [f"Machine {name}, not compared: on one side only." for name in _machines_alone(pairs, one, other)]
    for a, b in pairs:
        timed, scored = _timed(a, b), _scores(a, b)
        where = "" if len(pairs) == 1 else f"{' and '.join(dict.fromkeys((a.machine, b.machine)))}: "
        latencies += [_latency(where + key.describe(), *sides) for key, sides in _both(*timed)]
        accuracies += [
            _accuracy(where + key.describe(), *sides)
            for key, sides in _both(*scored)
            if not sides[0].keys().isdisjoint(sides[1])
        ]
        told = [*_alone("latencies", *timed), *_alone("DSCs", *scored), *_labels_alone(*scored)]
        unmatched += [where + sentence for sentence in told]
        failed += [where + sentence for sentence in _failed(a, b)]
    if not latencies and not accuracies:
        raise InputError("records", "no candidate and case that both sides measured", "the same bench command")
    return Comparison(tuple(latencies), tuple(accuracies), tuple(unmatched), tuple(failed))


def _machines_alone(
    pairs: Sequence[tuple[MachineReport, MachineReport]], *sides: Sequence[MachineReport]
) -> Iterable[str]:
    compared = {report.machine for pair in pairs for report in pair}
    return (report.machine for side in sides for report in side if report.machine not in compared)


@dataclass(frozen=True)
class _Key:
    """What both sides must have alike: candidate, protocol with all its options, and the case's content."""

    candidate: str
    protocol_options: str = ""
    case: CaseInfo | None = None
    is_cold: bool = False
    protocol: str = field(default="", compare=False)

    def describe(self) -> str:
        """In words, as far as a reader tells measurements apart by it."""
        who = f"{self.candidate} {self.protocol}".strip() + (", cold" if self.is_cold else "")
        return f"{self.case.case_id} {self.case.size}: {who}" if self.case else who


def _both(old: Mapping[_Key, Side], new: Mapping[_Key, Side]) -> Iterable[tuple[_Key, tuple[Side, Side]]]:
    return ((key, (old[key], new[key])) for key in old if key in new)


def _alone(what: str, old: Mapping[_Key, object], new: Mapping[_Key, object]) -> Iterable[str]:
    for side, keys in (("before", old.keys() - new.keys()), ("after", new.keys() - old.keys())):
        if keys:
            yield _told(len(keys), f"{what} only {side}", sorted(key.describe() for key in keys))


def _labels_alone(old: Mapping[_Key, _LabelScores], new: Mapping[_Key, _LabelScores]) -> Iterable[str]:
    """Labels that one side alone has of what both scored: a case that failed there takes its labels from both."""
    for side, these, those in (("before", old, new), ("after", new, old)):
        alone = {key: len(these[key].keys() - those[key].keys()) for key in these if key in those}
        named = sorted(f"{key.describe()} ({count})" for key, count in alone.items() if count)
        if named:
            yield _told(sum(alone.values()), f"labels only {side}", named)


def _failed(before: MachineReport, after: MachineReport) -> Iterable[str]:
    """What failed after, was not measured there since, and had not failed before."""
    known = {(failure.candidate, failure.case, failure.protocol) for failure in failures_of(before.records)}
    left = [one for one in failures_of(after.records) if not one.is_measured_since]
    if new := [one for one in left if (one.candidate, one.case, one.protocol) not in known]:
        named = [f"{' '.join(filter(None, (one.candidate, one.protocol, one.case)))} ({one.message})" for one in new]
        yield _told(len(new), "measurements that failed after", named)


def _told(count: int, what: str, named: Sequence[str]) -> str:
    return f"{count} {what}, not compared: {first_of(named, MAX_NAMED, '; ')}."


def _timed(*reports: MachineReport) -> list[dict[_Key, Samples]]:
    """Samples of each side, of all its runs."""
    sides = [latencies_of_runs(report.history) for report in reports]
    names = lasting_names([record.who for record in side] for side in sides)
    return [_samples(side, names) for side in sides]


def _samples(records: Sequence[Reading], names: Mapping[Candidate, str]) -> dict[_Key, Samples]:
    """Of candidates that last as one, such as two versions of a runtime, the later's.

    Args:
        records: latencies of one side, in order of time.
        names: what lasts of each candidate.
    """
    protocols, _ = label_protocols(records)
    series: dict[_Key, dict[Candidate, list[Samples]]] = {}
    latest: dict[tuple[_Key, Candidate], int] = {}
    for place, record in enumerate(records):
        who, protocol = record.who, record.protocol_id
        if record.case is None:
            found = {_Key(f"{PARTS[part][0]} of {names[who]}"): part_samples(record, part) for part in PARTS}
        else:
            key = _Key(names[who], protocol, record.case_info, record.is_cold, protocols[protocol])
            found = {key: run_samples(record.run_id, record.latencies_s)}
        for key, samples in found.items():
            if samples.values:
                series.setdefault(key, {}).setdefault(who, []).append(samples)
                latest[key, who] = place
    chosen = {key: max(of_key, key=lambda one: latest[key, one]) for key, of_key in series.items()}
    return {key: _joined(series[key][one]) for key, one in chosen.items()}


def _joined(parts: Sequence[Samples]) -> Samples:
    values = tuple(value for part in parts for value in part.values)
    return Samples(values, tuple(round_ for part in parts for round_ in part.rounds))


def _latency(what: str, old: Samples, new: Samples) -> Latency:
    runs = min(len({run_id for run_id, _ in side.rounds}) for side in (old, new))
    return Latency(what, spread_of(old).median, spread_of(new).median, ratio_of_medians(new, old), runs)


def _scores(*reports: MachineReport) -> list[dict[_Key, _LabelScores]]:
    """Of each side the DSC of every label by candidate and protocol, of trained weights.

    Of candidates that last as one, such as two versions of a runtime, those of the later.
    """
    trained = [[one for one in report.scored if one.candidate.trained] for report in reports]
    names = lasting_names([one.candidate for one in side] for side in trained)
    sides: list[dict[_Key, _LabelScores]] = []
    for side in trained:
        found: dict[_Key, dict[Candidate, _LabelScores]] = {}
        latest: dict[_Key, Candidate] = {}
        for one in side:
            key = _Key(names[one.candidate], one.protocol_options, protocol=one.protocol)
            found.setdefault(key, {}).setdefault(one.candidate, {}).update(defined_dsc(one.scores))
            latest[key] = one.candidate
        sides.append({key: found[key][who] for key, who in latest.items()})
    return sides


def _accuracy(what: str, old: _LabelScores, new: _LabelScores) -> Accuracy:
    labels = [label for label in new if label in old]
    before, after = (math.fsum(side[label] for label in labels) / len(labels) for side in (old, new))
    by_case = differences_by_case(new, old)
    sets: dict[str, list[float]] = {}
    for case, found in by_case.items():
        sets.setdefault(f"{case.kind} {'3D' if case.is_volume else '2D'}", []).append(fmean(found))
    lost, worst = min((fmean(of_set), name) for name, of_set in sets.items())
    return Accuracy(what, before, after, difference(by_case), worst, lost, len(sets[worst]))


def _latency_row(row: Latency) -> dict[str, str]:
    return {
        "latency": row.what,
        "before (ms)": milliseconds(row.before_s),
        "after (ms)": milliseconds(row.after_s),
        "runs": str(row.runs),
        "after / before [95 % CI]": ratio_cell(row.ratio),
        "verdict": row.verdict,
    }


def _accuracy_row(row: Accuracy) -> dict[str, str]:
    return {
        "DSC": row.what,
        "labels": str(row.difference.labels),
        "cases": str(row.difference.cases),
        "before": significant(row.before),
        "after": significant(row.after),
        "after - before [95 % CI]": difference_cell(row.difference),
        "worst set (points)": f"{100 * row.worst_difference:+.2f} {row.worst_set} ({row.worst_cases})",
        "p (Wilcoxon over cases)": p_cell(row.difference.p_value),
        "verdict": row.verdict,
    }
