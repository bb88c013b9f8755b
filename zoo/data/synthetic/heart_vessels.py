"""A heart cut across its long axis, and a tree of vessels that spans the image."""

from __future__ import annotations

import numpy as np

from zoo.data.synthetic.canvas import Canvas, Tissue, populate
from zoo.data.synthetic.noise import Mask, chance, log_uniform
from zoo.data.synthetic.scenes import body_outline, paint_layers, scaled
from zoo.data.synthetic.shapes import CIRCLE, fill, organ, place, star, tube


def short_axis(canvas: Canvas, rng: np.random.Generator) -> None:
    """A left ventricle: a ring of muscle around blood, the right one's crescent beside it, among lung, fat and more."""
    everywhere = np.ones(canvas.shape, np.bool_)
    inside = everywhere
    if chance(rng, 0.7):
        inside = fill(canvas.shape, body_outline(canvas, rng))
        canvas.paint(inside, "fat", False)
    around: tuple[Tissue, ...] = ("gas", "organ", "muscle", "fluid", "fat", "vessel")
    populate(canvas, rng, inside, int(rng.integers(3, 10)), (0.05, 0.35), around, labelled=0.3)
    radius = canvas.side * log_uniform(rng, 0.05, 0.22)
    at = (canvas.shape[0] * rng.uniform(0.3, 0.7), canvas.shape[1] * rng.uniform(0.3, 0.7))
    outer = place(rng, star(rng, 0.06), at, radius, rng.uniform(0.8, 1))
    middle, towards = outer.mean(0), rng.uniform(0, 2 * np.pi)
    if chance(rng, 0.8):
        beside = middle + 0.85 * radius * np.array([np.cos(towards), np.sin(towards)])
        right = place(rng, star(rng, 0.15), (float(beside[1]), float(beside[0])), 1.15 * radius, rng.uniform(0.6, 1))
        canvas.paint(fill(canvas.shape, right), "vessel", chance(rng, 0.8))
    if chance(rng, 0.25):
        canvas.paint(fill(canvas.shape, scaled(outer, rng.uniform(1.05, 1.2))), "fat", False)
    canvas.paint(fill(canvas.shape, outer), "muscle", chance(rng, 0.9))
    inner = scaled(outer, rng.uniform(0.5, 0.88)) + rng.normal(0, 0.02, 2) * radius
    pool = fill(canvas.shape, inner)
    canvas.paint(pool, "vessel", chance(rng, 0.8))
    for _ in range(rng.integers(0, 5)):
        angle, size = rng.uniform(0, 2 * np.pi), radius * rng.uniform(0.06, 0.2)
        near = middle + (inner.mean(0) - middle) + 0.45 * radius * np.array([np.cos(angle), np.sin(angle)])
        canvas.paint(fill(canvas.shape, CIRCLE * size + near), "muscle", False, pool)


def vasculature(canvas: Canvas, rng: np.random.Generator) -> None:
    """Vessels all over a mottled ground, the large ones one object of the task: angiography of any kind."""
    everywhere = np.ones(canvas.shape, np.bool_)
    canvas.paint(everywhere, "organ", False)
    paint_layers(canvas, rng, "grey", (0.1, 0.5))
    if chance(rng, 0.4):
        at = (float(rng.uniform(0, canvas.shape[0])), float(rng.uniform(0, canvas.shape[1])))
        canvas.paint(organ(rng, canvas.shape, at, canvas.side * rng.uniform(0.05, 0.15)), "fluid", chance(rng, 0.5))
    canvas.paint(_tree(canvas, rng, int(rng.integers(3, 14)), (0.006, 0.022)), "vessel", True)
    if chance(rng, 0.6):
        capillaries = _tree(canvas, rng, int(rng.integers(4, 16)), (0.003, 0.006))
        canvas.paint(capillaries & (canvas.region != len(canvas.parts) - 1), "vessel", False)


def _tree(canvas: Canvas, rng: np.random.Generator, count: int, calibres: tuple[float, float]) -> Mask:
    """Branching tubes, their width in sides within `calibres`."""
    found = np.zeros(canvas.shape, np.bool_)
    for _ in range(count):
        at = (float(rng.uniform(0, canvas.shape[0])), float(rng.uniform(0, canvas.shape[1])))
        calibre = max(1.0, canvas.side * log_uniform(rng, *calibres))
        found |= tube(rng, canvas.shape, at, canvas.side * rng.uniform(0.15, 0.5), calibre)
    return found
