"""One update of the weights."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from lightning_fabric import Fabric
from torch import Tensor

from compress.training.config import TrainConfig
from compress.training.optim import clip_gradients, keep_statistics
from compress.training.processes import highest, means
from compress.training.state import Progress
from zoo.errors import InputError
from zoo.sam.model import Sam


class NotFiniteError(InputError):
    """A loss or a gradient that is not finite.

    Attributes:
        images: indices of those that this process saw; none where another process lost its loss.
    """

    def __init__(self, where: str, found: str, expected: str, images: Sequence[int] = ()) -> None:
        super().__init__(where, found, expected)
        self.images = images


def take_step(
    fabric: Fabric,
    model: Any,
    sam: Sam,
    optimizer: Any,
    parts: Sequence[dict[str, Tensor]],
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
        parts: the batches of `config.accumulate` parts, on the host.
        config: of the run.
        progress: its norms are added to; its step is counted up as the update begins, so that after an error it tells
            whether model and optimiser are still as they were before.
        rate: learning rate of this step.

    Returns:
        The step's numbers: means over its parts and over the processes.

    Raises:
        NotFiniteError: a loss or a gradient that is not finite, in all processes if in one; the weights are still those
            before the step.
    """
    # Second looks at prompts draw from torch's generator: in a resumed run as they would have been, and in no process
    # what another one draws.
    seeds = np.random.SeedSequence((config.seed, progress.step, fabric.global_rank))
    torch.manual_seed(int(seeds.generate_state(1)[0]))
    model.train()
    keep_statistics(sam, config.freeze)
    for group in optimizer.param_groups:
        group["lr"] = rate
    optimizer.zero_grad()
    sums: dict[str, float] = {}
    with _statistics_kept(sam):
        lost: NotFiniteError | None = None
        for part, drawn in enumerate(parts):
            batch = fabric.to_device(drawn)
            if config.channels_last:
                batch = {**batch, "image": batch["image"].contiguous(memory_format=torch.channels_last)}
            with fabric.no_backward_sync(model, enabled=part + 1 < config.accumulate):
                numbers = model(batch)
                fabric.backward(numbers["loss"] / config.accumulate)
            lost = lost or _unless_finite(numbers["loss"], drawn, progress.step)
            for name, value in numbers.items():
                sums[name] = sums.get(name, 0) + float(value.detach()) / config.accumulate
        # Only now, as a process that left before would let the others wait for its gradients.
        if highest(fabric, lost is not None):
            found = "a loss of another process that is not finite"
            raise lost or NotFiniteError(f"step {progress.step}", found, "see its own message")
        told = means(fabric, sums)
        norm = clip_gradients(model.parameters(), progress.norms, config.clip_percentile)
        if not np.isfinite(norm):
            raise _not_finite(progress.step, parts, f"a gradient of norm {norm}")
    progress.step += 1
    optimizer.step()
    return {**told, "lr": rate, "gradient_norm": norm}


@contextmanager
def _statistics_kept(sam: Sam) -> Iterator[None]:
    """Puts BatchNorm's statistics back where the block fails: computing a loss alone moves them."""
    before = [buffer.clone() for buffer in sam.buffers()]
    try:
        yield
    except Exception:
        for buffer, value in zip(sam.buffers(), before, strict=True):
            buffer.copy_(value)
        raise


def _unless_finite(loss: Tensor, batch: Mapping[str, Tensor], step: int) -> NotFiniteError | None:
    """What to raise of a loss, if anything."""
    if torch.isfinite(loss):
        return None
    return _not_finite(step, [batch], f"a loss of {float(loss.detach())}")


def _not_finite(step: int, parts: Sequence[Mapping[str, Tensor]], found: str) -> NotFiniteError:
    """The error of a step that saw some parts of a batch."""
    images = [int(i) for part in parts for i in part["index"]]
    return NotFiniteError(f"step {step}, images {', '.join(map(str, images))}", found, "a finite one", images)
