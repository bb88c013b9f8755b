"""The accuracy tables. The ellipse in the box is always beside a candidate, and random weights have no accuracy."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from bench.record import SCRIPTS
from reports.candidates import (
    FLOOR,
    MULTIPLANAR,
    Candidate,
    Reading,
    label_candidates,
)
from reports.case_info import CaseInfo
from reports.fields import listed
from reports.rules import label_protocols
from reports.statistics import number
from reports.tables import NOTHING, Table, flatten, significant

LACKING_NOTE = (
    "\\* other candidates were scored on labels that this one was not: the means do not compare. Rows that lack fewest "
    "labels stand first."
)
PIXELS_NOTE = "Where a picture's pixel counts as 1 mm, as it does if no size is known, its NSD is at so many pixels."
RANDOM = "random weights: not an accuracy"
#: A label of a case, scored at a tolerance in mm.
LabelKey = tuple[CaseInfo, float, Any]
#: DSC and NSD of it, NaN where undefined.
Scores = Mapping[LabelKey, tuple[float, float]]
#: Modality or case id, `2D` or `3D`, tolerance in mm: what is averaged together.
Group = tuple[str, str, float]


@dataclass(frozen=True)
class Mean:
    """Mean and standard deviation (n - 1) of the defined scores; NaN where there are too few."""

    mean: float = math.nan
    std: float = math.nan
    n: int = 0


@dataclass(frozen=True)
class Scored:
    """One segmentation with its scores.

    Attributes:
        candidate: what segmented; its encoder is `FLOOR` for the ellipse.
        label: its short name among the others.
        protocol: label of the protocol: the name, which images have none of, and its unusual options.
        protocol_options: the protocol with all its options, as JSON.
        case: what was segmented.
        tolerance_mm: of the NSD.
        scores: of its labels.
        run_id: of the run that measured them.
    """

    candidate: Candidate
    label: str
    protocol: str
    protocol_options: str
    clicks: int
    case: CaseInfo
    tolerance_mm: float
    scores: Scores
    run_id: str


@dataclass(frozen=True)
class AccuracyRow:
    """Accuracy of one candidate under one protocol over one group of cases.

    Attributes:
        group: modality or case id.
        dims: `2D` or `3D`.
        tolerance_mm: of the NSD.
        candidate: what segmented; its encoder is `FLOOR` for the ellipse.
        label: its short name.
        protocol: label of the protocol: the name, which images have none of, and its unusual options.
        dsc: Dice over labels. Empty for weights that are not trained.
        nsd: surface Dice over labels. Empty for weights that are not trained.
        dsc_by_case: Dice over cases, of each the mean over its labels: for groups of which one case has most labels.
        of_no_size: pictures whose pixels count as 1 mm, so that the tolerance of NSD is in pixels.
        over_floor: mean of DSC minus the ellipse's, over the labels that both have; NaN without an ellipse.
        lacking: labels that other models of the group, or of given masks other masks, were scored on, and this one was
            not.
    """

    group: str
    dims: str
    tolerance_mm: float
    candidate: Candidate
    label: str
    protocol: str
    dsc: Mean = field(default_factory=Mean)
    nsd: Mean = field(default_factory=Mean)
    dsc_by_case: Mean = field(default_factory=Mean)
    of_no_size: int = 0
    over_floor: float = math.nan
    lacking: int = 0

    @property
    def is_floor(self) -> bool:
        """Whether this is the ellipse."""
        return self.candidate.encoder == FLOOR

    @property
    def is_accuracy(self) -> bool:
        """Whether the scores say something: the ellipse's and trained weights' do."""
        return self.is_floor or self.candidate.trained


def read_scores(records: Iterable[Reading]) -> list[Scored]:
    """The scores that the records of one machine hold, without superseded ones."""
    found = [record for record in records if record.kind == "accuracy" and record.case]
    labels, _ = label_candidates(record.who for record in found)
    protocols, _ = label_protocols(found)
    # One object for equal cases: labels are looked up by them very often.
    cases = {record.case_info: record.case_info for record in found}
    scored = []
    for record in found:
        who, options, case = record.who, record.protocol_id, cases[record.case_info]
        tolerance_mm = number(record.measurements.get("tolerance_mm"))
        scores = _scores(record, case, tolerance_mm)
        label, protocol = labels[who], protocols[options]
        scored.append(Scored(who, label, protocol, options, record.clicks, case, tolerance_mm, scores, record.run_id))
    return scored


def accuracy_rows(scored: Sequence[Scored], group_by: Callable[[CaseInfo], str]) -> list[AccuracyRow]:
    """Rows of one machine: in each group first the ellipse, then the candidates, the best first.

    Of several that were scored on different labels, those that lack fewest come first.

    Args:
        scored: as `read_scores` reads them.
        group_by: what cases are averaged over, such as the modality. 2D and 3D cases stay apart, as do tolerances.
    """
    floor = {key: pair for one in scored if one.candidate.encoder == FLOOR for key, pair in one.scores.items()}
    groups: dict[Group, dict[tuple[Candidate, str, str], dict[LabelKey, tuple[float, float]]]] = {}
    for one in scored:
        group = (group_by(one.case), "3D" if one.case.is_volume else "2D", one.tolerance_mm)
        members = groups.setdefault(group, {(Candidate(FLOOR), FLOOR, ""): {}})
        members.setdefault((one.candidate, one.label, one.protocol), {}).update(one.scores)
    rows = []
    for group, members in sorted(groups.items(), key=lambda item: item[0]):
        every: dict[bool, set[LabelKey]] = {True: set(), False: set()}
        for (who, *_), scores in members.items():
            if who.trained:
                every[who.is_model] |= defined_dsc(scores).keys()
        of_group = [
            _accuracy_row(group, *member, scores, floor, every[member[0].is_model])
            for member, scores in members.items()
        ]
        rows += sorted(of_group, key=_best_first)
    return rows


def under_one_protocol(scored: Iterable[Scored]) -> list[Scored]:
    """Of each candidate what it scored under one protocol of images and one of volumes, so that candidates compare.

    Never one with clicks, which were made where a mask was wrong. It is the protocol with most labels; of equal ones no
    published script's and none that asks across slices, where there is another; of those that of most candidates of the
    same weights, which may walk volumes in a way of their own; of those that of most candidates, and then the first.
    """
    members: dict[tuple[bool, Candidate], dict[str, list[Scored]]] = {}
    for one in scored:
        if one.clicks:
            continue
        by_protocol = members.setdefault((one.case.is_volume, one.candidate), {})
        by_protocol.setdefault(one.protocol_options, []).append(one)
    each = [(volumes, who, options) for (volumes, who), by_protocol in members.items() for options in by_protocol]
    users = Counter((volumes, options) for volumes, _, options in each)
    alike = Counter((volumes, who.encoder, who.sha256, options) for volumes, who, options in each)
    kept: list[Scored] = []
    for (volumes, who), by_protocol in members.items():
        rank = {
            options: (
                len(_keys(found)),
                found[0].protocol.split(",")[0] not in (*SCRIPTS, MULTIPLANAR),
                alike[volumes, who.encoder, who.sha256, options],
                users[volumes, options],
            )
            for options, found in by_protocol.items()
        }
        kept += by_protocol[max(rank, key=lambda options: rank[options])]
    return kept


def on_shared_labels(scored: Sequence[Scored], candidates: Collection[Candidate]) -> list[Scored]:
    """What the ellipse and trained candidates scored on the labels that all of these have, of volumes and of images.

    Drawn images stand for no real ones: they count where no real one was scored.

    Args:
        scored: as `read_scores` reads them.
        candidates: to be compared, each under one protocol; see `_shared` for which are left out.
    """
    kept: list[Scored] = []
    for volumes in (False, True):
        of_kind = [one for one in scored if one.case.is_volume == volumes]
        real = [one for one in of_kind if not one.case.drawn]
        has_real = any(one.candidate.trained and one.candidate in candidates and one.scores for one in real)
        alike = under_one_protocol(real if has_real else of_kind)
        members: dict[Candidate, list[Scored]] = {}
        for one in alike:
            if one.candidate.trained and one.candidate in candidates:
                members.setdefault(one.candidate, []).append(one)
        labels = {candidate: _keys(found) for candidate, found in members.items()}
        shared = _shared(list(labels.values()))
        compared = {Candidate(FLOOR), *(candidate for candidate, keys in labels.items() if shared <= keys)}
        for one in alike:
            if one.candidate in compared:
                kept.append(replace(one, scores={key: pair for key, pair in one.scores.items() if key in shared}))
    return kept


def drawn_cases(scored: Iterable[Scored]) -> set[CaseInfo]:
    """Those of the scored cases that were drawn."""
    return {one.case for one in scored if one.scores and one.case.drawn}


def defined_dsc(scores: Scores) -> dict[LabelKey, float]:
    """DSC of the labels that have one."""
    return {key: dsc for key, (dsc, _) in scores.items() if math.isfinite(dsc)}


def differences_by_case(one: Mapping[LabelKey, float], other: Mapping[LabelKey, float]) -> dict[CaseInfo, list[float]]:
    """What the labels that both have score in `one` more than in `other`, case by case, in the order of `one`."""
    found: dict[CaseInfo, list[float]] = {}
    for key, dsc in one.items():
        if key in other:
            found.setdefault(key[0], []).append(dsc - other[key])
    return found


def _shared(labels: Sequence[set[LabelKey]]) -> set[LabelKey]:
    """Labels to compare candidates on: of those that so and so many have, the ones that most pairs are compared on.

    Who lacks any of them is left out: one that was measured on other cases must not take all from the others.
    """
    if len(labels) == 1:
        return labels[0]
    best: tuple[int, set[LabelKey]] = 0, set()
    users = Counter(key for keys in labels for key in keys)
    for least in range(len(labels), 1, -1):
        shared = {key for key, number in users.items() if number >= least}
        having = sum(shared <= keys for keys in labels)
        best = max(best, (len(shared) * having * (having - 1), shared), key=lambda one: one[0])
    return best[1]


def _keys(scored: Iterable[Scored]) -> set[LabelKey]:
    """Labels with a defined DSC."""
    return {key for one in scored for key in defined_dsc(one.scores)}


def accuracy_tables(by_modality: Sequence[AccuracyRow], by_case: Sequence[AccuracyRow]) -> list[Table]:
    """Accuracy by modality and by case; nothing where there are no rows."""
    if not by_modality:
        return []
    modality_notes, case_notes = (*_NOTES, *_notes_on(by_modality)), _notes_on(by_case)
    return [
        Table("accuracy", "Accuracy by modality", _shown("modality", by_modality), _data(by_modality), modality_notes),
        Table("accuracy_cases", "Accuracy by case", _shown("case", by_case), _data(by_case), case_notes),
    ]


def _notes_on(rows: Sequence[AccuracyRow]) -> tuple[str, ...]:
    told = {LACKING_NOTE: any(row.lacking for row in rows), PIXELS_NOTE: any(row.of_no_size for row in rows)}
    return tuple(note for note, applies in told.items() if applies)


def _accuracy_row(
    group: Group,
    candidate: Candidate,
    label: str,
    protocol: str,
    scores: Scores,
    floor: Scores,
    every: set[LabelKey],
) -> AccuracyRow:
    row = AccuracyRow(*group, candidate, label, protocol)
    if not row.is_accuracy:
        return row
    differences = [dsc - floor[key][0] for key, (dsc, _) in scores.items() if key in floor]
    cases: dict[CaseInfo, list[float]] = {}
    for (case, *_), (dsc, _) in scores.items():
        cases.setdefault(case, []).append(dsc)
    return replace(
        row,
        dsc=_mean(dsc for dsc, _ in scores.values()),
        nsd=_mean(nsd for _, nsd in scores.values()),
        dsc_by_case=_mean(_mean(of_case).mean for of_case in cases.values()),
        of_no_size=sum(case.spacing_mm == (1.0, 1.0) for case in cases),
        over_floor=math.nan if row.is_floor else _mean(differences).mean,
        lacking=0 if row.is_floor else len(every - defined_dsc(scores).keys()),
    )


def _scores(record: Reading, case: CaseInfo, tolerance_mm: float) -> dict[LabelKey, tuple[float, float]]:
    """DSC and NSD of every label of the record; nothing where the three do not match."""
    lists = [listed(record.measurements.get(key)) for key in ("labels", "dsc", "nsd")]
    if len({len(values) for values in lists}) > 1:
        return {}
    return {
        (case, tolerance_mm, label): (number(dsc), number(nsd))
        for label, dsc, nsd in zip(*lists, strict=True)
        if isinstance(label, int)
    }


def _mean(values: Iterable[float]) -> Mean:
    """Of the finite values."""
    finite = [value for value in values if math.isfinite(value)]
    if not finite:
        return Mean()
    mean = math.fsum(finite) / len(finite)
    squares = math.fsum((value - mean) ** 2 for value in finite)
    return Mean(mean, math.sqrt(squares / (len(finite) - 1)) if len(finite) > 1 else math.nan, len(finite))


def _best_first(row: AccuracyRow) -> tuple[bool, bool, int, float, str]:
    mean = row.dsc.mean
    return not row.is_floor, not math.isfinite(mean), row.lacking, -mean if math.isfinite(mean) else 0.0, row.label


def _data(rows: Sequence[AccuracyRow]) -> list[dict[str, object]]:
    return [flatten(row) | {"remark": _remark(row)} for row in rows]


def _shown(group: str, rows: Sequence[AccuracyRow]) -> list[dict[str, str]]:
    tolerances = {row.tolerance_mm for row in rows}
    return [
        {
            group: row.group,
            "": row.dims,
            "candidate": row.label,
            "protocol": row.protocol,
            "weights": row.candidate.weights_id,
            **({"cases": str(row.dsc_by_case.n or NOTHING)} if group != "case" else {}),
            "labels": f"{row.dsc.n}{' *' if row.lacking else ''}" if row.dsc.n else NOTHING,
            "DSC, mean ± std": _mean_cell(row.dsc),
            _nsd_heading(tolerances): _mean_cell(row.nsd),
        }
        | ({"tolerance (mm)": significant(row.tolerance_mm)} if len(tolerances) > 1 else {})
        | {"DSC over ellipse": f"{row.over_floor:+.3f}" if math.isfinite(row.over_floor) else NOTHING}
        | {"remark": _remark(row)}
        for row in rows
    ]


def _nsd_heading(tolerances_mm: set[float]) -> str:
    at = f" at {next(iter(tolerances_mm)):g} mm" if len(tolerances_mm) == 1 else ""
    return f"NSD{at}, mean ± std"


def _mean_cell(mean: Mean) -> str:
    if not mean.n:
        return NOTHING
    return f"{mean.mean:.3f}" + (f" ± {mean.std:.3f}" if math.isfinite(mean.std) else "")


def _remark(row: AccuracyRow) -> str:
    if row.is_floor:
        return "reference" if row.dsc.n else "reference, not measured"
    if not row.is_accuracy:
        return RANDOM
    if row.over_floor <= 0:
        return "NOT ABOVE THE ELLIPSE"
    return "" if math.isfinite(row.over_floor) else "not compared with the ellipse"


_NOTES = (
    "`box ellipse` fills each prompt box with an ellipse and never looks at the image: what a candidate adds is what "
    "it scores over that, on the same labels.",
    "Means and standard deviations go over labels (structures), each counted once a case; undefined scores are left "
    "out. Weights are named with the first 12 digits of their sha256.",
)
