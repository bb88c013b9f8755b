"""Exported candidates: they run without this package and equal the model."""

from __future__ import annotations

import json
import math
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from fill import smooth_image

from bench.candidate import Candidate
from compress.build import build_candidate
from compress.card import CARD_FILE, GRAPH_FILE, read_card
from compress.deploy import open_backend, recipe_of
from compress.export import check_encoder, check_graphs, export_candidate, relative_error
from compress.quantize_run import Options, quantise_candidate
from zoo.backends.graphs import GRAPHS
from zoo.data.cases import find_cases
from zoo.errors import InputError

INPUTS = [smooth_image(64, seed=seed) for seed in range(3)]


def test_graphs_equal_the_model(graphs: Path) -> None:
    card = read_card(graphs)
    decoders = {
        f"{graph}_{count}"
        for graph in ("boxes", "windows", "masks", "fovea", "fovea_masks", "prompts")
        for count in (1, 2)
    }
    assert card.checks.keys() == {"encoder_random", "encoder_real"} | decoders
    assert max(card.checks.values()) <= 1e-4
    assert card.inputs == {"image": [1, 3, 64, 64]}
    assert card.outputs == {"embedding": [1, 256, 64, 64]}
    assert card.spec.image_size == 64
    onnx.checker.check_model(graphs / GRAPH_FILE)


def test_a_graph_that_differs_is_refused(candidate: Candidate, graphs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    encode = candidate.backend.encode
    monkeypatch.setattr(candidate.backend, "encode", lambda images: 1.001 * encode(images))
    with pytest.raises(InputError, match="graphs that differ from the model"):
        check_graphs(candidate, {name: graphs / f"{name}.onnx" for name in GRAPHS}, [])


def test_stock_onnx_runtime_runs_the_example_of_the_docs(graphs: Path, candidate: Candidate, tmp_path: Path) -> None:
    """The README's lines, in a process that cannot import this package."""
    readme = (Path(__file__).parents[1] / "README.md").read_text()
    example = readme.split("<!-- example: onnx -->\n```python\n")[1].split("```")[0]
    image = smooth_image(64)
    np.save(tmp_path / "image.npy", image)
    program = f"{example}\nnp.save('logits.npy', logits)\nimport sys\nassert 'zoo' not in sys.modules\n"
    program = program.replace("onnx/", f"{graphs}/").replace("[[60, 80, 150, 170]]", "[[10, 12, 40, 44]]")
    subprocess.run([sys.executable, "-I", "-c", program], cwd=tmp_path, check=True)
    embedding = candidate.backend.encode(image)
    expected, _ = candidate.backend.decode_boxes(embedding, np.array([[10, 12, 40, 44]], np.float32))
    assert relative_error(np.load(tmp_path / "logits.npy"), expected) <= 1e-4


def test_an_exported_candidate_is_measured_like_any_other(graphs: Path) -> None:
    recipe = recipe_of(graphs)
    made = build_candidate(recipe)
    assert (made.backend.name, made.backend.precision) == ("onnxruntime", "fp32")
    assert made.recipe.variant.startswith("reparam-")
    with torch.inference_mode():
        expected = made.sam.image_encoder(torch.from_numpy(INPUTS[0])).numpy()
    assert relative_error(made.backend.encode(INPUTS[0]), expected) <= 1e-4
    with pytest.raises(InputError, match="another sha256"):
        build_candidate(replace(recipe, weights="random:1"))


def test_a_damaged_candidate_is_named(graphs: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"candidate\.json: found no such file"):
        recipe_of(tmp_path)
    (tmp_path / CARD_FILE).write_text((graphs / CARD_FILE).read_text())
    with pytest.raises(InputError, match=r"encoder\.onnx: found no such file"):
        build_candidate(recipe_of(tmp_path))
    (tmp_path / GRAPH_FILE).write_bytes(b"other")
    with pytest.raises(InputError, match="as its card says"):
        build_candidate(recipe_of(tmp_path))
    (tmp_path / CARD_FILE).write_text(json.dumps({"encoder": "repvit"}))
    with pytest.raises(InputError, match="no candidate's card"):
        recipe_of(tmp_path)


def test_graphs_of_two_models_are_no_candidate(graphs: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(graphs, tmp_path / "mixed")
    recipe = recipe_of(folder)
    open_backend(recipe)
    (folder / "boxes.onnx").write_bytes(b"another model's")
    for opened in (open_backend, build_candidate):
        with pytest.raises(InputError, match=r"boxes\.onnx: found sha256 .* as its card says"):
            opened(recipe)


def export_again(candidate: Candidate, folder: Path) -> None:
    export_candidate(candidate, folder, [])


def quantise_again(candidate: Candidate, folder: Path) -> None:
    quantise_candidate(candidate, folder, find_cases("phantom:rgb2d"), Options(), lambda step: None)


@pytest.mark.parametrize("write", [export_again, quantise_again])
def test_a_folder_that_was_not_written_to_its_end_is_no_candidate(
    candidate: Candidate,
    graphs: Path,
    tmp_path: Path,
    write: Callable[[Candidate, Path], None],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Whatever candidate it was before."""

    def interrupt(*arguments: object) -> None:
        raise KeyboardInterrupt

    folder = shutil.copytree(graphs, tmp_path / "cut")
    monkeypatch.setattr("compress.export.describe", interrupt)
    monkeypatch.setattr("compress.quantize_run._latency", interrupt)
    with pytest.raises(KeyboardInterrupt):
        write(candidate, folder)
    with pytest.raises(InputError, match=r"candidate\.json: found no such file"):
        recipe_of(folder)


@pytest.mark.parametrize(
    ("write", "failing"),
    [
        (export_again, "compress.export.onnx_file"),
        (export_again, "compress.export.check_graphs"),
        (quantise_again, "compress.export.onnx_file"),
        (quantise_again, "compress.quantize_run.quantise_within"),
    ],
)
def test_a_candidate_stays_one_where_no_right_graph_could_be_made(
    candidate: Candidate,
    graphs: Path,
    tmp_path: Path,
    write: Callable[[Candidate, Path], None],
    failing: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """With a full disk or a damaged graph none of its files has been touched."""

    def full(*arguments: object) -> Path:
        raise InputError("cache", "no room or no right to write", "a folder with space left")

    folder = shutil.copytree(graphs, tmp_path / "whole")
    monkeypatch.setattr(failing, full)
    with pytest.raises(InputError, match="cache: found no room"):
        write(candidate, folder)
    assert recipe_of(folder).folder == str(folder)


def test_a_folder_that_cannot_be_written(candidate: Candidate, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(InputError, match=r"file.onnx: found no room or no right to write"):
        export_candidate(candidate, tmp_path / "file" / "onnx", [])


def test_a_graph_that_gives_no_number_on_one_image_is_refused(
    candidate: Candidate, graphs: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    errors = iter([1e-5, 1e-5, math.nan])
    monkeypatch.setattr("compress.export.relative_error", lambda *_: next(errors))
    with pytest.raises(InputError, match="graphs that differ from the model"):
        check_encoder(candidate, graphs / GRAPH_FILE, INPUTS[:2])
