"""Deterministic weights and inputs behind the golden files: a stated rule, so that no weights need to be shipped.

Each state-dict entry is drawn from a generator seeded by its key; `golden/README.md` tells where the outputs come from.
"""

from __future__ import annotations

import zlib
from collections.abc import Mapping

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor


def fill_value(key: str, shape: tuple[int, ...], seed: int = 0) -> NDArray[np.generic]:
    """The array that belongs to state-dict entry `key`."""
    rng = np.random.default_rng(zlib.crc32(f"{seed}:{key}".encode()))
    last = key.rpartition(".")[2]
    if last == "num_batches_tracked":
        return np.zeros(shape, np.int64)
    if last == "running_var":
        values = 0.5 + rng.random(shape)
    elif last == "running_mean":
        values = 0.1 * rng.standard_normal(shape)
    elif last == "bias":
        values = 0.02 * rng.standard_normal(shape)
    elif last == "positional_encoding_gaussian_matrix":
        values = rng.standard_normal(shape)
    elif last == "weight" and len(shape) == 1:
        values = 0.75 + 0.5 * rng.random(shape)
    elif last == "weight":
        values = rng.standard_normal(shape) / np.sqrt(np.prod(shape[1:]))
    else:
        values = 0.1 * rng.standard_normal(shape)
    return values.astype(np.float32)


def fill_state_dict(layout: Mapping[str, list[int]], seed: int = 0) -> dict[str, Tensor]:
    """Tensors for every `key: shape` of a layout."""
    return {key: torch.from_numpy(fill_value(key, tuple(shape), seed)) for key, shape in layout.items()}


def smooth_image(size: int, seed: int = 0) -> NDArray[np.float32]:
    """A float32 image (1, 3, size, size) in [0, 1] made of twelve plane waves."""
    rng = np.random.default_rng(1000 + seed)
    y, x = np.mgrid[0:size, 0:size].astype(np.float64) / size
    image = np.zeros((3, size, size))
    for _ in range(12):
        fx, fy = rng.uniform(0.5, 16, 2)
        phase = rng.uniform(0, 2 * np.pi, 3)
        amplitude = rng.uniform(0.3, 1.0)
        for channel in range(3):
            image[channel] += amplitude * np.sin(2 * np.pi * (fx * x + fy * y) + phase[channel])
    image -= image.min()
    image /= image.max()
    return image[None].astype(np.float32)
