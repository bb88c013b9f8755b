"""Training: losses by hand, runs that go on as if never cut off, and what happens when something is wrong."""

from __future__ import annotations

import itertools
import json
import math
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Literal

import cv2
import numpy as np
import pytest
import torch
from click.testing import CliRunner
from lightning_fabric import Fabric
from torch import Tensor, nn

from cli import main
from compress.training import loop
from compress.training.batches import StepBatches
from compress.training.config import RunOptions, TrainConfig, learning_rate
from compress.training.finetune import Finetuning, training_geometry
from compress.training.loop import fit, validation_on
from compress.training.losses import LOSSES, boxed_cross_entropy, cross_entropy, dice, dice_loss, iou_loss
from compress.training.optim import clip_gradients, update_average
from compress.training.pictures import LABEL
from compress.training.run import process_count, run_training
from compress.training.state import BEST, LAST, LOG
from zoo.data.dataset import (
    PromptedImages,
    SyntheticImages,
)
from zoo.errors import InputError
from zoo.registry import create_sam
from zoo.sam.fast_decoder import FastDecoder
from zoo.sam.model import Sam

ROOT = Path(__file__).parent.parent


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


def test_validation_scores_and_draws(tmp_path: Path) -> None:
    sam = create_sam("light_repvit_m0_9", "random:0")
    prompting, side = training_geometry(sam, TrainConfig(size=64, objects=2))
    data = PromptedImages(SyntheticImages(64), prompting)
    task = Finetuning(sam, "sum", side).eval()
    picture = tmp_path / "predictions.png"
    together = validation_on(data, range(5), 2, torch.device("cpu"), picture)(task)["dsc"]
    alone = [validation_on(data, [i], 1, torch.device("cpu"))(task)["dsc"] for i in range(5)]
    assert together == pytest.approx(np.mean(alone), abs=1e-6)
    drawn = cv2.imread(str(picture))
    assert drawn.shape == (256, 1024, 3), "the first batch: two tiles and two empty ones"
    green = np.all(drawn[:, :, ::-1] == LABEL, axis=2)
    assert green[:, :256].any()
    assert not green[:, 512:].any()


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


SMALL = TrainConfig(
    steps=6, batch_size=2, objects=1, size=64, warmup_steps=2, validate_every=2, ema_decay=0.5, workers=0, loss="sum"
)


def small_task(config: TrainConfig) -> tuple[Finetuning, Sam, PromptedImages]:
    """A task, the model in it, and its images."""
    sam = create_sam("light_repvit_m0_9", "random:0")
    prompting, side = training_geometry(sam, config)
    return Finetuning(sam, config.loss, side), sam, PromptedImages(SyntheticImages(64), prompting)


def run(out: Path, config: TrainConfig = SMALL, task_of: object = Finetuning) -> list[float]:
    """The losses that the log holds after a run."""
    sam = create_sam("light_repvit_m0_9", "random:0")
    prompting, side = training_geometry(sam, config)
    task = task_of(sam, config.loss, side)  # type: ignore[operator]
    fit(
        task,
        sam,
        PromptedImages(SyntheticImages(64), prompting),
        lambda task: {"dsc": 0.5},
        config,
        out,
        Fabric(accelerator="cpu", devices=1, precision=config.precision),
    )
    return losses(out)


def losses(out: Path) -> list[float]:
    lines = [json.loads(line) for line in (out / LOG).read_text().splitlines()]
    return [line["loss"] for line in lines if line["kind"] == "step"]


@pytest.mark.parametrize("optimizer", ["adamw", "muon"])
def test_a_resumed_run_is_an_uninterrupted_one(tmp_path: Path, optimizer: Literal["adamw", "muon"]) -> None:
    config = replace(SMALL, optimizer=optimizer)
    whole = run(tmp_path / "whole", config)
    assert len(whole) == 6

    class Interrupted(Finetuning):
        calls = 0

        def forward(self, batch: dict[str, Tensor]) -> dict[str, Tensor]:  # type: ignore[override]
            Interrupted.calls += 1
            if Interrupted.calls == 4:
                raise RuntimeError("pulled plug")
            return super().forward(batch)

    with pytest.raises(RuntimeError, match="pulled plug"):
        run(tmp_path / "cut", config, Interrupted)
    assert len(losses(tmp_path / "cut")) == 3, "one more than was saved"
    assert run(tmp_path / "cut", config) == whole
    first, second = (torch.load(tmp_path / name / LAST, weights_only=True) for name in ("whole", "cut"))
    for key, value in first["trained"].items():
        torch.testing.assert_close(value, second["trained"][key], rtol=0, atol=0)


def test_checkpoints_are_weights_of_the_zoo(tmp_path: Path) -> None:
    run(tmp_path)
    last, best = (create_sam("light_repvit_m0_9", tmp_path / name) for name in (LAST, BEST))
    assert last.weights is not None
    assert last.weights.trained
    assert best.state_dict().keys() == last.state_dict().keys()


def test_a_run_of_other_settings_is_refused(tmp_path: Path) -> None:
    run(tmp_path)
    with pytest.raises(InputError, match=r"lr 0.0006 instead of 0.5"):
        run(tmp_path, TrainConfig(**{**vars(SMALL), "lr": 0.5}))
    (tmp_path / LAST).write_bytes(b"torn")
    with pytest.raises(InputError, match="no checkpoint of a run"):
        run(tmp_path)


def test_a_loss_that_is_not_finite_stops_and_keeps_what_was_good(tmp_path: Path) -> None:
    class Poisoned(Finetuning):
        def forward(self, batch: dict[str, Tensor]) -> dict[str, Tensor]:  # type: ignore[override]
            numbers = super().forward(batch)
            return {**numbers, "loss": numbers["loss"] * (float("nan") if 7 in batch["index"] else 1)}

    with pytest.raises(InputError, match=r"step 3, images 6, 7: found a loss of nan"):
        run(tmp_path, task_of=Poisoned)
    assert torch.load(tmp_path / LAST, weights_only=True)["progress"]["step"] == 2


def test_patience_and_best(tmp_path: Path) -> None:
    """A run that has stopped early has stopped for good, unless it is told to be more patient."""
    config = TrainConfig(**{**vars(SMALL), "validate_every": 1, "patience": 2, "schedule": "plateau"})
    scores = iter([0.1, 0.3, 0.2, 0.3, 0.9])
    validate = lambda task: {"dsc": next(scores)}  # noqa: E731
    notes: list[str] = []
    listen = lambda kind, what: notes.append(what["text"]) if kind == "note" else None  # noqa: E731
    for patience, steps in ((2, 4), (2, 4), (3, 6)):
        config = replace(config, patience=patience)
        fabric = Fabric(accelerator="cpu", devices=1)
        scores = itertools.chain(scores, [0.1])
        progress = fit(*small_task(config), validate, config, tmp_path, fabric, listen)
        assert progress.step == steps
        if steps == 4:
            assert (progress.best_step, progress.plateau_factor) == (2, 0.25)
            assert notes[-1] == "stopped early: no gain in 2 validations"
    assert progress.best_step == 5


def test_a_run_ends_with_its_time(tmp_path: Path) -> None:
    """After the step in which it is over, with a validation and a checkpoint; asked again, it has no time left."""
    config = replace(SMALL, steps=1000, minutes=1e-9)
    first = run(tmp_path, config)
    assert len(first) == 1
    assert json.loads((tmp_path / LOG).read_text().splitlines()[-1])["kind"] == "validation"
    assert run(tmp_path, config) == first


def test_parts_of_a_batch_add_up(tmp_path: Path) -> None:
    """Without BatchNorm's own statistics of each part, accumulation changes nothing but rounding."""
    frozen = replace(SMALL, steps=2, freeze=("batch_norm",))
    whole, parts = run(tmp_path / "whole", frozen), run(tmp_path / "parts", replace(frozen, accumulate=2))
    assert parts == pytest.approx(whole, rel=1e-4)
    first, second = (torch.load(tmp_path / name / LAST, weights_only=True)["trained"] for name in ("whole", "parts"))
    for key, value in first.items():
        torch.testing.assert_close(value, second[key], rtol=1e-3, atol=1e-4)


def test_bfloat16_trains_float32_weights(tmp_path: Path) -> None:
    config = replace(SMALL, steps=2, precision="bf16-mixed")
    full, half = run(tmp_path / "full", replace(SMALL, steps=2)), run(tmp_path / "half", config)
    assert half != full
    assert half == pytest.approx(full, rel=0.1)
    trained = torch.load(tmp_path / "half" / LAST, weights_only=True)["trained"]
    assert {value.dtype for value in trained.values() if value.is_floating_point()} == {torch.float32}


def test_frozen_parts_stay(tmp_path: Path) -> None:
    sam: Sam = create_sam("light_repvit_m0_9", "random:0")
    before = {key: value.clone() for key, value in sam.state_dict().items()}
    config = TrainConfig(**{**vars(SMALL), "steps": 2, "freeze": ("mask_decoder", "batch_norm")})
    prompting, side = training_geometry(sam, config)
    data = PromptedImages(SyntheticImages(64), prompting)
    fit(
        Finetuning(sam, "sum", side),
        sam,
        data,
        lambda task: {"dsc": 0.5},
        config,
        tmp_path,
        Fabric(accelerator="cpu", devices=1),
    )
    changed = {key for key, value in sam.state_dict().items() if not torch.equal(value, before[key])}
    assert not any(key.startswith("mask_decoder") or "running" in key for key in changed)
    assert any(key.startswith("image_encoder") for key in changed)


@pytest.mark.parametrize("part", ["image_encoder", "mask_decoder"])
def test_a_frozen_part_stays_bit_by_bit(tmp_path: Path, part: str) -> None:
    """Its statistics, too: in training mode BatchNorms would move."""
    config = replace(SMALL, steps=2, freeze=(part,))
    task, sam, data = small_task(config)
    before = {key: value.clone() for key, value in sam.state_dict().items()}
    fit(task, sam, data, lambda task: {"dsc": 0.5}, config, tmp_path, Fabric(accelerator="cpu", devices=1))
    kept = create_sam("light_repvit_m0_9", tmp_path / BEST).state_dict()
    for state in (sam.state_dict(), kept):
        changed = {key for key, value in state.items() if not torch.equal(value, before[key])}
        assert changed
        assert not any(key.startswith(part) for key in changed)


@pytest.mark.parametrize("optimizer", ["adamw", "muon"])
def test_something_must_be_left_to_learn(tmp_path: Path, optimizer: Literal["adamw", "muon"]) -> None:
    everything = ("image_encoder", "prompt_encoder", "mask_decoder")
    with pytest.raises(InputError, match="--freeze: found all that could be trained"):
        run(tmp_path, replace(SMALL, freeze=everything, optimizer=optimizer))


def test_an_optimiser_is_resumed_where_the_weights_are(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """On a GPU its state would stay on the CPU if it were loaded before the weights move."""
    order: list[str] = []
    setup, load = Fabric.setup, loop.load_state
    monkeypatch.setattr(Fabric, "setup", lambda *args: (order.append("moved"), setup(*args))[1])
    monkeypatch.setattr(loop, "load_state", lambda *args: (order.append("loaded"), load(*args))[1])
    config = replace(SMALL, steps=1)
    assert run(tmp_path, config) == run(tmp_path, config)
    assert order == ["moved", "moved", "loaded"]


def test_scores_on_other_images_are_not_compared(tmp_path: Path) -> None:
    config = replace(SMALL, steps=1)
    options = RunOptions(("synthetic",), 1, 1, tmp_path)
    run_training(*small_task(config), config, options, {})
    with pytest.raises(InputError, match="validation_count 1 instead of 2"):
        run_training(*small_task(config), config, replace(options, validation_count=2), {})


def test_as_many_processes_as_torchrun_has_started(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("WORLD_SIZE", raising=False)
    assert [process_count(devices) for devices in (None, 1, 2)] == [1, 1, 2]
    monkeypatch.setenv("WORLD_SIZE", "2")
    assert [process_count(devices) for devices in (None, 2)] == [2, 2]
    with pytest.raises(InputError, match="--devices: found 1 under torchrun with 2; expected 2, or leave it out"):
        process_count(1)


def test_a_size_of_nothing() -> None:
    result = CliRunner().invoke(main, ["train", "--size", "0"])
    assert "'--size': 0 is not in the range x>=1" in result.output


COMMAND = [sys.executable, "cli.py", "train", "--encoder", "light_repvit_m0_9", "--size", "64", "--batch-size", "2"]
COMMAND += ["--objects", "1", "--workers", "0", "--validation-count", "2", "--validate-every", "2"]


@pytest.mark.slow
def test_kill_9_loses_nothing_that_was_saved(tmp_path: Path) -> None:
    command = [*COMMAND, "--steps", "8", "-o"]
    process = subprocess.Popen([*command, str(tmp_path / "killed")], cwd=ROOT, stderr=subprocess.DEVNULL)
    while not (tmp_path / "killed" / LAST).exists():
        assert process.poll() is None
        time.sleep(0.05)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    for name in ("killed", "whole"):
        subprocess.run([*command, str(tmp_path / name)], cwd=ROOT, check=True, capture_output=True)
    assert losses(tmp_path / "killed") == losses(tmp_path / "whole")


@pytest.mark.slow
def test_ctrl_c_finishes_the_step_and_saves(tmp_path: Path) -> None:
    command = [*COMMAND, "--workers", "1", "--steps", "1000", "--validate-every", "1000", "-o", str(tmp_path)]
    process = subprocess.Popen(command, cwd=ROOT, stderr=subprocess.PIPE, text=True, start_new_session=True)
    while not (tmp_path / LOG).exists() or len(losses(tmp_path)) < 2:
        assert process.poll() is None
        time.sleep(0.05)
    os.killpg(process.pid, signal.SIGINT)
    _, told = process.communicate(timeout=60)
    assert process.returncode == 1
    assert "Traceback" not in told
    done = len(losses(tmp_path))
    assert f"stopped at step {done};" in " ".join(told.split())
    assert torch.load(tmp_path / LAST, weights_only=True)["progress"]["step"] == done


@pytest.mark.slow
def test_two_processes_do_what_one_does(tmp_path: Path) -> None:
    """BatchNorm's statistics are each process's own, so they are frozen here; the rest must agree."""
    options = ["--steps", "3", "--freeze", "batch_norm", "--loss", "sum", "-o"]
    subprocess.run([*COMMAND, *options, str(tmp_path / "one")], cwd=ROOT, check=True, capture_output=True)
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2", *COMMAND[1:]]
    two = [*torchrun, "--devices", "2", *options, str(tmp_path / "two")]
    done = subprocess.run(two, cwd=ROOT, capture_output=True, text=True, env={**os.environ, "OMP_NUM_THREADS": "1"})
    assert done.returncode == 0, done.stderr[-2000:]
    one, other = (torch.load(tmp_path / name / LAST, weights_only=True)["trained"] for name in ("one", "two"))
    for key, value in one.items():
        torch.testing.assert_close(value, other[key], rtol=1e-3, atol=1e-4)


@pytest.mark.slow
def test_two_processes_stop_after_the_same_step(tmp_path: Path) -> None:
    """Ctrl-C reaches them one after the other; the checkpoint is of a step that both have done."""
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2", *COMMAND[1:]]
    command = [*torchrun, "--devices", "2", "--steps", "1000", "--validate-every", "1000", "-o", str(tmp_path)]
    process = subprocess.Popen(
        command, cwd=ROOT, stderr=subprocess.DEVNULL, env={**os.environ, "OMP_NUM_THREADS": "1"}, start_new_session=True
    )
    while not (tmp_path / LOG).exists() or len(losses(tmp_path)) < 2:
        assert process.poll() is None
        time.sleep(0.05)
    os.kill(process.pid, signal.SIGINT)
    process.wait(timeout=60)
    done = len(losses(tmp_path))
    assert torch.load(tmp_path / LAST, weights_only=True)["progress"]["step"] == done
