"""Steps and minutes: which limits a run has, and which one ended it."""

from __future__ import annotations

import re
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from conftest import ENCODER
from lightning_fabric import Fabric
from test_training import SMALL

from cli import main
from compress.training import run
from compress.training.batches import StepBatches
from compress.training.config import TrainConfig, learning_rate
from compress.training.finetune import Finetuning, training_geometry
from compress.training.loop import fit
from compress.training.state import Progress
from zoo.data.dataset import PromptedImages, SyntheticImages
from zoo.errors import InputError
from zoo.registry import create_sam


@pytest.mark.parametrize("command", [["train"], ["distill", "--student", ENCODER, "--teacher-weights", "random:1"]])
@pytest.mark.parametrize(("words", "steps", "minutes"), [
    ([], 1000, 0),
    (["--minutes", "0"], 1000, 0),
    (["--steps", "7"], 7, 0),
    (["--minutes", "60"], 0, 60),
    (["--minutes", "60", "--steps", "7"], 7, 60),
])  # fmt: skip
def test_time_alone_limits_a_run_unless_steps_are_asked_for(
    monkeypatch: pytest.MonkeyPatch, command: list[str], words: list[str], steps: int, minutes: float
) -> None:
    seen: list[TrainConfig] = []

    def take_note(task: Any, sam: Any, images: Any, config: TrainConfig, *rest: Any) -> Progress:
        seen.append(config)
        return Progress()

    monkeypatch.setattr(run, "run_training", take_note)
    of = ["--encoder", ENCODER] if command == ["train"] else ["--teacher", ENCODER]
    assert CliRunner().invoke(main, [*command, *of, *words, "-o", "unused"]).exit_code == 0
    assert [(config.steps, config.minutes) for config in seen] == [(steps, minutes)]


def test_without_a_limit_of_steps_the_schedule_goes_by_time() -> None:
    config = TrainConfig(steps=0, minutes=60, warmup_steps=10, lr=1.0, batch_size=2)
    rates = [learning_rate(config, step, used=used) for step, used in ((4, 0.1), (2000, 0.5), (2000, 1))]
    assert rates == pytest.approx([0.5, 0.505, 0.01])
    assert list(islice(StepBatches(config, 5000), 2)) == [[10000, 10001], [10002, 10003]]
    with pytest.raises(InputError, match="--steps: found no limit of steps nor of time"):
        TrainConfig(steps=0)


@pytest.mark.parametrize(("limits", "told"), [
    ({"steps": 1}, "ended: all 1 steps are done"),
    ({"steps": 1, "minutes": 60}, r"ended: all 1 steps are done, in \d\.\d of 60 minutes"),
    ({"steps": 5, "minutes": 1e-9}, "ended: 1e-09 minutes are over, 1 of 5 steps are done"),
    ({"steps": 0, "minutes": 1e-9}, "ended: 1e-09 minutes are over, 1 steps are done"),
])  # fmt: skip
def test_the_limit_that_ended_a_run_is_told_and_it_can_be_asked_again(
    tmp_path: Path, limits: dict[str, Any], told: str
) -> None:
    config, notes = replace(SMALL, **limits), list[str]()
    for _ in range(2):
        sam = create_sam(ENCODER, "random:0")
        prompting, side = training_geometry(sam, config)
        progress = fit(
            Finetuning(sam, config.loss, side),
            sam,
            PromptedImages(SyntheticImages(64), prompting),
            lambda task: {"dsc": 0.5},
            config,
            tmp_path,
            Fabric(accelerator="cpu", devices=1),
            lambda kind, what: notes.append(what["text"]) if kind == "note" else None,
        )
        assert progress.step == 1
        assert re.fullmatch(told, notes[-1])
