"""Statistics of raw samples: median and quartiles, and the ratio of two medians with a bootstrap interval."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import zip_longest

import numpy as np
from numpy.typing import NDArray

#: Run id, and which round of that run.
Round = tuple[str, object]

CONFIDENCE = 0.95
RESAMPLES = 2000
SEED = 20240527
#: Fewer samples carry no 95 % interval: even [least, greatest] of 5 holds the median with probability 1 - 2/2^5 = 94 %.
MIN_SAMPLES = 6


@dataclass(frozen=True)
class Samples:
    """Finite raw samples of one quantity.

    Attributes:
        values: the samples.
        rounds: for each, which round of which run it came from; equal rounds of two quantities were interleaved.
    """

    values: tuple[float, ...] = ()
    rounds: tuple[Round, ...] = ()


@dataclass(frozen=True)
class Spread:
    """Median and quartiles, in the samples' unit; NaN where there is no sample.

    Attributes:
        median: 50th percentile.
        q1: 25th percentile, linearly interpolated.
        q3: 75th percentile.
        n: number of samples.
    """

    median: float = math.nan
    q1: float = math.nan
    q3: float = math.nan
    n: int = 0


@dataclass(frozen=True)
class Ratio:
    """Ratio of two medians; NaN where it is undefined.

    Attributes:
        value: the ratio.
        low: lower end of its 95 % interval, NaN below `MIN_SAMPLES`.
        high: upper end.
        n: number of samples, of the shorter list.
        paired: whether both lists come from the same rounds.
    """

    value: float = math.nan
    low: float = math.nan
    high: float = math.nan
    n: int = 0
    paired: bool = False


def number(value: object) -> float:
    """`value` as a float, NaN where a record holds null, nothing, or no number."""
    return float(value) if isinstance(value, int | float) and not isinstance(value, bool) else math.nan


def finite_samples(values: Iterable[object], rounds: Iterable[Round]) -> Samples:
    """Samples without nulls and NaN; a dropped value takes its round along.

    Raises:
        ValueError: as many values as rounds are expected.
    """
    kept = [(number(v), r) for v, r in zip(values, rounds, strict=True) if math.isfinite(number(v))]
    return Samples(tuple(value for value, _ in kept), tuple(round_ for _, round_ in kept))


def run_samples(run_id: str, values: Sequence[object]) -> Samples:
    """Samples that one run took, a round each, in the order they were taken."""
    return finite_samples(values, ((run_id, index) for index in range(len(values))))


def spread_of(samples: Samples) -> Spread:
    """Median and quartiles of `samples`."""
    if not samples.values:
        return Spread()
    ordered = sorted(samples.values)
    return Spread(_quantile(ordered, 0.5), _quantile(ordered, 0.25), _quantile(ordered, 0.75), len(ordered))


def median_of(values: Iterable[object]) -> float:
    """Median of what is finite among the values of records, NaN where nothing is."""
    ordered = sorted(value for value in map(number, values) if math.isfinite(value))
    return _quantile(ordered, 0.5) if ordered else math.nan


def _quantile(ordered: Sequence[float], part: float) -> float:
    """As `numpy.quantile` interpolates, in a fiftieth of its time for the few samples of a record."""
    place = part * (len(ordered) - 1)
    below = math.floor(place)
    above = min(below + 1, len(ordered) - 1)
    return ordered[below] + (place - below) * (ordered[above] - ordered[below])


def ratio_of_medians(numerator: Samples, denominator: Samples) -> Ratio:
    """Median of `numerator` over median of `denominator`, with a percentile bootstrap interval.

    Runs are resampled, and samples within each, as a process may be slow from its start to its end. Where both lists
    come from the same rounds, the same rounds are taken of both: a drift that met both alike then cancels, as it does
    in the ratio itself. Seeded: equal samples give equal intervals.
    Source: B. Efron, R. Tibshirani, An Introduction to the Bootstrap (1993), sections 8.3 and 13.3.
    """
    n = min(len(numerator.values), len(denominator.values))
    if not n or spread_of(denominator).median == 0:
        return Ratio()
    paired = numerator.rounds == denominator.rounds
    value = spread_of(numerator).median / spread_of(denominator).median
    if n < MIN_SAMPLES:
        return Ratio(value, n=n, paired=paired)
    if numerator is denominator:
        return Ratio(value, value, value, n, paired)
    medians = _resampled_medians(numerator, 0) / _resampled_medians(denominator, 0 if paired else 1)
    tail = 50 * (1 - CONFIDENCE)
    low, high = np.percentile(medians, (tail, 100 - tail)).tolist()
    return Ratio(value, low, high, n, paired)


def _resampled_medians(samples: Samples, stream: int) -> NDArray[np.float64]:
    """Medians (`RESAMPLES`,) of resampled runs, each as long as it was. Equal streams draw equal rounds."""
    by_run: dict[str, list[float]] = {}
    for value, (run_id, _) in zip(samples.values, samples.rounds, strict=True):
        by_run.setdefault(run_id, []).append(value)
    runs = list(by_run.values())
    drawn, places = _draws(tuple(map(len, runs)), stream)
    lengths = np.array(list(map(len, runs)))[drawn]
    values = np.array(list(zip_longest(*runs, fillvalue=math.inf))).T[drawn, places]
    # Beyond its end a run has infinities, which are sorted behind all samples.
    ordered = np.sort(np.where(np.arange(values.shape[2]) < lengths, values, math.inf).reshape(RESAMPLES, -1), axis=1)
    count = lengths.sum((1, 2))
    middle = np.stack([(count - 1) // 2, count // 2], axis=1)
    return np.asarray(np.take_along_axis(ordered, middle, axis=1).mean(axis=1))


@lru_cache(maxsize=32)
def _draws(lengths: tuple[int, ...], stream: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Runs (`RESAMPLES`, R, 1), and places in them (`RESAMPLES`, R, longest).

    Kept: a report asks for the same few lengths again and again.
    """
    rng = np.random.default_rng((SEED, stream))
    drawn = rng.integers(0, len(lengths), (RESAMPLES, len(lengths), 1))
    return drawn, rng.integers(0, np.array(lengths)[drawn], (RESAMPLES, len(lengths), max(lengths)))
