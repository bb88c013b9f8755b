"""Correlated noise on small grids, brought up by interpolation: cheap, and smooth at a chosen scale."""

from __future__ import annotations

import math

import cv2
import numpy as np
from numpy.typing import NDArray

Field = NDArray[np.float32]
Mask = NDArray[np.bool_]


def smooth_noise(rng: np.random.Generator, shape: tuple[int, int], cell_px: float, aspect: float = 1.0) -> Field:
    """Noise of about unit variance, float32 (h, w), whose grain is `cell_px` high and `cell_px * aspect` wide."""
    height, width = shape
    rows = max(2, math.ceil(height / cell_px) + 1)
    columns = max(2, math.ceil(width / (cell_px * aspect)) + 1)
    grid: Field = rng.standard_normal((min(rows, height), min(columns, width)), dtype=np.float32)
    if cell_px >= 12:  # smooth at a quarter of the resolution: from there, linear is as good and much faster
        size = (max(2, width // 4), max(2, height // 4))
        grid = np.asarray(cv2.resize(grid, size, interpolation=cv2.INTER_CUBIC), np.float32)
    return np.asarray(cv2.resize(grid, (width, height), interpolation=cv2.INTER_LINEAR), np.float32)


def fractal_noise(rng: np.random.Generator, shape: tuple[int, int], cell_px: float, octaves: int = 3) -> Field:
    """Sum of `octaves` noises, each half as coarse and 0.6 times as strong as the one before, float32 (h, w)."""
    total = smooth_noise(rng, shape, cell_px)
    for octave in range(1, octaves):
        total += np.float32(0.6**octave) * smooth_noise(rng, shape, max(1.0, cell_px / 2**octave))
    return total


def fibres(rng: np.random.Generator, shape: tuple[int, int], cell_px: float) -> Field:
    """Noise drawn out along a random direction, as in muscle, float32 (h, w)."""
    side = int(1.5 * max(shape))
    straight = smooth_noise(rng, (side, side), cell_px, aspect=rng.uniform(4, 10))
    turn = cv2.getRotationMatrix2D((side / 2, side / 2), rng.uniform(0, 180), 1.0)
    turn[:, 2] -= np.array([(side - shape[1]) / 2, (side - shape[0]) / 2])
    return np.asarray(cv2.warpAffine(straight, turn, (shape[1], shape[0]), borderMode=cv2.BORDER_REFLECT), np.float32)


def log_uniform(rng: np.random.Generator, low: float, high: float) -> float:
    """A number in [low, high), low > 0, whose logarithm is uniform."""
    return math.exp(rng.uniform(math.log(low), math.log(high)))


def chance(rng: np.random.Generator, probability: float) -> bool:
    """True with this probability."""
    return bool(rng.random() < probability)


def pixel_grid(shape: tuple[int, int]) -> tuple[Field, Field]:
    """(y, x) of the pixels, float32, (h, 1) and (1, w), from -1 to 1."""
    y = np.linspace(-1, 1, shape[0], dtype=np.float32)[:, None]
    x = np.linspace(-1, 1, shape[1], dtype=np.float32)[None, :]
    return y, x
