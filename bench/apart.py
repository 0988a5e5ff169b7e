"""Measurements in a process of their own: what it takes is nobody else's."""

import json
import os
import shutil
import subprocess
import sys

import click

from bench.machine import ROOT


class BenchError(click.ClickException):
    """A measurement could not be made; the message says why."""


def interpreter(python: str) -> str:
    """The path of a Python, wherever it is then run from; links in it stay what they are."""
    found = shutil.which(python)
    return os.path.abspath(found) if found else python


def run_apart(module: str, task: dict, crds: dict[str, str], python: str = sys.executable) -> dict:
    """Run `python -m module TASK` and return what it found.

    The task travels as JSON on the command line, what was found as the last line of standard
    output. Of CRDS the process hears only the variables that are given.

    Raises
    ------
    BenchError
        Where the process fails, with the end of what it said.
    """
    environment = {key: v for key, v in os.environ.items() if not key.startswith("CRDS_")}
    done = subprocess.run(
        [python, "-m", module, json.dumps(task)],
        cwd=ROOT,
        env=environment | crds,
        capture_output=True,
        text=True,
    )
    if done.returncode != 0:
        last_words = "\n".join(done.stderr.strip().splitlines()[-15:])
        raise BenchError(f"{module} failed in {python}:\n{last_words}")
    return json.loads(done.stdout.splitlines()[-1])
