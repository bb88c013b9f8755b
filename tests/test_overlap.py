"""Who owns a pixel that several objects cover: by hand, in any order, and whatever protocol walks."""

from __future__ import annotations

from itertools import permutations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from numpy.typing import NDArray

from zoo.backends import Backend
from zoo.data.case import Case, box_pixels
from zoo.sam.overlap import Overlap, Owners
from zoo.sam.rule import PROTOCOLS, Protocol3D
from zoo.sam.volume import segment_volume

#: Two objects over three pixels: the first more certain on the left, the second in the middle.
FIRST, SECOND = (np.array([values], np.float32) for values in ([5.0, 1.0, -1.0], [2.0, 3.0, 4.0]))
#: All of one size, so that `density` is `logit`.
ALIKE = np.tile([0, 0, 2, 0], (3, 1))


@pytest.mark.parametrize("overlap", ["density", "logit"])
def test_the_highest_logit_owns_a_pixel(overlap: Overlap) -> None:
    owners = Owners((1, 3), ALIKE, overlap)
    assert owners.enter(0, FIRST).tolist() == [[True, True, False]]
    assert owners.enter(1, SECOND).tolist() == [[True, True, True]], "an object's own mask is whole"
    assert owners.labels(np.array([7, 300], np.uint16)).tolist() == [[7, 300, 300]]


def test_odds_are_spread_over_the_box() -> None:
    """Of a box ten times as large a logit must be higher by ln 10 = 2.303, in whatever order they come."""
    boxes = np.array([[1, 1, 2, 2], [0, 0, 7, 4]])
    assert box_pixels(boxes).tolist() == [4, 40]
    assert box_pixels(np.array([[0, 0, 1, 2, 2, 3]])).tolist() == [27]
    small, large = np.array([[1.0, 1.0, -1.0, 6e4]], np.float32), np.array([[3.3, 3.31, 0.1, 5e4]], np.float32)
    wanted: dict[Overlap, list[int]] = {"density": [1, 2, 2, 1], "logit": [2, 2, 2, 1]}
    for overlap, owner in wanted.items():
        for order in permutations([(0, small), (1, large)]):
            owners = Owners((1, 4), boxes, overlap)
            for number, logits in order:
                owners.enter(number, logits)
            assert owners.numbers.tolist() == [owner]


def test_or_the_last_object_does() -> None:
    owners = Owners((1, 3), ALIKE, "last")
    for number, logits in ((1, SECOND), (0, FIRST)):
        owners.enter(number, logits)
    assert owners.numbers.tolist() == [[2, 2, 2]]


def test_slices_of_a_volume_are_apart() -> None:
    owners = Owners((2, 1, 3), np.tile([0, 0, 0, 2, 0, 1], (2, 1)))
    owners.enter(0, FIRST, 0)
    owners.enter(1, SECOND, 1)
    assert owners.numbers.tolist() == [[[1, 1, 0]], [[2, 2, 2]]]


@given(arrays.arrays(np.float32, (3, 2, 4), elements=st.sampled_from([-7e4, -1.0, 0.0, 0.5, 2.0, 7e4])))
def test_order_does_not_matter(logits: NDArray[np.float32]) -> None:
    """Against the definition: the highest positive logit, the later object of equal ones."""
    highest = logits.max(axis=0)
    wanted = np.where(highest > 0, 3 - np.argmax(logits[::-1] == highest, axis=0), 0)
    for order in permutations(range(3)):
        owners = Owners((2, 4), ALIKE, "logit")
        for number in order:
            owners.enter(number, logits[number])
        assert owners.numbers.tolist() == wanted.tolist()


@pytest.mark.parametrize("overlap", ["density", "logit", "last"])
def test_protocols_agree_where_objects_overlap(overlap: Overlap, light_backend: Backend, small_volume: Case) -> None:
    protocols = [Protocol3D(name, overlap=overlap) for name in PROTOCOLS]
    found = [segment_volume(small_volume, light_backend, protocol) for protocol in protocols]
    assert np.mean(found[0] == found[2]) >= 0.999
    assert np.array_equal(found[0], found[1])
