"""Runtimes: every one computes what torch computes, of every kind of prompt, into arrays of its own."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
import pytest
import torch
import torch.nn.functional as F
from fill import smooth_image
from numpy.typing import NDArray
from onnx import TensorProto, helper
from torch import nn

from zoo import cache
from zoo.backends import Backend, Prompts, alike_here, check_backend, create_backend, open_graphs, runnable_here
from zoo.backends.graphs import GraphFolder, openvino_runtime
from zoo.errors import InputError
from zoo.layout import by_position, channels_first, channels_last
from zoo.onnx_export import Graph, onnx_file, write_onnx
from zoo.sam.model import Sam

#: ‖a-b‖/‖b‖ against float32 torch, by precision.
TOLERANCE = {"fp32": 1e-4, "bf16": 3e-2}
BOXES = np.array([[10, 12, 40, 44], [0, 0, 63, 63], [30, 5, 50, 20]], np.float32)
POINTS = np.array([[[20, 20], [50, 12]], [[5, 60], [33, 33]], [[1, 2], [3, 4]]], np.float32)
LABELS = np.array([[1, 0], [1, 1], [0, -1]], np.int64)
MASK = (20 * smooth_image(256, seed=3)[:, :1] - 10).astype(np.float32)
PROMPTS = {
    "boxes": Prompts(boxes=BOXES),
    "one box": Prompts(boxes=BOXES[:1]),
    "points": Prompts(points=POINTS, point_labels=LABELS),
    "one point": Prompts(points=POINTS[:1, :1], point_labels=LABELS[:1, :1]),
    "points and boxes": Prompts(boxes=BOXES, points=POINTS, point_labels=LABELS),
    "boxes and masks": Prompts(boxes=BOXES[:2], masks=np.concatenate([MASK, -MASK])),
    "a mask": Prompts(masks=MASK),
}


#: Compiling takes half a minute.
RUNTIMES = [
    pytest.param(pair, marks=pytest.mark.slow if pair[0] == "compile" else (), id="-".join(pair))
    for pair in runnable_here()
]


@pytest.fixture(scope="module", params=RUNTIMES)
def backend(request: pytest.FixtureRequest, sam: Sam) -> Backend:
    return create_backend(request.param[0], sam, request.param[1])


def close(found: NDArray[np.float32], expected: NDArray[np.float32], precision: str) -> bool:
    return bool(np.linalg.norm(found - expected) <= TOLERANCE[precision] * np.linalg.norm(expected))


def answers_alike(
    found: tuple[NDArray[np.float32], ...], expected: tuple[NDArray[np.float32], ...], precision: str
) -> bool:
    """Logits by their norm; IoU by its own unit, as that of random weights lies about zero."""
    (logits, iou), (right_logits, right_iou) = found, expected
    assert (logits.shape, iou.shape) == (right_logits.shape, right_iou.shape)
    return close(logits, right_logits, precision) and bool(np.abs(iou - right_iou).max() <= TOLERANCE[precision])


def test_encode(backend: Backend, sam: Sam, image: NDArray[np.float32]) -> None:
    found = backend.encode(np.concatenate([image, image[:, :, ::-1].copy()]))
    with torch.inference_mode():
        expected = sam.image_encoder(torch.from_numpy(image)).numpy()
    assert found.dtype == np.float32
    assert found.shape == (2, 256, 64, 64)
    assert close(found[:1], expected, backend.precision)
    assert not close(found[1:], expected, backend.precision), "each image gets an embedding of its own"


@pytest.mark.parametrize("kind", PROMPTS)
@pytest.mark.parametrize("multimask", [False, True])
def test_decode(backend: Backend, sam: Sam, image: NDArray[np.float32], kind: str, multimask: bool) -> None:
    reference = create_backend("torch", sam)
    embedding = reference.encode(image)
    expected, found = (b.decode(embedding, PROMPTS[kind], multimask) for b in (reference, backend))
    assert answers_alike(found, expected, backend.precision)


def test_decode_boxes(backend: Backend, sam: Sam, image: NDArray[np.float32]) -> None:
    reference = create_backend("torch", sam)
    embedding = reference.encode(image)
    for boxes in (BOXES, BOXES[:1], np.tile(BOXES, (3, 1))):
        expected = reference.decode(embedding, Prompts(boxes=boxes))
        assert answers_alike(backend.decode_boxes(embedding, boxes), expected, backend.precision)


def test_decode_boxes_within_windows(backend: Backend, sam: Sam, image: NDArray[np.float32]) -> None:
    """Windows of many shapes, one of them empty, one all of the embedding."""
    embedding = create_backend("torch", sam).encode(image)
    boxes = np.concatenate([BOXES, BOXES[:1]])
    windows = np.array([[3, 9, 17, 40], [0, 0, 64, 64], [63, 0, 64, 1], [5, 5, 5, 9]])
    whole, whole_iou = backend.decode_boxes(embedding, boxes)
    found, iou = backend.decode_boxes(embedding, boxes, windows)
    assert found.shape == whole.shape
    np.testing.assert_allclose(iou, whole_iou, atol=TOLERANCE[backend.precision])
    for one, other, (x_min, y_min, x_max, y_max) in zip(found[:, 0], whole[:, 0], 4 * windows, strict=True):
        inside = np.s_[y_min:y_max, x_min:x_max]
        assert close(one[inside], other[inside], backend.precision)
    alone, _ = backend.decode_boxes(embedding, boxes[:1], windows[:1])
    assert close(alone[0, 0, 36:160, 12:68], whole[0, 0, 36:160, 12:68], backend.precision)


def test_decode_boxes_beside_masks(backend: Backend, sam: Sam, image: NDArray[np.float32]) -> None:
    """Each box with a mask of its own, whole and within windows."""
    reference = create_backend("torch", sam)
    embedding = reference.encode(image)
    masks = np.full((len(BOXES), 1, 256, 256), -10, np.float32)
    for number, mask in enumerate(masks):
        mask[0, 40 * number : 90 + 60 * number, 30:200] = 10
    for count in (len(BOXES), 1):
        boxes, beside = BOXES[:count], masks[:count]
        expected = reference.decode(embedding, Prompts(boxes=boxes, masks=beside))
        found = backend.decode_boxes(embedding, boxes, masks=beside)
        assert answers_alike(found, expected, backend.precision)
        assert not close(found[0], reference.decode(embedding, Prompts(boxes=boxes))[0], backend.precision)
        within, _ = backend.decode_boxes(embedding, boxes, np.tile([[3, 9, 17, 40]], (count, 1)), beside)
        assert close(within[:, 0, 36:160, 12:68], expected[0][:, 0, 36:160, 12:68], backend.precision)


def _blurred(image: torch.Tensor, fovea: tuple[int, int, int, int]) -> torch.Tensor:
    """Images (..., H, W) of which each cell of 4x4 outside a fovea, xyxy in their pixels, is its mean."""
    means = F.avg_pool2d(image, 4).repeat_interleave(4, -1).repeat_interleave(4, -2)
    x_min, y_min, x_max, y_max = fovea
    means[..., y_min:y_max, x_min:x_max] = image[..., y_min:y_max, x_min:x_max]
    return means


@pytest.mark.parametrize("masked", [False, True])
def test_decode_foveated_is_the_plain_decoder_of_what_is_blurred_elsewhere(
    backend: Backend, sam: Sam, image: NDArray[np.float32], masked: bool
) -> None:
    """Foveae of several sizes, at corners, one all of the embedding; a box is answered alone as among others."""
    embedding = create_backend("torch", sam).encode(image)
    boxes = np.concatenate([BOXES, BOXES[:1]])
    windows = np.array([[20, 9, 28, 25], [0, 0, 64, 64], [63, 0, 64, 1], [5, 45, 9, 58]])
    foveae = [(16, 4, 32, 28), (0, 0, 64, 64), (60, 0, 64, 4), (4, 40, 12, 60)]
    masks = np.where(np.random.default_rng(0).random((4, 1, 256, 256)) < 0.5, -10, 10).astype(np.float32)
    found, iou = backend.decode_foveated(embedding, boxes, windows, masks if masked else None)
    assert found.shape == (4, 1, 256, 256)
    for number, fovea in enumerate(foveae):
        one = slice(number, number + 1)
        with torch.inference_mode():
            beside = None
            if masked:  # the mean of the pixels at the same place of all positions of a cell
                places = _blurred(F.pixel_unshuffle(torch.from_numpy(masks[one]), 4), fovea)
                beside = F.pixel_shuffle(places, 4)
            sparse, dense = sam.prompt_encoder(None, torch.from_numpy(boxes[one]), beside)
            blurred, image_pe = (
                _blurred(given, fovea) for given in (torch.from_numpy(embedding), sam.prompt_encoder.get_dense_pe())
            )
            logits, right_iou = sam.mask_decoder(blurred, image_pe, sparse, dense, multimask_output=False)
        x_min, y_min, x_max, y_max = 4 * windows[number]
        inside = np.s_[y_min:y_max, x_min:x_max]
        assert close(found[number, 0][inside], logits[0, 0].numpy()[inside], backend.precision)
        assert abs(iou[number, 0] - float(right_iou)) <= TOLERANCE[backend.precision]
        alone, _ = backend.decode_foveated(embedding, boxes[one], windows[one], masks[one] if masked else None)
        assert close(alone[0, 0][inside], found[number, 0][inside], backend.precision)


@pytest.mark.parametrize("turn", [channels_first, channels_last])
def test_an_embedding_is_decoded_however_it_lies_in_memory(
    backend: Backend, sam: Sam, image: NDArray[np.float32], turn: Callable[[NDArray[Any]], NDArray[Any]]
) -> None:
    """Those of graphs have channels last; those of torch, and those that were read from a file, channels first."""
    embedding = create_backend("torch", sam).encode(image)
    turned, windows = turn(embedding.copy()), np.tile([[3, 9, 17, 40]], (len(BOXES), 1))
    prompts, inside = Prompts(boxes=BOXES), np.s_[:, :, 36:160, 12:68]
    expected, _ = create_backend("torch", sam).decode(embedding, prompts)
    assert close(backend.decode(turned, prompts)[0], expected, backend.precision)
    assert close(backend.decode_boxes(turned, BOXES)[0], expected, backend.precision)
    assert close(backend.decode_boxes(turned, BOXES, windows)[0][inside], expected[inside], backend.precision)
    foveated, _ = create_backend("torch", sam).decode_foveated(embedding, BOXES, windows)
    assert close(backend.decode_foveated(turned, BOXES, windows)[0], foveated, backend.precision)


@pytest.mark.parametrize(
    "runtime", sorted({name for name, _ in runnable_here() if name in ("onnxruntime", "openvino")})
)
def test_a_graphs_embedding_need_not_be_turned(sam: Sam, image: NDArray[np.float32], runtime: str) -> None:
    backend = create_backend(runtime, sam)
    for embedding in (backend.encode(image), backend.encode(np.concatenate([image, image]))[1:]):
        assert np.shares_memory(by_position(embedding), embedding)


def test_a_graph_is_of_float32_whatever_its_maker_is_doing(
    sam: Sam, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(cache.FOLDER_VARIABLE, str(tmp_path))
    with torch.autocast("cpu", torch.bfloat16):
        made = onnx.load(onnx_file(sam, "boxes"))
    values = {tensor.data_type for tensor in made.graph.initializer}
    casts = {attribute.i for node in made.graph.node for attribute in node.attribute if attribute.name == "to"}
    assert onnx.TensorProto.BFLOAT16 not in values | casts


def test_results_are_nobody_elses(backend: Backend, image: NDArray[np.float32]) -> None:
    """What a runtime returned stays as it was when it runs again."""
    other = image[:, :, ::-1].copy()
    embedding = backend.encode(image)
    windows = np.tile([[3, 9, 17, 40]], (len(BOXES), 1))

    def answers(embedding: NDArray[np.float32]) -> list[NDArray[np.float32]]:
        asked = [backend.decode(embedding, PROMPTS[kind]) for kind in ("boxes", "one box")]
        asked += [backend.decode_boxes(embedding, BOXES), backend.decode_boxes(embedding, BOXES, windows)]
        asked += [backend.decode_foveated(embedding, BOXES, windows)]
        return [array for answer in asked for array in answer]

    results = [embedding, *answers(embedding)]
    before = [result.copy() for result in results]
    answers(backend.encode(other))
    for result, was in zip(results, before, strict=True):
        np.testing.assert_array_equal(result, was)
        result[:] = 0
    np.testing.assert_array_equal(backend.encode(image), before[0])


def test_precisions_that_the_machine_lacks(sam: Sam, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: False)
    assert ("torch", "bf16") not in runnable_here()
    with pytest.raises(InputError, match="bf16 on a CPU without bf16 instructions; expected fp32"):
        create_backend("torch", sam, "bf16")


@pytest.mark.parametrize(("precision", "way_on"), [("bf16", "fp32"), ("int8+bf16", "int8")])
def test_openvino_without_bf16(monkeypatch: pytest.MonkeyPatch, precision: str, way_on: str) -> None:
    core = SimpleNamespace(get_property=lambda device, name: ["FP32", "INT8"])
    monkeypatch.setattr(openvino_runtime, "_core", lambda: core)
    with pytest.raises(InputError, match=f"bf16 on a CPU without bf16 instructions; expected {way_on} on this"):
        check_backend("openvino", precision)
    assert alike_here("openvino", precision) == [way_on]


def test_precisions_that_a_graph_also_runs_in(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(openvino_runtime, "_core", lambda: SimpleNamespace(get_property=lambda *_: ["BF16"]))
    assert alike_here("openvino", "int8") == ["int8", "int8+bf16"]
    assert alike_here("openvino", "fp32") == ["fp32", "bf16"]
    assert alike_here("onnxruntime", "int8") == ["int8"]
    assert alike_here("of somebody else's", "fp32") == []


def test_int8_needs_a_graph_and_a_runtime_of_graphs(sam: Sam, tmp_path: Path) -> None:
    for runtime, precision in (("onnxruntime", "int8"), ("openvino", "int8")):
        with pytest.raises(InputError, match="int8 without a quantised graph; expected a candidate"):
            create_backend(runtime, sam, precision)
    with pytest.raises(InputError, match="an exported graph; expected onnxruntime or openvino"):
        create_backend("torch", sam, "fp32", encoder_graph=tmp_path / "encoder.onnx")


def test_threads_of_onnx_runtime_do_not_spin_between_calls(sam: Sam, monkeypatch: pytest.MonkeyPatch) -> None:
    opened: list[ort.SessionOptions] = []
    session = ort.InferenceSession
    monkeypatch.setattr(
        ort, "InferenceSession", lambda path, options, **more: opened.append(options) or session(path, options, **more)
    )
    create_backend("onnxruntime", sam, threads=2).encode(np.zeros((1, 3, 64, 64), np.float32))
    (options,) = opened
    assert options.get_session_config_entry("session.intra_op.allow_spinning") == "0"
    assert options.intra_op_num_threads == 2


def test_a_runtime_that_is_not_installed(sam: Sam, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "openvino", None)
    with pytest.raises(InputError, match=r"pip install 'rep-medsam\[openvino\]'"):
        create_backend("openvino", sam)


@pytest.mark.parametrize(
    ("there", "told"),
    [
        (True, "backend torch: found an exported graph; expected onnxruntime or openvino, which run graphs"),
        (False, "backend: found unknown name 'torch'; expected one of: onnxruntime, onnxruntime_cuda, openvino"),
    ],
)
def test_a_runtime_of_models_is_told_from_an_unknown_one(there: bool, told: str) -> None:
    """By a process that has imported none of them yet, and cannot without torch; in the precision of a candidate."""
    hidden = "" if there else "import sys; sys.modules['torch'] = None; "
    code = f"{hidden}from zoo.backends import open_graphs; open_graphs('torch', None, 'int8')"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.stderr.splitlines()[-1] == f"zoo.errors.InputError: {told}"


class Eigenvalues(nn.Module):
    """What ONNX has no operator for."""

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        return torch.linalg.eigvalsh(image)


def test_an_operator_that_onnx_lacks(tmp_path: Path) -> None:
    graph = Graph("encoder", Eigenvalues(), {"image": torch.eye(4)[None]}, {"image": {}}, ("embedding",))
    with pytest.raises(InputError, match=r"graph encoder: found what cannot be exported \(.*eigh.*--backend torch"):
        write_onnx(graph, tmp_path / "encoder.onnx")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("runtime", ["onnxruntime", "openvino"])
@pytest.mark.parametrize("damaged", [None, b"not a graph", b""])
def test_a_graph_that_a_runtime_refuses(sam: Sam, tmp_path: Path, runtime: str, damaged: bytes | None) -> None:
    path = tmp_path / "encoder.onnx"
    image, embedding = (helper.make_tensor_value_info(n, TensorProto.FLOAT, [1]) for n in ("image", "embedding"))
    node = helper.make_node("Unheard", ["image"], ["embedding"], domain="com.example")
    opsets = [helper.make_opsetid("", 20), helper.make_opsetid("com.example", 1)]
    onnx.save(helper.make_model(helper.make_graph([node], "g", [image], [embedding]), opset_imports=opsets), path)
    if damaged is not None:
        path.write_bytes(damaged)
    with pytest.raises(InputError, match=r"encoder\.onnx: found a graph that it refuses .* or another --backend"):
        create_backend(runtime, sam, encoder_graph=path).encode(np.zeros((1, 3, 64, 64), np.float32))


def test_compile_without_a_compiler(sam: Sam, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CXX", raising=False)
    monkeypatch.setenv("PATH", "")
    with pytest.raises(InputError, match=r"no C\+\+ compiler"):
        create_backend("compile", sam)


def test_unknown_names(sam: Sam) -> None:
    with pytest.raises(InputError, match="did you mean onnxruntime"):
        create_backend("onnx", sam)
    with pytest.raises(InputError, match="precision of backend torch"):
        create_backend("torch", sam, "int4")


@pytest.mark.parametrize("runtime", ["torch", "onnxruntime", "openvino"])
@pytest.mark.parametrize("threads", [0, -1])
def test_a_thread_or_more(sam: Sam, tmp_path: Path, runtime: str, threads: int) -> None:
    with pytest.raises(InputError, match=f"threads: found {threads}; expected 1 or more"):
        create_backend(runtime, sam, threads=threads)
    if runtime != "torch":
        with pytest.raises(InputError, match=f"threads: found {threads}; expected 1 or more"):
            open_graphs(runtime, GraphFolder(tmp_path, sam.spec), threads=threads)


SIGNALLED = """
import signal, sys
import subprocess
import sys
from pathlib import Path
from zoo.backends.graphs.openvino_runtime import load_compiled

signal.signal(signal.SIGUSR1, lambda *_: print("taken"))
runs = [load_compiled(Path(sys.argv[1]), "fp32", 1) for _ in range(3)]
while runs:
    del runs[0]
signal.raise_signal(signal.SIGUSR1)
"""


@pytest.mark.skipif(sys.platform == "win32", reason="no such signal")
def test_a_process_takes_signals_after_its_openvino_models_are_gone(tmp_path: Path) -> None:
    """OpenVINO gives the thread that begins with it a stack for signals, and takes it away in the end."""
    pytest.importorskip("openvino")
    module = nn.Conv2d(1, 1, 1).eval()
    graph = Graph("encoder", module, {"image": torch.zeros(1, 1, 4, 4)}, {"image": {}}, ("embedding",))
    write_onnx(graph, tmp_path / "small.onnx")
    command = [sys.executable, "-c", SIGNALLED, str(tmp_path / "small.onnx")]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout.strip()) == (0, "taken"), done.stderr


@pytest.mark.slow
def test_compiled_convolutions_have_packed_weights(sam: Sam) -> None:
    from torch._dynamo.utils import counters

    backend = create_backend("compile", sam)
    torch._dynamo.reset()
    counters.clear()
    backend.encode(np.zeros((1, 3, sam.spec.image_size, sam.spec.image_size), np.float32))
    assert counters["inductor"]["mkldnn_conv_weight_pack_matcher_count"] > 0
