"""The synthetic task: what every sample promises, whatever the seed, the look and the size."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pytest_benchmark.fixture import BenchmarkFixture

from zoo.data.synthetic import LOOK_NAMES, contact_sheet, sample
from zoo.data.synthetic.appearance import part_rinds
from zoo.data.synthetic.canvas import Canvas
from zoo.data.synthetic.generator import MIN_AREA_PX
from zoo.errors import InputError


@settings(max_examples=60, deadline=None)
@given(seed=st.integers(0, 2**32), size=st.sampled_from([64, 96, 256]), look=st.sampled_from([*LOOK_NAMES, None]))
def test_every_sample_is_a_task(seed: int, size: int, look: str | None) -> None:
    drawn = sample(seed, size, look)
    assert drawn.image.shape == (size, size, 3)
    assert drawn.image.dtype == np.uint8
    assert drawn.labels.shape == (size, size)
    assert drawn.labels.dtype == np.uint16
    areas = np.bincount(drawn.labels.ravel())
    assert len(areas) > 1, "there is something to segment"
    assert areas[1:].min() >= MIN_AREA_PX, "numbered 1 to N without a gap, none too small"
    assert drawn.image.min() == 0
    assert drawn.image.max() == 255
    assert drawn.look == look or look is None


@pytest.mark.parametrize("look", LOOK_NAMES)
def test_a_seed_is_a_sample(look: str) -> None:
    first, again, other = sample(7, 96, look), sample(7, 96, look), sample(8, 96, look)
    np.testing.assert_array_equal(first.image, again.image)
    np.testing.assert_array_equal(first.labels, again.labels)
    assert not np.array_equal(first.image, other.image)


def test_colour_is_where_it_belongs() -> None:
    for look in LOOK_NAMES:
        coloured = [bool(np.ptp(sample(seed, 64, look).image.astype(int), axis=2).any()) for seed in range(6)]
        if look in ("ct", "mr", "us", "xray"):
            assert not any(coloured), look
        if look == "rgb":
            assert all(coloured)


def test_all_looks_are_drawn() -> None:
    assert {sample(seed, 64).look for seed in range(60)} == set(LOOK_NAMES)


def test_objects_differ_from_what_is_around_them() -> None:
    """A label without a trace in the image could not be learned: of most objects, inside and rim differ in grey."""
    told = []
    for seed in range(30):
        drawn = sample(seed, 96)
        grey = drawn.image.mean(axis=2)
        for value in range(1, int(drawn.labels.max()) + 1):
            inside = drawn.labels == value
            rows, columns = np.flatnonzero(inside.any(1)), np.flatnonzero(inside.any(0))
            box = slice(max(rows[0] - 2, 0), rows[-1] + 3), slice(max(columns[0] - 2, 0), columns[-1] + 3)
            around = ~inside[box]
            told.append(abs(grey[box][inside[box]].mean() - grey[box][around].mean()) > 2 if around.any() else True)
    assert np.mean(told) > 0.85


def test_an_image_without_a_border_has_rinds_without_end() -> None:
    """One part all over: its brightness is lost as far from a border as can be, which is no overflow."""
    canvas = Canvas((16, 24))
    canvas.paint(np.ones((16, 24), np.bool_), "bone", True)
    drawn = [part_rinds(canvas, np.random.default_rng(seed)) for seed in range(20)]
    assert np.isfinite(drawn).all()
    assert np.ptp(drawn, axis=(1, 2)).max() == 0
    assert np.max(drawn) > 0.3


def test_contact_sheet_outlines_the_labels() -> None:
    sheet, drawn = contact_sheet(0, rows=2, columns=3, size=64), sample(0, 64)
    assert sheet.shape == (128, 192, 3)
    changed = (sheet[:64, :64] != drawn.image).any(axis=2)
    assert changed.any()
    assert not changed[drawn.labels == 0].any()


@pytest.mark.parametrize(("arguments", "message"), [
    ((-1,), "integer >= 0"),
    ((0, 32), "at least 64 px"),
    ((0, 64, "pet"), "unknown name 'pet'"),
])  # fmt: skip
def test_bad_arguments(arguments: tuple[object, ...], message: str) -> None:
    with pytest.raises(InputError, match=message):
        sample(*arguments)  # type: ignore[arg-type]


@pytest.mark.bench
@pytest.mark.benchmark(group="synthetic samples of 256 px")
def test_samples_a_second(benchmark: BenchmarkFixture) -> None:
    seeds = itertools.count()
    drawn = benchmark(lambda: sample(next(seeds)))
    assert drawn.image.shape == (256, 256, 3)
