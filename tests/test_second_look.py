"""Second looks while training: boxes and clicks that follow from a model's own first masks."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import Tensor

from compress.training.config import TrainConfig
from compress.training.finetune import Finetuning, training_geometry
from compress.training.losses import cross_entropy, dice_loss, iou_loss
from compress.training.second_look import LEAST_IOU, MOST_MARGIN_PX, box_iou, box_of, own_boxes
from zoo.data.dataset import PromptedImages, SyntheticImages
from zoo.errors import InputError
from zoo.registry import create_sam
from zoo.sam.model import Sam

SMALL = TrainConfig(size=64, objects=4, own_boxes=1, clicks=2)


def square(x: int, y: int, side: int) -> Tensor:
    """A mask (32, 32) of a square whose top left pixel is (x, y)."""
    mask = torch.zeros(32, 32, dtype=torch.bool)
    mask[y : y + side, x : x + side] = True
    return mask


def test_boxes_of_masks_by_hand() -> None:
    masks = torch.stack([square(3, 5, 4), square(0, 0, 32), square(31, 0, 1), square(0, 0, 0)])
    expected = [[3, 5, 6, 8], [0, 0, 31, 31], [31, 0, 31, 0], [0, 0, 0, 0]]
    assert box_of(masks).tolist() == expected
    assert box_of(masks.view(2, 2, 32, 32)).flatten(0, 1).tolist() == expected


def test_overlap_of_boxes_by_hand() -> None:
    """Ten pixels a side: the same, half of each, and beside each other."""
    one = torch.tensor([[0.0, 0, 9, 9]]).expand(3, 4)
    other = torch.tensor([[0.0, 0, 9, 9], [5, 0, 14, 9], [10, 0, 19, 9]])
    assert box_iou(one, other).tolist() == pytest.approx([1, 50 / 150, 0])


def test_own_boxes_hold_the_found_mask_with_a_margin() -> None:
    """In a frame eight times as large as the mask, where a margin of 256 px is as long as it is."""
    torch.manual_seed(0)
    found, wanted = square(8, 9, 10).expand(200, 32, 32), square(8, 8, 11).expand(200, 32, 32)
    boxes = own_boxes(found, wanted, torch.zeros(200, 4), 256)
    outward = (boxes - torch.tensor([8.0, 9, 17, 18]) * 8) * torch.tensor([-1, -1, 1, 1])
    # Cut to whole pixels of the frame, which lets a lower end go outward and an upper one inward.
    assert outward.min() >= -1
    assert outward.max() <= MOST_MARGIN_PX + 1
    assert outward.std(0).min() > 1, "each side by itself"
    at_the_edge = own_boxes(square(0, 0, 32)[None], square(0, 0, 32)[None], torch.zeros(1, 4), 256)
    assert at_the_edge.min() >= 0
    assert at_the_edge.max() <= 256


def test_a_mask_of_another_object_does_not_move_the_box() -> None:
    given = torch.tensor([[1.0, 2, 3, 4]]).expand(3, 4)
    wanted = square(4, 4, 12)
    found = torch.stack([square(20, 20, 12), square(0, 0, 0), square(4, 4, 8)])
    assert LEAST_IOU > 64 / 144
    torch.testing.assert_close(own_boxes(found, wanted.expand(3, 32, 32), given, 256), given)


@pytest.fixture(scope="module")
def sam() -> Sam:
    """The weights that ship find most objects, so that some boxes do move."""
    return create_sam("light_repvit_m0_9").eval()


@pytest.fixture(scope="module")
def batch(sam: Sam) -> dict[str, Tensor]:
    prompting, _ = training_geometry(sam, SMALL)
    data = PromptedImages(SyntheticImages(64, 1 << 33), replace(prompting, augment=False))
    samples = [data[i] for i in range(6)]
    return {name: torch.stack([one[name] for one in samples]) for name in samples[0]}


def test_prompts_follow_from_the_first_masks(sam: Sam, batch: dict[str, Tensor]) -> None:
    task = Finetuning(sam, "boxed", 16, SMALL.own_boxes, SMALL.clicks)
    boxes, masks = batch["boxes"], batch["masks"]
    with torch.inference_mode():
        embeddings = sam.image_encoder(batch["image"])
        first = (task.decode(embeddings, boxes)[0] > 0).unflatten(0, (6, 4))
        (boxed, none, right), (clicked, clicks, asked) = task._prompts(embeddings, batch)
    assert none is None
    torch.testing.assert_close(right, masks[:, :2])
    torch.testing.assert_close(asked, masks[:, 2:])
    torch.testing.assert_close(boxed[:, 0], boxes[:, 0], msg="looked at once")
    torch.testing.assert_close(clicked, boxes[:, 2:])
    moved = (boxed[:, 1] != boxes[:, 1]).any(1)
    assert moved.any()
    around = box_of(first[:, 1]) * 4  # masks of 64 px in a frame of 256
    assert ((boxed[:, 1] - around)[moved].abs() <= MOST_MARGIN_PX + 1).all()
    assert clicks is not None
    x, y, label = ((clicks[:, :, 0, i]) for i in range(3))
    columns, rows = (((position + 0.5) / 4).long() for position in (x, y))
    for image, one in torch.cartesian_prod(torch.arange(6), torch.arange(2)).tolist():
        place = (image, one + 2, int(rows[image, one]), int(columns[image, one]))
        if label[image, one] == -1:
            continue
        assert bool(masks[place]) == bool(label[image, one])
        assert bool(first[place]) != bool(masks[place]), "where the first mask was wrong"
    assert (label != -1).any()


@pytest.mark.parametrize(("own", "clicks"), [(0, 0), (2, 0), (0, 4), (2, 2), (4, 0)])
def test_every_object_has_one_loss(sam: Sam, batch: dict[str, Tensor], own: int, clicks: int) -> None:
    """However many are looked at twice; the first looks leave no gradient."""
    task = Finetuning(sam, "boxed", 16, own, clicks)
    looks = list(task._prompts(sam.image_encoder(batch["image"]), batch))
    assert sum(boxes.shape[1] for boxes, _, _ in looks) == 4
    assert not any(boxes.requires_grad for boxes, _, _ in looks)
    torch.testing.assert_close(torch.cat([masks for _, _, masks in looks], dim=1), batch["masks"])
    sam.zero_grad()
    numbers = task(batch)
    numbers["loss"].backward()
    assert torch.isfinite(numbers["loss"])
    gradient = sam.mask_decoder.iou_token.weight.grad
    assert gradient is not None
    assert gradient.abs().sum() > 0


def test_first_looks_in_bfloat16_leave_the_decoder_its_gradients(sam: Sam, batch: dict[str, Tensor]) -> None:
    """Casts of weights that autocast keeps from the first look, which has no gradients, are not those of the second."""
    sam.zero_grad()
    with torch.autocast("cpu", torch.bfloat16):
        loss = Finetuning(sam, "boxed", 16, own_boxes=2, clicks=2)(batch)["loss"]
    loss.backward()
    weight = sam.mask_decoder.transformer.layers[0].mlp.lin1.weight  # type: ignore[union-attr]
    assert weight.grad is not None  # type: ignore[union-attr]
    assert weight.grad.abs().sum() > 0  # type: ignore[operator,union-attr]


def test_without_second_looks_nothing_changes(sam: Sam, batch: dict[str, Tensor]) -> None:
    """The loss is that of what `predict` answers."""
    task, masks = Finetuning(sam, "sum", 16), batch["masks"].flatten(0, 1)
    with torch.inference_mode():
        loss = task(batch)["loss"].item()
        logits, iou = task.predict(batch["image"], batch["boxes"])
    parts = (dice_loss(logits, masks), cross_entropy(logits, masks), iou_loss(iou, logits, masks))
    assert loss == pytest.approx(sum(part.mean().item() for part in parts))


def test_no_more_second_looks_than_prompts() -> None:
    with pytest.raises(InputError, match="--own-boxes: found 2 and --clicks 3 of 4 prompts an image; expected no more"):
        TrainConfig(own_boxes=2, clicks=3)
