"""Executors: every item once, a lost worker loses its item only, and an early end cleans up."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import dask
import pytest
from distributed import LocalCluster

from zoo.errors import InputError
from zoo.executors import AbortError, Executor, WorkerLostError
from zoo.executors.dask_cluster import DaskExecutor
from zoo.executors.local import LocalExecutor
from zoo.files import whole_file

ROOT = Path(__file__).parent.parent


def square(item: int) -> int:
    return item * item


def fails_at_three(item: int) -> int:
    if item == 3:
        raise InputError("item", "3", "any other")
    return square(item)


def dies_at_three(item: int) -> int:
    if item == 3:
        os.kill(os.getpid(), signal.SIGKILL)
    return square(item)


def exits_at_three(item: int) -> int:
    if item == 3:
        os._exit(7)
    return square(item)


def has_a_mistake_at_three(item: int) -> int:
    if item == 3:
        raise AssertionError("a mistake in the program")
    return square(item)


class TwoPartsError(Exception):
    """Comes apart when it is sent: what it is made of is not what it says."""

    def __init__(self, where: str, found: str) -> None:
        super().__init__(f"{where}: {found}")


def fails_of_two_parts_at_three(item: int) -> int:
    if item == 3:
        raise TwoPartsError("item", "3")
    return square(item)


def gives_up(item: int) -> int:
    raise AbortError("no item can be done")


def writes_slowly(item: int, folder: Path) -> None:
    with whole_file(folder / f"{item}.txt") as part:
        part.write_text("half")
        time.sleep(60 if item else 0)


def dies_the_first_time(item: int, folder: Path) -> int:
    """Item 3 takes down the first worker that it is given to, and none later."""
    if item == 3 and not (folder / "died").exists():
        (folder / "died").touch()
        os.kill(os.getpid(), signal.SIGKILL)
    time.sleep(0.1)
    return square(item)


@pytest.mark.parametrize("parallel", [1, 2, 3])
def test_every_item_once(parallel: int) -> None:
    results = list(LocalExecutor(parallel).map(square, range(7)))
    assert sorted(results) == [(item, item * item) for item in range(7)]  # type: ignore[type-var]


def test_no_items() -> None:
    assert list(LocalExecutor(2).map(square, [])) == []


@pytest.mark.parametrize("parallel", [1, 2])
def test_what_is_wrong_with_an_item_is_its_result(parallel: int) -> None:
    results = dict(LocalExecutor(parallel).map(fails_at_three, range(5)))
    assert isinstance(results[3], InputError)
    assert results[3].found == "3"
    assert {item for item, result in results.items() if isinstance(result, int)} == {0, 1, 2, 4}


@pytest.mark.parametrize(("work", "ending"), [(dies_at_three, "killed by SIGKILL"), (exits_at_three, "exit code 7")])
def test_a_lost_worker_loses_its_item_only(work: object, ending: str) -> None:
    results = dict(LocalExecutor(2).map(work, range(6)))  # type: ignore[arg-type]
    assert isinstance(results[3], WorkerLostError)
    assert ending in str(results[3])
    assert {item for item, result in results.items() if isinstance(result, int)} == {0, 1, 2, 4, 5}


@pytest.mark.parametrize("parallel", [1, 2])
@pytest.mark.parametrize(
    ("work", "told"),
    [(has_a_mistake_at_three, "AssertionError('a mistake"), (fails_of_two_parts_at_three, "TwoPartsError: item: 3")],
)
def test_an_error_of_any_kind_loses_its_item_only(work: Callable[[int], int], told: str, parallel: int) -> None:
    results = dict(LocalExecutor(parallel).map(work, range(5)))
    assert told in repr(results[3])
    assert {item for item, result in results.items() if isinstance(result, int)} == {0, 1, 2, 4}


@pytest.mark.parametrize("parallel", [1, 2])
def test_where_nothing_can_be_done_the_others_are_not_tried(parallel: int) -> None:
    with pytest.raises(AbortError, match="no item can be done"):
        list(LocalExecutor(parallel).map(gives_up, range(3)))


def test_leaving_early_stops_the_workers_and_what_they_were_writing(tmp_path: Path) -> None:
    results = LocalExecutor(2).map(partial(writes_slowly, folder=tmp_path), range(5))
    assert next(results) == (0, None)
    while len(list(tmp_path.glob(".*.part"))) < 2:
        time.sleep(0.01)
    started = time.monotonic()
    results.close()  # type: ignore[attr-defined]
    assert time.monotonic() - started < 30, "the writers would take a minute"
    assert [path.name for path in tmp_path.iterdir()] == ["0.txt"]


@pytest.fixture(scope="module")
def cluster() -> Iterator[LocalCluster]:
    """Of two workers, that gives an item up sooner than a cluster would."""
    with (
        dask.config.set({"distributed.scheduler.allowed-failures": 1}),
        LocalCluster(n_workers=2, threads_per_worker=1, dashboard_address=None, silence_logs=50) as running,
    ):
        yield running


def test_a_cluster_gives_the_item_of_a_killed_worker_to_another(cluster: LocalCluster, tmp_path: Path) -> None:
    executor: Executor = DaskExecutor(cluster.scheduler_address)
    results = list(executor.map(partial(dies_the_first_time, folder=tmp_path), range(12)))
    assert (tmp_path / "died").exists()
    assert sorted(results) == [(item, item * item) for item in range(12)]  # type: ignore[type-var]


def test_a_cluster_gives_up_what_kills_every_worker(cluster: LocalCluster) -> None:
    results = dict(DaskExecutor(cluster.scheduler_address).map(dies_at_three, range(5)))
    assert isinstance(results.pop(3), WorkerLostError)
    assert results == {item: item * item for item in (0, 1, 2, 4)}


def test_no_scheduler(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("zoo.executors.dask_cluster.CONNECT_S", 0.5)
    with pytest.raises(InputError, match="--scheduler"):
        list(DaskExecutor("tcp://127.0.0.1:9").map(square, range(2)))


def test_without_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "distributed", None)
    with pytest.raises(InputError, match=r"rep-medsam\[dask\]"):
        list(DaskExecutor("tcp://127.0.0.1:9").map(square, range(2)))


def interrupts_blocked(number: int) -> bool:
    return signal.SIGINT in signal.pthread_sigmask(signal.SIG_BLOCK, ())


FIRST_WORKERS = """
from test_executors import interrupts_blocked
from zoo.executors.local import LocalExecutor
if __name__ == "__main__":
    print([blocked for _, blocked in LocalExecutor(2).map(interrupts_blocked, range(2))])
"""


def test_no_worker_hears_of_ctrl_c_not_even_the_first_of_a_program(tmp_path: Path) -> None:
    (tmp_path / "first.py").write_text(FIRST_WORKERS)
    paths = os.pathsep.join(map(str, (ROOT, ROOT / "tests")))
    environment = {**os.environ, "PYTHONPATH": paths}
    said = subprocess.run([sys.executable, str(tmp_path / "first.py")], capture_output=True, text=True, env=environment)
    assert said.stdout == "[True, True]\n", said.stderr


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
    _, said = running.communicate(timeout=120)
    assert running.returncode == 130
    assert "Traceback" not in said
    assert "the same command goes on" in said
    assert not list((tmp_path / "out").glob(".*"))
    held = len(report.read_text().splitlines())
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "60 of 60 prepared" in done.stdout
    assert len(report.read_text().splitlines()) == 60 > held
