"""Which pixels make a mask's expected Dice highest: not those that are likelier inside than outside, but some more."""

from __future__ import annotations

import math

from zoo.backends import Floats

#: A lower IoU than this is no prediction to go by: of weights whose head for it was never trained, say.
LEAST_IOU = 0.3


def lift_to_best_dice(logits: Floats, iou: float) -> None:
    """Lifts logits in place so that those above 0 make the mask with the highest expected Dice.

    A pixel that belongs to the object with probability p adds 2 p to the numerator of the Dice 2 |A & B| / (|A| + |B|)
    and 1 to its denominator, and so raises it where 2 p exceeds it (Lipton et al. 2014, "Optimal thresholding of
    classifiers to maximize F1 measure"). Dice is 2 IoU / (1 + IoU): the odds p / (1 - p) must exceed the IoU. It is
    the same for the IoU itself.

    Args:
        logits: of an object's pixels.
        iou: that the model predicts of the mask; taken as within `LEAST_IOU` and 1.
    """
    logits -= math.log(min(max(iou, LEAST_IOU), 1.0))
