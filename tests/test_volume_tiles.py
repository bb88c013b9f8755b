"""Volumes whose objects are small together are walked in a tile of their slices."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import numpy as np
import pytest
from box_backend import BoxBackend

from zoo.backends import Backend, Floats, Prompts
from zoo.data.case import Case
from zoo.data.clicks import Click
from zoo.sam.rule import PROTOCOLS, Protocol3D
from zoo.sam.volume import segment_volume
from zoo.tiles import tile_of


def volume(boxes: list[list[int]], clicks: tuple[Click, ...] = ()) -> Case:
    image = np.random.default_rng(0).integers(0, 256, (4, 512, 400), np.uint8)
    labels = np.arange(3, 3 + len(boxes), dtype=np.uint16)
    return Case("v", "CT", image, np.array(boxes, np.int64).reshape(-1, 6), labels, (1.0, 1.0, 1.0), clicks=clicks)


SMALL = [[270, 300, 0, 289, 320, 3], [310, 310, 1, 350, 350, 2]]


@pytest.mark.parametrize("name", PROTOCOLS)
def test_small_objects_are_walked_in_a_tile_and_come_back_in_the_whole(name: str) -> None:
    """256 px of the tile are the encoder's: masks that fill their boxes are not a pixel larger."""
    case = volume(SMALL)
    assert tile_of(np.array([270, 300, 350, 350]), (512, 400), 256) == (128, 256, 383, 511)
    backend = BoxBackend(shrink_px=0)
    found = segment_volume(case, backend, Protocol3D(name, starts=1, box_prior=0, box_dilation_px=0))
    expected = np.zeros(case.image.shape, np.uint16)
    for label, (x0, y0, z0, x1, y1, z1) in zip((3, 4), SMALL, strict=True):
        expected[z0 : z1 + 1, y0 : y1 + 1, x0 : x1 + 1] = label
    np.testing.assert_array_equal(found, expected)
    assert {tuple(prompt) for prompt in backend.prompts} == {(142, 44, 161, 64), (182, 54, 222, 94)}


@pytest.mark.parametrize("name", PROTOCOLS)
def test_it_is_what_the_part_by_itself_gives(name: str, light_backend: Backend) -> None:
    x, y = 128, 256
    case = volume(SMALL, (Click(1, (320, 320, 2), False),))
    alone = replace(
        case,
        image=np.ascontiguousarray(case.image[:, y : y + 256, x : x + 256]),
        boxes=case.boxes - np.array([x, y, 0, x, y, 0]),
        clicks=(Click(1, (320 - x, 320 - y, 2), False),),
    )
    expected = segment_volume(alone, light_backend, Protocol3D(name))
    assert expected.any()
    found = segment_volume(case, light_backend, Protocol3D(name))
    np.testing.assert_array_equal(found[:, y : y + 256, x : x + 256], expected)
    assert (found > 0).sum() == (expected > 0).sum()
    assert (found != segment_volume(case, light_backend, Protocol3D(name, zoom=False))).any()


@dataclass
class ClickBackend(BoxBackend):
    """Remembers where was clicked."""

    clicked: list[list[float]] = field(default_factory=list)

    def decode(self, embedding: Floats, prompts: Prompts, multimask: bool = False) -> tuple[Floats, Floats]:
        if prompts.points is not None:
            self.clicked += prompts.points[0].tolist()
        return super().decode(embedding, prompts, multimask)


def test_a_click_lies_where_it_lay() -> None:
    backend = ClickBackend()
    segment_volume(volume(SMALL, (Click(0, (280, 310, 2), True),)), backend)
    assert backend.clicked
    np.testing.assert_allclose(backend.clicked, [[280 - 128, 310 - 256]] * len(backend.clicked), atol=0.51)


@pytest.mark.parametrize("boxes", [[SMALL[0], [10, 10, 0, 20, 20, 3]], [[100, 100, 0, 300, 300, 3]]])
def test_objects_that_are_not_small_together_are_seen_in_the_whole(boxes: list[list[int]]) -> None:
    by_zoom = []
    for zoom in (True, False):
        backend = BoxBackend()
        segment_volume(volume(boxes), backend, Protocol3D(zoom=zoom))
        by_zoom.append(backend.prompts)
    assert by_zoom[0] == by_zoom[1]


def test_a_volume_without_objects() -> None:
    assert not segment_volume(volume([]), BoxBackend()).any()


def test_records_tell_of_it_where_it_is_so() -> None:
    spec = BoxBackend().spec
    assert Protocol3D().recorded(spec)["zoom"] is True
    assert "zoom" not in Protocol3D(zoom=False).recorded(spec)
