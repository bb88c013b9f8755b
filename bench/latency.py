"""Latency of a candidate's parts, interleaved with others, and of a whole case, split into stages."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from bench.timing import Samples, calls_made, start, time_rounds
from zoo.backends import Backend, Floats, Prompts
from zoo.data.case import Case
from zoo.registry import EMBEDDING_CHANNELS, EMBEDDING_SIZE
from zoo.sam.case import segment_case
from zoo.sam.predictor import BOXES_A_BATCH
from zoo.sam.rule import AnyProtocol
from zoo.stages import STAGES, StageClock
from zoo.transforms import LOW_RES_PX

K = TypeVar("K")

#: What is timed of a candidate by itself.
PARTS = ("encode", "decode", "decode_boxes", "decode_foveated")


@dataclass(frozen=True)
class CaseRun:
    """One pass over a case.

    Attributes:
        segmentation: uint16 label map of the case's spatial shape.
        measurements: of a `latency` record: seconds of each stage, of the whole, and counts.
    """

    segmentation: NDArray[np.uint16]
    measurements: dict[str, Any]


def encoder_input(backend: Backend) -> Floats:
    """Noise in [0, 1] of the encoder's input shape: zeros can run faster than an image will."""
    size = backend.spec.image_size
    return np.random.default_rng(0).random((1, 3, size, size), np.float32)


def decoder_input(backend: Backend) -> tuple[Floats, Prompts]:
    """A random embedding and one box around the middle of the frame."""
    shape = (1, EMBEDDING_CHANNELS, EMBEDDING_SIZE, EMBEDDING_SIZE)
    box = np.array([[0.25, 0.25, 0.75, 0.75]], np.float32) * backend.spec.prompt_frame
    return np.random.default_rng(0).standard_normal(shape, np.float32), Prompts(boxes=box)


def warm_up(backend: Backend, *, masks: bool) -> None:
    """Encodes once, and decodes once by each path: a runtime may load its graph at the first call.

    Args:
        backend: the model in a runtime.
        masks: whether masks will prompt, too.
    """
    embedding, prompts = decoder_input(backend)
    backend.encode(encoder_input(backend))
    backend.decode(embedding, prompts)
    boxes = np.asarray(prompts.boxes)
    backend.decode_boxes(embedding, boxes)
    window = np.array([[0, 0, 8, 8]])
    for decode in (backend.decode_boxes, backend.decode_foveated):
        decode(embedding, boxes, window)
        if masks:
            decode(embedding, boxes, window, np.ones((1, 1, LOW_RES_PX, LOW_RES_PX), np.float32))


@dataclass(frozen=True)
class StartedParts:
    """Parts of a candidate that have been called.

    Attributes:
        calls: of each part.
        samples: of each part, with its first call.
        about: what else a `latency` record of parts holds.
    """

    calls: dict[str, Callable[[], object]]
    samples: dict[str, Samples]
    about: dict[str, Any]


def start_parts(backend: Backend, warmup: int, on_call: Callable[[], None] = lambda: None) -> StartedParts:
    """Calls encoder, decoder of one box, and fast path and fovea of a batch of boxes, each for the first time.

    Args:
        backend: the model in a runtime, which may fail only now.
        warmup: unmeasured calls of each after the first.
        on_call: called after every call.
    """
    embedding, prompts = decoder_input(backend)
    boxes = np.repeat(np.asarray(prompts.boxes), BOXES_A_BATCH, axis=0)
    windows = np.round(boxes * (EMBEDDING_SIZE / backend.spec.prompt_frame)).astype(np.int64)
    calls: dict[str, Callable[[], object]] = {
        "encode": partial(backend.encode, encoder_input(backend)),
        "decode": partial(backend.decode, embedding, prompts),
        "decode_boxes": partial(backend.decode_boxes, embedding, boxes),
        "decode_foveated": partial(backend.decode_foveated, embedding, boxes, windows),
    }
    samples = {part: start(call, warmup, on_call) for part, call in calls.items()}
    return StartedParts(calls, samples, {"boxes": BOXES_A_BATCH, "warmup": warmup, "input_px": backend.spec.image_size})


def measure_parts(
    started: Mapping[K, StartedParts], rounds: int, on_call: Callable[[], None] = lambda: None
) -> dict[K, dict[str, Any]]:
    """Latency of all candidates' parts, timed together round by round.

    Args:
        started: parts of each candidate.
        rounds: measured calls of each part.
        on_call: called after every call: with those of `start_parts`, `parts_calls(...)` times in all.

    Returns:
        Measurements of a `latency` record of parts for each candidate.
    """
    calls = {(part, key): parts.calls[part] for part in PARTS for key, parts in started.items()}
    samples = {(part, key): started[key].samples[part] for part, key in calls}
    time_rounds(calls, samples, rounds, on_call)
    return {
        key: {f"{part}_s": samples[part, key].seconds for part in PARTS}
        | {f"{part}_first_s": samples[part, key].first_s for part in PARTS}
        | parts.about
        for key, parts in started.items()
    }


def parts_calls(candidates: int, rounds: int, warmup: int) -> int:
    """How often `start_parts` of so many candidates and `measure_parts` call `on_call`."""
    return calls_made(len(PARTS) * candidates, rounds, warmup)


def run_case(
    backend: Backend,
    load: Callable[[], Case],
    protocol: AnyProtocol,
    on_step: Callable[[], None] = lambda: None,
) -> CaseRun:
    """Loads and segments a case, timing each stage.

    Args:
        backend: the model in a runtime.
        load: reads the case.
        protocol: the options for an image, or for a volume.
        on_step: as in `segment_case`.

    Raises:
        InputError: a volume and an image's protocol, or the other way round.
    """
    clock = StageClock()
    start = time.perf_counter()
    with clock.measure("load"):
        case = load()
    segmentation = segment_case(case, backend, protocol, clock, on_step)
    total_s = time.perf_counter() - start
    measurements: dict[str, Any] = {f"{stage}_s": clock.seconds[stage] for stage in STAGES}
    measurements |= {"total_s": total_s, "startup_s": None, "peak_rss_mib": None}
    counts = {name: clock.counts[name] for name in ("encoded_slices", "decoded_prompts")}
    return CaseRun(segmentation, measurements | counts)
