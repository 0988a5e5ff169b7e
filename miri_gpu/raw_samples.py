"""The samples of a segment as they lie on disk: mapped, read by rows, decoded on the device.

Raw ramps are unsigned 16-bit integers, stored big-endian with an offset of 32768. They travel as
the file's own bytes, read as native integers, and become numbers where they are computed with.
Ramps that were written by a pipeline are float32 already.
"""

import math
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from threading import Lock, Thread
from typing import BinaryIO

import numpy as np

from miri_gpu import kernels
from miri_gpu.containers import Array
from miri_gpu.errors import SegmentError
from miri_gpu.ramps.ramp_kernels import images

_FRAMES_AHEAD = 512  # that the system is asked for before the first of them is waited for


@dataclass(frozen=True)
class SampleFile:
    """Where and how a file holds an array (n_ints, n_groups, n_rows, n_cols), or one of images.

    Attributes
    ----------
    path : Path
    offset : int
        Of the first sample [bytes].
    dtype : numpy.dtype
        On disk.
    shape : tuple of int
    """

    path: Path
    offset: int
    dtype: np.dtype
    shape: tuple[int, ...]

    @property
    def n_bytes(self) -> int:
        """Size of all samples on disk."""
        return int(np.prod(self.shape)) * self.dtype.itemsize

    @property
    def travelling_dtype(self) -> np.dtype:
        """What the samples travel as: every backend can hold it."""
        return travelling_dtype(self.dtype)

    def mapped(self) -> np.ndarray:
        """The samples as they lie on disk: nothing is read before it is looked at."""
        with self._readable():
            return np.memmap(
                self.path, dtype=self.dtype, mode="r", offset=self.offset, shape=self.shape
            )

    @contextmanager
    def opened(self) -> Iterator[BinaryIO]:
        """The file, to be read without a buffer.

        Raises
        ------
        SegmentError
            Where it cannot be read.
        """
        with self._readable(), self.path.open("rb", buffering=0) as file:
            yield file

    @contextmanager
    def _readable(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise SegmentError(f"{self.path}: cannot be read ({error.strerror or error})") from None

    def read_rows(self, rows: slice, integrations: np.ndarray) -> np.ndarray:
        """Read some rows of some integrations, and as little as possible beside them.

        What is read of a mapped file draws much of what lies around it into memory.
        """
        places, n_bytes = self.frames(rows, integrations)
        read = np.empty((len(places), n_bytes), dtype=np.uint8)
        with self.opened() as file:
            for start in range(0, len(places), _FRAMES_AHEAD):
                wanted = range(start, min(start + _FRAMES_AHEAD, len(places)))
                if hasattr(os, "posix_fadvise"):
                    for frame in wanted:
                        place = int(places[frame])
                        os.posix_fadvise(file.fileno(), place, n_bytes, os.POSIX_FADV_WILLNEED)
                for frame in wanted:
                    self._read_into(read[frame], file, int(places[frame]))
        return read.reshape(-1).view(self.dtype).reshape(self.shape_of(rows, integrations))

    def frames(self, rows: slice, integrations: np.ndarray) -> tuple[np.ndarray, int]:
        """Where some rows begin in the file, for each group of some integrations; their bytes."""
        n_groups, n_rows, n_cols = self.shape[1:]
        bytes_per_row = n_cols * self.dtype.itemsize
        frames = (integrations[:, None] * n_groups + np.arange(n_groups)).ravel()
        places = self.offset + (frames * n_rows + rows.start) * bytes_per_row
        return places.astype(np.int64), (rows.stop - rows.start) * bytes_per_row

    def shape_of(self, rows: slice, integrations: np.ndarray) -> tuple[int, int, int, int]:
        """(n_ints, n_groups, n_rows, n_cols) of some rows of some integrations."""
        return len(integrations), self.shape[1], rows.stop - rows.start, self.shape[3]

    def _read_into(self, buffer: np.ndarray, file, place: int) -> None:
        file.seek(place)
        if file.readinto(buffer) != len(buffer):
            raise SegmentError(f"{self.path}: truncated while it was read")


def ask_for(samples: SampleFile) -> None:
    """Ask the system to read a file, after those asked for before, into memory that is free."""

    def ask() -> None:
        with _asking, samples.path.open("rb") as file:
            os.posix_fadvise(file.fileno(), samples.offset, samples.n_bytes, os.POSIX_FADV_WILLNEED)

    if hasattr(os, "posix_fadvise"):
        Thread(target=ask, daemon=True).start()  # the system may take its time


_asking = Lock()


def travelling_dtype(dtype: np.dtype) -> np.dtype:
    """What samples that lie on disk as a type travel as."""
    return np.dtype(np.uint16 if dtype == np.dtype(">i2") else np.float32)


def encoded_samples(raw: np.ndarray) -> np.ndarray:
    """View samples as they lie on disk in the type that they travel as."""
    dtype = travelling_dtype(raw.dtype)
    return raw.view(dtype) if dtype == np.uint16 else raw.astype(dtype)


def decode_samples(raw: Array, *, xp) -> Array:
    """Turn samples that have travelled into float32 DN, on the device they are on.

    `raw` is (n_ints, n_groups, n_rows, n_cols), with any strides.
    """
    if raw.dtype != xp.uint16:
        return raw
    if kernels.available(xp):
        n_groups, *image = raw.shape[1:]
        samples = xp.empty(raw.shape, dtype=xp.float32)
        size = math.prod(image)
        kernels.launch(xp, "decode_samples", raw.size, *images(raw, xp=xp), n_groups, size, samples)
        return samples
    native = raw << 8
    native |= raw >> 8
    native ^= 0x8000
    return native.astype(xp.float32)
