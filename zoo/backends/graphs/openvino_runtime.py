"""OpenVINO on the CPU; an extra: `pip install rep-medsam[openvino]`."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from numpy.typing import NDArray

from zoo.backends import Floats, register_backend
from zoo.backends.graphs import GraphBackend, GraphFiles, Run, refusal
from zoo.cache import cached_folder
from zoo.files import sha256_of
from zoo.notes import note

if TYPE_CHECKING:
    import openvino

#: What OpenVINO calls the precision of what a graph does not compute in int8: all of it, or what is left.
HINTS = {"fp32": "f32", "bf16": "bf16", "int8": "f32", "int8+bf16": "bf16"}


@cache
def _core() -> openvino.Core:
    """OpenVINO's plugins, loaded once and kept: each `Core` gives the thread a stack for signals and puts back the one
    before when it goes, so that with several of them a signal could meet a stack that is there no more.
    """
    import openvino

    return openvino.Core()


def _lacking(precision: str) -> tuple[str, str] | None:
    try:
        import openvino  # noqa: F401
    except ImportError:
        return "openvino not installed", "pip install 'rep-medsam[openvino]'"
    if HINTS[precision] == "bf16" and "BF16" not in _core().get_property("CPU", "OPTIMIZATION_CAPABILITIES"):
        return "bf16 on a CPU without bf16 instructions", f"{'int8' if '+' in precision else 'fp32'} on this machine"
    return None


@register_backend("openvino", precisions=tuple(HINTS), lacking=_lacking, runs_graphs=True)
class OpenVinoBackend(GraphBackend):
    """`Backend` in OpenVINO: compiled models are kept in the cache folder."""

    name = "openvino"

    def __init__(self, files: GraphFiles, precision: str, threads: int) -> None:
        import openvino

        load = partial(load_compiled, precision=precision, threads=threads)
        super().__init__(files, precision, threads, openvino.__version__, load)


def load_compiled(path: Path, precision: str, threads: int) -> Run:
    """Compiles an ONNX file for one request at a time, or takes the compiled model from the cache.

    Raises:
        InputError: the file is damaged, or has an operator that this version does not run.
    """
    settings = {
        "INFERENCE_NUM_THREADS": threads,
        "INFERENCE_PRECISION_HINT": HINTS[precision],
        "PERFORMANCE_HINT": "LATENCY",
        # OpenVINO knows a graph by its path, size and time only, which a copied folder may share with another.
        "CACHE_DIR": str(cached_folder(f"openvino/{sha256_of(path)[:20]}")),
    }
    import openvino

    try:
        compiled = _compiled(path, settings)
    except RuntimeError as error:
        raise refusal(path, f"OpenVINO {openvino.__version__}", error) from error

    def run(inputs: Mapping[str, NDArray[Any]]) -> list[Floats]:
        # Nothing is copied: see `Run`.
        return list(compiled(dict(inputs), share_inputs=True, share_outputs=True).values())

    return run


def _compiled(path: Path, settings: dict[str, Any]) -> Any:
    """With the cache if it can be: where it is full OpenVINO does not write to it, and then misses what it wrote."""
    try:
        return _core().compile_model(str(path), "CPU", settings)
    except RuntimeError:
        compiled = _core().compile_model(str(path), "CPU", {**settings, "CACHE_DIR": ""})
        note(f"{Path(settings['CACHE_DIR']).parent}: OpenVINO cannot use it, and compiles graphs in each process anew")
        return compiled
