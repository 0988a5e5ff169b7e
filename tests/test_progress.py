"""Progress: bars on a terminal, lines elsewhere, or nothing."""

import io
import sys
import threading

from miri_gpu import progress


class Terminal(io.StringIO):
    def isatty(self):
        return True


def work(shown):
    shown.start("segment 1: ramps to rates", 4)
    threads = [threading.Thread(target=shown.advance) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    shown.start("segment 1: rates to spectra", 1)
    shown.advance()


def test_plain_lines_where_there_is_no_terminal(capsys):
    with progress.shown() as shown:
        work(shown)
    out, err = capsys.readouterr()
    lines = err.splitlines()
    assert out == ""
    assert [line.split("s  ")[1] for line in lines] == [
        "segment 1: ramps to rates",
        "segment 1: rates to spectra",
    ]
    assert "\x1b" not in err and "\r" not in err


def test_quiet_is_quiet(capsys, monkeypatch):
    for stream in (sys.stderr, Terminal()):
        monkeypatch.setattr(sys, "stderr", stream)
        with progress.shown(quiet=True) as shown:
            work(shown)
    assert capsys.readouterr() == ("", "")


def test_bars_on_a_terminal(monkeypatch):
    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    monkeypatch.setenv("TERM", "xterm")
    with progress.shown() as shown:
        work(shown)
        bars = shown._bars
    tasks = {task.description: task.finished for task in bars.tasks}
    assert tasks == {"segment 1: ramps to rates": True, "segment 1: rates to spectra": True}
    assert "rates to spectra" in terminal.getvalue()
