"""Candidates as values, their labels, and which one the others are compared to."""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Protocol, TypeVar

from bench.record import Record
from reports.case_info import CaseInfo
from reports.fields import integer, listed, mapped
from reports.statistics import Ratio, number

#: Encoder of the records of the floor: the ellipse inscribed in each box.
FLOOR = "box ellipse"
DEFAULT_BASELINE = "tinyvit"
MULTIPLANAR = "multiplanar"
#: From the published baseline to the fastest, and what goes on from there: the first that a case has is its baseline's.
PROTOCOL_ORDER = ("per_object", "cached", "batched", MULTIPLANAR)


@dataclass(frozen=True)
class Candidate:
    """What was measured. Equal candidates are the same thing; fields are as in `bench.record.Record.candidate`.

    Attributes:
        encoder: name in the registry, or `FLOOR`; empty where a record does not say.
        variant: `train`, `reparam`, ...
        backend: runtime.
        backend_version: of the runtime.
        precision: `fp32`, ...
        threads: that one operator may use; 0 where a record does not say.
        cpus: logical CPUs it was pinned to, `0,1`; empty for none.
        weights: name of the weights; they are told apart by their hash, whatever a file is called.
        sha256: of the weights.
        trained: whether they come from training. Others have no accuracy to speak of.
    """

    encoder: str
    variant: str = ""
    backend: str = ""
    backend_version: str = ""
    precision: str = ""
    threads: int = 0
    cpus: str = ""
    weights: str = field(default="", compare=False)
    sha256: str = ""
    trained: bool = False

    @property
    def is_model(self) -> bool:
        """Whether the toolkit ran it: not the ellipse, nor masks that were given."""
        return bool(self.backend)

    @property
    def weights_id(self) -> str:
        """Name and first 12 hexadecimal digits, or empty where there are no weights."""
        return f"{self.weights} {self.sha256[:12]}".strip()


class Timed(Protocol):
    """A row of a table of latencies."""

    @property
    def candidate(self) -> Candidate:
        """What was timed."""
        ...

    @property
    def protocol_name(self) -> str:
        """Name of the 3D protocol, empty without one."""
        ...

    @property
    def median_s(self) -> float:
        """What ratios are taken of, NaN where it was not timed."""
        ...


class Compared(Timed, Protocol):
    """A row of one that has a baseline."""

    @property
    def speedup(self) -> Ratio:
        """The baseline's median over this one's."""
        ...


Row = TypeVar("Row", bound=Timed)
ComparedRow = TypeVar("ComparedRow", bound=Compared)


@dataclass(frozen=True)
class Reading(Record):
    """A record as reports read it: whose, of what and under which protocol, found out once.

    What the record does not say stays empty.
    """

    @cached_property
    def who(self) -> Candidate:
        """The candidate."""
        said = self.candidate
        weights = mapped(said.get("weights"))
        return Candidate(
            encoder=str(said.get("encoder", "")),
            variant=str(said.get("variant", "")),
            backend=str(said.get("backend", "")),
            backend_version=str(said.get("backend_version", "")),
            precision=str(said.get("precision", "")),
            threads=integer(said.get("threads")),
            cpus=",".join(map(str, listed(said.get("cpus")))),
            weights=str(weights.get("name", "")),
            sha256=str(weights.get("sha256", "")),
            trained=weights.get("trained") is True,
        )

    @cached_property
    def case_info(self) -> CaseInfo:
        """The case; an empty one where the record has none."""
        said = mapped(self.case)
        name = str(said.get("case_id", ""))
        return CaseInfo(
            case_id=name,
            modality=str(said.get("modality", "")),
            shape=tuple(map(integer, listed(said.get("shape")))),
            objects=integer(said.get("objects")),
            spacing_mm=tuple(map(number, listed(said.get("spacing_mm")))),
            content=str(said.get("sha256") or name),
        )

    @property
    def clicks(self) -> int:
        """Clicks beside each box, made where a mask was wrong."""
        return integer((self.protocol or {}).get("clicks"))

    @property
    def is_cold(self) -> bool:
        """Whether this is of a pass in a fresh process."""
        return self.measurements.get("temperature") == "cold"

    @property
    def latencies_s(self) -> list[object]:
        """Of a `latency` record: the seconds of each encoder call, or of one pass over the case."""
        found = self.measurements
        return listed(found.get("encode_s")) if self.case is None else [found.get("total_s")]

    @cached_property
    def protocol_id(self) -> str:
        """Text that is equal for equal protocols, empty for none."""
        return protocol_id(self.protocol)


def lasting_name(who: Candidate) -> str:
    """What stays the same between two versions of the code: not the runtime's version, nor the weights."""
    pinned = f", pinned to CPU {who.cpus}" if who.cpus else ""
    return f"{who.encoder} ({who.variant}, {who.backend} {who.precision}, {who.threads} threads{pinned})"


def lasting_names(sides: Iterable[Iterable[Candidate]]) -> dict[Candidate, str]:
    """`lasting_name` of candidates, with the hash of their weights where one side alone has several.

    Args:
        sides: candidates of each version of the code. Where each has weights of its own, those are what changed.
    """
    distinct = [dict.fromkeys(side) for side in sides]
    weights: Counter[str] = Counter()
    for side in distinct:
        weights |= Counter(name for name, _ in {(lasting_name(who), who.sha256) for who in side})
    names = {who: lasting_name(who) for side in distinct for who in side}
    return {who: joined(name, _field(who, "sha256") if weights[name] > 1 else "") for who, name in names.items()}


def protocol_id(protocol: Mapping[str, Any] | None) -> str:
    """Text that is equal for equal protocols, empty for none."""
    return json.dumps(protocol, sort_keys=True) if protocol else ""


def label_candidates(candidates: Iterable[Candidate]) -> tuple[dict[Candidate, str], str]:
    """Shortest labels that tell candidates apart, and in words what all of them share.

    `repvit` and `tinyvit` do where nothing else differs; `repvit, onnxruntime, int8` where runtime and precision do.
    Weights come in only where a label is ambiguous without them: every encoder has its own anyway.
    """
    distinct = list(dict.fromkeys(candidates))
    measured = [candidate for candidate in distinct if candidate.encoder != FLOOR]
    names = ["variant", "backend", "precision", "threads", "cpus"]
    shown = [name for name in names if len({getattr(candidate, name) for candidate in measured}) > 1]
    shared = [_field(measured[0], name) for name in names if name not in shown] if measured else []
    labels = {candidate: _label(candidate, shown) for candidate in distinct}
    for name in ("weights", "backend_version", "sha256"):
        told: dict[str, set[str]] = {}
        for who, label in labels.items():
            told.setdefault(label, set()).add(_field(who, name))
        labels = {w: joined(label, _field(w, name)) if len(told[label]) > 1 else label for w, label in labels.items()}
    return labels, ", ".join(filter(None, shared))


def choose_baseline(rows: Sequence[Row], encoder: str | None) -> Row | None:
    """The row that others are compared to, or None where nothing was timed.

    Of the rows of `encoder` (default `DEFAULT_BASELINE`), the one with the earliest protocol in `PROTOCOL_ORDER`,
    fp32 and torch before others, then the slowest. Without such an encoder, the slowest row.
    """
    timed = [row for row in rows if math.isfinite(row.median_s)]
    named = [row for row in timed if row.candidate.encoder == (encoder or DEFAULT_BASELINE)]
    if named:
        return min(named, key=_preference)
    return max(timed, key=lambda row: row.median_s, default=None)


def fastest_of(rows: Sequence[ComparedRow]) -> ComparedRow:
    """Of timed rows the fastest that was timed in one run with the baseline; of all, if none was."""
    return min([row for row in rows if row.speedup.paired] or rows, key=lambda row: row.median_s)


def _preference(row: Timed) -> tuple[int, bool, bool, float]:
    rank = PROTOCOL_ORDER.index(row.protocol_name) if row.protocol_name in PROTOCOL_ORDER else len(PROTOCOL_ORDER)
    return rank, row.candidate.precision != "fp32", row.candidate.backend != "torch", -row.median_s


def _label(candidate: Candidate, shown: Collection[str]) -> str:
    if candidate.encoder == FLOOR:
        return FLOOR
    return joined(candidate.encoder or "-", *(_field(candidate, name) for name in shown))


def joined(*parts: str) -> str:
    """Those that are not empty, in a row."""
    return ", ".join(filter(None, parts))


def _field(candidate: Candidate, name: str) -> str:
    value = getattr(candidate, name)
    if name == "threads":
        return f"{value} thread{'s' * (value != 1)}" if value else ""
    if name == "cpus":
        return f"pinned to CPU {value}" if value else ""
    return str(value)[:12] if name == "sha256" else str(value)
