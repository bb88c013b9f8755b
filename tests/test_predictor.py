"""Prompts of a person: what cannot be one is named before a runtime sees it."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from box_backend import BoxBackend
from conftest import ENCODER
from PIL import Image
from torch import nn

from zoo.backends import Backend, Floats, Prompts, create_backend
from zoo.data.phantom import load_phantom
from zoo.errors import InputError
from zoo.registry import create_sam
from zoo.sam.case import segment_case
from zoo.sam.predictor import SamPredictor


@pytest.fixture(scope="module")
def predictor() -> SamPredictor:
    predictor = SamPredictor(create_backend("torch", create_sam("light_repvit_m0_9", "random:0")))
    predictor.set_image(np.random.default_rng(0).integers(0, 256, (120, 90, 3), np.uint8))
    return predictor


@pytest.fixture(scope="module", params=["torch", "onnxruntime"])
def diverged(request: pytest.FixtureRequest) -> Backend:
    """A model whose weights are finite, but no embedding is: one variance is negative."""
    sam = create_sam(ENCODER)
    norm = next(module for module in sam.image_encoder.modules() if isinstance(module, nn.BatchNorm2d))
    assert norm.running_var is not None
    norm.running_var[0] = -1
    return create_backend(request.param, sam)


NOT_FINITE = f"encoder {ENCODER} with random:0: found NaN or infinity"


@pytest.mark.parametrize("name", ["mr2d", "mr3d"])
def test_a_case_is_not_segmented_by_what_computes_no_numbers(diverged: Backend, name: str) -> None:
    with pytest.raises(InputError, match=NOT_FINITE):
        segment_case(load_phantom(name), diverged)


def test_an_image_is_not_set_by_what_computes_no_numbers(diverged: Backend) -> None:
    with pytest.raises(InputError, match=NOT_FINITE):
        SamPredictor(diverged).set_image(load_phantom("mr2d").image)


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
        ({"boxes": [[1, 2, 30, 40], [1, 2, 30]]}, "boxes: found list that is no array .*; expected an array"),
        ({"boxes": torch.zeros(1, 4, requires_grad=True)}, "boxes: found Tensor that is no array .*requires grad"),
        ({"masks": np.zeros((1, 3, 256, 256), np.float32)}, r"masks: .*\(1, 3, 256, 256\).*low_res_logits\[:, :1\]"),
        ({"masks": np.full((1, 1, 256, 256), np.inf, np.float32)}, "masks: .*finite logits"),
        ({"masks": np.zeros((1, 1, 256, 256)), "boxes": [[1, 2, 30, 40]] * 2}, "2 boxes, 1 masks; expected as many"),
    ],
)
def test_what_is_no_prompt_is_named(predictor: SamPredictor, prompts: dict[str, Any], told: str) -> None:
    with pytest.raises(InputError, match=told):
        predictor.predict(**prompts)


def test_an_image_of_pillow_is_that_of_an_array(predictor: SamPredictor) -> None:
    image, boxes = np.random.default_rng(0).integers(0, 256, (120, 90, 3), np.uint8), [[9, 7, 39, 47]]
    expected = predictor.predict(boxes=boxes).low_res_logits
    predictor.set_image(Image.fromarray(image))
    np.testing.assert_array_equal(predictor.predict(boxes=boxes).low_res_logits, expected)


@pytest.mark.parametrize("image", [[[0, 1], [2]], [[0, 1]], None, np.zeros((9, 9), np.float32)])
def test_an_image_that_could_not_be_set_is_not_answered_for(image: Any) -> None:
    predictor = SamPredictor(BoxBackend())
    predictor.set_image(np.zeros((90, 90), np.uint8))
    with pytest.raises(InputError, match=r"image: found .*; expected"):
        predictor.set_image(image)
    with pytest.raises(InputError, match="predictor: found no image"):
        predictor.predict(boxes=[[9, 7, 39, 47]])


def test_a_mask_is_fed_back(predictor: SamPredictor) -> None:
    first = predictor.predict(points=POINTS, point_labels=LABELS, multimask=True)
    again = predictor.predict(points=POINTS, point_labels=LABELS, masks=first.low_res_logits[:, :1].astype(np.float64))
    assert again.masks.shape == (1, 1, 120, 90)
    assert (again.low_res_logits != first.low_res_logits[:, :1]).any()


MASKS = np.random.default_rng(1).normal(0, 10, (6, 1, 256, 256)).astype(np.float32)
SIX_POINTS = {"points": [[[9 * x, 7 * x]] for x in range(1, 7)], "point_labels": [[1]] * 6}
SIX_BOXES = {"boxes": [[9 * x, 7 * x, 9 * x + 30, 7 * x + 40] for x in range(6)]}


@pytest.mark.parametrize(
    ("prompts", "multimask"),
    [(SIX_POINTS, False), (SIX_BOXES, True), (SIX_BOXES | {"masks": MASKS}, False)],
)
def test_prompts_of_any_kind_are_decoded_a_few_together(
    predictor: SamPredictor, prompts: dict[str, Any], multimask: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Six at once take seconds and gigabytes by the hundred; the masks are those of one batch."""
    decode, counts = predictor.backend.decode, []

    def counted(embedding: Floats, some: Prompts, multimask: bool = False) -> tuple[Floats, Floats]:
        counts.append({len(given) for given in vars(some).values() if given is not None})
        return decode(embedding, some, multimask)

    monkeypatch.setattr(predictor.backend, "decode", counted)
    found = predictor.predict(**prompts, multimask=multimask)
    assert counts == [{3}, {3}]
    monkeypatch.setattr("zoo.sam.predictor.BOXES_A_BATCH", 6)
    together = predictor.predict(**prompts, multimask=multimask)
    assert counts[2:] == [{6}]
    assert found.masks.shape == together.masks.shape == (6, 3 if multimask else 1, 120, 90)
    np.testing.assert_allclose(found.low_res_logits, together.low_res_logits, rtol=1e-3, atol=1e-3)
    np.testing.assert_allclose(found.iou, together.iou, atol=1e-4)
    assert (found.masks != together.masks).mean() <= 1e-4


def test_an_encoder_at_its_own_size_has_the_weights_that_ship() -> None:
    named = create_sam("light_repvit_m0_9@256").weights
    assert named == create_sam("light_repvit_m0_9").weights
    assert create_sam("light_repvit_m0_9@320").weights.name == "random:0"
