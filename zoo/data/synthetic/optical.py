"""Looks of cameras: dermoscopy, endoscopy, fundus and histology in colour, and microscopy."""

from __future__ import annotations

from collections.abc import Mapping

import cv2
import numpy as np

from zoo.data.synthetic import artefacts
from zoo.data.synthetic.appearance import ANYTHING, part_means, part_textures, tissue_image
from zoo.data.synthetic.canvas import Canvas, Tissue
from zoo.data.synthetic.looks import Rendered
from zoo.data.synthetic.noise import Field, chance, log_uniform, pixel_grid, smooth_noise

Colour = tuple[float, float, float]
#: Colours (red, green, blue) of tissues in each kind of image; those not named lie near `muscle`.
PALETTES: Mapping[str, Mapping[Tissue, Colour]] = {
    "skin": {"muscle": (0.85, 0.66, 0.58), "lesion": (0.45, 0.28, 0.22), "organ": (0.6, 0.4, 0.35)},
    "mucosa": {"muscle": (0.75, 0.35, 0.3), "lesion": (0.85, 0.5, 0.4), "fluid": (0.9, 0.75, 0.5)},
    "fundus": {
        "air": (0.02, 0.01, 0.01),
        "muscle": (0.75, 0.35, 0.15),
        "vessel": (0.5, 0.12, 0.08),
        "fat": (0.95, 0.75, 0.4),
        "white": (1.0, 0.92, 0.65),
        "grey": (0.55, 0.22, 0.1),
        "lesion": (0.5, 0.1, 0.08),
        "fluid": (0.95, 0.85, 0.4),
    },
    "histology": {
        "air": (0.95, 0.93, 0.95),
        "muscle": (0.9, 0.65, 0.78),
        "organ": (0.7, 0.42, 0.66),
        "fat": (0.97, 0.95, 0.97),
        "vessel": (0.35, 0.2, 0.5),
        "lesion": (0.4, 0.25, 0.55),
        "fluid": (0.95, 0.85, 0.9),
    },
}


def palette_of(canvas: Canvas, rng: np.random.Generator) -> str:
    """The kind of image that a canvas makes: seen by what it holds."""
    tissues = {part.tissue for part in canvas.parts}
    if "white" in tissues:
        return "fundus"
    if canvas.parts[1].tissue == "muscle" and "vessel" in tissues and len(canvas.parts) > 14:
        return "histology"
    return "skin" if chance(rng, 0.6) else "mucosa"


def rgb(canvas: Canvas, rng: np.random.Generator) -> Rendered:
    """A colour photograph: tinted parts, uneven light, highlights, hairs, dark corners."""
    image = np.take(_colours(canvas, rng), canvas.region, axis=0)
    tint = (np.array([1, 1, 1]) + rng.normal(0, 0.4, 3)).astype(np.float32)
    image += part_textures(canvas, rng, log_uniform(rng, 0.015, 0.07))[..., None] * tint
    image *= artefacts.bias_field(rng, canvas.shape, rng.uniform(0.02, 0.25))[..., None]
    sigma = rng.uniform(0.4, 1.6)
    image = np.asarray(cv2.GaussianBlur(image, (0, 0), sigma), np.float32)
    if chance(rng, 0.2):
        _hairs(image, rng)
    if chance(rng, 0.25):
        spots = smooth_noise(rng, canvas.shape, canvas.side * rng.uniform(0.03, 0.08)) > rng.uniform(1.6, 2.4)
        image += artefacts.blur(spots.astype(np.float32), 1.0)[..., None]
    if chance(rng, 0.25):
        y, x = pixel_grid(canvas.shape)
        image *= np.clip((rng.uniform(1.0, 1.4) - np.hypot(y, x)) * 6, 0, 1).astype(np.float32)[..., None]
    noise = rng.standard_normal(canvas.shape, dtype=np.float32)[..., None]
    image += noise * np.float32(log_uniform(rng, 0.003, 0.03))
    return np.clip(image, 0, 1), None


def _colours(canvas: Canvas, rng: np.random.Generator) -> Field:
    """A colour for each part, float32 (parts, 3)."""
    palette = PALETTES[palette_of(canvas, rng)]
    plain = np.array(palette["muscle"])
    shifts = {p.tissue: rng.normal(0, 0.07, 3) for p in canvas.parts}
    colours = np.array([np.array(palette.get(p.tissue, plain)) + shifts[p.tissue] for p in canvas.parts])
    if chance(rng, 0.2):
        colours = rng.uniform(0, 1, colours.shape)
    colours += rng.normal(0, 0.03, colours.shape)
    smallest = log_uniform(rng, 0.06, 0.25)
    for i, part in enumerate(canvas.parts):
        apart = colours[i] - colours[part.parent]
        size = float(np.linalg.norm(apart))
        if part.labelled and size < smallest:
            away = apart / size if size > 1e-3 else np.full(3, -0.577)
            colours[i] = colours[part.parent] + away * smallest
    return colours.astype(np.float32)


def _hairs(image: Field, rng: np.random.Generator) -> None:
    """Draws thin dark curves over the image."""
    height, width = image.shape[:2]
    colour = tuple(float(c) for c in rng.uniform(0.05, 0.3, 3))
    for _ in range(rng.integers(2, 14)):
        x0, y0 = rng.uniform(0, width), rng.uniform(0, height)
        length, angle, bend = rng.uniform(0.2, 0.6) * max(height, width), rng.uniform(0, 6.28), rng.normal(0, 0.8)
        t = np.linspace(0, 1, 12)
        line = np.stack([x0 + length * t * np.cos(angle + bend * t), y0 + length * t * np.sin(angle + bend * t)], 1)
        cv2.polylines(image, [np.round(line * 8).astype(np.int32)], False, colour, 1, cv2.LINE_AA, 3)


def micro(canvas: Canvas, rng: np.random.Generator) -> Rendered:
    """Microscopy: fluorescence, phase contrast, or membranes as an electron microscope shows them."""
    draw = rng.random()
    if draw < 0.6:
        image = _fluorescence(canvas, rng)
    elif draw < 0.8:
        image = _phase_contrast(canvas, rng)
    else:
        image = _membranes(canvas, rng)
    if chance(rng, 0.3):
        tint = rng.uniform(0, 1, 3).astype(np.float32)
        tint[int(rng.integers(3))] = 1
        return np.clip(image, 0, 1)[..., None] * tint, None
    return np.clip(image, 0, 1), None


def _fluorescence(canvas: Canvas, rng: np.random.Generator) -> Field:
    """Bright cells, thicker in their middle, on a dark hazy ground."""
    ground = rng.uniform(0, 0.15)
    priors = {**ANYTHING, "air": (ground, ground), "organ": (0.25, 0.8), "lesion": (0.5, 1.0)}
    means = part_means(canvas, rng, priors, rng.uniform(0.02, 0.2))
    depth = cv2.distanceTransform((canvas.region > 0).view(np.uint8), cv2.DIST_L2, 3)
    thick_px, rim = np.float32(canvas.side * 0.03), np.float32(rng.uniform(0.4, 1))
    shade = rim + (1 - rim) * np.minimum(depth, thick_px) / thick_px
    image = np.take(np.maximum(means, 0), canvas.region) * shade + part_textures(canvas, rng, rng.uniform(0.01, 0.08))
    haze = artefacts.blur(cv2.resize(image, None, fx=0.25, fy=0.25, interpolation=cv2.INTER_AREA), 3)
    image = artefacts.blur(image, rng.uniform(0.5, 1.8))
    image += np.float32(rng.uniform(0, 0.4)) * cv2.resize(haze, canvas.shape[::-1])
    image *= artefacts.bias_field(rng, canvas.shape, rng.uniform(0, 0.3))
    return artefacts.shot_noise(rng, image, log_uniform(rng, 15, 500))


def _phase_contrast(canvas: Canvas, rng: np.random.Generator) -> Field:
    """Grey cells on grey, told by a bright halo and a dark rim."""
    image = tissue_image(canvas, rng, {**ANYTHING, "air": (0.4, 0.6), "organ": (0.2, 0.8)}, 0.08, 0.04)
    image = artefacts.blur(image, rng.uniform(0.6, 1.4))
    image += np.float32(rng.uniform(0.5, 1.5)) * (image - artefacts.blur(image, rng.uniform(2, 6)))
    image += artefacts.gaussian_noise(rng, canvas.shape, log_uniform(rng, 0.01, 0.05))
    return image * artefacts.bias_field(rng, canvas.shape, 0.1)


def _membranes(canvas: Canvas, rng: np.random.Generator) -> Field:
    """Textured interiors between dark membranes."""
    image = tissue_image(canvas, rng, {**ANYTHING, "air": (0.4, 0.8), "organ": (0.4, 0.9)}, 0.06, 0.08)
    region = canvas.region.astype(np.float32)
    edges = np.abs(cv2.Laplacian(region, cv2.CV_32F)) > 0
    image -= np.float32(rng.uniform(0.2, 0.6)) * artefacts.blur(edges.astype(np.float32), rng.uniform(0.3, 1))
    return image + artefacts.gaussian_noise(rng, canvas.shape, log_uniform(rng, 0.02, 0.1))
