"""2D: an image and one box an object to a label map."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from zoo.backends import Backend
from zoo.data.case import Case
from zoo.sam.overlap import Owners
from zoo.sam.predictor import box_batches
from zoo.sam.rule import Protocol2D
from zoo.stages import StageClock
from zoo.transforms import fit_image, preprocess_image, restore_logits, scale_boxes
from zoo.windows import pixels_in, window_of


def segment_image(
    case: Case, backend: Backend, protocol: Protocol2D | None = None, clock: StageClock | None = None
) -> NDArray[np.uint16]:
    """Label map of a 2D case.

    Args:
        case: an image with its boxes.
        backend: the model in a runtime.
        protocol: the options; None for the default ones.
        clock: where to add up the time of each stage.

    Returns:
        uint16 (H, W): each object's label value; where objects overlap, as the protocol says.
    """
    protocol, clock = protocol or Protocol2D(), clock or StageClock()
    with clock.measure("preprocess"):
        inputs = preprocess_image(case.image, replace(backend.spec, resize=protocol.resize or backend.spec.resize))
    with clock.measure("encode"):
        embedding = backend.encode(inputs)
    clock.counts["encoded_slices"] += 1
    height, width = case.spatial_shape
    fit = fit_image((height, width), backend.spec.prompt_frame, backend.spec.fit)
    prompts = scale_boxes(case.boxes, fit, protocol.box_rounding)
    windows = np.stack([window_of(box, fit) for box in case.boxes]) if protocol.within_box else None
    owners = Owners(case.spatial_shape, protocol.overlap)
    for batch in box_batches(len(case.boxes)):
        with clock.measure("decode"):
            logits, _ = backend.decode_boxes(embedding, prompts[batch], None if windows is None else windows[batch])
        with clock.measure("postprocess"):
            for number, low_res in enumerate(logits[:, 0], start=batch.start):
                inside = pixels_in(case.boxes[number]) if protocol.within_box else np.s_[:, :]
                owners.enter(number, restore_logits(low_res, fit)[inside], inside)
        clock.counts["decoded_prompts"] += len(logits)
    return owners.labels(case.object_labels)
