"""Whose weights a candidate is: found from any folder, named on the command line, and told of where they are random."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from conftest import ENCODER
from safetensors.torch import save_file

from bench.candidate import Candidate
from cli import main
from compress import export_commands
from compress.build import build_candidate
from compress.card import CARD_FILE, is_made_of, path_from, read_card, weights_of, write_card
from compress.deploy import open_backend, recipe_of
from compress.recipes import candidate_recipes
from zoo.errors import InputError
from zoo.files import sha256_of


@pytest.fixture
def made(candidate: Candidate, graphs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of a candidate, `runs/onnx`, made of `w.safetensors` in the working directory."""
    monkeypatch.chdir(tmp_path)
    save_file(candidate.sam.state_dict(), "w.safetensors")
    folder = Path(shutil.copytree(graphs, Path("runs/onnx")))
    named, digest = path_from(folder, "w.safetensors"), sha256_of(Path("w.safetensors"))
    write_card(replace(read_card(folder), weights=named, weights_sha256=digest), folder)
    return folder


def test_weights_are_found_from_any_folder(made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert read_card(made).weights == "../../w.safetensors"
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    assert build_candidate(recipe_of(Path("../runs/onnx"))).weights.trained


def test_weights_are_moved_together_with_what_was_made_of_them(made: Path, tmp_path: Path) -> None:
    moved = tmp_path / "moved"
    moved.mkdir()
    shutil.move("runs", moved)
    shutil.move("w.safetensors", moved)
    assert build_candidate(recipe_of(moved / "runs" / "onnx")).weights.trained


def test_other_names_of_weights_stay(made: Path) -> None:
    for name in (None, "random:0", "light_repvit_m0_9"):
        assert path_from(made, name) == name
        assert weights_of(made, replace(read_card(made), weights=name)) == name


def recipes(weights: dict[str, list[str]], encoders: list[str]) -> list[Any]:
    return candidate_recipes([(Path("runs/onnx"), None)], weights, encoders, 2, sweep=False)


def test_a_candidate_takes_the_weights_that_it_was_made_of(made: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shutil.move("w.safetensors", "renamed.safetensors")
    Path("other.safetensors").write_bytes(b"others")
    given = ["other.safetensors", "renamed.safetensors"]
    (recipe,) = recipes({ENCODER: given}, [])
    assert recipe.weights == "renamed.safetensors"
    assert is_made_of(made, read_card(made), recipe.weights)
    assert build_candidate(recipe).weights.trained
    monkeypatch.setattr("compress.build.build_as_can_be", None)
    open_backend(recipe)


def test_weights_that_nothing_takes(made: Path) -> None:
    Path("other.safetensors").write_bytes(b"others")
    with pytest.raises(
        InputError, match=f"weights for {ENCODER} that nothing takes; expected those that the candidate"
    ):
        recipes({ENCODER: ["other.safetensors"]}, [])
    (recipe,) = recipes({ENCODER: ["other.safetensors"]}, [ENCODER])
    assert recipe.weights == str(Path("w.safetensors").resolve()), "the others are for the encoder beside it"


@pytest.mark.parametrize(("change", "told"), [
    (lambda card: card | {"schema": 99}, "found a card of schema 99; expected schema 2, as `export` and `quantize`"),
    (lambda card: {key: value for key, value in card.items() if key != "schema"}, "no candidate's card"),
    (lambda card: card | {"decoder_sha256": None}, "no candidate's card"),
    (lambda card: {key: value for key, value in card.items() if key != "decoder_sha256"}, "no candidate's card"),
    (lambda card: card | {"quantisation": None}, "no candidate's card"),
    (lambda card: [card], "no candidate's card"),
])  # fmt: skip
def test_a_card_that_this_version_cannot_read(
    graphs: Path, tmp_path: Path, change: Callable[[dict[str, Any]], Any], told: str
) -> None:
    card = json.loads((graphs / CARD_FILE).read_text())
    (tmp_path / CARD_FILE).write_text(json.dumps(change(card)))
    with pytest.raises(InputError, match=rf"candidate\.json: .*{told}"):
        read_card(tmp_path)


def test_a_folder_in_the_place_of_a_card(tmp_path: Path) -> None:
    (tmp_path / CARD_FILE).mkdir()
    with pytest.raises(InputError, match="no candidate's card"):
        read_card(tmp_path)


@pytest.mark.parametrize(("weights", "told"), [(None, True), ("random:0", False)])
def test_random_weights_that_nobody_asked_for_are_told_of(
    weights: str | None, told: bool, capsys: pytest.CaptureFixture[str]
) -> None:
    assert export_commands._candidate(ENCODER, weights, 2, "reparam").recipe.weights == "random:0"
    assert (f"no weights ship for {ENCODER}: random ones" in capsys.readouterr().err) is told


@pytest.mark.parametrize(
    "command",
    [
        ["segment", "-i", "phantom:mr2d", "-o", "out"],
        ["segment", "-i", "phantom:mr2d", "-o", "out", "--candidate", "made"],
        ["export", "--encoder", "light_repvit_m0_9", "-o", "out"],
        ["quantize", "--encoder", "light_repvit_m0_9", "--calib", "phantom:mr2d", "-o", "out"],
        ["bench", "--encoder", "light_repvit_m0_9", "--cases", "phantom:mr2d"],
        ["bench", "--encoder", "light_repvit_m0_9", "--cases", "phantom:mr2d", "--weights", "light_repvit_m0_9="],
    ],
)
def test_an_empty_name_of_weights_is_not_that_of_what_ships(made: Path, command: list[str]) -> None:
    """As a shell's variable is that nobody has set."""
    words = [str(made) if word == "made" else word for word in command]
    result = CliRunner().invoke(main, [*words, "--weights", ""])
    assert result.exit_code == 1
    assert re.search("weights: found .*(an empty name|names none); expected", " ".join(result.output.split()))


def test_a_checkpoint_that_was_trained_on_since_is_not_the_one_of_the_graphs(made: Path) -> None:
    Path("w.safetensors").write_bytes(b"trained on")
    with pytest.raises(InputError, match="other weights than the candidate was made of"):
        recipe_of(made, "w.safetensors")
