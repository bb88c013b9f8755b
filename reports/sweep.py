"""The sweep whose accuracies and speeds stand side by side: one run, or several if it was stopped and gone on with.

One run timed its candidates, interleaved; their scores may be of others, as what is scored is not scored again.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from collections.abc import Set as AbstractSet

from reports.candidates import FLOOR, Candidate, Reading
from reports.case_info import CaseInfo
from reports.statistics import number


def best_sweep(history: Sequence[Reading]) -> list[Reading]:
    """Records of the run that timed most candidates that were scored, the latest of equals, with their scores.

    Args:
        history: records of one machine in order of time, also those that later ones replaced.
    """
    runs: dict[str, list[Reading]] = {}
    for record in history:
        runs.setdefault(record.run_id, []).append(record)
    scored = {record.who for record in history if _is_score(record) and record.who.trained}
    # The first of equals is taken, so the latest comes first.
    chosen = max(reversed(runs.values()), key=lambda run: _measured_both_ways(run, scored), default=[])
    return [*(record for record in chosen if record.kind != "accuracy"), *_scores_beside(chosen, runs)]


def _measured_both_ways(run: Sequence[Reading], scored: AbstractSet[Candidate]) -> tuple[int, int, int]:
    """How many of the `scored` candidates a run timed.

    A run that scored any of them itself goes before one that did not; of equals the one that scored most.
    """
    timed_here = _timed(run) & scored
    own = {record.who for record in run if _is_score(record)} & timed_here
    return len(timed_here) if own else 0, len(own), len(timed_here)


def _scores_beside(chosen: Sequence[Reading], runs: Mapping[str, Sequence[Reading]]) -> list[Reading]:
    """Scores of the trained candidates that a run timed, and of the ellipse: its own, and those that other runs have.

    Others' are of its cases, and of those that all of its candidates were scored on; by its protocols and tolerances,
    where it has any.
    """
    own = [record for record in chosen if _is_score(record)]
    protocols: dict[tuple[Candidate, bool], set[str]] = {}
    for record in own:
        protocols.setdefault(_walked(record), set()).add(record.protocol_id)
    tolerances = {tolerance_mm for _, tolerance_mm in map(_scored_on, own)}
    candidates = {*(who for who in _timed(chosen) if who.trained), Candidate(FLOOR)}
    known = [
        record
        for run in [*runs.values(), chosen]  # its own scores come last, and count
        for record in run
        if _is_score(record)
        and record.who in candidates
        and record.protocol_id in protocols.get(_walked(record), {record.protocol_id})
        and (not tolerances or _scored_on(record)[1] in tolerances)
    ]
    scored: dict[tuple[CaseInfo, float], set[Candidate]] = {}
    for record in known:
        if record.who.is_model:
            scored.setdefault(_scored_on(record), set()).add(record.who)
    everyone = set().union(*scored.values())
    wanted = {*map(_scored_on, own), *(case for case, models in scored.items() if models == everyone)}
    kept = [record for record in known if _scored_on(record) in wanted]
    return list({(record.who, record.protocol_id, _scored_on(record)): record for record in kept}.values())


def _is_score(record: Reading) -> bool:
    """Whether it holds scores of masks without clicks."""
    return record.kind == "accuracy" and not record.clicks


def _walked(record: Reading) -> tuple[Candidate, bool]:
    """Whose protocols of images or of volumes go together."""
    return record.who, record.case_info.is_volume


def _scored_on(record: Reading) -> tuple[CaseInfo, float]:
    return record.case_info, number(record.measurements.get("tolerance_mm"))


def _timed(run: Iterable[Reading]) -> set[Candidate]:
    return {record.who for record in run if record.kind == "latency" and record.case is None}
