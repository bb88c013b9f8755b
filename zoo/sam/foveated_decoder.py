"""The fast decoder with a fovea, see `zoo.fovea`: positions around a box as they are, and means of the others."""

from __future__ import annotations

from dataclasses import replace

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from zoo.fovea import CELL, CELLS
from zoo.layers import LayerNorm2d
from zoo.registry import EMBEDDING_SIZE
from zoo.sam.fast_decoder import FastDecoder


class FoveatedDecoder(nn.Module):
    """Prompt encoder and mask decoder for box prompts, with masks if need be, that see an embedding through a fovea.

    Args:
        fast: whose parameters and steps it shares.
    """

    cell_pe: Tensor

    def __init__(self, fast: FastDecoder) -> None:
        super().__init__()
        self.fast = fast
        self.register_buffer("cell_pe", _means(fast.image_pe))

    def forward(
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
            embedding: (1, 4096, 256), by position.
            boxes: (B, 4) xyxy in the prompt frame.
            seen: int64 (B, S), as in `Fovea`.
            counts: (B, S + CELLS), as in `Fovea`.
            wanted: int64 (N,), as in `Fovea`.
            masks: logits (B, 1, 256, 256) that prompt, too.

        Returns:
            The 4x4 low-resolution logits of each of `wanted` (N, 4, 4), and predicted IoU (B, 1).
        """
        features = None if masks is None else self._features(masks, seen)
        image = self.fast.prompted(_seen_of(embedding, _means(embedding), seen), features)
        image_pe = _seen_of(self.fast.image_pe, self.cell_pe, seen)
        prompts = self.fast.prompt_encoder.embed_boxes(boxes)
        told, mask_token, iou = self.fast.answer(prompts, replace(image, log_counts=counts.log()[..., None]), image_pe)
        return self.fast.pixels(told, mask_token, wanted), iou

    def _features(self, masks: Tensor, seen: Tensor) -> Tensor:
        """Features (B, S + CELLS, 16) of masks; convolutions of kernel and stride 2 are matrix products.

        Pixels are taken where they are seen, and their means over a cell, before anything is computed of them: the
        convolutions of whole masks would take as long as all else that a small box asks for.
        """
        first: nn.Conv2d
        second: nn.Conv2d
        first_norm: LayerNorm2d
        second_norm: LayerNorm2d
        first, first_norm, _, second, second_norm, *_ = self.fast.prompt_encoder.mask_downscaling  # type: ignore[assignment]
        # The 16 pixels of a position, by place among its 2x2 and then within that.
        by_place = masks[:, 0].unflatten(2, (-1, 2, 2)).unflatten(1, (-1, 2, 2)).permute(0, 1, 4, 2, 5, 3, 6)
        pixels = by_place.flatten(3).flatten(1, 2)
        x = _seen_of(pixels, _means(pixels), seen).unflatten(2, (4, 4))
        x = F.gelu(first_norm.of_last(_convolution(first, x)))
        return F.gelu(second_norm.of_last(_convolution(second, x.flatten(2))))


def _means(image: Tensor) -> Tensor:
    """Images by position (B, 4096, C) to the means of all cells: (B, CELLS, C)."""
    of_rows = image.reshape(-1, CELL, EMBEDDING_SIZE * image.shape[2]).mean(1)
    return of_rows.reshape(-1, CELL, image.shape[2]).mean(1).reshape(-1, CELLS, image.shape[2])


def _seen_of(positions: Tensor, means: Tensor, seen: Tensor) -> Tensor:
    """Some positions (B, S) of (1 or B, 4096, C), and behind them all means (1 or B, CELLS, C): (B, S + CELLS, C)."""
    if positions.shape[0] == 1:
        own = positions[0][seen]
    else:
        own = positions[torch.arange(seen.shape[0], device=seen.device)[:, None], seen]
    return torch.cat([own, means.expand(seen.shape[0], -1, -1)], dim=1)


def _convolution(convolution: nn.Conv2d, x: Tensor) -> Tensor:
    """Of kernel and stride 2, of the channels of four pixels after another: (..., 4 * C) to (..., C')."""
    return F.linear(x, convolution.weight.permute(0, 2, 3, 1).flatten(1), convolution.bias)
