"""Runtimes: each loads a model for one precision and thread count and runs it on numpy arrays.

A new runtime is one new file in this folder with a class under `@register_backend(...)`.
"""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, Protocol

import numpy as np
from numpy.typing import NDArray

from zoo.errors import InputError, unknown_name
from zoo.registry import EncoderSpec

if TYPE_CHECKING:
    from zoo.sam.model import Sam

Floats = NDArray[np.float32]


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


class Backend(Protocol):
    """A model in one runtime. Results are arrays of their own: they never alias a buffer of the runtime.

    Attributes:
        name: of the runtime, as in `list_backends()`.
        version: of the runtime.
        precision: `fp32`, `bf16` or `int8`.
        threads: that one operator may use.
        spec: of the image encoder.
    """

    name: str
    version: str
    precision: str
    threads: int
    spec: EncoderSpec

    def encode(self, images: Floats) -> Floats:
        """Normalised images (B, 3, S, S) to embeddings (B, 256, 64, 64)."""
        ...

    def decode(self, embedding: Floats, prompts: Prompts, multimask: bool = False) -> tuple[Floats, Floats]:
        """Embedding (1, 256, 64, 64) and B prompts to logits (B, 1 or 3, 256, 256) and predicted IoU (B, 1 or 3)."""
        ...

    def decode_boxes(self, embedding: Floats, boxes: Floats) -> Floats:
        """Embedding (1, 256, 64, 64) and boxes (B, 4) to logits (B, 1, 256, 256), by the fastest equal path."""
        ...


#: Makes a backend of a model: (sam, precision, threads).
BackendFactory = Callable[["Sam", str, int], Backend]

_BACKENDS: dict[str, tuple[BackendFactory, tuple[str, ...]]] = {}


def register_backend(name: str, precisions: tuple[str, ...]) -> Callable[[BackendFactory], BackendFactory]:
    """Decorator: registers what makes the backend `name`, and the precisions it offers."""

    def register(factory: BackendFactory) -> BackendFactory:
        _BACKENDS[name] = (factory, precisions)
        return factory

    return register


@cache
def _import_backends() -> None:
    for module in pkgutil.iter_modules(__path__, f"{__name__}."):
        importlib.import_module(module.name)


def list_backends() -> dict[str, tuple[str, ...]]:
    """Names of all backends, and the precisions of each."""
    _import_backends()
    return {name: precisions for name, (_, precisions) in sorted(_BACKENDS.items())}


def create_backend(name: str, sam: Sam, precision: str = "fp32", threads: int = 2) -> Backend:
    """The model `sam` in the runtime `name`.

    Raises:
        InputError: unknown runtime, or a precision that it does not offer.
    """
    _import_backends()
    if name not in _BACKENDS:
        raise unknown_name("backend", name, _BACKENDS)
    factory, precisions = _BACKENDS[name]
    if precision not in precisions:
        raise unknown_name(f"precision of backend {name}", precision, precisions)
    return factory(sam, precision, threads)
