"""Mutated files through every reader, in a process of its own: see `fuzz.py`."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest


def fuzz(count: int, seed: int) -> None:
    command = [sys.executable, str(Path(__file__).with_name("fuzz.py")), "--count", str(count), "--seed", str(seed)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-1000:]


def test_a_few_hundred_mutated_files() -> None:
    fuzz(480, seed=0)


@pytest.mark.slow
def test_twelve_thousand_mutated_files() -> None:
    fuzz(12_000, seed=1)
