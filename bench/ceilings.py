"""The ceilings of a machine: how fast it reads files, moves memory, and feeds its GPU.

No reduction is faster than the reading of its raw samples, or than their copying to where they are
computed with; no function is faster than a copy that moves as many bytes as it must. Given is the
best of several tries in bytes per second. A copy within a memory counts what it reads and what it
writes, one between host and device counts its bytes once.
"""

import os
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from statistics import median

import click
import numpy as np

from bench.clock import Effort, timings
from bench.observations import data_folder
from bench.options import chosen, computed_by, options, report
from miri_gpu.backend import Backend
from miri_gpu.host import usable_cores

SIZES = {"tiny": 4 << 20, "large": 1 << 30}  # bytes of a file, and of an array
_PIECE = 4 << 20  # bytes that are read at a time, into memory that stays in the cache
_EFFORT = Effort(seconds=0.3, calls=5)


@click.command(help=__doc__)
@options([*SIZES, "all"], default="large")
def main(size: str, backend: str | None, data: Path | None, results: Path) -> None:
    """Measure, print, write."""
    with data_folder(data) as folder:
        for name, where in chosen(size, SIZES, backend):
            entry = measure_ceilings(SIZES[name], where, folder)
            report("ceilings", f"{name}/{computed_by(where)}", entry, where, results, summary)


def measure_ceilings(n_bytes: int, backend: Backend, folder: Path) -> dict:
    """Every ceiling, with a file and with arrays of so many bytes."""
    found: dict[str, float | None] = {}
    with _file_of(n_bytes, folder / "ceilings.bin") as path:
        for n_threads, words in _threads().items():
            found[f"read, not in the cache, {words}"] = read_from_disk(path, n_threads)
            found[f"read, in the cache, {words}"] = read(path, n_threads)
    for n_threads, words in _threads().items():
        found[f"copy in host memory, {words}"] = copy_on_host(n_bytes, n_threads)
    if backend.on_gpu:
        found["copy in device memory"] = copy_on_device(n_bytes, backend)
        for kind, host in (("pinned", backend.pinned(n_bytes)), ("pageable", _full(n_bytes))):
            device = backend.to_device(host)
            found[f"copy to the device, {kind}"] = _best(
                n_bytes, lambda h=host, d=device: d.set(h), backend.synchronize
            )
            found[f"copy to the host, {kind}"] = _best(
                n_bytes, lambda h=host, d=device: d.get(out=h), backend.synchronize
            )
    return {"backend": backend.name, "bytes": n_bytes, "bytes_per_second": found}


# --- what other benches compare with


def input_ceiling(path: Path, backend: Backend) -> float:
    """How fast raw samples can at best get to where they are computed with [bytes/s].

    The smaller of two: how fast their file is read from the system's cache, and how fast they are
    copied, to a GPU or once within the memory of the host.
    """
    n_cores = usable_cores()
    if backend.on_gpu:
        host = backend.pinned(SIZES["large"] // 4)
        device = backend.to_device(host)
        copied = _best(host.nbytes, lambda: device.set(host), backend.synchronize)
    else:
        copied = copy_on_host(SIZES["large"] // 4, n_cores) / 2
    return min(copied, max(read(path, 1), read(path, n_cores)))


def memory_ceiling(backend: Backend, n_threads: int = 1) -> float:
    """How fast a large copy moves memory, of the device or, by some threads, of the host."""
    n_bytes = SIZES["large"] // 4
    if backend.name == "numpy":
        return copy_on_host(n_bytes, n_threads)
    return copy_on_device(n_bytes, backend)


def copy_seconds(n_bytes: int, backend: Backend, effort: Effort) -> float:
    """Seconds of a copy that reads and writes so many bytes together, by one thread on a host."""
    source = backend.xp.ones(max(n_bytes // 2, 1), dtype=np.uint8)
    target = source.copy()
    return median(timings(lambda: backend.xp.copyto(target, source), backend.synchronize, effort))


# --- each ceiling, in bytes per second


def read(path: Path, n_threads: int) -> float:
    """Read a file, or as much of it as says enough, from the system's cache; each thread a part."""
    n_bytes = min(path.stat().st_size, SIZES["large"])
    return _best(n_bytes, lambda: _read_through(path, n_bytes, n_threads))


def read_from_disk(path: Path, n_threads: int) -> float | None:
    """Read a file that the system was asked to forget, once; None where it does not forget."""
    if not _forgotten(path):
        return None
    n_bytes, start = path.stat().st_size, time.perf_counter()
    _read_through(path, n_bytes, n_threads)
    return n_bytes / (time.perf_counter() - start)


def copy_on_host(n_bytes: int, n_threads: int) -> float:
    """Copy an array of so many bytes, each thread a part of it."""
    source, target = _full(n_bytes), _full(n_bytes)

    def copy(start: int, stop: int) -> None:
        np.copyto(target[start:stop], source[start:stop])

    return _best(2 * n_bytes, lambda: _share_out(copy, n_bytes, n_threads))


def copy_on_device(n_bytes: int, backend: Backend) -> float:
    """Copy an array of so many bytes within the memory of a device."""
    source = backend.xp.ones(n_bytes, dtype=np.uint8)
    target = source.copy()
    return _best(2 * n_bytes, lambda: backend.xp.copyto(target, source), backend.synchronize)


def _best(n_bytes: int, run: Callable[[], object], synchronize: Callable = lambda: None) -> float:
    return n_bytes / min(timings(run, synchronize, _EFFORT))


def _read_through(path: Path, n_bytes: int, n_threads: int) -> None:
    def read_part(start: int, stop: int) -> None:
        buffer = memoryview(bytearray(_PIECE))
        with path.open("rb", buffering=0) as file:
            file.seek(start)
            while start < stop:
                start += file.readinto(buffer[: stop - start])

    _share_out(read_part, n_bytes, n_threads)


def _share_out(work: Callable[[int, int], None], n_bytes: int, n_threads: int) -> None:
    """Let each of some threads do a part of the work."""
    if n_threads == 1:
        work(0, n_bytes)
        return
    edges = [n_bytes * i // n_threads for i in range(n_threads + 1)]
    with ThreadPoolExecutor(n_threads) as pool:
        list(pool.map(work, edges, edges[1:]))


def _forgotten(path: Path) -> bool:
    """Ask the system to drop a file from its cache; whether it did so."""
    if not (hasattr(os, "posix_fadvise") and hasattr(os, "RWF_NOWAIT")):
        return False
    with path.open("rb", buffering=0) as file:
        os.fsync(file.fileno())
        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
        try:
            os.preadv(file.fileno(), [bytearray(1)], path.stat().st_size // 2, os.RWF_NOWAIT)
        except BlockingIOError:  # what it has not, it does not give at once
            return True
        except OSError:  # it cannot be asked
            return False
    return False


@contextmanager
def _file_of(n_bytes: int, path: Path) -> Iterator[Path]:
    """A file that no disk can make shorter, for a while."""
    piece = np.random.default_rng(1).bytes(_PIECE)
    with path.open("wb") as file:
        for _ in range(n_bytes // _PIECE):
            file.write(piece)
        file.flush()
        os.fsync(file.fileno())
    try:
        yield path
    finally:
        path.unlink()


def _full(n_bytes: int) -> np.ndarray:
    """An array whose pages are there."""
    return np.ones(n_bytes, dtype=np.uint8)


def _threads() -> dict[int, str]:
    """How many threads work together, in words: one, and one for each core."""
    n_cores = usable_cores()
    return {1: "1 thread"} | ({n_cores: f"{n_cores} threads"} if n_cores > 1 else {})


def summary(case: str, entry: dict) -> str:
    """A table for people."""
    lines = [f"{case} ({entry['bytes'] / 1e9:.2f} GB)"]
    for what, found in entry["bytes_per_second"].items():
        figure = "       ---" if found is None else f"{found / 1e9:10.2f}"
        lines.append(f"  {figure} GB/s  {what}")
    return "\n".join(lines)


if __name__ == "__main__":
    main()
