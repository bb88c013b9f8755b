"""Which weights a model holds: a checkpoint's hash, or the seed of random ones."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import nn

from zoo.errors import InputError

#: The greatest that torch's generator takes.
MOST_SEED = 2**64 - 1


@dataclass(frozen=True)
class WeightsId:
    """Which weights a model holds.

    Attributes:
        name: the checkpoint's file name, or `random:SEED`.
        sha256: of the file, or of the random state dict's keys and values.
        trained: whether they come from a checkpoint; random weights have no accuracy to speak of.
    """

    name: str
    sha256: str
    trained: bool


@contextmanager
def seeded(seed: int) -> Iterator[None]:
    """Draws torch's CPU random numbers from `seed`, and leaves the caller's generator as it was."""
    with torch.random.fork_rng(devices=[]):
        # Not torch.manual_seed, which seeds the generators of GPUs, too.
        torch.default_generator.manual_seed(seed)
        yield


def random_seed_of(weights: str | Path) -> int | None:
    """SEED where `weights` is `random:SEED`, 0 where it is `random` alone; None where it names a checkpoint.

    Raises:
        InputError: a SEED that is no whole number, or too large.
    """
    kind, _, seed = str(weights).partition(":")
    if kind != "random":
        return None
    if not (seed or "0").isdecimal() or int(seed or "0") > MOST_SEED:
        raise InputError("weights", f"{weights!r}", f"random:SEED with a whole number up to {MOST_SEED}")
    return int(seed or "0")


def identify(module: nn.Module, name: str) -> WeightsId:
    """Identity, under `name`, of weights that are random at least in part."""
    digest = hashlib.sha256()
    for key, value in sorted(module.state_dict().items()):
        digest.update(key.encode())
        digest.update(value.numpy().tobytes())
    return WeightsId(name, digest.hexdigest(), trained=False)
