"""What a measured process knows of itself: seconds by stage or call, and the memory it took.

Needs the standard library only: the competition's environment may have nothing else of ours.
"""

import resource
import sys
import time
from collections.abc import Callable
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from threading import Event, Thread


class Stopwatch:
    """Adds up the seconds of named stages; a Progress that the reduction can report to.

    A stage that is reported lasts from its start to its last piece done, so that what is done
    between stages belongs to none of them.

    Attributes
    ----------
    seconds : dict[str, float]
        Seconds of each stage, in the order in which they first began.
    """

    def __init__(self):
        self.seconds: dict[str, float] = {}
        self._stage = ""
        self._last = 0.0

    def say(self, text: str) -> None:
        """Words take no time."""

    def start(self, task: str, n_pieces: int) -> None:
        """A stage begins; the name of the segment that stands before its own is left out."""
        self._stage = task.rpartition(": ")[2]
        self._last = time.perf_counter()
        self.seconds.setdefault(self._stage, 0.0)

    def advance(self) -> None:
        """A piece is done: the stage lasted until now, at least."""
        now = time.perf_counter()
        self.seconds[self._stage] += now - self._last
        self._last = now

    def another(self) -> "Stopwatch":
        """Itself: here nothing goes on at the same time."""
        return self

    @contextmanager
    def stage(self, name: str):
        """Time what is done within."""
        self.start(name, 1)
        yield
        self.advance()


@dataclass(frozen=True)
class Effort:
    """How long to go on measuring one thing: for so many seconds, and so many calls at least."""

    seconds: float = 0.5
    calls: int = 3


def timings(
    run: Callable[[], object], synchronize: Callable[[], object], effort: Effort
) -> list[float]:
    """Seconds of each of several calls, after a first one that compiles and fills caches."""
    run()
    synchronize()
    seconds: list[float] = []
    began = time.perf_counter()
    while len(seconds) < effort.calls or time.perf_counter() - began < effort.seconds:
        start = time.perf_counter()
        run()
        synchronize()
        seconds.append(time.perf_counter() - start)
    return seconds


def peak_memory_bytes() -> int:
    """The most memory that was resident in this process, mapped pages of files included.

    Linux keeps the figure of the program itself; what getrusage says there also covers the program
    that started it.
    """
    found = memory_of_process("VmHWM")
    if found is not None:
        return found
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


def memory_of_process(name: str) -> int | None:
    """What Linux says of the memory of this process [bytes]; None where there is no such line."""
    status = Path("/proc/self/status")
    lines = status.read_text().splitlines() if status.exists() else []
    found = [line.split()[1] for line in lines if line.startswith(f"{name}:")]
    return int(found[0]) * 1024 if found else None


def anonymous_memory_bytes() -> int | None:
    """The memory that this process holds of its own: no pages of files, which cost nothing.

    The system drops mapped pages of files when it needs the room, but counts them as resident in
    its own record of the peak. Only Linux tells.
    """
    return memory_of_process("RssAnon")


class MemoryWatch:
    """Watches memory of whose peak nobody keeps a record: looks every hundredth of a second.

    Parameters
    ----------
    used : function that gives how much is in use now [bytes], or None where nobody tells
    """

    def __init__(self, used: Callable[[], int | None], interval_s: float = 0.01):
        self._used = used
        self._before = self._peak = used()
        self._interval_s = interval_s
        self._ended = Event()
        self._watch = Thread(target=self._look, daemon=True)

    @property
    def seen_bytes(self) -> dict[str, int | None]:
        """What was in use `before`, when the watch began, and the most since, at the `peak`."""
        return {"before": self._before, "peak": self._peak}

    def __enter__(self) -> "MemoryWatch":
        if self._before is not None:
            self._watch.start()
        return self

    def __exit__(self, *_) -> None:
        self._ended.set()
        if self._watch.is_alive():
            self._watch.join()

    def _look(self) -> None:
        while True:
            ended = self._ended.wait(self._interval_s)
            self._peak = max(self._peak, self._used())
            if ended:
                return
