"""Preprocessing and post-processing: golden values of the published script, and an independent interpolation."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from conftest import GOLDEN

from zoo.registry import encoder_spec
from zoo.transforms import (
    fit_image,
    mask_box,
    mask_in_frame,
    preprocess_image,
    resize_image,
    restore_logits,
    scale_boxes,
    scale_points,
)


@pytest.fixture(scope="module")
def golden() -> dict[str, np.ndarray]:
    with np.load(GOLDEN / "preprocess.npz") as file:
        return dict(file)


@pytest.mark.parametrize("name", ["gray_downscale", "rgb_upscale"])
def test_preprocessing_is_the_published_one(golden: dict[str, np.ndarray], name: str) -> None:
    image = golden[f"{name}_image"]
    padded = preprocess_image(image, encoder_spec("repvit"))
    assert padded.shape == (1, 3, 256, 256)
    assert padded.dtype == np.float32
    np.testing.assert_allclose(padded[0].transpose(1, 2, 0)[::4, ::4], golden[f"{name}_padded"], atol=1e-6)


@pytest.mark.parametrize("name", ["down", "up", "grey"])
def test_medsam_resizes_as_scikit_image_does(name: str) -> None:
    with np.load(GOLDEN / "cubic.npz") as golden:
        image, expected = golden[f"{name}_image"], golden[f"{name}_resized"]
    np.testing.assert_array_equal(resize_image(image, expected.shape[:2], "cubic"), expected)


@pytest.mark.parametrize("shape", [(37, 50), (120, 90)])
def test_sam_averages_what_it_makes_smaller(shape: tuple[int, int]) -> None:
    """SAM resizes by Pillow; torch's antialiased interpolation is an independent one."""
    image = np.random.default_rng(0).integers(0, 256, (80, 60, 3), np.uint8)
    as_tensor = torch.from_numpy(image).permute(2, 0, 1)[None].float()
    expected = F.interpolate(as_tensor, shape, mode="bilinear", antialias=True)[0].permute(1, 2, 0)
    np.testing.assert_allclose(resize_image(image, shape, "linear"), expected, atol=1.01)


def test_nearly_square_images_keep_one_factor() -> None:
    """Both sides come to fill the frame, yet it is padding, not squashing."""
    fit = fit_image((2000, 1997), 256, "pad")
    assert fit.new_shape == (256, 256)
    assert scale_boxes(np.array([[1000, 1000, 1500, 1500]]), fit, "float").tolist() == [[128, 128, 192, 192]]
    assert scale_points(np.array([[[1000, 500]]]), fit).tolist() == [[[128, 64]]]


@pytest.mark.parametrize("name", ["gray_downscale", "rgb_upscale", "rgb_wide"])
def test_boxes_are_scaled_as_published(golden: dict[str, np.ndarray], name: str) -> None:
    shape = {"gray_downscale": (404, 488), "rgb_upscale": (100, 80), "rgb_wide": (333, 777)}[name]
    fit = fit_image(shape, 256, "pad")
    assert fit.new_shape == tuple(golden[f"{name}_new_size"])
    np.testing.assert_array_equal(scale_boxes(golden[f"{name}_box"][None], fit)[0], golden[f"{name}_box256"])


def test_mask_box_is_the_published_one(golden: dict[str, np.ndarray]) -> None:
    box = mask_box(golden["mask256"] > 0, dilation_px=3)
    assert box is not None
    np.testing.assert_array_equal(box, golden["mask256_box"])


def test_mask_box_by_hand() -> None:
    mask = np.zeros((10, 20), bool)
    mask[4:6, 7:9] = True
    assert mask_box(mask, 0).tolist() == [7, 4, 8, 5]  # type: ignore[union-attr]
    assert mask_box(mask, 6).tolist() == [1, 0, 14, 10]  # type: ignore[union-attr]
    assert mask_box(np.zeros((4, 4), bool), 3) is None


def test_squash_scales_each_axis_by_itself() -> None:
    fit = fit_image((512, 256), 1024, "squash")
    assert fit.new_shape == (1024, 1024)
    assert scale_boxes(np.array([[10, 20, 30, 40]]), fit).tolist() == [[40, 40, 120, 80]]


def test_float_rounding_keeps_fractions() -> None:
    fit = fit_image((400, 300), 256, "pad")
    np.testing.assert_allclose(scale_boxes(np.array([[5, 5, 10, 10]]), fit, "float"), [[3.2, 3.2, 6.4, 6.4]], rtol=1e-6)
    assert scale_boxes(np.array([[5, 5, 10, 10]]), fit).tolist() == [[3, 3, 6, 6]]


def test_a_constant_image_is_black() -> None:
    assert not preprocess_image(np.full((30, 40, 3), 77, np.uint8), encoder_spec("repvit")).any()


@pytest.mark.parametrize(("value", "survives"), [(1, False), (3, True), (6, True)])
def test_the_label_quirk(value: int, survives: bool) -> None:
    """A pixel covered to 1/4 survives where 1/4 of the number rounds to at least one: for 3 and 6, not for 1."""
    mask = np.zeros((512, 512), bool)
    mask[100, 100] = True
    framed = mask_in_frame(mask, fit_image((512, 512), 256, "pad"), value)
    assert framed[50, 50] == survives


def test_padding_of_a_mask_stays_empty() -> None:
    framed = mask_in_frame(np.ones((100, 50), bool), fit_image((100, 50), 256, "pad"))
    assert framed[:, :128].all()
    assert not framed[:, 128:].any()


@pytest.mark.parametrize("frame", [256, 1024])
@pytest.mark.parametrize("shape", [(404, 488), (100, 80), (333, 777), (20, 300)])
def test_restored_logits_match_torch(shape: tuple[int, int], frame: int) -> None:
    logits = np.random.default_rng(0).standard_normal((256, 256)).astype(np.float32)
    fit = fit_image(shape, frame, "pad")
    framed = torch.from_numpy(logits)[None, None]
    if frame != 256:
        framed = F.interpolate(framed, (frame, frame), mode="bilinear")
    cropped = framed[..., : fit.new_shape[0], : fit.new_shape[1]]
    expected = F.interpolate(cropped, shape, mode="bilinear")[0, 0].numpy()
    np.testing.assert_allclose(restore_logits(logits, fit), expected, atol=2e-4)
