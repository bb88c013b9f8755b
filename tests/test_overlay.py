"""Pictures of a segmentation over its image."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from nibabel.orientations import axcodes2ornt, inv_ornt_aff, ornt_transform
from numpy.typing import NDArray
from PIL import Image

from zoo.data.case import Case
from zoo.data.clicks import Click
from zoo.data.grid import Grid
from zoo.overlay import COLOURS, TILE_PX, _region, draw, write_animation, write_montage


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


def picture_of(case: Case, path: Path) -> NDArray[np.int64]:
    write_montage(case, np.zeros(case.spatial_shape, np.uint16), path)
    with Image.open(path) as picture:
        return np.asarray(picture.convert("RGB")).astype(np.int64)


def test_clicks_are_marked_where_they_are(tmp_path: Path) -> None:
    """An image of 64 px is shown at 768: the arms of a cross at (20, 40) meet at 12 * 20.5 and 12 * 40.5."""
    boxes = np.array([[4, 4, 60, 60]])
    case = Case("c", "US", np.full((64, 64, 3), 100, np.uint8), boxes, np.array([1], np.uint16), (1.0, 1.0))
    plain = picture_of(case, tmp_path / "plain.png")
    for belongs, arm in ((True, (0, 5)), (False, (5, 5))):
        marked = picture_of(replace(case, clicks=(Click(0, (20, 40), belongs),)), tmp_path / "marked.png")
        rows, columns = np.nonzero((marked != plain).any(2))
        assert abs(rows.mean() - 12 * 40.5) < 1
        assert abs(columns.mean() - (768 + 12 * 20.5)) < 1
        assert (marked[int(12 * 40.5) + arm[0], 768 + int(12 * 20.5) + arm[1]] == 255).all()


def test_a_clicked_slice_of_a_volume_is_shown(small_volume: Case, tmp_path: Path) -> None:
    box = small_volume.boxes[0]
    deep = np.repeat(small_volume.image[:1], 40, axis=0)
    boxes = np.array([[*box[:2], 0, *box[3:5], 39]])
    case = replace(small_volume, image=deep, boxes=boxes, object_labels=np.array([1], np.uint16), labels=None)
    clicked = replace(case, clicks=(Click(0, (int(box[0]), int(box[1]), 5), True),))
    assert picture_of(case, tmp_path / "a.png").shape[0] == 3 * picture_height(case)
    shown = picture_of(clicked, tmp_path / "b.png")
    assert shown.shape[0] == 4 * picture_height(case), "a thirteenth slice"


def tiles_of(picture: NDArray[np.int64], case: Case) -> list[tuple[int, int]]:
    """(y, x) of the first pixel of each slice in a montage."""
    rows, columns = range(0, len(picture), picture_height(case)), range(0, picture.shape[1], TILE_PX)
    return [(y, x) for y in rows for x in columns]


def test_a_click_is_marked_in_its_slice_alone(small_volume: Case, tmp_path: Path) -> None:
    middle = ((small_volume.boxes[0, :3] + small_volume.boxes[0, 3:]) // 2).tolist()
    clicked = replace(small_volume, clicks=(Click(0, tuple(middle), True),))
    plain, marked = picture_of(small_volume, tmp_path / "a.png"), picture_of(clicked, tmp_path / "b.png")
    assert plain.shape == marked.shape, "the slice is shown anyway"
    high = picture_height(small_volume)
    changed = (plain != marked).any(2)
    differ = [changed[y : y + high, x : x + TILE_PX].any() for y, x in tiles_of(plain, small_volume)]
    assert sum(differ) == 1


@pytest.mark.parametrize("codes", ["LPS", "LPI", "PIR", "SLP", "RAS", "IPL"])
@pytest.mark.parametrize("sizes", [(1, 1, 3), (3, 1, 1)])
def test_slices_are_numbered_as_in_their_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, codes: str, sizes: tuple[int, int, int]
) -> None:
    """Axial and sagittal ones, by the axis and the index that boxes and clicks are given in."""
    turn = ornt_transform(axcodes2ornt(tuple("LPS")), axcodes2ornt(tuple(codes)))
    stacked = int(turn[sizes.index(3), 0])
    where = Grid(np.diag([-sizes[0], -sizes[1], sizes[2], 1.0]) @ inv_ornt_aff(turn, (8, 8, 8)), (8, 8, 8))
    # Each slice has the brightness of ten times its index.
    voxels = np.moveaxis(np.repeat(np.arange(0, 80, 10, np.uint8), 64).reshape(8, 8, 8), 0, stacked)
    image = where.to_slices(voxels)
    case = Case("c", "CT", image, np.array([[0, 0, 0, 7, 7, 7]]), np.array([1], np.uint16), where.spacing_mm)
    written: list[tuple[str, int]] = []
    monkeypatch.setattr("zoo.overlay._write", lambda picture, text, *_: written.append((text, picture[50, 50, 0])))
    for write, name in ((write_montage, "m.png"), (write_animation, "m.gif")):
        write(case, np.zeros((8, 8, 8), np.uint16), tmp_path / name, where)
        assert sorted(written) == [(f"{'xyz'[stacked]} {index}", 10 * index) for index in range(8)]
        written.clear()


def picture_height(case: Case) -> int:
    """Of one slice in a montage of four columns."""
    rows, columns = _region(case)
    extent = np.array([rows.stop - rows.start, columns.stop - columns.start]) * case.spacing_mm[1:]
    return round(extent[0] * TILE_PX / extent.max())
