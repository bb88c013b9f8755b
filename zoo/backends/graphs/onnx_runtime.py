"""ONNX Runtime on the CPU."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import onnxruntime as ort
from numpy.typing import NDArray

from zoo.backends import Floats, register_backend
from zoo.backends.graphs import GraphBackend, GraphFiles, Run


@register_backend("onnxruntime", precisions=("fp32", "int8"), runs_graphs=True)
class OnnxRuntimeBackend(GraphBackend):
    """`Backend` in ONNX Runtime: graphs are optimised when they are loaded, results are fresh arrays."""

    name = "onnxruntime"

    def __init__(self, files: GraphFiles, precision: str, threads: int) -> None:
        super().__init__(files, precision, threads, ort.__version__, lambda path: load_session(path, threads))


def load_session(path: Path, threads: int) -> Run:
    """Loads an ONNX file into a session with `threads` threads that do not wait for work busily after each call."""
    options = ort.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.log_severity_level = 3
    session = ort.InferenceSession(path, options, providers=["CPUExecutionProvider"])

    def run(inputs: Mapping[str, NDArray[Any]]) -> list[Floats]:
        return session.run(None, dict(inputs))

    return run
