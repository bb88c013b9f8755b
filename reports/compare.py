"""Two sets of records side by side: what became slower, faster, better or worse, and what was not shown to differ."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

import numpy as np
from scipy.stats import wilcoxon

from reports.accuracy import LabelKey
from reports.candidates import Candidate, CaseInfo, lasting_name
from reports.load import load_records
from reports.machine import MachineReport, machine_reports
from reports.statistics import MIN_SAMPLES, Ratio, Samples, ratio_of_medians, spread_of
from reports.tables import NOTHING, markdown_table, milliseconds, ratio_cell, significant

#: Chance below which a difference of DSC is called shown.
SIGNIFICANT = 0.05
NOT_SHOWN = "no difference shown"
#: Measurements of one side alone that are named; the others are counted.
MAX_NAMED = 3

Side = TypeVar("Side")


@dataclass(frozen=True)
class Latency:
    """A latency that both sides measured.

    Attributes:
        what: candidate and, of a whole case, protocol and case.
        before_s: median.
        after_s: median.
        ratio: after over before: above 1 is slower.
    """

    what: str
    before_s: float
    after_s: float
    ratio: Ratio

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
        labels: how many.
        before: mean DSC, 0 to 1.
        after: mean DSC.
        p_value: of Wilcoxon's signed-rank test over the labels; NaN where all are equal.
    """

    what: str
    labels: int
    before: float
    after: float
    p_value: float

    @property
    def drop_points(self) -> float:
        """Points of DSC lost, 0 to 100."""
        return 100 * (self.before - self.after)

    @property
    def verdict(self) -> str:
        """`worse`, `better`, or that no difference was shown."""
        if not self.p_value < SIGNIFICANT:
            return NOT_SHOWN
        return "worse" if self.after < self.before else "better"


@dataclass(frozen=True)
class Comparison:
    """All that two sets of records have in common.

    Attributes:
        latencies: that both sides measured.
        accuracies: likewise.
        unmatched: what one side measured alone, a sentence each.
    """

    latencies: tuple[Latency, ...]
    accuracies: tuple[Accuracy, ...]
    unmatched: tuple[str, ...] = ()

    def failures(self, max_slower: float | None, max_dsc_drop: float | None) -> list[str]:
        """What is beyond the limits, a sentence each.

        Args:
            max_slower: part by which a latency may grow (0.05 is 5 %); only growth that was shown counts.
            max_dsc_drop: points of mean DSC that may be lost, whatever the test says: on the same labels the same
                candidate scores the same, so that a drop is no noise, though it may be chance that these labels drop.
        """
        slower = [
            f"{row.what}: {significant(100 * (row.ratio.value - 1))} % slower"
            for row in self.latencies
            if max_slower is not None and row.verdict == "slower" and row.ratio.value > 1 + max_slower
        ]
        worse = [
            f"{row.what}: {significant(row.drop_points)} points of DSC lost"
            for row in self.accuracies
            if max_dsc_drop is not None and row.drop_points > max_dsc_drop
        ]
        return slower + worse

    def to_markdown(self) -> str:
        """Both tables, and what was not compared."""
        tables = ([_latency_row(row) for row in self.latencies], [_accuracy_row(row) for row in self.accuracies])
        notes = "\n".join(f"- {sentence}" for sentence in self.unmatched)
        return "\n\n".join([*(markdown_table(rows) for rows in tables if rows), *filter(None, [notes])])


def compare(before: Sequence[Path], after: Sequence[Path], *, across_machines: bool = False) -> Comparison:
    """Compares what both record sets measured of the same candidates, cases and protocols.

    Raises:
        ValueError: no records, other machines, or nothing in common.
    """
    one, other = (machine_reports(load_records(paths)) for paths in (before, after))
    pairs = [(a, b) for a in one for b in other if across_machines or a.machine == b.machine]
    if not pairs:
        found = f"{', '.join(r.machine for r in one)} and {', '.join(r.machine for r in other)}"
        raise ValueError(f"found records of the machines {found}; expected one machine, or --across-machines")
    latencies, accuracies, unmatched = [], [], []
    for a, b in pairs:
        timed, scored = (_timed(a), _timed(b)), (_scores(a), _scores(b))
        latencies += [_latency(key, *sides) for key, sides in _both(*timed)]
        accuracies += [_accuracy(key, *sides) for key, sides in _both(*scored)]
        unmatched += [*_alone("latencies", *timed), *_alone("DSCs", *scored)]
    if not latencies and not accuracies:
        raise ValueError("found no candidate and case that both sides measured; expected the same bench command")
    return Comparison(tuple(latencies), tuple(row for row in accuracies if row.labels), tuple(unmatched))


@dataclass(frozen=True)
class _Key:
    """What both sides must have alike: candidate, protocol with all its options, and the case's content."""

    candidate: str
    protocol_options: str = ""
    case: CaseInfo | None = None
    protocol: str = field(default="", compare=False)

    def describe(self) -> str:
        """In words, as far as a reader tells measurements apart by it."""
        who = f"{self.candidate} {self.protocol}".strip()
        return f"{self.case.case_id} {self.case.size}: {who}" if self.case else who


def _both(old: Mapping[_Key, Side], new: Mapping[_Key, Side]) -> Iterable[tuple[_Key, tuple[Side, Side]]]:
    return ((key, (old[key], new[key])) for key in old if key in new)


def _alone(what: str, old: Mapping[_Key, object], new: Mapping[_Key, object]) -> Iterable[str]:
    for side, keys in (("before", old.keys() - new.keys()), ("after", new.keys() - old.keys())):
        if keys:
            named = sorted(key.describe() for key in keys)
            more = f" and {len(named) - MAX_NAMED} more" if len(named) > MAX_NAMED else ""
            yield f"{len(named)} {what} only {side}, not compared: {'; '.join(named[:MAX_NAMED])}{more}."


def _names(candidates: Iterable[Candidate]) -> dict[Candidate, str]:
    """What stays the same between two versions of the code; weights only where nothing else tells candidates apart."""
    names = {who: lasting_name(who) for who in candidates}
    shared = {name for name, count in Counter(names.values()).items() if count > 1}
    return {who: f"{name}, {who.weights_id}" if name in shared else name for who, name in names.items()}


def _timed(report: MachineReport) -> dict[_Key, Samples]:
    names = _names([*(row.candidate for row in report.encoders), *(row.candidate for row in report.cases)])
    encoders = {_Key(f"encoder of {names[row.candidate]}"): row.encode_samples for row in report.encoders}
    cases = {
        _Key(names[row.candidate], row.protocol_options, row.case, row.protocol): row.samples for row in report.cases
    }
    return {key: samples for key, samples in (encoders | cases).items() if samples.values}


def _latency(key: _Key, old: Samples, new: Samples) -> Latency:
    return Latency(key.describe(), spread_of(old).median, spread_of(new).median, ratio_of_medians(new, old))


def _scores(report: MachineReport) -> dict[_Key, dict[LabelKey, float]]:
    """DSC of every label by candidate and protocol, of trained weights."""
    trained = [one for one in report.scored if one.candidate.trained]
    names = _names([one.candidate for one in trained])
    found: dict[_Key, dict[LabelKey, float]] = {}
    for one in trained:
        dsc = {label: value[0] for label, value in one.scores.items() if math.isfinite(value[0])}
        key = _Key(names[one.candidate], one.protocol_options, protocol=one.protocol)
        found.setdefault(key, {}).update(dsc)
    return found


def _accuracy(key: _Key, old: Mapping[LabelKey, float], new: Mapping[LabelKey, float]) -> Accuracy:
    labels = [label for label in old if label in new]
    before, after = (np.array([side[label] for label in labels]) for side in (old, new))
    if not labels:
        return Accuracy(key.describe(), 0, math.nan, math.nan, math.nan)
    differences = after - before
    p_value = float(wilcoxon(differences).pvalue) if differences.any() else math.nan
    return Accuracy(key.describe(), len(labels), float(before.mean()), float(after.mean()), p_value)


def _latency_row(row: Latency) -> dict[str, str]:
    return {
        "latency": row.what,
        "before (ms)": milliseconds(row.before_s),
        "after (ms)": milliseconds(row.after_s),
        "after / before [95 % CI]": ratio_cell(row.ratio),
        "verdict": row.verdict,
    }


def _accuracy_row(row: Accuracy) -> dict[str, str]:
    return {
        "DSC": row.what,
        "labels": str(row.labels),
        "before": significant(row.before),
        "after": significant(row.after),
        "p": significant(row.p_value) if math.isfinite(row.p_value) else NOTHING,
        "verdict": row.verdict,
    }
