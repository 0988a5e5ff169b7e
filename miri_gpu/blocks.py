"""Blocks: how an axis is cut so that a piece fits the memory, and how the pieces are run.

No result may depend on where an axis is cut, so sizes are chosen for speed and memory alone.
"""

import logging
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass, replace
from itertools import count, pairwise

from miri_gpu.backend import Backend, is_out_of_memory
from miri_gpu.errors import BackendError
from miri_gpu.host import usable_cores

log = logging.getLogger(__name__)

_SHARE_OF_FREE_MEMORY = 0.75
_ITEMS_OF_A_BLOCK = 4  # at least, where the memory has room for them


@dataclass(frozen=True)
class Sizes:
    """How a kind of device is kept busy; sizes are those of samples as float32.

    Attributes
    ----------
    bytes_per_block, bytes_per_pass : int
        At most; see Workers.
    most_threads : int
    blocks_per_thread : int
        At least, where there are several threads.
    temporaries : int
        Peak memory of a block over its samples.
    share : float
        Of the memory, for the blocks in work; the rest is for what is kept of a segment.
    """

    bytes_per_block: int
    bytes_per_pass: int
    most_threads: int
    blocks_per_thread: int
    temporaries: int
    share: float


# a pass stays in the cache of a core; a block holds several, to share its halo and its fixed costs
_CPU = Sizes(
    20 << 20, 4 << 20, most_threads=1 << 10, blocks_per_thread=4, temporaries=6, share=0.25
)
# a block has pixels enough for all of a GPU's threads; what Python does for one takes longer than
# for many of a CPU's, and goes on while the GPU computes with another
_GPU = Sizes(4 << 30, 1 << 30, most_threads=2, blocks_per_thread=1, temporaries=4, share=0.5)


@dataclass(frozen=True)
class Workers:
    """How many blocks are in work at once, and the memory that each may take.

    Attributes
    ----------
    n_threads : int
    bytes_per_block : int
        Samples of one block, as float32.
    bytes_per_pass : int
        Of these, how many go through a chain of steps together.
    bytes_in_work : int
        Samples that the blocks of all threads may have in memory.
    blocks_per_thread : int
        At least, where there are several threads.
    backend : Backend or None
        Whose streams the threads use, one each.
    """

    n_threads: int
    bytes_per_block: int
    bytes_per_pass: int = _CPU.bytes_per_pass
    bytes_in_work: int = 0
    blocks_per_thread: int = _CPU.blocks_per_thread
    backend: Backend | None = None

    @classmethod
    def of(cls, backend: Backend, memory_bytes: int, n_sharing: int = 1) -> "Workers":
        """Keep every core busy with blocks that fit its cache, or a GPU with larger ones.

        Parameters
        ----------
        backend : Backend
        memory_bytes : int
            Of which the blocks have a share.
        n_sharing : int
            How many processes share the machine's cores.
        """
        sizes = _GPU if backend.on_gpu else _CPU
        n_threads = min(sizes.most_threads, max(1, usable_cores() // n_sharing))
        in_work = int(sizes.share * memory_bytes) // sizes.temporaries
        return cls(
            n_threads=n_threads,
            bytes_per_block=min(sizes.bytes_per_block, in_work // n_threads),
            bytes_per_pass=sizes.bytes_per_pass,
            bytes_in_work=in_work,
            blocks_per_thread=sizes.blocks_per_thread,
            backend=backend,
        )

    def fitting(self, bytes_per_item: int) -> "Workers":
        """The same, where single items are larger than a block should be: fewer threads if need be.

        A block then has a few items all the same, if there is room: they may share a halo.
        """
        in_work = max(self.bytes_in_work, self.n_threads * self.bytes_per_block)
        n_threads = min(self.n_threads, max(1, in_work // bytes_per_item))
        roomy = min(in_work // n_threads, _ITEMS_OF_A_BLOCK * bytes_per_item)
        return replace(self, n_threads=n_threads, bytes_per_block=max(self.bytes_per_block, roomy))

    def cut(self, start: int, stop: int, bytes_per_item: int) -> list[slice]:
        """Cut an axis from start to stop into even blocks that respect the memory.

        As few as that allows, but enough to keep all threads busy to the end: as many for each.
        """
        n_items = stop - start
        n_blocks = _times(n_items, self.bytes_per_block // bytes_per_item)
        if self.n_threads > 1:
            n_blocks = max(n_blocks, self.blocks_per_thread * self.n_threads)
            n_blocks = self.n_threads * _times(n_blocks, self.n_threads)
        return _cut(start, stop, min(n_blocks, n_items))

    def passes(self, n_items: int, bytes_per_item: int) -> list[slice]:
        """Cut the items of a block into what goes through a chain of steps together."""
        n_bytes = min(self.bytes_per_pass, self.bytes_per_block)
        return evenly_cut(0, n_items, n_bytes // bytes_per_item)

    def run(
        self,
        work: Callable[[slice], None],
        blocks: list[slice],
        done: Callable[[], None],
    ) -> None:
        """Run the work on every block, on threads; the first error, or Ctrl-C, stops it all.

        A block that does not fit the memory is worked on in two halves, and so on: what the work
        keeps of a block must be the same when it is kept of the halves.

        Raises
        ------
        BackendError
            Where not even one item fits the memory.
        """
        if self.n_threads == 1:
            for block in blocks:
                self._run_block(work, block)
                done()
            return
        if self.backend is not None:
            self.backend.synchronize()  # the streams of the threads do not wait for what was asked
        with ThreadPoolExecutor(
            self.n_threads, initializer=self._begin, initargs=(count(),)
        ) as pool:
            futures = [pool.submit(self._run_block, work, block) for block in blocks]
            try:
                for future in as_completed(futures):
                    future.result()
                    done()
            except BaseException:
                pool.shutdown(wait=True, cancel_futures=True)
                raise

    def _begin(self, numbers: Iterator[int]) -> None:
        if self.backend is not None:
            self.backend.use_stream(next(numbers))

    def _run_block(self, work: Callable[[slice], None], block: slice) -> None:
        try:
            work(block)
            if self.backend is not None:
                self.backend.synchronize()
            return
        except Exception as error:
            if not is_out_of_memory(error):
                raise
            if block.stop - block.start <= 1:
                raise BackendError(
                    "memory: expected room for at least one row or integration of a segment, got "
                    f"out of memory ({error}); free some"
                ) from error
        # the error is let go of first: its frames hold the arrays of the attempt
        log.warning("out of memory with a block of %d: halved", block.stop - block.start)
        if self.backend is not None:
            self.backend.release_memory()
        for half in _cut(block.start, block.stop, 2):
            self._run_block(work, half)


def memory_to_take(backend: Backend, memory_bytes: int | None = None, n_sharing: int = 1) -> int:
    """Bytes that a process may take of its device, of so many or three quarters of what is free."""
    if memory_bytes is None:
        memory_bytes = int(_SHARE_OF_FREE_MEMORY * backend.free_memory_bytes())
    if backend.on_gpu:  # which has no more than it has
        return min(memory_bytes, backend.free_memory_bytes())
    return memory_bytes // n_sharing


def evenly_cut(start: int, stop: int, n_most: int) -> list[slice]:
    """Cut an axis into the fewest blocks of at most `n_most` items (or of one), evenly."""
    return _cut(start, stop, _times(stop - start, n_most))


def _cut(start: int, stop: int, n_blocks: int) -> list[slice]:
    """Cut an axis evenly into so many blocks; none where that is 0 or less."""
    edges = [start + i * (stop - start) // n_blocks for i in range(n_blocks)]
    return [slice(a, b) for a, b in pairwise([*edges, stop])]


def _times(n: int, size: int) -> int:
    """How many times a size (or 1) is needed for n."""
    return -(-max(0, n) // max(1, size))
