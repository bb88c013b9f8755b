"""Where walks through a volume begin: which slices are looked at, and which of them is chosen."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import pytest
from box_backend import BoxBackend
from test_volume import volume

from zoo.backends import Floats, Prompts
from zoo.errors import InputError
from zoo.sam.rule import PROTOCOLS, START_GAIN, Protocol3D, starts_of, walks_of
from zoo.sam.volume import count_slices, segment_volume
from zoo.stages import StageClock


@pytest.mark.parametrize(
    ("first", "last", "starts", "looks"),
    [
        (0, 10, 1, [5]),
        (0, 10, 3, [2, 5, 8]),
        (0, 12, 5, [2, 4, 6, 8, 10]),  # 0.6 and 0.3 of six slices, to whole ones
        (0, 3, 3, [0, 1, 2]),  # the middle is slice 1: one below it, two above
        (4, 5, 3, [4, 5]),
        (7, 7, 5, [7]),
    ],
)
def test_slices_that_a_walk_may_begin_at(first: int, last: int, starts: int, looks: list[int]) -> None:
    (walk,) = walks_of(volume([[50, 60, first, 90, 100, last]], depth=13), Protocol3D())
    assert starts_of(walk, Protocol3D(starts=starts)) == looks
    assert starts_of(walk, Protocol3D(starts=starts, propagate=False)) == [walk.start]
    for start in looks:
        begun = walk.begun_at(start)
        assert len(begun) == last - first + 1
        assert [*reversed(begun.down), begun.start, *begun.up] == list(range(first, last + 1))


#: Of three channels of one brightness from 0 to 1, the mean that ImageNet's normalisation makes of it.
SLOPE, OFFSET = np.mean(1 / np.array([0.229, 0.224, 0.225])), np.mean([-0.485 / 0.229, -0.456 / 0.224, -0.406 / 0.225])


@dataclass
class SureBackend(BoxBackend):
    """Predicts an IoU for each slice of `volume`, 0.5 where none is given."""

    ious: dict[int, float] = field(default_factory=dict)
    looked_at: list[int] = field(default_factory=list)

    def decode(self, embedding: Floats, prompts: Prompts, multimask: bool = False) -> tuple[Floats, Floats]:
        logits, _ = super().decode(embedding, prompts, multimask)
        z = round(float((embedding[0, 0, 0, 0] - OFFSET) / SLOPE * 255 / 20))
        self.looked_at.append(z)
        return logits, np.full((len(logits), 1), self.ious.get(z, 0.5), np.float32)


@pytest.mark.parametrize("name", PROTOCOLS)
@pytest.mark.parametrize(
    ("ious", "start"),
    [
        ({}, 4),
        ({6: 0.6}, 6),
        ({2: 0.7, 6: 0.6}, 2),
        ({6: 0.5 + START_GAIN / 2}, 4),  # hardly better than the middle
        ({2: 0.6, 6: 0.6}, 2),  # of equal ones the first
        ({3: 0.9}, 4),  # is not looked at
    ],
)
def test_a_walk_begins_where_the_model_is_surest(name: str, ious: dict[int, float], start: int) -> None:
    """Nine slices, of which 2, 4 and 6 are looked at; each mask is a pixel smaller than the one before."""
    case = volume([[50, 60, 0, 90, 100, 8]], depth=9)
    backend, clock, painted = SureBackend(shrink_px=4, ious=ious), StageClock(), []
    found = segment_volume(case, backend, Protocol3D(name), clock, lambda: painted.append(1))
    assert sorted(backend.looked_at[:3]) == [2, 4, 6]
    assert sorted(backend.looked_at) == sorted([*range(9), *({2, 4, 6} - {start})]), "the start is not decoded again"
    widths = [int((found[z] > 0).any(0).sum()) for z in range(9)]
    assert widths == [33 - 2 * abs(z - start) for z in range(9)]
    assert len(painted) == count_slices(case) == 9
    assert clock.counts["decoded_prompts"] == 11


def test_objects_begin_each_where_they_are_surest() -> None:
    """Of two objects through the same slices, each begins by itself; what `batched` keeps does not matter."""
    case = volume([[50, 60, 0, 90, 100, 8], [120, 60, 2, 160, 100, 8]], depth=9)
    for kept in (None, 0, 1):
        found = [
            segment_volume(
                case, SureBackend(shrink_px=4, ious={2: 0.6, 7: 0.8}), Protocol3D(name), kept_embeddings=kept
            )
            for name in PROTOCOLS
        ]
        np.testing.assert_array_equal(found[0], found[1])
        np.testing.assert_array_equal(found[0], found[2])
        first, second = ([int((found[0][z] == label).any(0).sum()) for z in range(9)] for label in (1, 2))
        assert np.argmax(first) == 2, "of slices 2, 4 and 6"
        assert np.argmax(second) == 7, "of slices 3, 5 and 7"


@pytest.mark.parametrize("starts", [0, 2, -1])
def test_an_odd_number_of_slices_is_looked_at(starts: int) -> None:
    with pytest.raises(InputError, match=f"--starts: found {starts}; expected an odd number from 1 up"):
        Protocol3D(starts=starts)
