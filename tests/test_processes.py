"""Worker processes: what they give, say and leave behind."""

import functools
import logging
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from miri_gpu.errors import MiriGpuError, SegmentError
from miri_gpu.files import write_beside
from miri_gpu.processes import map_in_processes
from miri_gpu.progress import SILENT, Progress

# --- what the workers do: they import this module


def square(number, progress):
    progress.start(f"square {number}", 1)
    logging.getLogger("miri_gpu.test").warning("squared %d", number)
    progress.advance()
    return number * number, os.getpid(), os.environ.get("CUDA_VISIBLE_DEVICES")


def fail_at_two(number, progress):
    if number == 2:
        raise SegmentError("seg2.fits: expected more, got less")
    time.sleep(30)


def die(number, progress):
    os.kill(os.getpid(), signal.SIGKILL)


def write_for_long(folder, progress):
    def write(beside: Path):
        beside.write_text("half")
        progress.say("begun")
        time.sleep(30)

    write_beside(folder / f"{os.getpid()}.txt", write)


class Recorder(Progress):
    def __init__(self):
        self.said = []

    def start(self, task, n_pieces):
        self.said.append(task)

    def advance(self):
        self.said.append("advance")


# --- what is seen of it


class Unreadable:
    """A function that a process fails to unpickle."""

    def __reduce__(self):
        return int, ("no number",)


class StubbornError(Exception):
    """Can be pickled, but not back."""

    def __init__(self, first, second):
        super().__init__(f"{first} {second}")


def fail_stubbornly(_, progress):
    raise StubbornError("of two", "parts")


def test_results_come_in_order_from_several_processes(caplog):
    progress = Recorder()
    with caplog.at_level(logging.INFO, "miri_gpu"):
        results = map_in_processes(square, [3, 4, 5, 6], 2, progress)
    assert [result for result, *_ in results] == [9, 16, 25, 36]
    processes = {process for _, process, _ in results}
    assert len(processes) <= 2 and os.getpid() not in processes
    assert sorted(progress.said) == ["advance"] * 4 + [f"square {n}" for n in (3, 4, 5, 6)]
    assert sorted(caplog.messages) == [f"squared {n}" for n in (3, 4, 5, 6)]


def test_each_process_sees_a_gpu_of_its_own(monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "5,7")
    results = map_in_processes(square, range(6), 2, SILENT, gpus=["5", "7"])
    seen = {process: gpu for _, process, gpu in results}
    assert set(seen.values()) <= {"5", "7"} and len(set(seen.values())) == len(seen)
    assert os.environ["CUDA_VISIBLE_DEVICES"] == "5,7"


def test_an_error_is_raised_here_and_stops_the_others():
    began = time.monotonic()
    with pytest.raises(SegmentError, match=r"seg2\.fits: expected more"):
        map_in_processes(fail_at_two, [1, 2], 2, SILENT)
    assert time.monotonic() - began < 25


def test_a_process_that_is_killed_is_an_error_of_the_user():
    with pytest.raises(MiriGpuError, match=r"workers: expected a process .* it ended"):
        map_in_processes(die, [1], 2, SILENT)


def test_a_process_that_does_not_get_as_far_as_its_item_is_one_too():
    with pytest.raises(MiriGpuError, match=r"workers: expected a process .* it ended"):
        map_in_processes(Unreadable(), [1], 2, SILENT)


def test_processes_that_die_while_they_start_are_one_too(tmp_path, monkeypatch):
    """They are not waited for, however much is to be told to them."""
    (tmp_path / "sitecustomize.py").write_text("import os; os._exit(9)")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    function = functools.partial(square, unused=bytes(1 << 20))
    with pytest.raises(MiriGpuError, match=r"workers: expected a process .* it ended"):
        map_in_processes(function, [1, 2], 2, SILENT)


def blocked(_, progress):
    return signal.pthread_sigmask(signal.SIG_BLOCK, [])


STARTS = """
import sys
from test_processes import SILENT, blocked, map_in_processes, signal
if __name__ == "__main__":
    masks = map_in_processes(blocked, range(4), 2, SILENT)
    sys.exit(not all(signal.SIGINT in mask for mask in masks))
"""


@pytest.mark.skipif(not hasattr(signal, "pthread_sigmask"), reason="needs masks of signals")
def test_interrupts_are_for_the_process_that_starts_the_others(tmp_path):
    """From the first on, of a program that has started none before."""
    (tmp_path / "starts.py").write_text(STARTS)
    path = os.pathsep.join([str(Path(__file__).parent), *sys.path])
    run = subprocess.run(
        [sys.executable, "starts.py"], cwd=tmp_path, env={**os.environ, "PYTHONPATH": path}
    )
    assert run.returncode == 0


def test_an_error_that_cannot_travel_is_told():
    with pytest.raises(RuntimeError, match="StubbornError: of two parts") as raised:
        map_in_processes(fail_stubbornly, [1], 2, SILENT)
    assert "in fail_stubbornly" in raised.value.__notes__[0]


def test_an_interrupt_leaves_nothing_half_written(tmp_path):
    class Interrupting(Progress):
        def say(self, text):
            (half,) = tmp_path.iterdir()
            assert half.name.startswith(".partial")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        map_in_processes(write_for_long, [tmp_path], 2, Interrupting())
    assert list(tmp_path.iterdir()) == []
    assert threading.active_count() == 1
