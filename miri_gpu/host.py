"""The host: its cores, its free memory, and how the C library keeps that of arrays."""

import ctypes
import os
import re
from functools import cache
from pathlib import Path

_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3  # as malloc.h has them
# of an array whose memory is kept for others; the smaller one is the most that glibc once allowed
_LARGEST_KEPT_BYTES = (1 << 30, 32 << 20)
_FALLBACK_MEMORY_BYTES = 2 * 1024**3  # where the system does not say what is free


def usable_cores() -> int:
    """Number of CPU cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def keep_freed_memory() -> None:
    """Keep memory that arrays let go of for the next ones.

    Otherwise the C library gives that of large arrays back to the system, which clears it, page
    by page, whenever it is asked for some: a fifth of the time of a reduction.
    """
    library = _glibc()
    if library is not None and any(
        library.mallopt(_M_MMAP_THRESHOLD, n_bytes) for n_bytes in _LARGEST_KEPT_BYTES
    ):
        library.mallopt(_M_TRIM_THRESHOLD, max(_LARGEST_KEPT_BYTES))


def return_freed_memory() -> None:
    """Give what is kept back to the system."""
    if _glibc() is not None:
        _glibc().malloc_trim(0)


def free_memory_bytes() -> int:
    """Memory free on this machine, or left to the container this process is in."""
    free = (_available_bytes(), _cgroup_free_bytes())
    return max(0, min(amount for amount in free if amount is not None))


def _available_bytes() -> int:
    try:
        lines = Path("/proc/meminfo").read_text()
        return int(re.search(r"MemAvailable:\s*(\d+) kB", lines)[1]) * 1024
    except (OSError, TypeError):  # not Linux
        pass
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // 2
    except (AttributeError, OSError, ValueError):
        return _FALLBACK_MEMORY_BYTES


def _cgroup_free_bytes(folder: str = "/sys/fs/cgroup") -> int | None:
    """What a container's memory limit leaves, its file cache counted as free; None: no limit."""
    root = Path(folder)
    try:
        limit = int((root / "memory.max").read_text())
        used = int((root / "memory.current").read_text())
        cached = int(
            re.search(r"^inactive_file (\d+)", (root / "memory.stat").read_text(), re.M)[1]
        )
    except (OSError, ValueError, TypeError):
        return None
    return limit - used + cached


@cache
def _glibc() -> ctypes.CDLL | None:
    """GNU's C library, where this process runs on it."""
    try:
        library = ctypes.CDLL("libc.so.6")
        return library if hasattr(library, "mallopt") else None
    except OSError:  # another system, or another C library
        return None
