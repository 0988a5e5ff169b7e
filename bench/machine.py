"""The machine a figure was measured on: what decides its speed, and nothing that names it."""

import os
import platform
import re
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path

from miri_gpu import kernels
from miri_gpu.backend import Backend
from miri_gpu.host import usable_cores
from miri_gpu.versions import installed_versions

ROOT = Path(__file__).resolve().parents[1]


def describe_machine(backend: Backend) -> dict:
    """Processor, memory, GPU where the backend computes on one, and versions."""
    return {
        "cpu": cpu_model(),
        "cores": usable_cores(),
        "memory_gib": memory_gib(),
        "gpu": describe_gpu(backend),
        "kernels": kernels.status(),  # compiled code reads files for a GPU, too
        "system": f"{platform.system()} {platform.machine()}",
        "python": platform.python_version(),
        "packages": installed_versions("stcal", "exotic-miri"),
    }


def machine_kind(machine: dict) -> str:
    """The name that a kind of machine has in file names: "nvidia-h200", "2-cores-amd-epyc"."""
    name = (
        machine["gpu"]["name"] if machine["gpu"] else f"{machine['cores']} cores {machine['cpu']}"
    )
    name = re.sub(r"\((r|tm)\)|@.*", " ", name.lower())
    return re.sub(r"[^a-z0-9]+", "-", name).strip("-")


def describe_moment() -> dict:
    """When it was measured, with which state of the code, and what else the machine had to do.

    Where the code is a copy of a checkout, the variable BENCH_COMMIT says of which state.
    """
    named = os.environ.get("BENCH_COMMIT")
    code = ("miri_gpu", "bench", ":(exclude)bench/results")
    return {
        "time_utc": datetime.now(UTC).isoformat(timespec="seconds"),
        "commit": named or _git("rev-parse", "HEAD"),
        "uncommitted_changes": None if named else bool(_git("status", "--porcelain", "--", *code)),
        "load_average": round(os.getloadavg()[0], 2) if hasattr(os, "getloadavg") else None,
    }


def cpu_model() -> str:
    """The processor as it calls itself."""
    try:
        lines = Path("/proc/cpuinfo").read_text()
        return re.search(r"^model name\s*:\s*(.+)$", lines, re.M)[1].strip()
    except (OSError, TypeError):  # not Linux, or a processor without a model name
        pass
    if sys.platform == "darwin":
        return _output("sysctl", "-n", "machdep.cpu.brand_string") or platform.machine()
    return platform.processor() or platform.machine()


def memory_gib() -> float | None:
    """Memory of the machine; None where the system does not say."""
    try:
        return round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30, 1)
    except (AttributeError, OSError, ValueError):
        return None


def describe_gpu(backend: Backend) -> dict | None:
    """Name, memory and CUDA versions of the GPU that a backend computes on; None for a CPU."""
    if not backend.on_gpu:
        return None
    runtime = backend.xp.cuda.runtime
    return {
        "name": backend.device,
        "memory_gib": round(runtime.memGetInfo()[1] / 2**30, 1),
        "cuda_driver": runtime.driverGetVersion(),
        "cuda_runtime": runtime.runtimeGetVersion(),
    }


def _git(*arguments: str) -> str | None:
    return _output("git", "-C", str(ROOT), *arguments)


def _output(*command: str) -> str | None:
    """What a command prints; None where it is not installed or fails."""
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        return None
    return done.stdout.strip()
