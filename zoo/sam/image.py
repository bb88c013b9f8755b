"""2D: an image and one box an object to a label map."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from zoo.backends import Backend, encode_finite
from zoo.data.case import Case, validate_boxes
from zoo.errors import InputError
from zoo.sam.best_dice import lift_to_best_dice
from zoo.sam.box_prior import add_box_prior
from zoo.sam.decode import decode_objects
from zoo.sam.overlap import Owners
from zoo.sam.rule import Protocol2D, clicks_for
from zoo.stages import StageClock
from zoo.tiles import tile_of
from zoo.transforms import fit_image, preprocess_image, restore_logits, scale_boxes, widen_boxes
from zoo.windows import pixels_in, window_of


def segment_image(
    case: Case,
    backend: Backend,
    protocol: Protocol2D | None = None,
    clock: StageClock | None = None,
    on_object: Callable[[], None] = lambda: None,
) -> NDArray[np.uint16]:
    """Label map of a 2D case.

    Args:
        case: an image with its boxes, and clicks if need be.
        backend: the model in a runtime.
        protocol: the options; None for the default ones.
        clock: where to add up the time of each stage.
        on_object: called after each object.

    Returns:
        uint16 (H, W): each object's label value; where objects overlap, as the protocol says.

    Raises:
        InputError: a volume, a box that reaches past the image or is not of whole numbers, or weights that give NaN.
    """
    if case.is_volume:
        raise InputError(case.source, f"a volume of shape {case.image.shape}", "a 2D case (H, W, 3)")
    if len(case.boxes):
        case = replace(case, boxes=validate_boxes(case.source, case.boxes, case.spatial_shape))
    protocol, clock = protocol or Protocol2D(), clock or StageClock()
    spec = protocol.applied_to(backend.spec)
    height, width = case.spatial_shape
    owners = Owners((height, width), case.boxes, protocol.overlap)
    for tile, numbers in _by_tile(case, spec.image_size if protocol.zoom else max(height, width)).items():
        rows, columns = pixels_in(np.array(tile))
        with clock.measure("preprocess"):
            inputs = preprocess_image(case.image[rows, columns], spec)
        with clock.measure("encode"):
            embedding = encode_finite(backend, inputs)
        clock.counts["encoded_slices"] += 1
        fit = fit_image((rows.stop - rows.start, columns.stop - columns.start), spec.prompt_frame, spec.fit)
        boxes = case.boxes[numbers] - np.tile(tile[:2], 2)
        prompts = widen_boxes(scale_boxes(boxes, fit, protocol.box_rounding), protocol.box_margin_px, fit)
        windows = np.stack([window_of(box, fit) for box in boxes]) if protocol.within_box else None
        clicks = [clicks_for(case, number, fit, corner=tile[:2]) for number in numbers]
        for place, low_res, iou in decode_objects(
            backend, embedding, prompts, clicks, windows, clock, fovea=protocol.has_fovea
        ):
            number = numbers[place]
            clock.counts["decoded_prompts"] += 1
            with clock.measure("postprocess"):
                seen = restore_logits(low_res, fit)
                if protocol.best_dice:
                    lift_to_best_dice(seen, iou)
                add_box_prior(seen, boxes[place], protocol.box_prior)
                if protocol.within_box:
                    owners.enter(number, seen[pixels_in(boxes[place])], pixels_in(case.boxes[number]))
                else:
                    owners.enter(number, seen, (rows, columns))
            on_object()
    return owners.labels(case.object_labels)


def _by_tile(case: Case, resolution_px: int) -> dict[tuple[int, int, int, int], list[int]]:
    """The numbers of the objects that are looked at in each tile."""
    height, width = case.spatial_shape
    numbers: dict[tuple[int, int, int, int], list[int]] = {}
    for number, box in enumerate(case.boxes):
        numbers.setdefault(tile_of(box, (height, width), resolution_px), []).append(number)
    return numbers
