"""Several worker processes, each of which reduces segments by itself; on GPUs, one GPU each.

A worker is handed the next segment as soon as it is free. What it reports and logs on the way
reaches this process as if it had been said here.
"""

import logging
import multiprocessing
import os
import pickle
import signal
import sys
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from multiprocessing import resource_tracker
from multiprocessing.connection import Connection, wait
from threading import Lock
from typing import Any

from miri_gpu.errors import MiriGpuError
from miri_gpu.progress import Progress

_PATIENCE_S = 30  # for a worker that was told to stop, and lets go of its files
_VISIBLE_GPUS = "CUDA_VISIBLE_DEVICES"


def map_in_processes(
    function: Callable[[Any, Progress], Any],
    items: Sequence[Any],
    n_workers: int,
    progress: Progress,
    gpus: Sequence[str] = (),
) -> list[Any]:
    """Apply a function to items in worker processes.

    Parameters
    ----------
    function : callable that can be pickled
        Takes an item and where to report progress to. What it returns or raises is pickled, too.
    items : sequence
    n_workers : int
    progress : Progress
    gpus : sequence of str
        As CUDA_VISIBLE_DEVICES names them. Each worker sees one; they take turns where there are
        fewer.

    Returns
    -------
    list : what the function gave for each item, in their order

    Raises
    ------
    MiriGpuError
        Where a worker ends unasked.
    Exception
        The first one that the function raised; the workers are stopped then, as by an interrupt.
    """
    workers: dict[Connection, tuple[Any, Progress]] = {}
    results: dict[int, Any] = {}
    waiting = list(enumerate(items))[::-1]
    try:
        with _interrupts_held():
            for number in range(min(n_workers, len(items))):
                ours, worker = _started(gpus[number % len(gpus)] if gpus else None)
                workers[ours] = worker, progress.another()
        for connection in workers:  # all of them import meanwhile
            _tell(connection, function)
            _tell(connection, waiting.pop())
        while workers:
            for connection in wait(list(workers)):
                worker, shown = workers[connection]
                done = _heard(connection, shown, results)
                if done and waiting:
                    _tell(connection, waiting.pop())
                elif done:
                    _tell(connection, None)
                    worker.join()
                    del workers[connection]
    finally:
        for worker, _ in workers.values():
            worker.terminate()
        for worker, _ in workers.values():
            worker.join(_PATIENCE_S)
            worker.kill()
    return [results[index] for index in range(len(items))]


def _started(gpu: str | None) -> tuple[Connection, multiprocessing.Process]:
    """A new process that waits for what it is told, and the way to tell it.

    It sees one GPU, of which it may ask with its first breath.
    """
    context = multiprocessing.get_context("spawn")  # CUDA does not survive a fork
    ours, theirs = context.Pipe()
    level = logging.getLogger("miri_gpu").getEffectiveLevel()
    worker = context.Process(target=_work, args=(theirs, level), daemon=True)
    with _environment(_VISIBLE_GPUS, gpu):
        worker.start()
    theirs.close()
    return ours, worker


@contextmanager
def _environment(name: str, value: str | None) -> Iterator[None]:
    """Give a variable of the environment a value meanwhile, where there is one."""
    before = os.environ.get(name)
    if value is not None:
        os.environ[name] = value
    try:
        yield
    finally:
        if before is not None:
            os.environ[name] = before
        elif value is not None:
            del os.environ[name]


@contextmanager
def _interrupts_held() -> Iterator[None]:
    """Hold back interrupts, where the system can.

    Processes that are started inherit that: interrupts are for the one that starts them.
    """
    if not hasattr(signal, "pthread_sigmask"):
        yield
        return
    resource_tracker.ensure_running()  # whose start would let them through
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


@contextmanager
def _alive() -> Iterator[None]:
    """Whoever is talked to inside is there, or the error says so."""
    try:
        yield
    except (EOFError, ConnectionError):
        raise MiriGpuError(
            "workers: expected a process to reduce its segments, but it ended: was it killed for "
            "its memory (give --memory, or fewer --workers)? A script needs "
            "`if __name__ == '__main__':`, since workers import it"
        ) from None


def _tell(connection: Connection, item: Any) -> None:
    """Give a worker its function, then its next item, or None: there is no more."""
    with _alive():
        connection.send(item)


def _heard(connection: Connection, progress: Progress, results: dict[int, Any]) -> bool:
    """Take what a worker says; whether it has done its item."""
    with _alive():
        kind, *content = connection.recv()
    if kind == "failed":
        raise content[0]
    if kind == "done":
        index, result = content
        results[index] = result
        return True
    if kind == "log":
        logging.getLogger(content[0].name).handle(content[0])
    else:
        getattr(progress, kind)(*content)
    return False


def _work(connection: Connection, level: int) -> None:
    """What a worker process does: a function of one item after another, until there is none."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    said = _Said(connection)
    for name in ("miri_gpu", "py.warnings"):
        logging.getLogger(name).addHandler(said)
    logging.getLogger("miri_gpu").setLevel(level)
    logging.captureWarnings(True)
    function = connection.recv()  # imports, and Python may ignore what is raised meanwhile
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # lets go of half-written files
    while (item := connection.recv()) is not None:
        index, argument = item
        try:
            said.send("done", index, function(argument, said))
        except Exception as error:
            error.add_note(traceback.format_exc())  # the traceback itself does not travel
            said.send("failed", _that_travels(error))


def _that_travels(error: Exception) -> Exception:
    """The error, or its text where it cannot be pickled and back."""
    try:
        pickle.loads(pickle.dumps(error))
        return error
    except Exception:  # whatever its class does there
        told = RuntimeError(f"{type(error).__name__}: {error}")
        told.__notes__ = error.__notes__
        return told


class _Said(logging.Handler, Progress):
    """Sends what a worker reports and logs to the process that started it, from any thread."""

    def __init__(self, connection: Connection):
        super().__init__()
        self._connection = connection
        self._sending = Lock()

    def send(self, kind: str, *content: Any) -> None:
        """Send a message; one of any size at a time."""
        with self._sending:
            self._connection.send((kind, *content))

    def emit(self, record: logging.LogRecord) -> None:
        """Send a log record, its text made here: what it was made of may not travel."""
        if record.exc_info:
            record.exc_text = logging.Formatter().formatException(record.exc_info)
        record.msg, record.args, record.exc_info = record.getMessage(), None, None
        self.send("log", record)

    def say(self, text: str) -> None:
        """As Progress has it."""
        self.send("say", text)

    def start(self, task: str, n_pieces: int) -> None:
        """As Progress has it."""
        self.send("start", task, n_pieces)

    def advance(self) -> None:
        """As Progress has it."""
        self.send("advance")
