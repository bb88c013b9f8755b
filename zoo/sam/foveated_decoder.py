"""The fast decoder with a fovea, see `zoo.fovea`: positions around a box as they are, and means of the others."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from zoo.fovea import CELL
from zoo.sam.fast_decoder import FastDecoder
from zoo.sam.model import Sam


class FoveatedDecoder(FastDecoder):
    """Prompt encoder and mask decoder for box prompts, with masks if need be, that sees little of an embedding.

    Shares the parameters of `sam`.
    """

    grid_pe: Tensor

    def __init__(self, sam: Sam) -> None:
        super().__init__(sam)
        self.register_buffer("grid_pe", sam.prompt_encoder.get_dense_pe().detach())

    def forward(  # type: ignore[override]
        self,
        embedding: Tensor,
        boxes: Tensor,
        seen: Tensor,
        counts: Tensor,
        wanted: Tensor,
        masks: Tensor | None = None,
    ) -> tuple[Tensor, Tensor]:
        """Masks of B boxes on one image, at the positions that are wanted.

        Args:
            embedding: (1, 256, 64, 64).
            boxes: (B, 4) xyxy in the prompt frame.
            seen: int64 (B, S), as in `Fovea`.
            counts: (B, S + 256), as in `Fovea`.
            wanted: int64 (N,), as in `Fovea`.
            masks: logits (B, 1, 256, 256) that prompt, too.

        Returns:
            The 4x4 low-resolution logits of each of `wanted` (N, 4, 4), and predicted IoU (B, 1).
        """
        features = None if masks is None else self._features_seen(masks, seen)
        prompted = replace(self._prompted(_seen_of(embedding, seen), features), log_counts=counts.log()[..., None])
        prompts = self.prompt_encoder.embed_boxes(boxes)
        image, mask_token, iou = self._answer(prompts, prompted, _seen_of(self.grid_pe, seen))
        return self._pixels(image, mask_token, wanted), iou

    def _features_seen(self, masks: Tensor, seen: Tensor) -> Tensor:
        """Features (B, S + 256, 16) of masks, whose convolutions, of kernel and stride 2, are matrix products."""
        first, first_norm, _, second, second_norm, *_ = self.prompt_encoder.mask_downscaling
        # Pixels of a position by place among its 2x2 and then within that.
        by_place = masks.unflatten(3, (-1, 2, 2)).unflatten(2, (-1, 2, 2)).permute(0, 1, 3, 6, 4, 7, 2, 5)
        x = _seen_of(by_place.flatten(1, 5), seen).unflatten(2, (4, 4))
        x = F.gelu(_norm(first_norm, _convolution(first, x)))
        return F.gelu(_norm(second_norm, _convolution(second, x.flatten(2))))


def _convolution(convolution: Any, x: Tensor) -> Tensor:
    """Of kernel and stride 2, of the channels of four pixels after another: (..., 4 * C) to (..., C')."""
    return F.linear(x, convolution.weight.permute(0, 2, 3, 1).flatten(1), convolution.bias)


def _norm(norm: Any, x: Tensor) -> Tensor:
    """`LayerNorm2d` of channels that come last."""
    return F.layer_norm(x, norm.weight.shape, norm.weight, norm.bias, norm.eps)


def _seen_of(image: Tensor, seen: Tensor) -> Tensor:
    """Of images (1 or B, C, 64, 64) the positions `seen` (B, S), then the means of all cells: (B, S + 256, C)."""
    positions = image.flatten(2).transpose(1, 2)
    if image.shape[0] == 1:
        own = positions[0][seen]
    else:
        own = positions[torch.arange(seen.shape[0], device=seen.device)[:, None], seen]
    means = F.avg_pool2d(image, CELL).flatten(2).transpose(1, 2)
    return torch.cat([own, means.expand(seen.shape[0], -1, -1)], dim=1)
