"""A plane through a 3D scene of implicit solids: what a slice of a volume shows, tangential cuts and all.

A solid is a function of three coordinates, positive inside. The whole space is warped by smooth sines, so that every
cut through it is consistent. Fields are evaluated on a grid of half the resolution and interpolated.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import cv2
import numpy as np
from numpy.typing import NDArray

from zoo.data.synthetic.noise import Field, Mask, chance, log_uniform

Points = NDArray[np.float32]
#: No solid reaches farther than this from its centre, in its largest half axis.
REACH = 1.6
#: (3, n) coordinates in the solid's own frame, about -1 to 1 where it lies, to (n,) positive inside.
Solid = Callable[[np.random.Generator, Points], Field]


def rotation(rng: np.random.Generator) -> NDArray[np.float32]:
    """A random rotation (3, 3), from a random unit quaternion."""
    w, x, y, z = (q := rng.standard_normal(4)) / math.sqrt(q @ q)
    return np.array(
        [
            [1 - 2 * (y * y + z * z), 2 * (x * y - w * z), 2 * (x * z + w * y)],
            [2 * (x * y + w * z), 1 - 2 * (x * x + z * z), 2 * (y * z - w * x)],
            [2 * (x * z - w * y), 2 * (y * z + w * x), 1 - 2 * (x * x + y * y)],
        ],
        np.float32,
    )


class Plane:
    """A random plane through the scene, on which solids are cut."""

    def __init__(self, rng: np.random.Generator, shape: tuple[int, int], offset: float | None = None) -> None:
        """Lays the plane and warps the space.

        Args:
            rng: of both; planes of one state lie parallel in one space.
            shape: (h, w) of the masks in pixels.
            offset: of the plane from the middle of the scene, in half image sides; drawn if None.
        """
        self.shape = shape
        self.rows, self.columns = max(8, shape[0] // 2), max(8, shape[1] // 2)
        scale = max(shape)
        y = np.linspace(-shape[0] / scale, shape[0] / scale, self.rows, dtype=np.float32)
        x = np.linspace(-shape[1] / scale, shape[1] / scale, self.columns, dtype=np.float32)
        frame = rotation(rng)
        grid = np.stack(np.meshgrid(y, x, indexing="ij")).reshape(2, -1)
        drawn = rng.uniform(-0.35, 0.35)
        self.flat = frame[:, :2] @ grid + frame[:, 2:] * np.float32(drawn if offset is None else offset)
        waves = rng.normal(0, 3.0, (4, 3)).astype(np.float32)
        sines = np.sin(waves @ self.flat + rng.uniform(0, 6, (4, 1)).astype(np.float32))
        self.points: Points = self.flat + rng.normal(0, 0.05, (3, 4)).astype(np.float32) @ sines

    def cut(self, rng: np.random.Generator, solid: Solid, centre: Points, radius: float, flat: float = 0.4) -> Mask:
        """The mask (h, w) that `solid` leaves on the plane.

        Args:
            rng: of the solid's orientation and form.
            solid: what is cut.
            centre: (3,), in half image sides from the middle of the scene.
            radius: its largest half axis, in half image sides.
            flat: smallest ratio of its axes.
        """
        axes = (radius * rng.uniform(flat, 1, (3, 1))).astype(np.float32)
        apart = self.points - centre[:, None]
        near = ((apart * apart).sum(0) < np.float32((REACH * radius) ** 2)).reshape(self.rows, self.columns)
        rows, columns = np.flatnonzero(near.any(1)), np.flatnonzero(near.any(0))
        field = np.full((self.rows, self.columns), -1, np.float32)
        if rows.size:
            part = slice(rows[0], rows[-1] + 1), slice(columns[0], columns[-1] + 1)
            local = apart.reshape(3, self.rows, self.columns)[:, *part].reshape(3, -1)
            inside = solid(rng, (rotation(rng) @ local / axes).astype(np.float32))
            field[part] = np.maximum(inside, -1).reshape(field[part].shape)
        return np.asarray(cv2.resize(field, self.shape[::-1], interpolation=cv2.INTER_LINEAR) > 0)

    def at(self, y: int, x: int) -> Points:
        """The 3D point (3,) under a pixel."""
        row, column = min(y // 2, self.rows - 1), min(x // 2, self.columns - 1)
        return self.point(row * self.columns + column)

    def point(self, index: int) -> Points:
        """The 3D point (3,) under pixel `index` of the half-resolution grid."""
        return self.points[:, index]


def superellipsoid(rng: np.random.Generator, p: Points) -> Field:
    """A rounded body, from an octahedron to nearly a box."""
    return 1 - (np.abs(p) ** np.float32(rng.uniform(1.2, 4))).sum(0)


def folded(rng: np.random.Generator, p: Points) -> Field:
    """An ellipsoid with waves on its surface, as a brain or a lobulated organ."""
    k = np.float32(rng.uniform(3, 9))
    x, y, z = k * p
    return 1 - (p * p).sum(0) + np.float32(rng.uniform(0.2, 0.7)) * np.sin(x) * np.sin(y + 1) * np.cos(z)


def shell(rng: np.random.Generator, p: Points) -> Field:
    """A wall around a cavity."""
    return np.float32(rng.uniform(0.05, 0.25)) - np.abs(np.float32(0.85) - (p * p).sum(0))


def torus(rng: np.random.Generator, p: Points) -> Field:
    """A closed loop."""
    return np.float32(rng.uniform(0.15, 0.4) ** 2) - (np.hypot(p[0], p[1]) - np.float32(0.7)) ** 2 - p[2] ** 2


def bent_tube(rng: np.random.Generator, p: Points) -> Field:
    """A tube around a smooth 3D curve."""
    t = np.linspace(-1, 1, 14)[:, None]
    curve = np.concatenate([t, np.sin(rng.uniform(1, 4, 2) * t + rng.uniform(0, 6, 2)) * 0.6], axis=1)
    curve = np.asarray(curve, np.float32)
    square = (curve**2).sum(1)[:, None] - 2 * curve @ p
    return np.float32(rng.uniform(0.14, 0.35) ** 2) - (square.min(0) + (p * p).sum(0))


def lobed(rng: np.random.Generator, p: Points) -> Field:
    """A smooth union of balls."""
    total = np.full(p.shape[1], -1, np.float32)
    for _ in range(rng.integers(3, 6)):
        centre = rng.uniform(-0.6, 0.6, (3, 1)).astype(np.float32)
        total += np.exp(((p - centre) ** 2).sum(0) * np.float32(-1 / rng.uniform(0.1, 0.35))) * np.float32(1.6)
    return total


SOLIDS: tuple[Solid, ...] = (superellipsoid, folded, shell, torus, bent_tube, lobed)


def random_cut(rng: np.random.Generator, plane: Plane, inside: Mask) -> Mask:
    """A random solid whose centre lies near the plane and within `inside`, cut by it."""
    solid = SOLIDS[int(rng.integers(len(SOLIDS)))]
    radius = log_uniform(rng, 0.08, 0.6)
    index = int(rng.integers(plane.points.shape[1]))
    hits = np.flatnonzero(cv2.resize(inside.view(np.uint8), (plane.columns, plane.rows)))
    index = int(hits[rng.integers(hits.size)]) if hits.size else index
    centre = plane.point(index) + (rng.normal(0, 0.3, 3) * radius).astype(np.float32)
    mask = plane.cut(rng, solid, centre, radius, 0.25 if chance(rng, 0.5) else 0.6)
    return mask & inside
