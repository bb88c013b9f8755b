"""Pictures of a segmentation over its image."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image

from zoo.data.case import Case
from zoo.overlay import COLOURS, draw, write_animation, write_montage


def test_a_mask_is_tinted_in_its_colour_and_framed() -> None:
    image = np.full((32, 32, 3), 100, np.uint8)
    masks = np.zeros((32, 32), np.uint16)
    masks[8:24, 8:24] = 2
    picture = draw(image, masks, np.array([[4, 4, 27, 27]]), np.array([2], np.uint16), 64, (1.0, 1.0))
    assert picture.shape == (64, 64, 3)
    np.testing.assert_array_equal(picture[44, 16], COLOURS[1])
    assert (picture[26:38, 24:40] == 255).all(axis=2).any()  # the label's number in the middle of its mask
    np.testing.assert_array_equal(picture[20, 20], (100 * 0.7 + COLOURS[1] * 0.3).astype(np.uint8))
    np.testing.assert_array_equal(picture[8, 30], COLOURS[1])
    np.testing.assert_array_equal(picture[2, 2], [100, 100, 100])
    many = np.tile([[4, 4, 27, 27]], (11, 1))
    crowded = draw(image, masks, many, np.arange(1, 12, dtype=np.uint16), 64, (1.0, 1.0))
    np.testing.assert_array_equal(crowded[8, 30], [100, 100, 100])  # no frames of so many objects
    np.testing.assert_array_equal(crowded[16:48, 16:48], picture[16:48, 16:48])


def test_millimetres_are_square_and_a_volume_is_shown_around_its_boxes(small_volume: Case, tmp_path: Path) -> None:
    segmentation = np.zeros(small_volume.spatial_shape, np.uint16)
    write_montage(small_volume, segmentation, tmp_path / "m.png")
    with Image.open(tmp_path / "m.png") as montage:
        # Boxes from 8 to 50 and from 6 to 35, 4 pixels around them: 51 x 38 of the slice's 56 x 40.
        assert montage.size == (4 * 320, 2 * round(320 * 38 / 51))
    write_animation(small_volume, segmentation, tmp_path / "m.gif")
    with Image.open(tmp_path / "m.gif") as animation:
        assert animation.n_frames == 6
