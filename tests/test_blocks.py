"""Blocks: how an axis is cut, and how the pieces run."""

import threading
import time

import pytest

from miri_gpu.backend import Backend
from miri_gpu.blocks import Workers, memory_to_take
from miri_gpu.errors import BackendError


class FakeBackend(Backend):
    def free_memory_bytes(self):
        return 1000


@pytest.mark.parametrize("n_items", [1, 2, 7, 80, 416])
@pytest.mark.parametrize("n_most", [1, 2, 3, 100, 1000])
def test_blocks_cover_the_axis_evenly_and_fit(n_items, n_most):
    blocks = Workers(1, 10 * n_most + 9).cut(300, 300 + n_items, 10)
    assert [i for block in blocks for i in range(block.start, block.stop)] == list(
        range(300, 300 + n_items)
    )
    sizes = [block.stop - block.start for block in blocks]
    assert max(sizes) <= n_most
    assert max(sizes) - min(sizes) <= 1
    assert len(blocks) == -(-n_items // n_most)


def test_a_block_is_at_least_one_item():
    assert Workers(1, 1).cut(0, 3, 1000) == [slice(0, 1), slice(1, 2), slice(2, 3)]


@pytest.mark.parametrize("n_threads", [2, 3, 16])
def test_every_thread_has_something_to_do_to_the_end(n_threads):
    workers = Workers(n_threads, 1 << 30)
    blocks = workers.cut(0, 416, 8)
    assert 3 * n_threads <= len(blocks) <= 4 * n_threads
    assert len(workers.cut(0, 3, 8)) == 3
    assert len(workers.cut(0, 41, 8)) in (41, 4 * n_threads)  # as many for each
    assert workers.passes(40, 8) == [slice(0, 40)]  # a thread's own


def test_an_empty_axis_has_no_blocks():
    assert Workers(1, 1000).cut(5, 5, 10) == []
    assert Workers(1, 1000).cut(5, 2, 10) == []


def test_a_gpu_takes_large_blocks_a_cpu_small_ones():
    gpu = Workers.of(FakeBackend("cupy", None, "", ""), 10 << 30)
    cpu = Workers.of(FakeBackend("numpy", None, "", ""), 10 << 30)
    assert gpu.bytes_per_block > 5 * cpu.bytes_per_block
    assert cpu.bytes_per_block >= cpu.bytes_per_pass > 1 << 16


@pytest.mark.parametrize(
    ("bytes_per_item", "n_threads", "bytes_per_block"),
    [(20, 8, 100), (50, 8, 200), (200, 8, 250), (1000, 2, 1000), (10_000, 1, 2000)],
)
def test_large_items_get_fewer_threads_and_all_the_room(bytes_per_item, n_threads, bytes_per_block):
    fitting = Workers(8, 100, bytes_in_work=2000).fitting(bytes_per_item)
    assert fitting.n_threads == n_threads
    assert fitting.bytes_per_block == bytes_per_block
    largest = max(b.stop - b.start for b in fitting.cut(0, 100, bytes_per_item))
    assert largest <= max(1, bytes_per_block // bytes_per_item)


def test_all_blocks_together_keep_to_the_memory():
    for name in ("cupy", "numpy"):
        backend = FakeBackend(name, None, "", "")
        workers = Workers.of(backend, 20 << 20)
        assert workers.n_threads * workers.bytes_per_block <= 20 << 20
        assert Workers.of(backend, 1).cut(0, 2, 100) == [slice(0, 1), slice(1, 2)]


@pytest.mark.parametrize(("name", "n_free", "n_given"), [("numpy", 250, 3), ("cupy", 750, 9)])
def test_processes_share_a_host_but_have_a_gpu_each(name, n_free, n_given):
    backend = FakeBackend(name, None, "", "")
    assert memory_to_take(backend, n_sharing=3) == n_free
    assert memory_to_take(backend, 9, n_sharing=3) == n_given


@pytest.mark.parametrize("n_threads", [1, 3])
def test_every_block_runs_once_and_is_reported(n_threads):
    workers, done, reported = Workers(n_threads, 10), [], []
    workers.run(done.append, workers.cut(0, 20, 10), lambda: reported.append(1))
    assert sorted(block.start for block in done) == list(range(20))
    assert len(reported) == 20


def test_one_thread_is_the_callers_own_and_keeps_the_order():
    seen = []
    Workers(1, 1).run(
        lambda block: seen.append((block.start, threading.current_thread())),
        [slice(0, 1), slice(1, 2)],
        lambda: None,
    )
    assert seen == [(0, threading.main_thread()), (1, threading.main_thread())]


@pytest.mark.parametrize("n_threads", [1, 2])
@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt])
def test_the_first_error_stops_it_all(n_threads, error):
    started = []

    def work(block):
        started.append(block.start)
        if block.start == 2:
            raise error("in block 2")
        time.sleep(0.002)

    with pytest.raises(error, match="in block 2"):
        Workers(n_threads, 1).run(work, [slice(i, i + 1) for i in range(200)], lambda: None)
    n_started = len(started)
    assert n_started < 100
    time.sleep(0.01)
    assert len(started) == n_started, "blocks run on after the error was raised"


@pytest.mark.parametrize("n_threads", [1, 2])
def test_an_interrupt_between_blocks_stops_it_all(n_threads):
    """Ctrl-C reaches the main thread, which waits for blocks."""
    started = []

    def work(block):
        started.append(block.start)
        time.sleep(0.002)

    def interrupted():
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        Workers(n_threads, 1).run(work, [slice(i, i + 1) for i in range(200)], interrupted)
    assert len(started) < 100


class ReleasingBackend(Backend):
    def __init__(self):
        super().__init__("numpy", None, "", "")
        object.__setattr__(self, "released", [])

    def release_memory(self):
        self.released.append(True)


@pytest.mark.parametrize("n_threads", [1, 2])
def test_blocks_that_do_not_fit_the_memory_are_halved(n_threads, caplog):
    backend, seen, reported = ReleasingBackend(), [], []

    def work(block):
        if block.stop - block.start > 3:
            raise MemoryError("no room")
        seen.append(block)

    Workers(n_threads, 1, backend=backend).run(
        work, [slice(0, 10), slice(10, 13)], lambda: reported.append(1)
    )
    assert sorted(seen, key=lambda block: block.start) == [
        slice(0, 2), slice(2, 5), slice(5, 7), slice(7, 10), slice(10, 13)
    ]  # fmt: skip
    assert len(reported) == 2 and len(backend.released) == 3
    assert "out of memory with a block of 10: halved" in caplog.text


def test_no_room_for_a_single_item_is_an_error_of_the_user():
    def work(block):
        raise MemoryError("no 5 GB")

    with pytest.raises(BackendError, match=r"memory: expected room for .* got .*no 5 GB"):
        Workers(1, 1).run(work, [slice(0, 4)], lambda: None)
