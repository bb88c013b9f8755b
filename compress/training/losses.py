"""Losses of promptable segmentation: one value an object, so that splitting a batch does not change their mean.

Sources: Dice with squared predictions, Milletari et al. 2016 (V-Net); IoU regression, Kirillov et al. 2023 (SAM);
sums as LiteMedSAM and Rep-MedSAM train.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
import torch.nn.functional as F
from torch import Tensor

#: A box is enlarged by this share of its sides before what lies in it is compared.
BOX_MARGIN = 0.2
SMOOTH = 1e-5


def dice_loss(logits: Tensor, masks: Tensor) -> Tensor:
    """1 - 2 sum(p t) / (sum(p^2) + sum(t^2)) of each object; logits and masks (N, M, M) to (N,)."""
    p, t = logits.sigmoid().flatten(1), masks.flatten(1).to(logits.dtype)
    return 1 - (2 * (p * t).sum(1) + SMOOTH) / (p.square().sum(1) + t.square().sum(1) + SMOOTH)


def dice(logits: Tensor, masks: Tensor) -> Tensor:
    """Dice of each object's thresholded mask: logits and bool masks (N, M, M) to (N,)."""
    found = logits > 0
    both = (found & masks).flatten(1).sum(1)
    return 2 * both / (found.flatten(1).sum(1) + masks.flatten(1).sum(1)).clamp(min=1)


def cross_entropy(logits: Tensor, masks: Tensor) -> Tensor:
    """Binary cross-entropy of each object, the mean over its pixels: (N, M, M) to (N,)."""
    return F.binary_cross_entropy_with_logits(logits, masks.to(logits.dtype), reduction="none").mean((1, 2))


def boxed_cross_entropy(logits: Tensor, masks: Tensor, boxes: Tensor) -> Tensor:
    """Binary cross-entropy of each object over its enlarged box, where it is decided; boxes (N, 4) in [0, 1]."""
    pixels = F.binary_cross_entropy_with_logits(logits, masks.to(logits.dtype), reduction="none")
    inside = _enlarged(boxes, logits.shape[-1]).to(logits.dtype)
    return (pixels * inside).sum((1, 2)) / inside.sum((1, 2)).clamp(min=1)


def _enlarged(boxes: Tensor, side: int) -> Tensor:
    """The pixels of boxes (N, 4) xyxy in [0, 1], each with a margin: bool (N, side, side)."""
    low, high = boxes[:, :2], boxes[:, 2:]
    margin = (high - low) * BOX_MARGIN + 2 / side
    centres = (torch.arange(side, device=boxes.device) + 0.5) / side
    x, y = ((centres > (low - margin)[:, axis, None]) & (centres < (high + margin)[:, axis, None]) for axis in (0, 1))
    return y[:, :, None] & x[:, None, :]


def iou_loss(predicted: Tensor, logits: Tensor, masks: Tensor) -> Tensor:
    """Squared error of the predicted IoU (N,) against that of the thresholded logits (N, M, M): (N,)."""
    found, true = logits.detach() > 0, masks.bool()
    union = (found | true).flatten(1).sum(1)
    iou = (found & true).flatten(1).sum(1) / union.clamp(min=1)
    return (predicted - iou).square()


def parts_of_loss(logits: Tensor, predicted_iou: Tensor, masks: Tensor, boxes: Tensor) -> dict[str, Tensor]:
    """All parts, (N,) each, that the combinations of `LOSSES` are made of. Boxes (N, 4) in [0, 1]."""
    return {
        "dice": dice_loss(logits, masks),
        "bce": cross_entropy(logits, masks),
        "boxed_bce": boxed_cross_entropy(logits, masks, boxes),
        "iou": iou_loss(predicted_iou, logits, masks),
    }


def _sum(parts: Mapping[str, Tensor]) -> Tensor:
    return parts["dice"] + parts["bce"] + parts["iou"]


#: Combinations, each from the parts (N,) to the loss (N,). `sum`: LiteMedSAM's. `squared_sum`: Rep-MedSAM's, here the
#: square of each object's sum. `boxed`: cross-entropy mostly where the mask is decided; learns from nothing faster.
LOSSES: Mapping[str, Callable[[Mapping[str, Tensor]], Tensor]] = {
    "squared_sum": lambda parts: _sum(parts).square(),
    "sum": _sum,
    "boxed": lambda parts: parts["dice"] + parts["boxed_bce"] + 0.5 * parts["bce"] + parts["iou"],
}
