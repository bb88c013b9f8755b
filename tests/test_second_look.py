"""Second looks while training: boxes and clicks that follow from a model's own first masks."""

from __future__ import annotations

from copy import deepcopy
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from compress.training import finetune
from compress.training.config import TrainConfig
from compress.training.finetune import Finetuning, training_geometry
from compress.training.losses import cross_entropy, dice_loss, iou_loss
from compress.training.optim import freeze
from compress.training.second_look import (
    LEAST_IOU,
    MOST_MARGIN_PX,
    a_slice_away,
    box_iou,
    box_of,
    masks_beside,
    own_boxes,
)
from zoo.data.dataset import SyntheticImages
from zoo.data.prompting import PromptedImages
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
        first_look, second_look = task._looks(embeddings, batch)
    boxed, clicked, clicks = first_look.boxes, second_look.boxes, second_look.clicks
    assert first_look.clicks is first_look.beside is second_look.beside is None
    torch.testing.assert_close(first_look.wanted, masks[:, :2])
    torch.testing.assert_close(second_look.wanted, masks[:, 2:])
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


@pytest.mark.parametrize(
    ("own", "clicks", "masks"), [(0, 0, 0), (2, 0, 0), (0, 4, 0), (2, 2, 0), (4, 0, 0), (0, 0, 4), (1, 1, 1), (0, 1, 2)]
)
def test_every_object_has_one_loss(sam: Sam, batch: dict[str, Tensor], own: int, clicks: int, masks: int) -> None:
    """However many are looked at twice; the first looks leave no gradient."""
    task = Finetuning(sam, "boxed", 16, own, clicks, masks)
    looks = list(task._looks(sam.image_encoder(batch["image"]), batch))
    assert sum(look.boxes.shape[1] for look in looks) == 4
    assert [look.beside.shape[1] for look in looks if look.beside is not None] == [masks] * (masks > 0)
    assert not any(look.boxes.requires_grad for look in looks)
    torch.testing.assert_close(torch.cat([look.wanted for look in looks], dim=1), batch["masks"])
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
    found = "found 2, --clicks 2, --masks 1 of 4 prompts an image"
    with pytest.raises(InputError, match=f"--own-boxes: {found}; expected no more"):
        TrainConfig(own_boxes=2, clicks=2, masks=1)


def test_a_slice_away_a_mask_is_much_the_same_and_never_gone() -> None:
    """Of a square of 12 px: another mask most times, which overlaps it; two pixels in corners that move out stay."""
    torch.manual_seed(0)
    before = square(10, 8, 12).expand(300, 32, 32)
    moved = a_slice_away(before)
    both, either = ((one & other).flatten(1).sum(1) for one, other in ((before, moved), (before, before | moved)))
    assert (moved != before).flatten(1).any(1).float().mean() > 0.8
    dice = 2 * both / (either + moved.flatten(1).sum(1))
    assert 0.7 < dice.mean() < 0.95
    areas = moved.flatten(1).sum(1) / 144
    assert (areas > 1.1).float().mean() > 0.1, "some grow"
    assert (areas < 0.9).float().mean() > 0.1, "some shrink"
    assert 0.8 < areas.mean() < 1.3
    corners = (square(31, 31, 1) | square(0, 0, 1)).expand(300, 32, 32)
    assert a_slice_away(corners).flatten(1).any(1).all()


def test_masks_beside_are_the_models_own_unless_of_another_object() -> None:
    """Far from each other, so that what a mask was made of can be told."""
    torch.manual_seed(0)
    found, wanted = square(0, 0, 14).expand(200, 32, 32), square(2, 2, 14).expand(200, 32, 32)
    own = masks_beside(found, wanted)
    starts = box_of(own)[:, :2].float().mean(0)
    assert torch.all((starts > 0.4) & (starts < 1.6)), "half of each"
    lost = square(20, 20, 10).expand(200, 32, 32)
    middles = (box_of(masks_beside(lost, wanted)).float() @ torch.tensor([0.5, 0, 0.5, 0])).numpy()
    assert np.quantile(middles, 0.95) < 15
    assert masks_beside(found.view(50, 4, 32, 32), wanted.view(50, 4, 32, 32)).shape == (50, 4, 32, 32)


def test_each_object_is_prompted_by_its_own_first_mask(
    sam: Sam, batch: dict[str, Tensor], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(finetune, "masks_beside", lambda found, wanted: found)
    task = Finetuning(sam, "boxed", 16, own_boxes=1, clicks=1, masks=2)
    with torch.inference_mode():
        embeddings = sam.image_encoder(batch["image"])
        first = (task.decode(embeddings, batch["boxes"])[0] > 0).unflatten(0, (6, 4))
        _, masked, _ = task._looks(embeddings, batch)
    assert masked.beside is not None
    torch.testing.assert_close(masked.beside, first[:, 1:3])
    torch.testing.assert_close(masked.wanted, batch["masks"][:, 1:3])


def test_masks_alone_are_learned_where_all_else_is_frozen(sam: Sam, batch: dict[str, Tensor]) -> None:
    """Boxes and clicks are answered as before, bit for bit; the answer to a mask is another."""
    sam = deepcopy(sam)
    task = Finetuning(sam, "boxed", 16, masks=4)
    with torch.no_grad():
        before, beside = (logits.clone() for logits in _answers(task, batch))
    frozen = ("image_encoder", "points_and_boxes", "mask_decoder")
    freeze(sam, frozen)
    learned = [name for name, weight in sam.named_parameters() if weight.requires_grad]
    assert learned == [
        f"prompt_encoder.mask_downscaling.{name}" for name in _names(sam.prompt_encoder.mask_downscaling)
    ]
    optimizer = torch.optim.SGD([weight for weight in sam.parameters() if weight.requires_grad], 0.1)
    task(batch)["loss"].backward()
    optimizer.step()
    with torch.no_grad():
        after, learned_beside = _answers(task, batch)
    torch.testing.assert_close(after, before, rtol=0, atol=0)
    assert not torch.allclose(learned_beside, beside)


def _names(module: nn.Module) -> list[str]:
    return [name for name, _ in module.named_parameters()]


def _answers(task: Finetuning, batch: dict[str, Tensor]) -> list[Tensor]:
    torch.manual_seed(3)
    return list(task.answers(batch))
