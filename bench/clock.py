"""What a measured process knows of itself: seconds by stage, and the memory it took.

Needs the standard library only: the competition's environment may have nothing else of ours.
"""

import resource
import sys
import time
from contextlib import contextmanager
from pathlib import Path


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

    @contextmanager
    def stage(self, name: str):
        """Time what is done within."""
        self.start(name, 1)
        yield
        self.advance()


def peak_memory_bytes() -> int:
    """The most memory that was resident in this process, mapped pages of files included.

    Linux keeps the figure of the program itself; what getrusage says there also covers the program
    that started it.
    """
    status = Path("/proc/self/status")
    if status.exists():
        lines = [line for line in status.read_text().splitlines() if line.startswith("VmHWM:")]
        if lines:
            return int(lines[0].split()[1]) * 1024
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit
