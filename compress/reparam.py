"""Re-parameterisation: folding BatchNorms and parallel branches into single convolutions, exactly.

Sources: RepVGG (Ding et al., CVPR 2021, arXiv:2101.03697), section 3.3; RepViT (arXiv:2307.09283), section 3.2.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from compress.fold_traced import fold_watched
from zoo.encoders.efficientvit import ConvNorm as EfficientViTConv
from zoo.encoders.repvit import EarlyRepVggDepthwise, RepVggDepthwise
from zoo.encoders.timm_backbone import TimmEncoder
from zoo.layers import ConvBn


def reparameterise(model: nn.Module) -> nn.Module:
    """A copy of `model` whose BatchNorms are folded; the folding is done in float64.

    Raises:
        ValueError: the model is in training mode, where BatchNorm depends on the batch, or a BatchNorm is left that
            no rule folds.
    """
    if model.training:
        raise ValueError("found a model in training mode; expected eval mode: call model.eval() first")
    folded = _fold(copy.deepcopy(model))
    if left := [name for name, module in folded.named_modules() if isinstance(module, nn.modules.batchnorm._BatchNorm)]:
        raise ValueError(f"found {len(left)} BatchNorms that no rule folds ({left[0]}); expected none")
    return folded


def _fold(module: nn.Module) -> nn.Module:
    if isinstance(module, ConvBn):
        return _to_conv(module.c, *_fold_bn(module.c.weight.double(), None, module.bn))
    if isinstance(module, RepVggDepthwise):
        return _fold_depthwise(module)
    if isinstance(module, EarlyRepVggDepthwise):
        return _fold_early_depthwise(module)
    if isinstance(module, TimmEncoder):
        module.backbone = _fold_backbone(module)
    if isinstance(module, EfficientViTConv) and "norm" in module._modules:
        return _fold_conv_norm(module)
    for name, child in module.named_children():
        setattr(module, name, _fold(child))
    return module


def _fold_backbone(encoder: TimmEncoder) -> nn.Module:
    """timm's models know how to merge their own branches; what is left are BatchNorms behind convolutions."""
    from timm.utils.model import reparameterize_model

    with _float64():
        backbone = reparameterize_model(encoder.backbone.double())
    size = (1, 3, encoder.image_size, encoder.image_size)
    fold_watched(backbone, torch.zeros(size, dtype=torch.float64))
    return backbone.float()


@contextmanager
def _float64() -> Iterator[None]:
    """New modules get float64 parameters: merging branches makes some."""
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.float64)
    try:
        yield
    finally:
        torch.set_default_dtype(before)


def _fold_bn(weight: Tensor, bias: Tensor | None, bn: nn.BatchNorm2d) -> tuple[Tensor, Tensor]:
    """Weight and bias in float64 of a convolution followed by `bn`."""
    if bn.running_mean is None or bn.running_var is None:
        raise ValueError("found a BatchNorm without running statistics; expected a trained one")
    scale = bn.weight.double() / torch.sqrt(bn.running_var.double() + bn.eps)
    shift = -bn.running_mean.double() if bias is None else bias - bn.running_mean.double()
    return weight * scale[:, None, None, None], bn.bias.double() + shift * scale


def _fold_depthwise(block: RepVggDepthwise) -> nn.Conv2d:
    """Adds the 1x1 branch and the identity into the centre of the 3x3 kernel, then folds the outer BatchNorm."""
    weight, bias = _fold_bn(block.conv.c.weight.double(), None, block.conv.bn)
    weight[:, :, 1, 1] += block.conv1.weight.double()[:, :, 0, 0] + 1
    if block.conv1.bias is not None:
        bias = bias + block.conv1.bias.double()
    return _to_conv(block.conv.c, *_fold_bn(weight, bias, block.bn))


def _fold_early_depthwise(block: EarlyRepVggDepthwise) -> nn.Conv2d:
    """As above for two branches with a BatchNorm each and none after their sum."""
    weight, bias = _fold_bn(block.conv.c.weight.double(), None, block.conv.bn)
    centre, shift = _fold_bn(block.conv1.c.weight.double(), None, block.conv1.bn)
    weight[:, :, 1, 1] += centre[:, :, 0, 0] + 1
    return _to_conv(block.conv.c, weight, bias + shift)


def _fold_conv_norm(block: EfficientViTConv) -> nn.Module:
    """Convolution and BatchNorm; the activation behind them stays."""
    norm = block.norm
    folded = _to_conv(block.conv, *_fold_bn(block.conv.weight.double(), None, norm))
    return nn.Sequential(folded, block.act) if "act" in block._modules else folded


def _to_conv(like: nn.Conv2d, weight: Tensor, bias: Tensor) -> nn.Conv2d:
    """A convolution with the geometry and precision of `like` and new weights."""
    conv = nn.Conv2d(
        like.in_channels,
        like.out_channels,
        like.kernel_size,  # type: ignore[arg-type]
        like.stride,  # type: ignore[arg-type]
        like.padding,  # type: ignore[arg-type]
        groups=like.groups,
        dtype=like.weight.dtype,
    )
    with torch.no_grad():
        conv.weight.copy_(weight)
        conv.bias.copy_(bias)  # type: ignore[union-attr]
    return conv.eval()
