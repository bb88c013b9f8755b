"""Training runs: they go on as if never cut off, and tell what is wrong."""

from __future__ import annotations

import itertools
import json
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
from torch import Tensor

from cli import main
from compress.training import loop
from compress.training.config import RunOptions, TrainConfig
from compress.training.finetune import Finetuning, training_geometry
from compress.training.loop import fit, validation_on
from compress.training.pictures import LABEL
from compress.training.processes import launch
from compress.training.run import run_training
from compress.training.state import BEST, LAST, LOG
from zoo.data.dataset import SyntheticImages
from zoo.data.prompting import PromptedImages
from zoo.errors import InputError
from zoo.registry import create_sam
from zoo.sam.model import Sam
from zoo.weights import load_weights
from zoo.weights.convert import convert

ROOT = Path(__file__).parent.parent


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


SMALL = TrainConfig(
    steps=6, batch_size=2, objects=1, size=64, warmup_steps=2, validate_every=2, ema_decay=0.5, workers=0, loss="sum"
)


def small_task(config: TrainConfig) -> tuple[Finetuning, PromptedImages]:
    """A task and its images."""
    sam = create_sam("light_repvit_m0_9", "random:0")
    prompting, side = training_geometry(sam, config)
    return Finetuning(sam, config.loss, side), PromptedImages(SyntheticImages(64), prompting)


def run(out: Path, config: TrainConfig = SMALL, task_of: object = Finetuning) -> list[float]:
    """The losses that the log holds after a run."""
    sam = create_sam("light_repvit_m0_9", "random:0")
    prompting, side = training_geometry(sam, config)
    task = task_of(sam, config.loss, side)  # type: ignore[operator]
    fit(
        task,
        PromptedImages(SyntheticImages(64), prompting),
        lambda task: {"dsc": 0.5},
        config,
        out,
        launch(config, 1),
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
                raise SystemExit("pulled plug")
            return super().forward(batch)

    with pytest.raises(SystemExit, match="pulled plug"):
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

    with pytest.raises(InputError, match=r"step 3, seed 6, seed 7: found a loss of nan"):
        run(tmp_path, task_of=Poisoned)
    assert torch.load(tmp_path / LAST, weights_only=True)["progress"]["step"] == 3


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
    task, data = small_task(config)
    before = {key: value.clone() for key, value in task.sam.state_dict().items()}
    fit(task, data, lambda task: {"dsc": 0.5}, config, tmp_path, Fabric(accelerator="cpu", devices=1))
    kept = create_sam("light_repvit_m0_9", tmp_path / BEST).state_dict()
    for state in (task.sam.state_dict(), kept):
        changed = {key for key, value in state.items() if not torch.equal(value, before[key])}
        assert changed
        assert not any(key.startswith(part) for key in changed)


def test_weights_say_whether_they_were_trained_with_masks(tmp_path: Path) -> None:
    """Through checkpoints, conversion, further training without any, and a model that held others before."""
    arguments = "train --encoder light_repvit_m0_9 --size 64 --batch-size 2 --objects 2 --steps 1 --warmup-steps 0"
    shared = [*arguments.split(), "--validation-count", "1", "--workers", "0"]

    def trained(out: str, *options: str) -> Path:
        result = CliRunner().invoke(main, [*shared, "-o", str(tmp_path / out), *options])
        assert result.exit_code == 0, result.output
        return tmp_path / out

    masks = trained("masks", "--masks", "1")
    again = trained("again", "--weights", str(masks / BEST))
    none = trained("none")
    convert(masks / LAST, tmp_path / "half.safetensors", half=True)
    knowing = [masks / BEST, masks / LAST, again / BEST, tmp_path / "half.safetensors"]
    assert [create_sam("light_repvit_m0_9", path).spec.mask_prompts for path in knowing] == [True] * 4
    assert not create_sam("light_repvit_m0_9", none / BEST).spec.mask_prompts
    sam = create_sam("light_repvit_m0_9", masks / BEST)
    load_weights(sam, none / BEST)
    assert not sam.spec.mask_prompts


def test_what_prompts_without_masks_can_be_frozen_alone(tmp_path: Path) -> None:
    config = replace(SMALL, steps=1, freeze=("image_encoder", "points_and_boxes"))
    task, data = small_task(config)
    before = {key: value.clone() for key, value in task.sam.state_dict().items()}
    fit(task, data, lambda task: {"dsc": 0.5}, config, tmp_path, Fabric(accelerator="cpu", devices=1))
    after = task.sam.state_dict()
    changed = {key.split(".")[0] for key, value in after.items() if not torch.equal(value, before[key])}
    assert changed == {"mask_decoder"}, "no mask prompted, so that nothing else had a gradient"


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


@pytest.mark.parametrize("model", [
    ["train", "--weights", "nowhere.pth"],
    ["distill", "--weights", "nowhere.pth", "--teacher-weights", "nowhere.pth"],
])  # fmt: skip
def test_a_batch_that_cannot_be_shared_out_is_refused_before_anything_is_opened(
    tmp_path: Path, model: list[str]
) -> None:
    words = ["--batch-size", "6", "--accumulate", "2", "--devices", "2", "-o", str(tmp_path / "run")]
    result = CliRunner().invoke(main, [*model, *words])
    assert result.exit_code == 1
    assert "--batch-size: found 6; expected a multiple of 4 (parts times processes)" in result.output
    assert not (tmp_path / "run").exists()


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
    _, told = process.communicate(timeout=120)
    assert process.returncode == 1
    assert "Traceback" not in told
    done = len(losses(tmp_path))
    assert f"stopped at step {done};" in " ".join(told.split())
    assert torch.load(tmp_path / LAST, weights_only=True)["progress"]["step"] == done
