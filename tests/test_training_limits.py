"""Steps and minutes: which limits a run has, and which one ended it."""

from __future__ import annotations

import itertools
import re
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

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
from zoo.data.dataset import SyntheticImages
from zoo.data.prompting import PromptedImages
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

    def take_note(task: Any, images: Any, config: TrainConfig, *rest: Any) -> Progress:
        seen.append(config)
        return Progress()

    monkeypatch.setattr(run, "run_training", take_note)
    of = ["--encoder", ENCODER] if command == ["train"] else ["--teacher", ENCODER]
    assert CliRunner().invoke(main, [*command, *of, *words, "-o", "unused"]).exit_code == 0
    assert [(config.steps, config.minutes) for config in seen] == [(steps, minutes)]


def test_without_a_limit_of_steps_the_schedule_goes_by_time() -> None:
    """At a third of the time the cosine is at (1 + 1/2) / 2, three quarters of the way from its end to its top."""
    config = TrainConfig(steps=0, minutes=60, warmup_steps=10, lr=1.0, batch_size=2)
    rates = [learning_rate(config, step, used=used) for step, used in ((4, 0), (2000, 1 / 3), (2000, 0.5), (2000, 1))]
    assert rates == pytest.approx([0.5, 0.7525, 0.505, 0.01])
    assert list(itertools.islice(StepBatches(config, 5000), 2)) == [[10000, 10001], [10002, 10003]]
    with pytest.raises(InputError, match="--steps: found no limit of steps nor of time"):
        TrainConfig(steps=0)


@pytest.mark.parametrize("schedule", ["cosine", "constant"])
def test_the_learning_rate_has_risen_after_a_tenth_of_a_run(schedule: Literal["cosine", "constant"]) -> None:
    """Ten of 100 steps, or six of 60 minutes, of the hundred steps that it may rise over."""
    few = TrainConfig(steps=100, warmup_steps=100, lr=1.0, schedule=schedule)
    assert [learning_rate(few, step) for step in (0, 4, 9, 10)] == pytest.approx([0.1, 0.5, 1, 1])
    hour = TrainConfig(steps=0, minutes=60, warmup_steps=100, lr=1.0, schedule=schedule)
    top = {used: learning_rate(replace(hour, warmup_steps=0), 7, used=used) for used in (0.05, 0.1, 0.5)}
    rates = [learning_rate(hour, step, used=used) for step, used in ((3, 0), (3, 0.05), (89, 0.05), (7, 0.1), (7, 0.5))]
    assert rates == pytest.approx([0.04, 0.5 * top[0.05], 0.9 * top[0.05], top[0.1], top[0.5]])


def test_no_learning_rate_jumps_where_it_has_risen() -> None:
    """A run of 200 steps in its time, then one of as many steps."""
    for limits in ({"steps": 0, "minutes": 60}, {"steps": 200}):
        config = TrainConfig(**limits, warmup_steps=100, lr=1.0)  # type: ignore[arg-type]
        used = [step / 200 if config.minutes else 0 for step in range(201)]
        rates = [learning_rate(config, step, used=share) for step, share in enumerate(used)]
        assert max(abs(after - before) for before, after in itertools.pairwise(rates)) < 0.06
        assert max(rates) > 0.97
        assert rates[-1] == pytest.approx(0.01)


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
            PromptedImages(SyntheticImages(64), prompting),
            lambda task: {"dsc": 0.5},
            config,
            tmp_path,
            Fabric(accelerator="cpu", devices=1),
            lambda kind, what: notes.append(what["text"]) if kind == "note" else None,
        )
        assert progress.step == 1
        assert re.fullmatch(told, notes[-1])
