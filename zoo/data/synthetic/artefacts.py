"""What acquisition does to an image: blur, bias, noise, streaks, ringing, quantisation. Fields are about 0 to 1."""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

from zoo.data.synthetic.noise import Field, chance, log_uniform, smooth_noise


def blur(image: Field, sigma_y: float, sigma_x: float | None = None) -> Field:
    """Gaussian blur; the deviations are in pixels."""
    sigma_x = sigma_y if sigma_x is None else sigma_x
    return np.asarray(cv2.GaussianBlur(image, (0, 0), sigmaX=max(0.2, sigma_x), sigmaY=max(0.2, sigma_y)), np.float32)


def point_spread(rng: np.random.Generator, image: Field) -> Field:
    """Partial volume and a slight, sometimes anisotropic, loss of sharpness."""
    sigma = rng.uniform(0.4, 0.8) if chance(rng, 0.75) else rng.uniform(0.8, 1.8)
    return blur(image, sigma, sigma * (rng.uniform(1, 2.2) if chance(rng, 0.2) else 1))


def bias_field(rng: np.random.Generator, shape: tuple[int, int], strength: float) -> Field:
    """A smooth factor about 1, float32 (h, w)."""
    return np.exp(np.float32(strength) * smooth_noise(rng, shape, max(shape) * rng.uniform(0.4, 1.2)))


def gaussian_noise(rng: np.random.Generator, shape: tuple[int, int], sigma: float, grain_px: float = 0.0) -> Field:
    """Noise of this deviation, float32 (h, w); correlated over about `grain_px`."""
    noise = rng.standard_normal(shape, dtype=np.float32)
    if grain_px > 0.3:
        noise = blur(noise, grain_px)
        sigma = sigma / max(1e-3, float(noise[::4, ::4].std()))
    return noise * np.float32(sigma)


def rician(rng: np.random.Generator, image: Field, sigma: float) -> Field:
    """Magnitude of a complex signal with noise in both channels."""
    noise = rng.standard_normal(image.shape, dtype=np.float32) * np.float32(sigma)
    other = np.ascontiguousarray(noise[::-1, ::-1])  # as good as a second draw, which costs more than all else here
    return np.asarray(cv2.magnitude(image + noise, other), np.float32)


def shot_noise(rng: np.random.Generator, image: Field, photons: float) -> Field:
    """Poisson noise at `photons` for brightness 1, by its normal approximation."""
    noise = rng.standard_normal(image.shape, dtype=np.float32)
    return np.asarray(image + np.sqrt(np.maximum(image, 0) / np.float32(photons)) * noise, np.float32)


def streaks(rng: np.random.Generator, shape: tuple[int, int], strength: float) -> Field:
    """Fans of bright and dark lines from one or two points, as metal leaves in a CT, float32 (h, w)."""
    field = np.zeros(shape, np.float32)
    reach = 2 * max(shape)
    for _ in range(rng.integers(1, 3)):
        y, x = rng.uniform(0.1, 0.9, 2) * shape
        for angle in rng.uniform(0, np.pi, int(rng.integers(3, 14))):
            dx, dy = reach * np.cos(angle), reach * np.sin(angle)
            value = float(rng.normal(0, strength))
            ends = (round(x - dx), round(y - dy)), (round(x + dx), round(y + dy))
            cv2.line(field, *ends, value, int(rng.integers(1, 4)))
    return blur(field, 1.0)


def ringing(image: Field, cutoff: float) -> Field:
    """Cuts the frequencies above `cutoff` (1: none), as a truncated k-space does: Gibbs oscillations at edges."""
    spectrum = cv2.dft(image, flags=cv2.DFT_COMPLEX_OUTPUT)
    rows, columns = (max(4, int(cutoff * n / 2)) for n in image.shape)
    spectrum[rows : image.shape[0] - rows] = 0
    spectrum[:, columns : image.shape[1] - columns] = 0
    flags = cv2.DFT_INVERSE | cv2.DFT_SCALE | cv2.DFT_REAL_OUTPUT
    return np.asarray(cv2.dft(spectrum, flags=flags), np.float32)


def gamma(rng: np.random.Generator, image: Field, spread: float = 0.3) -> Field:
    """Clips to 0-1 and bends the brightness curve."""
    return np.asarray(cv2.pow(np.clip(image, 0, 1), float(np.exp(rng.normal(0, spread)))), np.float32)


def to_uint8(image: NDArray[np.float32]) -> NDArray[np.uint8]:
    """Min-max to 0-255."""
    low, high = float(image.min()), float(image.max())
    scale = 255 / max(high - low, 1e-6)
    return np.asarray(cv2.convertScaleAbs(image - np.float32(low), alpha=scale), np.uint8)


def storage(rng: np.random.Generator, image: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Now and then few grey levels, or the blocks of a JPEG file."""
    if chance(rng, 0.06):
        step = int(rng.integers(4, 24))
        image = (image // step * step).astype(np.uint8)
    if chance(rng, 0.15):
        quality = int(log_uniform(rng, 15, 95))
        _, code = cv2.imencode(".jpg", image, [cv2.IMWRITE_JPEG_QUALITY, quality])
        image = np.asarray(cv2.imdecode(code, cv2.IMREAD_UNCHANGED), np.uint8)
    return image
