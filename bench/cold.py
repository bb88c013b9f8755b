"""One pass in a fresh process: what a person waits for who starts the program for a single case."""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from bench.candidate import Recipe
from bench.latency import run_case
from bench.machine import peak_rss_mib
from zoo.backends import Backend
from zoo.data.case import Case
from zoo.data.npz import save_segmentation
from zoo.sam.rule import AnyProtocol, protocol_of

#: Comes before the measurements on the child's standard output.
MARK = "repmedsam-cold-pass "


class ColdPassError(RuntimeError):
    """The fresh process failed; the message is its last line."""


def spawn_cold_pass(command: Sequence[str], request: dict[str, Any]) -> dict[str, Any]:
    """Runs `command` with `request` as JSON on its standard input and reads its measurements.

    `process_s` is added to them: from the call to the end of the process, with the masks written, which is what the
    challenge's script times of a container. The process is told when it was called, on the same clock (the one of
    `time.perf_counter` is the system's, not the process's): the kernel dates a birth to the whole second only.

    Raises:
        ColdPassError: the process failed.
    """
    started = time.perf_counter()
    told = json.dumps(request | {"called_at_s": started})
    done = subprocess.run(command, input=told, capture_output=True, text=True, check=False)
    process_s = time.perf_counter() - started
    line = next((line for line in done.stdout.splitlines() if line.startswith(MARK)), None)
    if done.returncode != 0 or line is None:
        said = (done.stderr or done.stdout).strip().splitlines()
        raise ColdPassError(said[-1] if said else f"the process ended with code {done.returncode}")
    return json.loads(line.removeprefix(MARK)) | {"process_s": process_s}


def cold_request(recipe: Recipe, reference: dict[str, Any], protocol: AnyProtocol) -> dict[str, Any]:
    """What the fresh process is asked: candidate, case and protocol, as JSON."""
    return {"recipe": asdict(recipe), "case": reference, "protocol": protocol.as_record()}


def run_cold_pass(
    request: dict[str, Any], build: Callable[[Recipe], Backend], load: Callable[[dict[str, Any]], Case]
) -> None:
    """In the fresh process: builds, segments, writes the masks, prints the measurements.

    `startup_s` counts from the call of the process, as `total_s` does.
    """
    backend = build(Recipe(**request["recipe"]))
    startup_s = time.perf_counter() - request["called_at_s"]
    run = run_case(backend, lambda: load(request["case"]), protocol_of(request["protocol"]))
    with tempfile.TemporaryDirectory() as folder:
        started = time.perf_counter()
        save_segmentation(run.segmentation, Path(folder) / "masks.npz")
        measurements = run.measurements | {"save_s": time.perf_counter() - started}
    measurements["startup_s"] = startup_s
    measurements["total_s"] += startup_s
    measurements["peak_rss_mib"] = peak_rss_mib()
    sys.stdout.write(MARK + json.dumps(measurements) + "\n")
