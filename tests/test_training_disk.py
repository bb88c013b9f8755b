"""Training onto a disk that fills up: told of in one line, and what was saved is gone on from."""

from __future__ import annotations

import resource
from pathlib import Path

import pytest
import torch
from test_training import losses, run
from torch import Tensor

from compress.training.finetune import Finetuning
from compress.training.state import LAST, LOG
from zoo.errors import InputError


@pytest.mark.parametrize(("room_bytes", "file"), [(2**20, LAST), (10, LOG)])
def test_a_full_disk_keeps_the_checkpoint_before_and_the_run_goes_on_from_it(
    tmp_path: Path, room_bytes: int, file: str
) -> None:
    before = resource.getrlimit(resource.RLIMIT_FSIZE)

    class Filling(Finetuning):
        calls = 0

        def forward(self, batch: dict[str, Tensor]) -> dict[str, Tensor]:  # type: ignore[override]
            Filling.calls += 1
            if Filling.calls == 3:
                resource.setrlimit(resource.RLIMIT_FSIZE, (room_bytes, before[1]))
            return super().forward(batch)

    try:
        with pytest.raises(InputError, match=f"{file}: found no room"):
            run(tmp_path, task_of=Filling)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert torch.load(tmp_path / LAST, weights_only=True)["progress"]["step"] == 2
    assert not list(tmp_path.glob(".*"))
    assert len(run(tmp_path)) == 6
    assert torch.load(tmp_path / LAST, weights_only=True)["progress"]["step"] == 6
    assert len(losses(tmp_path)) == 6


def test_a_log_that_cannot_be_written_loses_no_step(tmp_path: Path) -> None:
    log, aside = tmp_path / LOG, tmp_path / "aside"

    class Replacing(Finetuning):
        calls = 0

        def forward(self, batch: dict[str, Tensor]) -> dict[str, Tensor]:  # type: ignore[override]
            Replacing.calls += 1
            if Replacing.calls == 4:
                log.rename(aside)
                log.mkdir()
            return super().forward(batch)

    with pytest.raises(InputError, match=f"{LOG}: found no room"):
        run(tmp_path, task_of=Replacing)
    log.rmdir()
    aside.rename(log)
    assert torch.load(tmp_path / LAST, weights_only=True)["progress"]["step"] == 4
    run(tmp_path)
    whole = tmp_path / "whole"
    run(whole)
    ended, uninterrupted = (torch.load(folder / LAST, weights_only=True) for folder in (tmp_path, whole))
    assert ended["progress"]["step"] == uninterrupted["progress"]["step"] == 6
    for key, value in uninterrupted["model"].items():
        torch.testing.assert_close(ended["model"][key], value, rtol=0, atol=0)
