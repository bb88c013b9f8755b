"""Objects with a mask file each: overlaps in the label map, boxes of whole masks, what is told."""

from __future__ import annotations

import logging
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from zoo.data.cases import CaseSource
from zoo.data.prepare import Preparation, load_pair
from zoo.data.scan import read_labels
from zoo.errors import InputError
from zoo.segment import load_prompted


def draw(folder: Path, **masks: tuple[int, int, int, int]) -> list[Path]:
    """An image of 40 x 50 pixels and a mask for each inclusive box `x_min y_min x_max y_max`."""
    Image.fromarray(np.zeros((40, 50), np.uint8)).save(folder / "p.png")
    for name, (x_min, y_min, x_max, y_max) in masks.items():
        mask = np.zeros((40, 50), np.uint8)
        mask[y_min : y_max + 1, x_min : x_max + 1] = 255
        Image.fromarray(mask).save(folder / f"p_{name}.png")
    return [folder / f"p_{name}.png" for name in masks]


KIDNEY, CYST = (5, 5, 34, 34), (10, 12, 19, 21)


def test_a_lesion_within_an_organ_keeps_its_voxels_and_is_prompted(tmp_path: Path) -> None:
    """By name, the organ comes last."""
    paths = draw(tmp_path, cyst=CYST, kidney=KIDNEY)
    case = load_pair(tmp_path / "p.png", paths)
    assert case.labels is not None
    assert np.bincount(case.labels.ravel())[1:].tolist() == [100, 800]
    assert case.object_labels.tolist() == [1, 2]
    assert case.boxes.tolist() == [list(CYST), list(KIDNEY)]
    assert np.array_equal(read_labels(paths), case.labels)
    prompted = load_prompted(CaseSource("p", "p", tmp_path / "p.png", tuple(paths)), Preparation())
    assert prompted.case.boxes.tolist() == case.boxes.tolist()


def test_a_box_is_that_of_the_whole_mask_whatever_lies_over_it(tmp_path: Path) -> None:
    organ, lesion = (5, 5, 34, 34), (28, 0, 39, 39)
    case = load_pair(tmp_path / "p.png", draw(tmp_path, a=organ, b=lesion))
    assert case.labels is not None
    assert np.flatnonzero((case.labels == 1).any(0)).max() == 27
    assert case.boxes.tolist() == [list(organ), list(lesion)]


def test_boxes_of_whole_masks_leave_out_what_is_too_small(tmp_path: Path) -> None:
    (path, other) = draw(tmp_path, a=KIDNEY, b=(30, 5, 34, 34))
    speck = np.array(Image.open(path))
    speck[39, 49] = 255
    Image.fromarray(speck).save(path)
    boxes = {least: load_pair(tmp_path / "p.png", [path, other], Preparation(min_pixels=least)) for least in (0, 100)}
    assert boxes[0].boxes[0].tolist() == [5, 5, 49, 39]
    assert boxes[100].boxes[0].tolist() == list(KIDNEY)
    removed = load_pair(tmp_path / "p.png", [path, other], Preparation(remove_labels=(1,)))
    assert removed.object_labels.tolist() == [2]


def test_overlaps_are_told_of_in_a_line_once(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    paths = draw(tmp_path, cyst=CYST, kidney=KIDNEY, apart=(40, 0, 45, 5))
    for _ in range(2):
        read_labels(paths)
    (told,) = caplog.messages
    assert told.endswith("100 of 900 voxels of p_kidney.png are p_cyst.png's")
    assert str(tmp_path) in told
    assert "\n" not in told
    assert caplog.records[0].levelno == logging.WARNING


@pytest.mark.parametrize(
    ("masks", "message"),
    [
        ({"a": CYST, "b": CYST}, r"p_a\.png: found a mask that lies wholly under p_b\.png"),
        ({"a": (0, 0, 9, 9), "b": (0, 0, 4, 9), "c": (5, 0, 9, 9)}, r"p_a\.png: .* under p_b\.png, p_c\.png"),
    ],
)
def test_an_object_that_would_vanish_is_refused(
    tmp_path: Path, masks: dict[str, tuple[int, int, int, int]], message: str
) -> None:
    with pytest.raises(InputError, match=message):
        read_labels(draw(tmp_path, **masks))


def test_an_empty_mask_is_no_object_and_moves_no_number(tmp_path: Path) -> None:
    paths = draw(tmp_path, a=KIDNEY, b=(40, 0, 40, -1), c=(40, 0, 45, 5))
    assert load_pair(tmp_path / "p.png", paths).object_labels.tolist() == [1, 3]


def test_masks_of_several_shapes_are_refused(tmp_path: Path) -> None:
    paths = draw(tmp_path, a=KIDNEY, b=CYST)
    Image.fromarray(np.zeros((4, 5), np.uint8)).save(paths[1])
    with pytest.raises(InputError, match="label files of different shapes"):
        read_labels(paths)


def disc(size: int = 60) -> Image.Image:
    y, x = np.indices((size, size))
    return Image.fromarray(((x - 25) ** 2 + (y - 30) ** 2 < 15**2) * np.uint8(255))


@pytest.mark.parametrize("resample", [Image.Resampling.BILINEAR, Image.Resampling.BICUBIC, Image.Resampling.LANCZOS])
@pytest.mark.parametrize("px", [45, 100, 300])
def test_soft_edges_of_a_resized_mask_are_cut_at_half(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, px: int, resample: Image.Resampling
) -> None:
    disc().resize((px, px), resample).save(tmp_path / "x.png")
    labels = read_labels([tmp_path / "x.png"])
    assert set(np.unique(labels)) == {0, 1}
    assert np.count_nonzero(labels) == pytest.approx(np.pi * 15**2 * (px / 60) ** 2, rel=0.03)
    assert "x.png: found the soft edges of a resized mask" in caplog.messages[0]


def test_labels_up_to_255_and_pictures_of_a_few_greys_are_no_soft_edges(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    labels = np.zeros((60, 60), np.uint8)
    for number, value in enumerate([*range(1, 13), 255]):
        row, column = divmod(number, 4)
        labels[12 * row : 12 * row + 5, 12 * column : 12 * column + 5] = value
    few = np.array(disc())
    few[25:35, 10] = few[25:35, 41] = 128
    for pixels in (labels, few):
        Image.fromarray(pixels).save(tmp_path / "x.png")
        np.testing.assert_array_equal(read_labels([tmp_path / "x.png"]), pixels)
    assert not caplog.messages
