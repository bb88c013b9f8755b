"""SAM's prompt encoder (Kirillov et al. 2023, section 3 and appendix A): boxes, points and masks to embeddings."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from zoo.layers import LayerNorm2d


class PositionEmbeddingRandom(nn.Module):
    """Position encoding by random Fourier features (Tancik et al. 2020, arXiv:2006.10739)."""

    positional_encoding_gaussian_matrix: Tensor

    def __init__(self, features: int) -> None:
        super().__init__()
        self.register_buffer("positional_encoding_gaussian_matrix", torch.randn(2, features))

    def forward(self, positions: Tensor) -> Tensor:
        """Positions (..., 2) as (x, y) in [0, 1] to encodings (..., 2 * features)."""
        angles = 2 * math.pi * ((2 * positions - 1) @ self.positional_encoding_gaussian_matrix)
        return torch.cat([angles.sin(), angles.cos()], dim=-1)

    def grid(self, side: int) -> Tensor:
        """Encodings of the centres of a square grid of positions: (2 * features, side, side)."""
        matrix = self.positional_encoding_gaussian_matrix
        centres = (torch.arange(side, dtype=matrix.dtype, device=matrix.device) + 0.5) / side
        y, x = torch.meshgrid(centres, centres, indexing="ij")
        encoding: Tensor = self(torch.stack([x, y], dim=-1))
        return encoding.permute(2, 0, 1)


class PromptEncoder(nn.Module):
    """Boxes, points and masks to sparse and dense prompt embeddings.

    Args:
        channels: of the embeddings.
        embedding_size: side of the image embedding in positions.
        prompt_frame: side in pixels of the frame in which coordinates are given.
        mask_channels: hidden channels of the mask's convolutions.
    """

    #: Rows of `point_embeddings`: what a point is.
    BACKGROUND, FOREGROUND, TOP_LEFT, BOTTOM_RIGHT = range(4)

    def __init__(self, channels: int, embedding_size: int, prompt_frame: int, mask_channels: int = 16) -> None:
        super().__init__()
        self.embedding_size, self.prompt_frame = embedding_size, prompt_frame
        self.pe_layer = PositionEmbeddingRandom(channels // 2)
        self.point_embeddings = nn.ModuleList(nn.Embedding(1, channels) for _ in range(4))
        self.not_a_point_embed = nn.Embedding(1, channels)
        self.mask_downscaling = nn.Sequential(
            nn.Conv2d(1, mask_channels // 4, 2, 2),
            LayerNorm2d(mask_channels // 4),
            nn.GELU(),
            nn.Conv2d(mask_channels // 4, mask_channels, 2, 2),
            LayerNorm2d(mask_channels),
            nn.GELU(),
            nn.Conv2d(mask_channels, channels, 1),
        )
        self.no_mask_embed = nn.Embedding(1, channels)

    def forward(
        self, points: tuple[Tensor, Tensor] | None, boxes: Tensor | None, masks: Tensor | None
    ) -> tuple[Tensor, Tensor]:
        """Embeds the prompts of B objects.

        Args:
            points: coordinates (B, P, 2) as (x, y) in the prompt frame, and labels (B, P): 1 foreground,
                0 background, -1 padding.
            boxes: (B, 4) xyxy in the prompt frame.
            masks: logits (B, 1, 256, 256).

        Returns:
            Sparse embeddings (B, P', C): P points, one padding point if there is no box, two corners of the box;
            dense embeddings (B, C, 64, 64).
        """
        sparse = []
        if points is not None:
            sparse.append(self._embed_points(*points, pad=boxes is None))
        if boxes is not None:
            sparse.append(self.embed_boxes(boxes))
        batch = sparse[0].shape[0] if sparse else (1 if masks is None else masks.shape[0])
        weight = self.no_mask_embed.weight
        tokens = torch.cat(sparse, dim=1) if sparse else weight.new_zeros(batch, 0, weight.shape[1])
        return tokens, self._embed_masks(masks, batch)

    def get_dense_pe(self) -> Tensor:
        """Position encoding of the image embedding: (1, C, 64, 64)."""
        return self.pe_layer.grid(self.embedding_size)[None]

    def _positions(self, coordinates: Tensor) -> Tensor:
        encoding: Tensor = self.pe_layer((coordinates + 0.5) / self.prompt_frame)
        return encoding

    def _embed_points(self, coordinates: Tensor, labels: Tensor, pad: bool) -> Tensor:
        if pad:
            coordinates = torch.cat([coordinates, torch.zeros_like(coordinates[:, :1])], dim=1)
            labels = torch.cat([labels, -torch.ones_like(labels[:, :1])], dim=1)
        return self.embed_labelled_points(coordinates, labels)

    def embed_labelled_points(self, coordinates: Tensor, labels: Tensor) -> Tensor:
        """Points (B, P, 2) in the prompt frame to embeddings (B, P, C).

        Labels (B, P): -1 padding, 0 background, 1 foreground, 2 and 3 the top left and bottom right corner of a box.
        """
        kind = labels[..., None]
        encoding = torch.where(kind == -1, self.not_a_point_embed.weight, self._positions(coordinates))
        for value in range(len(self.point_embeddings)):
            encoding = encoding + (kind == value) * self._kind(value)
        return encoding

    def embed_boxes(self, boxes: Tensor) -> Tensor:
        """Boxes (B, 4) xyxy in the prompt frame to the embeddings of their two corners (B, 2, C)."""
        corners = self._positions(boxes.reshape(-1, 2, 2))
        return corners + torch.cat([self._kind(self.TOP_LEFT), self._kind(self.BOTTOM_RIGHT)])

    def _kind(self, row: int) -> Tensor:
        """Embedding (1, C) of what a point is."""
        embedding: Tensor = self.point_embeddings[row].weight  # type: ignore[assignment]
        return embedding

    def _embed_masks(self, masks: Tensor | None, batch: int) -> Tensor:
        if masks is not None:
            dense: Tensor = self.mask_downscaling(masks)
            return dense
        side = self.embedding_size
        return self.no_mask_embed.weight[:, :, None, None].expand(batch, -1, side, side)
