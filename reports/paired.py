"""Two sides scored on the same labels: what their difference shows. Labels of a case go together: cases are tested."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from reports.statistics import CONFIDENCE, RESAMPLES, SEED
from reports.tables import NOTHING, significant

#: Chance below which a difference is called shown.
SIGNIFICANT = 0.05
#: Of fewer cases the exact test never gives such a chance.
MIN_CASES = 6
#: Sums of a case's differences below this are rounding: equal scores, added up in another order.
ROUNDING = 1e-12
#: Smaller chances are not written out.
SMALLEST_P = 0.001
NOT_SHOWN = "no difference shown"
TOO_FEW_CASES = f"{NOT_SHOWN} (fewer than {MIN_CASES} cases differ)"
MIXED = "mixed (test and interval disagree)"


@dataclass(frozen=True)
class Difference:
    """One side's scores minus the other's.

    Attributes:
        labels: how many.
        cases: that they are of.
        differing: cases whose mean difference is not 0.
        mean: mean difference over labels.
        low: lower end of its 95 % interval, drawn over cases; NaN for a single case.
        high: upper end.
        p_value: of Wilcoxon's signed-rank test over the cases' mean differences; NaN below `MIN_CASES` that differ.
        tendency: 1 or -1 where the ranks of gains or of losses sum to more, else 0.
    """

    labels: int
    cases: int
    differing: int
    mean: float
    low: float
    high: float
    p_value: float
    tendency: int

    def verdict(self, less: str, more: str) -> str:
        """`less` or `more` where the test and the interval both say so, and what is the matter where they do not."""
        if 0 < self.differing < MIN_CASES:
            return TOO_FEW_CASES
        tested = self.tendency if self.p_value < SIGNIFICANT else 0
        if tested != (self.low > 0) - (self.high < 0):
            return MIXED
        return {-1: less, 0: NOT_SHOWN, 1: more}[tested]


def difference(by_case: Mapping[Any, Sequence[float]]) -> Difference:
    """What the differences of labels show, case by case; all of them finite, and at least one."""
    from scipy.stats import rankdata, wilcoxon  # takes a second, which most reports do without

    values = list(by_case.values())
    sums = np.array([[math.fsum(of_case), len(of_case)] for of_case in values])
    sums[np.abs(sums[:, 0]) < ROUNDING, 0] = 0
    means = sums[:, 0] / sums[:, 1]
    differing = means[means != 0]
    labels = int(sums[:, 1].sum())
    low, high = bootstrap_interval(sums)
    return Difference(
        labels=labels,
        cases=len(values),
        differing=len(differing),
        mean=float(sums[:, 0].sum()) / labels,
        low=low,
        high=high,
        p_value=float(wilcoxon(differing).pvalue) if len(differing) >= MIN_CASES else math.nan,
        tendency=int(np.sign(np.sign(differing) @ rankdata(abs(differing)))),
    )


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


def difference_cell(found: Difference) -> str:
    """`+0.0123 [+0.0045, +0.0201]`; without an interval for a single case."""
    interval = f" [{found.low:+.4f}, {found.high:+.4f}]" if math.isfinite(found.low) else ""
    return f"{found.mean:+.4f}{interval}"


def p_cell(p_value: float) -> str:
    """A chance, or that it is below `SMALLEST_P`."""
    if not math.isfinite(p_value):
        return NOTHING
    return f"<{SMALLEST_P:g}" if p_value < SMALLEST_P else significant(p_value)
