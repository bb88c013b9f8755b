"""Objects of one image, each by its box and clicks, to low-resolution logits by the fastest path there is."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

from zoo.backends import Backend, Floats, Prompts, Windows
from zoo.fovea import batches_of
from zoo.sam.predictor import box_batches
from zoo.sam.rule import Clicks
from zoo.stages import StageClock


def decode_objects(
    backend: Backend,
    embedding: Floats,
    boxes: Floats,
    clicks: Sequence[Clicks | None],
    windows: Windows | None,
    clock: StageClock,
    masks: Sequence[Floats | None] = (),
    *,
    fovea: bool = False,
) -> Iterator[tuple[int, Floats, float]]:
    """Objects by boxes alone a few together, then those that a mask prompts for, then those with clicks one by one.

    Args:
        backend: the model in a runtime.
        embedding: (1, 256, 64, 64) of the image.
        boxes: (N, 4) in the prompt frame.
        clicks: of each object.
        windows: (N, 4), where alone masks are wanted; None wants all of them.
        clock: where to add up the time.
        masks: logits (1, 256, 256) that prompt, too, for each object without clicks; none for none.
        fovea: whether the decoder has a fovea, see `zoo.fovea`, around each window; not for objects with clicks.

    Yields:
        An object's place in `boxes`, its logits (256, 256), and the IoU that is predicted of its mask.
    """
    of_places = list(masks) or [None] * len(boxes)
    unclicked = [place for place, own in enumerate(clicks) if own is None]
    for alike in (
        [place for place in unclicked if of_places[place] is None],
        [place for place in unclicked if of_places[place] is not None],
    ):
        for batch in _batches(len(alike), windows[alike] if fovea and windows is not None else None):
            places = [alike[place] for place in batch]
            within = None if windows is None else windows[places]
            beside = [mask for place in places if (mask := of_places[place]) is not None]
            with clock.measure("decode"):
                logits, iou = decode_together(backend, embedding, boxes[places], within, beside, fovea=fovea)
            yield from zip(places, logits[:, 0], iou[:, 0].tolist(), strict=True)
    for place, own in enumerate(clicks):
        if own is not None:
            with clock.measure("decode"):
                alone = decode_one(backend, embedding, boxes[place], own)
            yield place, *alone


def _batches(count: int, foveae: Windows | None) -> list[list[int]]:
    """Which of `count` boxes are decoded together, each around its window if there are foveae."""
    if foveae is not None:
        return batches_of(foveae)
    return [list(range(count))[batch] for batch in box_batches(count)]


def decode_together(
    backend: Backend, embedding: Floats, boxes: Floats, windows: Windows | None, masks: Sequence[Floats], *, fovea: bool
) -> tuple[Floats, Floats]:
    """Boxes (B, 4), with a mask (1, 256, 256) each or none, to logits (B, 1, 256, 256) and predicted IoU (B, 1)."""
    beside = np.stack(masks) if masks else None
    if fovea and windows is not None:
        return backend.decode_foveated(embedding, boxes, windows, beside)
    return backend.decode_boxes(embedding, boxes, windows, beside)


def decode_one(
    backend: Backend, embedding: Floats, box: Floats, clicks: Clicks | None, mask: Floats | None = None
) -> tuple[Floats, float]:
    """An object by itself, by the plain path: its box (4,), clicks and a mask's logits to logits (256, 256) and IoU."""
    points, labels = clicks or (None, None)
    beside = None if mask is None else mask[None]
    logits, iou = backend.decode(embedding, Prompts(boxes=box[None], points=points, point_labels=labels, masks=beside))
    return logits[0, 0], float(iou[0, 0])
