"""Where a quantised graph rounds: the runtimes get chains that they run in integers, of the same values."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
import pytest
import torch
from fill import smooth_image
from torch import Tensor, nn

from compress.export import cosine, relative_error
from compress.placement import GELU_SLOPE, pool_means
from compress.quantize import Gate, quantise_within
from zoo.backends.graphs.onnx_runtime import load_session
from zoo.backends.graphs.openvino_runtime import load_compiled
from zoo.encoders.repvit import SqueezeExcite
from zoo.onnx_export import Graph, write_onnx

INPUTS = [smooth_image(64, seed=seed) for seed in range(3)]


class Block(nn.Module):
    """What RepViT is made of: depthwise convolution, gate, GELU between two 1x1 convolutions, residual."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 16, 3, padding=1)
        self.depthwise, self.gate = nn.Conv2d(16, 16, 3, padding=1, groups=16), SqueezeExcite(16)
        self.wide, self.narrow = nn.Conv2d(16, 32, 1), nn.Conv2d(32, 16, 1)
        self.head = nn.Conv2d(16, 4, 1)

    def forward(self, image: Tensor) -> Tensor:
        x = self.gate(self.depthwise(self.stem(image)))
        return self.head(x + self.narrow(nn.functional.gelu(self.wide(x))))


@pytest.fixture(scope="module")
def graph(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.manual_seed(0)
    path = tmp_path_factory.mktemp("placement") / "float.onnx"
    examples = {"image": torch.zeros(1, 3, 64, 64)}
    write_onnx(Graph("encoder", Block().eval(), examples, {"image": {}}, ("embedding",)), path)
    return path


def quantised(graph: Path, folder: Path, backend: str) -> Path:
    path = folder / f"{backend}.onnx"
    quantise_within(graph, path, INPUTS, "minmax", backend, Gate(0.5, 0.0), lambda step: None)
    onnx.checker.check_model(path, full_check=True)
    return path


def operators(path: Path) -> list[str]:
    return [node.op_type for node in onnx.load(path).graph.node]


def test_onnx_runtime_computes_all_but_the_gate_on_bytes(graph: Path, tmp_path: Path) -> None:
    path, optimised = quantised(graph, tmp_path, "onnxruntime"), tmp_path / "optimised.onnx"
    assert "Gelu" in operators(graph)
    assert "Gelu" not in operators(path)
    options = ort.SessionOptions()
    options.optimized_model_filepath, options.log_severity_level = str(optimised), 3
    ort.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    run = operators(optimised)
    assert {"QLinearConv", "QLinearSigmoid", "QLinearMul", "QLinearGlobalAveragePool"} <= set(run)
    assert not {"Conv", "Sigmoid", "Gelu", "ReduceMean"} & set(run)


def test_openvino_gets_no_rounding_between_a_layer_and_gelu(graph: Path, tmp_path: Path) -> None:
    model = onnx.load(quantised(graph, tmp_path, "openvino"))
    makers = {name: node for node in model.graph.node for name in node.output}
    (gelu,) = (node for node in model.graph.node if node.op_type == "Gelu")
    assert makers[gelu.input[0]].op_type == "Conv"
    assert {node.op_type for node in model.graph.node if gelu.output[0] in node.input} == {"QuantizeLinear"}


@pytest.mark.parametrize("backend", ["onnxruntime", "openvino"])
def test_values_stay(graph: Path, tmp_path: Path, backend: str) -> None:
    path = quantised(graph, tmp_path, backend)
    run = load_session(path, 2) if backend == "onnxruntime" else load_compiled(path, "int8", 2)
    expected = load_session(graph, 2)({"image": INPUTS[0]})[0]
    found = run({"image": INPUTS[0]})[0]
    assert cosine(found, expected) > 0.995
    assert relative_error(found, expected) < 0.1


def test_the_slope_of_gelu() -> None:
    x = torch.linspace(-8, 8, 4001)
    assert (nn.functional.gelu(x) - x * torch.sigmoid(GELU_SLOPE * x)).abs().max() < 0.0205


def test_means_become_poolings_exactly(graph: Path, tmp_path: Path) -> None:
    path = tmp_path / "pooled.onnx"
    model = onnx.load(graph)
    onnx.save(onnx.shape_inference.infer_shapes(model), path)
    assert "ReduceMean" in operators(path)
    pool_means(path)
    assert "ReduceMean" not in operators(path)
    onnx.checker.check_model(path, full_check=True)
    found, expected = (load_session(p, 2)({"image": INPUTS[0]})[0] for p in (path, graph))
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-6)
