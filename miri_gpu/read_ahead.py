"""Reading ahead: what comes next is fetched while what is at hand is in work."""

from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

T = TypeVar("T")
Result = TypeVar("Result")


def read_ahead(read: Callable[[T], Result], items: Iterable[T]) -> Iterator[Result]:
    """What `read` gives for each item, in order; the next one is read on a thread meanwhile."""
    with ThreadPoolExecutor(1, thread_name_prefix="reader") as reader:
        waiting = None
        for item in items:
            following = reader.submit(read, item)
            if waiting is not None:
                yield waiting.result()
            waiting = following
        if waiting is not None:
            yield waiting.result()
