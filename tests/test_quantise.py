"""Quantised candidates: they keep within the gate, and what they were calibrated with."""

from __future__ import annotations

import itertools
import json
import re
import sys
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from click.testing import CliRunner
from conftest import ENCODER
from fill import smooth_image
from google.protobuf.message import DecodeError
from safetensors.torch import save_file
from torch import nn

from bench.candidate import Candidate
from cli import main
from compress.build import build_candidate
from compress.calibration import calibration_cases, calibration_inputs, check_modalities, check_shown, digest_of
from compress.card import read_card
from compress.deploy import recipe_of
from compress.export import cosine
from compress.quantize import Gate, Result, Trial, _exclusions, quantise_within
from compress.quantize_run import variant_name, verdict
from zoo.backends.graphs.onnx_runtime import load_session
from zoo.backends.graphs.openvino_runtime import load_compiled
from zoo.data.cases import CaseSource, find_cases
from zoo.errors import InputError
from zoo.onnx_export import Graph, write_onnx

INPUTS = [smooth_image(64, seed=seed) for seed in range(3)]


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


@pytest.mark.parametrize(("sets", "cosines", "ranked_on"), [
    (("CT 2D", "CT 2D", "MR 2D"), {"CT 2D": 1.0, "MR 2D": 0.8}, [2]),
    (("CT 2D", "MR 2D", "CT 2D"), {"CT 2D": 0.9, "MR 2D": 1.0}, [0, 2]),
    ((), {"input 1": 1.0, "input 2": 1.0, "input 3": 0.8}, [2]),
])  # fmt: skip
def test_a_bad_set_of_inputs_does_not_hide_behind_the_others(
    graph: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    sets: tuple[str, ...],
    cosines: dict[str, float],
    ranked_on: list[int],
) -> None:
    """The mean over all inputs, 0.933, would do."""
    seen: list[list[int]] = []

    def outputs(path: Path, name: str, inputs: list[Any]) -> list[Any]:
        numbers = [next(i for i, image in enumerate(INPUTS) if image is given) for given in inputs]
        seen.append(numbers)
        bad = [] if path == graph else [2]
        return [np.array([0.8, 0.6]) if number in bad else np.array([1.0, 0.0]) for number in numbers]

    monkeypatch.setattr("compress.quantize._outputs", outputs)
    result = quantise(graph, tmp_path / "q.onnx", Gate(0.5, 0.91, sets=sets))
    assert result.trials[0].cosines == pytest.approx(cosines)
    assert result.trials[0].cosine == pytest.approx(min(cosines.values()))
    assert not any(trial.holds for trial in result.trials)
    assert seen[2 : 2 + result.layers] == [ranked_on] * result.layers, "layers are ranked where most is lost"


@pytest.mark.parametrize(("layers", "counts"), [
    (1, [0]),
    (2, [0, 1]),
    (5, [0, 1, 2]),
    (8, [0, 1, 2, 4]),
    (109, [0, 1, 2, 4, 8, 16, 32, 54]),
])  # fmt: skip
def test_up_to_half_of_the_layers_are_left_in_float(layers: int, counts: list[int]) -> None:
    assert list(_exclusions(layers)) == counts


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


@pytest.mark.parametrize("error", [OSError(28, "No space left on device"), DecodeError("half a file")])
def test_no_room_for_trials(graph: Path, tmp_path: Path, error: Exception, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*arguments: object, **options: object) -> None:
        raise error

    monkeypatch.setattr("compress.quantize.quant_pre_process", full)
    with pytest.raises(InputError, match=r"found no room .*; expected space left .*; TMPDIR may name another"):
        quantise(graph, tmp_path / "q.onnx", Gate(0.5, 0.9))


def phantom(name: str) -> CaseSource:
    return find_cases(f"phantom:{name}")[0]


def test_calibration_inputs_are_those_that_boxes_reach(candidate: Candidate) -> None:
    sources = [phantom("ct3d"), phantom("rgb2d")]
    inputs, sets = calibration_inputs(sources, candidate.sam.spec, most=5)
    assert sets == ["CT 3D"] * 3 + ["Dermoscopy 2D"]
    assert [image.shape for image in inputs] == [(1, 3, 64, 64)] * 4, "three slices of five, and the image"
    assert digest_of(inputs) == digest_of(calibration_inputs(sources, candidate.sam.spec, most=5)[0])
    assert digest_of(inputs) != digest_of(inputs[::-1])
    with pytest.raises(InputError, match="no case"):
        calibration_inputs([], candidate.sam.spec, most=5)


def test_every_case_gives_as_many_images(candidate: Candidate) -> None:
    ct, mr = phantom("ct3d"), phantom("mr3d")
    inputs, _ = calibration_inputs([ct] * 4 + [mr], candidate.sam.spec, most=16)
    counts = [(ct, 4), (ct, 3), (ct, 3), (ct, 3), (mr, 3)]
    parts = [calibration_inputs([source], candidate.sam.spec, count)[0] for source, count in counts]
    assert digest_of(inputs) == digest_of([image for part in parts for image in part])


@pytest.mark.parametrize(("most", "chosen"), [
    (8, "ct0 ct5 ct10 ct15 mr0 mr1 mr2 mr3"),
    (10, "ct0 ct3 ct6 ct9 ct12 ct15 mr0 mr1 mr2 mr3"),
    (1, "ct0"),
])  # fmt: skip
def test_of_many_cases_some_of_every_modality_are_taken(most: int, chosen: str) -> None:
    names = [f"{modality}{i}" for modality, count in (("ct", 16), ("mr", 4)) for i in range(count)]
    modalities = {CaseSource(name, name): name[:2].upper() for name in names}
    assert [source.case_id for source in calibration_cases(modalities, most)] == chosen.split()
    assert calibration_cases(modalities, 20) == list(modalities)


def test_calibration_of_another_modality() -> None:
    modalities = {CaseSource("a", "a.npz"): "CT", CaseSource("b", "b.npz"): "Dermoscopy"}
    check_modalities(modalities, ())
    check_modalities(modalities, ("ct", "dermoscopy"))
    with pytest.raises(InputError, match=r"calibration case b: found modality Dermoscopy; expected only CT"):
        check_modalities(modalities, ("CT",))
    with pytest.raises(InputError, match="found no case of modality MR"):
        check_modalities(modalities, ("CT", "MR", "Dermoscopy"))


def test_too_few_images_to_show_each_modality() -> None:
    check_shown({"CT", "Dermoscopy"}, ("ct", "dermoscopy"), 2)
    check_shown({"CT"}, (), 1)
    with pytest.raises(InputError, match=r"--calib-images: found 1, which leaves none for MR; expected 2 or more"):
        check_shown({"CT"}, ("CT", "MR"), 1)


@pytest.mark.parametrize(("holds", "speedup", "told"), [
    (True, 1.8, "worth it: 1.80 times the speed of float"),
    (True, 0.9, "not worth it: 0.90 times the speed of float"),
    (False, 1.8, "not worth it: the gate does not hold with 2 of 5 layers in float "
                 "(cosine 0.95000 in MR 2D and 0.70 points of DSC lost in CT 3D)"),
])  # fmt: skip
def test_verdict(holds: bool, speedup: float, told: str) -> None:
    drops, cosines = {"CT 2D": 0.1, "CT 3D": 0.7}, {"CT 2D": 0.99, "MR 2D": 0.95, "CT 3D": 0.98}
    assert verdict(Trial(("a", "b"), 0.95, drops, holds, cosines), speedup, 5) == f"{told}; DSC not gated: MR 2D"
    assert verdict(Trial(("a", "b"), 0.95, drops | {"MR 2D": 0.2}, holds, cosines), speedup, 5) == told


def test_a_variant_tells_how_much_of_it_is_in_float() -> None:
    assert variant_name("mse", 0) == "int8-mse"
    assert variant_name("mse", 16) == "int8-mse-16float"


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
    assert (card.variant, card.precision) == ("int8-mse", "int8")
    assert card.quantisation["calibration_cases"] == ["phantom_rgb2d"], "what was used, not what was there"
    assert card.quantisation["modalities"] == ["Dermoscopy"]
    assert len(card.quantisation["calibration_sha256"]) == 64
    assert card.quantisation["cosines"] == {"Dermoscopy 2D": card.checks["embedding_cosine"]}
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


@pytest.mark.slow
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


def test_ranges_are_of_static_calibration(tmp_path: Path) -> None:
    arguments = ["--calib", "phantom:rgb2d", "--method", "nncf", "--ranges", "mse", "-o", str(tmp_path)]
    result = CliRunner().invoke(main, ["quantize", "--encoder", ENCODER, *arguments])
    assert result.exit_code == 2
    assert "--ranges: --method nncf chooses them itself" in result.output


@pytest.mark.parametrize("limit", [("--min-cosine", "99"), ("--min-cosine", "nan"), ("--max-dsc-drop", "nan")])
def test_limits_that_nothing_or_everything_would_keep(limit: tuple[str, str], tmp_path: Path) -> None:
    arguments = ["--encoder", ENCODER, "--calib", "phantom:rgb2d", "-o", str(tmp_path / "int8"), *limit]
    result = CliRunner().invoke(main, ["quantize", *arguments])
    assert result.exit_code == 2
    assert f"Invalid value for '{limit[0]}'" in result.output


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
