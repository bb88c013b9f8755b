"""Runtimes: each loads a model for one precision and thread count and runs it on numpy arrays.

A new runtime is one new file in this folder, or in `graphs/` if it runs exported graphs, with a class under
`@register_backend(...)`.
"""

from __future__ import annotations

import contextlib
import importlib
import pkgutil
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Protocol, TypeVar

import numpy as np
from numpy.typing import NDArray

from zoo.errors import InputError, unknown_name
from zoo.plugins import load_plugins
from zoo.registry import EncoderSpec

if TYPE_CHECKING:
    from zoo.backends.graphs import GraphFiles
    from zoo.sam.model import Sam

Floats = NDArray[np.float32]
#: int64 (B, 4), see `zoo.windows`.
Windows = NDArray[np.int64]


@dataclass(frozen=True)
class Prompts:
    """Prompts of B objects on one image, coordinates in the encoder's prompt frame.

    Attributes:
        boxes: float32 (B, 4) xyxy.
        points: float32 (B, P, 2) as (x, y).
        point_labels: (B, P): 1 foreground, 0 background, -1 padding.
        masks: float32 logits (B, 1, 256, 256).
    """

    boxes: Floats | None = None
    points: Floats | None = None
    point_labels: NDArray[np.int64] | None = None
    masks: Floats | None = None

    def __post_init__(self) -> None:
        if (self.points is None) != (self.point_labels is None):
            raise InputError("prompts", "points without labels or labels without points", "both")
        if self.boxes is None and self.points is None and self.masks is None:
            raise InputError("prompts", "nothing", "boxes, points or masks")
        if (
            self.points is not None
            and self.point_labels is not None
            and self.point_labels.shape != self.points.shape[:2]
        ):
            found = f"{self.points.shape} with labels {self.point_labels.shape}"
            raise InputError("points", found, "(B, P, 2) with labels (B, P)")
        counts = {name: len(given) for name, given in vars(self).items() if given is not None}
        if len(set(counts.values())) > 1:
            raise InputError("prompts", ", ".join(f"{n} {name}" for name, n in counts.items()), "as many of each")


class Backend(Protocol):
    """A model in one runtime. Results are arrays of their own: they never alias a buffer of the runtime.

    Attributes:
        name: of the runtime, as in `list_backends()`.
        version: of the runtime.
        precision: `fp32`, `bf16`, `fp16`, `int8`, or `int8+bf16`: what is not in integers in bfloat16.
        threads: that one operator may use.
        spec: of the image encoder.
        weights: name of the model's weights, or the folder of its graphs.
    """

    name: str
    version: str
    precision: str
    threads: int
    spec: EncoderSpec
    weights: str

    def encode(self, images: Floats) -> Floats:
        """Normalised images (B, 3, S, S) to embeddings (B, 256, 64, 64)."""
        ...

    def decode(self, embedding: Floats, prompts: Prompts, multimask: bool = False) -> tuple[Floats, Floats]:
        """Embedding (1, 256, 64, 64) and B prompts to logits (B, 1 or 3, 256, 256) and predicted IoU (B, 1 or 3)."""
        ...

    def decode_boxes(
        self, embedding: Floats, boxes: Floats, windows: Windows | None = None, masks: Floats | None = None
    ) -> tuple[Floats, Floats]:
        """As `decode` of boxes (B, 4), and of masks if there are any, one mask each, by the fastest equal path.

        Outside a box's own window of `windows`, see `zoo.windows`, its logits may be anything; None wants them all.
        """
        ...

    def decode_foveated(
        self, embedding: Floats, boxes: Floats, windows: Windows, masks: Floats | None = None
    ) -> tuple[Floats, Floats]:
        """As `decode_boxes`, by a decoder that sees little of the embedding but what is around windows: `zoo.fovea`."""
        ...


def encode_finite(backend: Backend, images: Floats) -> Floats:
    """As `Backend.encode`, of a model that computes numbers: the masks of others would be empty.

    Raises:
        InputError: NaN or infinity in an embedding.
    """
    embedding = backend.encode(images)
    if not np.isfinite(embedding).all():
        where = f"encoder {backend.spec.name} with {backend.weights}"
        raise InputError(where, "NaN or infinity in an image's embedding", "weights that give finite numbers")
    return embedding


#: Makes a backend of a model, or of its graphs: (sam or files, precision, threads).
BackendFactory = Callable[..., Backend]

#: Tells what this machine lacks for a precision, and what would do; None if nothing.
Lacking = Callable[[str], tuple[str, str] | None]


@dataclass(frozen=True)
class _Entry:
    factory: BackendFactory
    precisions: tuple[str, ...]
    lacking: Lacking
    runs_graphs: bool


_BACKENDS: dict[str, _Entry] = {}

T = TypeVar("T", bound=BackendFactory)


def lacking_bf16(precision: str) -> tuple[str, str] | None:
    """What a CPU without bfloat16 instructions lacks: emulated, it would be far slower than float32."""
    if precision != "bf16":
        return None
    import torch

    if not torch.cpu._is_avx512_bf16_supported():
        return "bf16 on a CPU without bf16 instructions", "fp32 on this machine"
    return None


def register_backend(
    name: str, precisions: tuple[str, ...], lacking: Lacking = lacking_bf16, *, runs_graphs: bool = False
) -> Callable[[T], T]:
    """Decorator: registers what makes the backend `name`, the precisions it offers, and what it asks of a machine.

    What `runs_graphs` is made of `zoo.backends.graphs.GraphFiles`, others of the model.
    """

    def register(factory: T) -> T:
        if name in _BACKENDS:
            raise ValueError(f"backend {name!r} is registered twice")
        _BACKENDS[name] = _Entry(factory, precisions, lacking, runs_graphs)
        return factory

    return register


@cache
def _import_backends() -> None:
    for module in pkgutil.walk_packages(__path__, f"{__name__}."):
        importlib.import_module(module.name)
    load_plugins()


@cache
def _import_runtimes_of_graphs() -> None:
    """Only these, since the others import torch, which takes seconds."""
    from zoo.backends import graphs

    for module in pkgutil.iter_modules(graphs.__path__, f"{graphs.__name__}."):
        importlib.import_module(module.name)


def list_backends() -> dict[str, tuple[str, ...]]:
    """Names of all backends, and the precisions of each."""
    _import_backends()
    return {name: entry.precisions for name, entry in sorted(_BACKENDS.items())}


def is_quantised(precision: str) -> bool:
    """Whether this is a precision of an encoder's quantised graph, not of any model."""
    return precision.startswith("int8")


def runnable_here() -> list[tuple[str, str]]:
    """Every runtime and float precision that this machine has; others depend on a candidate's graph."""
    return [(name, precision) for name in list_backends() for precision in alike_here(name, "fp32")]


def alike_here(name: str, precision: str) -> list[str]:
    """Precisions of the backend `name` that a graph made for `precision` also runs in on this machine."""
    offered = list_backends().get(name, ())
    return [p for p in offered if is_quantised(p) == is_quantised(precision) and _BACKENDS[name].lacking(p) is None]


def check_backend(name: str, precision: str) -> None:
    """Makes sure that this machine can run the backend `name` in a precision, before any work is done for it.

    Raises:
        InputError: as `create_backend`.
    """
    _import_backends()
    _entry(name, precision)


def create_backend(
    name: str, sam: Sam, precision: str = "fp32", threads: int = 2, encoder_graph: Path | None = None
) -> Backend:
    """The model `sam` in the runtime `name`.

    Args:
        name: of `list_backends()`.
        sam: the model; its decoder is used in any case.
        precision: that the runtime offers. Of `int8` and `int8+bf16` the encoder's quantised graph must be given.
        threads: that one operator may use.
        encoder_graph: ONNX file that takes the encoder's place, for runtimes of exported graphs.

    Raises:
        InputError: unknown runtime, a precision that it does not offer or that this machine lacks, no thread.
    """
    from zoo.backends.graphs import ExportedOnDemand

    _import_backends()
    entry = _entry(name, precision)
    _check_threads(threads)
    if entry.runs_graphs:
        if is_quantised(precision) and encoder_graph is None:
            way_on = "a candidate that `repmedsam quantize` wrote, with --candidate"
            raise InputError(f"precision of backend {name}", f"{precision} without a quantised graph", way_on)
        return entry.factory(ExportedOnDemand(sam, encoder_graph), precision, threads)
    if encoder_graph is not None:
        raise InputError(f"backend {name}", "an exported graph", "onnxruntime or openvino, which run graphs")
    return entry.factory(sam, precision, threads)


def open_graphs(name: str, files: GraphFiles, precision: str = "fp32", threads: int = 2) -> Backend:
    """Exported graphs in the runtime `name`, without torch.

    Args:
        name: of a runtime of graphs.
        files: of the graphs.
        precision: that the runtime offers and the graphs are made for.
        threads: that one operator may use.

    Raises:
        InputError: as `create_backend`.
    """
    _import_runtimes_of_graphs()
    if name not in _BACKENDS:
        load_plugins()
    if name not in _BACKENDS:
        # To tell one that runs no graphs from none at all, where torch is there to import it.
        with contextlib.suppress(ImportError):
            _import_backends()
    if name in _BACKENDS and not _BACKENDS[name].runs_graphs:
        raise InputError(f"backend {name}", "an exported graph", "onnxruntime or openvino, which run graphs")
    entry = _entry(name, precision)
    _check_threads(threads)
    return entry.factory(files, precision, threads)


def _check_threads(threads: int) -> None:
    if threads < 1:
        raise InputError("threads", f"{threads}", "1 or more")


def _entry(name: str, precision: str) -> _Entry:
    """The backend `name`, if it can run here.

    Raises:
        InputError: unknown, or a precision that it or this machine lacks.
    """
    if name not in _BACKENDS:
        raise unknown_name("backend", name, _BACKENDS)
    entry = _BACKENDS[name]
    if precision not in entry.precisions:
        raise unknown_name(f"precision of backend {name}", precision, entry.precisions)
    if lack := entry.lacking(precision):
        raise InputError(f"backend {name}", *lack)
    return entry
