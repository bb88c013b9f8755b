"""Tables of scored segmentations: mean, median and spread, and two segmentations of the same cases compared."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from reports.paired import difference, difference_cell, p_cell
from reports.tables import NOTHING, markdown_table, significant
from zoo.errors import InputError

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

#: Columns of scores, and their headings.
METRICS = {"dsc": "DSC", "nsd": "NSD", "hd95_mm": "HD95 (mm)", "volume_difference": "volume difference"}


def score_table(rows: Iterable[DataclassInstance]) -> pd.DataFrame:
    """A row a label: `case_id modality dims label original` and the columns of `METRICS`."""
    return pd.DataFrame([asdict(row) for row in rows])


def summary(scores: pd.DataFrame) -> str:
    """Mean, spread and quartiles of every metric over labels, for all cases and for each modality.

    Args:
        scores: as `score_table` makes it.
    """
    groups = [("all", scores)]
    kinds = list(scores.groupby(["modality", "dims"]))
    if len(kinds) > 1:
        groups += [(f"{modality} {dims}", group) for (modality, dims), group in kinds]
    rows = [_row(name, group, metric) for name, group in groups for metric in METRICS]
    return markdown_table(rows)


def _row(name: str, group: pd.DataFrame, metric: str) -> dict[str, str]:
    values = group[metric].to_numpy(np.float64)
    finite = values[np.isfinite(values)]
    quartiles = np.quantile(finite, [0.25, 0.5, 0.75]) if len(finite) else np.full(3, math.nan)
    return {
        "cases": f"{name} ({group['case_id'].nunique()})",
        "metric": METRICS[metric],
        "labels": str(len(finite)),
        "mean": significant(float(finite.mean())) if len(finite) else NOTHING,
        "std": significant(float(finite.std(ddof=1))) if len(finite) > 1 else NOTHING,
        "median": significant(float(quartiles[1])),
        "quartiles": f"{significant(float(quartiles[0]))} to {significant(float(quartiles[2]))}",
        "undefined": str(len(values) - len(finite)) if len(values) > len(finite) else "",
    }


def by_case(scores: pd.DataFrame, *, skip_undefined: bool = True) -> str:
    """The mean over the cases, and of each case the mean over its labels.

    Args:
        scores: as `score_table` makes it.
        skip_undefined: a label without a DSC is left out; otherwise it leaves its case without one, as in the
            challenge.
    """
    of_cases = {
        str(case_id): group if skip_undefined else _without_undefined_dsc(group)
        for case_id, group in scores.groupby("case_id", sort=True)
    }
    rows = [{"case": case_id, "labels": str(len(group))} | _mean_cells(group) for case_id, group in of_cases.items()]
    means = pd.DataFrame([{metric: _mean(group[metric]) for metric in METRICS} for group in of_cases.values()])
    title = f"mean of {len(rows)} case{'s' * (len(rows) != 1)}"
    return markdown_table([{"case": title, "labels": str(len(scores))} | _mean_cells(means), *rows])


def by_label(scores: pd.DataFrame) -> str | None:
    """Means over what has a label, by modality and by what labels are; None where nothing tells."""
    known = scores.dropna(subset=["original"])
    # Missing ones have made floats of whole numbers.
    names = known["original"].map(lambda label: label if isinstance(label, str) else f"{label:.0f}")
    kinds = known["modality"] + " " + known["dims"]
    groups = sorted(known.groupby([kinds, names]), key=lambda one: (one[0][0], _numbers_first(str(one[0][1]))))
    rows = [
        {
            **({"cases of": str(kind)} if kinds.nunique() > 1 else {}),
            "label": str(label),
            "cases": str(group["case_id"].nunique()),
            **_mean_cells(group),
        }
        for (kind, label), group in groups
    ]
    return markdown_table(rows) if rows else None


def _numbers_first(label: str) -> tuple[bool, int, str]:
    return not label.isdecimal(), int(label) if label.isdecimal() else 0, label


def shortened(table: str, most: int = 20) -> str:
    """The first rows of a markdown table, and how many more there are."""
    heading, rule, *rows = table.splitlines()
    if len(rows) <= most:
        return table
    return "\n".join([heading, rule, *rows[:most], "", f"{len(rows) - most} more rows: --out writes them"])


def _without_undefined_dsc(group: pd.DataFrame) -> pd.DataFrame:
    """A case's rows: without any DSC where one label has none."""
    return group if np.isfinite(group["dsc"]).all() else group.assign(dsc=math.nan)


def _mean_cells(scores: pd.DataFrame) -> dict[str, str]:
    """Mean of every metric over what is defined: `1.00 (n=2)` where that is not all."""
    cells = {}
    for metric, heading in METRICS.items():
        defined = int(np.isfinite(scores[metric]).sum())
        left_out = f" (n={defined})" if 0 < defined < len(scores) else ""
        cells[heading] = significant(_mean(scores[metric])) + left_out
    return cells


def _mean(column: pd.Series[float]) -> float:
    """Of what is defined, NaN where nothing is."""
    values = column.to_numpy(np.float64)
    finite = values[np.isfinite(values)]
    return float(finite.mean()) if len(finite) else math.nan


def paired(scores: pd.DataFrame, others: pd.DataFrame, names: Sequence[str]) -> str:
    """Two segmentations on the labels that both were scored on: mean difference, its interval, Wilcoxon's test.

    Interval and test go over cases. What only one has a score of, such as the HD95 of a label that the other missed, a
    label that one of them made up, or a case that the other lacks, has no difference: it is counted.

    Args:
        scores: as in `summary`.
        others: of the segmentation to compare with.
        names: of both.

    Raises:
        InputError: no label in common.
    """
    either = scores.merge(others, "outer", ["case_id", "label"], suffixes=("", "_other"), indicator="side")
    if not (either["side"] == "both").any():
        raise InputError("scores", "no case and label that both were scored on", "segmentations of the same cases")
    return markdown_table([row for metric in METRICS for row in _paired_rows(either, metric, names)])


def _paired_rows(either: pd.DataFrame, metric: str, names: Sequence[str]) -> list[dict[str, str]]:
    """A row, or none where no pair is defined."""
    defined = np.isfinite(either[[metric, f"{metric}_other"]].to_numpy(np.float64))
    kept = either[defined.all(axis=1)]
    if kept.empty:
        return []
    one, other = kept[metric], kept[f"{metric}_other"]
    found = difference({str(case): of_case.tolist() for case, of_case in (one - other).groupby(kept["case_id"])})
    alone = [
        f"{count} of {name}"
        for name, count in zip(names, (~defined & defined[:, ::-1]).sum(axis=0), strict=True)
        if count
    ]
    row = {
        "metric": METRICS[metric],
        "labels": str(found.labels),
        "cases": str(found.cases),
        names[0]: significant(float(one.mean())),
        names[1]: significant(float(other.mean())),
        "mean difference [95 % CI]": difference_cell(found),
        "p (Wilcoxon over cases)": p_cell(found.p_value),
        "verdict": found.verdict("differs", "differs"),
        "without a score in one alone": ", ".join(alone),
    }
    return [row]
