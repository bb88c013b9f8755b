"""Scenes: what is painted on the canvas, in an order in which later parts hide earlier ones."""

from __future__ import annotations

from collections.abc import Callable
from typing import cast

import numpy as np
from numpy.typing import NDArray

from zoo.data.synthetic.canvas import Canvas, Tissue, fractional, paint_cells, populate, random_pixel
from zoo.data.synthetic.noise import chance, fractal_noise, log_uniform
from zoo.data.synthetic.shapes import CIRCLE, Outline, fill, random_shape, star, superellipse, voronoi
from zoo.data.synthetic.solids import Plane, random_cut, superellipsoid

Scene = Callable[[Canvas, np.random.Generator], None]


def scaled(outline: Outline, factor: float) -> Outline:
    """An outline shrunk or grown about its middle."""
    middle = outline.mean(0)
    return middle + (outline - middle) * factor


def body_outline(canvas: Canvas, rng: np.random.Generator) -> Outline:
    """An upright oval that fills most of the canvas, (N, 2) of x, y in pixels."""
    height, width = canvas.shape
    curve = superellipse(rng, rng.uniform(1.8, 3))
    curve = curve * np.linalg.norm(star(rng, 0.06), axis=1, keepdims=True)
    half = np.array([width, height]) * rng.uniform(0.4, 0.5, 2)
    return np.array([width, height]) / 2 + rng.normal(0, 0.02, 2) * canvas.side + curve * half


def slice3d(canvas: Canvas, rng: np.random.Generator) -> None:
    """A plane through a 3D scene: a body, organs in it, parts in the organs."""
    plane = Plane(rng, canvas.shape)
    inside = np.ones(canvas.shape, np.bool_)
    if chance(rng, 0.8):
        centre = rng.normal(0, 0.05, 3).astype(np.float32)
        body = plane.cut(rng, superellipsoid, centre, rng.uniform(0.9, 1.2), 0.7)
        if canvas.paint(body, "fat", False):
            inside = body
    tissues: tuple[Tissue, ...] = ("organ", "organ", "muscle", "fluid", "bone", "vessel", "gas", "grey")
    for _ in range(rng.integers(5, 15)):
        mask = random_cut(rng, plane, inside)
        index = canvas.paint(mask, tissues[int(rng.integers(len(tissues)))], chance(rng, 0.8))
        if index and chance(rng, 0.35):
            canvas.paint(random_cut(rng, plane, mask), "lesion", chance(rng, 0.8))


def mosaic(canvas: Canvas, rng: np.random.Generator) -> None:
    """Tissue parted into touching neighbours, with or without a surround, and shapes over it."""
    inside = np.ones(canvas.shape, np.bool_)
    if chance(rng, 0.7):
        inside = random_shape(rng, canvas.shape, _middle(canvas), canvas.side * rng.uniform(0.35, 0.7))
    seeds = rng.integers(0, canvas.shape, (int(rng.integers(4, 26)), 2))
    tissues: tuple[Tissue, ...] = ("organ", "muscle", "grey", "white", "fluid", "fat", "bone")
    paint_cells(canvas, rng, voronoi(rng, canvas.shape, seeds), inside, lambda: tissues[int(rng.integers(7))])
    populate(canvas, rng, inside, int(rng.integers(0, 6)), (0.02, 0.15))


def paint_layers(canvas: Canvas, rng: np.random.Generator, tissue: Tissue, cells: tuple[float, float]) -> None:
    """None to two ragged layers over the whole canvas, their patches within `cells` sides across: a mottled ground."""
    for level in sorted(rng.uniform(0.3, 0.9, int(rng.integers(0, 3)))):
        layer = fractional(fractal_noise(rng, canvas.shape, canvas.side * rng.uniform(*cells), 2), float(level))
        canvas.paint(layer, tissue, False)


def lesions(canvas: Canvas, rng: np.random.Generator) -> None:
    """One to five things, from tiny to most of the image, in structured surroundings."""
    everywhere = np.ones(canvas.shape, np.bool_)
    canvas.paint(everywhere, "muscle", False)
    paint_layers(canvas, rng, "fat", (0.2, 0.6))
    populate(canvas, rng, everywhere, int(rng.integers(0, 5)), (0.02, 0.12), labelled=0.0)
    centred = everywhere & fill(canvas.shape, CIRCLE * canvas.side * 0.25 + np.array(_middle(canvas)[::-1]))
    count = 1 if chance(rng, 0.5) else int(rng.integers(2, 6))
    top = 0.55 if count == 1 else 0.2
    for _ in range(count):
        tissue = cast(Tissue, rng.choice(["lesion", "organ", "fluid"]))
        radius = canvas.side * log_uniform(rng, 0.05, top)
        mask = random_shape(rng, canvas.shape, random_pixel(rng, centred if count == 1 else everywhere), radius)
        index = canvas.paint(mask, tissue, True)
        if index and chance(rng, 0.4):
            populate(canvas, rng, canvas.seen(index), 2, (0.02, 0.12), ("lesion", "vessel"), labelled=0.5)


def _middle(canvas: Canvas) -> tuple[float, float]:
    """(y, x) of the canvas' middle."""
    return canvas.shape[0] / 2, canvas.shape[1] / 2


def vertices(rng: np.random.Generator, shape: tuple[int, int], pitch: float) -> NDArray[np.float64]:
    """Points (N, 2) of y, x on a jittered grid of this pitch in pixels."""
    rows, columns = max(2, round(shape[0] / pitch)), max(2, round(shape[1] / pitch))
    grid = np.stack(np.meshgrid(np.arange(rows) + 0.5, np.arange(columns) + 0.5, indexing="ij"), axis=-1).reshape(-1, 2)
    return (grid + rng.uniform(-0.4, 0.4, grid.shape)) * (shape[0] / rows, shape[1] / columns)
