"""Scenes: what is painted on the canvas, in an order in which later parts hide earlier ones."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import cast

import cv2
import numpy as np
from numpy.typing import NDArray

from zoo.data.synthetic.canvas import Canvas, Tissue, fractional, paint_cells, populate, random_pixel
from zoo.data.synthetic.noise import Mask, chance, fractal_noise, log_uniform
from zoo.data.synthetic.shapes import CIRCLE, Outline, fill, organ, place, random_shape, star, superellipse, voronoi
from zoo.data.synthetic.solids import Plane, random_cut, superellipsoid

Scene = Callable[[Canvas, np.random.Generator], None]


def scaled(outline: Outline, factor: float) -> Outline:
    """An outline shrunk or grown about its middle."""
    middle = outline.mean(0)
    return middle + (outline - middle) * factor


def body_outline(canvas: Canvas, rng: np.random.Generator) -> Outline:
    """An upright oval that fills most of the canvas, (N, 2) of x, y in pixels."""
    height, width = canvas.shape
    curve = superellipse(rng, rng.uniform(1.8, 3)) * (1 + rng.normal(0, 0.02, (len(CIRCLE), 1)).cumsum(0) * 0)
    curve = curve * (np.linalg.norm(star(rng, 0.06), axis=1, keepdims=True))
    half = np.array([width, height]) * rng.uniform(0.4, 0.5, 2)
    return np.array([width, height]) / 2 + rng.normal(0, 0.02, 2) * canvas.side + curve * half


def torso(canvas: Canvas, rng: np.random.Generator) -> None:
    """A trunk: fat, muscle, ribs, spine and a cavity of organs, some with lungs."""
    outline = body_outline(canvas, rng)
    canvas.paint(fill(canvas.shape, outline), "fat", False)
    inner = scaled(outline, rng.uniform(0.78, 0.96))
    canvas.paint(fill(canvas.shape, inner), "muscle", chance(rng, 0.3))
    core = scaled(inner, rng.uniform(0.82, 0.94))
    cavity = fill(canvas.shape, core)
    canvas.paint(cavity, "fat" if chance(rng, 0.6) else "organ", False)
    if chance(rng, 0.35):
        _lungs(canvas, rng, cavity)
    populate(canvas, rng, cavity, int(rng.integers(4, 16)), (0.03, 0.28))
    _ribs(canvas, rng, scaled(inner, (1 + rng.uniform(0.86, 0.94)) / 2))
    if chance(rng, 0.8):
        _vertebra(canvas, rng, (float(core[:, 1].max()), float(core[:, 0].mean())))


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


def head(canvas: Canvas, rng: np.random.Generator) -> None:
    """A head: scalp, skull, cortex with folds, white matter, parcels, paired deep structures and ventricles."""
    outline = body_outline(canvas, rng)
    if chance(rng, 0.6):
        canvas.paint(fill(canvas.shape, outline), "fat", False)
        canvas.paint(fill(canvas.shape, scaled(outline, 0.95)), "bone", chance(rng, 0.4))
        outline = scaled(outline, rng.uniform(0.84, 0.91))
        canvas.paint(fill(canvas.shape, outline), "fluid", False)
    brain = fill(canvas.shape, scaled(outline, rng.uniform(0.92, 0.98)))
    depth = cv2.distanceTransform(brain.view(np.uint8), cv2.DIST_L2, 3)
    folds = fractal_noise(rng, canvas.shape, canvas.side * rng.uniform(0.04, 0.1), 2)
    thickness = canvas.side * rng.uniform(0.03, 0.08)
    if chance(rng, 0.6):
        canvas.paint(brain, "grey", chance(rng, 0.8))
    else:
        seeds = np.stack([rng.integers(0, s, int(rng.integers(8, 30))) for s in canvas.shape], axis=1)
        paint_cells(canvas, rng, voronoi(rng, canvas.shape, seeds), brain, lambda: "grey")
    white = np.asarray(depth > thickness * (1 + np.float32(0.7) * folds))
    halves = (brain, brain) if chance(rng, 0.5) else _halves(canvas, outline)
    for half in halves[:1] if halves[0] is brain else halves:
        canvas.paint(white, "white", chance(rng, 0.8), half)
    _pairs(canvas, rng, brain, float(outline[:, 0].mean()), int(rng.integers(2, 9)))
    if chance(rng, 0.6):
        populate(canvas, rng, brain, int(rng.integers(1, 6)), (0.015, 0.1), ("lesion", "grey", "fluid"))


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


def mosaic(canvas: Canvas, rng: np.random.Generator) -> None:
    """Tissue parted into touching neighbours, with or without a surround, and shapes over it."""
    inside = np.ones(canvas.shape, np.bool_)
    if chance(rng, 0.7):
        inside = random_shape(rng, canvas.shape, _middle(canvas), canvas.side * rng.uniform(0.35, 0.7))
    seeds = np.stack([rng.integers(0, s, int(rng.integers(4, 26))) for s in canvas.shape], axis=1)
    tissues: tuple[Tissue, ...] = ("organ", "muscle", "grey", "white", "fluid", "fat", "bone")
    paint_cells(canvas, rng, voronoi(rng, canvas.shape, seeds), inside, lambda: tissues[int(rng.integers(7))])
    populate(canvas, rng, inside, int(rng.integers(0, 6)), (0.02, 0.15))


def lesions(canvas: Canvas, rng: np.random.Generator) -> None:
    """One to five things, from tiny to most of the image, in structured surroundings."""
    everywhere = np.ones(canvas.shape, np.bool_)
    canvas.paint(everywhere, "muscle", False)
    for level in sorted(rng.uniform(0.3, 0.9, int(rng.integers(0, 3)))):
        layer = fractional(fractal_noise(rng, canvas.shape, canvas.side * rng.uniform(0.2, 0.6), 2), float(level))
        canvas.paint(layer, "fat", False)
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
