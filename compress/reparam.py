"""Re-parameterisation: folding BatchNorms and parallel branches into single convolutions, exactly.

Blocks fold themselves (`zoo.folding.Foldable`); convolutions with a BatchNorm behind them, wherever they are, are found
by watching a pass. Sources: RepVGG (Ding et al., CVPR 2021, arXiv:2101.03697), section 3.3; RepViT (arXiv:2307.09283),
section 3.2.
"""

from __future__ import annotations

import copy

import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from compress.fold_traced import fold_watched
from zoo.errors import InputError
from zoo.folding import Foldable


class UnfoldableError(InputError):
    """A model with BatchNorms that cannot be folded; it runs as trained."""


def reparameterise(model: nn.Module, image_size: int | None = None) -> nn.Module:
    """A copy of `model` whose BatchNorms are folded; the folding is done in float64.

    Args:
        model: in eval mode.
        image_size: side in pixels of its square input, which BatchNorms outside of foldable blocks are looked for with;
            by default the model's own `image_size`, if it has one.

    Raises:
        ValueError: the model is in training mode, where BatchNorm depends on the batch.
        UnfoldableError: a BatchNorm is left: it is behind no convolution, or that one is used elsewhere, too.
    """
    if model.training:
        raise ValueError("found a model in training mode; expected eval mode: call model.eval() first")
    folded = _fold_blocks(copy.deepcopy(model))
    size = image_size or getattr(model, "image_size", None)
    if _batchnorms(folded) and size:
        weight = next(folded.parameters())
        fold_watched(folded, torch.zeros(1, 3, size, size, dtype=weight.dtype, device=weight.device))
    if left := _batchnorms(folded):
        found = f"{len(left)} BatchNorms that no rule folds"
        raise UnfoldableError(f"module {left[0]}", found, "each alone behind a convolution; or --variant train")
    return folded


def _fold_blocks(module: nn.Module) -> nn.Module:
    if isinstance(module, Foldable):
        module = module.folded()
    for name, child in module.named_children():
        setattr(module, name, _fold_blocks(child))
    return module


def _batchnorms(model: nn.Module) -> list[str]:
    return [name for name, module in model.named_modules() if isinstance(module, _BatchNorm)]
