"""ONNX Runtime on the CPU."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import onnxruntime as ort
from numpy.typing import NDArray
from onnxruntime.capi import onnxruntime_pybind11_state as errors

from zoo.backends import Floats, register_backend
from zoo.backends.graphs import GraphBackend, GraphFiles, Run, refusal
from zoo.errors import InputError

#: What ONNX Runtime raises of a file that is not there or damaged, or of a graph that it does not know.
UNREADABLE = (
    errors.Fail,
    errors.InvalidArgument,
    errors.InvalidGraph,
    errors.InvalidProtobuf,
    errors.NoSuchFile,
    errors.NotImplemented,
)
#: What it raises of a graph that it cannot run.
REFUSALS = (*UNREADABLE, errors.RuntimeException)


@register_backend("onnxruntime", precisions=("fp32", "int8"), runs_graphs=True)
class OnnxRuntimeBackend(GraphBackend):
    """`Backend` in ONNX Runtime: graphs are optimised when they are loaded, results are fresh arrays."""

    name = "onnxruntime"

    def __init__(self, files: GraphFiles, precision: str, threads: int) -> None:
        super().__init__(files, precision, threads, ort.__version__, lambda path: load_session(path, threads))


def session_options(threads: int) -> ort.SessionOptions:
    """Of sessions with `threads` threads that do not wait for work busily after each call.

    Else they keep a core from all that comes between two calls, such as the resizing of masks: volumes took 1.4 to 1.6
    times as long, measured on two cores.
    """
    options = ort.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.log_severity_level = 3
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    return options


def load_session(
    path: Path, threads: int, provider: str = "CPUExecutionProvider", provider_options: Mapping[str, str] | None = None
) -> Run:
    """Loads an ONNX file into a session with the options of `session_options`.

    Args:
        path: of the file.
        threads: that one operator may use.
        provider: what runs it, by ONNX Runtime's name.
        provider_options: for that, as ONNX Runtime takes them.

    Raises:
        InputError: the file is damaged, or has an operator that this version does not run.
    """
    options = session_options(threads)
    try:
        session = ort.InferenceSession(path, options, providers=[(provider, dict(provider_options or {}))])
    except REFUSALS as error:
        raise refusal(path, f"ONNX Runtime {ort.__version__}", error) from error
    if provider not in session.get_providers():
        found = "no GPU, driver or CUDA libraries that it can use"
        raise InputError(provider, found, "these, or --backend onnxruntime")

    def run(inputs: Mapping[str, NDArray[Any]]) -> list[Floats]:
        return session.run(None, dict(inputs))

    return run
