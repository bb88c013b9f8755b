"""A head with its brain, and a spine seen from the side."""

from __future__ import annotations

import math

import cv2
import numpy as np

from zoo.data.synthetic.canvas import Canvas, Tissue, paint_cells, populate
from zoo.data.synthetic.noise import Mask, chance, fractal_noise, log_uniform, smooth_noise
from zoo.data.synthetic.scenes import body_outline, scaled
from zoo.data.synthetic.shapes import CIRCLE, Outline, fill, place, random_shape, superellipse, voronoi


def head(canvas: Canvas, rng: np.random.Generator) -> None:
    """A head: scalp, skull, cortex with folds, white matter, parcels, paired deep structures and ventricles."""
    outline = body_outline(canvas, rng)
    if chance(rng, 0.6):
        canvas.paint(fill(canvas.shape, outline), "fat", False)
        canvas.paint(fill(canvas.shape, scaled(outline, 0.95)), "bone", chance(rng, 0.4))
        outline = scaled(outline, rng.uniform(0.84, 0.91))
        canvas.paint(fill(canvas.shape, outline), "fluid", False)
    brain = fill(canvas.shape, scaled(outline, rng.uniform(0.92, 0.98)))
    if chance(rng, 0.6):
        canvas.paint(brain, "grey", chance(rng, 0.8))
    else:
        seeds = rng.integers(0, canvas.shape, (int(rng.integers(8, 30)), 2))
        paint_cells(canvas, rng, voronoi(rng, canvas.shape, seeds), brain, lambda: "grey")
    white = _white_matter(canvas, rng, brain)
    halves = (brain, brain) if chance(rng, 0.5) else _halves(canvas, outline)
    for half in halves[:1] if halves[0] is brain else halves:
        canvas.paint(white, "white", chance(rng, 0.8), half)
    _pairs(canvas, rng, brain, float(outline[:, 0].mean()), int(rng.integers(2, 9)))
    if chance(rng, 0.6):
        populate(canvas, rng, brain, int(rng.integers(1, 6)), (0.015, 0.1), ("lesion", "grey", "fluid"))


def _white_matter(canvas: Canvas, rng: np.random.Generator, brain: Mask) -> Mask:
    """What the cortex leaves of the brain; half of the time with deep folds, whose sulci are painted."""
    depth = np.asarray(cv2.distanceTransform(brain.view(np.uint8), cv2.DIST_L2, 3), np.float32)
    thickness = np.float32(canvas.side * rng.uniform(0.02, 0.06))
    if chance(rng, 0.5):
        folds = fractal_noise(rng, canvas.shape, canvas.side * rng.uniform(0.04, 0.1), 2)
        return np.asarray(brain & (depth > thickness * (1 + np.float32(0.7) * folds)))
    thickness *= np.float32(0.6)
    folds = np.abs(smooth_noise(rng, canvas.shape, canvas.side * rng.uniform(0.06, 0.12)))
    deep = depth > thickness * np.float32(rng.uniform(4, 9))
    canvas.paint(brain & ~deep & (folds < np.float32(rng.uniform(0.05, 0.15))), "fluid", False)
    return np.asarray(brain & (depth > thickness) & ((folds > np.float32(rng.uniform(0.25, 0.5))) | deep))


def _halves(canvas: Canvas, outline: Outline) -> tuple[Mask, Mask]:
    """Left and right of an outline's middle."""
    left = np.zeros(canvas.shape, np.bool_)
    left[:, : round(float(outline[:, 0].mean()))] = True
    return left, ~left


def _pairs(canvas: Canvas, rng: np.random.Generator, inside: Mask, middle: float, count: int) -> None:
    """Structures that occur left and right, near the middle, as two labels or as one."""
    for _ in range(count):
        radius = canvas.side * log_uniform(rng, 0.02, 0.12)
        reach = radius * 0.8 + canvas.side * rng.uniform(0, 0.16)
        mask = random_shape(rng, canvas.shape, (canvas.shape[0] * rng.uniform(0.3, 0.7), middle - reach), radius)
        shift = np.array([[-1, 0, 2 * middle], [0, 1, rng.normal(0, 1)]], np.float32)
        size = canvas.shape[::-1]
        mirrored = cv2.warpAffine(mask.view(np.uint8), shift, size, flags=cv2.INTER_NEAREST).view(np.bool_)
        tissue: Tissue = "fluid" if chance(rng, 0.3) else "grey"
        labelled = chance(rng, 0.9)
        for one in (mask | mirrored,) if chance(rng, 0.3) else (mask, mirrored):
            canvas.paint(one, tissue, labelled, inside)


def spine(canvas: Canvas, rng: np.random.Generator) -> None:
    """A sagittal row of vertebrae and discs that touch, with a canal behind, among soft tissue."""
    canvas.paint(fill(canvas.shape, body_outline(canvas, rng)), "fat", False)
    everywhere = np.ones(canvas.shape, np.bool_)
    populate(canvas, rng, everywhere, int(rng.integers(2, 7)), (0.05, 0.3), labelled=0.5)
    count, height = int(rng.integers(4, 10)), canvas.shape[0]
    pitch = height / count
    width = pitch * rng.uniform(0.5, 1.1)
    phase, sway = rng.uniform(0, 6), canvas.shape[1] * rng.uniform(0.02, 0.1)
    middle = canvas.shape[1] * rng.uniform(0.35, 0.65)
    line = [(middle + sway * math.sin(phase + 4 * y / height), y) for y in np.linspace(-10, height + 10, 24)]
    canal = np.array([(x + 0.5 * width + 0.16 * pitch, y) for x, y in line])
    mask = np.zeros(canvas.shape, np.uint8)
    cv2.polylines(mask, [np.round(canal).astype(np.int32)], False, 1, max(2, round(0.3 * pitch)))
    canvas.paint(mask.view(np.bool_), "fluid", chance(rng, 0.8))
    gap, labelled_discs = rng.uniform(0.1, 0.3), 0.8 if chance(rng, 0.6) else 0.0
    for i in range(count + 1):
        y = (i + rng.uniform(-0.05, 0.05)) * pitch
        centre = np.array([middle + sway * math.sin(phase + 4 * y / height), y])
        half = np.array([width / 2, pitch * (1 - gap) / 2]) * rng.uniform(0.92, 1.05, 2)
        disc = superellipse(rng, 2.5) * (half[0], pitch * gap / 2 + 1) + centre + (0, pitch / 2)
        canvas.paint(fill(canvas.shape, disc), "organ", chance(rng, labelled_discs))
        canvas.paint(fill(canvas.shape, superellipse(rng, rng.uniform(3, 6)) * half + centre), "bone", chance(rng, 0.9))
        process = place(rng, CIRCLE, (y + 0.3 * pitch, float(centre[0] + width)), 0.45 * pitch, 0.35)
        canvas.paint(fill(canvas.shape, process), "bone", chance(rng, 0.4))
