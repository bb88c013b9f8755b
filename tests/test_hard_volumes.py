"""Volumes and boxes at the edge of what there is: every protocol gives the same labels, or a clear error."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import pytest
from box_backend import BoxBackend

from zoo.backends import Backend, Floats, Prompts
from zoo.data.case import Case
from zoo.errors import InputError
from zoo.sam.rule import MULTIPLANAR, PROTOCOLS, Protocol3D
from zoo.sam.volume import count_slices, segment_volume


def volume(
    shape: tuple[int, int, int], boxes: list[list[int]], spacing_mm: tuple[float, ...] = (1.0, 1.0, 1.0)
) -> Case:
    """Slices whose brightness rises, so that an embedding tells which slice it is of."""
    image = np.zeros(shape, np.uint8) + (np.arange(shape[0], dtype=np.uint8) * 3 + 10)[:, None, None]
    labels = np.arange(1, len(boxes) + 1, dtype=np.uint16)
    return Case("hard", "CT", image, np.array(boxes, np.int64).reshape(-1, 6), labels, spacing_mm)


@dataclass
class BlinkingBackend(BoxBackend):
    """Masks fill their boxes but for slices whose rank in brightness is `dead`, where nothing is found."""

    dead: frozenset[int] = field(default_factory=frozenset)
    depth: int = 8

    def decode(self, embedding: Floats, prompts: Prompts, multimask: bool = False) -> tuple[Floats, Floats]:
        logits, iou = super().decode(embedding, prompts, multimask)
        raw = float(embedding[0, 0, 0, 0])
        if any(abs(raw - self.mean_of(rank)) < 1e-4 for rank in self.dead):
            logits[:] = -1
        return logits, iou

    def mean_of(self, rank: int) -> float:
        """The embedding of a square slice that is evenly as bright as `volume` makes it."""
        grey = np.full((self.spec.image_size,) * 2, rank * 3 + 10, np.float32)
        mean, std = np.array([123.675, 116.28, 103.53]), np.array([58.395, 57.12, 57.375])
        return float(((grey[0, 0] - mean) / std).mean())


def labels_of_all(
    case: Case, make: type[BoxBackend] = BoxBackend, box_prior: float = 0.5, **options: object
) -> np.ndarray:
    """The label map, which is the same by every protocol."""
    protocols = [Protocol3D(name, box_prior=box_prior) for name in PROTOCOLS]
    results = [segment_volume(case, make(**options), protocol) for protocol in protocols]  # type: ignore[arg-type]
    for other in results[1:]:
        np.testing.assert_array_equal(results[0], other)
    return results[0]


@pytest.mark.parametrize("z", [0, 3, 7])
def test_a_box_of_one_slice_reaches_that_slice_alone(z: int) -> None:
    found = labels_of_all(volume((8, 128, 128), [[20, 30, z, 90, 100, z]]))
    assert np.flatnonzero(found.any(axis=(1, 2))).tolist() == [z]


def test_boxes_that_touch_every_face() -> None:
    found = labels_of_all(volume((8, 128, 128), [[0, 0, 0, 127, 127, 7], [100, 100, 5, 127, 127, 7]]), shrink_px=0)
    assert found[0].any()
    assert found[7].any()
    assert set(np.unique(found)) == {0, 1, 2}


@pytest.mark.parametrize("name", [*PROTOCOLS, MULTIPLANAR])
@pytest.mark.parametrize("z_range", [(-1, 3), (2, 8), (8, 9), (5, 4)])
def test_a_box_outside_is_refused_by_every_protocol(name: str, z_range: tuple[int, int]) -> None:
    case = volume((8, 64, 64), [[1, 1, z_range[0], 40, 40, z_range[1]]])
    with pytest.raises(InputError, match=rf"z {z_range[0]}\.\.{z_range[1]} in 8 slices"):
        segment_volume(case, BoxBackend(), Protocol3D(name))


@pytest.mark.parametrize("name", [*PROTOCOLS, MULTIPLANAR])
def test_no_objects_no_labels_and_nothing_is_encoded(name: str) -> None:
    case, backend = volume((4, 32, 48), []), BoxBackend()
    found = segment_volume(case, backend, Protocol3D(name))
    assert count_slices(case, Protocol3D(name)) == 0
    assert found.shape == (4, 32, 48)
    assert found.dtype == np.uint16
    assert not found.any()
    assert backend.prompts == []


def test_three_hundred_objects_keep_their_numbers() -> None:
    rng = np.random.default_rng(0)
    corners = rng.integers(0, [110, 110, 5], (300, 3))
    boxes = np.concatenate([corners, corners + rng.integers([6, 6, 0], [17, 17, 2], (300, 3))], axis=1)
    found = labels_of_all(volume((6, 128, 128), boxes.tolist()), shrink_px=0)
    assert found.max() == 300
    assert len(np.unique(found)) > 100
    across = segment_volume(volume((6, 128, 128), boxes.tolist()), BoxBackend(shrink_px=0), Protocol3D(MULTIPLANAR))
    assert across.max() == 300
    assert (across == found).mean() > 0.9


@pytest.mark.parametrize(
    ("shape", "box"),
    [
        ((5, 40, 300), [10, 5, 0, 280, 30, 4]),
        ((5, 300, 40), [5, 10, 0, 30, 280, 4]),
        ((3, 700, 90), [10, 20, 0, 80, 650, 2]),
        ((1, 64, 64), [5, 5, 0, 60, 60, 0]),
        ((2, 3, 2), [0, 0, 0, 1, 2, 1]),
        ((1, 1, 1), [0, 0, 0, 0, 0, 0]),
    ],
)
def test_odd_shapes(shape: tuple[int, int, int], box: list[int]) -> None:
    found = labels_of_all(volume(shape, [box], (5.0, 0.5, 0.7)), shrink_px=0)
    assert found.shape == shape
    middle = found[(box[2] + box[5]) // 2] > 0
    margin = max(1, max(shape) // 256)
    inside = np.zeros_like(middle)
    inside[max(0, box[1] - margin) : box[4] + margin + 1, max(0, box[0] - margin) : box[3] + margin + 1] = True
    assert not (middle & ~inside).any()
    across = segment_volume(volume(shape, [box], (5.0, 0.5, 0.7)), BoxBackend(shrink_px=0), Protocol3D(MULTIPLANAR))
    assert across.shape == shape
    outside = across.copy()
    outside[:, box[1] : box[4] + 1, box[0] : box[3] + 1] = 0
    assert not outside.any()
    if min(shape[1:]) > 8:
        assert (across > 0).sum() > 0.8 * (found > 0).sum()
        assert (middle & inside).sum() > 0.8 * (box[4] - box[1] + 1) * (box[3] - box[0] + 1)


def test_spacing_does_not_change_a_walk() -> None:
    box = [[10, 10, 1, 50, 50, 6]]
    thin, thick = (volume((8, 64, 64), box, (z, 1.0, 1.0)) for z in (0.5, 9.0))
    np.testing.assert_array_equal(labels_of_all(thin), labels_of_all(thick))


def test_a_mask_that_dies_comes_back_from_the_objects_own_box() -> None:
    case = volume((8, 128, 128), [[20, 30, 0, 100, 110, 7]])
    found = labels_of_all(case, BlinkingBackend, box_prior=0, shrink_px=6, dead=frozenset({1, 5}))
    assert np.flatnonzero(found.any(axis=(1, 2))).tolist() == [0, 2, 3, 4, 6, 7]
    # Walks shrink slice by slice; the one behind a dead mask is as large as the middle one again.
    size = [int((found[z] > 0).sum()) for z in range(8)]
    assert size[3] > size[4]
    assert size[6] == size[0] == size[3]
    assert size[7] < size[6]


def test_the_middle_slice_dies_and_both_walks_begin_from_the_box() -> None:
    case = volume((7, 128, 128), [[20, 30, 0, 100, 110, 6]])
    found = labels_of_all(case, BlinkingBackend, shrink_px=6, dead=frozenset({3}))
    assert not found[3].any()
    np.testing.assert_array_equal(found[2], found[4])
    assert found[2].any()


def test_protocols_agree_in_a_real_model_on_an_odd_volume(light_backend: Backend) -> None:
    rng = np.random.default_rng(1)
    image = rng.integers(0, 255, (3, 20, 70), np.uint8)
    boxes = np.array([[3, 2, 0, 66, 17, 2], [0, 0, 2, 69, 19, 2]])
    case = Case("odd", "MR", image, boxes, np.array([1, 2], np.uint16), (4.0, 1.0, 1.0))
    results = {name: segment_volume(case, light_backend, Protocol3D(name)) for name in PROTOCOLS}
    np.testing.assert_array_equal(results["per_object"], results["cached"])
    assert (results["batched"] == results["cached"]).mean() >= 0.999
