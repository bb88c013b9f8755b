"""Looks of the scanners: CT, MR, ultrasound and X-ray. Each turns a painted canvas into grey, about 0 to 1."""

from __future__ import annotations

import math
from collections.abc import Callable

import cv2
import numpy as np
from numpy.typing import NDArray

from zoo.data.synthetic import artefacts
from zoo.data.synthetic.appearance import ANYTHING, Priors, tissue_image
from zoo.data.synthetic.canvas import Canvas
from zoo.data.synthetic.noise import Field, Mask, chance, log_uniform, pixel_grid, smooth_noise

#: Image float32, (h, w) grey or (h, w, 3) colour, and where something can be seen at all (None: everywhere).
Rendered = tuple[NDArray[np.float32], Mask | None]
Look = Callable[[Canvas, np.random.Generator], Rendered]

#: A soft-tissue window: 0 and 1 are its ends; air, lung and bone lie beyond them.
CT_PRIORS: Priors = {
    "air": (-2.0, -1.5),
    "gas": (-1.5, -0.2),
    "fat": (0.1, 0.3),
    "fluid": (0.38, 0.52),
    "muscle": (0.5, 0.65),
    "organ": (0.5, 0.8),
    "vessel": (0.5, 1.0),
    "lesion": (0.35, 0.75),
    "bone": (0.85, 1.8),
    "white": (0.5, 0.6),
    "grey": (0.55, 0.68),
}
#: Attenuation of a thickness, for the projection; lungs replace tissue and so subtract.
XRAY_PRIORS: Priors = {
    "air": (0.0, 0.0),
    "gas": (-0.75, -0.45),
    "fat": (0.1, 0.25),
    "fluid": (0.12, 0.3),
    "muscle": (0.6, 1.1),
    "organ": (0.25, 0.6),
    "vessel": (0.08, 0.3),
    "lesion": (0.1, 0.35),
    "bone": (0.15, 0.6),
    "white": (0.1, 0.4),
    "grey": (0.1, 0.3),
}


def ct(canvas: Canvas, rng: np.random.Generator) -> Rendered:
    """Computed tomography in a soft-tissue, wide or odd window, with correlated noise and, rarely, streaks."""
    strength = log_uniform(rng, 0.008, 0.05)
    priors = CT_PRIORS if chance(rng, 0.8) else {**ANYTHING, "air": (-2.0, 0.0)}
    image = artefacts.point_spread(rng, tissue_image(canvas, rng, priors, rng.uniform(0.02, 0.07), strength))
    if chance(rng, 0.12):
        image += artefacts.streaks(rng, canvas.shape, 0.2)
    image += artefacts.gaussian_noise(rng, canvas.shape, log_uniform(rng, 0.01, 0.09), rng.uniform(0, 1.2))
    if chance(rng, 0.15):
        image = artefacts.blur(image, rng.uniform(0.5, 1.2))
    low, high = (0.0, 1.0) if chance(rng, 0.7) else (rng.uniform(-1.5, 0.1), rng.uniform(0.9, 1.6))
    return np.clip((image - np.float32(low)) / np.float32(high - low), 0, 1), None


def mr(canvas: Canvas, rng: np.random.Generator) -> Rendered:
    """Magnetic resonance: any contrast, bias field, Rician noise, sometimes truncated k-space."""
    image = tissue_image(canvas, rng, ANYTHING, rng.uniform(0.02, 0.12), log_uniform(rng, 0.01, 0.07))
    image = artefacts.point_spread(rng, image) * artefacts.bias_field(rng, canvas.shape, rng.uniform(0, 0.4))
    if chance(rng, 0.12):
        image = artefacts.ringing(image, rng.uniform(0.3, 0.7))
    if chance(rng, 0.05):
        shift = int(rng.uniform(0.2, 0.5) * canvas.shape[0])
        image += np.float32(rng.uniform(0.03, 0.15)) * np.roll(image, shift, axis=0)
    image = artefacts.rician(rng, image, log_uniform(rng, 0.006, 0.08))
    top = float(np.quantile(image[::3, ::3], rng.uniform(0.985, 1.0)))
    return artefacts.gamma(rng, image / np.float32(max(top, 0.05)), 0.2), None


def us(canvas: Canvas, rng: np.random.Generator) -> Rendered:
    """Ultrasound: speckle drawn out sideways, bright interfaces, shadows, attenuation, a sector or a rectangle."""
    priors: Priors = {**ANYTHING, "air": (0.3, 0.6), "fluid": (0.02, 0.1), "gas": (0.5, 1.0), "fat": (0.3, 0.8)}
    base = np.clip(tissue_image(canvas, rng, priors, 0.08, 0.05), 0.01, 1.2)
    smooth = artefacts.blur(base, 1.2, 1.8)
    step = np.abs(np.diff(smooth, axis=0, prepend=smooth[:1]))
    signal = smooth + np.float32(rng.uniform(0, 3)) * step
    signal *= _shadows(canvas, rng) * artefacts.bias_field(rng, canvas.shape, 0.35)
    lateral, axial = rng.uniform(0.9, 3.0), rng.uniform(0.5, 1.2)
    noise = artefacts.blur(rng.standard_normal(canvas.shape, dtype=np.float32), axial, lateral)
    speckle = np.asarray(cv2.magnitude(noise, np.ascontiguousarray(noise[::-1, ::-1])), np.float32)
    speckle /= np.float32(max(1e-3, float(speckle[::4, ::4].mean())))
    signal *= cv2.pow(speckle, rng.uniform(0.4, 1.0))
    compression = log_uniform(rng, 3, 60)
    image = cv2.log(1 + np.float32(compression) * np.maximum(signal, 0)) * np.float32(1 / math.log1p(compression))
    view = _sector(canvas.shape, rng) if chance(rng, 0.65) else None
    return np.minimum(image if view is None else image * view, np.float32(1.2)), view


def _shadows(canvas: Canvas, rng: np.random.Generator) -> Field:
    """What is left of the beam, float32 (h, w): dark below some bone and gas, and below random stretches of skin."""
    strong = [p.tissue in ("bone", "gas") and chance(rng, 0.5) for p in canvas.parts]
    absorbed = np.take(np.array(strong, np.float32), canvas.region) * np.float32(6 / canvas.shape[0])
    absorbed += np.float32(rng.uniform(0, 1.2) / canvas.shape[0])
    left = np.exp(-np.cumsum(absorbed, axis=0, dtype=np.float32))
    if chance(rng, 0.3):
        skin = smooth_noise(rng, (4, canvas.shape[1]), canvas.shape[1] * 0.15)[1]
        left *= np.clip(1.3 - np.maximum(skin - np.float32(0.5), 0), 0.1, 1)
    return left


def _sector(shape: tuple[int, int], rng: np.random.Generator) -> Mask:
    """The field of view of a curved probe at the top."""
    y, x = pixel_grid(shape)
    apex = rng.uniform(-2.2, -1.15)
    depth = y - np.float32(apex)
    square = depth**2 + x**2
    near = square > np.float32((-0.92 - apex + rng.uniform(0, 0.15)) ** 2)
    far = square < np.float32((rng.uniform(0.85, 1.0) - apex) ** 2)
    opening = math.tan(rng.uniform(0.5, 0.9) / (1 - 0.3 * (apex + 1.15)))
    return np.asarray(near & far & (np.abs(x) < np.float32(opening) * depth))


def xray(canvas: Canvas, rng: np.random.Generator) -> Rendered:
    """Radiograph: attenuation of everything in the beam is added up, whatever lies in front."""
    total = np.zeros(canvas.shape, np.float32)
    for index, mask in canvas.masks.items():
        low, high = XRAY_PRIORS[canvas.parts[index].tissue]
        hollow = canvas.parts[index].tissue == "bone" and chance(rng, 0.6)
        total += np.float32(rng.uniform(low, high)) * (_shell(mask, rng) if hollow else _thickness(mask, rng))
    total += np.float32(rng.uniform(0.005, 0.03)) * smooth_noise(rng, canvas.shape, canvas.side * 0.02)
    total *= artefacts.bias_field(rng, canvas.shape, rng.uniform(0, 0.15))
    image = artefacts.point_spread(rng, 1 - np.exp(-np.maximum(total, 0) * np.float32(rng.uniform(0.8, 1.8))))
    image += artefacts.gaussian_noise(rng, canvas.shape, log_uniform(rng, 0.004, 0.04), rng.uniform(0, 0.8))
    if chance(rng, 0.4):
        image += np.float32(rng.uniform(0.5, 1.5)) * (image - artefacts.blur(image, canvas.side * 0.04))
    image = artefacts.gamma(rng, image, 0.3)
    return (1 - image if chance(rng, 0.1) else image), None


def _shell(mask: Mask, rng: np.random.Generator) -> Field:
    """How much of a part's dense rind, as bone has, the beam meets: 0 to 1, float32 (h, w), most along the border."""
    depth = np.asarray(cv2.distanceTransform(mask.view(np.uint8), cv2.DIST_L2, 3), np.float32)
    rind = np.float32(max(1.0, rng.uniform(0.08, 0.4) * float(depth.max())))
    inner = np.float32(rng.uniform(0.25, 0.8))
    return np.asarray(mask * (inner + (1 - inner) * np.exp(-depth / rind)), np.float32)


def _thickness(mask: Mask, rng: np.random.Generator) -> Field:
    """How much of a part the beam meets, about 0 to 1, float32 (h, w): less towards the rim of a round part."""
    field = mask.astype(np.float32)
    if chance(rng, 0.6):
        depth = cv2.distanceTransform(mask.view(np.uint8), cv2.DIST_L2, 3)
        rim = np.float32(rng.uniform(0.2, 0.8))
        field *= rim + (1 - rim) * np.sqrt(depth / max(1.0, float(depth.max())))
    return field
