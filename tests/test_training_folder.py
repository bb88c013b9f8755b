"""The folder of a run: one run at a time, and the next one finds it as it should be."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from lightning_fabric import Fabric
from test_training import ROOT, SMALL, run, small_task
from torch import nn

from compress.training.loop import fit
from compress.training.state import LOCK, LOG, alone_in
from zoo.errors import InputError
from zoo.files import whole_file

ONE_STEP = replace(SMALL, steps=1)


def test_a_folder_in_which_another_process_trains_is_left_alone(tmp_path: Path) -> None:
    with alone_in(tmp_path), pytest.raises(InputError, match="found another process that trains here; expected"):
        run(tmp_path, ONE_STEP)
    assert not (tmp_path / LOG).exists()


def test_a_run_keeps_others_out_until_it_ends_or_fails(tmp_path: Path) -> None:
    def validate(task: nn.Module) -> dict[str, float]:
        with pytest.raises(InputError, match="another process that trains here"), alone_in(tmp_path):
            pass
        raise RuntimeError("out of memory")

    with pytest.raises(RuntimeError, match="out of memory"):
        fit(*small_task(ONE_STEP), validate, ONE_STEP, tmp_path, Fabric(accelerator="cpu", devices=1))
    run(tmp_path, ONE_STEP)
    with alone_in(tmp_path):
        pass


KILLED = """
import multiprocessing, os, signal, sys, time
from pathlib import Path

from compress.training.state import alone_in

def make_data(begun):
    begun.set()
    time.sleep(60)

with alone_in(Path(sys.argv[1])):
    processes = multiprocessing.get_context("fork")
    begun = processes.Event()
    maker = processes.Process(target=make_data, args=(begun,))
    maker.start()
    begun.wait()
    print(maker.pid, flush=True)
    os.kill(os.getpid(), signal.SIGKILL)
"""


def test_after_kill_9_the_folder_is_free_at_once(tmp_path: Path) -> None:
    """Though the killed run's processes that make data live on for a while."""
    command = [sys.executable, "-c", KILLED, str(tmp_path)]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) as killed:
        assert killed.stdout is not None
        maker = int(killed.stdout.readline())
        killed.wait()
    try:
        with alone_in(tmp_path):
            pass
    finally:
        os.kill(maker, signal.SIGKILL)


def test_what_a_killed_run_has_left_in_part_is_removed_and_nothing_else(tmp_path: Path) -> None:
    others = {LOCK, ".0123456789ab.part.lock", ".0123456789abc.part", ".0123456789AB.part", ".a.part"}
    for name in {*others, ".0123456789ab.part"}:
        (tmp_path / name).touch()
    with whole_file(tmp_path / "last") as part, alone_in(tmp_path):
        assert {path.name for path in tmp_path.iterdir()} == others
        part.touch()
    others.add("last")
    assert {path.name for path in tmp_path.iterdir()} == others
