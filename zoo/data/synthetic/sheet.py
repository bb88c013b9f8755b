"""Contact sheets: samples side by side, or slices of volumes, their labels outlined."""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

from zoo.data.synthetic.generator import sample
from zoo.data.synthetic.volume import volume


def contact_sheet(seed: int, rows: int, columns: int, size: int = 256, look: str | None = None) -> NDArray[np.uint8]:
    """Samples of consecutive seeds from `seed`, row by row, uint8 (rows * size, columns * size, 3) RGB.

    The labels' contours are drawn over them, a colour for each instance.

    Args:
        seed: of the first sample.
        rows: how many rows.
        columns: how many columns.
        size: side of a sample in pixels.
        look: of all samples; drawn for each if None.
    """
    sheet = np.zeros((rows * size, columns * size, 3), np.uint8)
    for i in range(rows * columns):
        drawn = sample(seed + i, size, look)
        top, left = i // columns * size, i % columns * size
        sheet[top : top + size, left : left + size] = outline(drawn.image, drawn.labels)
    return sheet


def volume_sheet(seed: int, rows: int, columns: int, size: int = 128, look: str | None = None) -> NDArray[np.uint8]:
    """Volumes of consecutive seeds from `seed`, a row each, evenly spaced slices side by side, as `contact_sheet`."""
    strips = []
    for number in range(rows):
        drawn = volume(seed + number, size=size, look=look)
        shown = np.linspace(0, len(drawn.image) - 1, columns + 2).round().astype(int)[1:-1]
        images = np.repeat(drawn.image[shown, :, :, None], 3, axis=-1)
        strips.append(np.concatenate(list(map(outline, images, drawn.labels[shown])), axis=1))
    return np.concatenate(strips)


def outline(image: NDArray[np.uint8], labels: NDArray[np.uint16]) -> NDArray[np.uint8]:
    """The image (H, W, 3) with the contours of its labels (H, W) drawn over it, uint8 RGB."""
    picture = image.copy()
    for value in range(1, int(labels.max()) + 1):
        mask = (labels == value).astype(np.uint8)
        contours, _ = cv2.findContours(mask, cv2.RETR_CCOMP, cv2.CHAIN_APPROX_NONE)
        hue = np.array([[[value * 67 % 180, 230, 255]]], np.uint8)
        colour = cv2.cvtColor(hue, cv2.COLOR_HSV2RGB)[0, 0].tolist()
        cv2.drawContours(picture, contours, -1, colour, 1)
    return picture
