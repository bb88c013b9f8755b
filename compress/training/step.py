"""One update of the weights."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import torch
from lightning_fabric import Fabric
from torch import Tensor

from compress.training.config import TrainConfig
from compress.training.optim import clip_gradients, keep_statistics
from compress.training.state import Progress
from zoo.errors import InputError
from zoo.sam.model import Sam


class NotFiniteError(InputError):
    """A loss or a gradient that is not finite; says in which step and of which images."""


def take_step(
    fabric: Fabric,
    model: Any,
    sam: Sam,
    optimizer: Any,
    stream: Iterator[dict[str, Tensor]],
    config: TrainConfig,
    progress: Progress,
    rate: float,
) -> dict[str, float]:
    """One update of the weights.

    Args:
        fabric: device and precision.
        model: from a batch to `loss` and further numbers; set up by `fabric`, like `optimizer`.
        sam: the model in it.
        optimizer: of the model.
        stream: of batches, one for each of `config.accumulate` parts.
        config: of the run.
        progress: its step is counted up, its norms are added to.
        rate: learning rate of this step.

    Returns:
        The step's numbers: means over its parts and over this process's share.

    Raises:
        NotFiniteError: a loss or a gradient that is not finite; the weights are still those before the step.
        InputError: of the stream; nothing of the model has changed then.
    """
    start = time.perf_counter()
    # Dropout and its like draw from torch's generator, which a resumed run finds as it would have been.
    torch.manual_seed(config.seed * 1_000_003 + progress.step)
    model.train()
    keep_statistics(sam, config.freeze)
    for group in optimizer.param_groups:
        group["lr"] = rate
    optimizer.zero_grad()
    sums: dict[str, float] = {}
    # All parts first, as computing one moves BatchNorm's statistics: where the next cannot be had, nothing may change.
    for part, drawn in enumerate([next(stream) for _ in range(config.accumulate)]):
        batch = fabric.to_device(drawn)
        if config.channels_last:
            batch = {**batch, "image": batch["image"].contiguous(memory_format=torch.channels_last)}
        with fabric.no_backward_sync(model, enabled=part + 1 < config.accumulate):
            numbers = model(batch)
            _check_finite(numbers["loss"], batch, progress.step)
            fabric.backward(numbers["loss"] / config.accumulate)
        for name, value in numbers.items():
            sums[name] = sums.get(name, 0) + float(value.detach()) / config.accumulate
    norm = clip_gradients(model.parameters(), progress.norms, config.clip_percentile)
    if not np.isfinite(norm):
        raise NotFiniteError(_told(batch, progress.step), f"a gradient of norm {norm}", "finite ones; try a lower --lr")
    optimizer.step()
    progress.step += 1
    return {**sums, "lr": rate, "gradient_norm": norm, "step_s": time.perf_counter() - start}


def _check_finite(loss: Tensor, batch: Mapping[str, Tensor], step: int) -> None:
    if not torch.isfinite(loss):
        raise NotFiniteError(_told(batch, step), f"a loss of {float(loss.detach())}", "a finite one; try a lower --lr")


def _told(batch: Mapping[str, Tensor], step: int) -> str:
    """Which images a step saw."""
    return f"step {step}, images {', '.join(str(int(i)) for i in batch['index'])}"
