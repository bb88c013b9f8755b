"""TensorBoard and Weights & Biases hear of a run; the latter by a package that stands in for it."""

from __future__ import annotations

import sys
import time
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from test_training import SMALL

from compress.training import loop
from compress.training.config import RunOptions, TrainConfig
from compress.training.finetune import Finetuning, training_geometry
from compress.training.run import run_training
from compress.training.state import LOCK
from compress.training.trackers import WANDB_ID, TensorBoard, WeightsAndBiases
from zoo.data.dataset import SyntheticImages
from zoo.data.prompting import PromptedImages
from zoo.errors import InputError
from zoo.registry import create_sam

CONFIG = replace(SMALL, steps=2)


class WandbError(Exception):
    pass


class FakeWandb:
    """What of the package is used; holds what it was told."""

    Error, Image = WandbError, staticmethod(lambda path: ("image", path))

    def __init__(self) -> None:
        self.begun: list[dict[str, Any]] = []
        self.logged: list[tuple[int, dict[str, Any]]] = []
        self.ended: list[int] = []

    def init(self, **options: Any) -> SimpleNamespace:
        assert Path(options["dir"]).is_dir()
        self.begun.append(options)
        return SimpleNamespace(
            log=lambda numbers, step: self.logged.append((step, numbers)),
            finish=lambda exit_code: self.ended.append(exit_code),
        )


@pytest.fixture
def wandb(monkeypatch: pytest.MonkeyPatch) -> FakeWandb:
    fake = FakeWandb()
    monkeypatch.setitem(sys.modules, "wandb", fake)  # type: ignore[arg-type]
    return fake


def train(out: Path, config: TrainConfig = CONFIG, project: str | None = None) -> None:
    sam = create_sam("light_repvit_m0_9", "random:0")
    prompting, side = training_geometry(sam, config)
    data = PromptedImages(SyntheticImages(64), prompting)
    options = RunOptions(("synthetic",), 2, 1, out, project)
    run_training(Finetuning(sam, config.loss, side), data, config, options, {"data": ["synthetic"]})


def test_weights_and_biases_hears_of_a_run(tmp_path: Path, wandb: FakeWandb) -> None:
    train(tmp_path / "run", project="tests")
    (begun,) = wandb.begun
    assert (begun["project"], begun["name"], begun["resume"]) == ("tests", "run", "allow")
    assert begun["config"]["lr"] == CONFIG.lr
    assert begun["config"]["encoder"] == "light_repvit_m0_9"
    assert [step for step, numbers in wandb.logged if "step/loss" in numbers] == [1, 2]
    assert [step for step, numbers in wandb.logged if "validation/dsc" in numbers] == [2]
    assert wandb.logged[-1] == (2, {"predictions": ("image", str(tmp_path / "run" / "predictions.png"))})
    train(tmp_path / "run", project="tests")
    assert wandb.begun[1]["id"] == begun["id"] == (tmp_path / "run" / WANDB_ID).read_text().strip()
    assert wandb.ended == [0, 0]


def test_a_tracker_that_fails_hears_no_more_and_the_run_goes_on(
    tmp_path: Path, wandb: FakeWandb, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """On a full disk TensorBoard's writer fails as it is told, and once more as it is closed."""

    def full(*_: object, **__: object) -> None:
        raise OSError("No space left on device")

    monkeypatch.setattr(TensorBoard, "write", full)
    monkeypatch.setattr(TensorBoard, "close", full)
    train(tmp_path / "run", project="tests")
    assert wandb.ended == [0]
    assert [step for step, numbers in wandb.logged if "step/loss" in numbers] == [1, 2]
    assert capsys.readouterr().err.count("TensorBoard is told no more: No space left on device") == 1


def test_what_failed_is_told_as_failed(tmp_path: Path, wandb: FakeWandb, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*arguments: Any) -> None:
        raise InputError("scan.npy", "nothing", "something")

    monkeypatch.setattr(loop, "take_step", fail)
    with pytest.raises(InputError, match=r"scan\.npy"):
        train(tmp_path, project="tests")
    assert wandb.ended == [1]


@pytest.mark.parametrize(("change", "message"), [
    ({"lr": 0.5}, "a run with lr"),
    ({"batch_size": 3, "accumulate": 2}, "--batch-size"),
])  # fmt: skip
def test_nobody_hears_of_a_run_that_is_refused(
    tmp_path: Path, wandb: FakeWandb, change: dict[str, Any], message: str
) -> None:
    if "lr" in change:
        train(tmp_path, project="tests")
    before, told = {*tmp_path.iterdir(), tmp_path / LOCK}, len(wandb.begun)
    with pytest.raises(InputError, match=message):
        train(tmp_path, replace(CONFIG, **change), "tests")
    assert {*tmp_path.iterdir()} == before
    assert len(wandb.begun) == told


def test_without_the_package_the_extra_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "wandb", None)  # type: ignore[arg-type]
    with pytest.raises(
        InputError, match=r"--wandb: found no package wandb; expected pip install 'rep-medsam\[wandb\]'"
    ):
        train(tmp_path, project="tests")


def test_nobody_logged_in(tmp_path: Path, wandb: FakeWandb, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(**options: Any) -> None:
        raise WandbError("no API key")

    monkeypatch.setattr(wandb, "init", refuse)
    with pytest.raises(InputError, match=r"no run could be begun \(no API key\); expected .*WANDB_MODE=offline"):
        WeightsAndBiases("tests", tmp_path, {})
    assert not (tmp_path / WANDB_ID).exists()


@pytest.mark.filterwarnings("ignore")
def test_tensorboard_hears_of_a_run(tmp_path: Path) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    train(tmp_path)
    events = EventAccumulator(str(tmp_path)).Reload()
    assert [event.step for event in events.Scalars("step/loss")] == [1, 2]
    assert [event.step for event in events.Scalars("validation/dsc")] == [2]
    assert events.Images("predictions")[0].width == 1024


def next_second() -> None:
    """Waits for it: TensorBoard reads files in the order of their names, which hold the second they were begun in.

    Those of one process and second sort by a counter as text, 10 before 9.
    """
    second = int(time.time())
    while int(time.time()) == second:
        time.sleep(0.02)


@pytest.mark.filterwarnings("ignore")
def test_steps_behind_the_checkpoint_of_a_killed_run_are_forgotten(tmp_path: Path) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    train(tmp_path)
    next_second()
    ahead = TensorBoard(tmp_path, 2)
    for step in (3, 4):
        ahead.write("step", step, {"loss": 9.0})
    ahead.close(failed=True)
    assert len(EventAccumulator(str(tmp_path)).Reload().Scalars("step/loss")) == 4
    next_second()
    train(tmp_path)
    assert [event.step for event in EventAccumulator(str(tmp_path)).Reload().Scalars("step/loss")] == [1, 2]
