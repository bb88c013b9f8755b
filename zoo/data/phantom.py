"""The built-in phantom: seeded CT-like, MR-like and colour cases, so that a clone alone is enough to run everything.

Organs are implicit shapes that an ellipse does not fill: crescents, bent tubes, branching vessels, lobed bodies and
thin shells, warped, nested into a body so that they touch each other, among unlabelled look-alikes. Edges carry partial
volume, tissue carries correlated texture, MR a bias field. The drawing is coarse; the task is not.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Literal

import cv2
import numpy as np
from numpy.typing import NDArray

from zoo.data.case import Case, boxes_from_labels
from zoo.data.intensity import to_uint8
from zoo.errors import InputError, unknown_name

Field = NDArray[np.float32]
#: Coordinates (z, y, x) of an object's own frame, about -1 to 1 where it lies, to a field that is positive inside.
Shape = Callable[[Field, Field, Field, np.random.Generator], Field]


@dataclass(frozen=True)
class PhantomSpec:
    """What a phantom is like.

    Attributes:
        modality: `CT`, `MR`, or `Dermoscopy` for a colour image.
        shape: (D, H, W) of a volume or (H, W) of an image, in voxels.
        objects: labelled ones, 1 to 65535.
        spacing_mm: (z, y, x) or (y, x).
        seed: of everything random.
    """

    modality: Literal["CT", "MR", "Dermoscopy"]
    shape: tuple[int, ...]
    objects: int
    spacing_mm: tuple[float, ...]
    seed: int = 0


#: The small cases of `make demo`.
DEFAULT_PHANTOMS: Mapping[str, PhantomSpec] = {
    "ct3d": PhantomSpec("CT", (12, 192, 208), 3, (5.0, 1.8, 1.8), seed=11),
    "mr3d": PhantomSpec("MR", (10, 176, 160), 3, (6.0, 1.4, 1.4), seed=1),
    "ct2d": PhantomSpec("CT", (256, 288), 5, (1.4, 1.4), seed=3),
    "mr2d": PhantomSpec("MR", (224, 192), 5, (1.0, 1.0), seed=4),
    "rgb2d": PhantomSpec("Dermoscopy", (240, 320), 3, (1.0, 1.0), seed=5),
}
#: Shape and object count of the six 3D cases that Rep-MedSAM's README reports; only these two facts are theirs.
PUBLISHED_PHANTOMS: Mapping[str, PhantomSpec] = {
    "3DBox_CT_0566": PhantomSpec("CT", (287, 512, 512), 6, (2.0, 0.8, 0.8), seed=566),
    "3DBox_CT_0888": PhantomSpec("CT", (237, 512, 512), 6, (2.0, 0.8, 0.8), seed=888),
    "3DBox_CT_0860": PhantomSpec("CT", (246, 512, 512), 1, (2.0, 0.8, 0.8), seed=860),
    "3DBox_MR_0621": PhantomSpec("MR", (115, 400, 400), 6, (1.5, 0.7, 0.7), seed=621),
    "3DBox_MR_0121": PhantomSpec("MR", (64, 290, 320), 6, (3.0, 1.2, 1.2), seed=121),
    "3DBox_MR_0179": PhantomSpec("MR", (84, 512, 512), 1, (3.0, 0.6, 0.6), seed=179),
}
PHANTOMS: Mapping[str, PhantomSpec] = {**DEFAULT_PHANTOMS, **PUBLISHED_PHANTOMS}


def load_phantom(name: str) -> Case:
    """The built-in case `name`, drawn anew: its case id is `phantom_NAME`.

    Raises:
        InputError: unknown name.
    """
    if name not in PHANTOMS:
        raise unknown_name("phantom", name, PHANTOMS)
    return make_phantom(PHANTOMS[name], f"phantom_{name}")


def make_phantom(spec: PhantomSpec, case_id: str = "phantom") -> Case:
    """Draws a phantom; equal specs give equal cases.

    Raises:
        InputError: no object, or more than the image has room for at four voxels each.
    """
    volume_shape = (1, *spec.shape) if len(spec.shape) == 2 else spec.shape
    if not 1 <= spec.objects <= min(math.prod(spec.shape) // 16, np.iinfo(np.uint16).max):
        raise InputError("phantom", f"{spec.objects} objects in {spec.shape}", "1 to a sixteenth of its voxels")
    rng = np.random.default_rng(spec.seed)
    tissue = TISSUES[spec.modality]
    image, labels = _draw_body(volume_shape, tissue, rng)
    cells = _cells(volume_shape, spec.objects, rng)
    for number, cell in enumerate(cells):
        label = number + 1 if number < spec.objects else 0
        _draw_object(image, labels, cell, label, tissue, rng)
    _stamp_missing(image, labels, spec.objects, tissue)
    pixels = _acquire(image, spec.modality, rng)
    labels[labels == _DISTRACTOR] = 0
    if len(spec.shape) == 2:
        pixels, labels = pixels[0], labels[0]
        pixels = _colour(pixels, rng) if spec.modality == "Dermoscopy" else np.repeat(pixels[..., None], 3, axis=2)
    boxes, values = boxes_from_labels(labels)
    return Case(case_id, spec.modality, pixels, boxes, values, spec.spacing_mm, labels)


@dataclass(frozen=True)
class Tissue:
    """Intensities: HU for a CT, arbitrary units otherwise; `rim` is the fat under the skin."""

    air: float
    rim: float
    body: float
    organs: tuple[float, float]
    texture: float
    noise: float


TISSUES = {
    "CT": Tissue(air=-1000, rim=-105, body=15, organs=(-60, 170), texture=6, noise=14),
    "MR": Tissue(air=0, rim=220, body=110, organs=(35, 200), texture=6, noise=7),
    "Dermoscopy": Tissue(air=215, rim=208, body=195, organs=(60, 160), texture=10, noise=5),
}
#: Marks the voxels of unlabelled look-alikes while drawing, so that nothing is drawn over them.
_DISTRACTOR = np.iinfo(np.uint16).max


@dataclass(frozen=True)
class Cell:
    """Room for one object: its middle and half its size, (z, y, x) in voxels."""

    middle: tuple[float, ...]
    half: tuple[float, ...]


def _draw_body(shape: tuple[int, ...], tissue: Tissue, rng: np.random.Generator) -> tuple[Field, NDArray[np.uint16]]:
    """A rounded body in air, whose outline changes from slice to slice."""
    depth, height, width = shape
    y, x = np.meshgrid(np.linspace(-1, 1, height), np.linspace(-1, 1, width), indexing="ij")
    image = np.empty(shape, np.float32)
    wobble, phase = rng.uniform(0.01, 0.04, 3), rng.uniform(0, 2 * math.pi, 3)
    angle = np.arctan2(y, x)
    for z in range(depth):
        waves = sum(wobble[k] * np.cos((k + 2) * angle + phase[k] + 0.05 * z) for k in range(3))
        radius = (np.abs(x / 0.96) ** 2.5 + np.abs(y / 0.9) ** 2.5) ** 0.4 + waves
        inside = np.clip((1 - radius) * height / 4 + 0.5, 0, 1)
        under_rim = np.clip((0.9 - radius) * height / 4 + 0.5, 0, 1)
        image[z] = tissue.air + (tissue.rim - tissue.air) * inside + (tissue.body - tissue.rim) * under_rim
    return image, np.zeros(shape, np.uint16)


def _cells(shape: tuple[int, ...], objects: int, rng: np.random.Generator) -> list[Cell]:
    """Cells for the objects, then for half as many look-alikes: a jittered grid inside the body, in random order."""
    wanted = objects + max(1, objects // 2)
    inner = np.array(shape) * [0.9 if shape[0] > 1 else 1.0, 0.72, 0.78]
    counts = np.ones(3, int)
    while counts.prod() < wanted:
        # Split where cells are longest; slices are usually thick, so depth counts double.
        longest = np.argmax(inner / counts * [2.0 if shape[0] > 1 else 0.0, 1, 1] * (counts < inner / 2))
        counts[longest] += 1
    half = inner / counts / 2
    grid = np.stack(np.meshgrid(*(np.arange(n) for n in counts), indexing="ij"), -1).reshape(-1, 3)
    chosen = rng.permutation(grid)[:wanted]
    margin = (np.array(shape) - inner) / 2
    jitter = rng.uniform(-0.15, 0.15, (wanted, 3)) * [shape[0] > 1, 1, 1]
    middles = margin + (chosen + 0.5 + jitter) * 2 * half - 0.5
    sizes = half * rng.uniform(0.85, 1.25, (wanted, 3))
    return [Cell(tuple(middle), tuple(size)) for middle, size in zip(middles, sizes, strict=True)]


def _draw_object(
    image: Field, labels: NDArray[np.uint16], cell: Cell, label: int, tissue: Tissue, rng: np.random.Generator
) -> None:
    """Draws one object into what is still free of its cell; label 0 is a look-alike."""
    low = [max(0, math.floor(m - 1.2 * h)) for m, h in zip(cell.middle, cell.half, strict=True)]
    high = [min(n, math.ceil(m + 1.2 * h) + 1) for m, h, n in zip(cell.middle, cell.half, image.shape, strict=True)]
    where = tuple(slice(a, b) for a, b in zip(low, high, strict=True))
    axes = [
        ((np.arange(a, b) - m) / h).astype(np.float32)
        for a, b, m, h in zip(low, high, cell.middle, cell.half, strict=True)
    ]
    z, y, x = np.meshgrid(*axes, indexing="ij")
    y, x = _warp(z, y, x, rng)
    field = SHAPES[int(rng.integers(len(SHAPES)))](z, y, x, rng)
    # One voxel in the object's frame: the width of a partial-volume edge.
    voxel = 1 / min(cell.half[1:])
    free = labels[where] == 0
    cover = np.clip(field / voxel + 0.5, 0, 1) * free
    value = rng.uniform(*tissue.organs) + tissue.texture * 0.6 * np.sin(5 * x + 4 * y + 3 * z)
    image[where] += cover * (value - image[where])
    labels[where][(field > 0) & free] = label or _DISTRACTOR


def _warp(z: Field, y: Field, x: Field, rng: np.random.Generator) -> list[Field]:
    """Turns the frame in the slice's plane and bends it by a wave along each axis: new y and x."""
    angle = rng.uniform(0, 2 * math.pi)
    turned_y, turned_x = math.cos(angle) * y - math.sin(angle) * x, math.sin(angle) * y + math.cos(angle) * x
    frequency, phase = rng.uniform(1.5, 3.5, (2, 3)), rng.uniform(0, 2 * math.pi, 2)
    return [
        axis + 0.12 * np.sin(f[0] * x + f[1] * y + f[2] * z + p).astype(np.float32)
        for axis, f, p in zip((turned_y, turned_x), frequency, phase, strict=True)
    ]


def _lobed(z: Field, y: Field, x: Field, rng: np.random.Generator) -> Field:
    """Three to four balls of different size that run into each other."""
    field = np.full(x.shape, -np.inf, np.float32)
    for _ in range(int(rng.integers(3, 5))):
        cz, cy, cx = rng.uniform([-0.4, -0.55, -0.55], [0.4, 0.55, 0.55])
        radius = rng.uniform(0.28, 0.46)
        field = np.maximum(field, radius - np.sqrt(0.25 * (z - cz) ** 2 + (y - cy) ** 2 + (x - cx) ** 2))
    return field


def _crescent(z: Field, y: Field, x: Field, rng: np.random.Generator) -> Field:
    """A ball without the ball beside it."""
    outer = 0.85 - np.sqrt(0.5 * z**2 + y**2 + x**2)
    hollow = np.sqrt(0.4 * z**2 + y**2 + (x - rng.uniform(0.4, 0.6)) ** 2) - rng.uniform(0.5, 0.65)
    return np.minimum(outer, hollow)


def _bent_tube(z: Field, y: Field, x: Field, rng: np.random.Generator) -> Field:
    """A tube along an arc that also leans through the slices."""
    arc = rng.uniform(0.8, 1.3)
    off = y - arc * x**2 + 0.45 * arc + 0.25 * z
    tube = rng.uniform(0.16, 0.26) - np.abs(off) / np.sqrt(1 + (2 * arc * x) ** 2)
    return np.minimum(tube, 0.85 - np.sqrt(0.6 * z**2 + x**2))


def _branching(z: Field, y: Field, x: Field, rng: np.random.Generator) -> Field:
    """Vessels that leave one point in three to four directions and taper."""
    field = np.full(x.shape, -np.inf, np.float32)
    branches = int(rng.integers(3, 5))
    for k in range(branches):
        angle = 2 * math.pi * (k + rng.uniform(-0.25, 0.25)) / branches
        dy, dx = math.sin(angle), math.cos(angle)
        along = np.clip(y * dy + x * dx + 0.1 * z, 0, 0.9)
        away = np.sqrt((y - along * dy) ** 2 + (x - along * dx) ** 2 + 0.05 * z**2)
        field = np.maximum(field, rng.uniform(0.13, 0.2) * (1.3 - along) - away)
    return field


def _shell(z: Field, y: Field, x: Field, rng: np.random.Generator) -> Field:
    """A thin wall around a hollow, open at one side."""
    radius = np.sqrt(0.35 * z**2 + y**2 + x**2)
    wall = rng.uniform(0.09, 0.15) - np.abs(radius - 0.68)
    return np.minimum(wall, rng.uniform(0.3, 0.6) - x)


SHAPES: tuple[Shape, ...] = (_lobed, _crescent, _bent_tube, _branching, _shell)


def _stamp_missing(image: Field, labels: NDArray[np.uint16], objects: int, tissue: Tissue) -> None:
    """Gives every object that others left no room for four voxels in an L of its own."""
    present = np.bincount(labels.ravel(), minlength=objects + 1)[1 : objects + 1]
    taken = labels > 0
    for label in np.flatnonzero(present < 4) + 1:
        free = ~taken
        room = free[:, :-2, :-1] & free[:, 1:-1, :-1] & free[:, 2:, :-1] & free[:, 2:, 1:]
        z, y, x = np.unravel_index(int(np.argmax(room)), room.shape)
        labels[labels == label] = 0
        for dy, dx in ((0, 0), (1, 0), (2, 0), (2, 1)):
            labels[z, y + dy, x + dx] = label
            image[z, y + dy, x + dx] = tissue.organs[1]
            taken[z, y + dy, x + dx] = True


def _acquire(image: Field, modality: str, rng: np.random.Generator) -> NDArray[np.uint8]:
    """What a scanner makes of it: texture, noise, an MR's bias field, and eight bits."""
    tissue = TISSUES[modality]
    for pixels in image:
        texture = cv2.GaussianBlur(rng.standard_normal(pixels.shape, np.float32), (0, 0), 2.5) * 7
        fine = cv2.GaussianBlur(rng.standard_normal(pixels.shape, np.float32), (0, 0), 0.7) * 2
        inside = pixels > tissue.air + 0.3 * abs(tissue.body - tissue.air) if modality == "CT" else pixels > 20
        pixels += inside * tissue.texture * texture + tissue.noise * fine
    if modality == "MR":
        coarse = rng.standard_normal((3, 3), np.float32)
        bias = 1 + 0.2 * cv2.resize(coarse, image.shape[:0:-1], interpolation=cv2.INTER_CUBIC)
        image *= np.clip(bias, 0.5, 1.6)
        np.abs(image, out=image)
    return to_uint8(image, "CT" if modality == "CT" else "MR")


def _colour(grey: NDArray[np.uint8], rng: np.random.Generator) -> NDArray[np.uint8]:
    """Skin: reddish, darker where the lesion is."""
    gains = np.array([1.0, 0.78, 0.66]) + rng.uniform(-0.05, 0.05, 3)
    offsets = np.array([30.0, 10.0, 5.0])
    return np.clip(grey[..., None] * gains + offsets, 0, 255).astype(np.uint8)
