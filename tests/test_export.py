"""Exported and quantised candidates: they run without this package, equal the model, and keep within the gate."""

from __future__ import annotations

import itertools
import json
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import click
import numpy as np
import onnx
import pytest
import torch
from click.testing import CliRunner
from safetensors.torch import save_file
from torch import nn

from bench.candidate import Candidate, Recipe
from cli import main
from compress.bench_command import CandidateFolder, _runtimes
from compress.build import build_candidate
from compress.calibration import calibration_cases, calibration_inputs, check_modalities, digest_of
from compress.card import CARD_FILE, GRAPH_FILE, read_card, write_card
from compress.deploy import open_backend, recipe_of
from compress.export import check_graphs, cosine, export_candidate, relative_error
from compress.quantize import Gate, Result, Trial, quantise_within
from compress.quantize_run import Options, quantise_candidate, verdict
from compress.segment_command import _recipe
from tests.fill import smooth_image
from zoo.backends.graphs.onnx_runtime import load_session
from zoo.backends.graphs.openvino_runtime import load_compiled
from zoo.data.case import Case
from zoo.data.cases import find_cases
from zoo.errors import InputError
from zoo.graphs import Graph, write_onnx

ENCODER = "timm:mobilenetv4_conv_small@64"


@pytest.fixture(scope="module")
def candidate() -> Candidate:
    return build_candidate(Recipe(ENCODER))


@pytest.fixture(scope="module")
def exported(candidate: Candidate, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("exported")
    export_candidate(candidate, folder, [smooth_image(64, seed=s) for s in range(2)])
    return folder


@pytest.fixture(scope="module")
def graph(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Five layers, so that ranking them is quick."""
    torch.manual_seed(0)
    widths = (3, 8, 8, 16, 16, 4)
    layers = [m for a, b in itertools.pairwise(widths) for m in (nn.Conv2d(a, b, 3, padding=1), nn.GELU())]
    path = tmp_path_factory.mktemp("graph") / "float.onnx"
    examples = {"image": torch.zeros(1, 3, 64, 64)}
    write_onnx(Graph("encoder", nn.Sequential(*layers).eval(), examples, {"image": {}}, ("embedding",)), path)
    return path


INPUTS = [smooth_image(64, seed=seed) for seed in range(3)]


def test_graphs_equal_the_model(exported: Path) -> None:
    card = read_card(exported)
    decoders = {f"{graph}_{count}" for graph in ("boxes", "windows", "prompts") for count in (1, 2)}
    assert card.checks.keys() == {"encoder_random", "encoder_real"} | decoders
    assert max(card.checks.values()) <= 1e-4
    assert card.inputs == {"image": [1, 3, 64, 64]}
    assert card.outputs == {"embedding": [1, 256, 64, 64]}
    assert card.spec.image_size == 64
    onnx.checker.check_model(exported / GRAPH_FILE)


def test_a_graph_that_differs_is_refused(candidate: Candidate, exported: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    encode = candidate.backend.encode
    monkeypatch.setattr(candidate.backend, "encode", lambda images: 1.001 * encode(images))
    with pytest.raises(InputError, match="graphs that differ from the model"):
        check_graphs(candidate, exported, [])


def test_stock_onnx_runtime_runs_the_example_of_the_docs(exported: Path, candidate: Candidate, tmp_path: Path) -> None:
    """The README's lines, in a process that cannot import this package."""
    readme = (Path(__file__).parents[1] / "README.md").read_text()
    example = readme.split("<!-- example: onnx -->\n```python\n")[1].split("```")[0]
    image = smooth_image(64)
    np.save(tmp_path / "image.npy", image)
    program = f"{example}\nnp.save('logits.npy', logits)\nimport sys\nassert 'zoo' not in sys.modules\n"
    program = program.replace("onnx/", f"{exported}/").replace("[[60, 80, 150, 170]]", "[[10, 12, 40, 44]]")
    subprocess.run([sys.executable, "-I", "-c", program], cwd=tmp_path, check=True)
    embedding = candidate.backend.encode(image)
    expected, _ = candidate.backend.decode_boxes(embedding, np.array([[10, 12, 40, 44]], np.float32))
    assert relative_error(np.load(tmp_path / "logits.npy"), expected) <= 1e-4


def test_an_exported_candidate_is_measured_like_any_other(exported: Path) -> None:
    recipe = recipe_of(exported)
    made = build_candidate(recipe)
    assert (made.backend.name, made.backend.precision) == ("onnxruntime", "fp32")
    assert made.recipe.variant.startswith("reparam-")
    with torch.inference_mode():
        expected = made.sam.image_encoder(torch.from_numpy(INPUTS[0])).numpy()
    assert relative_error(made.backend.encode(INPUTS[0]), expected) <= 1e-4
    with pytest.raises(InputError, match="another sha256"):
        build_candidate(replace(recipe, weights="random:1"))


def test_a_candidate_in_another_precision(exported: Path, tmp_path: Path) -> None:
    assert recipe_of(exported, precision="bf16").precision == "bf16"
    with pytest.raises(InputError, match=r"precision int8\+bf16 for a graph in fp32; expected fp32, bf16 or fp16"):
        recipe_of(exported, precision="int8+bf16")
    folder = shutil.copytree(exported, tmp_path / "int8")
    write_card(replace(read_card(folder), precision="int8"), folder)
    assert recipe_of(folder, precision="int8+bf16").precision == "int8+bf16"
    with pytest.raises(InputError, match=r"precision bf16 for a graph in int8; expected int8 or int8\+bf16"):
        recipe_of(folder, precision="bf16")


def test_segment_takes_a_candidate_in_another_precision(exported: Path) -> None:
    assert _recipe(None, None, exported, None, None, 1).precision == "fp32"
    assert _recipe(None, None, exported, "openvino", "bf16", 1).precision == "bf16"
    assert _recipe(ENCODER, "random:0", None, None, None, 1).precision == "fp32"


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


def test_a_sweep_runs_a_candidate_in_all_that_fits(exported: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[tuple[str, str]] = []
    monkeypatch.setattr("zoo.backends.alike_here", lambda *graph: asked.append(graph) or ["fp32", "bf16"])
    monkeypatch.setattr("zoo.backends.runnable_here", lambda: [("torch", "fp32")])
    made: list[Recipe] = []
    monkeypatch.setattr("bench.runner.Sweep", lambda recipes, *_: made.extend(recipes) or SimpleNamespace(run=stop))
    arguments = ["--encoder", ENCODER, "--sweep", "--candidate", str(exported), "--candidate", f"{exported}:bf16"]
    result = CliRunner().invoke(main, ["bench", *arguments, "--cases", "phantom:rgb2d"])
    assert result.exit_code == 130, result.output
    assert asked == [("onnxruntime", "fp32")]
    assert [(recipe.backend, recipe.precision) for recipe in made] == [
        ("torch", "fp32"),
        ("onnxruntime", "fp32"),
        ("onnxruntime", "bf16"),
    ]
    made.clear()
    CliRunner().invoke(main, ["bench", "--candidate", str(exported), "--cases", "phantom:rgb2d"])
    assert [(recipe.backend, recipe.precision) for recipe in made] == [("onnxruntime", "fp32")], "no sweep"


def stop(sources: object) -> None:
    raise KeyboardInterrupt


def test_a_damaged_candidate_is_named(exported: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"candidate\.json: found no such file"):
        recipe_of(tmp_path)
    (tmp_path / CARD_FILE).write_text((exported / CARD_FILE).read_text())
    with pytest.raises(InputError, match=r"encoder\.onnx: found no such file"):
        build_candidate(recipe_of(tmp_path))
    (tmp_path / GRAPH_FILE).write_bytes(b"other")
    with pytest.raises(InputError, match="as its card says"):
        build_candidate(recipe_of(tmp_path))
    (tmp_path / CARD_FILE).write_text(json.dumps({"encoder": "repvit"}))
    with pytest.raises(InputError, match="no candidate's card"):
        recipe_of(tmp_path)


def test_graphs_of_two_models_are_no_candidate(exported: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(exported, tmp_path / "mixed")
    recipe = recipe_of(folder)
    open_backend(recipe)
    (folder / "boxes.onnx").write_bytes(b"another model's")
    for opened in (open_backend, build_candidate):
        with pytest.raises(InputError, match=r"boxes\.onnx: found sha256 .* as its card says"):
            opened(recipe)
    card = json.loads((folder / CARD_FILE).read_text())
    del card["decoder_sha256"]
    (folder / CARD_FILE).write_text(json.dumps(card))
    open_backend(recipe)


def export_again(candidate: Candidate, folder: Path) -> None:
    export_candidate(candidate, folder, [])


def quantise_again(candidate: Candidate, folder: Path) -> None:
    quantise_candidate(candidate, folder, find_cases("phantom:rgb2d"), Options(), lambda step: None)


@pytest.mark.parametrize("write", [export_again, quantise_again])
def test_a_folder_that_was_not_written_to_its_end_is_no_candidate(
    candidate: Candidate,
    exported: Path,
    tmp_path: Path,
    write: Callable[[Candidate, Path], None],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Whatever candidate it was before."""

    def interrupt(*arguments: object) -> None:
        raise KeyboardInterrupt

    folder = shutil.copytree(exported, tmp_path / "cut")
    monkeypatch.setattr("compress.export.check_graphs", interrupt)
    monkeypatch.setattr("compress.quantize_run.quantise_within", interrupt)
    with pytest.raises(KeyboardInterrupt):
        write(candidate, folder)
    with pytest.raises(InputError, match=r"candidate\.json: found no such file"):
        recipe_of(folder)


def test_a_folder_that_cannot_be_written(candidate: Candidate, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(InputError, match=r"file.onnx: found no room or no right to write"):
        export_candidate(candidate, tmp_path / "file" / "onnx", [])


def quantise(graph: Path, target: Path, gate: Gate) -> Result:
    return quantise_within(graph, target, INPUTS, "minmax", "onnxruntime", gate, lambda step: None)


def test_a_lenient_gate_takes_all_layers(graph: Path, tmp_path: Path) -> None:
    result = quantise(graph, tmp_path / "q.onnx", Gate(0.5, 0.0))
    (trial,) = result.trials
    assert trial.holds
    assert trial.excluded == ()
    assert result.sensitivity == {}, "nothing was ranked, nothing had to be left out"
    model = onnx.load(tmp_path / "q.onnx")
    scales = {tensor.name: tensor for tensor in model.graph.initializer if tensor.name.endswith("_scale")}
    per_channel = [tensor for tensor in scales.values() if len(tensor.dims) == 1 and tensor.dims[0] > 1]
    assert len(per_channel) >= result.layers, "a scale for each output channel of each layer's weights"


def test_a_strict_gate_leaves_the_worst_layers_in_float(graph: Path, tmp_path: Path) -> None:
    steps: list[str] = []
    all_in = quantise(graph, tmp_path / "all.onnx", Gate(0.5, 0.0))
    strict = Gate(0.5, all_in.trials[0].cosine + 1e-6)
    result = quantise_within(graph, tmp_path / "q.onnx", INPUTS, "minmax", "onnxruntime", strict, steps.append)
    assert [len(trial.excluded) for trial in result.trials[:2]] == [0, 1]
    ranked = list(result.sensitivity)
    assert list(result.trials[-1].excluded) == ranked[: len(result.trials[-1].excluded)]
    assert list(result.sensitivity.values()) == sorted(result.sensitivity.values(), reverse=True)
    assert any(step.startswith("sensitivity of layer") for step in steps)


def test_the_gate_counts_points_of_dsc(graph: Path, tmp_path: Path) -> None:
    scores = iter([{"CT 2D": 80.0}, {"CT 2D": 79.0}, {"CT 2D": 79.8}])
    result = quantise(graph, tmp_path / "q.onnx", Gate(0.5, 0.0, lambda path: next(scores)))
    assert [trial.holds for trial in result.trials] == [False, True]
    assert [trial.dsc_drops for trial in result.trials] == [{"CT 2D": 1.0}, {"CT 2D": pytest.approx(0.2)}]


def test_the_gate_holds_on_every_set_of_cases(graph: Path, tmp_path: Path) -> None:
    """Of many images and few volumes: over all labels together nothing is lost."""
    scores = iter([{"CT 2D": 80.0, "CT 3D": 70.0}, {"CT 2D": 82.0, "CT 3D": 69.0}, {"CT 2D": 80.0, "CT 3D": 69.6}])
    result = quantise(graph, tmp_path / "q.onnx", Gate(0.5, 0.0, lambda path: next(scores)))
    assert [trial.holds for trial in result.trials] == [False, True]


@pytest.mark.parametrize("method", ["percentile", "entropy", "mse"])
def test_methods(graph: Path, tmp_path: Path, method: str) -> None:
    quantise_within(graph, tmp_path / "q.onnx", INPUTS, method, "onnxruntime", Gate(0.5, 0.0), lambda step: None)  # type: ignore[arg-type]
    found = load_session(tmp_path / "q.onnx", 2)({"image": INPUTS[0]})[0]
    expected = load_session(graph, 2)({"image": INPUTS[0]})[0]
    assert cosine(found, expected) > 0.8


def float_layers(path: Path) -> list[str]:
    """Names of the convolutions whose weights are not rounded."""
    nodes = onnx.load(path).graph.node
    rounded = {name for node in nodes if node.op_type == "DequantizeLinear" for name in node.output}
    return [node.name for node in nodes if node.op_type == "Conv" and node.input[1] not in rounded]


def test_nncf_holds_the_gate_in_both_runtimes(graph: Path, tmp_path: Path) -> None:
    pytest.importorskip("nncf")
    path = tmp_path / "q.onnx"
    result = quantise_within(graph, path, INPUTS, "nncf", "openvino", Gate(0.5, 0.99), lambda step: None)
    assert result.trials[-1].holds
    assert float_layers(path) == []
    onnx.checker.check_model(path, full_check=True)
    expected = load_session(graph, 2)({"image": INPUTS[0]})[0]
    for run in (load_session(path, 2), load_compiled(path, "int8", 2)):
        assert cosine(run({"image": INPUTS[0]})[0], expected) > 0.99


def test_nncf_leaves_the_worst_layers_in_float(graph: Path, tmp_path: Path) -> None:
    pytest.importorskip("nncf")
    path = tmp_path / "q.onnx"
    result = quantise_within(graph, path, INPUTS, "nncf", "openvino", Gate(0.5, 1.0), lambda step: None)
    assert [len(trial.excluded) for trial in result.trials] == [0, 1, 2]
    assert sorted(float_layers(path)) == sorted(list(result.sensitivity)[:2])


def test_nothing_to_calibrate_with(graph: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no input; expected at least one image"):
        quantise_within(graph, tmp_path / "q.onnx", [], "minmax", "onnxruntime", Gate(0.5, 0.9), lambda step: None)


def loaded(phantom: str) -> Case:
    return find_cases(f"phantom:{phantom}")[0].load()


def test_calibration_inputs_are_those_that_boxes_reach(candidate: Candidate) -> None:
    cases = [loaded("ct3d"), loaded("rgb2d")]
    inputs = calibration_inputs(cases, candidate.sam.spec, most=5)
    assert [image.shape for image in inputs] == [(1, 3, 64, 64)] * 4, "three slices of five, and the image"
    assert digest_of(inputs) == digest_of(calibration_inputs(cases, candidate.sam.spec, most=5))
    assert digest_of(inputs) != digest_of(inputs[::-1])
    with pytest.raises(InputError, match="no case"):
        calibration_inputs([], candidate.sam.spec, most=5)


def test_every_case_gives_as_many_images(candidate: Candidate) -> None:
    ct, mr = loaded("ct3d"), loaded("mr3d")
    inputs = calibration_inputs([ct] * 4 + [mr], candidate.sam.spec, most=16)
    counts = [(ct, 4), (ct, 3), (ct, 3), (ct, 3), (mr, 3)]
    parts = [calibration_inputs([case], candidate.sam.spec, count) for case, count in counts]
    assert digest_of(inputs) == digest_of([image for part in parts for image in part])


@pytest.mark.parametrize(("most", "chosen"), [
    (8, "ct0 ct5 ct10 ct15 mr0 mr1 mr2 mr3"),
    (10, "ct0 ct3 ct6 ct9 ct12 ct15 mr0 mr1 mr2 mr3"),
    (1, "ct0"),
])  # fmt: skip
def test_of_many_cases_some_of_every_modality_are_taken(most: int, chosen: str) -> None:
    image = loaded("rgb2d")
    names = [f"{modality}{i}" for modality, count in (("ct", 16), ("mr", 4)) for i in range(count)]
    cases = [replace(image, case_id=name, modality=name[:2].upper()) for name in names]
    assert [case.case_id for case in calibration_cases(cases, most)] == chosen.split()
    assert calibration_cases(cases, 20) == cases


def test_calibration_of_another_modality() -> None:
    cases = [loaded("ct3d"), loaded("rgb2d")]
    check_modalities(cases, ())
    check_modalities(cases, ("ct", "dermoscopy"))
    with pytest.raises(InputError, match=r"calibration case .*: found modality Dermoscopy; expected only CT"):
        check_modalities(cases, ("CT",))
    with pytest.raises(InputError, match="found no case of modality MR"):
        check_modalities(cases, ("CT", "MR", "Dermoscopy"))


@pytest.mark.parametrize(("holds", "speedup", "told"), [
    (True, 1.8, "worth it: 1.80 times"),
    (True, 0.9, "not worth it: 0.90 times"),
    (False, 1.8, r"not worth it: the gate does not hold .*cosine 0\.9500 and 0\.70 points of DSC lost in CT 3D"),
])  # fmt: skip
def test_verdict(holds: bool, speedup: float, told: str) -> None:
    assert re.match(told, verdict(Trial((), 0.95, {"CT 2D": 0.1, "CT 3D": 0.7}, holds), speedup))


def test_quantize_then_bench(tmp_path: Path) -> None:
    """The whole way by command: a card, a verdict, records of the candidate beside the float one."""
    folder, records = tmp_path / "int8", tmp_path / "bench.jsonl"
    calib = ["--calib", "phantom:mr2d", "--calib", "phantom:rgb2d", "--calib-images", "1"]
    arguments = ["--encoder", ENCODER, *calib, "--min-cosine", "0", "-o", str(folder)]
    result = CliRunner().invoke(main, ["quantize", *arguments])
    assert result.exit_code == 0, result.output
    assert "DSC was not gated: the weights are random" in result.output
    assert "worth it" in result.output
    card = read_card(folder)
    assert card.precision == "int8"
    assert card.quantisation["calibration_cases"] == ["phantom_rgb2d"], "what was used, not what was there"
    assert card.quantisation["modalities"] == ["Dermoscopy"]
    assert len(card.quantisation["calibration_sha256"]) == 64
    bench = ["bench", "--encoder", ENCODER, "--backend", "onnxruntime", "--candidate", str(folder), "--no-cold"]
    result = CliRunner().invoke(
        main, [*bench, "--cases", "phantom:rgb2d", "--rounds", "2", "--passes", "1", "--out", str(records)]
    )
    assert result.exit_code == 0, result.output
    found = [json.loads(line) for line in records.read_text().splitlines()]
    precisions = {record["candidate"]["precision"] for record in found if "precision" in record["candidate"]}
    assert precisions == {"fp32", "int8"}
    timed = [record for record in found if record["kind"] == "latency" and record["case"] is None]
    assert len({record["run_id"] for record in timed}) == 1, "interleaved in one run"
    alone = ["bench", "--candidate", str(folder), "--no-cold", "--cases", "phantom:rgb2d", "--rounds", "1"]
    result = CliRunner().invoke(main, [*alone, "--passes", "0", "--out", str(tmp_path / "alone.jsonl")])
    assert result.exit_code == 0, result.output
    found = [json.loads(line) for line in (tmp_path / "alone.jsonl").read_text().splitlines()]
    assert {record["candidate"]["precision"] for record in found if "precision" in record["candidate"]} == {"int8"}


def test_quantize_scores_images_and_volumes_apart(candidate: Candidate, tmp_path: Path) -> None:
    weights, folder = tmp_path / "weights.safetensors", tmp_path / "int8"
    save_file(candidate.sam.state_dict(), weights)
    calib = ["--calib", "phantom:rgb2d", "--calib", "phantom:ct3d", "--max-slices", "2", "--max-objects", "1"]
    loose = ["--min-cosine", "0", "--max-dsc-drop", "100"]
    arguments = ["--encoder", ENCODER, "--weights", str(weights), *calib, *loose, "-o", str(folder)]
    result = CliRunner().invoke(main, ["quantize", *arguments])
    assert result.exit_code == 0, result.output
    assert set(read_card(folder).quantisation["dsc_drops"]) == {"Dermoscopy 2D", "CT 3D"}
    assert re.search(r"points of DSC lost: Dermoscopy 2D [+-]\d+\.\d\d, CT 3D [+-]\d+\.\d\d\n", result.output)
    only_images = [*arguments[:6], *loose, "-o", str(folder)]
    assert "no volume was among the cases" in CliRunner().invoke(main, ["quantize", *only_images]).output


@pytest.mark.parametrize(("arguments", "told"), [
    (["--calib", "phantom:rgb2d", "--modality", "CT"], "found modality Dermoscopy; expected only CT"),
    (["--calib", "phantom:rgb2d", "--backend", "openvino"], "pip install 'rep-medsam[openvino]'"),
    (["--calib", "phantom:rgb2d", "--method", "nncf"], "pip install 'rep-medsam[nncf]'"),
    (["--calib", "nowhere/"], "nowhere"),
])  # fmt: skip
def test_what_quantize_refuses(
    arguments: list[str], told: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "openvino", None)
    monkeypatch.setitem(sys.modules, "nncf", None)
    result = CliRunner().invoke(main, ["quantize", "--encoder", ENCODER, *arguments, "-o", str(tmp_path / "int8")])
    assert result.exit_code == 1
    assert told in result.output
    assert not (tmp_path / "int8").exists(), "refused before any work"


@pytest.mark.parametrize("method", ["dynamic", "nncf"])
def test_ranges_are_of_static_calibration(method: str, tmp_path: Path) -> None:
    arguments = ["--calib", "phantom:rgb2d", "--method", method, "--ranges", "mse", "-o", str(tmp_path)]
    result = CliRunner().invoke(main, ["quantize", "--encoder", ENCODER, *arguments])
    assert result.exit_code == 2
    assert f"--ranges: --method {method} chooses them itself" in result.output


def test_a_cpu_without_vnni_is_told_of(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cpu, "_is_vnni_supported", lambda: False)
    arguments = ["--encoder", ENCODER, "--calib", "phantom:rgb2d", "--modality", "CT", "-o", str(tmp_path / "int8")]
    assert "lacks VNNI: weights of 7 bits" in CliRunner().invoke(main, ["quantize", *arguments]).output


@pytest.mark.slow
def test_quantize_by_nncf(tmp_path: Path) -> None:
    """The same card and verdict as of any other method."""
    pytest.importorskip("nncf")
    arguments = ["--encoder", ENCODER, "--calib", "phantom:rgb2d", "--min-cosine", "0", "-o", str(tmp_path)]
    result = CliRunner().invoke(main, ["quantize", "--method", "nncf", "--backend", "openvino", *arguments])
    assert result.exit_code == 0, result.output
    assert "worth it" in result.output
    card = read_card(tmp_path)
    assert (card.variant, card.backend, card.precision) == ("int8-nncf", "openvino", "int8")
    candidate = build_candidate(recipe_of(tmp_path))
    assert candidate.backend.encode(INPUTS[0]).shape == (1, 256, 64, 64)
