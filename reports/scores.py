"""Tables of scored segmentations: mean, median and spread, and two segmentations of the same cases compared."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy.stats import wilcoxon

from reports.statistics import CONFIDENCE, RESAMPLES, SEED
from reports.tables import NOTHING, markdown_table, significant

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

#: Columns of scores, and their headings.
METRICS = {"dsc": "DSC", "nsd": "NSD", "hd95_mm": "HD95 (mm)", "volume_difference": "volume difference"}
#: Chance below which a difference is called shown.
SIGNIFICANT = 0.05


def score_table(rows: Iterable[DataclassInstance]) -> pd.DataFrame:
    """A row a label: `case_id modality dims label` and the columns of `METRICS`."""
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
    """Means over the labels of each case, and the mean of these over the cases.

    Args:
        scores: as `score_table` makes it.
        skip_undefined: a label without a DSC is left out; otherwise it leaves its case without one, as in the
            challenge.
    """
    means = {
        str(case_id): [_mean(group[m], skip_undefined=skip_undefined or m != "dsc") for m in METRICS]
        for case_id, group in scores.groupby("case_id", sort=True)
    }
    counts = scores.groupby("case_id").size()
    rows = [_case_row(case_id, str(counts[case_id]), values) for case_id, values in means.items()]
    overall = [_mean(pd.Series(column), skip_undefined=True) for column in zip(*means.values(), strict=True)]
    return markdown_table([*rows, _case_row(f"mean of {len(rows)}", str(len(scores)), overall)])


def by_label(scores: pd.DataFrame) -> str:
    """Means over the cases that have a label, label by label."""
    rows = [
        {"label": str(label), "cases": str(len(group))}
        | {heading: significant(_mean(group[metric], skip_undefined=True)) for metric, heading in METRICS.items()}
        for label, group in scores.groupby("label", sort=True)
    ]
    return markdown_table(rows)


def _case_row(case_id: str, labels: str, means: Sequence[float]) -> dict[str, str]:
    cells = {heading: significant(mean) for heading, mean in zip(METRICS.values(), means, strict=True)}
    return {"case": case_id, "labels": labels} | cells


def _mean(column: pd.Series[float], *, skip_undefined: bool) -> float:
    values = column.to_numpy(np.float64)
    finite = values[np.isfinite(values)]
    return float(finite.mean()) if len(finite) and (skip_undefined or len(finite) == len(values)) else math.nan


def paired(scores: pd.DataFrame, others: pd.DataFrame, names: Sequence[str]) -> str:
    """Two segmentations on the labels that both were scored on: mean difference, its interval, Wilcoxon's test.

    Args:
        scores: as in `summary`.
        others: of the segmentation to compare with.
        names: of both.

    Raises:
        ValueError: no label in common.
    """
    both = scores.merge(others, on=["case_id", "label"], suffixes=("", "_other"))
    if both.empty:
        raise ValueError("found no case and label that both were scored on; expected segmentations of the same cases")
    rows = []
    for metric, heading in METRICS.items():
        one, other = (both[column].to_numpy(np.float64) for column in (metric, f"{metric}_other"))
        finite = np.isfinite(one) & np.isfinite(other)
        if finite.any():
            cases = both["case_id"].to_numpy()[finite]
            rows.append(_paired_row(heading, cases, one[finite], other[finite], names))
    return markdown_table(rows)


def _paired_row(
    heading: str, cases: NDArray[Any], one: NDArray[np.float64], other: NDArray[np.float64], names: Sequence[str]
) -> dict[str, str]:
    differences = one - other
    by_case = pd.Series(differences).groupby(cases).agg(["sum", "count"])
    low, high = bootstrap_interval(by_case.to_numpy(np.float64))
    interval = f" [{low:+.4f}, {high:+.4f}]" if math.isfinite(low) else ""
    p_value = float(wilcoxon(differences).pvalue) if differences.any() else math.nan
    return {
        "metric": heading,
        "labels": str(len(differences)),
        names[0]: significant(float(one.mean())),
        names[1]: significant(float(other.mean())),
        "mean difference [95 % CI]": f"{differences.mean():+.4f}{interval}",
        "p (Wilcoxon)": significant(p_value) if math.isfinite(p_value) else NOTHING,
        "verdict": "differs" if p_value < SIGNIFICANT else "no difference shown",
    }


def bootstrap_interval(cases: NDArray[np.float64]) -> tuple[float, float]:
    """Percentile interval at `CONFIDENCE` of a mean over labels. Whole cases are drawn: their labels go together.

    Args:
        cases: (N, 2): sum of the labels' values, and how many they are, of each case.

    Returns:
        NaN for a single case.
    """
    if len(cases) < 2:
        return math.nan, math.nan
    drawn = np.random.default_rng(SEED).integers(0, len(cases), (RESAMPLES, len(cases)))
    totals = cases[drawn].sum(axis=1)
    tail = (1 - CONFIDENCE) / 2
    low, high = np.quantile(totals[:, 0] / totals[:, 1], [tail, 1 - tail])
    return float(low), float(high)
