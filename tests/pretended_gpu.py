"""A backend that takes itself for CuPy, on NumPy arrays: what goes to a GPU, and by which way.

It copies as late as a GPU may: when somebody waits for it.
"""

import ctypes
import sys
import types
from collections.abc import Callable

import numpy as np

from miri_gpu import backend
from miri_gpu.backend import Backend


class OnDevice(np.ndarray):
    """An array that is written to from the memory that a GPU copies from."""

    def set(self, values, stream):
        """As CuPy's: of the same shape and type."""
        assert (
            values.shape == self.shape and values.dtype == self.dtype and values.flags.c_contiguous
        )
        stream.ask_for(lambda: np.copyto(self, values))

    @property
    def data(self):
        """As CuPy's, where it says where it is."""
        return types.SimpleNamespace(ptr=self.ctypes.data)


class Stream:
    """What it is asked for it does in turn, when it has to."""

    def __init__(self, non_blocking=True):
        self.ptr = id(self)
        self.waiting: list[Callable] = []
        self.n_done = 0

    def ask_for(self, copy: Callable) -> None:
        """One copy more to be done."""
        self.waiting.append(copy)

    def synchronize(self, n_to_do: int = sys.maxsize) -> None:
        """Do all that it was asked for, or the first so many of all copies."""
        while self.waiting and self.n_done < n_to_do:
            self.waiting.pop(0)()
            self.n_done += 1

    def use(self):
        """The host does all things in turn."""


class Event:
    """All that a stream was asked for before."""

    def __init__(self, disable_timing):
        assert disable_timing
        self.ptr = id(self)
        self._recorded: tuple[Stream, int] | None = None

    def record(self, stream):
        """From now on it stands for what the stream was asked for until now."""
        self._recorded = stream, stream.n_done + len(stream.waiting)

    def synchronize(self):
        """Wait for that."""
        if self._recorded is not None:
            stream, n_to_do = self._recorded
            stream.synchronize(n_to_do)


class Driver:
    """What compiled code calls; it knows streams and events by their addresses."""

    def __init__(self):
        pointer = ctypes.c_void_p
        copy = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.c_uint64, pointer, ctypes.c_size_t, pointer)
        self.error = 0
        self.streams: list[Stream] = []
        self.events: list[Event] = []
        self.cuMemcpyHtoDAsync_v2 = copy(self._copy)
        self.cuEventRecord = ctypes.CFUNCTYPE(ctypes.c_int, pointer, pointer)(self._record)
        self.cuEventSynchronize = ctypes.CFUNCTYPE(ctypes.c_int, pointer)(self._wait)

    def stream(self, non_blocking=True) -> Stream:
        """A new one, to be found again."""
        self.streams.append(Stream(non_blocking))
        return self.streams[-1]

    def event(self, disable_timing) -> Event:
        """A new one, to be found again."""
        self.events.append(Event(disable_timing))
        return self.events[-1]

    def _copy(self, target, source, n_bytes, stream):
        _found(self.streams, stream).ask_for(lambda: ctypes.memmove(target, source, n_bytes))
        return self.error

    def _record(self, event, stream):
        _found(self.events, event).record(_found(self.streams, stream))
        return 0

    def _wait(self, event):
        _found(self.events, event).synchronize()
        return 0


def _found(those: list, pointer: int):
    [found] = [one for one in those if one.ptr == pointer]
    return found


def pretended_gpu(monkeypatch, driver: Driver | None = None) -> Backend:
    """The backend; its module is NumPy's, with as much of CuPy's as a reduction asks for."""
    driver = driver or Driver()
    xp = types.ModuleType("pretended_cupy")
    vars(xp).update({name: getattr(np, name) for name in dir(np) if not name.startswith("__")})
    xp.empty = lambda shape, dtype=float: np.empty(shape, dtype).view(OnDevice)
    null = driver.stream()
    pool = types.SimpleNamespace(
        free_bytes=lambda: 0, free_all_blocks=lambda: None, get_limit=lambda: 0
    )
    xp.get_default_memory_pool = xp.get_default_pinned_memory_pool = lambda: pool
    xp.cuda = types.SimpleNamespace(
        Stream=driver.stream,
        Event=driver.event,
        alloc_pinned_memory=bytearray,
        get_current_stream=lambda: null,
        runtime=types.SimpleNamespace(
            memGetInfo=lambda: (1 << 33, 1 << 34), getDeviceCount=lambda: 1
        ),
    )
    monkeypatch.setattr(backend, "_driver", lambda: driver)
    return Backend("cupy", xp, "a pretended GPU", "a test asks for it")
