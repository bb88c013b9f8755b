"""Folding a block's BatchNorms and branches into one convolution, exactly: what blocks' own `folded` is made of."""

from __future__ import annotations

from typing import Protocol, runtime_checkable

import torch
from torch import Tensor, nn

from zoo.errors import InputError


@runtime_checkable
class Foldable(Protocol):
    """A block that has a cheaper equal: `compress.reparam` puts `folded()` in its place."""

    def folded(self) -> nn.Module:
        """What computes the same in eval mode; it may take the block's parts, which is not used any more then."""
        ...


def fold_bn(weight: Tensor, bias: Tensor | None, bn: nn.BatchNorm2d) -> tuple[Tensor, Tensor]:
    """Weight and bias, in float64, of a convolution followed by `bn`.

    Args:
        weight: of the convolution.
        bias: of the convolution, or None.
        bn: with weight and bias.

    Raises:
        InputError: it has no running statistics.
    """
    if bn.running_mean is None or bn.running_var is None:
        raise InputError("folding", "a BatchNorm without running statistics", "a trained one, or --variant train")
    scale = bn.weight.double() / torch.sqrt(bn.running_var.double() + bn.eps)
    shift = -bn.running_mean.double() if bias is None else bias.double() - bn.running_mean.double()
    return weight.double() * scale[:, None, None, None], bn.bias.double() + shift * scale


def conv_like(like: nn.Conv2d, weight: Tensor, bias: Tensor) -> nn.Conv2d:
    """A convolution with the geometry and precision of `like` and new weights."""
    conv = nn.Conv2d(
        like.in_channels,
        like.out_channels,
        like.kernel_size,  # type: ignore[arg-type]
        like.stride,  # type: ignore[arg-type]
        like.padding,  # type: ignore[arg-type]
        like.dilation,  # type: ignore[arg-type]
        like.groups,
        padding_mode=like.padding_mode,
        device=like.weight.device,
        dtype=like.weight.dtype,
    )
    with torch.no_grad():
        conv.weight.copy_(weight)
        conv.bias.copy_(bias)  # type: ignore[union-attr]
    return conv.eval()
