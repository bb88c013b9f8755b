"""The canvas that a scene paints its parts on: who is where, what lies under whom."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import cv2
import numpy as np
from numpy.typing import NDArray

from zoo.data.synthetic.noise import Field, Mask, chance, log_uniform, smooth_noise
from zoo.data.synthetic.shapes import Shape, random_shape

#: What a part is made of; a look gives each its brightness.
Tissue = Literal["air", "fat", "muscle", "organ", "fluid", "bone", "vessel", "lesion", "gas", "white", "grey"]


@dataclass(frozen=True)
class Part:
    """One thing of a scene.

    Attributes:
        tissue: what it is made of.
        labelled: whether it is an object of the task; a distractor or background otherwise.
        parent: index of the part that it was painted on.
    """

    tissue: Tissue
    labelled: bool
    parent: int


class Canvas:
    """Parts painted over one another.

    Attributes:
        shape: (h, w) in pixels of the acquisition.
        region: uint16 (h, w), the index of the part seen at each pixel; part 0 is the surround.
        parts: the parts by index.
        masks: whole masks (h, w) of the parts that were painted while `keep_masks`, for looks in which parts overlap.
    """

    def __init__(self, shape: tuple[int, int], keep_masks: bool = False) -> None:
        self.shape = shape
        self.region: NDArray[np.uint16] = np.zeros(shape, np.uint16)
        self.parts = [Part("air", False, 0)]
        self.keep_masks = keep_masks
        self.masks: dict[int, Mask] = {}

    @property
    def side(self) -> int:
        """Longest side in pixels."""
        return max(self.shape)

    def paint(self, mask: Mask, tissue: Tissue, labelled: bool, inside: Mask | None = None) -> int:
        """Paints a new part where `mask` (and `inside`) is true; its index, or 0 where nothing was left to paint."""
        mask = mask if inside is None else mask & inside
        under = self.region[mask]
        if under.size < 4:
            return 0
        index = len(self.parts)
        self.parts.append(Part(tissue, labelled, int(under[under.size // 2])))
        if self.keep_masks:
            self.masks[index] = mask
        if labelled or not self.keep_masks:  # what is seen through hides no object
            self.region[mask] = index
        return index

    def seen(self, index: int) -> Mask:
        """Where a part is seen, (h, w)."""
        return self.masks[index] if self.keep_masks else self.region == index

    def warp(self, rng: np.random.Generator, strength: float, zoom: float = 1.0) -> None:
        """Warps what was painted smoothly, by about `strength` of the side, and magnifies it about a random point."""
        rows, columns = np.mgrid[: self.shape[0], : self.shape[1]].astype(np.float32)
        y, x = rng.uniform(0.3, 0.7, 2) * self.shape
        cell = self.side * rng.uniform(0.15, 0.4)
        reach = np.float32(strength * self.side)
        rows = (rows - np.float32(y)) / np.float32(zoom) + np.float32(y) + reach * smooth_noise(rng, self.shape, cell)
        columns = (columns - np.float32(x)) / np.float32(zoom) + np.float32(x)
        columns += reach * smooth_noise(rng, self.shape, cell)
        self.region = np.asarray(
            cv2.remap(self.region, columns, rows, cv2.INTER_NEAREST, borderMode=cv2.BORDER_CONSTANT), np.uint16
        )


def random_pixel(rng: np.random.Generator, mask: Mask) -> tuple[float, float]:
    """(y, x) of a random pixel of the mask; its middle where it is empty."""
    height, width = mask.shape
    for _ in range(12):
        y, x = int(rng.integers(height)), int(rng.integers(width))
        if mask[y, x]:
            return float(y), float(x)
    hits = np.flatnonzero(mask)
    if not hits.size:
        return height / 2, width / 2
    at = int(hits[rng.integers(hits.size)])
    return float(at // width), float(at % width)


def populate(
    canvas: Canvas,
    rng: np.random.Generator,
    inside: Mask,
    count: int,
    sizes: tuple[float, float] = (0.025, 0.22),
    tissues: tuple[Tissue, ...] = ("organ", "organ", "organ", "fluid", "vessel", "muscle", "lesion", "fat"),
    shape: Shape = random_shape,
    labelled: float = 0.8,
    nested: float = 0.3,
) -> None:
    """Paints `count` shapes, large ones first, some with smaller ones nested in them.

    Args:
        canvas: painted on.
        rng: of everything.
        inside: where the shapes may be.
        count: how many.
        sizes: smallest and largest radius, in sides.
        tissues: what they are made of, drawn evenly.
        shape: how one is drawn.
        labelled: share that is labelled; others are distractors.
        nested: chance that a shape holds another.
    """
    radii = sorted((log_uniform(rng, *sizes) * canvas.side for _ in range(count)), reverse=True)
    for radius in radii:
        mask = shape(rng, canvas.shape, random_pixel(rng, inside), max(2.0, radius))
        tissue = tissues[int(rng.integers(len(tissues)))]
        index = canvas.paint(mask, tissue, chance(rng, labelled), inside)
        if index and radius > 5 and chance(rng, nested):
            _nest(canvas, rng, canvas.seen(index), radius)


def _nest(canvas: Canvas, rng: np.random.Generator, inside: Mask, radius: float) -> None:
    """A few parts within another, or its core, so that only a rind of it is left."""
    if chance(rng, 0.3):
        distance = cv2.distanceTransform(inside.view(np.uint8), cv2.DIST_L2, 3)
        core = distance > rng.uniform(0.15, 0.5) * float(distance.max())
        canvas.paint(core, ("gas", "fluid", "organ", "grey")[int(rng.integers(4))], chance(rng, 0.6))
        return
    for _ in range(rng.integers(1, 4)):
        mask = random_shape(rng, canvas.shape, random_pixel(rng, inside), max(2.0, radius * rng.uniform(0.12, 0.5)))
        tissues: tuple[Tissue, ...] = ("lesion", "lesion", "vessel", "fluid")
        canvas.paint(mask, tissues[int(rng.integers(4))], chance(rng, 0.7), inside)


def paint_cells(
    canvas: Canvas, rng: np.random.Generator, cells: NDArray[np.int32], inside: Mask, tissue: Callable[[], Tissue]
) -> None:
    """Paints every cell of a partition int32 (h, w) that meets `inside`: touching neighbours."""
    for value in range(int(cells.max()) + 1):
        canvas.paint(cells == value, tissue(), chance(rng, 0.75), inside)


def fractional(field: Field, level: float) -> Mask:
    """Where a field lies above the quantile `level` of its own values."""
    sample = np.sort(field[::4, ::4].ravel())
    return np.asarray(field > sample[min(sample.size - 1, int(level * sample.size))])
