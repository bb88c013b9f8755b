"""A candidate: encoder, weights, variant, runtime, precision and threads. The thing that is measured."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from zoo.backends import Backend
    from zoo.sam.model import Sam
    from zoo.weights import WeightsId


@dataclass(frozen=True)
class Recipe:
    """How to make a candidate, in words: enough for another process to make the same.

    Attributes:
        encoder: name in the registry.
        weights: checkpoint, weight card or `random:SEED`; None for the default.
        variant: `train` (as published) or `reparam` (BatchNorms and branches folded).
        backend: name of the runtime.
        precision: as in `zoo.backends.Backend`.
        threads: that one operator may use.
        cpus: logical CPUs that the process is pinned to, or None.
        folder: of an exported or quantised candidate whose encoder's graph is used; None for the model itself.
        calibrated_with: modalities that a quantised candidate was calibrated with.
        doubts: what a person who uses it should know, a line each.
    """

    encoder: str
    weights: str | None = None
    variant: str = "reparam"
    backend: str = "torch"
    precision: str = "fp32"
    threads: int = 2
    cpus: tuple[int, ...] | None = None
    folder: str | None = None
    calibrated_with: tuple[str, ...] = ()
    doubts: tuple[str, ...] = ()

    def as_record(self) -> dict[str, Any]:
        """A candidate that could not be made, as far as a record can name it: its weights as they were asked for."""
        return {
            "encoder": self.encoder,
            "weights": self.weights and {"name": Path(self.weights).name},
            "variant": self.variant,
            "backend": self.backend,
            "precision": self.precision,
            "threads": self.threads,
            "cpus": self.cpus and list(self.cpus),
        }


@dataclass(frozen=True)
class Candidate:
    """A recipe made: the model (as run in eager mode, for counting) and its runtime."""

    recipe: Recipe
    weights: WeightsId
    sam: Sam
    backend: Backend

    def as_record(self) -> dict[str, Any]:
        """The candidate as a record names it."""
        return self.recipe.as_record() | {
            "weights": asdict(self.weights),
            "backend": self.backend.name,
            "backend_version": self.backend.version,
            "precision": self.backend.precision,
            "threads": self.backend.threads,
        }

    def describe(self) -> str:
        """A short name for progress and messages."""
        return f"{self.recipe.encoder} ({self.recipe.variant}, {self.backend.name} {self.backend.precision})"
