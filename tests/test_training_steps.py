"""What a training step is made of, by hand: losses, gradients, learning rates, averages, batches."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn

from compress.training.batches import StepBatches
from compress.training.config import TrainConfig, learning_rate
from compress.training.losses import LOSSES, boxed_cross_entropy, cross_entropy, dice, dice_loss, iou_loss
from compress.training.optim import clip_gradients, update_average
from zoo.errors import InputError
from zoo.registry import create_sam
from zoo.sam.fast_decoder import FastDecoder


def test_dice_by_hand() -> None:
    """Half of two pixels found for sure: 1 - 2 * 1 / (1 + 2)."""
    masks = torch.tensor([[[1, 1], [0, 0]]])
    logits = torch.tensor([[[100.0, -100.0], [-100.0, -100.0]]])
    assert dice_loss(logits, masks).item() == pytest.approx(1 / 3, abs=1e-4)
    assert dice_loss(200.0 * masks - 100, masks).item() == pytest.approx(0, abs=1e-4)


def test_dice_score_by_hand() -> None:
    masks = torch.tensor([[[True, True], [False, False]], [[False, False], [False, False]]])
    logits = torch.tensor([[[1.0, -1.0], [-1.0, -1.0]], [[-1.0, -1.0], [-1.0, -1.0]]])
    assert dice(logits, masks).tolist() == [pytest.approx(2 / 3), 0]


def test_cross_entropy_by_hand() -> None:
    """Logits of 0 say one half of everything: log 2 a pixel, in and out of the box."""
    masks = torch.zeros(1, 16, 16, dtype=torch.bool)
    masks[0, 4:8, 4:8] = True
    boxes = torch.tensor([[0.25, 0.25, 0.5, 0.5]])
    assert cross_entropy(torch.zeros(1, 16, 16), masks).item() == pytest.approx(math.log(2))
    assert boxed_cross_entropy(torch.zeros(1, 16, 16), masks, boxes).item() == pytest.approx(math.log(2))
    # A mistake far from the box counts in the one only.
    logits = torch.where(masks, 20.0, -20.0)
    logits[0, 15, 15] = 20
    assert cross_entropy(logits, masks).item() == pytest.approx(20 / 256, rel=1e-3)
    assert boxed_cross_entropy(logits, masks, boxes).item() == pytest.approx(0, abs=1e-6)


def test_iou_loss_by_hand() -> None:
    masks = torch.tensor([[[1, 1], [0, 0]]])
    logits = torch.tensor([[[1.0, -1.0], [1.0, -1.0]]])
    assert iou_loss(torch.tensor([1.0]), logits, masks).item() == pytest.approx((1 - 1 / 3) ** 2)


def test_combinations() -> None:
    parts = {
        name: torch.tensor([value]) for name, value in (("dice", 0.5), ("bce", 0.25), ("boxed_bce", 2.0), ("iou", 0.25))
    }
    assert {name: float(combine(parts)) for name, combine in LOSSES.items()} == {
        "squared_sum": 1.0,
        "sum": 1.0,
        "boxed": pytest.approx(2.875),
    }
    assert float(LOSSES["squared_sum"]({name: 2 * part for name, part in parts.items()})) == 4.0


def test_learning_rate() -> None:
    cosine = TrainConfig(steps=110, warmup_steps=10, lr=1.0)
    rates = [learning_rate(cosine, step) for step in (0, 9, 10, 60, 110)]
    assert rates == pytest.approx([0.1, 1, 1, 0.505, 0.01])
    assert learning_rate(cosine, 10, used=0.5) == pytest.approx(0.505), "whichever ends first decides"
    assert learning_rate(cosine, 60, used=0.1) == pytest.approx(0.505)
    assert learning_rate(TrainConfig(schedule="plateau", warmup_steps=0, lr=1.0), 50, 0.25) == 0.25


def test_long_gradients_are_cut_to_the_percentile() -> None:
    parameter = nn.Parameter(torch.zeros(2))
    norms = [1.0] * 9
    parameter.grad = torch.tensor([30.0, 40.0])
    assert clip_gradients([parameter], norms, 50) == pytest.approx(50)
    assert parameter.grad.norm().item() == pytest.approx(1)
    assert norms[-1] == pytest.approx(50)
    parameter.grad = torch.tensor([float("nan"), 0])
    assert math.isnan(clip_gradients([parameter], norms, 50))
    assert len(norms) == 10


def test_average_follows_and_forgets_the_start() -> None:
    average, model = nn.BatchNorm1d(1), nn.BatchNorm1d(1)
    model.weight.data.fill_(3)
    update_average(average, model, 0.999, step=0)
    assert average.weight.item() == pytest.approx(1 + 2 * 0.9), "fast at first"
    update_average(average, model, 0.5, step=10_000)
    assert average.weight.item() == pytest.approx(2.9)
    counted = nn.BatchNorm1d(1)
    counted.num_batches_tracked += 7
    update_average(average, counted, 0.5, step=10_000)
    assert average.num_batches_tracked == 7, "counters are copied, not averaged"


def test_gradients_are_those_of_the_plain_decoder() -> None:
    """The fast path in float64 against the published formulation, of every parameter that a box reaches."""
    sam = create_sam("light_repvit_m0_9", "random:0").double()
    embedding = torch.randn(2, 256, 64, 64, dtype=torch.float64)
    boxes = torch.tensor([[10.0, 20, 90, 80], [100, 30, 200, 220]], dtype=torch.float64)
    gradients = []
    for fast in (True, False):
        sam.zero_grad()
        if fast:
            logits, iou = FastDecoder(sam)(embedding, boxes)
        else:
            sparse, dense = sam.prompt_encoder(None, boxes, None)
            logits, iou = sam.mask_decoder(embedding, sam.prompt_encoder.get_dense_pe(), sparse, dense, False)
        (logits.square().mean() + iou.sum()).backward()
        gradients.append({name: p.grad for name, p in sam.named_parameters() if p.grad is not None})
    shared = gradients[0].keys() & gradients[1].keys()
    assert len(shared) > 80
    for name in shared:
        torch.testing.assert_close(gradients[0][name], gradients[1][name], rtol=1e-6, atol=1e-9)


@pytest.mark.parametrize(("accumulate", "world"), [(1, 1), (2, 1), (1, 2), (2, 2)])
def test_every_image_is_seen_once(accumulate: int, world: int) -> None:
    config = TrainConfig(steps=5, batch_size=8, accumulate=accumulate)
    parts = [list(StepBatches(config, 2, rank, world)) for rank in range(world)]
    assert sorted(i for rank in parts for part in rank for i in part) == list(range(16, 40))
    assert {len(part) for rank in parts for part in rank} == {8 // accumulate // world}
    with pytest.raises(InputError, match="--batch-size"):
        StepBatches(TrainConfig(batch_size=3), 0, 0, 2)
