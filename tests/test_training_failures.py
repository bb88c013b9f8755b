"""A step that fails: what was trained before it is kept, bit by bit, and only if it is good."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from test_training import SMALL, losses, run
from torch import Tensor

from compress.training.finetune import Finetuning
from compress.training.state import LAST

CONFIG = replace(SMALL, steps=5, validate_every=2)


class OutOfMemory(Finetuning):
    """Fails in step 3, when BatchNorm's statistics have moved already."""

    def forward(self, batch: dict[str, Tensor]) -> dict[str, Tensor]:  # type: ignore[override]
        numbers = super().forward(batch)
        if 7 in batch["index"]:
            raise RuntimeError("out of memory")
        return numbers


class NotFinite(Finetuning):
    """Loses step 3."""

    def forward(self, batch: dict[str, Tensor]) -> dict[str, Tensor]:  # type: ignore[override]
        numbers = super().forward(batch)
        return {**numbers, "loss": numbers["loss"] * (float("nan") if 7 in batch["index"] else 1)}


class LostWeights(OutOfMemory):
    """Fails in step 3, too, with a weight that is not finite before it."""

    def forward(self, batch: dict[str, Tensor]) -> dict[str, Tensor]:  # type: ignore[override]
        if 7 in batch["index"]:
            next(self.sam.parameters()).data.flatten()[0] = float("inf")
        return super().forward(batch)


def step_kept(out: Path) -> int:
    """The step that a run would go on from."""
    return int(torch.load(out / LAST, weights_only=True)["progress"]["step"])


@pytest.mark.parametrize(("task", "told"), [
    (OutOfMemory, "^out of memory$"),
    (NotFinite, r"^step 3, seed 6, seed 7: found a loss of nan; expected .* --weights \S+last\.pth and a lower --lr$"),
])  # fmt: skip
def test_the_steps_before_one_that_fails_are_kept(tmp_path: Path, task: type[Finetuning], told: str) -> None:
    with pytest.raises((RuntimeError, ValueError), match=told):
        run(tmp_path / "cut", CONFIG, task)
    assert step_kept(tmp_path / "cut") == 3
    assert run(tmp_path / "cut", CONFIG) == run(tmp_path / "whole", CONFIG)
    cut, whole = (torch.load(tmp_path / name / LAST, weights_only=True) for name in ("cut", "whole"))
    for weights in ("trained", "model"):
        for key, value in whole[weights].items():
            torch.testing.assert_close(cut[weights][key], value, rtol=0, atol=0)


def test_weights_that_are_not_finite_take_no_checkpoints_place(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError, match="out of memory"):
        run(tmp_path, CONFIG, LostWeights)
    assert step_kept(tmp_path) == 2


def test_a_step_that_fails_within_its_update_is_not_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Some weights may be those of after it."""
    update, calls = torch.optim.AdamW.step, 0

    def fail(*args: object, **options: object) -> object:
        nonlocal calls
        calls += 1
        if calls == 4:
            raise RuntimeError("out of memory")
        return update(*args, **options)  # type: ignore[arg-type]

    monkeypatch.setattr(torch.optim.AdamW, "step", fail)
    with pytest.raises(RuntimeError, match="out of memory"):
        run(tmp_path, CONFIG)
    assert len(losses(tmp_path)) == 3
    assert step_kept(tmp_path) == 2
