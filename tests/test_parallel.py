"""Work in processes: results, failures, a process that dies, and Ctrl-C."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from zoo.errors import InputError
from zoo.parallel import ProcessDiedError, map_items

ROOT = Path(__file__).parent.parent


def work(item: int) -> int:
    if item == 3:
        raise InputError("item", "3", "another")
    if item == 5:
        os._exit(139)  # as a library does that crashes
    return item * 10


@pytest.mark.parametrize("workers", [1, 2])
def test_what_is_wrong_with_an_item_is_its_result(workers: int) -> None:
    done = dict(map_items(work, [1, 3, 4], workers))
    assert (done[1], done[4]) == (10, 40)
    assert isinstance(done[3], InputError)


def test_a_process_that_dies_costs_its_item_alone() -> None:
    done = dict(map_items(work, [5, 1, 2, 4, 6], 2))
    assert isinstance(done.pop(5), ProcessDiedError)
    assert done == {1: 10, 2: 20, 4: 40, 6: 60}


def test_ctrl_c_ends_a_run_of_processes_with_one_line_and_the_next_run_goes_on(tmp_path: Path) -> None:
    from test_prepare import write_pair

    for number in range(60):
        write_pair(tmp_path / "in", f"a{number}")
    command = [sys.executable, str(ROOT / "cli.py"), "prepare", "-i", str(tmp_path / "in"), "-o", str(tmp_path / "out")]
    command += ["--workers", "2", "--min-voxels", "10", "--min-pixels", "4"]
    running = subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True
    )
    report = tmp_path / "out" / "prepare.jsonl"
    while not (report.exists() and report.read_text()):
        assert running.poll() is None
        time.sleep(0.01)
    os.killpg(running.pid, signal.SIGINT)  # a terminal interrupts the workers as well
    _, said = running.communicate(timeout=60)
    assert running.returncode == 130
    assert "Traceback" not in said
    assert "the same command goes on" in said
    assert not list((tmp_path / "out").glob(".*"))
    held = len(report.read_text().splitlines())
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "60 of 60 prepared" in done.stdout
    assert len(report.read_text().splitlines()) == 60 > held
