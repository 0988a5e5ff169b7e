"""Measurements in a process of their own: what it takes is nobody else's."""

import json
import os
import subprocess
import sys

import click

from bench.machine import ROOT
from miri_gpu.simulate import Observation


class BenchError(click.ClickException):
    """A measurement could not be made; the message says why."""


def run_apart(
    module: str, task: dict, observation: Observation, python: str = sys.executable
) -> dict:
    """Run `python -m module TASK` on an observation and return what it found.

    The task travels as JSON on the command line, what was found as the last line of standard
    output. CRDS is the observation's own.

    Raises
    ------
    BenchError
        Where the process fails, with the end of what it said.
    """
    done = subprocess.run(
        [python, "-m", module, json.dumps(task)],
        cwd=ROOT,
        env=crds_environment(observation),
        capture_output=True,
        text=True,
    )
    if done.returncode != 0:
        last_words = "\n".join(done.stderr.strip().splitlines()[-15:])
        raise BenchError(f"{module} failed in {python}:\n{last_words}")
    return json.loads(done.stdout.splitlines()[-1])


def crds_environment(observation: Observation) -> dict[str, str]:
    """This process's environment, with the references of the observation and no CRDS server."""
    environment = {key: v for key, v in os.environ.items() if not key.startswith("CRDS_")}
    environment["CRDS_PATH"] = str(observation.crds_path)
    environment["CRDS_CONTEXT"] = observation.crds_context
    return environment
