"""What was measured again and again on one machine, run by run: where the code, or a runtime, became slower."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from reports.candidates import Candidate, Reading, lasting_names
from reports.load import latencies_of_runs
from reports.provenance import short_commit
from reports.rules import label_protocols
from reports.statistics import Ratio, Samples, Spread, ratio_of_medians, run_samples, spread_of
from reports.tables import NOTHING, Table, flatten, ratio_cell, spread_ms

HISTORY_NOTE = (
    "Latencies that several runs measured, the oldest first. Each ratio is to the run before, and above 1 is slower; "
    "runs are hours or months apart, so that the machine's drift is in it. `compare` takes two of them apart."
)
#: Named once, in the oldest run's row.
HISTORY_COLUMNS = ("what",)


@dataclass(frozen=True)
class Point:
    """One latency in one run.

    Attributes:
        run_id: the run.
        time_utc: when it was written first.
        commit: of the toolkit.
        version: of the runtime.
        samples: seconds.
    """

    run_id: str
    time_utc: str
    commit: str
    version: str
    samples: Samples


@dataclass(frozen=True)
class _Figures:
    """Of a row, so that columns are named by what they are of."""

    latency_s: Spread
    over_before: Ratio


def history(records: Iterable[Reading]) -> dict[str, list[Point]]:
    """Latencies that at least two runs measured, run by run in order of time.

    Args:
        records: of one machine, with those that later ones replace.
    """
    latencies = [record for record in latencies_of_runs(records) if not record.is_cold]
    protocols, _ = label_protocols(latencies)
    runs: dict[str, list[Candidate]] = {}
    for record in latencies:
        runs.setdefault(record.run_id, []).append(record.who)
    lasting = lasting_names(runs.values())
    series: dict[tuple[object, ...], dict[str, list[Reading]]] = {}
    names: dict[tuple[object, ...], str] = {}
    for record in sorted(latencies, key=lambda record: record.time_utc):
        case, protocol = record.case_info, record.protocol_id
        who = lasting[record.who]
        key = (who, case, protocol)
        names[key] = f"{case.case_id} {case.size}: {who} {protocols[protocol]}".strip() if record.case else who
        series.setdefault(key, {}).setdefault(record.run_id, []).append(record)
    points = {names[key]: [_point(run) for run in runs.values()] for key, runs in series.items() if len(runs) > 1}
    return {name: timed for name, found in points.items() if len(timed := [p for p in found if p.samples.values]) > 1}


def history_tables(records: Iterable[Reading]) -> list[Table]:
    """The history, or nothing where nothing was measured twice."""
    shown: list[dict[str, str]] = []
    data: list[dict[str, object]] = []
    for what, points in sorted(history(records).items()):
        for before, point in zip([None, *points], points, strict=False):
            ratio = ratio_of_medians(point.samples, before.samples) if before else None
            spread = spread_of(point.samples)
            shown.append(
                {
                    "what": what,
                    "date (UTC)": point.time_utc[:10],
                    "commit": point.commit,
                    "runtime": point.version,
                    "median (ms) [IQR]": spread_ms(spread),
                    "n": str(spread.n),
                    "over the run before [95 % CI]": ratio_cell(ratio) if ratio else NOTHING,
                }
            )
            data.append({"what": what} | flatten(point) | flatten(_Figures(spread, ratio or Ratio())))
    return [Table("history", "History", shown, data, (HISTORY_NOTE,), HISTORY_COLUMNS)] if shown else []


def _point(run: Sequence[Reading]) -> Point:
    """Of the records of one run: one of the encoder, or several passes over a case."""
    first = run[0]
    values = [value for record in run for value in record.latencies_s]
    version = first.who.backend_version
    samples = run_samples(first.run_id, values)
    return Point(first.run_id, first.time_utc, short_commit(first.git), version, samples)
