"""Tiles hold their boxes, lie in the image, and are as small as they may be."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from zoo.tiles import tile_of

SIDES = st.integers(1, 5000)


@st.composite
def boxes_in_images(draw: st.DrawFn) -> tuple[list[int], tuple[int, int]]:
    shape = draw(SIDES), draw(SIDES)
    width = draw(st.integers(1, min(shape[1], draw(st.sampled_from([3, 100, 5000])))))
    height = draw(st.integers(1, min(shape[0], draw(st.sampled_from([3, 100, 5000])))))
    x, y = draw(st.integers(0, shape[1] - width)), draw(st.integers(0, shape[0] - height))
    return [x, y, x + width - 1, y + height - 1], shape


@given(boxes_in_images(), st.sampled_from([64, 256, 1024]))
def test_a_tile_holds_its_box_with_room_and_lies_in_the_image(
    case: tuple[list[int], tuple[int, int]], resolution_px: int
) -> None:
    box, shape = case
    x_min, y_min, x_max, y_max = tile = tile_of(np.array(box), shape, resolution_px)
    assert 0 <= x_min <= box[0] <= box[2] <= x_max < shape[1]
    assert 0 <= y_min <= box[1] <= box[3] <= y_max < shape[0]
    side, box_px = max(x_max - x_min, y_max - y_min) + 1, max(box[2] - box[0], box[3] - box[1]) + 1
    if tile != (0, 0, shape[1] - 1, shape[0] - 1):
        assert box_px <= side / 2 + 0.5, "at most half of a tile, so that there is context"
        assert side > resolution_px // 2, "no smaller than what the encoder resolves, but for the last halving"


def test_tiles_lie_on_a_grid_and_overlap_by_half() -> None:
    starts = {tile_of(np.array([x, 0, x + 9, 9]), (512, 512), 256)[0] for x in range(502)}
    assert starts == {0, 128, 256}
    assert tile_of(np.array([250, 250, 259, 259]), (512, 512), 256) == (128, 128, 383, 383)


def test_halving_ends_at_the_encoders_resolution_and_at_a_quarter() -> None:
    small, quarter, larger = (np.array([0, 0, side - 1, 9]) for side in (20, 256, 257))
    assert tile_of(small, (1024, 1024), 256) == (0, 0, 255, 255)
    assert tile_of(quarter, (1024, 1024), 256) == (0, 0, 511, 511)
    assert tile_of(larger, (1024, 1024), 256) == (0, 0, 1023, 1023)
    assert tile_of(small, (256, 200), 256) == (0, 0, 199, 255), "as much as the encoder sees"
    assert tile_of(small, (40, 1024), 256) == (0, 0, 255, 39), "an axis shorter than the tile is whole"
