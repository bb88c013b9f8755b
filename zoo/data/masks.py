"""Objects with a mask file each, in one label map. It holds no overlaps: the smaller of two objects has the voxel."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from zoo.data.case import boxes_from_labels
from zoo.errors import InputError, first_of
from zoo.notes import note

#: The edges of a mask that was resized smoothly have at least so many greys; of fewer one cannot be sure.
LEAST_GREYS = 8
#: What a label map can hold.
MOST_LABELS = np.iinfo(np.uint16).max
#: A note lists no more overlaps than this.
MOST_TOLD = 5

Labels = NDArray[np.uint16]


@dataclass(frozen=True)
class Mask:
    """The voxels of an object, within its box.

    Attributes:
        region: where the box lies in the array.
        inside: bool, of the region's shape.
    """

    region: tuple[slice, ...]
    inside: NDArray[np.bool_]

    @classmethod
    def of(cls, voxels: NDArray[np.bool_]) -> Mask:
        """The mask of an array, of no region where nothing is set."""
        found = ndimage.find_objects(voxels.view(np.uint8))
        region = found[0] if found else (slice(0, 0),) * voxels.ndim
        return cls(region, voxels[region].copy())

    @property
    def size(self) -> int:
        """Voxels."""
        return int(np.count_nonzero(self.inside))

    @property
    def box(self) -> list[int]:
        """Inclusive, as in `Case`."""
        return [axis.start for axis in reversed(self.region)] + [axis.stop - 1 for axis in reversed(self.region)]

    def changed(self, change: Callable[[NDArray[np.bool_]], NDArray[np.bool_]]) -> Mask:
        """What `change` leaves of it."""
        left = Mask.of(change(self.inside))
        both = zip(self.region, left.region, strict=True)
        return Mask(tuple(slice(a.start + b.start, a.start + b.stop) for a, b in both), left.inside)


@dataclass(frozen=True)
class Objects:
    """Labels, and what they hide of each other.

    Attributes:
        labels: uint16 (H, W) or (D, H, W).
        covered: by label, the whole masks of objects that have not all their voxels in `labels`.
        names: by label, where files of one object each say what it is.
    """

    labels: Labels
    covered: Mapping[int, Mask] = field(default_factory=dict)
    names: Mapping[int, str] = field(default_factory=dict)

    def boxes(self) -> tuple[NDArray[np.int64], Labels]:
        """Tight inclusive boxes of the whole objects, and their labels, as `boxes_from_labels` has them."""
        boxes, values = boxes_from_labels(self.labels)
        for row, value in enumerate(values.tolist()):
            if value in self.covered:
                boxes[row] = self.covered[value].box
        return boxes, values


def paint(where: Path, masks: Iterable[tuple[int, str, NDArray[np.bool_]]], *, leave_covered: bool = False) -> Objects:
    """A label map of objects, the largest painted first; overlaps are told of.

    Args:
        where: the folder or file that the objects come from.
        masks: the label, name and voxels of each, of one shape.
        leave_covered: an object that others cover wholly is left out and told of.

    Raises:
        InputError: masks of several shapes, no mask, or one that others cover wholly.
    """
    found: dict[int, Mask] = {}
    names: dict[int, str] = {}
    shapes = set()
    for number, name, mask in masks:
        shapes.add(mask.shape)
        found[number], names[number] = Mask.of(mask), name
    if len(shapes) != 1:
        raise InputError(where, "label files of different shapes" if shapes else "no object", "masks of one shape")
    labels = np.zeros(shapes.pop(), np.uint16)
    for number in sorted(found, key=lambda number: -found[number].size):
        labels[found[number].region][found[number].inside] = number
    covers = {number: covers for number, mask in found.items() if (covers := _covers(labels, number, mask))}
    lost = [number for number, by in covers.items() if sum(by.values()) == found[number].size]
    if lost and not leave_covered:
        over = ", ".join(names[owner] for owner in covers[lost[0]])
        expected = "masks that each have voxels of their own; IMAGE=LABELS names those to use"
        raise InputError(where / names[lost[0]], f"a mask that lies wholly under {over}", expected)
    for number in lost:
        over = ", ".join(names[owner] for owner in covers.pop(number))
        note(f"{where}: left out: {names[number]}, which lies wholly under {over}")
    _tell(where, found, names, covers)
    return Objects(labels, {number: found[number] for number in covers})


def _covers(labels: Labels, number: int, mask: Mask) -> dict[int, int]:
    """Labels that lie over an object, and how many of its voxels each has."""
    owners, counts = np.unique(labels[mask.region][mask.inside], return_counts=True)
    return {owner: count for owner, count in zip(owners.tolist(), counts.tolist(), strict=True) if owner != number}


def _tell(
    where: Path, found: Mapping[int, Mask], names: Mapping[int, str], covers: Mapping[int, Mapping[int, int]]
) -> None:
    """Notes overlaps."""
    overlaps = []
    for number, by in covers.items():
        over = ", ".join(names[owner] for owner in by)
        overlaps.append(f"{sum(by.values())} of {found[number].size} voxels of {names[number]} are {over}'s")
    if overlaps:
        told = first_of(overlaps, MOST_TOLD, "; ")
        note(f"{where}: masks overlap, the smaller one has the voxel, boxes are of whole masks: {told}")


def is_smoothed(pixels: NDArray[Any]) -> bool:
    """Whether a picture is a black and white mask with soft edges, as after resizing, and no label map.

    Its greys are many and lie side by side, never in a patch of 3 x 3 pixels as labels do; its white does.
    """
    if pixels.ndim != 2 or pixels.dtype != np.uint8 or pixels.max() != 255:
        return False
    if len(np.setdiff1d(pixels, [0, 255])) < LEAST_GREYS:
        return False
    flat = pixels[ndimage.minimum_filter(pixels, 3) == ndimage.maximum_filter(pixels, 3)]
    return set(np.unique(flat)) | {0} == {0, 255}
