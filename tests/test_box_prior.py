"""What a box alone says about its pixels: by hand, and in the masks of images, tiles and volumes."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from box_backend import BoxBackend
from numpy.typing import NDArray

from zoo.backends import Floats, Prompts
from zoo.data.case import Case
from zoo.sam.box_prior import add_box_prior, box_prior
from zoo.sam.image import segment_image
from zoo.sam.rule import PROTOCOLS, Protocol2D, Protocol3D
from zoo.sam.volume import segment_volume


class UndecidedBackend(BoxBackend):
    """Says of every pixel that it is a little less likely an object's than not."""

    def decode(self, embedding: Floats, prompts: Prompts, multimask: bool = False) -> tuple[Floats, Floats]:
        logits, iou = super().decode(embedding, prompts, multimask)
        return np.full_like(logits, -0.2), iou


def case_of(shape: tuple[int, ...], box: list[int], dimensions: int) -> Case:
    spacing_mm = (1.0,) * dimensions
    return Case("prior", "CT", np.zeros(shape, np.uint8), np.array([box]), np.array([7], np.uint16), spacing_mm)


def ellipsoid(box: list[int], shape: tuple[int, ...], most: float) -> NDArray[np.bool_]:
    """Pixels of a whole image or volume with r^2 < `most` in the box, and within it."""
    first, last = np.array(box[: len(shape)])[::-1], np.array(box[len(shape) :])[::-1]
    at = np.moveaxis(np.indices(shape), 0, -1)
    middle, half = (first + last) / 2, (last - first + 1) / 2
    within: NDArray[np.bool_] = ((at >= first) & (at <= last)).all(-1)
    return within & ((((at - middle) / half) ** 2).sum(-1) < most)


def test_a_prior_by_hand() -> None:
    """Centres of four pixels in a row lie at -3/4, -1/4, 1/4 and 3/4 of the half-width; of two, at -1/2 and 1/2."""
    row = [1 - 9 / 16, 1 - 1 / 16, 1 - 1 / 16, 1 - 9 / 16]
    assert box_prior(np.array([3, 5, 6, 5])).tolist() == [row]
    assert box_prior(np.array([3, 5, 6, 6])).tolist() == [[value - 1 / 4 for value in row]] * 2
    assert box_prior(np.array([2, 2, 2, 2])).tolist() == [[1]]


def test_a_slice_is_one_of_the_whole_box() -> None:
    box = np.array([3, 5, 1, 9, 8, 4])
    whole = box_prior(box)
    assert whole.shape == (4, 4, 7)
    assert whole[0, 0, 0] == pytest.approx(1 - (6 / 7) ** 2 - (3 / 4) ** 2 - (3 / 4) ** 2)
    for place, z in enumerate(range(1, 5)):
        logits = np.zeros((12, 12), np.float32)
        add_box_prior(logits, box, 3, z)
        np.testing.assert_allclose(logits[5:9, 3:10], 3 * whole[place], atol=1e-6)


def test_it_is_added_within_the_box_alone() -> None:
    logits = np.zeros((4, 5), np.float32)
    add_box_prior(logits, np.array([1, 2, 2, 2]), 2)
    expected = np.zeros((4, 5))
    expected[2, 1:3] = 2 * (1 - 1 / 4)
    np.testing.assert_array_equal(logits, expected)


@pytest.mark.parametrize("within_box", [True, False])
@pytest.mark.parametrize(("side", "box"), [(256, [50, 60, 90, 120]), (1000, [700, 420, 760, 460])])
def test_it_decides_where_a_model_does_not(side: int, box: list[int], within_box: bool) -> None:
    """-0.2 + 0.5 (1 - r^2) > 0 where r^2 < 0.6; the larger image is looked at in a tile."""
    case = case_of((side, side, 3), box, 2)
    found = segment_image(case, UndecidedBackend(), Protocol2D(box_prior=0.5, within_box=within_box))
    np.testing.assert_array_equal(found == 7, ellipsoid(box, (side, side), 0.6))
    assert not segment_image(case, UndecidedBackend(), Protocol2D(box_prior=0.3, within_box=within_box))[box[1], box[0]]
    assert not segment_image(case, UndecidedBackend(), Protocol2D(box_prior=0)).any()


@pytest.mark.parametrize("name", PROTOCOLS)
def test_it_is_an_ellipsoid_in_volumes(name: str) -> None:
    box = [50, 60, 1, 90, 120, 6]
    case = case_of((8, 256, 256), box, 3)
    found = segment_volume(case, UndecidedBackend(), Protocol3D(name, box_prior=0.5))
    np.testing.assert_array_equal(found == 7, ellipsoid(box, (8, 256, 256), 0.6))
    assert not segment_volume(case, UndecidedBackend(), Protocol3D(name, box_prior=0)).any()


def test_records_tell_of_it_where_there_is_one() -> None:
    spec = replace(BoxBackend().spec, mask_prompts=True)
    for protocol in (Protocol2D, Protocol3D):
        assert protocol().recorded(spec)["box_prior"] == 0.5
        assert "box_prior" not in protocol(box_prior=0).recorded(spec)
