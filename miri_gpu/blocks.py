"""Blocks: how an axis is cut so that a piece fits the memory, and how the pieces are run.

No result may depend on where an axis is cut, so sizes are chosen for speed and memory alone.
"""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass
from itertools import pairwise

from miri_gpu.backend import Backend, usable_cores

_BYTES_IN_CACHE = 4 << 20  # samples of one block on a CPU core, as float32
_TEMPORARIES = 14  # peak memory of a block over its samples as float32
_SHARE_OF_FREE_MEMORY = 0.5


@dataclass(frozen=True)
class Workers:
    """How many blocks are in work at once, and the memory that each may take.

    Attributes
    ----------
    n_threads : int
    bytes_per_block : int
        Samples of one block, as float32.
    """

    n_threads: int
    bytes_per_block: int

    @classmethod
    def of(cls, backend: Backend, memory_bytes: int | None = None) -> "Workers":
        """Fill a GPU with one block at a time; keep every core busy with blocks that fit its cache.

        `memory_bytes` caps what all blocks together take; by default half of what is free.
        """
        if memory_bytes is None:
            memory_bytes = int(_SHARE_OF_FREE_MEMORY * backend.free_memory_bytes())
        if backend.name == "cupy":
            return cls(1, memory_bytes // _TEMPORARIES)
        n_threads = usable_cores()
        return cls(n_threads, min(_BYTES_IN_CACHE, memory_bytes // _TEMPORARIES // n_threads))

    def cut(self, start: int, stop: int, bytes_per_item: int) -> list[slice]:
        """Cut an axis from start to stop into the fewest, even blocks that respect the memory."""
        n_items = max(0, stop - start)
        n_most = max(1, self.bytes_per_block // bytes_per_item)
        n_blocks = -(-n_items // n_most)
        edges = [start + i * n_items // max(1, n_blocks) for i in range(n_blocks + 1)]
        return [slice(a, b) for a, b in pairwise(edges)]

    def run(
        self,
        work: Callable[[slice], None],
        blocks: list[slice],
        done: Callable[[], None],
    ) -> None:
        """Run the work on every block, on threads; the first error, or Ctrl-C, stops it all."""
        if self.n_threads == 1:
            for block in blocks:
                work(block)
                done()
            return
        with ThreadPoolExecutor(self.n_threads) as pool:
            futures = [pool.submit(work, block) for block in blocks]
            try:
                for future in as_completed(futures):
                    future.result()
                    done()
            except BaseException:
                pool.shutdown(wait=True, cancel_futures=True)
                raise
