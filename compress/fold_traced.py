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
    """Notes which convolution's result every BatchNorm takes, and how often each result is taken.

    Attributes:
        pairs: weight of the convolution and running mean of the BatchNorm, by the result between them.
        taken: how many operations took each tensor.
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
        result = func(*args, **(kwargs or {}))
        if not isinstance(result, Tensor | list | tuple):
            return result
        self._held.append((result, args))
        self.taken.update(id(tensor) for tensor in _tensors((args, kwargs or {})))
        name = getattr(func, "__name__", "")
        if name == "conv2d":
            self._weights[id(result)] = id(args[1])
        elif name == "batch_norm" and id(args[0]) in self._weights:
            self.pairs.append((id(args[0]), self._weights[id(args[0])], id(args[1])))
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
    """Folds, in place, every BatchNorm that alone takes the result of one convolution that runs once.

    An activation that is part of a BatchNorm module stays. BatchNorms elsewhere are left as they are.

    Args:
        model: in eval mode.
        example: an input of the model, of its dtype.
    """
    watch = _Watch()
    with torch.no_grad(), watch:
        model(example)
    convs = {id(m.weight): m for m in model.modules() if isinstance(m, nn.Conv2d)}
    norms = {id(m.running_mean): (name, m) for name, m in model.named_modules() if isinstance(m, _BatchNorm)}
    runs = Counter(weight for _, weight, _ in watch.pairs)
    for between, weight, mean in watch.pairs:
        if weight in convs and mean in norms and watch.taken[between] == 1 and runs[weight] == 1:
            name, norm = norms[mean]
            _fold(convs[weight], norm)
            model.set_submodule(name, _after(norm))


def _fold(conv: nn.Conv2d, norm: _BatchNorm) -> None:
    if norm.running_mean is None or norm.running_var is None:
        raise ValueError("found a BatchNorm without running statistics; expected a trained one")
    weight, bias = fuse_conv_bn_weights(
        conv.weight, conv.bias, norm.running_mean, norm.running_var, norm.eps, norm.weight, norm.bias
    )
    conv.weight, conv.bias = nn.Parameter(weight.detach()), nn.Parameter(bias.detach())


def _after(norm: _BatchNorm) -> nn.Module:
    """What a norm module does beside normalising: timm's have an activation of their own."""
    act = getattr(norm, "act", None)
    return act if isinstance(act, nn.Module) else nn.Identity()
