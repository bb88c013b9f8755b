"""TinyViT encoders for SAM.

TinyViT-5M (Wu et al., ECCV 2022, arXiv:2207.10666): a convolutional stage, then three stages of windowed attention
with a depthwise convolution between attention and MLP. LiteMedSAM uses a stem of 1x1 convolutions without stride, so
that a 256 px image gives a 64x64 map. State-dict keys are those of the published checkpoints.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from zoo.layers import ConvBn, SamNeck
from zoo.registry import EMBEDDING_CHANNELS, Cost, EncoderSpec, register_encoder


class PatchEmbed(nn.Module):
    """The stem: two convolutions from the image to the first width."""

    def __init__(self, width: int, kernel: int, stride: int) -> None:
        super().__init__()
        padding = kernel // 2
        self.seq = nn.Sequential(
            ConvBn(3, width // 2, kernel, stride, padding),
            nn.GELU(),
            ConvBn(width // 2, width, kernel, stride, padding),
        )

    def forward(self, x: Tensor) -> Tensor:
        """(B, 3, S, S) to (B, C, S/stride^2, S/stride^2)."""
        features: Tensor = self.seq(x)
        return features


class MBConv(nn.Module):
    """Inverted bottleneck with expansion 4 and a residual, activated after the sum."""

    def __init__(self, width: int) -> None:
        super().__init__()
        hidden = 4 * width
        self.conv1 = ConvBn(width, hidden)
        self.conv2 = ConvBn(hidden, hidden, kernel=3, padding=1, groups=hidden)
        self.conv3 = ConvBn(hidden, width)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) to (B, C, H, W)."""
        hidden = F.gelu(self.conv2(F.gelu(self.conv1(x))))
        return F.gelu(x + self.conv3(hidden))


class PatchMerging(nn.Module):
    """Changes width and, with stride 2, halves the resolution."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.conv1 = ConvBn(inputs, outputs)
        self.conv2 = ConvBn(outputs, outputs, kernel=3, stride=stride, padding=1, groups=outputs)
        self.conv3 = ConvBn(outputs, outputs)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C_in, H, W) to (B, C_out, H/stride, W/stride)."""
        merged: Tensor = self.conv3(F.gelu(self.conv2(F.gelu(self.conv1(x)))))
        return merged


class WindowAttention(nn.Module):
    """Attention inside one window, with a learned bias for each absolute offset of two positions and each head."""

    attention_bias_idxs: Tensor

    def __init__(self, width: int, heads: int, window: int) -> None:
        super().__init__()
        self.heads = heads
        self.norm = nn.LayerNorm(width)
        self.qkv = nn.Linear(width, 3 * width)
        self.proj = nn.Linear(width, width)
        index, offsets = _offset_index(window)
        self.attention_biases = nn.Parameter(torch.zeros(heads, offsets))
        self.register_buffer("attention_bias_idxs", index, persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        """(windows, positions, C) to the same."""
        windows, positions, width = x.shape
        # The published layout holds q, k and v of one head side by side.
        qkv = self.qkv(self.norm(x)).view(windows, positions, self.heads, 3, width // self.heads)
        q, k, v = qkv.permute(3, 0, 2, 1, 4).unbind(0)
        bias = self.attention_biases[:, self.attention_bias_idxs]
        mixed = F.scaled_dot_product_attention(q, k, v, attn_mask=bias[None])
        projected: Tensor = self.proj(mixed.transpose(1, 2).reshape(windows, positions, width))
        return projected


def _offset_index(window: int) -> tuple[Tensor, int]:
    """Index of the bias for each pair of positions, and the number of biases.

    Offsets (|dy|, |dx|) are numbered in the order in which pairs of positions, row by row, first show them; from the
    first position every offset shows up in row-major order, so the number is |dy| * window + |dx|.
    """
    ys, xs = torch.meshgrid(torch.arange(window), torch.arange(window), indexing="ij")
    y, x = ys.flatten(), xs.flatten()
    return (y[:, None] - y).abs() * window + (x[:, None] - x).abs(), window * window


class Mlp(nn.Module):
    """LayerNorm and two linear layers with expansion 4."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width)
        self.fc1 = nn.Linear(width, 4 * width)
        self.fc2 = nn.Linear(4 * width, width)

    def forward(self, x: Tensor) -> Tensor:
        """(..., C) to (..., C)."""
        mixed: Tensor = self.fc2(F.gelu(self.fc1(self.norm(x))))
        return mixed


class TinyViTBlock(nn.Module):
    """Window attention, depthwise convolution, MLP."""

    def __init__(self, width: int, heads: int, window: int) -> None:
        super().__init__()
        self.window = window
        self.attn = WindowAttention(width, heads, window)
        self.local_conv = ConvBn(width, width, kernel=3, padding=1, groups=width)
        self.mlp = Mlp(width)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) to (B, C, H, W)."""
        x = x.permute(0, 2, 3, 1)
        x = x + self._attend(x)
        x = self.local_conv(x.permute(0, 3, 1, 2)).permute(0, 2, 3, 1)
        x = x + self.mlp(x)
        return x.permute(0, 3, 1, 2)

    def _attend(self, x: Tensor) -> Tensor:
        """(B, H, W, C), padded with zeros to whole windows; the padding takes part, as published."""
        batch, height, width, channels = x.shape
        side = self.window
        down, right = -height % side, -width % side
        x = F.pad(x, (0, 0, 0, right, 0, down))
        rows, columns = (height + down) // side, (width + right) // side
        windows = x.view(batch, rows, side, columns, side, channels).transpose(2, 3)
        mixed = self.attn(windows.reshape(-1, side * side, channels))
        mixed = mixed.view(batch, rows, columns, side, side, channels).transpose(2, 3)
        return mixed.reshape(batch, height + down, width + right, channels)[:, :height, :width]


class Stage(nn.Module):
    """Blocks of one width, then the change to the next."""

    def __init__(self, blocks: list[nn.Module], downsample: nn.Module | None) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(blocks)
        self.downsample = downsample

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) to the next stage's input."""
        for block in self.blocks:
            x = block(x)
        return x if self.downsample is None else self.downsample(x)


@dataclass(frozen=True)
class TinyViTGeometry:
    """Size of a TinyViT, and its stem, which differs between publications."""

    stem_kernel: int
    stem_stride: int
    widths: tuple[int, int, int, int] = (64, 128, 160, 320)
    depths: tuple[int, int, int, int] = (2, 2, 6, 2)
    heads: tuple[int, int, int, int] = (2, 4, 5, 10)
    windows: tuple[int, int, int, int] = (7, 7, 14, 7)


class TinyViTEncoder(nn.Module):
    """TinyViT with SAM's neck: (B, 3, S, S) to (B, 256, 64, 64).

    Args:
        geometry: its size.
        classifier: also hold the unused ImageNet classifier that MobileSAM's checkpoints carry.
    """

    def __init__(self, geometry: TinyViTGeometry, classifier: bool = False) -> None:
        super().__init__()
        self.patch_embed = PatchEmbed(geometry.widths[0], geometry.stem_kernel, geometry.stem_stride)
        self.layers = nn.Sequential(*(_stage(geometry, index) for index in range(len(geometry.widths))))
        if classifier:
            self.norm_head = nn.LayerNorm(geometry.widths[-1])
            self.head = nn.Linear(geometry.widths[-1], 1000)
        self.neck = SamNeck(geometry.widths[-1], EMBEDDING_CHANNELS)

    def forward(self, x: Tensor) -> Tensor:
        """Normalised images to embeddings."""
        embedding: Tensor = self.neck(self.layers(self.patch_embed(x)))
        return embedding


def _stage(geometry: TinyViTGeometry, index: int) -> Stage:
    """Stage `index`: the first is convolutional; the change to the last width keeps the resolution."""
    width, depth = geometry.widths[index], geometry.depths[index]
    if index == 0:
        blocks: list[nn.Module] = [MBConv(width) for _ in range(depth)]
    else:
        blocks = [TinyViTBlock(width, geometry.heads[index], geometry.windows[index]) for _ in range(depth)]
    if index == len(geometry.widths) - 1:
        return Stage(blocks, None)
    to_last = index == len(geometry.widths) - 2
    return Stage(blocks, PatchMerging(width, geometry.widths[index + 1], stride=1 if to_last else 2))


@register_encoder(
    EncoderSpec(
        name="tinyvit",
        image_size=256,
        prompt_frame=256,
        fit="pad",
        resize="area",
        normalisation="min_max",
        title="LiteMedSAM: TinyViT-5M, stride-1 stem",
        paper="LiteMedSAM, CVPR 2024 MedSAM on Laptop; TinyViT: arXiv:2207.10666",
        licence="Apache-2.0",
        weights_from="github.com/bowang-lab/MedSAM, branch LiteMedSAM",
        reference_cost=Cost(5.72674, 37.474),
    )
)
def tinyvit(spec: EncoderSpec) -> nn.Module:
    """LiteMedSAM's encoder: TinyViT-5M at 256 px."""
    return TinyViTEncoder(TinyViTGeometry(stem_kernel=1, stem_stride=1))


@register_encoder(
    EncoderSpec(
        name="mobile_sam",
        image_size=1024,
        prompt_frame=1024,
        fit="pad",
        resize="linear",
        normalisation="imagenet",
        title="MobileSAM: TinyViT-5M",
        paper="MobileSAM: arXiv:2306.14289; TinyViT: arXiv:2207.10666",
        licence="Apache-2.0",
        weights_from="github.com/ChaoningZhang/MobileSAM",
        reference_cost=Cost(6.065532, 38.768),
    )
)
def mobile_sam(spec: EncoderSpec) -> nn.Module:
    """MobileSAM's encoder: TinyViT-5M at 1024 px."""
    return TinyViTEncoder(TinyViTGeometry(stem_kernel=3, stem_stride=2), classifier=True)
