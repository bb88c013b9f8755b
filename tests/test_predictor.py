"""Prompts of a person: what cannot be one is named before a runtime sees it."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from zoo.backends import create_backend
from zoo.errors import InputError
from zoo.registry import create_sam
from zoo.sam.predictor import SamPredictor


@pytest.fixture(scope="module")
def predictor() -> SamPredictor:
    predictor = SamPredictor(create_backend("torch", create_sam("light_repvit_m0_9", "random:0")))
    predictor.set_image(np.random.default_rng(0).integers(0, 256, (120, 90, 3), np.uint8))
    return predictor


POINTS, LABELS = [[[40, 40], [50, 60]]], [[1, 0]]


@pytest.mark.parametrize(
    ("prompts", "told"),
    [
        ({"points": [[40, 40]], "point_labels": [[1]]}, r"points: found int64 \(1, 2\); expected finite numbers"),
        ({"points": [[[np.nan, 4]]], "point_labels": [[1]]}, r"points: found float64 \(1, 1, 2\); expected finite"),
        ({"points": POINTS, "point_labels": [1, 0]}, r"point_labels: .*expected \(B, P\) of 0, 1"),
        ({"points": POINTS, "point_labels": [[1, 7]]}, r"point_labels: .*7.*expected \(B, P\) of 0, 1"),
        ({"points": POINTS, "point_labels": [[1, 0.9]]}, r"point_labels: .*0\.9"),
        ({"points": POINTS, "point_labels": [[1]]}, r"points: found \(1, 2, 2\) with labels \(1, 1\)"),
        ({"points": POINTS}, "points without labels"),
        ({"masks": np.zeros((1, 3, 256, 256), np.float32)}, r"masks: .*\(1, 3, 256, 256\).*low_res_logits\[:, :1\]"),
        ({"masks": np.full((1, 1, 256, 256), np.inf, np.float32)}, "masks: .*finite logits"),
        ({"masks": np.zeros((1, 1, 256, 256)), "boxes": [[1, 2, 30, 40]] * 2}, "2 boxes, 1 masks; expected as many"),
    ],
)
def test_what_is_no_prompt_is_named(predictor: SamPredictor, prompts: dict[str, Any], told: str) -> None:
    with pytest.raises(InputError, match=told):
        predictor.predict(**prompts)


def test_a_mask_is_fed_back(predictor: SamPredictor) -> None:
    first = predictor.predict(points=POINTS, point_labels=LABELS, multimask=True)
    again = predictor.predict(points=POINTS, point_labels=LABELS, masks=first.low_res_logits[:, :1].astype(np.float64))
    assert again.masks.shape == (1, 1, 120, 90)
    assert (again.low_res_logits != first.low_res_logits[:, :1]).any()


def test_an_encoder_at_its_own_size_has_the_weights_that_ship() -> None:
    named = create_sam("light_repvit_m0_9@256").weights
    assert named == create_sam("light_repvit_m0_9").weights
    assert create_sam("light_repvit_m0_9@320").weights.name == "random:0"
