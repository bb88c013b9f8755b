"""A second look: prompts that follow from a model's own first masks, as a volume's walk and a person's clicks do."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from zoo.transforms import LOW_RES_PX

#: Each side of a mask's box moves outward by up to so much, in a frame of 256 px: on average by a walk's margin of 3.
MOST_MARGIN_PX = 6.0
#: A mask whose box overlaps less with that of the right one shows another object: its box asks for that.
LEAST_IOU = 0.5
#: How far a slice's mask may be from that of the slice beside it, as parts of the object's extent; standard deviations,
#: of which each object has a share drawn from 0 to 1. Real slices lie a millimetre apart, or ten.
SHIFT, BEND = 0.12, 0.12
#: The same of the logarithms of its size and of its proportions.
GROWTH, STRETCH = 0.3, 0.08
#: Nodes, along an axis, of the field that bends a mask; it spans the object's box and some of what is around it.
BEND_NODES, BEND_SPAN = 6, 1.4


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
    return torch.where(_show_the_same(found, wanted)[..., None], loose_boxes(found, frame), given)


def loose_boxes(masks: Tensor, frame: int) -> Tensor:
    """Boxes (..., 4) xyxy in the prompt frame around masks (..., M, M), each side with a margin of its own."""
    around = box_of(masks)
    margins = torch.rand(around.shape, device=around.device) * MOST_MARGIN_PX
    outward = margins * torch.tensor([-1, -1, 1, 1], device=around.device)
    return (around * (frame / masks.shape[-1]) + outward * (frame / LOW_RES_PX)).clamp(0, frame).trunc()


def masks_beside(found: Tensor, wanted: Tensor) -> Tensor:
    """The masks that a walk might have of the slice before: half of them a model's own, all of them a slice away.

    Args:
        found: bool (..., M, M), the model's, of this slice.
        wanted: bool (..., M, M), the right ones, which take the place of those that show another object.

    Returns:
        bool (..., M, M), none empty where none of `wanted` is.
    """
    own = _show_the_same(found, wanted) & (torch.rand(found.shape[:-2], device=found.device) < 0.5)
    return a_slice_away(torch.where(own[..., None, None], found, wanted).flatten(0, -3)).view_as(wanted)


def a_slice_away(masks: Tensor) -> Tensor:
    """Masks (N, M, M) moved, grown or shrunk and bent at random; those of which nothing is left stay as they are."""
    count, side, device = len(masks), masks.shape[-1], masks.device
    box = box_of(masks).float()
    centre, extent = (box[:, :2] + box[:, 2:] + 1) / 2, box[:, 2:] - box[:, :2] + 1
    share = torch.rand(count, 1, device=device)
    shift = SHIFT * share * extent * torch.randn(count, 2, device=device)
    log_scale = GROWTH * torch.randn(count, 1, device=device) + STRETCH * torch.randn(count, 2, device=device)
    nodes = torch.randn(count, 2, BEND_NODES, BEND_NODES, device=device) * (BEND * share * extent)[..., None, None]
    along = torch.arange(side, device=device) + 0.5
    from_centre = torch.stack(torch.meshgrid(along, along, indexing="xy"), -1) - centre[:, None, None]
    in_box = (BEND_SPAN * from_centre / extent[:, None, None]).clamp(-1, 1)
    bend = F.grid_sample(nodes, in_box, padding_mode="border", align_corners=True).permute(0, 2, 3, 1)
    shown = (from_centre - shift[:, None, None] - bend) * torch.exp(-share * log_scale)[:, None, None]
    places = 2 * (shown + centre[:, None, None]) / side - 1
    moved = F.grid_sample(masks[:, None].float(), places, mode="nearest", align_corners=False)[:, 0] > 0
    return torch.where(moved.flatten(1).any(1)[:, None, None], moved, masks)


def _show_the_same(found: Tensor, wanted: Tensor) -> Tensor:
    """Whether masks (..., M, M) are likely to be of the same object: (...)."""
    return box_iou(box_of(found), box_of(wanted)) >= LEAST_IOU


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
