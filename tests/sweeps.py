"""A small sweep of a small model, and cases for it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from bench.candidate import Candidate, Recipe
from bench.runner import Settings, Sweep
from zoo.backends import create_backend
from zoo.data.cases import CaseSource, find_cases
from zoo.registry import create_sam
from zoo.sam.rule import AnyProtocol, Protocol3D
from zoo.weights import WeightsId


@dataclass
class SilentProgress:
    messages: list[str] = field(default_factory=list)
    started: list[str] = field(default_factory=list)

    def start(self, description: str, total: int) -> Callable[[], None]:
        self.started.append(description)
        return lambda: None

    def message(self, text: str) -> None:
        self.messages.append(text)


def build(recipe: Recipe) -> Candidate:
    if recipe.encoder == "broken":
        raise RuntimeError("no such thing")
    sam = create_sam("light_repvit_m0_9", "random:0")
    return Candidate(recipe, WeightsId("rule", "0" * 64, trained=False), sam, create_backend("torch", sam))


def cold_run(recipe: Recipe, source: CaseSource, protocol: AnyProtocol) -> dict[str, Any]:
    return {"total_s": 1.0, "startup_s": 0.5, "peak_rss_mib": 100.0}


def small_sweep(out: Path) -> Sweep:
    settings = Settings(protocols=(Protocol3D("cached"), Protocol3D("batched")), rounds=1, warmup=0, passes=2)
    return Sweep([Recipe("light_repvit_m0_9")], build, cold_run, settings, out, SilentProgress())


def small_sources(*names: str) -> list[CaseSource]:
    found = [source for name in names for source in find_cases(f"phantom:{name}")]
    return [source.limited(max_objects=1, max_slices=1) for source in found]
