"""A contact sheet: samples side by side, their labels outlined."""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

from zoo.data.synthetic.generator import SyntheticSample, sample


def contact_sheet(
    seed: int, rows: int, columns: int, size: int = 256, look: str | None = None, outlined: bool = True
) -> NDArray[np.uint8]:
    """Samples of consecutive seeds from `seed`, row by row, uint8 (rows * size, columns * size, 3) RGB.

    Args:
        seed: of the first sample.
        rows: how many rows.
        columns: how many columns.
        size: side of a sample in pixels.
        look: of all samples; drawn for each if None.
        outlined: whether the labels' contours are drawn, a colour for each instance.
    """
    sheet = np.zeros((rows * size, columns * size, 3), np.uint8)
    for i in range(rows * columns):
        drawn = sample(seed + i, size, look)
        top, left = i // columns * size, i % columns * size
        sheet[top : top + size, left : left + size] = outline(drawn) if outlined else drawn.image
    return sheet


def outline(drawn: SyntheticSample) -> NDArray[np.uint8]:
    """The image with the contours of its labels drawn over it, uint8 (H, W, 3) RGB."""
    picture = drawn.image.copy()
    for value in range(1, int(drawn.labels.max()) + 1):
        mask = (drawn.labels == value).astype(np.uint8)
        contours, _ = cv2.findContours(mask, cv2.RETR_CCOMP, cv2.CHAIN_APPROX_NONE)
        hue = np.array([[[value * 67 % 180, 230, 255]]], np.uint8)
        colour = cv2.cvtColor(hue, cv2.COLOR_HSV2RGB)[0, 0].tolist()
        cv2.drawContours(picture, contours, -1, colour, 1)
    return picture
