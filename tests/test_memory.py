"""What a run may take: sizes as people write them, and the peak of a process that segments a large volume."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import psutil
import pytest

from compress.segment_command import _default_jobs
from zoo.data.case import Case
from zoo.data.npz import save_challenge_npz
from zoo.errors import InputError
from zoo.memory import EMBEDDING_BYTES, WORKING_BYTES, kept_embeddings, parse_size

ROOT = Path(__file__).parent.parent
MIB = 2**20
#: Segments as `repmedsam` does, with a model whose embeddings are as large as real ones; prints the peak in MiB.
PROGRAM = """
import sys
sys.path[:0] = ["tests", "."]
import numpy as np
from box_backend import BoxBackend
import compress.deploy
from bench.machine import peak_rss_mib
from cli import main

class LargeEmbeddings(BoxBackend):
    def encode(self, images):
        return np.full((1, 256, 64, 64), images.mean(), np.float32)

compress.deploy.open_backend = lambda recipe: LargeEmbeddings()
main(sys.argv[1:], standalone_mode=False)
print("peak", peak_rss_mib())
"""


@pytest.mark.parametrize(
    ("text", "size"), [("2GiB", 2 * 2**30), ("1500M", 1500 * MIB), ("0.5 g", 2**29), ("4096", 4096), ("3tb", 3 * 2**40)]
)
def test_sizes(text: str, size: int) -> None:
    assert parse_size(text) == size


@pytest.mark.parametrize("text", ["", "much", "2 XiB", "-1GiB", "0", "0.5", "1e9"])
def test_no_size(text: str) -> None:
    with pytest.raises(InputError, match="such as 2GiB"):
        parse_size(text)


def large_case(depth: int, thickness_mm: float = 1.0) -> Case:
    """A volume of 512x512 slices with six objects in turn through all, the lower and the upper half of them."""
    image = np.zeros((depth, 512, 512), np.uint8)
    image[:, 100:400, 100:400] = np.arange(300, dtype=np.uint16) % 256
    # Walks of different middles cross slices in both sweeps, which is what embeddings are kept for.
    reach = [(0, depth - 1), (0, depth // 2 - 1), (depth // 2, depth - 1)] * 2
    corners = np.array([[40 * n, 30 * n, low, 40 * n + 150, 30 * n + 200, high] for n, (low, high) in enumerate(reach)])
    return Case("3D_CT_large", "CT", image, corners, np.arange(1, 7, dtype=np.uint16), (thickness_mm, 1.0, 1.0))


def test_what_is_kept_is_what_is_left_of_the_limit() -> None:
    case = large_case(2)
    used = psutil.Process().memory_info().rss + WORKING_BYTES
    assert kept_embeddings(case, used) == 0
    assert abs(kept_embeddings(case, used + 20 * EMBEDDING_BYTES) - 20) <= 2


def peak_mib(folder: Path, depth: int, *more: str, thickness_mm: float = 1.0) -> float:
    save_challenge_npz(large_case(depth, thickness_mm), folder / "3D_CT_large.npz")
    words = ["segment", "-i", str(folder), "-o", str(folder / "out"), "--encoder", "repvit", "--weights", "random:0"]
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, *words, *more], cwd=ROOT, capture_output=True, text=True, check=True
    )
    return float(done.stdout.split("peak")[1])


def test_a_smaller_limit_gives_a_smaller_peak_and_the_same_labels(tmp_path: Path) -> None:
    peaks = {}
    for limit in ("8GiB", "100MiB"):
        (tmp_path / limit).mkdir()
        peaks[limit] = peak_mib(tmp_path / limit, 96, "--max-memory", limit)
    assert peaks["8GiB"] - peaks["100MiB"] > 30 * EMBEDDING_BYTES / MIB
    files = [(tmp_path / limit / "out" / "3D_CT_large.npz").read_bytes() for limit in peaks]
    assert files[0] == files[1]


@pytest.mark.slow
@pytest.mark.parametrize("protocol", ["batched", "multiplanar"])
def test_287_slices_of_512_stay_within_two_gibibytes(protocol: str, tmp_path: Path) -> None:
    """In slices of 5 mm and pixels of 1 mm, so that planes across them have five times their voxels."""
    assert peak_mib(tmp_path, 287, "--protocol", protocol, thickness_mm=5.0) < 2048


@pytest.mark.parametrize(("limit_gib", "jobs"), [(2, 2), (1, 5), (16, 1)])
def test_as_many_processes_as_the_memory_that_each_may_take_leaves_room_for(
    limit_gib: int, jobs: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(psutil, "virtual_memory", lambda: SimpleNamespace(available=5 * 2**30))
    monkeypatch.setattr("compress.segment_command.usable_cores", lambda: 8)
    assert _default_jobs(10, 1, limit_gib * 2**30) == jobs
