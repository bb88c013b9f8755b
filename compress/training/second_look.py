"""A second look: prompts that follow from a model's own first masks, as a volume's walk and a person's clicks do."""

from __future__ import annotations

import torch
from torch import Tensor

from zoo.transforms import LOW_RES_PX

#: Each side of a mask's box moves outward by up to so much, in a frame of 256 px: on average by a walk's margin of 3.
MOST_MARGIN_PX = 6.0
#: A mask whose box overlaps less with that of the right one shows another object: its box asks for that.
LEAST_IOU = 0.5


def own_boxes(found: Tensor, wanted: Tensor, given: Tensor, frame: int) -> Tensor:
    """The boxes that a model's masks would prompt the next slice with.

    Args:
        found: bool (..., M, M), the model's.
        wanted: bool (..., M, M), the right ones, none empty.
        given: float32 (..., 4), the boxes that were answered, which stay where the found mask shows another object.
        frame: side in pixels of the prompt frame.

    Returns:
        (..., 4) xyxy in the prompt frame: around the found masks, with a margin.
    """
    around, true = box_of(found), box_of(wanted)
    margins = torch.rand(around.shape, device=around.device) * MOST_MARGIN_PX
    outward = margins * torch.tensor([-1, -1, 1, 1], device=around.device)
    loose = (around * (frame / found.shape[-1]) + outward * (frame / LOW_RES_PX)).clamp(0, frame).trunc()
    return torch.where((box_iou(around, true) >= LEAST_IOU)[..., None], loose, given)


def box_of(masks: Tensor) -> Tensor:
    """Boxes (..., 4) xyxy of the first and last true pixels of masks (..., M, M); all zero for an empty mask."""
    ends = []
    for some in (masks.any(-2).float(), masks.any(-1).float()):  # columns, then rows
        last = some.shape[-1] - 1 - some.flip(-1).argmax(-1)
        ends.append((some.argmax(-1), last * some.amax(-1)))
    (x_min, x_max), (y_min, y_max) = ends
    return torch.stack([x_min, y_min, x_max, y_max], dim=-1)


def box_iou(one: Tensor, other: Tensor) -> Tensor:
    """Intersection over union of boxes (..., 4) xyxy in whole pixels, ends included: (...)."""
    low, high = torch.maximum(one[..., :2], other[..., :2]), torch.minimum(one[..., 2:], other[..., 2:])
    both = (high - low + 1).clamp(min=0).prod(-1)
    areas = [(box[..., 2:] - box[..., :2] + 1).prod(-1) for box in (one, other)]
    return both / (areas[0] + areas[1] - both)


def draw_clicks(found: Tensor, wanted: Tensor, inside: Tensor, frame: int) -> Tensor:
    """For each object one click, at random where two masks differ: x and y in the prompt frame, and what it says.

    Args:
        found: bool (..., M, M), the model's.
        wanted: bool (..., M, M), the right ones, or a teacher's.
        inside: bool (..., M, M), where there is image and not padding.
        frame: side in pixels of the prompt frame.

    Returns:
        (..., 3): the label is 1 where the model missed something, 0 where it found too much, -1 where nothing differs.
    """
    differ = (found != wanted) & inside
    side = differ.shape[-1]
    place = (differ * (1 + torch.rand(differ.shape, device=differ.device))).flatten(-2).argmax(-1)
    wants = wanted.flatten(-2).gather(-1, place[..., None])[..., 0].float()
    label = torch.where(differ.flatten(-2).any(-1), wants, -1.0)
    x, y = ((position + 0.5) * (frame / side) - 0.5 for position in (place % side, place // side))
    return torch.stack([x, y, label], dim=-1)


def content_mask(content: Tensor, side: int) -> Tensor:
    """Positions of a frame that show image and not padding: content (B, 2) in (0, 1] to float (B, side, side)."""
    centres = (torch.arange(side, device=content.device) + 0.5) / side
    rows, columns = (centres < content[:, axis, None] for axis in (0, 1))
    return (rows[:, :, None] & columns[:, None, :]).float()
