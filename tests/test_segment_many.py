"""`segment` over many cases: in worker processes and on a cluster, stopped, killed, and gone on with."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import psutil
import pytest
from click.testing import CliRunner
from distributed import Client, LocalCluster

from cli import main
from zoo.data.npz import load_label_map, save_challenge_npz
from zoo.data.phantom import PhantomSpec, make_phantom

CLI = [sys.executable, str(Path(__file__).parent.parent / "cli.py")]
CASES = 8


@pytest.fixture(scope="module")
def inputs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Volumes that take long enough to be interrupted."""
    folder = tmp_path_factory.mktemp("in")
    for number in range(CASES):
        spec = PhantomSpec("CT", (8, 64, 64), 2, (3.0, 1.0, 1.0), number)
        save_challenge_npz(make_phantom(spec), folder / f"3D_CT_{number}.npz")
    return folder


@pytest.fixture(scope="module")
def expected(inputs: Path, exported: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, np.ndarray]:
    """What one process gives."""
    out = tmp_path_factory.mktemp("expected")
    result = CliRunner().invoke(main, words(inputs, exported, out, "--threads", "1"))
    assert result.exit_code == 0, result.output
    return segmentations(out)


def words(inputs: Path, exported: Path, out: Path, *more: str) -> list[str]:
    return ["segment", "-i", str(inputs), "-o", str(out), "--candidate", str(exported), *more]


def segmentations(out: Path) -> dict[str, np.ndarray]:
    """All that a folder holds: whole files and nothing else."""
    return {path.name: load_label_map(path) for path in out.glob("*.npz")}


def assert_same(found: dict[str, np.ndarray], expected: dict[str, np.ndarray]) -> None:
    assert found.keys() == expected.keys()
    for name, labels in expected.items():
        np.testing.assert_array_equal(found[name], labels, err_msg=name)


def start(command: list[str], out: Path) -> subprocess.Popen[str]:
    """Starts a run and waits for its first segmentation."""
    run = subprocess.Popen(
        [*CLI, *command], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True
    )
    while not list(out.glob("*.npz")):
        assert run.poll() is None, run.communicate()
        time.sleep(0.01)
    return run


def test_a_killed_worker_loses_its_case_only_and_the_next_run_makes_it(
    inputs: Path, exported: Path, expected: dict[str, np.ndarray], tmp_path: Path
) -> None:
    command = words(inputs, exported, tmp_path, "--jobs", "2")
    run = start(command, tmp_path)
    workers = [c for c in psutil.Process(run.pid).children() if "spawn_main" in " ".join(c.cmdline())]
    assert len(workers) == 2
    workers[0].kill()
    said, told = run.communicate(timeout=120)
    assert run.returncode == 1
    assert f"{CASES - 1} of {CASES} segmented" in said
    (missing,) = expected.keys() - segmentations(tmp_path).keys()
    assert f"{missing}: WorkerLostError" in told
    assert "SIGKILL" in told
    again = CliRunner().invoke(main, command)
    assert again.exit_code == 0, again.output
    assert "1 of 1 segmented" in again.output
    assert_same(segmentations(tmp_path), expected)


def test_ctrl_c_keeps_what_is_done(
    inputs: Path, exported: Path, expected: dict[str, np.ndarray], tmp_path: Path
) -> None:
    command = words(inputs, exported, tmp_path, "--jobs", "2")
    run = start(command, tmp_path)
    os.killpg(run.pid, signal.SIGINT)
    _, told = run.communicate(timeout=120)
    assert run.returncode == 130
    assert "the same command goes on" in told
    assert "Traceback" not in told
    held = segmentations(tmp_path)
    assert 0 < len(held) < CASES
    assert CliRunner().invoke(main, command).exit_code == 0
    assert_same(segmentations(tmp_path), expected)


def test_a_model_that_cannot_be_opened_is_told_of_once(inputs: Path, tmp_path: Path) -> None:
    command = ["segment", "-i", str(inputs), "-o", str(tmp_path), "--encoder", "repvit", "--weights", "no_such_weights"]
    result = CliRunner().invoke(main, [*command, "--jobs", "2"])
    assert result.exit_code == 1
    assert result.output.count("no_such_weights") == 1


@pytest.fixture
def cluster() -> Iterator[LocalCluster]:
    with LocalCluster(n_workers=2, threads_per_worker=1, dashboard_address=None, silence_logs=50) as running:
        yield running


def test_a_cluster_loses_and_doubles_nothing_when_a_worker_is_killed(
    inputs: Path, exported: Path, expected: dict[str, np.ndarray], cluster: LocalCluster, tmp_path: Path
) -> None:
    address = cluster.scheduler_address
    with Client(address) as client:
        processes = client.run(os.getpid)
        run = start(words(inputs, exported, tmp_path, "--executor", "dask", "--scheduler", address), tmp_path)
        os.kill(next(iter(processes.values())), signal.SIGKILL)
        said, told = run.communicate(timeout=120)
        assert client.run(os.getpid) != processes
    assert run.returncode == 0, told
    assert f"{CASES} of {CASES} segmented" in said
    assert_same(segmentations(tmp_path), expected)


def test_a_single_case_goes_to_the_cluster_too(
    inputs: Path, exported: Path, expected: dict[str, np.ndarray], cluster: LocalCluster, tmp_path: Path
) -> None:
    """As what is left of many does: nothing of this process, such as a bar on its terminal, goes along."""
    one = next(iter(inputs.glob("*.npz")))
    options = ["--executor", "dask", "--scheduler", cluster.scheduler_address]
    result = CliRunner().invoke(main, words(one, exported, tmp_path, *options))
    assert result.exit_code == 0, result.output
    assert_same(segmentations(tmp_path), {one.name: expected[one.name]})


def test_a_candidates_folder_may_move(inputs: Path, exported: Path, tmp_path: Path) -> None:
    """What was made of it is known by its weights, not by its path."""
    one = next(iter(inputs.glob("*.npz")))
    for name in ("here", "there"):
        folder = shutil.copytree(exported, tmp_path / name)
        result = CliRunner().invoke(main, words(one, folder, tmp_path / "out"))
        assert result.exit_code == 0, result.output
    assert "1 of 1 were in" in result.output


def test_jobs_are_none_of_a_clusters(inputs: Path, exported: Path, tmp_path: Path) -> None:
    more = ["--executor", "dask", "--scheduler", "tcp://127.0.0.1:1", "--jobs", "2"]
    result = CliRunner().invoke(main, words(inputs, exported, tmp_path, *more))
    assert result.exit_code == 2
    assert "--jobs is of this machine" in result.output


@pytest.mark.parametrize("more", [("--executor", "dask"), ("--scheduler", "tcp://127.0.0.1:1")])
def test_a_cluster_needs_an_address(inputs: Path, exported: Path, tmp_path: Path, more: tuple[str, ...]) -> None:
    result = CliRunner().invoke(main, words(inputs, exported, tmp_path, *more))
    assert result.exit_code == 2
    assert "go together" in result.output
