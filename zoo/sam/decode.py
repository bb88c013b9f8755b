"""Objects of one image, each by its box and clicks, to low-resolution logits by the fastest path there is."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from zoo.backends import Backend, Floats, Prompts, Windows
from zoo.fovea import batches_of, has_small_fovea
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
        fovea: whether the decoder has a fovea, see `zoo.fovea`, around each of `windows`, which it needs; never beside
            clicks.

    Yields:
        An object's place in `boxes`, its logits (256, 256), and the IoU that is predicted of its mask.
    """
    of_places = list(masks) or [None] * len(boxes)
    unclicked = [place for place, own in enumerate(clicks) if own is None]
    for alike in (
        [place for place in unclicked if of_places[place] is None],
        [place for place in unclicked if of_places[place] is not None],
    ):
        for places, foveated in _batches(alike, windows if fovea else None):
            within = None if windows is None else windows[places]
            beside = [mask for place in places if (mask := of_places[place]) is not None]
            stacked = np.stack(beside) if beside else None
            with clock.measure("decode"):
                if foveated:
                    assert within is not None
                    logits, iou = backend.decode_foveated(embedding, boxes[places], within, stacked)
                else:
                    logits, iou = backend.decode_boxes(embedding, boxes[places], within, stacked)
            yield from zip(places, logits[:, 0], iou[:, 0].tolist(), strict=True)
    for place, own in enumerate(clicks):
        if own is not None:
            with clock.measure("decode"):
                alone = decode_one(backend, embedding, boxes[place], own)
            yield place, *alone


def _batches(places: list[int], windows: Windows | None) -> Iterator[tuple[list[int], bool]]:
    """Which objects are decoded together, and whether with foveae around windows (N, 4) of all; None for without."""
    small = np.zeros(len(places), bool) if windows is None else has_small_fovea(windows[places])
    near, whole = ([place for place, own in zip(places, small, strict=True) if own == it] for it in (True, False))
    if windows is not None and near:
        for batch in batches_of(windows[near]):
            yield [near[i] for i in batch], True
    for some in box_batches(len(whole)):
        yield whole[some], False


def decode_one(
    backend: Backend,
    embedding: Floats,
    box: Floats,
    clicks: Clicks | None,
    mask: Floats | None = None,
    window: NDArray[np.int64] | None = None,
) -> tuple[Floats, float]:
    """An object by itself, by the plain path, or with a fovea where `decode_objects` decodes it so.

    Args:
        backend: the model in a runtime.
        embedding: (1, 256, 64, 64).
        box: (4,) in the prompt frame.
        clicks: if there are any.
        mask: logits (1, 256, 256) that prompt, too.
        window: (4,), around which the decoder has a fovea; None for none.

    Returns:
        Logits (256, 256) and predicted IoU.
    """
    if window is not None and clicks is None and has_small_fovea(window[None]).all():
        logits, iou = backend.decode_foveated(embedding, box[None], window[None], None if mask is None else mask[None])
        return logits[0, 0], float(iou[0, 0])
    points, labels = clicks or (None, None)
    beside = None if mask is None else mask[None]
    logits, iou = backend.decode(embedding, Prompts(boxes=box[None], points=points, point_labels=labels, masks=beside))
    return logits[0, 0], float(iou[0, 0])
