"""Synthetic volumes: what each promises, and that its slices show one and the same scene."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from zoo.data.synthetic import VOLUME_LOOK_NAMES, volume, volume_sheet
from zoo.data.synthetic.solids import Plane
from zoo.data.synthetic.volume import MIN_VOXELS, THICKNESS
from zoo.errors import InputError


@settings(max_examples=30, deadline=None)
@given(
    seed=st.integers(0, 2**63 - 1),
    depth=st.sampled_from([1, 5, 12]),
    size=st.sampled_from([64, 96]),
    look=st.sampled_from([*VOLUME_LOOK_NAMES, None]),
)
def test_every_volume_is_a_task(seed: int, depth: int, size: int, look: str | None) -> None:
    drawn = volume(seed, depth, size, look)
    assert drawn.image.shape == drawn.labels.shape == (depth, size, size)
    assert drawn.image.dtype == np.uint8
    assert drawn.labels.dtype == np.uint16
    sizes = np.bincount(drawn.labels.ravel())
    assert len(sizes) > 1, "there is something to segment"
    assert sizes[1:].min() >= MIN_VOXELS, "numbered 1 to N without a gap, none too small"
    assert (drawn.image.min(), drawn.image.max()) == (0, 255)
    assert drawn.look == look or look is None
    assert THICKNESS[0] <= drawn.thickness <= THICKNESS[1]


@pytest.mark.parametrize("look", VOLUME_LOOK_NAMES)
def test_a_seed_is_a_volume(look: str) -> None:
    first, again, other = (volume(seed, 6, 64, look) for seed in (7, 7, 8))
    np.testing.assert_array_equal(first.image, again.image)
    np.testing.assert_array_equal(first.labels, again.labels)
    assert not np.array_equal(first.image, other.image)


def test_both_looks_are_drawn() -> None:
    assert {volume(seed, 2, 64).look for seed in range(12)} == set(VOLUME_LOOK_NAMES)


def test_planes_of_one_state_are_parallel_and_as_far_apart_as_asked_for() -> None:
    low, high, drawn = (Plane(np.random.default_rng(3), (32, 48), offset) for offset in (-0.1, 0.2, None))
    apart = high.flat - low.flat
    np.testing.assert_allclose(np.linalg.norm(apart, axis=0), 0.3, rtol=1e-4)
    np.testing.assert_allclose(apart, apart[:, :1].repeat(apart.shape[1], 1), atol=1e-5)
    along = low.flat[:, 1:2] - low.flat[:, :1]
    np.testing.assert_allclose((along * apart[:, :1]).sum(), 0, atol=1e-6)
    assert abs(np.linalg.norm(drawn.flat - low.flat, axis=0)[0] - 0.1) <= 0.35


def _pairs(step: int) -> list[float]:
    """Dice of each object's mask in a slice and in the one `step` away."""
    found = []
    for seed in range(6):
        labels = volume(seed, 16, 64).labels
        for one, other in zip(labels, labels[step:], strict=False):
            for value in np.intersect1d(one[one > 0], other):
                a, b = one == value, other == value
                found.append(2 * np.sum(a & b) / (a.sum() + b.sum()))
    return found


def test_an_object_goes_on_from_slice_to_slice() -> None:
    near, far = _pairs(1), _pairs(6)
    assert len(near) > 100
    assert np.mean(near) > 0.7
    assert np.mean(far) < np.mean(near) - 0.2, "and it changes"


def test_an_object_is_of_one_brightness_in_all_of_its_slices() -> None:
    within, between = [], []
    for seed in range(6):
        drawn = volume(seed, 12, 64)
        means = [
            [drawn.image[z][labels == value].mean() for z, labels in enumerate(drawn.labels) if (labels == value).any()]
            for value in range(1, int(drawn.labels.max()) + 1)
        ]
        within += [float(np.std(one)) for one in means if len(one) > 2]
        between.append(float(np.std([np.mean(one) for one in means])))
    assert np.mean(within) < np.mean(between) / 2


def test_what_cannot_be_drawn_is_refused() -> None:
    with pytest.raises(InputError, match="seed: found -1; expected an integer >= 0"):
        volume(-1)
    for size in ((0, 64), (4, 8)):
        with pytest.raises(InputError, match="expected at least 1 of 64 px"):
            volume(0, *size)
    with pytest.raises(InputError, match="us"):
        volume(0, look="us")


def test_a_sheet_shows_slices_of_a_volume_a_row() -> None:
    sheet = volume_sheet(3, rows=2, columns=4, size=64)
    assert sheet.shape == (2 * 64, 4 * 64, 3)
    drawn = volume(4, size=64)
    tile, z = sheet[64:, 64 : 2 * 64], 9
    plain = (tile == drawn.image[z, :, :, None]).all(2)
    inside = drawn.labels[z] > 0
    assert plain[~inside].all(), "contours lie on their objects"
    assert 0 < (~plain).sum() < inside.sum()
