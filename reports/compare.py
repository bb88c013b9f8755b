"""Two sets of records side by side: what became slower, faster, better or worse, and what was not shown to differ."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from scipy.stats import wilcoxon

from reports.accuracy import Scored, read_scores
from reports.candidates import Candidate
from reports.load import load_records
from reports.machine import MachineReport, machine_reports
from reports.statistics import MIN_SAMPLES, Ratio, Samples, ratio_of_medians, spread_of
from reports.tables import NOTHING, markdown_table, milliseconds, significant

#: Chance below which a difference of DSC is called shown.
SIGNIFICANT = 0.05
NOT_SHOWN = "no difference shown"


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
    """All that two sets of records have in common."""

    latencies: tuple[Latency, ...]
    accuracies: tuple[Accuracy, ...]

    def failures(self, max_slower: float | None, max_dsc_drop: float | None) -> list[str]:
        """What is beyond the limits, a sentence each.

        Args:
            max_slower: part by which a latency may grow (0.05 is 5 %); only growth that was shown counts.
            max_dsc_drop: points of mean DSC that may be lost.
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
        """Both tables."""
        tables = ([_latency_row(row) for row in self.latencies], [_accuracy_row(row) for row in self.accuracies])
        return "\n\n".join(markdown_table(rows) for rows in tables if rows)


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
    latencies = tuple(row for a, b in pairs for row in _latencies(a, b))
    accuracies = tuple(row for a, b in pairs for row in _accuracies(a, b))
    if not latencies and not accuracies:
        raise ValueError("found no candidate and case that both sides measured; expected the same bench command")
    return Comparison(latencies, accuracies)


def _name(candidate: Candidate) -> str:
    """What stays the same between two versions of the code: not the runtime's version."""
    who = candidate
    return f"{who.encoder} ({who.variant}, {who.backend} {who.precision}, {who.threads} threads)"


def _timed(report: MachineReport) -> dict[str, Samples]:
    encoders = {f"encoder of {_name(row.candidate)}": row.encode_samples for row in report.encoders}
    cases = {
        f"{row.case.case_id} {'x'.join(map(str, row.case.shape))}: {_name(row.candidate)} {row.protocol}": row.samples
        for row in report.cases
    }
    return {what: samples for what, samples in (encoders | cases).items() if samples.values}


def _latencies(before: MachineReport, after: MachineReport) -> Iterable[Latency]:
    old, new = _timed(before), _timed(after)
    for what in (name for name in old if name in new):
        medians = spread_of(old[what]).median, spread_of(new[what]).median
        yield Latency(what, *medians, ratio_of_medians(new[what], old[what]))


def _accuracies(before: MachineReport, after: MachineReport) -> Iterable[Accuracy]:
    old, new = (_scores(read_scores(report.records)) for report in (before, after))
    for what in sorted(old.keys() & new.keys()):
        both = [key for key in old[what] if key in new[what]]
        pairs = np.array([(old[what][key], new[what][key]) for key in both])
        pairs = pairs[np.isfinite(pairs).all(axis=1)] if len(pairs) else pairs
        if not len(pairs):
            continue
        differences = pairs[:, 1] - pairs[:, 0]
        p_value = float(wilcoxon(differences).pvalue) if differences.any() else math.nan
        yield Accuracy(what, len(pairs), float(pairs[:, 0].mean()), float(pairs[:, 1].mean()), p_value)


def _scores(scored: Iterable[Scored]) -> dict[str, dict[object, float]]:
    """DSC of every label by candidate and protocol, of trained weights."""
    found: dict[str, dict[object, float]] = {}
    for item in scored:
        if item.candidate.trained:
            dsc: Mapping[object, float] = {key: value[0] for key, value in item.scores.items()}
            found.setdefault(f"{_name(item.candidate)} {item.protocol}".strip(), {}).update(dsc)
    return found


def _latency_row(row: Latency) -> dict[str, str]:
    interval = f" [{significant(row.ratio.low)}, {significant(row.ratio.high)}]" if row.ratio.n >= MIN_SAMPLES else ""
    return {
        "latency": row.what,
        "before (ms)": milliseconds(row.before_s),
        "after (ms)": milliseconds(row.after_s),
        "after / before [95 % CI]": f"{significant(row.ratio.value)}x{interval}",
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
