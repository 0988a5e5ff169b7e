"""Arrays of a segment, kept where there is room: on the device, on the host, in a file."""

import errno
import os
import resource
import types
from pathlib import Path

import numpy as np
import pytest
import standin

from miri_gpu.errors import OutputError
from miri_gpu.storage import Room

PLANES = {"data": ((4, 6, 3), np.float32), "dq": ((4, 6, 3), np.uint8)}
N_BYTES = 4 * 6 * 3 * 5


def room(place, folder=None) -> Room:
    sizes = {"device": (N_BYTES, 0), "host": (N_BYTES - 1, N_BYTES), "file": (0, N_BYTES - 1)}
    return Room(*sizes[place], folder=folder)


@pytest.mark.parametrize("place", ["device", "host", "file"])
@pytest.mark.parametrize("xp", [np, standin.xp], ids=["numpy", "standin"])
def test_what_is_put_by_rows_is_taken_by_integrations(place, xp, tmp_path):
    rng = np.random.default_rng(1)
    data = rng.normal(size=(4, 6, 3)).astype(np.float32)
    dq = rng.integers(0, 200, size=(4, 6, 3)).astype(np.uint8)
    store = room(place, tmp_path).store(PLANES, xp=xp)
    assert (store.mapped is not None) == (place == "file")
    if place == "file":  # rows of all integrations are one piece of it
        assert all(array[:, 2].flags.c_contiguous for array in store.arrays.values())
    for rows in (slice(0, 2), slice(2, 3), slice(3, 6)):
        part = {"data": xp.asarray(data[:, rows]), "dq": xp.asarray(dq[:, rows])}
        store.put((slice(None), rows), part)
    for ints in (slice(0, 1), slice(1, 4)):
        taken = store.take(ints)
        assert all(isinstance(array, xp.ndarray) for array in taken.values())
        taken = {n: getattr(array, "_hidden", array) for n, array in taken.items()}
        np.testing.assert_array_equal(taken["data"], data[ints])
        np.testing.assert_array_equal(taken["dq"], dq[ints])
    assert list(tmp_path.iterdir()) == []  # the file has no name that could stay behind


def test_what_is_kept_takes_room_as_long_as_it_is(tmp_path):
    somewhere = Room(2 * N_BYTES, folder=tmp_path)
    first, second = (somewhere.store(PLANES, xp=np) for _ in range(2))
    assert first.mapped is second.mapped is None
    assert somewhere.store(PLANES, xp=np).mapped is not None
    del first
    assert somewhere.store(PLANES, xp=np).mapped is None


def test_memory_that_is_less_than_was_said_is_passed_over(tmp_path, caplog):
    class Full(types.ModuleType):
        def empty(self, shape, dtype):
            raise MemoryError("no more")

    full = Full("full")
    store = Room(N_BYTES, N_BYTES, folder=tmp_path).store(PLANES, xp=full)
    assert all(isinstance(array, np.ndarray) for array in store.arrays.values())
    assert store.xp is full and store.mapped is None
    assert Room(N_BYTES, 0, folder=tmp_path).store(PLANES, xp=full).mapped is not None
    assert "out of memory with 0.0 GB to be kept" in caplog.text


@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="needs Linux's /proc")
def test_a_file_does_not_count_as_memory(tmp_path):
    def resident():
        pages = int(Path("/proc/self/statm").read_text().split()[1])
        return pages * resource.getpagesize()

    shape = (64, 1 << 18)  # 64 MiB
    store = Room(0, 0, folder=tmp_path).store({"data": (shape, np.float32)}, xp=np)
    before = resident()
    for i in range(64):
        store.put(i, {"data": np.full(1 << 18, i, np.float32)})
    assert float(store.take(63)["data"][5]) == 63
    assert resident() - before < 16 << 20


def test_a_full_disk_is_an_error_before_any_work(tmp_path, monkeypatch):
    def full(*_):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "posix_fallocate", full)
    with pytest.raises(OutputError, match=r"expected room for .* GB .*No space left"):
        room("file", tmp_path).store(PLANES, xp=np)
