"""A trunk, cut across: fat, muscle, ribs, spine, and a cavity full of organs or lungs."""

from __future__ import annotations

import cv2
import numpy as np

from zoo.data.synthetic.canvas import Canvas, Tissue, paint_cells, populate
from zoo.data.synthetic.noise import Mask, chance
from zoo.data.synthetic.scenes import body_outline, scaled, vertices
from zoo.data.synthetic.shapes import CIRCLE, Outline, fill, organ, place, star, superellipse, voronoi


def torso(canvas: Canvas, rng: np.random.Generator) -> None:
    """A trunk: fat, muscle, ribs, spine and a cavity of organs, some with lungs, some on a table."""
    if chance(rng, 0.25):
        _table(canvas, rng)
    outline = body_outline(canvas, rng)
    canvas.paint(fill(canvas.shape, outline), "fat", False)
    inner = scaled(outline, rng.uniform(0.78, 0.96))
    canvas.paint(fill(canvas.shape, inner), "muscle", chance(rng, 0.3))
    core = scaled(inner, rng.uniform(0.82, 0.94))
    cavity = fill(canvas.shape, core)
    canvas.paint(cavity, "fat" if chance(rng, 0.6) else "organ", False)
    if chance(rng, 0.35):
        _lungs(canvas, rng, cavity)
    elif chance(rng, 0.4):
        _packed(canvas, rng, cavity)
    populate(canvas, rng, cavity, int(rng.integers(4, 14)), (0.03, 0.25))
    _ribs(canvas, rng, scaled(inner, (1 + rng.uniform(0.86, 0.94)) / 2))
    if chance(rng, 0.8):
        _vertebra(canvas, rng, (float(core[:, 1].max()), float(core[:, 0].mean())))


def _table(canvas: Canvas, rng: np.random.Generator) -> None:
    """A thin line below the patient."""
    x = np.linspace(-0.1, 1.1, 16)
    y = rng.uniform(0.9, 0.99) + rng.uniform(-0.3, 0.1) * (x - 0.5) ** 2
    line = np.round(np.stack([x, y], axis=1) * canvas.shape[::-1] * 8).astype(np.int32)
    mask = np.zeros(canvas.shape, np.uint8)
    cv2.polylines(mask, [line], False, 1, int(rng.integers(1, 4)), shift=3)
    canvas.paint(mask.view(np.bool_), "organ", False)


def _packed(canvas: Canvas, rng: np.random.Generator, cavity: Mask) -> None:
    """Organs that fill the cavity and touch each other, some gaps filled by fat."""
    seeds = vertices(rng, canvas.shape, canvas.side * rng.uniform(0.18, 0.4)).astype(np.int64)
    tissues: tuple[Tissue, ...] = ("organ", "organ", "muscle", "fat", "fluid", "vessel")
    paint_cells(canvas, rng, voronoi(rng, canvas.shape, seeds), cavity, lambda: tissues[int(rng.integers(6))])


def _lungs(canvas: Canvas, rng: np.random.Generator, cavity: Mask) -> None:
    """Two dark lobes with vessels in them."""
    height, width = canvas.shape
    for side in (0.27, 0.73):
        outline = star(rng, 0.15) * np.array([0.2, 0.32]) * rng.uniform(0.8, 1.1)
        centre = np.array([side, 0.47]) + rng.normal(0, 0.02, 2)
        index = canvas.paint(fill(canvas.shape, (centre + outline) * (width, height)), "gas", chance(rng, 0.8), cavity)
        if index:
            inside = canvas.seen(index)
            populate(canvas, rng, inside, int(rng.integers(2, 9)), (0.006, 0.05), ("vessel", "lesion"), labelled=0.3)


def _ribs(canvas: Canvas, rng: np.random.Generator, ring: Outline) -> None:
    """Short thick arcs along the wall."""
    size = canvas.side * rng.uniform(0.012, 0.03)
    labelled = 0.6 if chance(rng, 0.5) else 0.0
    for _ in range(rng.integers(0, 14)):
        start, span = int(rng.integers(len(ring))), int(rng.integers(2, 9))
        mask = np.zeros(canvas.shape, np.uint8)
        arc = np.take(ring, range(start, start + span), axis=0, mode="wrap")
        cv2.polylines(mask, [np.round(arc * 8).astype(np.int32)], False, 1, max(2, round(size)), shift=3)
        canvas.paint(mask.view(np.bool_), "bone", chance(rng, labelled))


def _vertebra(canvas: Canvas, rng: np.random.Generator, back: tuple[float, float]) -> None:
    """Body, arch around the canal, and spinous process, one label or two, between two muscles."""
    size = canvas.side * rng.uniform(0.05, 0.1)
    y, x = back[0] - size * rng.uniform(0.8, 2.2), back[1]
    for sign in (-1, 1):
        mask = organ(rng, canvas.shape, (y + 0.6 * size, x + sign * 1.3 * size), size * rng.uniform(0.7, 1.3))
        canvas.paint(mask, "muscle", chance(rng, 0.7))
    arch = superellipse(rng, rng.uniform(0.6, 1.1)) * (1.1 * size, size) + (x, y + 0.8 * size)
    mask = fill(canvas.shape, place(rng, CIRCLE, (y - 0.4 * size, x), size * 0.8, rng.uniform(0.8, 1)))
    canvas.paint(mask | fill(canvas.shape, arch), "bone", chance(rng, 0.8))
    canal = CIRCLE * size * rng.uniform(0.2, 0.35) + (x, y + 0.55 * size)
    canvas.paint(fill(canvas.shape, canal), "fluid", chance(rng, 0.6))
