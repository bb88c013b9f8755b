"""`volume`: a pure function from a seed to a volume with labelled objects, slice after slice of one 3D scene."""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from zoo.data.synthetic import looks
from zoo.data.synthetic.artefacts import to_uint8
from zoo.data.synthetic.canvas import Canvas, Tissue
from zoo.data.synthetic.generator import MIN_SIZE_PX
from zoo.data.synthetic.looks import Look
from zoo.data.synthetic.noise import Mask, chance, log_uniform
from zoo.data.synthetic.solids import SOLIDS, Plane, Points, Solid, superellipsoid
from zoo.data.synthetic.visibility import told_apart
from zoo.errors import InputError, unknown_name

#: Looks that scanners of volumes have.
VOLUME_LOOKS: Mapping[str, Look] = {"ct": looks.ct, "mr": looks.mr}
VOLUME_LOOK_NAMES = tuple(VOLUME_LOOKS)
#: An object with fewer voxels is none of the task.
MIN_VOXELS = 100
#: An object must be told apart from its surroundings in so much of its slices.
SEEN_SLICES = 0.5
#: Thinnest and thickest slices, in pixels.
THICKNESS = (1.0, 4.0)
_TISSUES: tuple[Tissue, ...] = ("organ", "organ", "organ", "muscle", "fluid", "bone", "vessel", "gas", "grey", "fat")


@dataclass(frozen=True)
class SyntheticVolume:
    """One volume of the synthetic task.

    Attributes:
        image: uint8 (D, H, W), min-max scaled to 0-255.
        labels: uint16 (D, H, W), 0 for background, then 1 to N, N >= 1, of at least `MIN_VOXELS` voxels each.
        thickness: distance of slices, in pixels.
        look: one of `VOLUME_LOOK_NAMES`.
    """

    image: NDArray[np.uint8]
    labels: NDArray[np.uint16]
    thickness: float
    look: str


def volume(seed: int, depth: int = 24, size: int = 128, look: str | None = None) -> SyntheticVolume:
    """The volume of this seed: the same for the same arguments, whatever was drawn before.

    Args:
        seed: >= 0.
        depth: slices.
        size: side of the square slices in pixels.
        look: one of `VOLUME_LOOK_NAMES`; drawn if None.

    Raises:
        InputError: a negative seed, an unknown look, or a size too small for objects.
    """
    if seed < 0:
        raise InputError("seed", str(seed), "an integer >= 0")
    if look is not None and look not in VOLUME_LOOKS:
        raise unknown_name("look", look, VOLUME_LOOKS)
    if depth < 1 or size < MIN_SIZE_PX:
        raise InputError("size", f"{depth} slices of {size} px", f"at least 1 of {MIN_SIZE_PX} px")
    attempts = (_draw(np.random.default_rng((seed, attempt)), depth, size, look) for attempt in itertools.count())
    return next(drawn for drawn in attempts if drawn.labels.any())


class _Stack:
    """Parallel planes through a scene, with one canvas that holds their slices below each other."""

    def __init__(self, rng: np.random.Generator, depth: int, size: int) -> None:
        self.thickness = log_uniform(rng, *THICKNESS)
        step = self.thickness * 2 / size
        around = int(rng.integers(1 << 32))
        offsets = (np.arange(depth) - (depth - 1) / 2) * step
        self.planes = [Plane(np.random.default_rng(around), (size, size), float(offset)) for offset in offsets]
        self.canvas = Canvas((depth * size, size))
        self.size = size

    @property
    def regions(self) -> NDArray[np.uint16]:
        """What is seen, as in `Canvas`, by slice: (D, H, W)."""
        return self.canvas.region.reshape(len(self.planes), self.size, self.size)

    def cut(self, rng: np.random.Generator, solid: Solid, centre: Points, radius: float, flat: float) -> Mask:
        """A solid's mask (D * H, W) over all slices."""
        form = int(rng.integers(1 << 32))
        return np.concatenate([p.cut(np.random.default_rng(form), solid, centre, radius, flat) for p in self.planes])

    def random_cut(self, rng: np.random.Generator, inside: Mask, radius: float) -> Mask:
        """A random solid about a random voxel of `inside` (D * H, W), and within it."""
        voxels = np.flatnonzero(inside)
        z, y, x = np.unravel_index(int(voxels[rng.integers(voxels.size)]), (len(self.planes), self.size, self.size))
        solid = SOLIDS[int(rng.integers(len(SOLIDS)))]
        centre = self.planes[z].at(int(y), int(x))
        return self.cut(rng, solid, centre, radius, 0.25 if chance(rng, 0.5) else 0.6) & inside


def _draw(rng: np.random.Generator, depth: int, size: int, look: str | None) -> SyntheticVolume:
    """A volume that may have no labels left."""
    name = look or VOLUME_LOOK_NAMES[int(rng.integers(len(VOLUME_LOOK_NAMES)))]
    stack = _Stack(rng, depth, size)
    _paint(stack, rng)
    seed = int(rng.integers(1 << 32))
    slices = []
    for region in stack.regions:
        canvas = Canvas((size, size))
        canvas.region, canvas.parts = region, stack.canvas.parts
        # The same draws for all slices. `mr` divides each by a quantile of its own all the same, so that a part's
        # brightness jumps from slice to slice, as it does in the volumes that records were measured with.
        slices.append(VOLUME_LOOKS[name](canvas, np.random.default_rng(seed))[0])
    image = to_uint8(np.concatenate(slices)).reshape(depth, size, size)
    return SyntheticVolume(image, _labels(stack, image), stack.thickness, name)


def _paint(stack: _Stack, rng: np.random.Generator) -> None:
    """A body, large organs and then smaller ones in it, and parts in the organs."""
    canvas = stack.canvas
    inside = np.ones(canvas.shape, np.bool_)
    if chance(rng, 0.85):
        centre = rng.normal(0, 0.05, 3).astype(np.float32)
        body = stack.cut(rng, superellipsoid, centre, rng.uniform(1.0, 1.6), 0.6)
        if canvas.paint(body, "fat", False):
            inside = body
    for radius in sorted((log_uniform(rng, 0.06, 0.6) for _ in range(rng.integers(12, 40))), reverse=True):
        mask = stack.random_cut(rng, inside, radius)
        index = canvas.paint(mask, _TISSUES[int(rng.integers(len(_TISSUES)))], chance(rng, 0.8))
        if index and chance(rng, 0.3):
            part = stack.random_cut(rng, mask, radius * rng.uniform(0.2, 0.6))
            canvas.paint(part, "lesion", chance(rng, 0.8))


def _labels(stack: _Stack, image: NDArray[np.uint8]) -> NDArray[np.uint16]:
    """Labels (D, H, W), numbered 1 to N, of the parts that are wanted, large enough and can be seen."""
    count = len(stack.canvas.parts)
    regions = stack.regions
    there = np.stack([np.bincount(region.ravel(), minlength=count) > 0 for region in regions])
    seen = np.stack([told_apart(region, shown, count) for region, shown in zip(regions, image, strict=True)])
    visible = (there & seen).sum(0) >= SEEN_SLICES * np.maximum(there.sum(0), 1)
    large = np.bincount(regions.ravel(), minlength=count) >= MIN_VOXELS
    kept = np.array([part.labelled for part in stack.canvas.parts]) & visible & large
    return np.take(np.where(kept, np.cumsum(kept), 0).astype(np.uint16), regions)
