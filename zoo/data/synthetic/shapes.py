"""2D shapes as masks: outlines that are bent and warped, lobes, tubes that branch, walls, blobs, partitions.

A shape takes the canvas (h, w), a centre (y, x) and a radius, all in pixels, and gives a mask (h, w); parts beyond the
canvas are cut off.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Mapping

import cv2
import numpy as np
from numpy.typing import NDArray

from zoo.data.synthetic.noise import Mask, chance, smooth_noise

Centre = tuple[float, float]
Outline = NDArray[np.float64]
Shape = Callable[[np.random.Generator, tuple[int, int], Centre, float], Mask]
#: Points of an outline.
POINTS = 72
#: fillPoly's fixed point: coordinates are given in 1/8 pixel.
SHIFT = 3
ANGLES = np.linspace(0, 2 * np.pi, POINTS, endpoint=False)
CIRCLE = np.stack([np.cos(ANGLES), np.sin(ANGLES)], axis=1)


def fill(shape: tuple[int, int], outline: Outline) -> Mask:
    """What lies inside an outline (N, 2) of x, y in pixels."""
    mask = np.zeros(shape, np.uint8)
    cv2.fillPoly(mask, [np.round(outline * 2**SHIFT).astype(np.int32)], 1, shift=SHIFT)
    return mask.view(np.bool_)


def superellipse(rng: np.random.Generator, power: float | None = None) -> Outline:
    """|x|^p + |y|^p = 1, from a star with hollow sides (p < 1) to nearly a square; p is drawn if not given."""
    power = rng.uniform(0.9, 5.0) if power is None else power
    return np.sign(CIRCLE) * np.abs(CIRCLE) ** (2 / power)


def star(rng: np.random.Generator, roughness: float = 0.3) -> Outline:
    """A smooth closed curve with random Fourier radii, mean radius about 1."""
    orders = np.arange(2, 9)
    strength = rng.normal(0, roughness, orders.size) / orders**1.1
    phase = rng.uniform(0, 2 * np.pi, orders.size)
    radius = 1 + (strength[:, None] * np.cos(orders[:, None] * ANGLES + phase[:, None])).sum(0)
    return CIRCLE * np.maximum(radius, 0.15)[:, None]


def place(rng: np.random.Generator, outline: Outline, centre: Centre, radius: float, aspect: float = 0.0) -> Outline:
    """Flattens (ratio `aspect`, drawn if 0), bends and turns a unit outline, and brings it to its place."""
    flat = aspect or rng.uniform(0.25, 1.0)
    x, y = outline[:, 0], outline[:, 1] * flat
    y = y + rng.normal(0, 0.45) * (1 - flat) * 1.6 * (x**2 - 0.4)
    y = y + rng.normal(0, 0.12) * np.sin(3 * x + rng.uniform(0, 6))
    angle = rng.uniform(0, 2 * np.pi)
    cos, sin = math.cos(angle), math.sin(angle)
    return np.stack([centre[1] + radius * (cos * x - sin * y), centre[0] + radius * (sin * x + cos * y)], axis=1)


def ellipse(rng: np.random.Generator, shape: tuple[int, int], centre: Centre, radius: float) -> Mask:
    """A bent ellipse or superellipse."""
    return fill(shape, place(rng, superellipse(rng) if chance(rng, 0.5) else CIRCLE, centre, radius))


def organ(rng: np.random.Generator, shape: tuple[int, int], centre: Centre, radius: float) -> Mask:
    """A smooth irregular body."""
    return fill(shape, place(rng, star(rng, rng.uniform(0.1, 0.65)), centre, radius))


def lobes(rng: np.random.Generator, shape: tuple[int, int], centre: Centre, radius: float) -> Mask:
    """A union of two to five bodies in different directions."""
    mask = np.zeros(shape, np.bool_)
    for _ in range(rng.integers(2, 6)):
        angle, reach = rng.uniform(0, 2 * np.pi), rng.uniform(0.2, 0.6) * radius
        offset = (centre[0] + reach * math.sin(angle), centre[1] + reach * math.cos(angle))
        mask |= fill(shape, place(rng, star(rng, 0.2), offset, radius * rng.uniform(0.25, 0.6)))
    return mask


def crescent(rng: np.random.Generator, shape: tuple[int, int], centre: Centre, radius: float) -> Mask:
    """A body less another that overlaps it, as organs that lie against their neighbour."""
    angle, reach = rng.uniform(0, 2 * np.pi), rng.uniform(0.5, 1.0) * radius
    other = (centre[0] + reach * math.sin(angle), centre[1] + reach * math.cos(angle))
    mask = fill(shape, place(rng, star(rng, 0.12), centre, radius, rng.uniform(0.6, 1)))
    return mask & ~fill(shape, place(rng, star(rng, 0.12), other, radius * rng.uniform(0.6, 1.1), rng.uniform(0.6, 1)))


def wall(rng: np.random.Generator, shape: tuple[int, int], centre: Centre, radius: float) -> Mask:
    """A thin or thick wall around a lumen; sometimes only an arc of it."""
    outline = place(rng, star(rng, rng.uniform(0.05, 0.35)), centre, radius, rng.uniform(0.5, 1))
    middle = outline.mean(0)
    inner = middle + (outline - middle) * rng.uniform(0.45, 0.88) + rng.normal(0, 0.05, 2) * radius
    mask = fill(shape, outline) & ~fill(shape, inner)
    if chance(rng, 0.4):
        start, span = rng.integers(POINTS), rng.integers(POINTS // 5, POINTS // 2)
        arc = np.roll(outline, -start, axis=0)[:span]
        mask &= ~fill(shape, np.concatenate([middle[None], middle + 1.5 * (arc - middle)]))
    return mask


def tube(rng: np.random.Generator, shape: tuple[int, int], centre: Centre, radius: float, width: float = 0.0) -> Mask:
    """A bent tube, its width (in pixels; drawn if 0) varying; sometimes with branches, as vessels, ducts and bowel."""
    mask = np.zeros(shape, np.uint8)
    width = width or max(1.6, radius * rng.uniform(0.08, 0.4))
    branches = 0 if chance(rng, 0.5) else int(rng.integers(1, 5))
    trunk = _walk(rng, np.array(centre[::-1]), 2 * radius, rng.uniform(0, 2 * np.pi), rng.uniform(0.1, 0.5))
    trunk -= trunk.mean(0) - np.array(centre[::-1])
    _stroke(mask, trunk, width, width * rng.uniform(0.4, 1.1))
    for _ in range(branches):
        at = int(rng.integers(2, len(trunk) - 2))
        heading = np.arctan2(*(trunk[at + 1] - trunk[at])[::-1]) + rng.choice([-1, 1]) * rng.uniform(0.4, 1.2)
        twig = _walk(rng, trunk[at], radius * rng.uniform(0.4, 1.2), float(heading), 0.3)
        _stroke(mask, twig, width * 0.7, width * 0.3)
    return mask.view(np.bool_)


def _walk(rng: np.random.Generator, start: Outline, length: float, heading: float, bend: float) -> Outline:
    """Sixteen points of a smooth random walk in x, y."""
    headings = heading + np.cumsum(np.cumsum(rng.normal(0, bend * 0.4, 15)) * 0.6 + rng.normal(0, bend * 0.6, 15))
    steps = np.stack([np.cos(headings), np.sin(headings)], axis=1) * (length / 15)
    return start + np.concatenate([np.zeros((1, 2)), np.cumsum(steps, axis=0)])


def _stroke(mask: NDArray[np.uint8], line: Outline, width_start: float, width_end: float) -> None:
    """Draws a line whose width changes from its start to its end."""
    points = np.round(line * 2**SHIFT).astype(np.int32)
    for i, (a, b) in enumerate(itertools.pairwise(points)):
        width = width_start + (width_end - width_start) * i / (len(points) - 2)
        cv2.line(mask, a.tolist(), b.tolist(), 1, max(1, round(width)), shift=SHIFT)


def blob(rng: np.random.Generator, shape: tuple[int, int], centre: Centre, radius: float) -> Mask:
    """Correlated noise above a threshold that rises away from the centre: ragged, with holes and islands."""
    top, left = int(centre[0] - radius), int(centre[1] - radius)
    side = max(4, int(2 * radius))
    axis = np.linspace(-1, 1, side, dtype=np.float32)
    noise = smooth_noise(rng, (side, side), max(1.5, radius * rng.uniform(0.2, 0.6)))
    inside = np.float32(0.5) - axis[:, None] ** 2 - axis[None, :] ** 2 + np.float32(rng.uniform(0.15, 0.6)) * noise > 0
    mask = np.zeros(shape, np.bool_)
    y0, x0, y1, x1 = max(0, top), max(0, left), min(shape[0], top + side), min(shape[1], left + side)
    if y1 > y0 and x1 > x0:
        mask[y0:y1, x0:x1] = inside[y0 - top : y1 - top, x0 - left : x1 - left]
    return mask


def voronoi(rng: np.random.Generator, shape: tuple[int, int], seeds: NDArray[np.int64]) -> NDArray[np.int32]:
    """Which of the seeds (N, 2) of y, x is nearest, int32 (h, w) from 0, its borders warped."""
    free = np.ones(shape, np.uint8)
    ys, xs = seeds[:, 0].clip(0, shape[0] - 1), seeds[:, 1].clip(0, shape[1] - 1)
    free[ys, xs] = 0
    _, nearest = cv2.distanceTransformWithLabels(free, cv2.DIST_L2, 3, labelType=cv2.DIST_LABEL_PIXEL)
    order = np.zeros(int(nearest.max()) + 1, np.float32)
    order[nearest[ys, xs]] = np.arange(len(seeds))
    spacing = math.sqrt(shape[0] * shape[1] / len(seeds))
    rows, columns = np.mgrid[: shape[0], : shape[1]].astype(np.float32)
    reach = np.float32(spacing * rng.uniform(0.05, 0.2))
    rows += reach * smooth_noise(rng, shape, spacing * 0.6)
    columns += reach * smooth_noise(rng, shape, spacing * 0.6)
    cells = cv2.remap(order[nearest], columns, rows, cv2.INTER_NEAREST, borderMode=cv2.BORDER_REPLICATE)
    return np.asarray(cells, np.int32)


#: name -> (shape, how often it is drawn).
SHAPES: Mapping[str, tuple[Shape, float]] = {
    "ellipse": (ellipse, 0.14),
    "organ": (organ, 0.22),
    "lobes": (lobes, 0.14),
    "crescent": (crescent, 0.12),
    "wall": (wall, 0.12),
    "tube": (tube, 0.16),
    "blob": (blob, 0.10),
}
_FUNCTIONS = [shape for shape, _ in SHAPES.values()]
_CUMULATED = np.cumsum([weight for _, weight in SHAPES.values()])


def random_shape(rng: np.random.Generator, shape: tuple[int, int], centre: Centre, radius: float) -> Mask:
    """One of `SHAPES`, by its weight."""
    draw = min(int(np.searchsorted(_CUMULATED, rng.random() * _CUMULATED[-1])), len(_FUNCTIONS) - 1)
    return _FUNCTIONS[draw](rng, shape, centre, radius)
