"""int8 encoders: calibrated on real cases, the most sensitive layers left in float until the masks survive.

Weights are int8 per output channel and symmetric, activations uint8 per tensor, as QDQ nodes that ONNX Runtime and
OpenVINO both read (Jacob et al., arXiv:1712.05877; ONNX Runtime's quantisation guide).
"""

from __future__ import annotations

import io
import logging
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, redirect_stdout
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import onnx
import torch
from google.protobuf.message import Error as ProtobufError
from onnxruntime.quantization import (
    CalibrationDataReader,
    CalibrationMethod,
    QuantFormat,
    QuantType,
    quantize_static,
)
from onnxruntime.quantization.shape_inference import quant_pre_process

from bench.machine import lacks_vnni
from compress.by_nncf import quantise_by_nncf
from compress.export import cosine
from compress.placement import OPERATORS, gates, place, pool_means
from compress.ranges import write_histogram_ranges, write_ranges
from zoo.backends import Floats
from zoo.backends.graphs.onnx_runtime import UNREADABLE, load_session
from zoo.errors import InputError
from zoo.files import writing

Method = Literal["minmax", "percentile", "entropy", "mse", "nncf"]
#: What the operators that are rounded are called: layers, and the gates that scale what they give.
ROUNDED = [*OPERATORS, "Sigmoid"]
CALIBRATIONS: Mapping[str, Any] = {
    "minmax": CalibrationMethod.MinMax,
    "percentile": CalibrationMethod.Percentile,
    "entropy": CalibrationMethod.Entropy,
    # Its ranges are written where those of min-max would be kept.
    "mse": CalibrationMethod.MinMax,
}

#: What the quantisers raise of a full disk: some find only half of what they wrote.
FULL: tuple[type[Exception], ...] = (OSError, ProtobufError, *UNREADABLE)

OnStep = Callable[[str], None]


@dataclass(frozen=True)
class Quantiser:
    """Quantises one float graph again and again, with other layers left in float each time; calibrates once.

    Attributes:
        source: the float graph, shapes inferred.
        inputs: calibration inputs.
        method: how ranges of activations are chosen.
        reduced_range: 7-bit weights, which keep sums of products from saturating where the CPU lacks VNNI.
        folder: for the calibration and trial graphs.
        backend: runtime that the graphs are for.
    """

    source: Path
    inputs: Sequence[Floats]
    method: Method
    reduced_range: bool
    folder: Path
    backend: str

    def layers(self) -> list[str]:
        """Names of the nodes that can be quantised: those with weights of their own."""
        graph = onnx.load(self.source).graph
        weights = {tensor.name for tensor in graph.initializer}
        return [n.name for n in graph.node if n.op_type in OPERATORS and any(i in weights for i in n.input[1:2])]

    def write(self, path: Path, *, only: Sequence[str] = (), without: Sequence[str] = ()) -> None:
        """Writes the quantised graph: of the layers `only` (all if empty), but not of those `without`."""
        chosen = [name for name in (only or self.layers()) if name not in set(without)]
        with _quiet():
            if self.method == "nncf":
                quantise_by_nncf(self.source, path, self.feeds(), without, self.reduced_range)
                return
            ranges = self.folder / f"ranges-{self.method}.json"
            if self.method == "mse" and not ranges.exists():
                write_ranges(ranges, self.source, ROUNDED, self.feeds())
            elif self.method != "minmax" and not ranges.exists():
                write_histogram_ranges(ranges, self.source, ROUNDED, self.feeds(), CALIBRATIONS[self.method])
            quantize_static(
                self.source,
                path,
                _Reader(self.feeds()),
                quant_format=QuantFormat.QDQ,
                op_types_to_quantize=ROUNDED,
                per_channel=True,
                reduce_range=self.reduced_range,
                activation_type=QuantType.QUInt8,
                weight_type=QuantType.QInt8,
                nodes_to_quantize=chosen if only else [*chosen, *gates(onnx.load(self.source).graph)],
                calibrate_method=CALIBRATIONS[self.method],
                calibration_cache_path=ranges,
                extra_options={"WeightSymmetric": True, "ActivationSymmetric": False},
            )
        place(path, self.backend)

    def feeds(self) -> list[dict[str, Floats]]:
        """The calibration inputs, by the name of the graph's input."""
        name = self.input_name()
        return [{name: image} for image in self.inputs]

    def input_name(self) -> str:
        """Of the graph's only input."""
        return str(onnx.load(self.source).graph.input[0].name)


class _Reader(CalibrationDataReader):  # type: ignore[misc]
    """Feeds the calibration inputs one by one."""

    def __init__(self, feeds: Sequence[dict[str, Floats]]) -> None:
        self._inputs = iter(feeds)

    def get_next(self) -> dict[str, Floats] | None:
        return next(self._inputs, None)


@dataclass(frozen=True)
class Trial:
    """A quantised graph that was tried.

    Attributes:
        excluded: layers left in float.
        cosine: of its embeddings with the float ones, the mean over the inputs of the set that it is least in.
        dsc_drops: points of DSC (0 to 100) lost against the float graph, by set of cases; empty where no case has
            labels or the weights are random.
        holds: whether it passes the gate.
        cosines: the mean over the inputs of each set of cases, by its name.
    """

    excluded: tuple[str, ...]
    cosine: float
    dsc_drops: dict[str, float]
    holds: bool
    cosines: dict[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class Gate:
    """What a quantised graph must hold.

    Attributes:
        max_dsc_drop: points of mean DSC that any set of cases may lose.
        min_cosine: of the embeddings, the mean over any set of cases.
        dsc_of: mean DSC (0 to 100) of a graph over each set of labelled cases, by the set's name: a loss in one must
            not hide behind the others, and in volumes, where masks prompt the next slice, small ones add up.
        sets: of each input, the name of the set of cases that it is of; where empty, each is a set by itself.
    """

    max_dsc_drop: float
    min_cosine: float
    dsc_of: Callable[[Path], dict[str, float]] = lambda graph: {}
    sets: Sequence[str] = ()


@dataclass(frozen=True)
class _InFloat:
    """What the float graph gives.

    Attributes:
        name: of the graph's input.
        pairs: inputs and their embeddings.
        sets: of cases, by input.
        dsc: mean DSC by set of labelled cases.
    """

    name: str
    pairs: Sequence[tuple[Floats, Floats]]
    sets: Sequence[str]
    dsc: Mapping[str, float]

    def cosines(self, path: Path) -> dict[str, float]:
        """Mean cosine of a graph's embeddings with these, by set."""
        found = _outputs(path, self.name, [image for image, _ in self.pairs])
        by_set: dict[str, list[float]] = {}
        for name, embedding, (_, expected) in zip(self.sets, found, self.pairs, strict=True):
            by_set.setdefault(name, []).append(cosine(embedding, expected))
        return {name: float(np.mean(likeness)) for name, likeness in by_set.items()}

    def two_of(self, name: str) -> _InFloat:
        """Of one set of cases, at most two inputs."""
        chosen = [pair for pair, of in zip(self.pairs, self.sets, strict=True) if of == name][:2]
        return replace(self, pairs=chosen, sets=[name] * len(chosen))


@dataclass(frozen=True)
class Result:
    """What a quantisation came to.

    Attributes:
        trials: in the order they were made; the last is the graph that was written.
        sensitivity: by layer, the most sensitive first: what quantising it alone takes off the cosine.
        layers: how many could be quantised.
    """

    trials: tuple[Trial, ...]
    sensitivity: dict[str, float] = field(default_factory=dict)
    layers: int = 0


def quantise_within(
    graph: Path, target: Path, inputs: Sequence[Floats], method: Method, backend: str, gate: Gate, on_step: OnStep
) -> Result:
    """Quantises `graph` into `target`, leaving in float as many of the worst layers as the gate asks for.

    Layers are ranked by what quantising each alone does to the embeddings of the set of cases that lost most; then the
    worst 1, 2, 4 ... of them are left in float until the gate holds. At most half of the layers: what is left would not
    be worth it.

    Args:
        graph: float ONNX graph of one input and one output.
        target: where the result goes, whether or not the gate holds.
        inputs: for calibration and comparison.
        method: how ranges are chosen.
        backend: runtime that the result is for.
        gate: what must hold.
        on_step: told what is being done.

    Raises:
        InputError: no inputs, a graph without a layer that could be quantised, or no room for trials.
    """
    if not inputs:
        raise InputError("calibration", "no input", "at least one image")
    with _scratch() as folder:
        prepared = folder / "prepared.onnx"
        with _quiet():
            quant_pre_process(graph, prepared, skip_symbolic_shape=True)
        pool_means(prepared)
        quantiser = Quantiser(prepared, inputs, method, lacks_vnni(), folder, backend)
        if not (layers := quantiser.layers()):
            raise InputError(graph, "no convolution or product with weights", "an encoder's graph")
        name = quantiser.input_name()
        pairs = list(zip(inputs, _outputs(graph, name, inputs), strict=True))
        sets = gate.sets or [f"input {number}" for number in range(1, len(inputs) + 1)]
        in_float = _InFloat(name, pairs, sets, gate.dsc_of(graph))
        sensitivity: dict[str, float] = {}
        trials: list[Trial] = []
        for excluded in _exclusions(len(layers)):
            if excluded and not sensitivity:
                worst = min(trials[-1].cosines, key=trials[-1].cosines.__getitem__)
                sensitivity = _rank(quantiser, layers, in_float.two_of(worst), on_step)
            without = tuple(list(sensitivity)[:excluded])
            on_step(f"quantising {len(layers) - excluded} of {len(layers)} layers")
            quantiser.write(target, without=without)
            trials.append(_try(target, in_float, gate, without))
            if trials[-1].holds:
                break
        return Result(tuple(trials), sensitivity, len(layers))


@contextmanager
def _scratch() -> Iterator[Path]:
    """A folder for the calibration and trial graphs.

    Raises:
        InputError: it is full.
    """
    expected = "space left there; TMPDIR may name another"
    with writing(Path(tempfile.gettempdir()), FULL, expected), tempfile.TemporaryDirectory(prefix="quantize.") as path:
        yield Path(path)


def _exclusions(layers: int) -> Iterator[int]:
    """0, 1, 2, 4 ... and half of the layers."""
    yield 0
    count = 1
    while count < layers // 2:
        yield count
        count *= 2
    if layers > 1:
        yield layers // 2


def _try(path: Path, in_float: _InFloat, gate: Gate, excluded: tuple[str, ...]) -> Trial:
    """Tries a graph against the float one."""
    cosines, found = in_float.cosines(path), gate.dsc_of(path)
    least = float(np.min(list(cosines.values())))
    drops = {name: mean - found[name] for name, mean in in_float.dsc.items()}
    holds = least >= gate.min_cosine and all(drop <= gate.max_dsc_drop for drop in drops.values())
    return Trial(excluded, least, drops, holds, cosines)


def _rank(quantiser: Quantiser, layers: Sequence[str], in_float: _InFloat, on_step: OnStep) -> dict[str, float]:
    """What quantising each layer alone takes off the cosine; the worst first."""
    # NNCF would calibrate anew for each layer.
    ranking = replace(quantiser, method="minmax") if quantiser.method == "nncf" else quantiser
    lost = {}
    for number, layer in enumerate(layers, start=1):
        on_step(f"sensitivity of layer {number} of {len(layers)}")
        trial = quantiser.folder / "layer.onnx"
        ranking.write(trial, only=[layer])
        (likeness,) = in_float.cosines(trial).values()
        lost[layer] = 1 - likeness
    return dict(sorted(lost.items(), key=lambda item: -item[1]))


def _outputs(path: Path, name: str, inputs: Sequence[Floats]) -> list[Floats]:
    run = load_session(path, torch.get_num_threads())
    return [run({name: image})[0] for image in inputs]


@contextmanager
def _quiet() -> Iterator[None]:
    """Without the quantisers' advice on the root logger, and their progress on standard output."""
    logging.disable(logging.WARNING)
    try:
        with redirect_stdout(io.StringIO()):
            yield
    finally:
        logging.disable(logging.NOTSET)
