"""Candidates, runtimes and precisions as options of the command line."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import click
import pytest
from click.testing import CliRunner
from conftest import ENCODER

from bench.candidate import Recipe
from cli import main
from compress.bench_command import CandidateFolder, _runtimes
from compress.card import read_card, write_card
from compress.deploy import recipe_of
from compress.segment_command import _recipe
from zoo.errors import InputError


def test_a_candidate_in_another_precision(graphs: Path, tmp_path: Path) -> None:
    assert recipe_of(graphs, precision="bf16").precision == "bf16"
    with pytest.raises(InputError, match=r"precision int8\+bf16 for a graph in fp32; expected fp32, bf16 or fp16"):
        recipe_of(graphs, precision="int8+bf16")
    folder = shutil.copytree(graphs, tmp_path / "int8")
    write_card(replace(read_card(folder), precision="int8"), folder)
    assert recipe_of(folder, precision="int8+bf16").precision == "int8+bf16"
    with pytest.raises(InputError, match=r"precision bf16 for a graph in int8; expected int8 or int8\+bf16"):
        recipe_of(folder, precision="bf16")


def test_segment_takes_a_candidate_in_another_precision(graphs: Path) -> None:
    assert _recipe(None, None, graphs, None, None, 1).precision == "fp32"
    assert _recipe(None, None, graphs, "openvino", "bf16", 1).precision == "bf16"
    assert _recipe(ENCODER, "random:0", None, None, None, 1).precision == "fp32"


def test_an_encoder_at_its_own_size_has_the_weights_that_ship() -> None:
    assert _recipe("light_repvit_m0_9@256", None, None, None, None, 1).weights == "light_repvit_m0_9"


@pytest.mark.parametrize("given", [("--backend", "openvino"), ("--precision", "bf16"), ("--variant", "train")])
def test_what_candidates_alone_do_not_take_is_said(graphs: Path, tmp_path: Path, given: tuple[str, str]) -> None:
    result = CliRunner().invoke(main, ["bench", "--candidate", str(graphs), *given, "--out", str(tmp_path / "x.jsonl")])
    assert result.exit_code == 2
    assert f"{given[0]} beside candidates alone" in result.output


@pytest.mark.parametrize(
    ("backends", "pairs"),
    [
        (("torch", "openvino:bf16"), [("torch", "fp32"), ("torch", "bf16"), ("openvino", "bf16")]),
        (("torch:fp32", "torch"), [("torch", "fp32"), ("torch", "bf16")]),
    ],
)
def test_a_backend_in_its_own_precision_or_in_all(backends: tuple[str, ...], pairs: list[tuple[str, str]]) -> None:
    assert _runtimes(backends, ("fp32", "bf16")) == pairs


def test_a_candidates_folder_and_its_precision(tmp_path: Path) -> None:
    kind = CandidateFolder()
    odd = tmp_path / "a:bf16"
    odd.mkdir()
    assert kind.convert(str(tmp_path), None, None) == (tmp_path, None)
    assert kind.convert(f"{tmp_path}:int8+bf16", None, None) == (tmp_path, "int8+bf16")
    assert kind.convert(str(odd), None, None) == (odd, None), "the folder of that very name"
    for missing in ("nowhere", "nowhere:bf16", ":bf16"):
        with pytest.raises(click.BadParameter, match="does not exist"):
            kind.convert(missing, None, None)


def test_a_sweep_runs_a_candidate_in_all_that_fits(graphs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[tuple[str, str]] = []
    monkeypatch.setattr("zoo.backends.alike_here", lambda *graph: asked.append(graph) or ["fp32", "bf16"])
    monkeypatch.setattr("zoo.backends.runnable_here", lambda: [("torch", "fp32")])
    made: list[Recipe] = []
    monkeypatch.setattr("bench.runner.Sweep", lambda recipes, *_: made.extend(recipes) or SimpleNamespace(run=stop))
    arguments = [
        "--encoder",
        ENCODER,
        "--sweep",
        "--candidate",
        str(graphs),
        "--candidate",
        f"{graphs}:bf16",
    ]
    result = CliRunner().invoke(main, ["bench", *arguments, "--cases", "phantom:rgb2d"])
    assert result.exit_code == 130, result.output
    assert asked == [("onnxruntime", "fp32")]
    assert [(recipe.backend, recipe.precision) for recipe in made] == [
        ("torch", "fp32"),
        ("onnxruntime", "fp32"),
        ("onnxruntime", "bf16"),
    ]
    made.clear()
    CliRunner().invoke(main, ["bench", "--candidate", str(graphs), "--cases", "phantom:rgb2d"])
    assert [(recipe.backend, recipe.precision) for recipe in made] == [("onnxruntime", "fp32")], "no sweep"


def stop(sources: object) -> None:
    raise KeyboardInterrupt
