"""A case to a label map, whether it is an image or a volume."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from zoo.backends import Backend
from zoo.data.case import Case
from zoo.sam.image import segment_image
from zoo.sam.rule import AnyProtocol, Protocol2D, Protocol3D
from zoo.sam.volume import count_slices, segment_volume
from zoo.stages import StageClock


def segment_case(
    case: Case,
    backend: Backend,
    protocol: AnyProtocol | None = None,
    clock: StageClock | None = None,
    on_step: Callable[[], None] = lambda: None,
    *,
    kept_embeddings: int | None = None,
) -> NDArray[np.uint16]:
    """Label map of a case's spatial shape.

    Args:
        case: an image or a volume.
        backend: the model in a runtime.
        protocol: of an image or of a volume; None for the default options.
        clock: where to add up the time of each stage.
        on_step: called after each slice of each object, `count_steps` times in all.
        kept_embeddings: as in `segment_volume`.

    Raises:
        InputError: a volume with an image's protocol, or the other way round; weights that give NaN.
    """
    protocol = protocol or (Protocol3D() if case.is_volume else Protocol2D())
    if isinstance(protocol, Protocol3D):
        return segment_volume(case, backend, protocol, clock, on_step, kept_embeddings=kept_embeddings)
    return segment_image(case, backend, protocol, clock, on_step)


def count_steps(case: Case, protocol: AnyProtocol) -> int:
    """How many masks a case takes: one a slice or plane of each object of a volume, and one an object of an image."""
    return count_slices(case, protocol) if isinstance(protocol, Protocol3D) else len(case.boxes)
