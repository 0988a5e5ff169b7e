"""Progress of long work: a live bar on a terminal, plain lines elsewhere, or nothing."""

import sys
import time
from contextlib import contextmanager


class Progress:
    """What long work reports to: tasks by name, and their pieces. This one tells nobody."""

    def say(self, text: str) -> None:
        """Something worth knowing, in one line."""

    def start(self, task: str, n_pieces: int) -> None:
        """A task of so many pieces begins (and the one before has ended)."""

    def advance(self) -> None:
        """One piece of the current task is done; may be called from several threads."""

    def another(self) -> "Progress":
        """Where work that goes on at the same time reports its own tasks to."""
        return self


SILENT = Progress()


class Lines(Progress):
    """One plain line for each task, for logs and pipes."""

    def __init__(self):
        self._began = time.perf_counter()

    def say(self, text: str) -> None:
        """Print the line with the time since the beginning."""
        print(f"{time.perf_counter() - self._began:7.1f} s  {text}", file=sys.stderr, flush=True)

    def start(self, task: str, n_pieces: int) -> None:
        """Print the task and the time since the beginning."""
        self.say(task)


class Bars(Progress):
    """A live bar for each task, by rich."""

    def __init__(self, bars):
        self._bars = bars
        self._current = None

    def say(self, text: str) -> None:
        """Print the line above the bars."""
        self._bars.console.print(text, highlight=False, markup=False)

    def start(self, task: str, n_pieces: int) -> None:
        """Add the bar of the task."""
        self._current = self._bars.add_task(task, total=n_pieces)

    def advance(self) -> None:
        """Move the bar of the current task."""
        self._bars.advance(self._current)

    def another(self) -> "Bars":
        """More bars below these."""
        return Bars(self._bars)


@contextmanager
def shown(quiet: bool = False):
    """Show progress on standard error in the way that fits it."""
    if quiet:
        yield SILENT
    elif not sys.stderr.isatty():
        yield Lines()
    else:
        from rich.console import Console
        from rich.progress import BarColumn, TextColumn, TimeElapsedColumn
        from rich.progress import Progress as RichProgress

        columns = (TextColumn("{task.description}"), BarColumn(), TimeElapsedColumn())
        with RichProgress(*columns, console=Console(stderr=True)) as bars:
            yield Bars(bars)
