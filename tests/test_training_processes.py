"""Several processes train as one does, and end together."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from test_training import COMMAND, ROOT, losses

from compress.training.processes import process_count
from compress.training.state import LAST, LOG
from zoo.errors import InputError


def test_as_many_processes_as_torchrun_has_started(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("WORLD_SIZE", raising=False)
    assert [process_count(devices) for devices in (None, 1, 2)] == [1, 1, 2]
    monkeypatch.setenv("WORLD_SIZE", "2")
    assert [process_count(devices) for devices in (None, 2)] == [2, 2]
    with pytest.raises(InputError, match="--devices: found 1 under torchrun with 2; expected 2, or leave it out"):
        process_count(1)


@pytest.mark.slow
def test_two_processes_do_what_one_does(tmp_path: Path) -> None:
    """BatchNorm's statistics are each process's own, so they are frozen here; the rest must agree."""
    options = ["--steps", "3", "--freeze", "batch_norm", "--loss", "sum", "-o"]
    subprocess.run([*COMMAND, *options, str(tmp_path / "one")], cwd=ROOT, check=True, capture_output=True)
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2", *COMMAND[1:]]
    two = [*torchrun, "--devices", "2", *options, str(tmp_path / "two")]
    done = subprocess.run(two, cwd=ROOT, capture_output=True, text=True, env={**os.environ, "OMP_NUM_THREADS": "1"})
    assert done.returncode == 0, done.stderr[-2000:]
    assert losses(tmp_path / "two") == pytest.approx(losses(tmp_path / "one"), rel=1e-3)
    one, other = (torch.load(tmp_path / name / LAST, weights_only=True)["trained"] for name in ("one", "two"))
    for key, value in one.items():
        torch.testing.assert_close(value, other[key], rtol=1e-3, atol=1e-4)


POISONED = """
import sys
from pathlib import Path

from test_training import SMALL, Finetuning, launch, small_task
from compress.training.loop import fit

class Poisoned(Finetuning):
    def forward(self, batch):
        numbers = super().forward(batch)
        return {**numbers, "loss": numbers["loss"] * (float("nan") if 7 in batch["index"] else 1)}

task, data = small_task(SMALL)
task.__class__ = Poisoned
fit(task, data, lambda task: {"dsc": 0.5}, SMALL, Path(sys.argv[1]), launch(SMALL, 2))
"""


@pytest.mark.slow
def test_a_loss_that_one_of_two_processes_lost_ends_both(tmp_path: Path) -> None:
    script = tmp_path / "poisoned.py"
    script.write_text(POISONED)
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2", str(script), str(tmp_path)]
    paths = os.pathsep.join([str(ROOT), str(ROOT / "tests")])
    env = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": paths}
    done = subprocess.run(torchrun, env=env, capture_output=True, text=True, timeout=120)
    assert "step 3, seed 7: found a loss of nan" in done.stderr
    assert "step 3: found a loss of another process" in done.stderr
    assert torch.load(tmp_path / LAST, weights_only=True)["progress"]["step"] == 3


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
    process.wait(timeout=120)
    done = len(losses(tmp_path))
    assert torch.load(tmp_path / LAST, weights_only=True)["progress"]["step"] == done
