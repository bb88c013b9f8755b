"""Ranges of activations: of the least squared error, which ONNX Runtime's calibration does not offer, or by its rules.

A narrower range rounds most values finer and clips the outliers; the range of the least squared error loses least by
the two together, over all values that the calibration inputs gave. Whatever the rule, one input's tensors are held at a
time.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from onnxruntime.quantization import CalibrationMethod
from onnxruntime.quantization.calibrate import (
    HistogramCollector,
    TensorData,
    TensorsData,
    create_calibrator,
    save_tensors_data,
)
from scipy.optimize import brute

from zoo.backends import Floats

#: Steps between the ends of a range of uint8.
STEPS = 255
BINS = 8192
#: Ends that are tried on each side of zero before the best pair is refined.
TRIED = 20


@dataclass(frozen=True)
class Histogram:
    """How often a tensor's values fell into bins of equal width.

    Attributes:
        counts: int64 (BINS,).
        lowest: end of the first bin, at most 0.
        highest: end of the last bin, at least 0.
    """

    counts: NDArray[np.int64]
    lowest: float
    highest: float

    def squared_error(self, low: float, high: float) -> float:
        """Mean squared error of the values once they are rounded to uint8 as ONNX Runtime does.

        Args:
            low: end of the range, at most 0, which rounds to itself.
            high: other end, at least 0.

        Returns:
            The error with the values spread evenly within their bins; infinite where steps are narrower than two bins.
        """
        width, (scale, zero) = (self.highest - self.lowest) / len(self.counts), scale_and_zero(low, high)
        if scale < 2 * width:
            return math.inf
        middles = self.lowest + width * (np.arange(len(self.counts)) + 0.5)
        rounded = scale * np.clip(np.rint(middles / scale), -zero, STEPS - zero)
        return float(np.average((middles - rounded) ** 2, weights=self.counts)) + width**2 / 12

    def best_range(self) -> tuple[float, float]:
        """The range of the least squared error; zero is a whole number of steps in it."""
        if self.lowest == self.highest:
            return self.lowest, self.highest

        def ends(shares: NDArray[np.float64]) -> tuple[float, float]:
            low, high = np.clip(shares, 0, 1) * (self.lowest, self.highest)
            return float(low), float(high)

        def error(shares: NDArray[np.float64]) -> float:
            return self.squared_error(*ends(shares))

        # All of the range is among what is tried, so that the result is never worse.
        found = brute(error, ((0, 1), (0, 1)), Ns=TRIED)
        scale, zero = scale_and_zero(*ends(found))
        # As whole steps, or float32 may put zero at another step than was found best.
        return -zero * scale, (STEPS - zero) * scale


def scale_and_zero(low: float, high: float) -> tuple[float, int]:
    """Width of a step of a range, and the step that zero is; (0, 0) for no range at all."""
    scale = (high - low) / STEPS
    return scale, round(-low / scale) if scale > 0 else 0


def write_ranges(path: Path, graph: Path, operators: Sequence[str], feeds: Sequence[Mapping[str, Floats]]) -> None:
    """Writes the ranges of a graph's tensors where ONNX Runtime's quantiser looks for min-max ranges.

    Args:
        path: of the calibration cache; the graph that shows all its tensors is written beside it.
        graph: in float.
        operators: whose inputs and results are calibrated.
        feeds: calibration inputs by name.
    """
    found = histograms(graph, operators, feeds, path.with_suffix(".onnx"))
    ranges = {name: tuple(map(np.float32, histogram.best_range())) for name, histogram in found.items()}
    data = {name: TensorData(lowest=low, highest=high) for name, (low, high) in ranges.items()}
    save_tensors_data(TensorsData(CalibrationMethod.MinMax, data), path)


def write_histogram_ranges(
    path: Path, graph: Path, operators: Sequence[str], feeds: Sequence[Mapping[str, Floats]], method: CalibrationMethod
) -> None:
    """As `write_ranges`, the ranges that ONNX Runtime finds by itself, but would hold all tensors of all feeds for.

    Args:
        path: as of `write_ranges`, as are the others.
        graph: in float.
        operators: whose inputs and results are calibrated.
        feeds: calibration inputs by name.
        method: percentile or entropy.
    """
    calibrator = create_calibrator(graph, operators, str(path.with_suffix(".onnx")), method)
    settings = ("method", "symmetric", "num_bins", "num_quantized_bins", "percentile", "scenario")
    collector = HistogramCollector(**{name: getattr(calibrator, name) for name in settings})
    # The first values set the bins: these reach as far as all do, so that the bins are those of all values at once.
    extremes: dict[str, list[Floats]] = {}
    for name, values in _tensors(calibrator, feeds):
        extremes.setdefault(name, []).append(_extremes(values))
    collector.collect({name: np.concatenate(values) for name, values in extremes.items()})
    for counts, *_ in collector.get_histogram_dict().values():
        counts[:] = 0
    for name, values in _tensors(calibrator, feeds):
        collector.collect({name: values})
    calibrator.collector = collector
    save_tensors_data(calibrator.compute_data(), path)


def _extremes(values: Floats) -> Floats:
    """The least, the greatest and the nearest to zero of some values: (3,)."""
    return np.array([values.min(), values.max(), values.flat[np.abs(values).argmin()]])


def _tensors(calibrator: Any, feeds: Sequence[Mapping[str, Floats]]) -> Iterator[tuple[str, Floats]]:
    """The tensors that a calibrator of histograms looks at, by name, of one feed after the other."""
    session, wanted = calibrator.infer_session, calibrator.tensors_to_calibrate
    names = [output.name for output in session.get_outputs() if output.name in wanted]
    for feed in feeds:
        yield from zip(names, session.run(names, feed), strict=True)


def histograms(
    graph: Path, operators: Sequence[str], feeds: Sequence[Mapping[str, Floats]], shown: Path
) -> dict[str, Histogram]:
    """Of the inputs and results of a graph's `operators`, over all `feeds`; one feed's tensors are held at a time.

    Args:
        graph: in float.
        operators: by type.
        feeds: inputs by name.
        shown: where the graph that gives all those tensors is written.
    """
    calibrator = create_calibrator(graph, operators, str(shown), CalibrationMethod.Percentile)
    ends: dict[str, tuple[float, float]] = {}
    for name, values in _tensors(calibrator, feeds):
        low, high = ends.get(name, (0.0, 0.0))
        ends[name] = min(low, float(values.min())), max(high, float(values.max()))
    counts = {name: np.zeros(BINS, np.int64) for name in ends}
    for name, values in _tensors(calibrator, feeds):
        counts[name] += np.histogram(values, BINS, ends[name])[0]
    return {name: Histogram(counts[name], *ends[name]) for name in ends}
