"""Folding the BatchNorms of any model, found by watching one forward pass."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.utils.fusion import fuse_conv_bn_weights
from torch.overrides import TorchFunctionMode


class _Watch(TorchFunctionMode):
    """Notes which convolution's result every BatchNorm takes, and how often each tensor is taken.

    Attributes:
        pairs: the result between the two, the convolution's weight, and the BatchNorm's running mean, by id.
        taken: how many operations took each tensor, by id: results, weights and statistics alike.
    """

    def __init__(self) -> None:
        super().__init__()
        self.pairs: list[tuple[int, int, int]] = []
        self.taken: Counter[int] = Counter()
        self._weights: dict[int, int] = {}
        # Holding on to every tensor keeps its id its own.
        self._held: list[Any] = []

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        result = func(*args, **kwargs)
        # Asking for a shape takes nothing.
        if not isinstance(result, Tensor | list | tuple) or isinstance(result, torch.Size):
            return result
        self._held.append((result, args, kwargs))
        self.taken.update(id(tensor) for tensor in _tensors((args, kwargs)))
        name = getattr(func, "__name__", "")
        first, second = (
            args[place] if place < len(args) else kwargs.get(key)
            for place, key in enumerate(("input", "weight" if name == "conv2d" else "running_mean"))
        )
        if name == "conv2d":
            self._weights[id(result)] = id(second)
        elif name == "batch_norm" and second is not None and id(first) in self._weights:
            self.pairs.append((id(first), self._weights[id(first)], id(second)))
        return result


def _tensors(values: Any) -> Iterator[Tensor]:
    """All tensors in nested tuples, lists and mappings."""
    if isinstance(values, Tensor):
        yield values
    elif isinstance(values, Mapping):
        yield from _tensors(tuple(values.values()))
    elif isinstance(values, list | tuple):
        for value in values:
            yield from _tensors(value)


def fold_watched(model: nn.Module, example: Tensor) -> None:
    """Folds, in place, every BatchNorm that runs once and alone takes the result of one convolution that runs once.

    An activation that is part of a BatchNorm module stays. BatchNorms elsewhere are left as they are.

    Args:
        model: in eval mode.
        example: an input of the model, of its dtype.
    """
    watch = _Watch()
    with torch.no_grad(), watch:
        model(example)
    convs = {id(m.weight): m for m in model.modules() if isinstance(m, nn.Conv2d)}
    norms = {id(m.running_mean): m for m in model.modules() if isinstance(m, _BatchNorm)}
    names: dict[nn.Module, list[str]] = {}
    for name, module in model.named_modules(remove_duplicate=False):
        names.setdefault(module, []).append(name)
    for pair in watch.pairs:
        _, weight, mean = pair
        if weight in convs and mean in norms and all(watch.taken[part] == 1 for part in pair):
            norm = norms[mean]
            _fold(convs[weight], norm)
            for name in names[norm]:
                model.set_submodule(name, _after(norm))


def _fold(conv: nn.Conv2d, norm: _BatchNorm) -> None:
    """In float64, into weights of the precision that they had."""
    parts = conv.weight, conv.bias, norm.running_mean, norm.running_var, norm.weight, norm.bias
    weight, bias, mean, variance, scale, shift = (None if part is None else part.detach().double() for part in parts)
    assert weight is not None
    assert mean is not None
    assert variance is not None
    fused = fuse_conv_bn_weights(weight, bias, mean, variance, norm.eps, scale, shift)
    conv.weight, conv.bias = (nn.Parameter(part.detach().to(conv.weight.dtype)) for part in fused)


def _after(norm: _BatchNorm) -> nn.Module:
    """What a norm module does beside normalising: timm's have an activation of their own."""
    act = getattr(norm, "act", None)
    return act if isinstance(act, nn.Module) else nn.Identity()
