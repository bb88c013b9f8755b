"""Multiplanar segmentation: what a walk found in a volume's slices is asked for again in the planes across them.

A walk sees each object in one orientation, slice by slice, and may lose it. What it found is cut along the volume's two
other axes, each cut prompts for itself in its plane, and a voxel's logit is the mean of what was said of it.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, replace

import cv2
import numpy as np
from numpy.typing import NDArray

from zoo.backends import Floats
from zoo.data.case import Case
from zoo.data.clicks import Click
from zoo.sam.overlap import Owners
from zoo.sam.segmenter import Mask, Where
from zoo.transforms import resize_linear

#: Axes of a volume (z, y, x) that planes across its slices are normal to: coronal and sagittal ones of an axial scan.
ACROSS = (1, 2)
#: Planes that an object is at least asked in along an axis, if it has so many voxels there; at most twice as many.
LEAST_PLANES = 16
#: A logit at most: more than any model says, and small enough for float16 to add three.
MOST_SURE = 1e4
#: Side of a plane at most: pixels are square, whatever a file says of its voxels.
LONGEST_PX = 2048


def planes_across(case: Case, axis: int) -> list[range]:
    """The planes that each object is asked in, counted along the volume's axis.

    Args:
        case: a volume, whose boxes hold both ends.
        axis: of `ACROSS`.

    Returns:
        For each object, every plane; of a large one every second, fourth, ... of a grid, which is the same for all
        objects; but all of an object with clicks, each of which is heard in its own. None of an object of one slice.
    """
    clicked = {click.number for click in case.clicks}
    return [
        range(0) if box[2] == box[5] else _grid(box[2 - axis], box[5 - axis] + 1, every=number in clicked)
        for number, box in enumerate(case.boxes.tolist())
    ]


def view_along(case: Case, axis: int, planes: Collection[int]) -> Case:
    """A volume as planes across its slices show it.

    Args:
        case: a volume, whose boxes hold both ends.
        axis: of `ACROSS`, which the planes are normal to.
        planes: that will be looked at, one or more; what lies between them is left undrawn.

    Returns:
        From the first plane to the last: the original's slices as rows, pixels square, of the shorter side of a voxel;
        a box in it may begin or end within its first and last pixel. A click lies in the plane that holds its voxel.
    """
    axes = [axis, *(other for other in range(3) if other != axis)]
    first, last = min(planes), max(planes)
    whole = case.image.transpose(axes)
    extent_mm = np.array(whole.shape[1:]) * np.array(case.spacing_mm)[axes[1:]]
    pixel_mm = max(min(np.array(case.spacing_mm)[axes[1:]]), extent_mm.max() / LONGEST_PX)
    shape = np.maximum(1, np.round(extent_mm / pixel_mm)).astype(int)
    image = np.empty((last - first + 1, *shape), np.uint8)
    for plane in planes:
        drawn = np.ascontiguousarray(whole[plane])
        image[plane - first] = cv2.resize(drawn, shape[::-1].tolist(), interpolation=cv2.INTER_LINEAR)
    # From voxels (x, y, z) to (column, row, plane), in whole numbers.
    order = [2 - other for other in axes[::-1]]
    voxels, pixels = np.array([*whole.shape[:0:-1], 1]), np.array([*shape[::-1], 1])
    start = (case.boxes[:, :3][:, order] - [0, 0, first]) * pixels // voxels
    end = -((case.boxes[:, 3:][:, order] + [1, 1, 1 - first]) * -pixels // voxels) - 1

    def pixel_of(click: Click) -> tuple[int, ...]:
        """Where the middle of its voxel lies."""
        twice = 2 * (np.array(click.voxel)[order] - [0, 0, first]) + 1
        return tuple((twice * pixels // (2 * voxels)).tolist())

    return replace(
        case,
        image=image,
        boxes=np.concatenate([start, end], axis=1),
        spacing_mm=(case.spacing_mm[axis], pixel_mm, pixel_mm),
        labels=None,
        affine=None,
        clicks=tuple(replace(click, voxel=pixel_of(click)) for click in case.clicks),
    )


class Votes:
    """What has been said of each object's voxels in its box, and by how many.

    Args:
        boxes: (N, 6) of the volume's objects, ends included.
    """

    def __init__(self, boxes: NDArray[np.int64]) -> None:
        self._boxes = boxes
        sizes = (boxes[:, 3:] - boxes[:, :3] + 1)[:, ::-1].tolist()
        self._sums = [np.zeros(size, np.float16) for size in sizes]
        self._weights = [[np.zeros(length, np.float32) for length in size] for size in sizes]

    def enter(self, number: int, logits: Floats, where: Where) -> Mask:
        """Adds an object's logits (h, w) in a slice of the volume; returns their mask."""
        self.add(0, number, logits, where[0] - int(self._boxes[number, 2]))
        return logits > 0

    def add(self, axis: int, number: int, logits: Floats, at: int, step: int = 1) -> None:
        """Adds what a plane says of an object, and of what lies between it and the next one that is asked.

        Args:
            axis: of (z, y, x) that the plane is normal to.
            number: of the object, from 0.
            logits: (h, w) in its box, in the plane's pixels.
            at: the plane, counted from the box's first.
            step: planes to the next one: what lies between two has its share of both.
        """
        sums, weights = np.moveaxis(self._sums[number], axis, 0), self._weights[number][axis]
        vote = resize_linear(np.clip(logits, -MOST_SURE, MOST_SURE), sums.shape[1:])
        for near in range(max(0, at - step + 1), min(len(sums), at + step)):
            share = np.float32(1 - abs(near - at) / step)
            sums[near] += share * vote
            weights[near] += share

    def mask(self, axis: int, number: int, at: int, shape: tuple[int, int]) -> Mask:
        """The mask of an object in a plane, by all that has been said so far.

        Args:
            axis: of (z, y, x) that the plane is normal to.
            number: of the object, from 0.
            at: the plane, counted from the box's first.
            shape: (h, w) of the box in the plane's pixels.
        """
        return resize_linear(np.moveaxis(self._sums[number], axis, 0)[at].astype(np.float32), shape) > 0

    def count(self, owners: Owners) -> None:
        """Enters each object's mean logits, slice by slice."""
        for number, (x_min, y_min, z_min, x_max, y_max, _) in enumerate(self._boxes.tolist()):
            of_slices, of_rows, of_columns = self._weights[number]
            across = of_rows[:, None] + of_columns
            for z, sums in enumerate(self._sums[number]):
                where = np.s_[z_min + z, y_min : y_max + 1, x_min : x_max + 1]
                owners.enter(number, sums / (across + of_slices[z]), where)


@dataclass(frozen=True)
class PlaneVotes:
    """The votes of a volume as the planes along one axis have them.

    Attributes:
        votes: of the volume.
        axis: that the planes are normal to.
        view: the volume seen along it.
        steps: of each object, from a plane that it is asked in to the next.
    """

    votes: Votes
    axis: int
    view: Case
    steps: list[int]

    def known(self, number: int, plane: int) -> Mask:
        """The mask (h, w) of an object in its box that is known so far."""
        x_min, y_min, first, x_max, y_max, _ = self.view.boxes[number].tolist()
        return self.votes.mask(self.axis, number, plane - first, (y_max - y_min + 1, x_max - x_min + 1))

    def enter(self, number: int, logits: Floats, where: Where) -> Mask:
        """Adds an object's logits (h, w) in a plane; returns their mask."""
        at = where[0] - int(self.view.boxes[number, 2])
        self.votes.add(self.axis, number, logits, at, self.steps[number])
        return logits > 0


def _grid(start: int, stop: int, *, every: bool) -> range:
    """Every plane of an object, or those that are left of a large one: one in a power of two."""
    step = 1 if every else 1 << max(0, ((stop - start) // LEAST_PLANES).bit_length() - 1)
    # So counted, what is left of the largest is left of all.
    return range(start + (step - 1 - start) % step, stop, step)
