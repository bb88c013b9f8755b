"""Timing candidates against each other: interleaved, warm, raw samples kept."""

from __future__ import annotations

import gc
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TypeVar

K = TypeVar("K")


@dataclass
class Samples:
    """Seconds of one callable.

    Attributes:
        first_s: of the very first call, which may allocate, compile or page in.
        seconds: of each measured call, one a round.
    """

    first_s: float
    seconds: list[float] = field(default_factory=list)


def interleave(
    calls: Mapping[K, Callable[[], object]],
    rounds: int,
    warmup: int,
    on_call: Callable[[], None] = lambda: None,
) -> dict[K, Samples]:
    """Times all `calls`: each is started, and then all are timed round by round.

    Args:
        calls: what to time.
        rounds: measured calls of each.
        warmup: unmeasured calls of each after the first.
        on_call: called after every call, for progress; see `calls_made`.
    """
    samples = {key: start(call, warmup, on_call) for key, call in calls.items()}
    time_rounds(calls, samples, rounds, on_call)
    return samples


def start(call: Callable[[], object], warmup: int, on_call: Callable[[], None] = lambda: None) -> Samples:
    """Calls once (kept apart as the first call), then `warmup` times unmeasured; what `call` raises goes on."""
    samples = Samples(_seconds(call))
    on_call()
    for _ in range(warmup):
        call()
        on_call()
    return samples


def time_rounds(
    calls: Mapping[K, Callable[[], object]],
    samples: Mapping[K, Samples],
    rounds: int,
    on_call: Callable[[], None] = lambda: None,
) -> None:
    """Times started `calls` round by round into `samples`, so that a drift of the machine meets them all alike.

    In each round every call is timed once, starting one place further on in every round. A timed call follows one of
    its own that is not timed: right behind another's it would meet that one's caches, and threads that still spin
    (measured: a short encoder in OpenVINO took 1.7 times as long behind ONNX Runtime while that let its threads spin).
    """
    order = list(calls)
    with _no_garbage_collection():
        for number in range(rounds):
            shift = number % max(len(order), 1)
            for key in order[shift:] + order[:shift]:
                calls[key]()
                on_call()
                samples[key].seconds.append(_seconds(calls[key]))
                on_call()


def calls_made(count: int, rounds: int, warmup: int) -> int:
    """How often `interleave` calls, and tells of it, with `count` things to time."""
    return count * (1 + warmup + 2 * rounds)


def _seconds(call: Callable[[], object]) -> float:
    start = time.perf_counter()
    call()
    return time.perf_counter() - start


@contextmanager
def _no_garbage_collection() -> Iterator[None]:
    """A collection in the middle of a sample would be charged to whoever happened to run."""
    was_enabled = gc.isenabled()
    gc.collect()
    gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            gc.enable()
