"""Ranges of the least squared error: as a search over all ranges finds them, and what the quantised graph has."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import numpy as np
import onnx
import pytest
from numpy.typing import NDArray
from onnx import numpy_helper
from onnxruntime.quantization.calibrate import HistogramCalibrater, create_calibrator, load_tensors_data
from onnxruntime.quantization.quant_utils import compute_scale_zp

from compress.quantize import CALIBRATIONS, Gate, Quantiser, _Reader, quantise_within
from compress.ranges import BINS, Histogram, histograms, write_ranges

RANDOM = np.random.default_rng(0)
NORMAL = RANDOM.normal(size=20_000).astype(np.float32)
VALUES = {
    "normal": NORMAL,
    "outliers": np.append(NORMAL, np.float32([9, -14])),
    "gelu": NORMAL / (1 + np.exp(-1.702 * NORMAL)),
    "relu": np.maximum(NORMAL, 0) ** 2,
    "uniform": RANDOM.uniform(-1, 2, 20_000).astype(np.float32),
    "negative": -(np.abs(NORMAL) ** 3),
}
MODEL = """<ir_version: 10, opset_import: ["": 20]>
encoder (float[1, 3, 64, 64] image) => (float[1, 2, 64, 64] embedding)
<float[2, 3, 1, 1] weight = {1, 0.5, -1, 0.25, 1, 1}> { embedding = Conv(image, weight) }"""


def histogram_of(values: NDArray[np.float32]) -> Histogram:
    low, high = min(0.0, float(values.min())), max(0.0, float(values.max()))
    return Histogram(np.histogram(values, BINS, (low, high))[0], low, high)


def error_by_value(values: NDArray[np.float32], low: float, high: float) -> float:
    """Of each value, with the scale and the zero point that ONNX Runtime takes for the range."""
    zero, scale = compute_scale_zp(np.float32(low), np.float32(high), np.uint8(0), np.uint8(255))
    rounded = np.clip(np.rint(values / scale) + float(zero), 0, 255)
    return float(np.mean((values - (rounded - float(zero)) * scale) ** 2))


@pytest.mark.parametrize("name", VALUES)
def test_no_range_of_a_search_over_all_is_better(name: str) -> None:
    values = VALUES[name]
    histogram = histogram_of(values)
    shares = np.linspace(0.02, 1, 50)
    lows, highs = ({end * share for share in shares} for end in (histogram.lowest, histogram.highest))
    least = min(error_by_value(values, low, high) for low in lows for high in highs)
    found = histogram.best_range()
    # Sparse tails make the error ragged: the best of so many ranges may be a little better by chance.
    assert error_by_value(values, *found) <= 1.03 * least
    assert histogram.squared_error(*found) == pytest.approx(error_by_value(values, *found), rel=0.02)


def test_rare_outliers_are_clipped_and_what_has_none_is_not() -> None:
    counts = 1000 * np.histogram(NORMAL, BINS, (-14, 9))[0]
    counts[[0, -1]] = 1
    low, high = Histogram(counts, -14, 9).best_range()
    assert -7 < low < -3
    assert 3 < high < 7
    assert histogram_of(VALUES["uniform"]).best_range() == pytest.approx((-1, 2), rel=0.02)


def test_nothing_but_zeros() -> None:
    assert histogram_of(np.zeros(9, np.float32)).best_range() == (0, 0)


@pytest.fixture
def graph(tmp_path: Path) -> Path:
    path = tmp_path / "float.onnx"
    onnx.save(onnx.parser.parse_model(MODEL), path)
    return path


#: The second has outliers that are worth being clipped a little.
IMAGES = [RANDOM.normal(size=(1, 3, 64, 64)).astype(np.float32) for _ in range(2)]
IMAGES[1][0, 0, 0, :2] = 40, -30


def test_histograms_count_all_values_of_all_inputs(graph: Path, tmp_path: Path) -> None:
    found = histograms(graph, ["Conv"], [{"image": image} for image in IMAGES], tmp_path / "shown.onnx")
    assert found.keys() == {"image", "embedding"}
    image = found["image"]
    assert (image.lowest, image.highest) == (-30, 40)
    np.testing.assert_array_equal(image.counts, np.histogram(np.stack(IMAGES), BINS, (-30, 40))[0])
    assert found["embedding"].counts.sum() == 2 * 2 * 64 * 64


def test_the_quantised_graph_has_the_range_that_was_found(graph: Path, tmp_path: Path) -> None:
    cache = tmp_path / "ranges.json"
    write_ranges(cache, graph, ["Conv"], [{"image": image} for image in IMAGES])
    low, high = load_tensors_data(cache)["image"].range_value
    assert (low, high) == pytest.approx(histogram_of(np.stack(IMAGES)).best_range())
    assert high < 39, "the outlier of 40 is clipped"
    scales = {}
    for method in ("minmax", "mse"):
        path = tmp_path / f"{method}.onnx"
        quantise_within(graph, path, IMAGES, method, "onnxruntime", Gate(0.5, 0.0), lambda step: None)  # type: ignore[arg-type]
        tensors = {tensor.name: tensor for tensor in onnx.load(path).graph.initializer}
        scales[method] = float(numpy_helper.to_array(tensors["image_scale"]))
    assert scales == pytest.approx({"minmax": 70 / 255, "mse": float(high - low) / 255})


@pytest.mark.parametrize("method", ["percentile", "entropy"])
def test_ranges_of_onnx_runtime_are_those_of_all_values_at_once(
    graph: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, method: Literal["percentile", "entropy"]
) -> None:
    """It would widen the bins of the first input, the narrowest, or hold the tensors of all inputs."""
    feeds = [{"image": image} for image in (0.3 * NORMAL[: 3 * 64 * 64].reshape(1, 3, 64, 64), *IMAGES)]
    calibrator = create_calibrator(graph, ["Conv"], str(tmp_path / "shown.onnx"), CALIBRATIONS[method])
    calibrator.collect_data(_Reader(feeds))
    expected = {name: data.range_value for name, data in calibrator.compute_data().items()}
    monkeypatch.setattr(HistogramCalibrater, "collect_data", lambda *_: pytest.fail("all tensors are held"))
    quantiser = Quantiser(graph, [feed["image"] for feed in feeds], method, False, tmp_path, "onnxruntime")
    quantiser.write(tmp_path / "int8.onnx")
    found = load_tensors_data(tmp_path / f"ranges-{method}.json")
    assert {name: data.range_value for name, data in found.items()} == expected
