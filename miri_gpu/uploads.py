"""Samples to the memory of a GPU, as fast as it can take them.

Several threads put piece after piece where a GPU copies from by itself, each into one half of its
memory while the other half is copied. Compiled code does so from a file: threads of Python would
have to hand Python to one another for every piece, and to those that compute.
"""

import ctypes
import os
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from functools import cache

import numpy as np

from miri_gpu import kernels
from miri_gpu.backend import Backend
from miri_gpu.containers import Array
from miri_gpu.errors import BackendError, SegmentError
from miri_gpu.host import usable_cores
from miri_gpu.raw_samples import SampleFile

_MOST_THREADS = 14
_BYTES_OF_A_PIECE = 8 << 20  # but for single items that are larger; Python takes its time for each
_BYTES_OF_A_READ = 4 << 20  # of compiled code, which does not; two for each thread fit a cache
_TRUNCATED = -1_000_000  # as uploads.c says it
_OUT_OF_MEMORY = 2  # as the driver says it


def upload_array(
    array: np.ndarray, backend: Backend, dtype: np.dtype, items: np.ndarray | None = None
) -> Array:
    """Copy a host array of any strides and byte order to a GPU.

    Parameters
    ----------
    array : (n, ...) host array
    dtype : that it has there
    items : (n_items,) int, which of the n are copied; None for all
    """
    n_items = len(array) if items is None else len(items)
    uploaded = backend.xp.empty((n_items, *array.shape[1:]), dtype)
    n_most = max(1, _BYTES_OF_A_PIECE * n_items // max(1, uploaded.nbytes))
    starts = range(0, n_items, n_most)

    def send(thread: int, n_threads: int, staging: _Staging) -> None:
        for start in starts[thread::n_threads]:
            here = slice(start, start + n_most)
            staging.send(array[here if items is None else items[here]], uploaded[here])

    _on_threads(send, len(starts), backend)
    return uploaded


def reads_by_itself(samples: SampleFile, backend: Backend) -> bool:
    """Whether compiled code reads a file for a GPU: samples must travel as they lie on disk."""
    return (
        backend.on_gpu
        and samples.travelling_dtype.itemsize == 2
        and _upload_frames(kernels.compiled()) is not None
        and backend.driver_functions() is not None
    )


def upload_rows(
    samples: SampleFile, rows: slice, integrations: np.ndarray, backend: Backend
) -> Array:
    """Copy some rows of some integrations from a file to the device, as they travel.

    Raises
    ------
    SegmentError
        Where the file cannot be read, or ends too early.
    MemoryError, BackendError
        Where the driver of the GPU says so, or something else went wrong there.
    """
    shape = samples.shape_of(rows, integrations)
    uploaded = backend.xp.empty(shape, samples.travelling_dtype)
    places, n_bytes = samples.frames(rows, integrations)
    n_at_once = max(1, _BYTES_OF_A_READ // n_bytes)
    n_staged = max(n_bytes, _BYTES_OF_A_READ)  # the same for all parts: such memory is used again
    upload_frames, functions = _upload_frames(kernels.compiled()), backend.driver_functions()

    def send(thread: int, n_threads: int, staging: _Staging) -> None:
        error = upload_frames(
            file.fileno(), len(places), places.ctypes.data, n_bytes, n_at_once,
            thread, n_threads, uploaded.data.ptr,
            _pointers(staging.half(side, n_staged).ctypes.data for side in _SIDES),
            _pointers(event.ptr for event in staging.copied), staging.stream.ptr, *functions,
        )  # fmt: skip
        _check(error, samples)

    with samples.opened() as file:
        _on_threads(send, -(-len(places) // n_at_once), backend)
    return uploaded


_SIDES = (0, 1)


@cache
def _upload_frames(library: ctypes.CDLL | None):
    """The compiled function, as uploads.c declares it; None where there is none."""
    function = getattr(library, "upload_frames", None)
    if function is not None:
        function.restype = ctypes.c_int32
        function.argtypes = [
            ctypes.c_int32, ctypes.c_int64, ctypes.c_void_p, *[ctypes.c_int64] * 4,
            ctypes.c_uint64, *[ctypes.c_void_p] * 6,
        ]  # fmt: skip
    return function


def _check(error: int, samples: SampleFile) -> None:
    """Raise what the compiled function has returned."""
    if error == _OUT_OF_MEMORY:
        raise MemoryError("the GPU's driver has none left")
    if error > 0:
        raise BackendError(f"copying to the GPU: error {error} of its driver")
    if error < 0:
        reason = "truncated while it was read" if error == _TRUNCATED else os.strerror(-error)
        raise SegmentError(f"{samples.path}: {reason}")


def _pointers(addresses: Iterable[int]) -> ctypes.Array:
    return (ctypes.c_void_p * 2)(*addresses)


class _Staging:
    """Memory from which a GPU copies by itself: one half is filled while the other is copied."""

    def __init__(self, backend: Backend, thread: int):
        self._backend = backend
        self._halves: list[np.ndarray | None] = [None, None]
        self._side = 0
        self.stream = backend.stream(-1 - thread)  # another than those that compute
        # made anew on each thread: by that the driver knows which GPU the thread is for
        self.copied = [backend.event() for _ in _SIDES]

    def half(self, side: int, n_bytes: int) -> np.ndarray:
        """At least so many bytes; what is copied from them must have arrived."""
        half = self._halves[side]
        if half is None or half.nbytes < n_bytes:
            half = self._halves[side] = self._backend.pinned(n_bytes)
        return half

    def send(self, piece: np.ndarray, target: Array) -> None:
        """Copy a piece to the device; it may still be on its way when this returns.

        It becomes of the type of its target.
        """
        self.copied[self._side].synchronize()
        half = self.half(self._side, max(target.nbytes, _BYTES_OF_A_PIECE))
        staged = half[: target.nbytes].view(target.dtype).reshape(target.shape)
        np.copyto(staged, piece)
        target.set(staged, stream=self.stream)
        self.copied[self._side].record(self.stream)
        self._side = 1 - self._side


def _on_threads(
    send: Callable[[int, int, _Staging], None], n_pieces: int, backend: Backend
) -> None:
    """Let threads send their share of some pieces, and wait until all of it has arrived."""
    n_threads = max(1, min(_MOST_THREADS, usable_cores(), n_pieces))
    backend.synchronize()  # then nobody uses the memory that is written to any more

    def send_share(thread: int) -> None:
        staging = _Staging(backend, thread)
        try:
            send(thread, n_threads, staging)
        finally:
            staging.stream.synchronize()

    if n_threads == 1:
        send_share(0)
        return
    with ThreadPoolExecutor(n_threads, thread_name_prefix="upload") as threads:
        for _ in threads.map(send_share, range(n_threads)):
            pass
