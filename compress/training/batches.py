"""Which images each step of a run sees, and the processes that make them."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from copy import copy
from itertools import count, takewhile
from multiprocessing.queues import Queue
from typing import Any

import cv2
import torch
from lightning_fabric import Fabric
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, default_collate

from compress.training.config import TrainConfig, batch_shares
from zoo.data.dataset import ImageSource, LabelledImage
from zoo.errors import InputError
from zoo.notes import note

#: After so many steps a run is told if it has waited for its data for more than so large a share of the time.
WATCHED_STEPS, MUCH_WAITING = 50, 0.2


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
        self.config, self.first_step, self.rank, self.world = config, first_step, rank, world
        self.shares = batch_shares(config, world)

    def __iter__(self) -> Iterator[list[int]]:
        """Indices, part by part."""
        size = self.config.batch_size
        for step in takewhile(lambda step: step < self.config.step_limit, count(self.first_step)):
            whole = range(step * size, (step + 1) * size)
            for part in range(self.config.accumulate):
                yield list(whole[part * self.world + self.rank :: self.shares])


@contextmanager
def stream_batches(
    dataset: Dataset[dict[str, Tensor]], config: TrainConfig, first_step: int, fabric: Fabric
) -> Iterator[Iterator[dict[str, Tensor]]]:
    """The batches of `StepBatches` from `first_step` on, as `load_batches` gives them.

    Raises:
        InputError: a batch that cannot be shared out evenly.
    """
    indices = StepBatches(config, first_step, fabric.global_rank, fabric.world_size)
    with load_batches(dataset, indices, config.workers, fabric.device) as stream:
        yield stream


@contextmanager
def load_batches(
    dataset: Dataset[dict[str, Tensor]], indices: Iterable[list[int]], workers: int, device: torch.device
) -> Iterator[Iterator[dict[str, Tensor]]]:
    """Batches of a dataset, made by `workers` processes, which end with the block.

    The iterator raises an `InputError` for a sample that cannot be made, whatever the dataset raises, and where a
    process that makes data has died.

    Args:
        dataset: samples by index.
        indices: of the samples of each batch.
        workers: processes; 0 makes them here.
        device: where batches will go.
    """
    loader = DataLoader(
        _Told(dataset),
        batch_sampler=indices,
        num_workers=workers,
        collate_fn=_collate,
        persistent_workers=workers > 0,
        pin_memory=device.type == "cuda",
        worker_init_fn=_begin_worker,
    )
    cv2.setNumThreads(1)  # one core for each worker; a forked one cannot change it itself
    batches = _started(loader)
    try:
        yield _checked(batches, workers)
    finally:
        if workers:
            # At exit Python would ask them by SIGTERM, which they ignore, and wait.
            batches._shutdown_workers()


def draw_parts(stream: Iterator[dict[str, Tensor]], parts: int) -> tuple[list[dict[str, Tensor]], InputError | None]:
    """The batches of a step's parts, or why one of them cannot be had."""
    try:
        return [next(stream) for _ in range(parts)], None
    except InputError as error:
        return [], error


class Waits:
    """Finds out whether a run waits for its data.

    Args:
        workers: processes that make data.
    """

    def __init__(self, workers: int) -> None:
        self.workers, self.steps, self.data_s, self.all_s = workers, 0, 0.0, 0.0

    def after(self, data_s: float, step_s: float) -> str | None:
        """Hears of a step, of which `data_s` was spent waiting; what to tell of it, once. The first one starts up."""
        self.steps += 1
        if self.steps > 1:
            self.data_s, self.all_s = self.data_s + data_s, self.all_s + step_s
        share = self.data_s / self.all_s if self.all_s else 0
        if self.steps != WATCHED_STEPS or share < MUCH_WAITING:
            return None
        return f"waits for data {share:.0%} of the time; more --workers than {self.workers} may help"


class _Told(Dataset[dict[str, Tensor] | InputError]):
    """A dataset whose errors are values: torch would rebuild a worker's exception of its traceback alone.

    What is no `InputError`, of a damaged file or a defect of the program, becomes one that names the image.
    """

    def __init__(self, dataset: Dataset[dict[str, Tensor]]) -> None:
        self.dataset = dataset

    def __getitem__(self, index: int) -> dict[str, Tensor] | InputError:
        try:
            return self.dataset[index]
        except InputError as error:
            return error
        except Exception as error:
            found = f"{type(error).__name__}: {' '.join(str(error).split())}"
            return InputError(image_name(self.dataset, index), found, "an image that a sample can be made of")


class _NamedImages:
    """A source that keeps the name of the image that it was last asked for, its index where it cannot be read."""

    def __init__(self, source: ImageSource) -> None:
        self.source, self.name = source, ""

    def image(self, index: int) -> LabelledImage:
        """As the source gives it."""
        self.name = f"image {index}"
        drawn = self.source.image(index)
        self.name = drawn.name
        return drawn


def image_name(dataset: Dataset[dict[str, Tensor]], index: int) -> str:
    """Where the image of a sample comes from, for messages; the sample is made again to find it out.

    Args:
        dataset: samples by index, of the images of its `source`; one that has none is told of by the index alone.
        index: of the sample.
    """
    if not hasattr(dataset, "source"):
        return f"image {index}"
    again = copy(dataset)
    again.source = named = _NamedImages(dataset.source)
    with suppress(Exception):
        again[index]
    return named.name


def _collate(samples: list[dict[str, Tensor] | InputError]) -> dict[str, Tensor] | InputError:
    """A batch, or the first error among its samples."""
    for sample in samples:
        if isinstance(sample, InputError):
            return sample
    batch: dict[str, Tensor] = default_collate(samples)
    return batch


def _started(loader: DataLoader[dict[str, Tensor] | InputError]) -> Any:
    """The loader's iterator, without its handler of SIGCHLD, which raises of a dead worker wherever the program is.

    Waiting for the worker's next batch finds it out, too, and nothing else is disturbed: no file that is being written.
    Windows has no such signal.
    """
    if not hasattr(signal, "SIGCHLD"):
        return iter(loader)
    before = signal.getsignal(signal.SIGCHLD)
    batches = iter(loader)
    if signal.getsignal(signal.SIGCHLD) != before:
        signal.signal(signal.SIGCHLD, before)
    return batches


def _checked(batches: Iterator[dict[str, Tensor] | InputError], workers: int) -> Iterator[dict[str, Tensor]]:
    """Batches alone; what came in place of one is raised."""
    while True:
        try:
            batch = next(batches)
        except StopIteration:
            return
        except RuntimeError as error:
            if "exited unexpectedly" not in str(error):
                raise
            found = f"{workers}, of which one was killed or has crashed"
            expected = "memory and temporary files for all of them; try fewer"
            raise InputError("--workers", found, expected) from error
        if isinstance(batch, InputError):
            raise batch
        yield batch


def _begin_worker(worker: int) -> None:
    """Ctrl-C, `timeout` and schedulers signal all processes; those that make data must live until the step is done.

    They end when the parent ends them, or is no more, or where they cannot send what they made: Python would print why
    and go on, and the parent wait for ever.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    Queue._on_queue_feeder_error = staticmethod(_end_worker)  # type: ignore[attr-defined]


def _end_worker(error: Exception, batch: object) -> None:
    note(f"a process that makes data cannot send it: {error}")
    os._exit(1)
