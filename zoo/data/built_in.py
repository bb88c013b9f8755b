"""Cases that need no file: the phantoms, and synthetic images of the kind that training draws."""

from __future__ import annotations

import re

from zoo.data.case import Case, boxes_from_labels
from zoo.data.phantom import DEFAULT_PHANTOMS, PHANTOMS, load_phantom
from zoo.errors import InputError, unknown_name

#: What a specification may say, for messages and help.
FORMS = "phantom, phantom:NAME, synthetic or synthetic:FIRST-LAST"
#: `synthetic` alone: four of each look.
DEFAULT_SYNTHETIC = 24
#: Seed of synthetic image 0: training draws its own from `seed << 32`, which no sensible seed brings up to here.
FIRST_SEED = 1 << 62
SYNTHETIC_SIDE_PX = 256
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
        return [f"synthetic:{number}" for number in _numbers(name or f"0-{DEFAULT_SYNTHETIC - 1}")]
    return None


def _numbers(text: str) -> range:
    """Of `FIRST-LAST`, both included, or of one number."""
    found = re.fullmatch(r"(\d{1,9})(?:-(\d{1,9}))?", text)
    first, last = (int(found[1]), int(found[2] or found[1])) if found else (1, 0)
    if last < first:
        raise InputError("synthetic images", repr(text), "FIRST-LAST such as 0-23, or one number")
    return range(first, last + 1)


def load_built_in(reference: str) -> Case:
    """Draws the case of a reference that `built_in_references` gave, anew each time.

    Its case id is the reference with an underscore for the colon. Synthetic images are 256 px long, and drawn from
    seeds that training does not come to.
    """
    kind, _, name = reference.partition(":")
    if kind == "phantom":
        return load_phantom(name)
    # Drawing takes modules that most commands do without.
    from zoo.data.synthetic import sample

    look = list(LOOK_MODALITIES)[int(name) % len(LOOK_MODALITIES)]
    drawn = sample(FIRST_SEED + int(name), SYNTHETIC_SIDE_PX, look)
    height, width = drawn.content_shape
    labels = drawn.labels[:height, :width]
    boxes, values = boxes_from_labels(labels)
    return Case(
        case_id=f"synthetic_{name}",
        modality=LOOK_MODALITIES[look],
        image=drawn.image[:height, :width],
        boxes=boxes,
        object_labels=values,
        spacing_mm=(1.0, 1.0),
        labels=labels,
        source=reference,
    )
