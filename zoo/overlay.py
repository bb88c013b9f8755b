"""Pictures of a segmentation over its image: a montage, and an animation of a volume."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image

from zoo.data.case import Case
from zoo.data.clicks import Click
from zoo.data.grid import Grid
from zoo.files import whole_file

#: Side in pixels that slices are enlarged or reduced to.
TILE_PX, FRAME_PX, PICTURE_PX = 320, 384, 768
#: Slices of a montage, and of an animation.
MOST_TILES, MOST_FRAMES = 12, 60
FRAME_MS = 90
#: Share of a mask's colour over the image.
FILLING = 0.3
#: Colours that the colour-blind tell apart (Okabe and Ito 2008), in the order of the objects.
COLOURS = np.array(
    [(230, 159, 0), (86, 180, 233), (0, 158, 115), (240, 228, 66), (0, 114, 178), (213, 94, 0), (204, 121, 167)],
    np.uint8,
)

#: Masks of fewer pixels have no room for the number of their label.
NUMBERED_PX = 250
#: Of more objects in a picture, frames would hide what is in them.
MOST_FRAMED = 10
#: Length of the arms of a click's cross.
MARK_PX = 14
#: What is shown of a volume around its boxes, as a share of their extent.
MARGIN = 0.08

#: Of a box, the coordinates at whose far edge it ends.
UPPER = np.array([0, 0, 1, 1])

Pixels = NDArray[np.uint8]


def write_montage(case: Case, segmentation: NDArray[np.uint16], path: Path, grid: Grid | None = None) -> None:
    """Writes a PNG: an image beside its segmentation, or evenly spaced slices of a volume's boxes.

    Args:
        case: what was segmented; its boxes and clicks are drawn.
        segmentation: uint16 of the case's spatial shape.
        path: of the PNG.
        grid: of a volume's file, in whose axes slices are numbered.
    """
    if case.is_volume:
        tiles = [_slice(case, segmentation, z, TILE_PX, grid) for z in _shown_slices(case, MOST_TILES)]
        picture = _grid(tiles, columns=min(4, len(tiles)))
    else:
        plain = _resized(case.image, PICTURE_PX, (1.0, 1.0))
        drawn = draw(case.image, segmentation, case.boxes, case.object_labels, PICTURE_PX, (1.0, 1.0))
        _mark(drawn, case.clicks, (0, 0), case.spatial_shape)
        picture = np.concatenate([plain, drawn], axis=1)
    with whole_file(path) as part:
        Image.fromarray(picture).save(part, format="PNG")


def write_animation(case: Case, segmentation: NDArray[np.uint16], path: Path, grid: Grid | None = None) -> None:
    """Writes a GIF that walks through the slices that a volume's boxes reach, numbered as in `write_montage`."""
    frames = [Image.fromarray(_slice(case, segmentation, z, FRAME_PX, grid)) for z in _shown_slices(case, MOST_FRAMES)]
    paletted = [frame.quantize(128) for frame in frames]
    with whole_file(path) as part:
        paletted[0].save(
            part, format="GIF", save_all=True, append_images=paletted[1:], duration=FRAME_MS, loop=0, optimize=False
        )


def draw(
    image: Pixels,
    segmentation: NDArray[np.uint16],
    boxes: NDArray[np.int64],
    labels: NDArray[np.uint16],
    side: int,
    spacing: tuple[float, float],
) -> Pixels:
    """Masks as tinted areas with outlines and their labels, boxes of a few objects as thin frames, each in its colour.

    Args:
        image: uint8 (H, W, 3) or (H, W).
        segmentation: uint16 (H, W).
        boxes: (N, 4) xyxy of the objects.
        labels: (N,) their labels.
        side: in pixels that the longer side is brought to.
        spacing: voxel size along (y, x), for square millimetres.

    Returns:
        uint8 (H', W', 3).
    """
    picture = _resized(image, side, spacing)
    height, width = picture.shape[:2]
    masks = cv2.resize(segmentation, (width, height), interpolation=cv2.INTER_NEAREST_EXACT)
    tint = COLOURS[(masks.astype(np.int64) - 1) % len(COLOURS)]
    inside = masks > 0
    picture[inside] = (picture[inside] * (1 - FILLING) + tint[inside] * FILLING).astype(np.uint8)
    edges = inside & (cv2.erode(masks, np.ones((3, 3), np.uint8)) != cv2.dilate(masks, np.ones((3, 3), np.uint8)))
    picture[edges] = tint[edges]
    scale = np.array([width / image.shape[1], height / image.shape[0]] * 2)
    for box, label in zip(boxes, labels, strict=True) if len(boxes) <= MOST_FRAMED else ():
        x0, y0, x1, y1 = (int(end) for end in np.round((box + UPPER) * scale).astype(int) - UPPER)
        colour: Any = COLOURS[(int(label) - 1) % len(COLOURS)].tolist()
        cv2.rectangle(picture, (x0, y0), (x1, y1), colour, 1)
    for label in labels:
        if np.count_nonzero(mask := masks == label) >= NUMBERED_PX:
            _write(picture, str(label), _middle(mask), 0.4)
    return picture


def _middle(mask: NDArray[np.bool_]) -> tuple[int, int]:
    """Where to begin a number of two digits that stands in the thickest part of a mask: (x, y) of its lower left."""
    depth = cv2.distanceTransform(mask.astype(np.uint8), cv2.DIST_L2, 3)
    y, x = np.unravel_index(int(depth.argmax()), depth.shape)
    return max(0, int(x) - 7), int(y) + 5


def _write(picture: Pixels, text: str, at: tuple[int, int], size: float) -> None:
    """White text with a dark rim, for any background."""
    for ink, thickness in (((0, 0, 0), 3), ((255, 255, 255), 1)):
        cv2.putText(picture, text, at, cv2.FONT_HERSHEY_SIMPLEX, size, ink, thickness, cv2.LINE_AA)


def _mark(picture: Pixels, clicks: Iterable[Click], corner: tuple[int, int], shape: tuple[int, ...]) -> None:
    """Marks clicks: an upright cross where something belongs to its object, a tilted one where it does not.

    Args:
        picture: drawn on.
        clicks: what is marked, whatever its slice.
        corner: (x, y) of the first pixel of the image that the picture shows.
        shape: (h, w) of what it shows, in pixels of the image.
    """
    scale = np.array(picture.shape[1::-1]) / shape[::-1]
    for click in clicks:
        x, y = ((np.array(click.voxel[:2]) - corner + 0.5) * scale).astype(int).tolist()
        kind = cv2.MARKER_CROSS if click.belongs else cv2.MARKER_TILTED_CROSS
        for ink, thickness in (((0, 0, 0), 4), ((255, 255, 255), 2)):
            cv2.drawMarker(picture, (x, y), ink, kind, MARK_PX, thickness)


def _slice(case: Case, segmentation: NDArray[np.uint16], z: int, side: int, grid: Grid | None) -> Pixels:
    reached = (case.boxes[:, 2] <= z) & (z <= case.boxes[:, 5])
    rows, columns = _region(case)
    boxes = case.boxes[reached][:, [0, 1, 3, 4]] - [columns.start, rows.start] * 2
    spacing = (case.spacing_mm[1], case.spacing_mm[2])
    image, masks = case.image[z, rows, columns], segmentation[z, rows, columns]
    picture = draw(image, masks, boxes, case.object_labels[reached], side, spacing)
    here = [click for click in case.clicks if click.voxel[2] == z]
    _mark(picture, here, (columns.start, rows.start), image.shape)
    axis, index = grid.slice_in_file(z) if grid else ("z", z)
    _write(picture, f"{axis} {index}", (6, 18), 0.5)
    return picture


def _region(case: Case) -> tuple[slice, slice]:
    """Rows and columns of a volume's slices that its boxes lie in, and some around them."""
    low, high = case.boxes[:, :2].min(0), case.boxes[:, 3:5].max(0) + 1
    margin = np.ceil(MARGIN * (high - low).max()).astype(int)
    (x0, y0), (x1, y1) = np.maximum(low - margin, 0), np.minimum(high + margin, case.image.shape[:0:-1])
    return slice(int(y0), int(y1)), slice(int(x0), int(x1))


def _shown_slices(case: Case, most: int) -> list[int]:
    """Slices at even distances, and those with clicks."""
    first, last = int(case.boxes[:, 2].min()), int(case.boxes[:, 5].max())
    return sorted({int(z) for z in np.linspace(first, last, most).round()} | {click.voxel[2] for click in case.clicks})


def _resized(image: Pixels, side: int, spacing: tuple[float, float]) -> Pixels:
    """A picture in colour, its longer side `side` pixels, its pixels square in the world."""
    colour = image if image.ndim == 3 else np.repeat(image[..., None], 3, axis=2)
    extent = np.array(colour.shape[:2]) * spacing
    height, width = (max(1, round(size)) for size in extent * side / extent.max())
    shrinks = height < colour.shape[0]
    how = cv2.INTER_AREA if shrinks else cv2.INTER_CUBIC
    return np.array(cv2.resize(colour, (width, height), interpolation=how), np.uint8)


def _grid(tiles: list[Pixels], columns: int) -> Pixels:
    height, width = tiles[0].shape[:2]
    rows = -(-len(tiles) // columns)
    picture = np.zeros((rows * height, columns * width, 3), np.uint8)
    for number, tile in enumerate(tiles):
        row, column = divmod(number, columns)
        picture[row * height : (row + 1) * height, column * width : (column + 1) * width] = tile
    return picture
