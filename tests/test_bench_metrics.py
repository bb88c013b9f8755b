"""How long the metrics take, ours beside the package's; run by `make bench`."""

from __future__ import annotations

import numpy as np
import pytest
import surface_distance
from numpy.typing import NDArray
from pytest_benchmark.fixture import BenchmarkFixture

from bench.metrics import nsd, score_labels

SHAPE = (64, 256, 256)
SPACING_MM = (1.0, 1.0, 1.0)
TOLERANCE_MM = 2.0

pytestmark = pytest.mark.bench


def two_blobs(shift: float) -> NDArray[np.uint16]:
    """Two ellipsoids, labelled 1 and 2, moved by `shift` voxels within the slices."""
    z, y, x = np.ogrid[:64, :256, :256]
    first = ((z - 32) / 22) ** 2 + ((y - 90 - shift) / 51) ** 2 + ((x - 77) / 51) ** 2 <= 1
    second = ((z - 32) / 19) ** 2 + ((y - 166) / 51) ** 2 + ((x - 179 - shift) / 38) ** 2 <= 1
    return np.select([second, first], [2, 1], 0).astype(np.uint16)


def package_nsd(prediction: NDArray[np.bool_], reference: NDArray[np.bool_]) -> float:
    distances = surface_distance.compute_surface_distances(reference, prediction, SPACING_MM)
    return surface_distance.compute_surface_dice_at_tolerance(distances, TOLERANCE_MM)


@pytest.mark.benchmark(group="nsd 64x256x256")
def test_nsd(benchmark: BenchmarkFixture) -> None:
    masks = two_blobs(3.0) > 0, two_blobs(0.0) > 0
    assert 0 < benchmark(nsd, *masks, SPACING_MM, TOLERANCE_MM) < 1


@pytest.mark.benchmark(group="nsd 64x256x256")
@pytest.mark.filterwarnings("ignore:Please import:DeprecationWarning")
def test_nsd_of_the_package(benchmark: BenchmarkFixture) -> None:
    masks = two_blobs(3.0) > 0, two_blobs(0.0) > 0
    assert 0 < benchmark.pedantic(package_nsd, masks, rounds=3) < 1


@pytest.mark.benchmark(group="score_labels 64x256x256")
def test_score_labels(benchmark: BenchmarkFixture) -> None:
    scores = benchmark(score_labels, two_blobs(3.0), two_blobs(0.0), [1, 2], SPACING_MM, TOLERANCE_MM)
    assert [score.label for score in scores] == [1, 2]
