"""Everything that this machine can measure, one bench after the other: `python -m bench`.

What needs packages that are not installed here is left out. After --minutes no more is measured:
the bench at work is cut off, and keeps what it has written. Each bench is a process of its own,
whose words pass through; where one fails, the exit code is 1 in the end.
"""

import importlib.util
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import click

from bench.apart import interpreter
from bench.machine import ROOT
from bench.observations import STSCI_PACKAGES, data_folder
from bench.options import options

# Each bench and its --size; what matters most comes first.
BENCHES = (
    ("ceilings", "large"),
    ("compute", "all"),
    ("reduction", "all"),
    ("compute", "large"),
    ("functions", "all"),
    ("competition", "all"),
    ("memory", "large"),
    ("growth", "all"),
)
_NAMES = tuple(dict.fromkeys(name for name, _ in BENCHES))
_NEEDED = {
    "reduction": ("xarray",),
    "memory": ("xarray",),
    "growth": ("xarray",),
    "competition": ("xarray", *STSCI_PACKAGES, "jwst"),
}


@click.command(help=__doc__)
@options(["tiny", "all"], default="all")
@click.option("--minutes", type=click.FloatRange(min=0), default=60.0, show_default=True)
@click.option("--only", multiple=True, type=click.Choice(_NAMES), help="The benches to run.")
@click.option("--exotic-python", help="Interpreter with jwst and exotic_miri, for the competition.")
def main(
    size: str,
    backend: str | None,
    data: Path | None,
    results: Path,
    minutes: float,
    only: tuple[str, ...],
    exotic_python: str | None,
) -> None:
    """Run them."""
    ends, failed = time.monotonic() + 60 * minutes, []
    benches = BENCHES if size == "all" else [(name, size) for name in _NAMES]
    with data_folder(data) as folder:
        common = ["--data", str(folder.resolve()), "--results", str(results.resolve())]
        for name, its_size in benches:
            arguments = ["--size", its_size, "--backend", backend or "auto", *common]
            if name == "competition" and exotic_python:
                arguments += ["--exotic-python", interpreter(exotic_python)]
            reason = why_not(name, ends) if not only or name in only else "not asked for"
            click.echo(f"{name} {its_size}: {reason or '...'}")
            if not reason and not run_bench(name, arguments, ends - time.monotonic()):
                failed.append(name)
    if failed:
        raise click.ClickException(f"failed: {', '.join(failed)}")


def why_not(name: str, ends: float) -> str:
    """Why a bench is left out, in words; nothing where it is not."""
    missing = [p for p in _NEEDED.get(name, ()) if importlib.util.find_spec(p) is None]
    if missing:
        return f"left out, no {', '.join(missing)} here"
    return "left out, no time is left" if time.monotonic() > ends else ""


def run_bench(name: str, arguments: list[str], seconds: float) -> bool:
    """Run a bench, with all its own processes, for so long at most; False where it fails."""
    command = [sys.executable, "-m", f"bench.{name}", *arguments]
    with subprocess.Popen(command, cwd=ROOT, start_new_session=True) as process:
        try:
            return process.wait(timeout=max(seconds, 0)) == 0
        except subprocess.TimeoutExpired:
            click.echo(f"{name}: cut off, no time is left")
            return True
        finally:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)


if __name__ == "__main__":
    main()
