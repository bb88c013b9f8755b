"""The prompts that are put on labelled images, as torch's loaders want them: a pure function of an index and a seed."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from zoo.data.dataset import ImageSource, LabelledImage, images_of
from zoo.errors import InputError
from zoo.notes import note
from zoo.registry import EncoderSpec
from zoo.transforms import LOW_RES_PX, fit_image, preprocess_image, scale_boxes

#: An object with fewer pixels, at the resolution of the loss, is not asked for.
MIN_AREA_PX = 10
#: Images without such an object are passed over; of so many in a row it is told, and endless ones are given up.
MANY_EMPTY = 100
#: Parts of an object's extent that the sides of a box from a neighbouring slice may be off by.
WALK_OUTWARD, WALK_INWARD = 1.0, 0.1
#: Augmentation multiplies each channel of a coloured image by a number between these.
TINTS = (0.85, 1.15)


@dataclass(frozen=True)
class Prompting:
    """How images become an encoder's input and prompts.

    Attributes:
        spec: of the encoder, its `image_size` that of training.
        mask_size: side in pixels at which masks are compared: four times the embedding's.
        objects: prompts an image; where it has fewer objects, some are asked for again.
        box_jitter_px: each side of a box moves outward by up to a limit that is itself drawn up to this, in pixels of
            a prompt frame of 256.
        walk_share: of the boxes, that fit as badly as those in a volume do, where the mask of a slice prompts the next
            and objects shrink towards their ends: each side moves by a part of the object's extent, outward by up to
            `WALK_OUTWARD` of it, inward by up to `WALK_INWARD`.
        augment: flips, transpositions, brightness, contrast, tint.
        seed: of all that is drawn.
    """

    spec: EncoderSpec
    mask_size: int = LOW_RES_PX
    objects: int = 4
    box_jitter_px: float = 5
    walk_share: float = 0
    augment: bool = True
    seed: int = 0

    def apply(self, drawn: LabelledImage, index: int) -> dict[str, Tensor] | None:
        """What a model is trained on; None where the image has no object to ask for.

        Returns:
            image: float32 (3, S, S), normalised. boxes: float32 (K, 4) in the prompt frame. masks: bool (K, M, M).
            content: float32 (2,), height and width of the image's part of the frame, in (0, 1].
            index: int64 (), for messages.
        """
        return self.prompt(*self.changed(drawn, index), index)

    def changed(self, drawn: LabelledImage, index: int) -> tuple[LabelledImage, np.random.Generator]:
        """The image of this index as it is augmented, and what its prompts are drawn with."""
        rng = np.random.default_rng((self.seed, index))
        return augment(drawn, rng) if self.augment else drawn, rng

    def prompt(self, drawn: LabelledImage, rng: np.random.Generator, index: int) -> dict[str, Tensor] | None:
        """As `apply`, of what `changed` gave."""
        small = self.small_labels(drawn.labels)
        known = large_enough(small)
        if not len(known):
            return None
        chosen = rng.permutation(known)[: self.objects]
        if len(chosen) < self.objects:
            chosen = np.concatenate([chosen, rng.choice(known, self.objects - len(chosen))])
        boxes = np.stack([self._box(drawn.labels == label, rng) for label in chosen])
        return {
            "image": torch.from_numpy(preprocess_image(drawn.image, self.spec)[0]),
            "boxes": torch.from_numpy(boxes),
            "masks": torch.from_numpy(small == chosen[:, None, None]),
            "content": content_of(drawn, self.spec),
            "index": torch.tensor(index),
        }

    def small_labels(self, labels: NDArray[np.uint16]) -> NDArray[np.uint16]:
        """Labels at the masks' resolution, padded: (M, M)."""
        height, width = fit_image((labels.shape[0], labels.shape[1]), self.mask_size, self.spec.fit).new_shape
        padded = np.zeros((self.mask_size, self.mask_size), np.uint16)
        padded[:height, :width] = cv2.resize(labels, (width, height), interpolation=cv2.INTER_NEAREST_EXACT)
        return padded

    def _box(self, mask: NDArray[np.bool_], rng: np.random.Generator) -> NDArray[np.float32]:
        """A box around a mask, in the prompt frame, sometimes tight and sometimes loose."""
        frame = self.spec.prompt_frame
        rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
        fit = fit_image((mask.shape[0], mask.shape[1]), frame, self.spec.fit)
        box = scale_boxes(np.array([[columns[0], rows[0], columns[-1], rows[-1]]]), fit, "float")[0]
        looseness = rng.uniform(0, self.box_jitter_px) * frame / LOW_RES_PX
        outward = rng.uniform(0, looseness, 4)
        if self.walk_share and rng.random() < self.walk_share:
            outward += rng.uniform(-WALK_INWARD, WALK_OUTWARD * rng.random(), 4) * np.tile(box[2:] - box[:2], 2)
        limit = np.array([*fit.new_shape[::-1]] * 2)
        return np.trunc(np.clip(box + outward * (-1, -1, 1, 1), 0, limit)).astype(np.float32)


def large_enough(labels: NDArray[np.uint16]) -> NDArray[np.int64]:
    """The objects of `MIN_AREA_PX` pixels and more."""
    known = np.flatnonzero(np.bincount(labels.ravel()) >= MIN_AREA_PX)
    return known[known > 0]


def content_of(drawn: LabelledImage, spec: EncoderSpec) -> Tensor:
    """Height and width of an image's part of an encoder's frame, in (0, 1]: float32 (2,)."""
    fit = fit_image((drawn.labels.shape[0], drawn.labels.shape[1]), spec.image_size, spec.fit)
    return torch.tensor(fit.new_shape) / fit.size


def augment(drawn: LabelledImage, rng: np.random.Generator) -> LabelledImage:
    """Flips, transpositions, and a change of gamma, contrast, brightness and, of coloured images, tint."""
    image, labels = drawn.image, drawn.labels
    if rng.random() < 0.5:
        image, labels = image[:, ::-1], labels[:, ::-1]
    if rng.random() < 0.5:
        image, labels = image[::-1], labels[::-1]
    if rng.random() < 0.5:
        image, labels = image.transpose(1, 0, 2), labels.T
    levels = (np.arange(256) / 255) ** np.exp(rng.uniform(-0.4, 0.4)) * rng.uniform(0.8, 1.2) + rng.uniform(-0.1, 0.1)
    tint = rng.uniform(*TINTS, 3) if np.ptp(image[::4, ::4], axis=2).any() else np.ones(3)
    table = np.round(levels[None, :, None] * tint * 255).clip(0, 255).astype(np.uint8)
    return replace(
        drawn,
        image=np.asarray(cv2.LUT(np.ascontiguousarray(image), table), np.uint8),
        labels=np.ascontiguousarray(labels),
    )


class PromptedImages(torch.utils.data.Dataset[dict[str, Tensor]]):
    """A source with prompts, as torch's loaders want it.

    Args:
        source: of images.
        prompting: of them.
    """

    def __init__(self, source: ImageSource, prompting: Prompting) -> None:
        self.source, self.prompting = source, prompting
        count = images_of(source)
        #: The rest of an epoch, and all of the next; few images many times, as a flip may change what is left of one.
        self.most_in_a_row = max(MANY_EMPTY, 2 * int(count)) if math.isfinite(count) else MANY_EMPTY

    def __getitem__(self, index: int) -> dict[str, Tensor]:
        """The sample of this index; where the image has no object to ask for, that of the next one that has.

        Raises:
            InputError: no image has such an object, or one cannot be read.
        """
        without = f"images in a row {self._without_object()}"
        for shift in range(self.most_in_a_row):
            if shift == MANY_EMPTY:
                note(f"{shift} {without}; looking on")
            if prompted := self._prompted(index + shift):
                return prompted
        raise InputError(self.source.image(index).name, f"{self.most_in_a_row} {without}", "larger labelled objects")

    def usable(self, indices: Sequence[int]) -> list[dict[str, Tensor]]:
        """The samples of these images, without those that have no object to ask for; how many those are is told.

        Raises:
            InputError: none has one, or an image cannot be read.
        """
        samples = [sample for index in indices if (sample := self._prompted(index))]
        left_out = f"{len(indices) - len(samples)} of {len(indices)} images {self._without_object()}"
        if not samples:
            raise InputError(self.source.image(indices[0]).name, left_out, "larger labelled objects")
        if len(samples) < len(indices):
            note(f"validation leaves out {left_out}")
        return samples

    def _without_object(self) -> str:
        return f"without an object of {MIN_AREA_PX} pixels at {self.prompting.mask_size} px"

    def _prompted(self, index: int) -> dict[str, Tensor] | None:
        return self.prompting.apply(self.source.image(index), index)


class PairedImages(PromptedImages):
    """As `PromptedImages`, with the same images, changed alike, as another encoder wants them: to distil from it.

    Args:
        source: of images.
        prompting: for the student.
        teacher: spec of the teacher's encoder.
    """

    def __init__(self, source: ImageSource, prompting: Prompting, teacher: EncoderSpec) -> None:
        super().__init__(source, prompting)
        self.for_teacher = replace(prompting, spec=teacher)

    def _prompted(self, index: int) -> dict[str, Tensor] | None:
        drawn, rng = self.prompting.changed(self.source.image(index), index)
        own, teacher = self.prompting.prompt(drawn, rng, index), self.for_teacher
        if own is None or not len(large_enough(teacher.small_labels(drawn.labels))):
            return None
        image = torch.from_numpy(preprocess_image(drawn.image, teacher.spec)[0])
        return {**own, "teacher_image": image, "teacher_content": content_of(drawn, teacher.spec)}
