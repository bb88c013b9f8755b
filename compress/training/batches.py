"""Which images each step of a run sees, and the processes that make them."""

from __future__ import annotations

import signal
from collections.abc import Iterator

import cv2
from lightning_fabric import Fabric
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from compress.training.config import TrainConfig
from zoo.errors import InputError


class StepBatches:
    """For each part of each step, the indices of this process's share of its images.

    Args:
        config: of the run.
        first_step: where to go on.
        rank: of this process.
        world: how many there are.

    Raises:
        InputError: a batch that cannot be shared out evenly.
    """

    def __init__(self, config: TrainConfig, first_step: int, rank: int = 0, world: int = 1) -> None:
        shares = config.accumulate * world
        if config.batch_size % shares:
            raise InputError("--batch-size", str(config.batch_size), f"a multiple of {shares} (parts times processes)")
        self.config, self.first_step, self.rank, self.shares = config, first_step, rank, shares
        self.world = world

    def __iter__(self) -> Iterator[list[int]]:
        """Indices, part by part."""
        size = self.config.batch_size
        for step in range(self.first_step, self.config.steps):
            whole = range(step * size, (step + 1) * size)
            for part in range(self.config.accumulate):
                yield list(whole[part * self.world + self.rank :: self.shares])


def stream_batches(
    dataset: Dataset[dict[str, Tensor]], config: TrainConfig, first_step: int, fabric: Fabric
) -> Iterator[dict[str, Tensor]]:
    """The batches of `StepBatches` from `first_step` on, made by `config.workers` processes.

    Raises:
        InputError: a batch that cannot be shared out evenly.
    """
    loader = DataLoader(
        dataset,
        batch_sampler=StepBatches(config, first_step, fabric.global_rank, fabric.world_size),
        num_workers=config.workers,
        persistent_workers=config.workers > 0,
        pin_memory=fabric.device.type == "cuda",
        worker_init_fn=_leave_ctrl_c_to_the_parent,
    )
    cv2.setNumThreads(1)  # one core for each worker; a forked one cannot change it itself
    return iter(loader)


def _leave_ctrl_c_to_the_parent(worker: int) -> None:
    """A terminal sends Ctrl-C to all processes; those that make data must live until the step is done."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
