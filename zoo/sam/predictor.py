"""`SamPredictor`: prompts on a 2D image to masks, in the image's own pixels."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy.typing import ArrayLike, NDArray

from zoo.backends import Backend, Floats, Prompts
from zoo.data.case import Case
from zoo.errors import InputError
from zoo.sam.overlap import Owners
from zoo.stages import StageClock
from zoo.transforms import BoxRounding, Fit, fit_image, preprocess_image, restore_logits, scale_boxes

#: At most so many boxes are decoded together: more fit no cache and gain nothing, and cost memory by the hundred.
BOXES_A_BATCH = 4


@dataclass(frozen=True)
class Prediction:
    """Masks of B prompts.

    Attributes:
        masks: bool (B, M, H, W), M masks a prompt: 1, or 3 if several were asked for.
        iou: float32 (B, M), the quality that the model predicts for each.
        low_res_logits: float32 (B, M, 256, 256), in the prompt frame; feed one back as a mask prompt.
    """

    masks: NDArray[np.bool_]
    iou: Floats
    low_res_logits: Floats


class SamPredictor:
    """Encodes an image once and answers any number of prompts on it.

    Example::

        predictor = SamPredictor(create_backend("torch", create_sam("repvit")))
        predictor.set_image(image)                      # uint8 (H, W, 3)
        masks = predictor.predict(boxes=[[30, 40, 120, 160]]).masks

    Args:
        backend: the model in a runtime.
        box_rounding: `truncate` cuts scaled boxes to whole pixels, as Rep-MedSAM's script does; `float` does not.
        clock: where to add up the time of each stage.
    """

    def __init__(
        self, backend: Backend, box_rounding: BoxRounding = "truncate", clock: StageClock | None = None
    ) -> None:
        self.backend, self.box_rounding = backend, box_rounding
        self.clock = clock or StageClock()
        self._embedding: Floats | None = None
        self._fit: Fit | None = None

    def set_image(self, image: NDArray[np.uint8]) -> None:
        """Preprocesses and encodes an image: uint8 (H, W, 3), or (H, W) in greys.

        Raises:
            InputError: another dtype or shape.
        """
        grey_or_rgb = image.ndim == 2 or (image.ndim == 3 and image.shape[2] == 3)
        if image.dtype != np.uint8 or not grey_or_rgb or 0 in image.shape:
            raise InputError("image", f"{image.dtype} {image.shape}", "uint8 (H, W, 3) or (H, W)")
        with self.clock.measure("preprocess"):
            inputs = preprocess_image(image, self.backend.spec)
        with self.clock.measure("encode"):
            self._embedding = self.backend.encode(inputs)
        self.clock.counts["encoded_slices"] += 1
        self._fit = fit_image((image.shape[0], image.shape[1]), self.backend.spec.prompt_frame, self.backend.spec.fit)

    def predict(
        self,
        boxes: ArrayLike | None = None,
        points: ArrayLike | None = None,
        point_labels: ArrayLike | None = None,
        masks: Floats | None = None,
        multimask: bool = False,
    ) -> Prediction:
        """Masks of B prompts on the image that was set.

        Args:
            boxes: (B, 4) xyxy in the image's pixels.
            points: (B, P, 2) as (x, y) in the image's pixels.
            point_labels: (B, P): 1 foreground, 0 background.
            masks: logits (B, 1, 256, 256) of an earlier prediction.
            multimask: three masks a prompt, for an ambiguous one.

        Raises:
            InputError: no image was set, or no prompt given.
        """
        embedding, fit = self._image()
        prompts = Prompts(
            boxes=None if boxes is None else scale_boxes(np.asarray(boxes), fit, self.box_rounding),
            points=None if points is None else _scale_points(np.asarray(points), fit),
            point_labels=None if point_labels is None else np.asarray(point_labels, np.int64),
            masks=masks,
        )
        logits, iou = self._decode(embedding, prompts, multimask)
        with self.clock.measure("postprocess"):
            full = np.stack([restore_logits(one, fit) > 0 for one in logits.reshape(-1, *logits.shape[2:])])
        return Prediction(full.reshape(*logits.shape[:2], *full.shape[1:]), iou, logits)

    def logits(self, boxes: ArrayLike) -> Iterator[Floats]:
        """Logits (H, W) of one mask for each of the boxes (B, 4), in the image's pixels, one at a time in memory.

        Raises:
            InputError: no image was set.
        """
        embedding, fit = self._image()
        prompts = Prompts(boxes=scale_boxes(np.asarray(boxes), fit, self.box_rounding))
        for low_res in self._decode(embedding, prompts, multimask=False)[0][:, 0]:
            with self.clock.measure("postprocess"):
                full = restore_logits(low_res, fit)
            yield full

    def _image(self) -> tuple[Floats, Fit]:
        """Embedding of the image that was set, and its place in the prompt frame."""
        if self._embedding is None or self._fit is None:
            raise InputError("predictor", "no image", "set_image(image) first")
        return self._embedding, self._fit

    def _decode(self, embedding: Floats, prompts: Prompts, multimask: bool) -> tuple[Floats, Floats]:
        """Logits and IoU, by the fast path where it answers: boxes alone, one mask each."""
        with self.clock.measure("decode"):
            if prompts.boxes is None or prompts.points is not None or prompts.masks is not None or multimask:
                logits, iou = self.backend.decode(embedding, prompts, multimask)
            else:
                logits, iou = self.backend.decode_boxes(embedding, prompts.boxes)
        self.clock.counts["decoded_prompts"] += len(logits)
        return logits, iou


def _scale_points(points: NDArray[np.floating], fit: Fit) -> Floats:
    """Points (B, P, 2) to the frame, by the same factors as boxes, never rounded."""
    pairs = np.concatenate([points, points], axis=-1).reshape(-1, 4)
    return scale_boxes(pairs, fit, "float")[:, :2].reshape(points.shape)


def box_batches(count: int) -> list[slice]:
    """Which of `count` boxes are decoded together: as few batches as may be, of about the same size.

    >>> box_batches(6)
    [slice(0, 3, None), slice(3, 6, None)]
    """
    batches = -(-count // BOXES_A_BATCH)
    edges = [round(i * count / batches) for i in range(batches + 1)] if batches else []
    return [slice(start, stop) for start, stop in pairwise(edges)]


def segment_image(case: Case, predictor: SamPredictor) -> NDArray[np.uint16]:
    """Label map (H, W) of a 2D case; a pixel of several objects is that one's whose logit is highest."""
    predictor.set_image(case.image)
    owners = Owners(case.spatial_shape)
    for batch in box_batches(len(case.boxes)):
        numbers = range(len(case.boxes))[batch]
        for number, logits in zip(numbers, predictor.logits(case.boxes[batch]), strict=True):
            with predictor.clock.measure("postprocess"):
                owners.enter(number, logits)
    return owners.labels(case.object_labels)
