"""`quantize` from candidate to card: export, quantise within the gate, time against float, give a verdict."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np

from bench.accuracy import measure_accuracy
from bench.candidate import Candidate
from bench.machine import lacks_vnni
from bench.timing import interleave
from compress.by_nncf import check_nncf
from compress.calibration import (
    calibration_cases,
    calibration_inputs,
    check_modalities,
    check_shown,
    digest_of,
    set_of,
)
from compress.card import GRAPH_FILE, CandidateCard, withdraw_card, write_card
from compress.export import check_encoder, copy_graphs, describe, export_graphs
from compress.quantize import Gate, Method, OnStep, Result, Trial, quantise_within
from zoo.backends import Backend, check_backend, create_backend
from zoo.data.cases import CaseSource
from zoo.files import check_folder
from zoo.sam.case import segment_case

#: Rounds of the comparison with float, after the warm-up.
ROUNDS, WARMUP = 8, 2
#: Calibration inputs that the float graph is compared with the model on: what all else is held against.
CHECKED = 2
#: A graph that is not faster than float by this much is not worth its loss.
WORTH_SPEEDUP = 1.05


@dataclass(frozen=True)
class Options:
    """What to make.

    Attributes:
        method: how ranges of activations are chosen, or who chooses them.
        backend: runtime that it is for.
        calibration_images: at most so many.
        max_dsc_drop: points of DSC that the images or volumes of any modality may lose, where weights are trained and
            cases have labels.
        min_cosine: of the embeddings, the mean over the images or volumes of any modality.
        modalities: that will be segmented, which calibration must show; any if empty.
    """

    method: Method = "mse"
    backend: str = "onnxruntime"
    calibration_images: int = 16
    max_dsc_drop: float = 0.5
    min_cosine: float = 0.99
    modalities: tuple[str, ...] = ()


def quantise_candidate(
    candidate: Candidate, folder: Path, sources: Sequence[CaseSource], options: Options, on_step: OnStep
) -> CandidateCard:
    """Writes the quantised encoder, the float decoder's graphs, and the card into `folder`.

    Raises:
        InputError: no cases, or of other modalities; a runtime or quantiser that is not there; nothing to quantise; a
            float graph that differs from the model; no room or no right to write.
    """
    check_backend(options.backend, "int8")
    if options.method == "nncf":
        check_nncf()
    modalities, labelled = _described(sources)
    check_modalities(modalities, options.modalities)
    chosen = calibration_cases(modalities, options.calibration_images)
    shown = sorted({modalities[source] for source in chosen})
    check_shown(shown, options.modalities, options.calibration_images)
    inputs, sets = calibration_inputs(chosen, candidate.sam.spec, options.calibration_images)
    on_step("exporting the float graphs")
    graphs = export_graphs(candidate.sam)
    graph, target = graphs["encoder"], folder / GRAPH_FILE
    check_encoder(candidate, graph, inputs[:CHECKED])
    check_folder(folder)
    gate = Gate(
        options.max_dsc_drop,
        options.min_cosine,
        _scorer(candidate, options.backend, labelled, on_step),
        sets,
    )
    with TemporaryDirectory(prefix="quantized.") as scratch:
        made = Path(scratch) / GRAPH_FILE
        result = quantise_within(graph, made, inputs, options.method, options.backend, gate, on_step)
        # Only now: what the folder held may have taken as long.
        withdraw_card(folder)
        copy_graphs({**graphs, "encoder": made}, folder)
    on_step("timing against float")
    threads = candidate.recipe.threads
    backends = {
        "fp32": create_backend(options.backend, candidate.sam, "fp32", threads, graph),
        "int8": create_backend(options.backend, candidate.sam, "int8", threads, target),
    }
    latency = _latency(backends, inputs[0])
    told = _told(candidate, options, result, latency) | {
        "calibration_cases": [source.case_id for source in chosen],
        "modalities": shown,
        "calibration_sha256": digest_of(inputs),
    }
    checks = {"embedding_cosine": result.trials[-1].cosine}
    variant = variant_name(options.method, len(told["excluded"]))
    card = describe(candidate, folder, variant, options.backend, "int8", checks, told)
    write_card(card, folder)
    return card


def variant_name(method: str, in_float: int) -> str:
    """How tables name it: the method, and how many layers stay in float, if any."""
    return f"int8-{method}" + (f"-{in_float}float" if in_float else "")


def _described(sources: Sequence[CaseSource]) -> tuple[dict[CaseSource, str], list[CaseSource]]:
    """The modality of each case, and those that have labels; one is held at a time."""
    modalities, labelled = {}, []
    for source in sources:
        case = source.load()
        modalities[source] = case.modality
        if case.labels is not None:
            labelled.append(source)
    return modalities, labelled


def _scorer(
    candidate: Candidate, backend: str, sources: Sequence[CaseSource], on_step: OnStep
) -> Callable[[Path], dict[str, float]]:
    """Mean DSC (0 to 100) with a graph as encoder over the labels of each modality's images and volumes, all labelled.

    Nothing for random weights, which have no accuracy. Each case is read again when it is scored: all of them may be
    more than there is memory for.
    """

    def mean_dsc(graph: Path) -> dict[str, float]:
        runtime = create_backend(backend, candidate.sam, "fp32", candidate.recipe.threads, graph)
        scores: dict[str, list[float]] = {}
        for number, source in enumerate(sources if candidate.weights.trained else (), start=1):
            on_step(f"scoring case {number} of {len(sources)}, {source.case_id}")
            case = source.load()
            found = measure_accuracy(case, segment_case(case, runtime))["dsc"]
            scores.setdefault(set_of(case), []).extend(dsc for dsc in found if dsc is not None)
        return {name: 100 * float(np.mean(found)) for name, found in scores.items() if found}

    return mean_dsc


def _latency(backends: dict[str, Backend], image: Any) -> dict[str, float]:
    timed = interleave({name: partial(b.encode, image) for name, b in backends.items()}, ROUNDS, WARMUP, lambda: None)
    return {name: float(np.median(result.seconds)) for name, result in timed.items()}


def _told(candidate: Candidate, options: Options, result: Result, latency: dict[str, float]) -> dict[str, Any]:
    """What the card says of the quantisation, beside what it was calibrated with."""
    last = result.trials[-1]
    speedup = latency["fp32"] / latency["int8"]
    return {
        "method": options.method,
        "reduced_range": lacks_vnni(),
        "layers": result.layers,
        "excluded": list(last.excluded),
        "sensitivity": result.sensitivity,
        "trials": [
            {"excluded": len(t.excluded), "cosine": t.cosine, "cosines": t.cosines, "dsc_drops": t.dsc_drops}
            for t in result.trials
        ],
        "gate": {"min_cosine": options.min_cosine, "max_dsc_drop": options.max_dsc_drop, "holds": last.holds},
        "dsc_drops": last.dsc_drops,
        "cosines": last.cosines,
        "latency_s": latency,
        "speedup": speedup,
        "verdict": verdict(last, speedup, result.layers),
        "weights_trained": candidate.weights.trained,
    }


def verdict(last: Trial, speedup: float, layers: int) -> str:
    """`worth it`, or `not worth it` and why, of a graph of so many layers; and which sets of cases told no DSC."""
    reasons = []
    if not last.holds:
        worst = max(last.dsc_drops, key=last.dsc_drops.__getitem__, default="")
        lost = f" and {last.dsc_drops[worst]:.2f} points of DSC lost in {worst}" if worst else ""
        in_float = f"{len(last.excluded)} of {layers} layers in float"
        reasons.append(f"the gate does not hold with {in_float} (cosine {least_cosine(last.cosines)}{lost})")
    if speedup < WORTH_SPEEDUP:
        reasons.append(f"{speedup:.2f} times the speed of float")
    told = f"not worth it: {'; '.join(reasons)}" if reasons else f"worth it: {speedup:.2f} times the speed of float"
    ungated = ", ".join(sorted(last.cosines.keys() - last.dsc_drops.keys()))
    return f"{told}; DSC not gated: {ungated}" if ungated else told


def least_cosine(cosines: Mapping[str, float]) -> str:
    """The least, and the set of cases that it is of."""
    worst = min(cosines, key=cosines.__getitem__)
    return f"{cosines[worst]:.5f} in {worst}"
