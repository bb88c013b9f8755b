"""ONNX Runtime on an NVIDIA GPU, where a build with its CUDA provider is installed (`onnxruntime-gpu`)."""

from __future__ import annotations

from functools import partial

import onnxruntime as ort

from zoo.backends import register_backend
from zoo.backends.graphs import GraphBackend, GraphFiles
from zoo.backends.graphs.onnx_runtime import load_session

PROVIDER = "CUDAExecutionProvider"


def _lacking(precision: str) -> tuple[str, str] | None:
    if PROVIDER not in ort.get_available_providers():
        return "an ONNX Runtime without its CUDA provider", "onnxruntime-gpu in its place, and a GPU; or onnxruntime"
    return None


@register_backend("onnxruntime_cuda", precisions=("fp32",), lacking=_lacking, runs_graphs=True)
class OnnxCudaBackend(GraphBackend):
    """`Backend` in ONNX Runtime on the first GPU. Results are on the host when a call returns."""

    name = "onnxruntime_cuda"

    def __init__(self, files: GraphFiles, precision: str, threads: int) -> None:
        load = partial(load_session, threads=threads, provider=PROVIDER)
        super().__init__(files, precision, threads, ort.__version__, load)
