"""Fixtures that several test files share."""

from __future__ import annotations

import functools
import json
import signal
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from fill import fill_state_dict, smooth_image
from numpy.typing import NDArray
from record_book import Book
from sweeps import small_sweep

from bench.candidate import Candidate, Recipe
from bench.runner import Sweep
from cli import main
from compress.build import build_candidate
from compress.export import export_candidate
from zoo import cache
from zoo.backends import Backend, create_backend
from zoo.data.case import Case
from zoo.registry import create_sam
from zoo.sam.model import Sam

ENCODER = "timm:mobilenetv4_conv_small@64"
GOLDEN = Path(__file__).parent / "golden"


def pytest_configure() -> None:
    """A shell that runs tests in the background has them ignore Ctrl-C, and with them the programs that they start."""
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


@functools.cache
def filled_sam(encoder: str, layout: str) -> Sam:
    """A model whose every weight follows the rule of `fill.py`, loaded strictly."""
    sam = create_sam(encoder)
    sam.load_state_dict(fill_state_dict(json.loads((GOLDEN / f"{layout}.json").read_text())), strict=True)
    return sam


@pytest.fixture(scope="session", autouse=True)
def _own_cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Graphs are exported once for all tests, and the user's cache is left alone."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(cache.FOLDER_VARIABLE, str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture(autouse=True)
def _two_threads() -> None:
    torch.set_num_threads(2)


@pytest.fixture(scope="session")
def light_backend() -> Backend:
    """The light encoder with the weights that ship."""
    return create_backend("torch", create_sam("light_repvit_m0_9"))


@pytest.fixture
def small_volume() -> Case:
    """A noisy 6x40x56 volume with three overlapping objects; no labels are needed to walk it."""
    rng = np.random.default_rng(3)
    image = rng.integers(0, 60, (6, 40, 56), np.uint8)
    image[1:5, 10:30, 12:40] += 120
    boxes = np.array([[8, 6, 0, 30, 30, 3], [20, 10, 2, 50, 35, 5], [25, 12, 4, 40, 28, 4]])
    return Case("small", "CT", image, boxes, np.array([1, 2, 300], np.uint16), (3.0, 1.0, 1.0))


@pytest.fixture(scope="session")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A candidate's folder as `export` writes it."""
    folder = tmp_path_factory.mktemp("exported")
    words = ["export", "--encoder", "light_repvit_m0_9", "--weights", "random:1", "-o", str(folder)]
    assert CliRunner().invoke(main, words).exit_code == 0
    return folder


@pytest.fixture(scope="session")
def candidate() -> Candidate:
    """A small one."""
    return build_candidate(Recipe(ENCODER))


@pytest.fixture
def sweep(tmp_path: Path) -> Sweep:
    """Of one small candidate, by two protocols; records go to a file of the test's folder."""
    return small_sweep(tmp_path / "out.jsonl")


@pytest.fixture(scope="module")
def sam() -> Sam:
    """The smallest encoder, and what surrounds it."""
    return create_sam(ENCODER)


@pytest.fixture(scope="module")
def image() -> NDArray[np.float32]:
    """An input of it."""
    return smooth_image(64)


@pytest.fixture(scope="session")
def graphs(candidate: Candidate, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of `candidate` as `export` writes it."""
    folder = tmp_path_factory.mktemp("graphs")
    export_candidate(candidate, folder, [smooth_image(64, seed=seed) for seed in range(2)])
    return folder


@pytest.fixture(autouse=True)
def _no_handler_of_ended_children() -> Iterator[None]:
    """torch's DataLoader leaves a handler of SIGCHLD behind, in which later tests' worker processes end."""
    yield
    if hasattr(signal, "SIGCHLD"):
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)


@pytest.fixture
def book(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Book:
    """A records file; reports of it without figures: drawing takes most of the time of a small one."""
    monkeypatch.setattr("reports.plots.draw_figures", lambda *_, **__: [])
    return Book(tmp_path / "records.jsonl")
