"""How many CPUs this process may use: fewer than there are under `taskset`, SLURM or `docker --cpuset-cpus`."""

from __future__ import annotations

import os


def usable_cores() -> int:
    """Logical CPUs that this process may run on."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
