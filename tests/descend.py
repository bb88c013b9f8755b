"""A few steps of training by hand, for tests of losses."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping

import torch
from torch import Tensor, nn


def descend(
    task: nn.Module,
    batch: Mapping[str, Tensor],
    steps: int,
    optimizer_of: Callable[[Iterable[nn.Parameter]], torch.optim.Optimizer],
) -> list[float]:
    """The loss of `task` on one batch before each of some steps of what is trainable."""
    optimizer = optimizer_of([parameter for parameter in task.parameters() if parameter.requires_grad])
    losses = []
    for _ in range(steps):
        optimizer.zero_grad()
        loss = task(batch)["loss"]
        loss.backward()
        optimizer.step()
        losses.append(float(loss.detach()))
    return losses
