"""What a figure was measured on: the machine, the packages, the toolkit's own commit, and the memory it took."""

from __future__ import annotations

import hashlib
import json
import os
import platform
import subprocess
import sys
from collections.abc import Iterable, Mapping
from functools import cache
from pathlib import Path
from typing import Any

import psutil

from zoo.cores import usable_cores
from zoo.packages import installed_versions

#: Instruction sets that decide how fast each precision runs.
ISA_FLAGS = (
    "avx2",
    "fma",
    "avx512f",
    "avx512_vnni",
    "avx_vnni",
    "avx512_bf16",
    "amx_bf16",
    "amx_int8",
    "asimd",
    "asimddp",
    "bf16",
    "i8mm",
)
#: Packages that compute, or that decide what is computed.
PACKAGES = (
    *("torch", "timm", "fvcore", "numpy", "scipy", "opencv-python-headless"),
    *("onnxruntime", "onnxruntime-gpu", "openvino"),
)


@cache
def describe_machine() -> dict[str, Any]:
    """CPU, cores this process may use, instruction sets, memory, system, an NVIDIA GPU, and an `id`, their hash."""
    cpu_info = Path("/proc/cpuinfo")
    fields = _first_cpu(cpu_info.read_text()) if cpu_info.exists() else {}
    flags = set(f"{fields.get('flags', '')} {fields.get('Features', '')}".split())
    machine: dict[str, Any] = {
        "cpu": fields.get("model name") or _brand() or platform.processor() or platform.machine(),
        "cores": usable_cores(),
        "isa": [flag for flag in ISA_FLAGS if flag in flags],
        "memory_gib": round(psutil.virtual_memory().total / 2**30),
        "os": f"{platform.system()} {platform.machine()}",
    }
    if gpu := _gpu():
        machine["gpu"] = gpu
    digest = hashlib.sha256(json.dumps(machine, sort_keys=True).encode()).hexdigest()
    return {"id": digest[:12], **machine}


def lacks_vnni() -> bool:
    """Whether this CPU adds int8 products in 16 bits, which saturate: x86 without VNNI, as far as that is known.

    The newer AVX-VNNI counts, which laptops have since 2021: ONNX Runtime and OpenVINO use it. Where the system lists
    no flags, torch asks the CPU, if it is loaded: it takes seconds, and not every installation has it.
    """
    if isa := describe_machine()["isa"]:
        return "avx2" in isa and not {"avx512_vnni", "avx_vnni"} & {*isa}
    torch = sys.modules.get("torch")
    if torch is None:
        return False
    told: Mapping[str, Any] = getattr(torch.cpu, "get_capabilities", dict)()  # older releases do not tell of AVX-VNNI
    return torch.cpu._is_avx2_supported() and not (torch.cpu._is_vnni_supported() or told.get("avx_vnni", False))


def _brand() -> str:
    """What macOS calls its CPU: `platform` calls all of Apple's `arm`."""
    if platform.system() != "Darwin":
        return ""
    command = ["/usr/sbin/sysctl", "-n", "machdep.cpu.brand_string"]
    try:
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return ""


def _gpu() -> str | None:
    """The first NVIDIA GPU, by the driver's own tool: torch, which takes seconds to import, is not asked."""
    try:
        command = ["nvidia-smi", "--query-gpu=name", "--format=csv,noheader"]
        found = subprocess.run(command, capture_output=True, text=True, check=True, timeout=20).stdout
    except (OSError, subprocess.SubprocessError):
        return None
    return next(iter(found.splitlines()), None)


def _first_cpu(text: str) -> dict[str, str]:
    lines = (line.partition(":") for line in text.split("\n\n")[0].splitlines())
    return {key.strip(): value.strip() for key, _, value in lines}


def busy_share(seconds: float = 0.5) -> float:
    """Share of all CPUs that is in use while this process waits for so long, 0 to 1."""
    return psutil.cpu_percent(interval=seconds) / 100


def pin(cpus: Iterable[int]) -> None:
    """Keeps this process and its children on some logical CPUs. The machine stays the same in records."""
    describe_machine()
    os.sched_setaffinity(0, cpus)


@cache
def package_versions() -> dict[str, str]:
    """Versions of the installed packages among `PACKAGES`, and of Python."""
    return {"python": platform.python_version()} | installed_versions(PACKAGES)


@cache
def git_state() -> dict[str, Any] | None:
    """Commit of the toolkit's checkout and whether tracked files differ from it; None outside a checkout."""
    root = Path(__file__).parent.parent
    if not (root / ".git").exists():
        return None

    def git(*arguments: str) -> str:
        return subprocess.run(["git", *arguments], cwd=root, capture_output=True, text=True, check=True).stdout.strip()

    try:
        return {"commit": git("rev-parse", "HEAD"), "dirty": bool(git("status", "--porcelain", "-uno"))}
    except (OSError, subprocess.CalledProcessError):
        return None


def peak_rss_mib() -> float:
    """Largest resident memory of this process so far, in MiB.

    On Linux this is VmHWM. `ru_maxrss` would not do there: a child inherits it from the parent that spawned it.
    """
    status = Path("/proc/self/status")
    if status.exists():
        line = next(line for line in status.read_text().splitlines() if line.startswith("VmHWM"))
        return int(line.split()[1]) / 1024
    peak = getattr(psutil.Process().memory_info(), "peak_wset", None)  # on Windows
    if peak is None:
        import resource

        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss  # in bytes on macOS
    return peak / 2**20
