"""`sample`: a pure function from a seed to an image with labelled instances."""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from zoo.data.synthetic import head_spine, looks, optical, scenes, tissue_scenes
from zoo.data.synthetic.artefacts import storage, to_uint8
from zoo.data.synthetic.canvas import Canvas
from zoo.data.synthetic.heart_vessels import short_axis, vasculature
from zoo.data.synthetic.looks import Look
from zoo.data.synthetic.noise import Mask, chance, log_uniform
from zoo.data.synthetic.scenes import Scene
from zoo.data.synthetic.torso import torso
from zoo.data.synthetic.visibility import told_apart
from zoo.errors import InputError, unknown_name

#: An instance with fewer visible pixels is no object of the task.
MIN_AREA_PX = 20
#: Below this the smallest structures are gone.
MIN_SIZE_PX = 64


@dataclass(frozen=True)
class LookSpec:
    """How images of one look come about.

    Attributes:
        render: the look.
        weight: how often it is drawn.
        scenes: scenes and how often each is drawn.
    """

    render: Look
    weight: float
    scenes: tuple[tuple[Scene, float], ...]


_LESIONS, _SLICE, _MOSAIC = scenes.lesions, scenes.slice3d, scenes.mosaic
LOOKS: Mapping[str, LookSpec] = {
    "ct": LookSpec(
        looks.ct,
        0.28,
        (
            (torso, 0.48),
            (_SLICE, 0.21),
            (head_spine.head, 0.08),
            (head_spine.spine, 0.07),
            (_MOSAIC, 0.11),
            (short_axis, 0.03),
            (vasculature, 0.02),
        ),
    ),
    "mr": LookSpec(
        looks.mr,
        0.28,
        (
            (head_spine.head, 0.34),
            (torso, 0.14),
            (_SLICE, 0.17),
            (head_spine.spine, 0.1),
            (_MOSAIC, 0.14),
            (short_axis, 0.07),
            (vasculature, 0.04),
        ),
    ),
    "us": LookSpec(looks.us, 0.12, ((_LESIONS, 0.44), (_SLICE, 0.27), (_MOSAIC, 0.17), (short_axis, 0.12))),
    "xray": LookSpec(
        looks.xray, 0.1, ((tissue_scenes.chest, 0.45), (tissue_scenes.limb, 0.25), (tissue_scenes.joint, 0.3))
    ),
    "rgb": LookSpec(
        optical.rgb,
        0.12,
        ((_LESIONS, 0.5), (tissue_scenes.fundus, 0.2), (tissue_scenes.glands, 0.25), (_MOSAIC, 0.05)),
    ),
    "micro": LookSpec(optical.micro, 0.1, ((tissue_scenes.cells, 0.85), (_MOSAIC, 0.15))),
}
LOOK_NAMES = tuple(LOOKS)
_WEIGHTS = np.cumsum([spec.weight for spec in LOOKS.values()])


@dataclass(frozen=True)
class SyntheticSample:
    """One image of the synthetic task.

    Attributes:
        image: uint8 (H, W, 3), min-max scaled to 0-255; zero below or right of an image that is not square.
        labels: uint16 (H, W), 0 for background, then 1 to N, N >= 1, one visible instance each, of at least
            `MIN_AREA_PX` pixels; an instance may consist of several pieces.
        content_shape: (height, width) of the image without what was padded.
        look: one of `LOOK_NAMES`.
    """

    image: NDArray[np.uint8]
    labels: NDArray[np.uint16]
    content_shape: tuple[int, int]
    look: str


def sample(seed: int, size: int = 256, look: str | None = None) -> SyntheticSample:
    """The sample of this seed: the same for the same arguments, whatever was drawn before.

    Args:
        seed: >= 0; consecutive seeds give unrelated samples, so an index will do.
        size: side of the square in pixels, >= `MIN_SIZE_PX`.
        look: one of `LOOK_NAMES`; drawn by weight if None.

    Raises:
        InputError: a negative seed, a size that is too small, or an unknown look.
    """
    if seed < 0:
        raise InputError("seed", str(seed), "an integer >= 0")
    if size < MIN_SIZE_PX:
        raise InputError("size", str(size), f"at least {MIN_SIZE_PX} px")
    if look is not None and look not in LOOKS:
        raise unknown_name("look", look, LOOKS)
    attempts = (_draw(np.random.default_rng((seed, attempt)), size, look) for attempt in itertools.count())
    return next(drawn for drawn in attempts if drawn.labels.any())


def _draw(rng: np.random.Generator, size: int, look: str | None) -> SyntheticSample:
    """A sample that may have no labels left."""
    name = look or LOOK_NAMES[min(int(np.searchsorted(_WEIGHTS, rng.random() * _WEIGHTS[-1])), len(LOOK_NAMES) - 1)]
    spec = LOOKS[name]
    canvas = Canvas(_acquisition(rng, size), keep_masks=name == "xray")
    weights = np.array([weight for _, weight in spec.scenes])
    spec.scenes[int(rng.choice(len(weights), p=weights / weights.sum()))][0](canvas, rng)
    if name != "xray" and chance(rng, 0.6):
        canvas.warp(rng, rng.uniform(0, 0.03), log_uniform(rng, 1.0, 1.8) if chance(rng, 0.3) else 1.0)
    rendered, view = spec.render(canvas, rng)
    stored = storage(rng, to_uint8(rendered))
    region = canvas.region if view is None else canvas.region * view
    wanted = np.array([part.labelled for part in canvas.parts]) & told_apart(region, stored, len(canvas.parts))
    width, height = _fitted(region.shape[:2], size)
    labels = _fit_labels(region, wanted, size)
    return SyntheticSample(_fit_image(rng, stored, size), labels, (height, width), name)


def _acquisition(rng: np.random.Generator, size: int) -> tuple[int, int]:
    """(h, w) at which the scanner sees the scene: `size`, or, as in much of the real data, far fewer pixels."""
    draw = rng.random()
    longest = size if draw < 0.5 else int(size * (rng.uniform(1.05, 1.3) if draw < 0.58 else rng.uniform(0.3, 0.9)))
    other = longest if chance(rng, 0.35) else int(longest * rng.uniform(0.6, 1.0))
    return (longest, other) if chance(rng, 0.5) else (other, longest)


def _fitted(shape: tuple[int, int], size: int) -> tuple[int, int]:
    """(w, h) of an image whose longest side is brought to `size`."""
    scale = size / max(shape)
    return max(1, round(shape[1] * scale)), max(1, round(shape[0] * scale))


def _fit_image(rng: np.random.Generator, image: NDArray[np.uint8], size: int) -> NDArray[np.uint8]:
    """Brings the longest side to `size`, scales to 0-255, pads at the bottom and right, and makes three channels."""
    ways = (cv2.INTER_AREA, cv2.INTER_LINEAR, cv2.INTER_CUBIC)
    width, height = _fitted(image.shape[:2], size)
    if image.shape[:2] != (height, width):
        image = np.asarray(cv2.resize(image, (width, height), interpolation=ways[int(rng.integers(3))]), np.uint8)
    low, high = int(image.min()), int(image.max())
    if (low, high) != (0, 255):
        levels = np.round((np.arange(256) - low).clip(0) * (255 / max(1, high - low))).clip(0, 255).astype(np.uint8)
        image = np.asarray(cv2.LUT(image, levels), np.uint8)
    if image.ndim == 2:
        image = np.asarray(cv2.cvtColor(image, cv2.COLOR_GRAY2RGB), np.uint8)
    padding = (0, size - height, 0, size - width)
    return np.asarray(cv2.copyMakeBorder(image, *padding, cv2.BORDER_CONSTANT, value=(0, 0, 0)), np.uint8)


def _fit_labels(region: NDArray[np.uint16], wanted: Mask, size: int) -> NDArray[np.uint16]:
    """Labels, at the final size, of the parts that are wanted and large enough, numbered 1 to N."""
    width, height = _fitted(region.shape[:2], size)
    if region.shape != (height, width):
        region = np.asarray(cv2.resize(region, (width, height), interpolation=cv2.INTER_NEAREST_EXACT), np.uint16)
    areas = np.bincount(region.ravel(), minlength=len(wanted))
    kept = wanted & (areas >= MIN_AREA_PX)
    numbers = np.where(kept, np.cumsum(kept), 0).astype(np.uint16)
    labels = np.zeros((size, size), np.uint16)
    labels[:height, :width] = np.take(numbers, region)
    return labels
