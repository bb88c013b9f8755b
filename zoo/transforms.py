"""Between an image and an encoder's input, and between an encoder's frame and the image, without torch.

Coordinates are (x, y) in pixels, shapes are (height, width). The rules are those of the published scripts (SAM's
ResizeLongestSide; LiteMedSAM's and Rep-MedSAM's inference script; MedSAM's inference script): an image is resized as
they do it, as an encoder has learnt to see what is left of fine textures.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image
from scipy import ndimage

from zoo.registry import EncoderSpec

BoxRounding = Literal["truncate", "float"]

#: Mean and std of ImageNet's RGB channels on the 0-255 scale, as SAM subtracts and divides them.
IMAGENET_MEAN = np.array([123.675, 116.28, 103.53], np.float32)
IMAGENET_STD = np.array([58.395, 57.12, 57.375], np.float32)
#: Side of the decoder's low-resolution logits in pixels.
LOW_RES_PX = 256
#: What a mask that prompts has as logits within, and without with a minus: about what models are sure with.
MASK_LOGIT = 10.0


@dataclass(frozen=True)
class Fit:
    """How an image lies in a square frame, from its top-left corner.

    Attributes:
        image_shape: (height, width) of the image.
        size: side of the frame in pixels.
        new_shape: (height, width) that the image takes up in the frame.
        scale_xy: pixels of the frame for one of the image. Padded images have one factor for both axes, not the
            quotients of the rounded new shape: the published rule.
    """

    image_shape: tuple[int, int]
    size: int
    new_shape: tuple[int, int]
    scale_xy: tuple[float, float]


def fit_image(image_shape: tuple[int, int], size: int, fit: Literal["pad", "squash"]) -> Fit:
    """Where an image of `image_shape` comes to lie in a frame of `size` pixels a side."""
    if fit == "squash":
        return Fit(image_shape, size, (size, size), (size / image_shape[1], size / image_shape[0]))
    scale = size / max(image_shape)
    height, width = (max(1, int(side * scale + 0.5)) for side in image_shape)
    return Fit(image_shape, size, (height, width), (scale, scale))


def preprocess_image(image: NDArray[np.uint8], spec: EncoderSpec) -> NDArray[np.float32]:
    """Resizes, normalises and pads an image into an encoder's input.

    Args:
        image: uint8 (H, W, 3), or (H, W), which is repeated to three channels.
        spec: of the encoder.

    Returns:
        float32 (1, 3, S, S), contiguous.
    """
    fit = fit_image((image.shape[0], image.shape[1]), spec.image_size, spec.fit)
    height, width = fit.new_shape
    resized = resize_image(image, (height, width), spec.resize)
    normalised = _normalise(resized, spec.normalisation)
    padded = np.zeros((1, 3, spec.image_size, spec.image_size), np.float32)
    padded[0, :, :height, :width] = normalised if normalised.ndim == 2 else normalised.transpose(2, 0, 1)
    return padded


def resize_image(
    image: NDArray[np.uint8], shape: tuple[int, int], how: Literal["area", "linear", "cubic"]
) -> NDArray[np.uint8]:
    """An image (H, W) or (H, W, 3) at another (height, width).

    Args:
        image: uint8.
        shape: to bring it to.
        how: `area`, OpenCV's, as LiteMedSAM and Rep-MedSAM do; `linear`, Pillow's, which averages what it makes
            smaller, as SAM and its descendants do; `cubic`, scikit-image's splines behind a Gaussian, as MedSAM does.
    """
    if how == "linear":
        return np.asarray(Image.fromarray(image).resize(shape[::-1], Image.Resampling.BILINEAR))
    if how == "cubic":
        return _resize_cubic(image, shape)
    return np.asarray(cv2.resize(image, shape[::-1], interpolation=cv2.INTER_AREA), np.uint8)


def _resize_cubic(image: NDArray[np.uint8], shape: tuple[int, int]) -> NDArray[np.uint8]:
    """As `skimage.transform.resize(image, shape, order=3, preserve_range=True, anti_aliasing=True)`, cut to uint8."""
    factors = np.array([old / new for old, new in zip(image.shape, shape, strict=False)] + [1.0] * (image.ndim - 2))
    smooth = ndimage.gaussian_filter(image.astype(np.float64), np.maximum(0, (factors - 1) / 2), mode="mirror")
    resized = ndimage.zoom(smooth, 1 / factors, order=3, mode="mirror", grid_mode=True)
    return resized.clip(image.min(), image.max()).astype(np.uint8)


def _normalise(image: NDArray[Any], how: Literal["min_max", "imagenet"]) -> NDArray[np.float32]:
    if how == "min_max":
        low, high = int(image.min()), int(image.max())
        scaled: NDArray[np.float32] = (image - np.float32(low)) / np.float32(max(high - low, 1e-8))
        return scaled
    rgb = image if image.ndim == 3 else np.repeat(image[..., None], 3, axis=2)
    return (rgb - IMAGENET_MEAN) / IMAGENET_STD


def scale_boxes(
    boxes: NDArray[np.integer] | NDArray[np.floating], fit: Fit, rounding: BoxRounding = "truncate"
) -> NDArray[np.float32]:
    """Boxes (N, 4) xyxy from the image to the frame, float32; `truncate` cuts to whole pixels as published."""
    scaled = boxes * np.tile(fit.scale_xy, 2)
    return (np.trunc(scaled) if rounding == "truncate" else scaled).astype(np.float32)


def scale_points(points: NDArray[np.integer] | NDArray[np.floating], fit: Fit) -> NDArray[np.float32]:
    """Points (..., 2) from the image to the frame, float32, never rounded."""
    return (points * np.array(fit.scale_xy)).astype(np.float32)


def mask_box(mask: NDArray[np.bool_], dilation_px: int) -> NDArray[np.int64] | None:
    """Box xyxy of a mask's true pixels, dilated and clipped to [0, side]; None where no pixel is true.

    Upper ends are those of the last true pixel plus the dilation, clipped to the width and height themselves (not the
    last index), as published.
    """
    columns, rows = np.flatnonzero(mask.any(axis=0)), np.flatnonzero(mask.any(axis=1))
    if not len(rows):
        return None
    height, width = mask.shape
    return np.array(
        [
            max(0, columns[0] - dilation_px),
            max(0, rows[0] - dilation_px),
            min(width, columns[-1] + dilation_px),
            min(height, rows[-1] + dilation_px),
        ]
    )


def widen_boxes(boxes: NDArray[np.float32], margin_px: int, fit: Fit) -> NDArray[np.float32]:
    """Boxes (N, 4) in the frame with a margin on each side, within the part of it that the image takes up."""
    if not margin_px:
        return boxes
    height, width = fit.new_shape
    wider = boxes + np.array([-margin_px, -margin_px, margin_px, margin_px], np.float32)
    return np.clip(wider, 0, np.array([width, height, width, height], np.float32) - 1)


def mask_in_frame(mask: NDArray[np.bool_], fit: Fit, value: int = 1) -> NDArray[np.bool_]:
    """A mask of the image brought to the frame by area interpolation, padded with false.

    Args:
        mask: (H, W).
        fit: of the image in the frame.
        value: the uint8 number that stands for true while resizing: a pixel stays true where its share of `value`
            rounds to at least one. With 1 that is a coverage above 1/2; the published script resizes an image that
            holds the label's number.
    """
    height, width = fit.new_shape
    number = np.uint8(min(value, 255))
    resized = cv2.resize(mask.astype(np.uint8) * number, (width, height), interpolation=cv2.INTER_AREA)
    framed = np.zeros((fit.size, fit.size), bool)
    framed[:height, :width] = resized > 0
    return framed


def restore_logits(logits: NDArray[np.float32], fit: Fit) -> NDArray[np.float32]:
    """Low-resolution logits (256, 256) of the frame to logits (H, W) of the image, by bilinear interpolation.

    The logits are first brought to the frame, if that is larger, then cropped to the part that the image takes up,
    then resized to the image.
    """
    framed = logits if fit.size == LOW_RES_PX else resize_linear(logits, (fit.size, fit.size))
    height, width = fit.new_shape
    return resize_linear(np.ascontiguousarray(framed[:height, :width]), fit.image_shape)


def resize_linear(array: NDArray[np.float32], shape: tuple[int, ...]) -> NDArray[np.float32]:
    """An array (h, w) at another (height, width), by bilinear interpolation."""
    resized: Any = cv2.resize(array, shape[::-1], interpolation=cv2.INTER_LINEAR)
    return resized
