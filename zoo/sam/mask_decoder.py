"""SAM's mask decoder (Kirillov et al. 2023, appendix A)."""

from __future__ import annotations

import itertools

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from zoo.layers import LayerNorm2d
from zoo.sam.transformer import TwoWayTransformer


class Mlp(nn.Module):
    """Linear layers with ReLU between them."""

    def __init__(self, inputs: int, hidden: int, outputs: int, depth: int) -> None:
        super().__init__()
        widths = [inputs] + [hidden] * (depth - 1) + [outputs]
        self.layers = nn.ModuleList(nn.Linear(a, b) for a, b in itertools.pairwise(widths))

    def forward(self, x: Tensor) -> Tensor:
        """(..., inputs) to (..., outputs)."""
        for layer in self.layers[:-1]:
            x = F.relu(layer(x))
        out: Tensor = self.layers[-1](x)
        return out


class MaskDecoder(nn.Module):
    """Image and prompt embeddings to masks and their predicted quality.

    Of its four mask tokens the first answers a single unambiguous prompt; the other three are the levels of an
    ambiguous one.
    """

    def __init__(self, transformer: TwoWayTransformer, channels: int, multimask_outputs: int = 3) -> None:
        super().__init__()
        self.transformer = transformer
        masks = multimask_outputs + 1
        self.iou_token = nn.Embedding(1, channels)
        self.mask_tokens = nn.Embedding(masks, channels)
        self.output_upscaling = nn.Sequential(
            nn.ConvTranspose2d(channels, channels // 4, 2, 2),
            LayerNorm2d(channels // 4),
            nn.GELU(),
            nn.ConvTranspose2d(channels // 4, channels // 8, 2, 2),
            nn.GELU(),
        )
        self.output_hypernetworks_mlps = nn.ModuleList(
            Mlp(channels, channels, channels // 8, depth=3) for _ in range(masks)
        )
        self.iou_prediction_head = Mlp(channels, 256, masks, depth=3)

    def forward(
        self,
        image_embeddings: Tensor,
        image_pe: Tensor,
        sparse_prompt_embeddings: Tensor,
        dense_prompt_embeddings: Tensor,
        multimask_output: bool,
    ) -> tuple[Tensor, Tensor]:
        """Masks of B prompts on one image, or on one image each.

        Args:
            image_embeddings: (1, C, 64, 64), or (B, C, 64, 64).
            image_pe: (1, C, 64, 64).
            sparse_prompt_embeddings: (B, P, C).
            dense_prompt_embeddings: (B, C, 64, 64).
            multimask_output: three masks a prompt instead of one.

        Returns:
            Low-resolution logits (B, 1 or 3, 256, 256) and predicted IoU (B, 1 or 3).
        """
        tokens, features = self._attend(image_embeddings, image_pe, sparse_prompt_embeddings, dense_prompt_embeddings)
        wanted = range(1, len(self.output_hypernetworks_mlps)) if multimask_output else range(1)
        masks = self._masks(features, [(i, tokens[:, 1 + i]) for i in wanted])
        iou = self.iou_prediction_head(tokens[:, 0])
        return masks, iou[:, wanted.start : wanted.stop]

    def all_masks(self, image: Tensor, image_pe: Tensor, sparse: Tensor, dense: Tensor) -> tuple[Tensor, Tensor]:
        """As `forward`, but all four masks, logits (B, 4, 256, 256) and predicted IoU (B, 4): for export."""
        tokens, features = self._attend(image, image_pe, sparse, dense)
        masks = self._masks(features, [(i, tokens[:, 1 + i]) for i in range(len(self.output_hypernetworks_mlps))])
        return masks, self.iou_prediction_head(tokens[:, 0])

    def _attend(self, embeddings: Tensor, image_pe: Tensor, sparse: Tensor, dense: Tensor) -> tuple[Tensor, Tensor]:
        """Tokens (B, T, C) and image features (B, C, 64, 64) after the transformer."""
        batch = sparse.shape[0]
        own = torch.cat([self.iou_token.weight, self.mask_tokens.weight])
        tokens = torch.cat([own.expand(batch, -1, -1), sparse], dim=1)
        image = (embeddings + dense).expand(batch, -1, -1, -1)
        tokens, features = self.transformer(image, image_pe.expand(batch, -1, -1, -1), tokens)
        return tokens, features.transpose(1, 2).reshape(image.shape)

    def _masks(self, features: Tensor, tokens: list[tuple[int, Tensor]]) -> Tensor:
        """Up-scales the image features and reads one mask off with each token."""
        upscaled = self.output_upscaling(features)
        weights = torch.stack([self.output_hypernetworks_mlps[i](token) for i, token in tokens], dim=1)
        return (weights @ upscaled.flatten(2)).unflatten(2, upscaled.shape[2:])
