"""Clicks: places that a person has pointed at, beside an object's box, where a first mask was wrong."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from zoo.errors import InputError


@dataclass(frozen=True)
class Click:
    """A voxel that belongs to an object, or that does not.

    Attributes:
        number: of the object in its case, from 0.
        voxel: (x, y) or (x, y, z).
        belongs: whether it is of the object; if not, its mask must not reach there.
    """

    number: int
    voxel: tuple[int, ...]
    belongs: bool


def check_clicks(where: str | Path, clicks: Iterable[Click], boxes: NDArray[np.int64]) -> None:
    """Makes sure that each click lies in its object's box, where alone masks are looked for.

    Args:
        where: file, for the message.
        clicks: of objects that have a box.
        boxes: (N, 4) or (N, 6), in the axes of the clicks.

    Raises:
        InputError: a click of another number of axes, or beside its box.
    """
    axes = boxes.shape[1] // 2
    for click in clicks:
        box = boxes[click.number]
        if len(click.voxel) != axes:
            raise InputError(where, f"a click of {len(click.voxel)} coordinates", f"{axes}, as boxes have")
        if (box[:axes] > click.voxel).any() or (box[axes:] < click.voxel).any():
            raise InputError(where, f"a click at {click.voxel}", f"a voxel in the object's box {box.tolist()}")


def clicks_of_kept(clicks: Iterable[Click], kept: Sequence[int] | NDArray[np.integer]) -> tuple[Click, ...]:
    """The clicks of the objects that are kept, which are numbered anew in this order."""
    numbers = {int(old): new for new, old in enumerate(kept)}
    return tuple(replace(click, number=numbers[click.number]) for click in clicks if click.number in numbers)
