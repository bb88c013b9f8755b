"""Runtimes of a GPU, as far as a machine without one can tell."""

from __future__ import annotations

import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import onnxruntime as ort
import pytest
import torch
from numpy.typing import NDArray
from torch import nn

from zoo.backends import create_backend, runnable_here, torch_cuda
from zoo.backends.graphs import onnx_cuda
from zoo.backends.graphs.onnx_runtime import load_session
from zoo.errors import InputError
from zoo.onnx_export import onnx_file
from zoo.sam.model import Sam


def test_a_machine_without_a_gpu(sam: Sam, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(ort, "get_available_providers", lambda: ["CPUExecutionProvider"])
    assert not {"cuda", "onnxruntime_cuda"} & {name for name, _ in runnable_here()}
    with pytest.raises(InputError, match="backend cuda: found no CUDA GPU that torch can use; expected torch, compile"):
        create_backend("cuda", sam, "fp16")
    with pytest.raises(InputError, match="an ONNX Runtime without its CUDA provider; expected onnxruntime-gpu"):
        create_backend("onnxruntime_cuda", sam)


def test_onnx_runtime_on_a_gpu_computes_in_float32(sam: Sam, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """All but CUDA itself: its provider alone, told to leave TF32."""
    asked: list[object] = []

    def session(path: Path, options: ort.SessionOptions, providers: list[object]) -> object:
        asked.extend(providers)
        return SimpleNamespace(get_providers=lambda: ["CPUExecutionProvider"])

    monkeypatch.setattr(ort, "get_available_providers", lambda: ["CUDAExecutionProvider"])
    monkeypatch.setattr(ort, "InferenceSession", session)
    backend = create_backend("onnxruntime_cuda", sam, encoder_graph=tmp_path / "encoder.onnx")
    with pytest.raises(InputError, match="found no GPU, driver or CUDA libraries that it can use; expected these"):
        backend.encode(np.zeros((1, 3, 64, 64), np.float32))
    assert asked == [("CUDAExecutionProvider", {"use_tf32": "0"})]


def test_cudas_libraries_are_loaded_where_torch_has_not(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    loaded: list[str] = []

    def preload() -> None:
        loaded.append("CUDA")
        sys.stdout.write("what is missing")

    monkeypatch.setattr(ort, "preload_dlls", preload, raising=False)
    onnx_cuda.load_cuda()
    assert not loaded, "torch is imported here"
    monkeypatch.delitem(sys.modules, "torch")
    onnx_cuda.load_cuda()
    assert loaded == ["CUDA"]
    monkeypatch.delattr(ort, "preload_dlls")
    onnx_cuda.load_cuda()
    assert capsys.readouterr().out == ""


def test_a_gpu_without_bf16(sam: Sam, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation: False)
    assert {precision for name, precision in runnable_here() if name == "cuda"} == {"fp32", "fp16"}
    with pytest.raises(InputError, match="a GPU without bf16 instructions; expected fp16 or fp32"):
        create_backend("cuda", sam, "bf16")


def test_a_gpu_encodes_image_by_image_by_one_graph(
    sam: Sam, image: NDArray[np.float32], monkeypatch: pytest.MonkeyPatch
) -> None:
    """All but CUDA itself: the model is a copy, and the graph is captured once, of one image's shape."""
    captured: list[torch.Size] = []

    def capture(module: nn.Module, example: torch.Tensor) -> nn.Module:
        captured.append(example.shape)
        return module

    monkeypatch.setattr(torch_cuda, "capture", capture)
    monkeypatch.setattr(Sam, "to", lambda self, device: self)
    backend = torch_cuda.CudaBackend(sam, "fp32", 2)
    images = np.concatenate([image, image[:, :, ::-1].copy()])
    np.testing.assert_array_equal(backend.encode(images)[:1], create_backend("torch", sam).encode(image))
    assert backend.encode(images).shape == (2, 256, 64, 64)
    assert captured == [torch.Size([1, 3, 64, 64])]


def test_float32_on_a_gpu_is_float32(sam: Sam, monkeypatch: pytest.MonkeyPatch) -> None:
    """TF32, cuDNN's default, has ten bits of mantissa: embeddings were 4e-4 off with it."""
    monkeypatch.setattr(Sam, "to", lambda self, device: self)
    backend = torch_cuda.CudaBackend(sam, "fp32", 2)
    seen = [torch.backends.cudnn.allow_tf32]
    with backend._running():
        seen.append(torch.backends.cudnn.allow_tf32)
    assert [*seen, torch.backends.cudnn.allow_tf32] == [True, False, True]


def test_a_provider_that_does_not_start(sam: Sam) -> None:
    """An ONNX Runtime whose provider cannot start falls back on the CPU: one that this build lacks stands for it."""
    lacking = next(name for name in ort.get_all_providers() if name not in ort.get_available_providers())
    file = onnx_file(sam, "boxes")
    with pytest.warns(UserWarning, match="not in available"), pytest.raises(InputError, match="no GPU, driver"):
        load_session(file, 2, lacking)
