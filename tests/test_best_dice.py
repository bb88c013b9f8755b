"""The pixels that make a mask's expected Dice highest: by hand, by trying all thresholds, and in images."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pytest
from box_backend import BoxBackend
from hypothesis import given
from hypothesis import strategies as st

from zoo.backends import Floats, Prompts
from zoo.data.case import Case
from zoo.sam.best_dice import LEAST_IOU, lift_to_best_dice
from zoo.sam.image import segment_image
from zoo.sam.rule import Protocol2D, Protocol3D


@dataclass
class UnsureBackend(BoxBackend):
    """Says of every pixel that it is less likely an object's than not: its odds are those given."""

    odds: float = 0.8
    iou: float = 0.5

    def decode(self, embedding: Floats, prompts: Prompts, multimask: bool = False) -> tuple[Floats, Floats]:
        logits, iou = super().decode(embedding, prompts, multimask)
        return np.full_like(logits, np.log(self.odds)), np.full_like(iou, self.iou)


def lifted(odds: float, iou: float) -> float:
    """What the odds of a pixel are worth then: more than 1 where it belongs to the mask."""
    logits = np.array([np.log(odds)], np.float32)
    lift_to_best_dice(logits, iou)
    return float(np.exp(logits[0]))


@pytest.mark.parametrize(
    ("odds", "iou", "expected"),
    [(1, 1, 1), (0.5, 0.5, 1), (0.5, 0.8, 0.625), (1, 0.1, 1 / LEAST_IOU), (1, -3, 1 / LEAST_IOU), (1, 1.05, 1)],
)
def test_by_hand(odds: float, iou: float, expected: float) -> None:
    """Odds over the IoU; the last ones are no predictions of an IoU."""
    assert lifted(odds, iou) == pytest.approx(expected)


@given(st.lists(st.floats(0.02, 0.98), min_size=1, max_size=40))
def test_no_other_threshold_has_a_higher_expected_dice(chances: list[float]) -> None:
    """Of a mask of the n likeliest pixels, 2 * (sum of its chances) / (n + sum of all chances), for every n."""
    ordered = np.sort(chances)[::-1]
    dice = 2 * np.cumsum(ordered) / (np.arange(1, len(ordered) + 1) + ordered.sum())
    iou = dice.max() / (2 - dice.max())
    if iou < LEAST_IOU:
        return
    logits = np.log(ordered / (1 - ordered))
    lift_to_best_dice(logits, float(iou))
    found = int((logits > 0).sum())
    assert dice[max(found, 1) - 1] == pytest.approx(dice.max())


def case_of(side: int, box: list[int]) -> Case:
    return Case("a", "CT", np.zeros((side, side, 3), np.uint8), np.array([box]), np.array([7], np.uint16), (1.0, 1.0))


@pytest.mark.parametrize(("side", "box"), [(256, [50, 60, 90, 120]), (1000, [700, 420, 760, 460])])
def test_masks_of_images_are_those(side: int, box: list[int]) -> None:
    """The larger image is looked at in a tile."""
    case = case_of(side, box)
    pixels = (box[2] - box[0] + 1) * (box[3] - box[1] + 1)
    for iou, best_dice, expected in ((0.79, True, pixels), (0.81, True, 0), (0.79, False, 0)):
        protocol = Protocol2D(best_dice=best_dice, box_prior=0)
        assert (segment_image(case, UnsureBackend(iou=iou), protocol) == 7).sum() == expected


def test_the_less_certain_object_is_worth_more() -> None:
    """Two boxes of a size, of which the later one's mask has the lower predicted IoU, share pixels of equal odds."""

    class OfDifferentIou(UnsureBackend):
        def decode(self, embedding: Floats, prompts: Prompts, multimask: bool = False) -> tuple[Floats, Floats]:
            logits, iou = super().decode(embedding, prompts, multimask)
            iou[np.asarray(prompts.boxes)[:, 0] < 60] = 0.5
            return logits, iou

    boxes = np.array([[50, 60, 90, 100], [70, 60, 110, 100]])
    image = np.zeros((256, 256, 3), np.uint8)
    case = Case("two", "CT", image, boxes, np.array([1, 2], np.uint16), (1.0, 1.0))
    found = segment_image(case, OfDifferentIou(iou=0.7), Protocol2D(box_prior=0))
    assert found[80, 60] == found[80, 80] == 1
    assert found[80, 100] == 2
    assert segment_image(case, OfDifferentIou(odds=2), Protocol2D(box_prior=0, best_dice=False))[80, 80] == 2


def test_records_of_images_tell_of_it_where_it_is_so() -> None:
    spec = BoxBackend().spec
    assert Protocol2D().recorded(spec)["best_dice"] is True
    assert "best_dice" not in Protocol2D(best_dice=False).recorded(spec)
    assert "best_dice" not in Protocol3D().recorded(spec)
