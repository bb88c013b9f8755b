"""Statistics of samples: medians, quartiles, ratios and their intervals."""

from __future__ import annotations

import math

import numpy as np
import pytest

from reports.statistics import (
    MIN_SAMPLES,
    Ratio,
    Round,
    Samples,
    Spread,
    finite_samples,
    number,
    ratio_of_medians,
    spread_of,
)


def samples(values: list[float], run: str = "run") -> Samples:
    return Samples(tuple(values), tuple((run, index) for index in range(len(values))))


def test_spread_by_hand() -> None:
    # Of 4 samples the quartiles lie at places 0.75, 1.5 and 2.25 of the sorted list.
    assert spread_of(samples([4.0, 1.0, 3.0, 2.0])) == Spread(median=2.5, q1=1.75, q3=3.25, n=4)
    assert spread_of(samples([7.0])) == Spread(7.0, 7.0, 7.0, 1)


@pytest.mark.parametrize("n", [2, 5, 20, 21])
def test_spread_is_numpys(n: int) -> None:
    values = np.random.default_rng(n).lognormal(size=n)
    found = spread_of(samples(values.tolist()))
    assert (found.q1, found.median, found.q3) == pytest.approx(np.quantile(values, (0.25, 0.5, 0.75)).tolist())


def test_no_sample_has_no_spread() -> None:
    found = spread_of(Samples())
    assert found.n == 0
    assert math.isnan(found.median)


def test_undefined_values_go_with_their_rounds() -> None:
    rounds: list[Round] = [("a", 0), ("a", 1), ("a", 2), ("a", 3)]
    assert finite_samples([1.0, None, math.nan, 4], rounds) == Samples((1.0, 4.0), (("a", 0), ("a", 3)))


@pytest.mark.parametrize("value", [None, "3", True, [1.0], math.nan])
def test_what_is_no_number_is_nan(value: object) -> None:
    assert math.isnan(number(value))


def test_ratio_of_medians_by_hand() -> None:
    found = ratio_of_medians(samples([4.0, 6.0, 100.0]), samples([2.0, 3.0, 1.0]))
    assert (found.value, found.n, found.paired) == (3.0, 3, True)


def test_a_drift_that_meets_both_cancels_only_where_rounds_are_shared() -> None:
    drift = np.random.default_rng(0).uniform(0.7, 1.3, 20)
    slow, fast = (2 * drift).tolist(), drift.tolist()
    paired = ratio_of_medians(samples(slow), samples(fast))
    assert (paired.value, paired.low, paired.high) == pytest.approx((2.0, 2.0, 2.0))
    assert paired.paired
    unpaired = ratio_of_medians(samples(slow), samples(fast, "another run"))
    assert not unpaired.paired
    assert unpaired.low < 1.95 < 2.05 < unpaired.high
    assert unpaired == ratio_of_medians(samples(slow), samples(fast, "another run")), "seeded"


def test_lists_of_unequal_length_are_unpaired() -> None:
    found = ratio_of_medians(samples([2.0] * 8), samples([1.0] * 7))
    assert (found.paired, found.n) == (False, 7)


def test_runs_of_unequal_length_are_drawn_whole() -> None:
    """A short run and a long one, each steady: the ratio lies between theirs, and reaches both."""
    short, long = samples([1.0] * 3, "short"), samples([2.0] * 9, "long")
    both = Samples(short.values + long.values, short.rounds + long.rounds)
    found = ratio_of_medians(both, samples([1.0] * 12, "other"))
    assert (found.value, found.low, found.high, found.n) == (2.0, 1.0, 2.0, 12)


@pytest.mark.parametrize(("n", "has_interval"), [(1, False), (MIN_SAMPLES - 1, False), (MIN_SAMPLES, True)])
def test_few_samples_carry_no_interval(n: int, has_interval: bool) -> None:
    found = ratio_of_medians(samples([3.0] * n), samples([1.0] * n))
    assert (found.value, found.n) == (3.0, n)
    assert math.isfinite(found.low) == math.isfinite(found.high) == has_interval


@pytest.mark.parametrize(("numerator", "denominator"), [([], [1.0]), ([1.0], []), ([1.0], [0.0])])
def test_undefined_ratio(numerator: list[float], denominator: list[float]) -> None:
    found = ratio_of_medians(samples(numerator), samples(denominator))
    assert math.isnan(found.value)
    assert found.n == Ratio().n == 0


@pytest.mark.parametrize("paired", [True, False])
def test_interval_covers_the_truth_about_as_often_as_it_says(paired: bool) -> None:
    rng = np.random.default_rng(7)
    trials, covered = 200, 0
    for _ in range(trials):
        slow, fast = 3.0 * rng.lognormal(0, 0.2, 20), rng.lognormal(0, 0.2, 20)
        found = ratio_of_medians(samples(slow.tolist()), samples(fast.tolist(), "run" if paired else "other"))
        covered += found.low <= 3.0 <= found.high
    assert 0.89 < covered / trials < 0.995


def test_a_ratio_lies_within_its_interval_where_runs_differ_in_length() -> None:
    """One run of 60 and four of 3: the median is the long run's, and short ones must not be drawn as if as long."""
    steady = samples([1.0] * 20, "a")
    for name in "bcde":
        steady = Samples(steady.values + (1.0,) * 20, steady.rounds + samples([1.0] * 20, name).rounds)
    uneven = samples([1.0] * 60, "long")
    for name in "wxyz":
        uneven = Samples(uneven.values + (1.2,) * 3, uneven.rounds + samples([1.2] * 3, name).rounds)
    found = ratio_of_medians(uneven, steady)
    assert found.low <= found.value <= found.high
    assert (found.value, found.low, found.high) == (1.0, 1.0, pytest.approx(1.2))
