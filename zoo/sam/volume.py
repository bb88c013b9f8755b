"""3D: one box a volume's object, slice by slice. Source of the rule: Rep-MedSAM's and LiteMedSAM's inference scripts.

For each object the middle slice of its box is segmented with the box's own x and y; then every slice upwards, then
every slice downwards, prompted by the box of its neighbour's mask, or by the object's own box where that mask is
empty. All protocols follow this rule; they differ in what they compute again.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from zoo.backends import Backend, Floats, Prompts
from zoo.data.case import Case
from zoo.errors import InputError, unknown_name
from zoo.stages import StageClock
from zoo.transforms import (
    BoxRounding,
    Fit,
    fit_image,
    mask_box,
    mask_in_frame,
    preprocess_image,
    restore_logits,
    scale_boxes,
)

#: `per_object` encodes every slice again for every object; `cached` encodes every slice once.
PROTOCOLS = ("per_object", "cached")


@dataclass(frozen=True)
class Protocol3D:
    """How a volume is walked: the options that published systems set differently. Defaults are Rep-MedSAM's.

    Attributes:
        name: `per_object` or `cached`.
        z_range: whether a box's z_max belongs to the object (`inclusive`) or is one past it.
        box_dilation_px: margin around a mask before it prompts its neighbour, in pixels of the prompt frame.
        box_rounding: of the object's own box, scaled to the prompt frame.
        propagate: prompt with the neighbour's mask; without it every slice gets the object's own box.
        mask_value: what the neighbour's mask holds while it is resized: `binary`, or the object's number (`label`),
            which lets smaller coverage through the higher the number, as the published script does.
    """

    name: str = "cached"
    z_range: Literal["inclusive", "exclusive"] = "inclusive"
    box_dilation_px: int = 3
    box_rounding: BoxRounding = "truncate"
    propagate: bool = True
    mask_value: Literal["binary", "label"] = "binary"

    def __post_init__(self) -> None:
        if self.name not in PROTOCOLS:
            raise unknown_name("protocol", self.name, PROTOCOLS)

    def as_record(self) -> dict[str, Any]:
        """All options by name, for a record."""
        return asdict(self)


@dataclass(frozen=True)
class _Step:
    """One slice of one object's walk, and the slice whose mask prompts it (None: the object's own box)."""

    z: int
    previous: int | None


class _Slices:
    """Embeddings of a volume's slices: encoded when asked for, kept while a later object may ask again."""

    def __init__(self, case: Case, backend: Backend, walks: list[list[_Step]], keep: bool, clock: StageClock) -> None:
        self._image, self._backend, self._clock = case.image, backend, clock
        self._kept: dict[int, Floats] = {}
        last = {step.z: number for number, walk in enumerate(walks) for step in walk}
        self._last_object = last if keep else {}

    def embedding(self, z: int, number: int) -> Floats:
        """Embedding (1, 256, 64, 64) of slice `z`, asked for by object `number`."""
        embedding = self._kept.pop(z, None)
        if embedding is None:
            embedding = self._encode(z)
        if self._last_object.get(z, number) > number:
            self._kept[z] = embedding
        return embedding

    def _encode(self, z: int) -> Floats:
        with self._clock.measure("preprocess"):
            inputs = preprocess_image(self._image[z], self._backend.spec)
        with self._clock.measure("encode"):
            embedding = self._backend.encode(inputs)
        self._clock.counts["encoded_slices"] += 1
        return embedding


def segment_volume(
    case: Case,
    backend: Backend,
    protocol: Protocol3D | None = None,
    clock: StageClock | None = None,
    on_slice: Callable[[], None] = lambda: None,
) -> NDArray[np.uint16]:
    """Label map of a 3D case.

    Args:
        case: a volume with at least one box.
        backend: the model in a runtime.
        protocol: how to walk; None is `cached` with Rep-MedSAM's options.
        clock: where to add up the time of each stage.
        on_slice: called after each slice of each object; see `count_slices` for how many there will be.

    Returns:
        uint16 (D, H, W): each object's label value, later objects over earlier ones.

    Raises:
        InputError: a 2D case, or a box that reaches past the volume under the protocol's `z_range`.
    """
    protocol, clock = protocol or Protocol3D(), clock or StageClock()
    walks = _walks(case, protocol)
    slices = _Slices(case, backend, walks, keep=protocol.name == "cached", clock=clock)
    spec = backend.spec
    fit = fit_image((case.image.shape[1], case.image.shape[2]), spec.prompt_frame, spec.fit)
    segmentation = np.zeros(case.image.shape, np.uint16)
    for number, walk in enumerate(walks):
        box = case.boxes[number][[0, 1, 3, 4]]
        masks: dict[int, NDArray[np.bool_]] = {}
        for step in walk:
            with clock.measure("postprocess"):
                previous = None if step.previous is None else masks[step.previous]
                prompt = _prompt(box, previous, fit, protocol, number)
            embedding = slices.embedding(step.z, number)
            with clock.measure("decode"):
                logits, _ = backend.decode(embedding, Prompts(boxes=prompt))
            clock.counts["decoded_prompts"] += 1
            with clock.measure("postprocess"):
                masks[step.z] = restore_logits(logits[0, 0], fit) > 0
                segmentation[step.z][masks[step.z]] = case.object_labels[number]
            on_slice()
    return segmentation


def count_slices(case: Case, protocol: Protocol3D | None = None) -> int:
    """How many slices all walks of a case visit together."""
    return sum(len(walk) for walk in _walks(case, protocol or Protocol3D()))


def _walks(case: Case, protocol: Protocol3D) -> list[list[_Step]]:
    if not case.is_volume:
        raise InputError(case.source, f"a 2D case of shape {case.image.shape}", "a volume (D, H, W)")
    return [list(_walk(z_min, z_max, case, protocol)) for z_min, z_max in case.boxes[:, [2, 5]]]


def _walk(z_min: int, z_max: int, case: Case, protocol: Protocol3D) -> Iterator[_Step]:
    """The middle slice, then upwards, then downwards."""
    last = z_max if protocol.z_range == "inclusive" else z_max - 1
    depth = len(case.image)
    if not 0 <= z_min <= last < depth:
        expected = f"z_min <= z_max within 0..{depth - 1} ({protocol.z_range})"
        raise InputError(case.source, f"a box with z {z_min}..{z_max} in {depth} slices", expected)
    middle = int((z_max - z_min) / 2 + z_min)
    yield _Step(middle, None)
    for z in range(middle + 1, last + 1):
        yield _Step(z, z - 1 if protocol.propagate else None)
    for z in range(middle - 1, z_min - 1, -1):
        yield _Step(z, z + 1 if protocol.propagate else None)


def _prompt(
    box: NDArray[np.int64], previous: NDArray[np.bool_] | None, fit: Fit, protocol: Protocol3D, number: int
) -> Floats:
    """The box (1, 4) in the prompt frame that asks for an object's slice."""
    if previous is not None and previous.any():
        value = number + 1 if protocol.mask_value == "label" else 1
        if (around := mask_box(mask_in_frame(previous, fit, value), protocol.box_dilation_px)) is not None:
            return around[None].astype(np.float32)
    return scale_boxes(box[None], fit, protocol.box_rounding)
