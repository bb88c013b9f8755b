"""What was measured on one machine, as rows and tables."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property

from reports.accuracy import AccuracyRow, Scored, accuracy_rows, accuracy_tables, on_shared_labels, read_scores
from reports.candidates import FLOOR, Reading
from reports.case_info import with_sizes
from reports.cases import CaseRow, case_rows, case_tables, shared_by
from reports.encoders import EncoderRow, encoder_rows, encoder_tables, timed
from reports.headline import headline_tables
from reports.history import history_tables
from reports.load import Loaded
from reports.peak import Peak, peak_tables, read_peaks
from reports.provenance import by_machine, describe_machine, error_tables, run_tables, weights_tables
from reports.sweep import best_sweep
from reports.tables import Table
from reports.tradeoff import tradeoff_rows, tradeoff_tables
from reports.zoo import zoo_tables
from zoo.errors import first_of, unknown_name

#: A figure names so many runs; the table of runs has all.
MAX_RUNS = 3


@dataclass(frozen=True)
class MachineReport:
    """What was measured on one machine.

    Attributes:
        machine: its id.
        title: in words.
        records: made on it.
        encoders: rows of the encoder table.
        swept: likewise, of the sweep whose accuracies and speeds stand side by side, see `reports.sweep`.
        cases: rows of the case tables.
        by_modality: rows of the accuracy table by modality.
        by_case: rows of that by case.
        scored: the segmentations that the accuracy tables average.
        peaks: the machine's limits, of each calibration.
        history: records, with those that later ones replaced.
        sources: names of the files that hold each run's records.
    """

    machine: str
    title: str
    records: list[Reading]
    encoders: list[EncoderRow]
    swept: list[EncoderRow]
    cases: list[CaseRow]
    by_modality: list[AccuracyRow]
    by_case: list[AccuracyRow]
    scored: list[Scored]
    peaks: list[Peak]
    history: list[Reading]
    sources: Mapping[str, tuple[str, ...]]

    def source(self, run_ids: Iterable[str]) -> str:
        """`encoders.jsonl, real.jsonl (run 5e7a, 91cc)`: where the records of some runs are."""
        runs = sorted(set(run_ids))
        files = dict.fromkeys(file for run_id in runs for file in self.sources.get(run_id, ()))
        return f"{', '.join(files)} (run {first_of(runs, MAX_RUNS)})"

    @cached_property
    def shared(self) -> list[Scored]:
        """What timed candidates scored on the labels that they are compared on."""
        return on_shared_labels(self.scored, {row.candidate for row in timed(self.encoders)})

    @cached_property
    def compared(self) -> list[AccuracyRow]:
        """A row for all images, and one for all volumes, of each candidate of `shared`."""
        return accuracy_rows(self.shared, lambda _: "all")

    @cached_property
    def tables(self) -> list[Table]:
        """All tables, in the order of the report."""
        return [
            *headline_tables(self.cases),
            *tradeoff_tables(tradeoff_rows(self.history)),
            *zoo_tables(self.encoders),
            *encoder_tables(self.encoders),
            *case_tables(self.cases, shared_by(self.records)),
            *accuracy_tables(self.by_modality, self.by_case),
            *peak_tables(self.encoders, self.peaks),
            *history_tables(self.history),
            *error_tables(self.records),
            *weights_tables(self.records),
            *run_tables(self.history),
        ]


def machine_reports(loaded: Loaded, baseline: str | None = None) -> list[MachineReport]:
    """One for each machine, the one measured on last first. Nothing is ever compared across them.

    Args:
        loaded: records and their files.
        baseline: encoder that ratios are taken to; by default `tinyvit`, or the slowest where there is none.

    Raises:
        InputError: there is no record of `baseline`.
    """
    encoders = sorted({record.who.encoder for record in loaded.records} - {FLOOR, ""})
    if baseline is not None and baseline not in encoders:
        raise unknown_name("baseline", baseline, encoders)
    machines, history = by_machine(loaded.records), by_machine(loaded.history)
    return [
        _machine_report(machine, found, history[machine], baseline, loaded.sources)
        for machine, found in machines.items()
    ]


def _machine_report(
    machine: str,
    records: list[Reading],
    history: list[Reading],
    baseline: str | None,
    sources: Mapping[str, tuple[str, ...]],
) -> MachineReport:
    scored = read_scores(records)
    encoders = encoder_rows(records, baseline)
    # One baseline for all tables, unless it was not timed on a case.
    baseline = baseline or next((row.candidate.encoder for row in encoders if row.is_baseline), None)
    return MachineReport(
        machine=machine,
        title=describe_machine(records[-1].machine),
        records=records,
        encoders=encoders,
        swept=encoder_rows(best_sweep(history)),
        cases=case_rows(records, baseline),
        by_modality=accuracy_rows(scored, lambda case: case.kind),
        by_case=accuracy_rows(scored, with_sizes(one.case for one in scored).__getitem__),
        scored=scored,
        peaks=read_peaks(history),
        history=history,
        sources=sources,
    )
