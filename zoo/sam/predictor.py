"""`SamPredictor`: prompts on a 2D image to masks, in the image's own pixels."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from zoo.backends import Backend, Floats, Prompts, encode_finite
from zoo.errors import InputError
from zoo.transforms import (
    LOW_RES_PX,
    BoxRounding,
    Fit,
    fit_image,
    preprocess_image,
    restore_logits,
    scale_boxes,
    scale_points,
)

#: At most so many prompts are decoded together: more fit no cache and gain nothing, and cost memory by the hundred.
BOXES_A_BATCH = 4


@dataclass(frozen=True)
class Prediction:
    """Masks of B prompts.

    Attributes:
        masks: bool (B, M, H, W), M masks a prompt: 1, or 3 if several were asked for.
        iou: float32 (B, M), the quality that the model predicts for each.
        low_res_logits: float32 (B, M, 256, 256), in the prompt frame; feed one of M back as a mask prompt.
    """

    masks: NDArray[np.bool_]
    iou: Floats
    low_res_logits: Floats


class SamPredictor:
    """Encodes an image once and answers any number of prompts on it, as a person clicks and draws them.

    It sees the image whole, and its masks may leave their boxes; `zoo.sam.image.segment_image` makes a label map of an
    image whose boxes are known.

    Example::

        predictor = SamPredictor(create_backend("torch", create_sam("repvit")))
        predictor.set_image(image)                      # uint8 (H, W, 3)
        masks = predictor.predict(boxes=[[30, 40, 120, 160]]).masks

    Args:
        backend: the model in a runtime.
        box_rounding: `truncate` cuts scaled boxes to whole pixels, as Rep-MedSAM's script does; `float` does not.
    """

    def __init__(self, backend: Backend, box_rounding: BoxRounding = "truncate") -> None:
        self.backend, self.box_rounding = backend, box_rounding
        self._embedding: Floats | None = None
        self._fit: Fit | None = None

    def set_image(self, image: ArrayLike) -> None:
        """Preprocesses and encodes an image: uint8 (H, W, 3), or (H, W) in greys, as an array or of Pillow.

        The image before is forgotten, whatever comes of this one.

        Raises:
            InputError: another dtype or shape, or weights that give NaN.
        """
        self._embedding = self._fit = None
        pixels, spec = _as_array("image", image), self.backend.spec
        grey_or_rgb = pixels.ndim == 2 or (pixels.ndim == 3 and pixels.shape[2] == 3)
        if pixels.dtype != np.uint8 or not grey_or_rgb or 0 in pixels.shape:
            raise InputError("image", f"{pixels.dtype} {pixels.shape}", "uint8 (H, W, 3) or (H, W)")
        self._embedding = encode_finite(self.backend, preprocess_image(pixels, spec))
        self._fit = fit_image((pixels.shape[0], pixels.shape[1]), spec.prompt_frame, spec.fit)

    def predict(
        self,
        boxes: ArrayLike | None = None,
        points: ArrayLike | None = None,
        point_labels: ArrayLike | None = None,
        masks: ArrayLike | None = None,
        multimask: bool = False,
    ) -> Prediction:
        """Masks of B prompts on the image that was set.

        Args:
            boxes: (B, 4) xyxy in the image's pixels.
            points: (B, P, 2) as (x, y) in the image's pixels.
            point_labels: (B, P): 1 foreground, 0 background, -1 for no point, where prompts have different P.
            masks: logits (B, 1, 256, 256) of an earlier prediction.
            multimask: three masks a prompt, for an ambiguous one.

        Raises:
            InputError: no image was set, or no prompt given; boxes that are none, are reversed, or miss the image;
                points, labels or masks of other shapes or values; prompts of different B.
        """
        if self._embedding is None or self._fit is None:
            raise InputError("predictor", "no image", "set_image(image) first")
        fit = self._fit
        prompts = Prompts(
            boxes=None if boxes is None else scale_boxes(_checked_boxes(boxes, fit), fit, self.box_rounding),
            points=None if points is None else scale_points(_checked_points(points), fit),
            point_labels=None if point_labels is None else _checked_labels(point_labels),
            masks=None if masks is None else _checked_masks(masks),
        )
        logits, iou = self._decode(self._embedding, prompts, multimask)
        full = np.stack([restore_logits(one, fit) > 0 for one in logits.reshape(-1, *logits.shape[2:])])
        return Prediction(full.reshape(*logits.shape[:2], *full.shape[1:]), iou, logits)

    def _decode(self, embedding: Floats, prompts: Prompts, multimask: bool) -> tuple[Floats, Floats]:
        """Logits and IoU, a few prompts at a time, by the fast path where it answers: boxes alone, one mask each."""
        given = {kind: values for kind, values in vars(prompts).items() if values is not None}
        batches = box_batches(len(next(iter(given.values()))))
        parts = [{kind: values[batch] for kind, values in given.items()} for batch in batches]
        if given.keys() == {"boxes"} and not multimask:
            answers = [self.backend.decode_boxes(embedding, part["boxes"]) for part in parts]
        else:
            answers = [self.backend.decode(embedding, Prompts(**part), multimask) for part in parts]
        logits, iou = zip(*answers, strict=True)
        return np.concatenate(logits), np.concatenate(iou)


def _as_array(name: str, given: ArrayLike) -> NDArray[Any]:
    """What is given, as an array.

    Raises:
        InputError: rows of unequal length, a tensor with a gradient, and the like.
    """
    try:
        return np.asarray(given)
    except (ValueError, TypeError, RuntimeError) as error:
        found = f"{type(given).__name__} that is no array ({' '.join(str(error).split())})"
        raise InputError(name, found, "an array, or what numpy makes one of") from error


def _checked_boxes(boxes: ArrayLike, fit: Fit) -> NDArray[np.floating]:
    """Boxes as an array (B, 4) of finite numbers, at least one; each may reach past the image, but not miss it."""
    given = _as_array("boxes", boxes)
    if given.ndim != 2 or given.shape[1] != 4 or not len(given) or not _is_finite(given):
        raise InputError("boxes", f"{given.dtype} {given.shape}", "finite numbers (B, 4), a box or more")
    height, width = fit.image_shape
    low, high = given[:, :2], given[:, 2:]
    wrong = (low > high) | (high < 0) | (low >= [width, height])
    if (bad := np.flatnonzero(wrong.any(axis=1))).size:
        expected = f"x_min y_min x_max y_max of a box that meets the image of {width}x{height} pixels"
        raise InputError(f"box {bad[0]}", f"{given[bad[0]].tolist()}", expected)
    return given


def _checked_points(points: ArrayLike) -> NDArray[np.floating]:
    """Points as an array (B, P, 2) of finite numbers; they may lie beside the image."""
    given = _as_array("points", points)
    if given.ndim != 3 or given.shape[2] != 2 or not given.size or not _is_finite(given):
        raise InputError("points", f"{given.dtype} {given.shape}", "finite numbers (B, P, 2), P points a prompt")
    return given


def _checked_labels(labels: ArrayLike) -> NDArray[np.int64]:
    """Labels of points as an array (B, P)."""
    given = _as_array("point_labels", labels)
    if given.ndim != 2 or not np.isin(given, (-1, 0, 1)).all():
        raise InputError(
            "point_labels", f"{given.dtype} {given.shape}: {given.tolist()}", "(B, P) of 0, 1, and -1 for none"
        )
    return given.astype(np.int64)


def _checked_masks(masks: ArrayLike) -> Floats:
    """Masks as an array float32 (B, 1, 256, 256) of finite logits."""
    given = _as_array("masks", masks)
    if given.shape[1:] != (1, LOW_RES_PX, LOW_RES_PX) or not given.size or not _is_finite(given):
        expected = f"finite logits (B, 1, {LOW_RES_PX}, {LOW_RES_PX}), such as low_res_logits[:, :1]"
        raise InputError("masks", f"{given.dtype} {given.shape}", expected)
    return given.astype(np.float32)


def _is_finite(given: NDArray[np.generic]) -> bool:
    return given.dtype.kind in "iuf" and bool(np.isfinite(given).all())


def box_batches(count: int) -> list[slice]:
    """Which of `count` prompts are decoded together: as few batches as may be, of about the same size.

    >>> box_batches(6)
    [slice(0, 3, None), slice(3, 6, None)]
    """
    batches = -(-count // BOXES_A_BATCH)
    edges = [round(i * count / batches) for i in range(batches + 1)] if batches else []
    return [slice(start, stop) for start, stop in pairwise(edges)]
