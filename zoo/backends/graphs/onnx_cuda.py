"""ONNX Runtime on an NVIDIA GPU, where a build with its CUDA provider is installed (`onnxruntime-gpu`)."""

from __future__ import annotations

import io
import sys
from contextlib import redirect_stdout
from functools import partial

import onnxruntime as ort

from zoo.backends import register_backend
from zoo.backends.graphs import GraphBackend, GraphFiles
from zoo.backends.graphs.onnx_runtime import load_session

PROVIDER = "CUDAExecutionProvider"
#: Products and convolutions in float32 throughout, as the backend `cuda` computes them; the default rounds to TF32.
OPTIONS = {"use_tf32": "0"}


def _lacking(precision: str) -> tuple[str, str] | None:
    if PROVIDER not in ort.get_available_providers():
        return "an ONNX Runtime without its CUDA provider", "onnxruntime-gpu in its place, and a GPU; or onnxruntime"
    return None


@register_backend("onnxruntime_cuda", precisions=("fp32",), lacking=_lacking, runs_graphs=True)
class OnnxCudaBackend(GraphBackend):
    """`Backend` in ONNX Runtime on the first GPU. Results are on the host when a call returns."""

    name = "onnxruntime_cuda"

    def __init__(self, files: GraphFiles, precision: str, threads: int) -> None:
        load_cuda()
        load = partial(load_session, threads=threads, provider=PROVIDER, provider_options=OPTIONS)
        super().__init__(files, precision, threads, ort.__version__, load)


def load_cuda() -> None:
    """CUDA's libraries from where pip puts them; torch has loaded them where it is imported."""
    if "torch" not in sys.modules and hasattr(ort, "preload_dlls"):
        with redirect_stdout(io.StringIO()):  # of what it lacks, the session's error tells
            ort.preload_dlls()
