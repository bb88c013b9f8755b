"""SAM's ViT-B image encoder.

A plain vision transformer (Kirillov et al., ICCV 2023, arXiv:2304.02643) with decomposed relative positions (Li et
al., arXiv:2112.01526) and windowed attention in all but four blocks (Li et al., arXiv:2203.16527). State-dict keys are
those of the published checkpoints.
"""

from __future__ import annotations

from dataclasses import replace

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from zoo.errors import InputError
from zoo.layers import SamNeck
from zoo.registry import EMBEDDING_CHANNELS, EMBEDDING_SIZE, Cost, EncoderSpec, register_encoder

PATCH_PX = 16


class PatchEmbed(nn.Module):
    """Non-overlapping patches to tokens."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.proj = nn.Conv2d(3, width, PATCH_PX, PATCH_PX)

    def forward(self, x: Tensor) -> Tensor:
        """(B, 3, S, S) to (B, S/16, S/16, C)."""
        tokens: Tensor = self.proj(x).permute(0, 2, 3, 1)
        return tokens


class Attention(nn.Module):
    """Self-attention over a square of tokens, with decomposed relative positions."""

    def __init__(self, width: int, heads: int, side: int) -> None:
        super().__init__()
        self.heads = heads
        self.qkv = nn.Linear(width, 3 * width)
        self.proj = nn.Linear(width, width)
        self.rel_pos_h = nn.Parameter(torch.zeros(2 * side - 1, width // heads))
        self.rel_pos_w = nn.Parameter(torch.zeros(2 * side - 1, width // heads))

    def forward(self, x: Tensor) -> Tensor:
        """(B, side, side, C) to the same."""
        batch, side, _, width = x.shape
        qkv = self.qkv(x).reshape(batch, side * side, 3, self.heads, width // self.heads)
        q, k, v = qkv.permute(2, 0, 3, 1, 4).unbind(0)
        mixed = F.scaled_dot_product_attention(q, k, v, attn_mask=self._position_bias(q, side))
        projected: Tensor = self.proj(mixed.transpose(1, 2).reshape(batch, side, side, width))
        return projected

    def _position_bias(self, q: Tensor, side: int) -> Tensor:
        """(B, heads, side^2, side^2): the query's product with the embedding of its offset, rows plus columns."""
        batch, heads, tokens, depth = q.shape
        grid = q.view(batch, heads, side, side, depth)
        position = torch.arange(side, device=q.device)
        offset = position[:, None] - position + side - 1
        rows = torch.einsum("bnhwc,hkc->bnhwk", grid, self.rel_pos_h[offset])
        columns = torch.einsum("bnhwc,wkc->bnhwk", grid, self.rel_pos_w[offset])
        return (rows[..., :, None] + columns[..., None, :]).reshape(batch, heads, tokens, tokens)


class MlpBlock(nn.Module):
    """Two linear layers with expansion 4."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.lin1 = nn.Linear(width, 4 * width)
        self.lin2 = nn.Linear(4 * width, width)

    def forward(self, x: Tensor) -> Tensor:
        """(..., C) to (..., C)."""
        mixed: Tensor = self.lin2(F.gelu(self.lin1(x)))
        return mixed


class Block(nn.Module):
    """Transformer block; `window` 0 attends globally."""

    def __init__(self, width: int, heads: int, window: int, grid: int) -> None:
        super().__init__()
        self.window = window
        self.norm1 = nn.LayerNorm(width, eps=1e-6)
        self.attn = Attention(width, heads, window or grid)
        self.norm2 = nn.LayerNorm(width, eps=1e-6)
        self.mlp = MlpBlock(width)

    def forward(self, x: Tensor) -> Tensor:
        """(B, H, W, C) to the same."""
        attended = self.norm1(x)
        attended = self._attend_windows(attended) if self.window else self.attn(attended)
        x = x + attended
        mixed: Tensor = x + self.mlp(self.norm2(x))
        return mixed

    def _attend_windows(self, x: Tensor) -> Tensor:
        """Pads with zeros to whole windows; the padding takes part, as published."""
        batch, height, width, channels = x.shape
        side = self.window
        down, right = -height % side, -width % side
        x = F.pad(x, (0, 0, 0, right, 0, down))
        rows, columns = (height + down) // side, (width + right) // side
        windows = x.view(batch, rows, side, columns, side, channels).transpose(2, 3)
        mixed = self.attn(windows.reshape(-1, side, side, channels))
        mixed = mixed.view(batch, rows, columns, side, side, channels).transpose(2, 3)
        return mixed.reshape(batch, height + down, width + right, channels)[:, :height, :width]


class ViTEncoder(nn.Module):
    """ViT-B with SAM's neck: (B, 3, S, S) to (B, 256, 64, 64).

    Inputs of S px give S/16 positions a side, which are then brought to 64 bilinearly: up-sampled where S is less than
    1024, and where it is more, sampled without means of what lies between.

    Raises:
        InputError: a size that is not made of whole patches.
    """

    def __init__(self, image_size: int, width: int = 768, depth: int = 12, heads: int = 12) -> None:
        super().__init__()
        if image_size % PATCH_PX:
            raise InputError("encoder ViT-B", f"input size {image_size} px", f"a multiple of {PATCH_PX} px")
        grid = image_size // PATCH_PX
        self.patch_embed = PatchEmbed(width)
        self.pos_embed = nn.Parameter(torch.zeros(1, grid, grid, width))
        every = depth // 4
        windows = [0 if (i + 1) % every == 0 else 14 for i in range(depth)]
        self.blocks = nn.ModuleList(Block(width, heads, window, grid) for window in windows)
        self.neck = SamNeck(width, EMBEDDING_CHANNELS)

    def forward(self, x: Tensor) -> Tensor:
        """Normalised images to embeddings."""
        x = self.patch_embed(x) + self.pos_embed
        for block in self.blocks:
            x = block(x)
        embedding: Tensor = self.neck(x.permute(0, 3, 1, 2))
        if embedding.shape[-1] == EMBEDDING_SIZE:
            return embedding
        return F.interpolate(embedding, (EMBEDDING_SIZE, EMBEDDING_SIZE), mode="bilinear")


MEDSAM = EncoderSpec(
    name="vit_b",
    image_size=1024,
    prompt_frame=1024,
    fit="squash",
    resize="cubic",
    normalisation="min_max",
    title="MedSAM: ViT-B",
    paper="MedSAM: Ma et al., Nature Communications 2024, arXiv:2304.12306; SAM: arXiv:2304.02643",
    licence="Apache-2.0",
    weights_from="github.com/bowang-lab/MedSAM",
    adaptable=True,
    reference_cost=Cost(89.670912, 486.039),
)


@register_encoder(MEDSAM)
def vit_b(spec: EncoderSpec) -> nn.Module:
    """MedSAM's encoder: ViT-B at 1024 px, or at another multiple of 16."""
    return ViTEncoder(spec.image_size)


@register_encoder(
    replace(
        MEDSAM,
        name="sam_vit_b",
        fit="pad",
        resize="linear",
        normalisation="imagenet",
        title="SAM: ViT-B",
        paper="SAM: arXiv:2304.02643",
        weights_from="github.com/facebookresearch/segment-anything",
    )
)
def sam_vit_b(spec: EncoderSpec) -> nn.Module:
    """SAM's own ViT-B: MedSAM's architecture behind another preprocessing."""
    return ViTEncoder(spec.image_size)
