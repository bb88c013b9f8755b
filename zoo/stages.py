"""Where the time of a case goes: a stopwatch with named stages."""

from __future__ import annotations

import time
from collections import Counter, defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Literal, get_args

Stage = Literal["load", "preprocess", "encode", "decode", "postprocess"]
STAGES: tuple[Stage, ...] = get_args(Stage)


class StageClock:
    """Adds up the seconds spent in each stage, and counts what was done.

    Attributes:
        seconds: stage -> seconds.
        counts: `encoded_slices` and `decoded_prompts`.
    """

    def __init__(self) -> None:
        self.seconds: defaultdict[Stage, float] = defaultdict(float)
        self.counts: Counter[str] = Counter()

    @contextmanager
    def measure(self, stage: Stage) -> Iterator[None]:
        """Adds the time of the `with` block to `stage`."""
        start = time.perf_counter()
        try:
            yield
        finally:
            self.seconds[stage] += time.perf_counter() - start
