"""The search for a learning rate: the curve read by hand, and nothing of the run changed by it."""

from __future__ import annotations

import json
from pathlib import Path

import click
import cv2
import numpy as np
import pytest
from click.testing import CliRunner
from lightning_fabric import Fabric
from test_training import SMALL, run
from torch import Tensor

from cli import main
from compress.training.find_lr import HIGHEST_RATE, LOWEST_RATE, RateCurve, rate_table, read_curve, search_rate
from compress.training.finetune import Finetuning, training_geometry
from compress.training.state import LAST
from zoo.data.dataset import SyntheticImages
from zoo.data.prompting import PromptedImages
from zoo.errors import InputError
from zoo.registry import create_sam


def test_the_steepest_fall_is_found() -> None:
    """A loss that falls as a logistic curve around 1e-3, and rises steeply beyond 0.1."""
    rates = np.geomspace(1e-6, 1, 200)
    x = np.log10(rates)
    losses = 1 - 0.8 / (1 + np.exp(-4 * (x + 3))) + np.where(x > -1, 10 * (x + 1), 0)
    curve = read_curve(rates, losses.tolist(), sigma=4)
    assert curve.suggestion == pytest.approx(1e-3, rel=0.1)
    noisy = losses + np.random.default_rng(0).normal(0, 0.05, 200)
    assert read_curve(rates, noisy.tolist(), sigma=8).suggestion == pytest.approx(1e-3, rel=0.7)


def test_noise_and_rising_losses_suggest_nothing() -> None:
    rates = np.geomspace(1e-6, 1, 100)
    flat = [read_curve(rates, np.random.default_rng(i).normal(1, 0.1, 100).tolist(), 4).suggestion for i in range(20)]
    assert flat.count(None) >= 17
    assert read_curve(rates, np.linspace(1, 2, 100).tolist(), 4).suggestion is None


def test_the_table_marks_the_suggestion() -> None:
    rates = np.geomspace(1e-6, 1, 100)
    curve = RateCurve(rates, np.ones(100), np.ones(100), float(rates[41]))
    marks = list(rate_table(curve).columns[3].cells)
    assert marks.count("falls fastest") == 1
    assert list(rate_table(curve).columns[0].cells)[marks.index("falls fastest")] == f"{rates[41]:.1e}"


class Spoilt(Finetuning):
    """A loss that is multiplied from some image on."""

    factor, first_image = 1.0, 0

    def forward(self, batch: dict[str, Tensor]) -> dict[str, Tensor]:  # type: ignore[override]
        numbers = super().forward(batch)
        spoilt = int(batch["index"].max()) >= self.first_image
        return {**numbers, "loss": numbers["loss"] * (self.factor if spoilt else 1)}


def search(factor: float = 1, first_image: int = 0, steps: int = 10) -> RateCurve:
    sam = create_sam("light_repvit_m0_9", "random:0")
    prompting, side = training_geometry(sam, SMALL)
    task = Spoilt(sam, "sum", side)
    task.factor, task.first_image = factor, first_image
    before = {key: value.clone() for key, value in task.state_dict().items()}
    data = PromptedImages(SyntheticImages(64), prompting)
    curve = search_rate(task, data, SMALL, steps, Fabric(accelerator="cpu", devices=1))
    assert all(value.equal(before[key]) for key, value in task.state_dict().items())
    assert all(parameter.grad is None for parameter in task.parameters())
    return curve


def test_a_copy_is_trained_on_the_images_of_the_run(tmp_path: Path) -> None:
    curve = search()
    np.testing.assert_allclose(curve.rates, np.geomspace(LOWEST_RATE, HIGHEST_RATE, 10)[: len(curve.rates)])
    assert len(curve.losses) > 5
    assert curve.losses[0] == run(tmp_path)[0], "before the first update nothing depends on the rate"


def test_the_ramp_ends_where_the_loss_diverges() -> None:
    assert len(search(factor=1000, first_image=12).losses) == 7, "image 12 is in the seventh batch of two"
    assert len(search(factor=float("nan"), first_image=6).losses) == 3
    with pytest.raises(InputError, match=r"step 0, images 0, 1: found a loss of nan"):
        search(factor=float("nan"))


COMMAND = ["train", "--encoder", "light_repvit_m0_9", "--size", "64", "--batch-size", "2", "--objects", "1"]
COMMAND += ["--workers", "0", "--find-lr"]


def test_find_lr_on_the_command_line(tmp_path: Path) -> None:
    done = CliRunner().invoke(main, [*COMMAND, "10", "-o", str(tmp_path)], catch_exceptions=False)
    assert done.exit_code == 0, done.output
    told = json.loads(done.stdout.splitlines()[-1])
    assert told.keys() == {"lr", "picture"}
    assert told["lr"] is None or LOWEST_RATE <= told["lr"] <= HIGHEST_RATE
    assert cv2.imread(told["picture"]).std() > 0
    assert "learning rate" in done.stderr
    assert not (tmp_path / LAST).exists()


def test_find_lr_tells_no_tracker(tmp_path: Path) -> None:
    done = CliRunner().invoke(main, [*COMMAND, "10", "--wandb", "project", "-o", str(tmp_path / "out")])
    assert done.exit_code == 2
    assert "--wandb: --find-lr makes no run to tell of" in done.output


def test_find_lr_takes_one_device_and_a_hundred_steps() -> None:
    done = CliRunner().invoke(main, [*COMMAND, "10", "--devices", "2", "-o", "nowhere"])
    assert "--find-lr: found --devices 2; expected one" in done.output
    train = main.get_command(click.Context(main), "train")
    assert train is not None
    assert train.make_context("train", [*COMMAND[1:], "-o", "nowhere"]).params["find_lr"] == 100
