"""An exported model as a submission: no more than its requirements, the masks of the model, warnings."""

from __future__ import annotations

import configparser
import contextlib
import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterable
from importlib.metadata import PackageNotFoundError, packages_distributions, requires
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner

from cli import main
from compress.deploy import open_backend, recipe_of
from zoo.backends import create_backend
from zoo.data.case import Case
from zoo.data.modality import modality_from_name
from zoo.data.npz import load_challenge_npz, save_challenge_npz
from zoo.errors import InputError
from zoo.registry import create_sam
from zoo.sam.case import segment_case

ROOT = Path(__file__).parent.parent


def spelled(name: str) -> str:
    """A distribution's name in its one spelling."""
    return re.sub(r"[-_.]+", "-", name).lower()


def required(names: Iterable[str]) -> set[str]:
    """Distributions of some names and all that these need, as they are installed."""
    waiting, found = list(names), set[str]()
    while waiting:
        name = spelled(waiting.pop())
        if name not in found:
            found.add(name)
            with contextlib.suppress(PackageNotFoundError):
                waiting += [re.split(r"[^\w.-]", need)[0] for need in requires(name) or () if "extra ==" not in need]
    return found


def with_requirements_alone(command: list[str], tmp_path: Path) -> subprocess.CompletedProcess[str]:
    """Runs a command where importing torch fails, and whatever else a submission does not install."""
    lines = (ROOT / "requirements-predict.txt").read_text().splitlines()
    named = [re.split(r"[^\w.-]", line)[0] for line in lines if not line.startswith("#")]
    installed = required(named) | {"rep-medsam"}
    blocked = tmp_path / "blocked"
    blocked.mkdir()
    for module, names in packages_distributions().items():
        if module.isidentifier() and installed.isdisjoint(spelled(name) for name in names):
            (blocked / f"{module}.py").write_text(f"raise ImportError('{module} is not to be imported')")
    assert (blocked / "torch.py").exists()
    environment = {**os.environ, "PYTHONPATH": f"{blocked}:{ROOT}", "PATH": f"{tmp_path}/bin:{os.environ['PATH']}"}
    return subprocess.run(command, capture_output=True, text=True, env=environment, cwd=tmp_path)


def test_a_submission_asks_for_the_versions_that_the_package_asks_for() -> None:
    setup = configparser.ConfigParser()
    setup.read(ROOT / "setup.cfg")
    lines = (ROOT / "requirements-predict.txt").read_text().splitlines()
    assert {line for line in lines if not line.startswith("#")} < set(setup["options"]["install_requires"].split())


def challenge_case(folder: Path, name: str = "2DBox_US_a") -> None:
    folder.mkdir(exist_ok=True)
    image = np.random.default_rng(0).integers(0, 255, (60, 80, 3), np.uint8)
    case = Case(name, modality_from_name(name), image, np.array([[5, 6, 50, 40]]), np.array([1], np.uint16), (1, 1))
    save_challenge_npz(case, folder / f"{name}.npz")


def test_predict_sh_needs_no_torch_and_gives_the_masks_of_the_model(exported: Path, tmp_path: Path) -> None:
    challenge_case(tmp_path / "in")
    (tmp_path / "bin").mkdir()
    command = tmp_path / "bin" / "repmedsam"
    command.write_text(f'#!/bin/sh\nexec {sys.executable} {ROOT / "cli.py"} "$@"\n')
    command.chmod(0o755)
    words = ["sh", str(ROOT / "predict.sh"), str(tmp_path / "in"), str(tmp_path / "out"), str(exported)]
    done = with_requirements_alone(words, tmp_path)
    assert done.returncode == 0, done.stderr
    with np.load(tmp_path / "out" / "2DBox_US_a.npz") as arrays:
        found = arrays["segs"]
    sam = create_sam("light_repvit_m0_9", "random:1")
    case = load_challenge_npz(tmp_path / "in" / "2DBox_US_a.npz")
    expected = segment_case(case, create_backend("torch", sam))
    assert found.any()
    assert (found == expected).mean() > 0.999


def test_a_folder_of_before_is_told_from_a_whole_one_without_torch(exported: Path, tmp_path: Path) -> None:
    folder = tmp_path / "candidate"
    shutil.copytree(exported, folder)
    (folder / "fovea.onnx").unlink()
    challenge_case(tmp_path / "in")
    words = ["segment", "-i", tmp_path / "in", "-o", tmp_path / "out", "--candidate", folder]
    done = with_requirements_alone([sys.executable, str(ROOT / "cli.py"), *map(str, words)], tmp_path)
    assert done.returncode != 0
    told = r"(?m)^Error: .*candidate: found graphs of another version .*; expected graphs that `export`"
    assert re.search(told, done.stderr), done.stderr


def test_a_graph_that_is_not_the_cards_is_refused(exported: Path, tmp_path: Path) -> None:
    folder = tmp_path / "candidate"
    shutil.copytree(exported, folder)
    with (folder / "encoder.onnx").open("ab") as stream:
        stream.write(b"x")
    with pytest.raises(InputError, match=r"expected .* card"):
        open_backend(recipe_of(folder))


@pytest.mark.parametrize("jobs", ["1", "2"])
def test_a_modality_that_the_candidate_was_not_calibrated_with_is_told_of_once(
    exported: Path, tmp_path: Path, jobs: str
) -> None:
    folder, scans = tmp_path / "candidate", tmp_path / "in"
    shutil.copytree(exported, folder)
    card = json.loads((folder / "candidate.json").read_text())
    (folder / "candidate.json").write_text(json.dumps(card | {"quantisation": {"modalities": ["CT", "US"]}}))
    for name in ("2DBox_MR_a", "2DBox_MR_b", "2DBox_CT_c"):
        challenge_case(scans, name)
    words = ["segment", "-i", scans, "-o", tmp_path / "out", "--candidate", folder, "--jobs", jobs]
    result = CliRunner().invoke(main, [*map(str, words)])
    assert result.exit_code == 0, result.output
    assert result.stderr.count("MR is none of the modalities") == 1
    assert "(CT, US)" in result.stderr
    assert "CT is none" not in result.stderr
