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
