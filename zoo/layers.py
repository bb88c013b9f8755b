"""Layers that several encoders and the mask decoder share."""

from __future__ import annotations

from collections import OrderedDict

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from zoo.folding import conv_like, fold_bn


class LayerNorm2d(nn.Module):
    """Layer normalisation over the channels of (B, C, H, W), with torch's two-pass formula and SAM's keys.

    Source: SAM (Kirillov et al. 2023), image encoder neck.
    """

    def __init__(self, channels: int, eps: float = 1e-6) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(channels))
        self.bias = nn.Parameter(torch.zeros(channels))
        self.eps = eps

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) to (B, C, H, W)."""
        variance, mean = torch.var_mean(x, dim=1, correction=0, keepdim=True)
        normalised = (x - mean) * torch.rsqrt(variance + self.eps)
        return normalised * self.weight[:, None, None] + self.bias[:, None, None]

    def of_last(self, x: Tensor) -> Tensor:
        """As `forward`, of channels that come last: (..., C) to (..., C)."""
        return F.layer_norm(x, self.weight.shape, self.weight, self.bias, self.eps)


class ConvBn(nn.Sequential):
    """Convolution without bias, then BatchNorm, under the keys `c` and `bn` that LeViT gave them.

    Source: LeViT (Graham et al. 2021); RepViT and TinyViT kept its names.
    """

    c: nn.Conv2d
    bn: nn.BatchNorm2d

    def __init__(
        self, inputs: int, outputs: int, kernel: int = 1, stride: int = 1, padding: int = 0, groups: int = 1
    ) -> None:
        conv = nn.Conv2d(inputs, outputs, kernel, stride, padding, groups=groups, bias=False)
        super().__init__(OrderedDict(c=conv, bn=nn.BatchNorm2d(outputs)))

    def folded(self) -> nn.Conv2d:
        """The convolution with the BatchNorm in its weights."""
        return conv_like(self.c, *fold_bn(self.c.weight, None, self.bn))


class SamNeck(nn.Sequential):
    """1x1 and 3x3 convolution, each with LayerNorm2d, to the embedding's channels.

    Source: SAM's image encoder (Kirillov et al. 2023, appendix A).
    """

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__(
            nn.Conv2d(inputs, outputs, 1, bias=False),
            LayerNorm2d(outputs),
            nn.Conv2d(outputs, outputs, 3, padding=1, bias=False),
            LayerNorm2d(outputs),
        )


class SummingNeck(nn.Module):
    """A backbone's stages, each projected to the embedding's channels, summed from the coarsest up, and mixed.

    The sum so far is raised to the next stage's resolution, as in a feature pyramid (Lin et al. 2017), so that only one
    map is ever raised to the finest.

    Args:
        widths: channels of the stages.
        outputs: channels of the embedding.
    """

    def __init__(self, widths: list[int], outputs: int) -> None:
        super().__init__()
        self.projections = nn.ModuleList(ConvBn(width, outputs) for width in widths)
        self.mix = nn.Sequential(
            ConvBn(outputs, outputs, kernel=3, padding=1, groups=outputs),
            nn.GELU(),
            ConvBn(outputs, outputs),
            LayerNorm2d(outputs),
        )

    def forward(self, maps: list[Tensor], side: int) -> Tensor:
        """Maps (B, C_i, H_i, W_i), one a stage, the finest first, to (B, outputs, side, side)."""
        projected = [projection(m) for projection, m in zip(self.projections, maps, strict=True)]
        total = projected.pop()
        while projected:
            finer = projected.pop()
            total = finer + _resized(total, finer.shape[-1])
        embedding: Tensor = self.mix(_resized(total, side))
        return embedding


def _resized(x: Tensor, side: int) -> Tensor:
    return x if x.shape[-1] == side else F.interpolate(x, (side, side), mode="bilinear")
