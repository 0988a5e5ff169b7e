"""Reading ahead: what comes next is fetched while what is at hand is in work."""

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

T = TypeVar("T")
Result = TypeVar("Result")


def read_ahead(
    read: Callable[[T], Result], items: Sequence[T], size: Callable[[T], int] = lambda _: 1
) -> Iterator[Result]:
    """What `read` gives for each item, in order; those that come next are read meanwhile.

    Together these are no larger than the largest of all: there is room for twice as much.
    """
    sizes = [size(item) for item in items]
    most = max(sizes, default=0)
    with ThreadPoolExecutor(1, thread_name_prefix="reader") as reader:
        waiting: deque[Future] = deque()
        n_asked = 0
        try:
            for number in range(len(items)):
                while n_asked < len(items) and sum(sizes[number + 1 : n_asked + 1]) <= most:
                    waiting.append(reader.submit(read, items[n_asked]))
                    n_asked += 1
                yield waiting.popleft().result()
        finally:
            for unwanted in waiting:
                unwanted.cancel()
