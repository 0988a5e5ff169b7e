"""A backend that takes itself for CuPy, on NumPy arrays: what goes to a GPU, and by which way."""

import sys
import types

import numpy as np

from miri_gpu.backend import Backend


class OnDevice(np.ndarray):
    """An array that is written to from the memory that a GPU copies from."""

    def set(self, values, stream):
        """As CuPy's: of the same shape and type, and while a stream goes on."""
        assert (
            values.shape == self.shape and values.dtype == self.dtype and values.flags.c_contiguous
        )
        stream.n_waiting += 1
        self[...] = values


class _Stream:
    def __init__(self, non_blocking=True):
        self.n_waiting = 0

    def synchronize(self):
        self.n_waiting = 0

    def use(self):
        """The host does all things in turn."""


class _Event:
    def __init__(self, disable_timing):
        assert disable_timing

    def record(self, stream):
        """Nothing is ever late."""

    def synchronize(self):
        """So there is nothing to wait for."""


def pretended_gpu(monkeypatch) -> Backend:
    """The backend; its module is NumPy's, with as much of CuPy's as a reduction asks for."""
    xp = types.ModuleType("pretended_cupy")
    vars(xp).update({name: getattr(np, name) for name in dir(np) if not name.startswith("__")})
    xp.empty = lambda shape, dtype=float: np.empty(shape, dtype).view(OnDevice)
    null = _Stream()
    pool = types.SimpleNamespace(free_bytes=lambda: 0, free_all_blocks=lambda: None)
    xp.get_default_memory_pool = xp.get_default_pinned_memory_pool = lambda: pool
    xp.cuda = types.SimpleNamespace(
        Stream=_Stream,
        Event=_Event,
        get_current_stream=lambda: null,
        runtime=types.SimpleNamespace(
            memGetInfo=lambda: (1 << 33, 1 << 34), getDeviceCount=lambda: 1
        ),
    )
    cupyx = types.ModuleType("cupyx")
    cupyx.empty_pinned = np.empty
    monkeypatch.setitem(sys.modules, "cupyx", cupyx)
    return Backend("cupy", xp, "a pretended GPU", "a test asks for it")
