"""Where the arrays of a whole segment are kept: where they are computed, in memory, or in a file.

What is kept of a segment grows with its integrations. Whatever its size, it is written and read
by blocks, so that it may lie where there is room.
"""

import logging
import math
import mmap
import os
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType
from typing import Any
from weakref import WeakSet

import numpy as np

from miri_gpu import host
from miri_gpu.backend import Backend, is_out_of_memory, namespace, to_host
from miri_gpu.containers import Array
from miri_gpu.errors import OutputError

log = logging.getLogger(__name__)

_ANY = 1 << 62  # bytes: more than there is anywhere
_ALIGNMENT = 64  # bytes, of arrays in a file
_SHARE_KEPT = 0.25  # of the memory, for what was computed of a segment
_SHARE_OF_UPLOADS = 0.25  # of a GPU's memory, for raw samples
_SHARE_OF_SAMPLES = 0.5  # of the host's memory, for raw samples

Planes = Mapping[str, tuple[tuple[int, ...], Any]]  # shape and dtype of arrays, by name


@dataclass(frozen=True, eq=False)
class Room:
    """How much may be kept of segments, and where; what is kept now counts, as long as it is.

    Attributes
    ----------
    bytes_on_device, bytes_on_host : int
        What was computed: where it was computed, or else in the memory of a GPU's host; beyond, in
        a file.
    bytes_of_samples : int
        Raw samples in memory.
    bytes_of_uploads : int
        Raw samples in the memory of a GPU.
    folder : Path or None
        Of the file; None where the system keeps temporary files.
    """

    bytes_on_device: int = _ANY
    bytes_on_host: int = 0
    bytes_of_samples: int = _ANY
    bytes_of_uploads: int = _ANY
    folder: Path | None = None
    _stores: WeakSet["Store"] = field(default_factory=WeakSet, init=False, repr=False)

    @classmethod
    def of(
        cls, backend: Backend, memory_bytes: int, n_sharing: int = 1, folder: Path | None = None
    ) -> "Room":
        """Shares of the memory of the device and, where that is a GPU, of what the host has."""
        on_host = memory_bytes
        if backend.on_gpu:
            on_host = host.free_memory_bytes() // n_sharing
        return cls(
            bytes_on_device=int(_SHARE_KEPT * memory_bytes),
            bytes_on_host=int(_SHARE_KEPT * on_host) if backend.on_gpu else 0,
            bytes_of_samples=int(_SHARE_OF_SAMPLES * on_host),
            bytes_of_uploads=int(_SHARE_OF_UPLOADS * memory_bytes),
            folder=folder,
        )

    def store(self, planes: Planes, *, xp: ModuleType) -> "Store":
        """Room for arrays that are computed by a module, in the first place large enough."""
        for module, n_most in ((xp, self.bytes_on_device), (np, self.bytes_on_host)):
            if self._kept(module) + _size(planes) > n_most:
                continue
            try:
                store = Store({name: module.empty(*plane) for name, plane in planes.items()}, xp)
            except Exception as error:
                if not is_out_of_memory(error):
                    raise
                log.warning("out of memory with %.1f GB to be kept", _size(planes) / 1e9)
                continue
            self._stores.add(store)
            return store
        return _in_a_file(planes, self.folder, xp=xp)

    def _kept(self, module: ModuleType) -> int:
        """Bytes of all arrays of a module that somebody still has."""
        arrays = [array for store in self._stores for array in store.arrays.values()]
        return sum(array.nbytes for array in arrays if namespace(array) is module)


@dataclass(frozen=True, eq=False)
class Store:
    """Arrays that are written and read by blocks.

    Attributes
    ----------
    arrays : dict of name to array
        On the device, or on the host: there they may be those of a file.
    xp : module
        Of the device, where blocks come from and go to.
    mapped : mmap or None
        The file, where they lie in one.
    """

    arrays: dict[str, Array]
    xp: ModuleType
    mapped: mmap.mmap | None = None

    def put(self, index: Any, parts: Mapping[str, Array]) -> None:
        """Write blocks of the arrays, by name, to a place."""
        for name, part in parts.items():
            whole = self.arrays[name]
            whole[index] = part if namespace(whole) is self.xp else to_host(part)
        self._forget()

    def take(self, index: Any) -> dict[str, Array]:
        """Read a block of each array to the device; what is there already is not copied."""
        if self.mapped is None:
            return {name: self.xp.asarray(whole[index]) for name, whole in self.arrays.items()}
        parts = {n: self.xp.asarray(whole[index].copy()) for n, whole in self.arrays.items()}
        self._forget()
        return parts

    def _forget(self) -> None:
        """Let the system write and drop the file's pages, which else count as this process's."""
        if self.mapped is not None and hasattr(mmap, "MADV_DONTNEED"):
            self.mapped.madvise(mmap.MADV_DONTNEED)


def _in_a_file(planes: Planes, folder: Path | None, *, xp: ModuleType) -> Store:
    mapped = _mapped_file(_size(planes) + _ALIGNMENT * len(planes), folder)
    arrays, start = {}, 0
    for name, (shape, dtype) in planes.items():
        array = np.frombuffer(mapped, dtype, math.prod(shape), start)
        arrays[name] = _by_rows(array, shape)
        start = -(-(start + array.nbytes) // _ALIGNMENT) * _ALIGNMENT
    return Store(arrays, xp, mapped)


def _by_rows(array: Array, shape: tuple[int, ...]) -> Array:
    """Memory as an array (..., n_rows, n_cols) in which a row of all images is one piece.

    A block of rows is one piece then, and one of images is long pieces.
    """
    *images, n_rows, n_cols = shape
    return np.moveaxis(array.reshape(n_rows, *images, n_cols), 0, -2)


def _size(planes: Planes) -> int:
    return sum(math.prod(shape) * np.dtype(dtype).itemsize for shape, dtype in planes.values())


def _mapped_file(n_bytes: int, folder: Path | None) -> mmap.mmap:
    """A file without a name, which goes when nobody uses it any more."""
    try:
        with tempfile.TemporaryFile(dir=folder) as file:
            if hasattr(os, "posix_fallocate"):  # a full disk is told now, not by a fault later
                os.posix_fallocate(file.fileno(), 0, n_bytes)
            else:
                file.truncate(n_bytes)
            return mmap.mmap(file.fileno(), n_bytes)
    except OSError as error:
        where = tempfile.gettempdir() if folder is None else folder
        raise OutputError(
            f"{where}: expected room for {n_bytes / 1e9:.1f} GB that do not fit the memory "
            f"({error.strerror or error})"
        ) from None
