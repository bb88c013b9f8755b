"""Cases that need no file: the phantoms, and synthetic images and volumes of the kind that training draws."""

from __future__ import annotations

import re

import numpy as np
from numpy.typing import NDArray

from zoo.data.case import Case, boxes_from_labels
from zoo.data.phantom import DEFAULT_PHANTOMS, PHANTOMS, load_phantom
from zoo.errors import InputError, unknown_name

#: What a specification may say, for messages and help.
FORMS = "phantom, phantom:NAME, synthetic, synthetic:FIRST-LAST, synthetic:3d or synthetic:3d:FIRST-LAST"
#: `synthetic` alone: four of each look. `synthetic:3d` alone: four of CT and four of MR.
DEFAULT_SYNTHETIC, DEFAULT_VOLUMES = 24, 8
#: Seed of synthetic image 0: training draws its own from `seed << 32`, which no sensible seed brings up to here.
FIRST_SEED = 1 << 62
SYNTHETIC_SIDE_PX = 256
#: Of synthetic volumes: slices, their side in pixels, and a pixel's in millimetres.
VOLUME_DEPTH, VOLUME_SIDE_PX, VOLUME_PIXEL_MM = 24, 192, 1.0
#: What marks a synthetic case's number as a volume's.
_VOLUME = "3d"
#: By the generator's look; consecutive numbers take turns at them.
LOOK_MODALITIES = {
    "ct": "CT",
    "mr": "MR",
    "us": "US",
    "xray": "XRay",
    "rgb": "Dermoscopy",
    "micro": "Microscopy",
}


def built_in_references(spec: str) -> list[str] | None:
    """References of the cases that `spec` names, each a specification of its own; None where it names none of these.

    Args:
        spec: one of `FORMS`, or anything else.

    Raises:
        InputError: a phantom that there is not, or no range of numbers.
    """
    kind, _, name = spec.partition(":")
    if kind == "phantom":
        if name and name not in PHANTOMS:
            raise unknown_name("phantom", name, PHANTOMS)
        return [f"phantom:{one}" for one in ([name] if name else DEFAULT_PHANTOMS)]
    if kind == "synthetic":
        dimensions, _, numbers = name.partition(":")
        if dimensions == _VOLUME:
            return [f"synthetic:3d:{number}" for number in _numbers(numbers or f"0-{DEFAULT_VOLUMES - 1}")]
        return [f"synthetic:{number}" for number in _numbers(name or f"0-{DEFAULT_SYNTHETIC - 1}")]
    return None


def _numbers(text: str) -> range:
    """Of `FIRST-LAST`, both included, or of one number."""
    found = re.fullmatch(r"(\d{1,9})(?:-(\d{1,9}))?", text)
    first, last = (int(found[1]), int(found[2] or found[1])) if found else (1, 0)
    if last < first:
        raise InputError("synthetic images or volumes", repr(text), "FIRST-LAST such as 0-23, or one number")
    return range(first, last + 1)


def load_built_in(reference: str) -> Case:
    """Draws the case of a reference that `built_in_references` gave, anew each time.

    Its case id is the reference with underscores for colons. Synthetic images are 256 px long, volumes have 24 slices
    of 192 px; they are drawn from seeds that training does not come to.
    """
    kind, _, name = reference.partition(":")
    if kind == "phantom":
        return load_phantom(name)
    dimensions, _, number = name.rpartition(":")
    return _synthetic_volume(int(number)) if dimensions else _synthetic_image(int(number))


def _synthetic_image(number: int) -> Case:
    # Drawing takes modules that most commands do without.
    from zoo.data.synthetic import sample

    look = list(LOOK_MODALITIES)[number % len(LOOK_MODALITIES)]
    drawn = sample(FIRST_SEED + number, SYNTHETIC_SIDE_PX, look)
    height, width = drawn.content_shape
    image, labels = drawn.image[:height, :width], drawn.labels[:height, :width]
    return _labelled(f"synthetic:{number}", LOOK_MODALITIES[look], image, labels, (1.0, 1.0))


def _synthetic_volume(number: int) -> Case:
    from zoo.data.synthetic import VOLUME_LOOK_NAMES, volume

    look = VOLUME_LOOK_NAMES[number % len(VOLUME_LOOK_NAMES)]
    drawn = volume(FIRST_SEED + number, VOLUME_DEPTH, VOLUME_SIDE_PX, look)
    spacing = (VOLUME_PIXEL_MM * drawn.thickness, VOLUME_PIXEL_MM, VOLUME_PIXEL_MM)
    return _labelled(f"synthetic:3d:{number}", LOOK_MODALITIES[look], drawn.image, drawn.labels, spacing)


def _labelled(
    reference: str, modality: str, image: NDArray[np.uint8], labels: NDArray[np.uint16], spacing_mm: tuple[float, ...]
) -> Case:
    """A case whose boxes are those of its labels."""
    boxes, values = boxes_from_labels(labels)
    return Case(
        case_id=reference.replace(":", "_"),
        modality=modality,
        image=image,
        boxes=boxes,
        object_labels=values,
        spacing_mm=spacing_mm,
        labels=labels,
        source=reference,
    )
