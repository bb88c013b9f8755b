"""From parts to brightness: a mean, a slope and a texture for each part, neighbours told apart more or less clearly."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import get_args

import cv2
import numpy as np
from numpy.typing import NDArray

from zoo.data.synthetic.canvas import Canvas, Tissue
from zoo.data.synthetic.noise import Field, fibres, fractal_noise, log_uniform, pixel_grid, smooth_noise

#: Lowest and highest mean of a tissue in an image; the image's own draw lies between.
Priors = Mapping[Tissue, tuple[float, float]]
TISSUES: tuple[Tissue, ...] = get_args(Tissue)
ANYTHING: Priors = {tissue: (0.0, 0.08) if tissue == "air" else (0.1, 1.0) for tissue in TISSUES}


def part_means(canvas: Canvas, rng: np.random.Generator, priors: Priors, spread: float) -> Field:
    """A mean for each part, float32 (parts,).

    Parts of one tissue share a mean but for `spread` (standard deviation). A labelled part that would be lost in what
    it lies on is moved away from it, by a contrast that differs from image to image.
    """
    lows = np.array([priors[t][0] for t in TISSUES])
    highs = np.array([priors[t][1] for t in TISSUES])
    tissue_means = dict(zip(TISSUES, rng.uniform(lows, highs), strict=True))
    jitter = rng.normal(0, spread, len(canvas.parts))
    jitter[0] = 0
    means = np.array([tissue_means[p.tissue] for p in canvas.parts]) + jitter
    contrasts = log_uniform(rng, 0.04, 0.16) * rng.uniform(0.8, 2.0, means.size)
    for i, part in enumerate(canvas.parts):
        apart = means[i] - means[part.parent]
        if part.labelled and abs(apart) < contrasts[i]:
            means[i] = means[part.parent] + (contrasts[i] if apart >= 0 else -contrasts[i])
    return means.astype(np.float32)


def _mottled(rng: np.random.Generator, shape: tuple[int, int], cell_px: float) -> Field:
    """Bright islands on a darker ground."""
    islands = smooth_noise(rng, shape, cell_px) > np.float32(rng.uniform(0, 1))
    return np.where(islands, np.float32(1.2), np.float32(-0.4))


def texture_bank(rng: np.random.Generator, shape: tuple[int, int], count: int = 3) -> Field:
    """Textures of about unit variance, float32 (count, h * w): some of fine, mixed, coarse, fibrous and mottled."""
    side = max(shape)
    ways: tuple[Callable[[], Field], ...] = (
        lambda: smooth_noise(rng, shape, rng.uniform(1.3, 3)),
        lambda: fractal_noise(rng, shape, side * rng.uniform(0.04, 0.15), 3),
        lambda: smooth_noise(rng, shape, side * rng.uniform(0.1, 0.3)),
        lambda: fibres(rng, shape, rng.uniform(1.5, 4)),
        lambda: _mottled(rng, shape, side * rng.uniform(0.015, 0.05)),
    )
    picked = rng.choice(len(ways), count, replace=False, p=(0.25, 0.3, 0.2, 0.1, 0.15))
    return np.stack([ways[i]() for i in picked]).reshape(count, -1)


def part_textures(canvas: Canvas, rng: np.random.Generator, strength: float) -> Field:
    """Each part's own texture and slope, added up over the image, float32 (h, w); `strength` is their usual size."""
    count = len(canvas.parts)
    region = canvas.region
    bank = texture_bank(rng, canvas.shape)
    kind = rng.integers(len(bank), size=count) * bank.shape[1]
    amplitude = (strength * np.exp(rng.normal(0, 0.6, count))).astype(np.float32)
    slopes: NDArray[np.float32] = (rng.normal(0, 1.2 * strength, (2, count))).astype(np.float32)
    amplitude[0] *= np.float32(0.2)
    slopes[:, 0] = 0
    pixels = np.arange(region.size).reshape(region.shape)
    grain = np.take(bank.ravel(), np.take(kind, region) + pixels) * np.take(amplitude, region)
    y, x = pixel_grid(canvas.shape)
    return np.asarray(grain + np.take(slopes[0], region) * y + np.take(slopes[1], region) * x, np.float32)


def part_rinds(canvas: Canvas, rng: np.random.Generator) -> Field:
    """What parts lose of their brightness away from their border, float32 (h, w): marrow within bone, rinds, membranes.

    A part with its rind is one object: what is bright must not be taken for all of it.
    """
    count = len(canvas.parts)
    bones = np.array([part.tissue == "bone" for part in canvas.parts])
    loss = np.where(bones, rng.uniform(0.1, 0.9, count), rng.normal(0, 0.2, count))
    loss *= rng.random(count) < np.where(bones, rng.uniform(0, 1), 0.12)
    loss[0] = 0
    inside = np.ones(canvas.shape, np.uint8)
    inside[:, 1:] &= canvas.region[:, 1:] == canvas.region[:, :-1]
    inside[1:] &= canvas.region[1:] == canvas.region[:-1]
    # Where there is no border at all, OpenCV's distance is the largest number that there is.
    depth = np.minimum(cv2.distanceTransform(inside, cv2.DIST_L2, 3), canvas.side)
    rind = np.float32(-1 / (canvas.side * log_uniform(rng, 0.005, 0.03)))
    return np.take(loss.astype(np.float32), canvas.region) * (1 - np.exp(depth * rind))


def tissue_image(
    canvas: Canvas, rng: np.random.Generator, priors: Priors, spread: float = 0.05, strength: float = 0.03
) -> Field:
    """Brightness before any acquisition, about 0 to 1, float32 (h, w)."""
    means = part_means(canvas, rng, priors, spread)
    return np.take(means, canvas.region) + part_textures(canvas, rng, strength) - part_rinds(canvas, rng)
