"""Which object a pixel belongs to where the masks of several cover it."""

from __future__ import annotations

from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from zoo.backends import Floats
from zoo.data.case import box_pixels

#: `density`: the object whose odds, spread over its box, are highest: of two that are as certain, the one that was
#: asked for in less space. `logit`: the one whose odds are. `last`: the last one, as the published scripts have it.
Overlap = Literal["density", "logit", "last"]

_MOST = np.float32(np.finfo(np.float16).max)


class Owners:
    """The owner of each pixel of an image or a volume, the same in whatever order the masks arrive.

    Args:
        shape: (H, W) or (D, H, W).
        boxes: (N, 4) or (N, 6) of the objects, as in a `Case`.
        overlap: who owns a pixel that several objects cover; of equal ones, the later.

    Attributes:
        numbers: uint16, the owner's number from 1, 0 for none.
    """

    def __init__(self, shape: tuple[int, ...], boxes: NDArray[np.integer], overlap: Overlap = "density") -> None:
        self.numbers = np.zeros(shape, np.uint16)
        self._highest = None if overlap == "last" else np.full(shape, -_MOST, np.float16)
        # As logits: odds / pixels are exp(logit - ln(pixels)).
        self._spread = np.log(box_pixels(boxes)) if overlap == "density" else np.zeros(len(boxes))

    def enter(self, number: int, logits: Floats, where: Any = ...) -> NDArray[np.bool_]:
        """Enters an object's logits (h, w) in a part of an image or a volume.

        Args:
            number: of the object, from 0.
            logits: positive where the object is.
            where: the part, as numpy indexes it: slices and whole numbers; by default all of an image.

        Returns:
            The object's whole mask (h, w), whoever owns its pixels.
        """
        mask = logits > 0
        owners = self.numbers[where]
        if self._highest is None:
            np.maximum(owners, number + 1, out=owners, where=mask)
            return mask
        highest = self._highest[where]
        claims = np.clip(logits - np.float32(self._spread[number]), -_MOST, _MOST).astype(np.float16)
        wins = mask & ((claims > highest) | ((claims == highest) & (owners <= number)))
        np.copyto(highest, claims, where=wins)
        np.copyto(owners, np.uint16(number + 1), where=wins)
        return mask

    def labels(self, values: NDArray[np.uint16]) -> NDArray[np.uint16]:
        """The label map, in place of `numbers`: `values` (N,) are those of the objects in order."""
        by_number = np.concatenate([[0], values]).astype(np.uint16)
        # Slice by slice, in place: another map of a large volume would take as much memory as the volume.
        for part in self.numbers if self.numbers.ndim == 3 else [self.numbers]:
            part[:] = by_number.take(part, mode="clip")
        return self.numbers
