"""The processes of a run, their devices and arithmetic, and what they must agree on."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

import torch
from lightning_fabric import Fabric
from lightning_fabric.plugins.precision import MixedPrecision, Precision
from lightning_fabric.strategies.ddp import DDPStrategy

from compress.training.config import TrainConfig
from zoo.errors import InputError

T = TypeVar("T")


def process_count(devices: int | None) -> int:
    """How many processes or GPUs train: `devices`, else as many as torchrun has started, else one.

    Raises:
        InputError: torchrun has started another number.
    """
    started = int(os.environ.get("WORLD_SIZE", 0))
    if devices and started and devices != started:
        raise InputError("--devices", f"{devices} under torchrun with {started}", f"{started}, or leave it out")
    return devices or started or 1


def launch(config: TrainConfig, devices: int) -> Fabric:
    """The processes, devices and precision of a run."""
    fabric = Fabric(
        accelerator="auto" if torch.cuda.is_available() else "cpu",
        devices=devices,
        strategy="auto" if devices == 1 else DDPStrategy(find_unused_parameters=True),
        plugins=_arithmetic(config),
    )
    fabric.launch()
    return fabric


def highest(fabric: Fabric, value: float) -> float:
    """The highest of the processes' values: all stop after the same step, or they would wait for each other."""
    if fabric.world_size == 1:
        return value
    found: Any = fabric.all_reduce(torch.tensor(float(value), device=fabric.device), reduce_op="max")
    return float(found)


def means(fabric: Fabric, numbers: Mapping[str, float]) -> dict[str, float]:
    """Each number's mean over the processes, all of which must give the same names in the same order."""
    if fabric.world_size == 1:
        return dict(numbers)
    own = torch.tensor(list(numbers.values()), dtype=torch.float64, device=fabric.device)
    found: Any = fabric.all_reduce(own, reduce_op="mean")
    return dict(zip(numbers, found.tolist(), strict=True))


def by_first(fabric: Fabric, do: Callable[[], T]) -> T | None:
    """Has the first process alone do something; where that fails, all of them end.

    Returns:
        What it gave; None in the others.

    Raises:
        InputError: in the others; the first raises what `do` did.
    """
    result: T | None = None
    error: Exception | None = None
    if fabric.is_global_zero:
        try:
            result = do()
        except Exception as found:
            error = found
    if highest(fabric, error is not None):
        raise error or InputError("--devices", "a failure of the first process", "see its own message")
    return result


class _Autocast(MixedPrecision):
    """Mixed precision that leaves what a model is given as it is: a box at 203.5 would be one at 204 in bfloat16."""

    def convert_input(self, data: Any) -> Any:
        """The very data."""
        return data


def _arithmetic(config: TrainConfig) -> Precision:
    """The precision of a run, on the device that it will be given."""
    if config.precision == "bf16-mixed":
        return _Autocast("bf16-mixed", "cuda" if torch.cuda.is_available() else "cpu")
    return Precision()
