"""A picture of what a model predicts, so that a person sees how training goes."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from zoo.errors import InputError
from zoo.files import whole_file

#: RGB of the label's outline, the prediction's, and the box.
LABEL, PREDICTION, BOX = (60, 220, 90), (240, 60, 60), (90, 150, 255)
COLUMNS, TILE_PX = 4, 256


def save_predictions(path: Path, batch: Mapping[str, Tensor], logits: Tensor, prompt_frame: int) -> None:
    """Writes a PNG with one tile an image: its first prompt's box (blue), label (green) and prediction (red).

    Args:
        path: of the picture.
        batch: as `Prompting` makes it.
        logits: (B, M, M), of each image's first prompt.
        prompt_frame: side in pixels of the frame of the boxes.

    Raises:
        InputError: the file cannot be written.
    """
    parts = zip(batch["image"], batch["boxes"][:, 0], batch["masks"][:, 0], logits > 0, strict=True)
    tiles = [
        _tile(
            image.cpu().numpy(), box.cpu().numpy() * (TILE_PX / prompt_frame), label.cpu().numpy(), found.cpu().numpy()
        )
        for image, box, label, found in parts
    ]
    tiles += [np.zeros_like(tiles[0])] * (-len(tiles) % COLUMNS)
    rows = [np.concatenate(tiles[i : i + COLUMNS], axis=1) for i in range(0, len(tiles), COLUMNS)]
    written, encoded = cv2.imencode(".png", np.concatenate(rows)[..., ::-1])
    if not written:
        raise InputError(path, "a picture that cannot be encoded", "an image")
    with whole_file(path) as part:
        part.write_bytes(encoded.tobytes())


def _tile(
    image: NDArray[np.float32], box: NDArray[np.float32], label: NDArray[np.bool_], found: NDArray[np.bool_]
) -> NDArray[np.uint8]:
    """One image (3, S, S) with outlines, uint8 (TILE_PX, TILE_PX, 3) RGB."""
    scaled = (image - image.min()) / max(float(image.max() - image.min()), 1e-8) * 255
    tile = cv2.resize(np.ascontiguousarray(scaled.transpose(1, 2, 0)).astype(np.uint8), (TILE_PX, TILE_PX))
    x0, y0, x1, y1 = (int(value) for value in box)
    cv2.rectangle(tile, (x0, y0), (x1, y1), BOX, 1)
    for mask, colour in ((label, LABEL), (found, PREDICTION)):
        large = cv2.resize(mask.astype(np.uint8), (TILE_PX, TILE_PX), interpolation=cv2.INTER_NEAREST)
        contours, _ = cv2.findContours(large, cv2.RETR_CCOMP, cv2.CHAIN_APPROX_NONE)
        cv2.drawContours(tile, contours, -1, colour, 1)
    return np.asarray(tile, np.uint8)
