"""Optimiser, gradient clipping, copies and averages of weights."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from copy import deepcopy

import numpy as np
import torch
from torch import Tensor, nn

from compress.training.muon import Muon, matrices_of
from compress.training.task import Task
from zoo.errors import InputError
from zoo.sam.model import Sam

#: Gradient norms that a percentile is taken of.
NORMS_KEPT = 1000


def create_optimizer(module: nn.Module, name: str, lr: float, weight_decay: float) -> torch.optim.Optimizer:
    """AdamW or Muon over all parameters that are trained; those of one dimension, as of norms, are not decayed.

    TinyViT's attention biases are tables of two dimensions, and decayed.

    Args:
        module: to be trained.
        name: `adamw` or `muon`.
        lr: learning rate.
        weight_decay: of weights with more than one dimension.

    Raises:
        InputError: nothing is trained.
    """
    trained = [parameter for parameter in module.parameters() if parameter.requires_grad]
    if not trained:
        raise InputError("--freeze", "all that could be trained", "a part that is left to learn")
    matrices = matrices_of(module) if name == "muon" else []
    taken = {id(weight) for weight in matrices}
    others = [p for p in trained if id(p) not in taken]
    groups = [
        {"params": matrices, "weight_decay": weight_decay, "orthogonal": True},
        {"params": [p for p in others if p.ndim > 1], "weight_decay": weight_decay},
        {"params": [p for p in others if p.ndim <= 1], "weight_decay": 0.0},
    ]
    filled = [group for group in groups if group["params"]]
    return Muon(filled, lr) if name == "muon" else torch.optim.AdamW(filled, lr=lr, fused=True)


def clip_gradients(parameters: Iterable[nn.Parameter], norms: list[float], percentile: float) -> float:
    """Shortens the gradient to a percentile of the norms so far (AutoClip: Seetharaman et al., arXiv:2007.14469).

    Args:
        parameters: with gradients.
        norms: of the steps so far; this one's is added, and old ones dropped.
        percentile: 0 to 100.

    Returns:
        The norm before clipping; where it is not finite, nothing is clipped or added.
    """
    gradients = [parameter.grad for parameter in parameters if parameter.grad is not None]
    norm = float(torch.nn.utils.get_total_norm(gradients))
    if np.isfinite(norm):
        norms.append(norm)
        del norms[:-NORMS_KEPT]
        limit = float(np.percentile(norms, percentile))
        if norm > limit:
            torch._foreach_mul_(gradients, limit / norm)
    return norm


@torch.no_grad()
def update_average(average: nn.Module, model: nn.Module, decay: float, step: int) -> None:
    """Moves the averaged state towards the model's; in the first steps faster, so that the start is forgotten."""
    share = 1 - min(decay, (1 + step) / (10 + step))
    means: list[Tensor] = []
    values: list[Tensor] = []
    for mean, value in zip(average.state_dict().values(), model.state_dict().values(), strict=True):
        if mean.is_floating_point():
            means.append(mean)
            values.append(value)
        else:
            mean.copy_(value)  # BatchNorm's counters
    torch._foreach_lerp_(means, values, share)


def all_finite(module: nn.Module) -> bool:
    """Whether all parameters are; looked at on the host, as a device may have no room left."""
    return all(bool(torch.isfinite(parameter.detach().cpu()).all()) for parameter in module.parameters())


def copied(task: Task) -> Task:
    """A copy of a task but for its teacher, if it has one."""
    teacher = getattr(task, "teacher", None)
    return deepcopy(task, {} if teacher is None else {id(teacher): teacher})


def freeze(sam: Sam, parts: Iterable[str]) -> None:
    """Stops training of parts of a model; `batch_norm` is no part, see `keep_statistics`."""
    for module in _modules_of(sam, parts):
        module.requires_grad_(False)


def keep_statistics(sam: Sam, parts: Iterable[str]) -> None:
    """Puts frozen parts into eval mode, whatever mode the rest is in; `batch_norm` is every BatchNorm."""
    parts = tuple(parts)
    norms = (child for child in sam.modules() if isinstance(child, nn.BatchNorm2d)) if "batch_norm" in parts else ()
    for module in (*_modules_of(sam, parts), *norms):
        module.eval()


def _modules_of(sam: Sam, parts: Iterable[str]) -> Iterator[nn.Module]:
    """The modules of parts, by their names in `FREEZABLE`."""
    prompts = sam.prompt_encoder
    for part in parts:
        if part == "points_and_boxes":
            yield from (prompts.point_embeddings, prompts.not_a_point_embed, prompts.no_mask_embed)
        elif part != "batch_norm":
            yield getattr(sam, part)
