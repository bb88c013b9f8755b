"""A training run as users start it: data, device, progress, TensorBoard, pictures."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from lightning_fabric import Fabric
from lightning_fabric.strategies.ddp import DDPStrategy
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
from rich.progress import Progress as Bar
from torch import nn

from compress.training.config import TrainConfig
from compress.training.loop import fit, validation_on
from compress.training.state import Progress
from zoo.data.dataset import PromptedImages, open_source
from zoo.sam.model import Sam

VALIDATION_BATCH = 8
PICTURE = "predictions.png"


def run_training(
    task: nn.Module,
    sam: Sam,
    train_set: PromptedImages,
    config: TrainConfig,
    validation: Sequence[str],
    validation_count: int,
    devices: int,
    out: Path,
    origin: Mapping[str, Any],
) -> Progress:
    """Trains `task` on one device or several, and tells of it.

    Raises:
        InputError: as `fit` and `open_source`.
    """
    prompting = train_set.prompting
    size = prompting.spec.image_size
    unseen = open_source(validation, size, validation_seed(config))
    held_out = PromptedImages(unseen, replace(prompting, augment=False))
    fabric = Fabric(
        accelerator="auto" if torch.cuda.is_available() else "cpu",
        devices=devices,
        strategy="auto" if devices == 1 else DDPStrategy(find_unused_parameters=True),
        precision=config.precision,
    )
    fabric.launch()
    picture = out / PICTURE if fabric.is_global_zero else None
    validate = validation_on(held_out, range(validation_count), VALIDATION_BATCH, fabric.device, picture)
    with _Teller(config.steps, out, quiet=not fabric.is_global_zero) as teller:
        return fit(task, sam, train_set, validate, config, out, fabric, teller.listen, origin)


def training_seed(config: TrainConfig) -> int:
    """Of the images to train on: even, so that none is ever validated on."""
    return 2 * config.seed


def validation_seed(config: TrainConfig) -> int:
    """Of the images to validate on: odd."""
    return 2 * config.seed + 1


class _Teller:
    """Shows progress on the terminal, and writes TensorBoard's files."""

    def __init__(self, steps: int, out: Path, quiet: bool) -> None:
        self.steps, self.out, self.quiet = steps, out, quiet
        self.console = Console(stderr=True, quiet=quiet)
        self.bar = Bar(
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeRemainingColumn(),
            console=self.console,
            disable=quiet,
        )

    def __enter__(self) -> _Teller:
        self.writer = None if self.quiet else _summary_writer(self.out)
        self.bar.start()
        self.task = self.bar.add_task("training", total=self.steps)
        return self

    def __exit__(self, *exc: object) -> None:
        self.bar.stop()
        if self.writer:
            self.writer.close()

    def listen(self, kind: str, what: dict[str, Any]) -> None:
        """Hears of a step, a validation or a note."""
        if kind == "note":
            self.console.print(what["text"])
            return
        step = what["step"]
        if self.writer:
            for name, value in what.items():
                if name != "step":
                    self.writer.add_scalar(f"{kind}/{name}", value, step)
        if kind == "step":
            self.bar.update(self.task, completed=step, description=f"loss {what['loss']:.3f}")
        else:
            self.console.print(f"step {step}: " + ", ".join(f"{k} {v:.4f}" for k, v in what.items() if k != "step"))


def _summary_writer(folder: Path) -> Any:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from torch.utils.tensorboard import SummaryWriter
    return SummaryWriter(str(folder))
