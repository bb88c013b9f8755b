"""Training through int8: rounding as `quantize` does it, weights that keep their names, and a loss that falls."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from descend import descend
from safetensors.torch import save_file
from torch import nn

from bench.candidate import Recipe
from cli import main
from compress.build import build_candidate
from compress.quantize import Gate, quantise_within
from compress.reparam import reparameterise
from compress.training.config import TrainConfig
from compress.training.distill import Distillation
from compress.training.finetune import training_geometry
from compress.training.int8 import Int8Conv2d, Int8Linear, round_input, round_weight, simulate_int8
from zoo.backends.graphs.onnx_runtime import load_session
from zoo.data.dataset import SyntheticImages
from zoo.data.prompting import PairedImages
from zoo.errors import InputError
from zoo.onnx_export import Graph, write_onnx
from zoo.registry import create_sam
from zoo.weights import read_checkpoint

ENCODER = "timm:mobilenetv4_conv_small@64"


def test_inputs_are_rounded_to_256_steps_from_least_to_greatest() -> None:
    """From -1 to 1.55 a step is 0.01; where all is positive the steps begin at 0."""
    torch.testing.assert_close(
        round_input(torch.tensor([-1.0, 0.0, 0.014, 0.016, 1.55])), torch.tensor([-1.0, 0.0, 0.01, 0.02, 1.55])
    )
    torch.testing.assert_close(round_input(torch.tensor([1.0, 2.55, 1.004])), torch.tensor([1.0, 2.55, 1.0]))
    assert round_input(torch.zeros(3)).tolist() == [0, 0, 0]


def test_weights_are_rounded_by_output_channel() -> None:
    weight = torch.tensor([[1.27, -0.504, 0.004], [-2.54, 0.011, 0.0], [0.0, 0.0, 0.0]])
    expected = torch.tensor([[1.27, -0.5, 0.0], [-2.54, 0.02, 0.0], [0.0, 0.0, 0.0]])
    torch.testing.assert_close(round_weight(weight), expected)


def test_gradients_pass_through_the_rounding() -> None:
    layer = Int8Conv2d(2, 3, 1)
    x = torch.randn(1, 2, 4, 4, requires_grad=True)
    layer(x).sum().backward()
    assert layer.weight.grad is not None
    torch.testing.assert_close(layer.weight.grad[0, :, 0, 0], round_input(x).sum((0, 2, 3)))
    torch.testing.assert_close(x.grad[0, :, 0, 0], round_weight(layer.weight).sum((0, 2, 3)))


@pytest.mark.parametrize("layer", [Int8Conv2d(3, 5, 1), Int8Linear(8, 5)])
def test_bfloat16_leaves_rounded_values_as_they_are(layer: nn.Module) -> None:
    x = torch.randn(2, 3, 8, 8)
    expected = layer(x)
    with torch.autocast("cpu", torch.bfloat16):
        found = layer(x)
    assert found.dtype == torch.float32
    assert torch.equal(found, expected)


def test_an_encoder_that_cannot_be_folded_is_told_without_options_that_distill_lacks() -> None:
    with pytest.raises(InputError, match=r"^--int8: found 1 BatchNorms .*, the first module 0; expected .* be folded$"):
        simulate_int8(nn.Sequential(nn.BatchNorm2d(3)).eval(), 8)


def test_it_computes_what_a_quantised_graph_does(tmp_path: Path) -> None:
    """A layer of a graph for OpenVINO, on the image that it was calibrated with; through more they part."""
    torch.manual_seed(0)
    encoder = nn.Sequential(nn.Conv2d(3, 16, 3, 2, 1), nn.GELU()).eval()
    image = torch.rand(1, 3, 64, 64)
    write_onnx(Graph("encoder", encoder, {"image": image}, {"image": {}}, ("embedding",)), tmp_path / "float.onnx")
    quantised, gate = tmp_path / "int8.onnx", Gate(0.5, 0.0)
    inputs = [image.numpy()]
    quantise_within(tmp_path / "float.onnx", quantised, inputs, "minmax", "openvino", gate, lambda step: None)
    in_int8 = load_session(quantised, 2)({"image": inputs[0]})[0]
    with torch.inference_mode():
        in_float, simulated = (each(image).numpy() for each in (encoder, simulate_int8(encoder)))
    rounding = np.linalg.norm(in_int8 - in_float)
    assert np.linalg.norm(simulated - in_int8) < 0.1 * rounding


def test_weights_keep_their_names_and_values() -> None:
    encoder = create_sam("light_repvit_m0_9", "random:1").image_encoder
    folded, simulated = reparameterise(encoder).state_dict(), simulate_int8(encoder).state_dict()
    assert list(simulated) == list(folded)
    assert all(torch.equal(simulated[name], folded[name]) for name in folded)


@pytest.mark.slow
def test_a_student_learns_to_bear_the_rounding() -> None:
    """The student is its teacher, but for the rounding, and gives better embeddings for having been trained with it."""
    teacher = create_sam(ENCODER, "random:1")
    prompting, _ = training_geometry(teacher, TrainConfig(objects=1))
    data = PairedImages(SyntheticImages(64), prompting, teacher.spec)
    batch = {key: torch.stack([data[index][key] for index in range(4)]) for key in data[0]}
    student = create_sam(ENCODER, "random:1")
    student.image_encoder = simulate_int8(student.image_encoder)
    task = Distillation(student, teacher).eval()
    losses = descend(task, batch, 30, partial(torch.optim.Adam, lr=2e-5))
    assert losses[0] > 0
    assert np.mean(losses[-5:]) < 0.8 * losses[0]


def test_distill_int8_leaves_folded_weights_that_other_commands_take(tmp_path: Path) -> None:
    common = ["--weights", "random:1", "--teacher", ENCODER, "--teacher-weights", "random:1", "--batch-size", "2"]
    limits = ["--steps", "2", "--validate-every", "1", "--workers", "0", "--validation-count", "2", "--int8"]
    weights = str(tmp_path / "best.safetensors")
    command = ["distill", "--student", ENCODER, *common, *limits, "-o", str(tmp_path)]
    told = CliRunner().invoke(main, command, catch_exceptions=False)
    assert told.exit_code == 0, told.output
    assert read_checkpoint(Path(weights)).scalars["variant"] == "reparam"
    candidate = build_candidate(Recipe(ENCODER, weights))
    assert candidate.weights.trained
    assert not any(isinstance(module, nn.BatchNorm2d) for module in candidate.sam.image_encoder.modules())
    exported = build_candidate(Recipe(ENCODER, weights, backend="onnxruntime"))
    assert exported.weights == candidate.weights
    image = torch.rand(1, 3, 64, 64).numpy()
    np.testing.assert_allclose(exported.backend.encode(image), candidate.backend.encode(image), atol=1e-3)


@pytest.mark.parametrize("command", ["train", "distill", "embed"])
def test_folded_weights_are_not_trained_further(tmp_path: Path, command: str) -> None:
    sam = create_sam(ENCODER, "random:1")
    sam.image_encoder = reparameterise(sam.image_encoder)
    folded = str(tmp_path / "folded.safetensors")
    save_file(sam.state_dict(), folded)
    words = {
        "train": ["--encoder", ENCODER, "--weights", folded],
        "distill": ["--student", ENCODER, "--weights", folded, "--teacher", ENCODER, "--teacher-weights", "random:1"],
        "embed": ["--teacher", ENCODER, "--teacher-weights", folded],
    }[command]
    told = CliRunner().invoke(main, [command, *words, "-o", str(tmp_path / "out")])
    assert told.exit_code == 1
    assert f"{folded}: found folded weights of {ENCODER}; expected weights as trained; quantize, bench" in told.output
    assert not (tmp_path / "out").exists()
