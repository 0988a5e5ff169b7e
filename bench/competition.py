"""jwst and ExoTiC-MIRI beside miri_gpu: same machine, same segment, turn and turn about.

Ours, theirs, ours, ..., each in a fresh process with the same recipe and reference files; imports,
simulation and writing are not counted on either side. Ours is short, and one hiccup of the machine
would decide: a turn is three runs, of which the median counts. Each of their runs is compared with
the mean of our two turns beside it. Stage 1 is the STScI steps of the installed jwst; stage 2,
cleaning and extraction, is ExoTiC-MIRI's, which may need an environment of its own
(--exotic-python).

Step by step, theirs are compared with ours as `bench.functions` times them: alone and on one
thread, as theirs are.
"""

import subprocess
import sys
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median

import click
import numpy as np

from bench.apart import BenchError, interpreter, run_apart
from bench.clock import Effort, timings
from bench.functions import all_cases
from bench.observations import Observed, data_folder, has_stsci_packages, observe
from bench.options import chosen, computed_by, options, report
from bench.sizes import SIZES, shape
from bench.source import Source
from miri_gpu.backend import Backend
from miri_gpu.recipe import Recipe, load_recipe, parse_settings
from miri_gpu.sections import SECTIONS
from miri_gpu.simulate import SimulationSettings

STEPS = ("stage1", "stage2", "all")
RUNS_OF_A_TURN = 3  # of ours

# What is compared with what: our stages and their steps. Our plan (references, wavelengths, checks)
# counts as part of our stage 1, because each of their steps looks up its own reference.
PHASES = {
    "stage1": (
        ("plan", "non-linearity", "interference", "whole-frame corrections", "ramps to rates"),
        (
            "open", "custom_gain", "group_scale", "dq_init", "saturation", "reset", "drop_groups",
            "custom_linearity", "linearity", "dark_current", "jump", "ramp_fit", "gain_scale",
        ),
    ),
    "stage2": (
        ("median profile", "rates to spectra", "rest"),
        (
            "flat_field", "clean_outliers", "background_subtract", "clean_outliers_again",
            "extract_1d_box", "align_spectra",
        ),
    ),
}  # fmt: skip
# Of the same name, but one of the two does not do, on this data, what the other does.
_NOT_ALIKE = ("group_scale", "drop_groups", "gain_scale", "align_spectra")

HOW_TO_INSTALL = """\
exotic_miri is not installed in {python}, so its cleaning and extraction cannot be measured.
Install it there, or in an environment of its own:

    python -m venv exotic
    exotic/bin/pip install "jwst=={jwst}" exotic-miri
    python -m bench.competition --exotic-python exotic/bin/python
"""


@click.command(help=__doc__)
@options([*SIZES, "all"], default="faint")
@click.option("--steps", type=click.Choice(STEPS), default="all", help="What to compare.")
@click.option(
    "--repeat", type=click.IntRange(1), default=1, help="Their runs; our turns are one more."
)
@click.option(
    "--exotic-python", default=sys.executable, help="Interpreter that has jwst and exotic_miri."
)
@click.option("--set", "changes", multiple=True, metavar="STEP.KEY=VALUE", help="For both.")
def main(
    size: str,
    backend: str | None,
    data: Path | None,
    results: Path,
    steps: str,
    repeat: int,
    exotic_python: str,
    changes: tuple[str, ...],
) -> None:
    """Measure, print, write."""
    if not has_stsci_packages():
        raise BenchError("jwst is not installed: there is nothing to compare with")
    settings = parse_settings(changes)
    exotic_python = interpreter(exotic_python)
    if not has_exotic(exotic_python):
        if steps != "stage1":
            click.echo(how_to_install(exotic_python), err=True)
        if steps == "stage2":
            raise SystemExit(2)
        steps = "stage1"
        settings["custom_linearity"] = {"skip": True}  # it is ExoTiC-MIRI's: nobody takes it then
    with data_folder(data) as folder:
        for name, where in chosen(size, [name for name in SIZES if name != "tiny"], backend):
            contest = Contest(observe(SIZES[name], folder), steps, where, settings, folder)
            entry = compete(contest, repeat, exotic_python)
            case = "/".join([name, steps, computed_by(where), *changes])
            report("competition", case, entry, where, results, summary)


@dataclass(frozen=True)
class Contest:
    """What both sides do."""

    observed: Observed
    steps: str
    backend: Backend  # of ours
    settings: dict[str, dict]  # changes to the recipe
    folder: Path  # for what they leave

    @property
    def recipe(self) -> Recipe:
        """The recipe that the number of groups chooses, with the changes."""
        return load_recipe(None, self.observed.settings.n_groups).updated(self.settings, "--set")

    def arrays(self, side: str) -> str:
        """Where the last results of a side lie."""
        return str(self.folder / f"{side}.npz")


def compete(contest: Contest, repeat: int, python: str) -> dict:
    """Run both sides in turn, `repeat` of theirs between turns of ours, and compare."""
    observed, recipe = contest.observed, contest.recipe
    ours_task = observed.task(
        contest.backend.name, settings=contest.settings, save_arrays=contest.arrays("ours")
    )
    if contest.steps == "stage2":  # both begin with rates, made by ours and not measured
        folder = contest.folder / "rates"
        made = run_apart(
            "bench.run_ours", {**ours_task, "rates_folder": str(folder)}, observed.crds
        )
        ours_task["segments"] = made["rate_files"]
    theirs_task = {
        "segment": ours_task["segments"][0],
        "recipe": recipe_by_step(recipe),
        "steps": contest.steps,
        "save_arrays": contest.arrays("theirs"),
    }

    def our_turn() -> list[dict]:
        return [
            run_apart("bench.run_ours", ours_task, observed.crds) for _ in range(RUNS_OF_A_TURN)
        ]

    ours, theirs = our_turn(), []
    for _ in range(repeat):
        theirs.append(run_apart("bench.run_theirs", theirs_task, observed.crds, python))
        ours += our_turn()
    return {
        **observed.describe(),
        "backend": contest.backend.name,
        "recipe": recipe.name,
        "changes": contest.settings,
        "steps": contest.steps,
        "phases": compare_phases(ours, theirs),
        "by_step": compare_steps(theirs, observed.settings, contest.backend),
        "agreement": compare_arrays(contest.arrays("ours"), contest.arrays("theirs")),
        "ours": ours,
        "theirs": theirs,
    }


def recipe_by_step(recipe: Recipe) -> dict[str, dict]:
    """The steps that run, by name, with their settings: what the other side is called with."""
    return {
        section.step: asdict(recipe[section.step]) if section.params else {}
        for section in SECTIONS
        if recipe.runs(section.step)
    }


def compare_phases(ours: list[dict], theirs: list[dict]) -> dict[str, dict]:
    """Seconds of both sides and their ratio, for each phase that both went through."""
    phases = {}
    for phase, (our_stages, their_steps) in PHASES.items():
        if any(step in theirs[0]["seconds"] for step in their_steps):
            phases[phase] = _compared(
                [_sum(run, our_stages) for run in ours], [_sum(run, their_steps) for run in theirs]
            )
    if len(phases) == len(PHASES):
        phases["all"] = _compared(
            [run["total_s"] for run in ours], [run["total_s"] for run in theirs]
        )
    return phases


def compare_steps(
    theirs: list[dict], settings: SimulationSettings, backend: Backend
) -> dict[str, dict]:
    """Nanoseconds per sample, or pixel, of each of their steps and of ours of the same name."""
    n_ints, n_groups, n_rows, n_cols = shape(settings)
    n_items = {"pixel": n_ints * n_rows * n_cols, "sample": n_ints * n_groups * n_rows * n_cols}
    compared = {}
    for case in all_cases(Source.simulated(settings, backend)):
        step = case.name.partition(": ")[2]
        if step in theirs[0]["seconds"] and step not in _NOT_ALIKE:
            their_ns = 1e9 * median(run["seconds"][step] for run in theirs) / n_items[case.per]
            ours = timings(case.run, backend.synchronize, Effort())
            our_ns = 1e9 * median(ours) / case.n_items
            compared[step] = {
                "per": case.per,
                "theirs_ns": their_ns,
                "ours_ns": our_ns,
                "ratio": their_ns / our_ns,
            }
    return compared


def compare_arrays(ours: str, theirs: str) -> dict[str, float]:
    """How far the two results agree: a comparison of speed is only fair where they do."""
    with np.load(ours) as a, np.load(theirs) as b:
        agreement = {}
        if "rates" in b:
            both = np.isfinite(a["rates"]) & np.isfinite(b["rates"]) & (a["dq"] == b["dq"])
            difference = np.abs(a["rates"][both] - b["rates"][both])
            scale = np.maximum(np.abs(b["rates"][both]), 1.0)  # DN/s
            agreement["fraction_of_pixels_with_equal_dq"] = float(np.mean(a["dq"] == b["dq"]))
            agreement["largest_relative_difference_of_rates"] = float((difference / scale).max())
        if "flux" in b:
            rows = a["rows"]  # ours leaves out those without a wavelength
            deviation = np.abs(a["flux"] - b["flux"][:, rows]) / b["flux_err"][:, rows]
            agreement["median_difference_of_flux_in_errors"] = float(np.nanmedian(deviation))
            agreement["largest_difference_of_flux_in_errors"] = float(np.nanmax(deviation))
    return agreement


def has_exotic(python: str) -> bool:
    """Whether an interpreter finds exotic_miri.

    Raises
    ------
    BenchError
        Where there is no such interpreter.
    """
    code = "import importlib.util as u; print(u.find_spec('exotic_miri') is not None)"
    try:
        answer = subprocess.run([python, "-c", code], capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError) as error:
        raise BenchError(f"--exotic-python: expected a Python, got {python!r} ({error})") from None
    return answer.stdout.strip() == "True"


def how_to_install(python: str) -> str:
    """What to do where ExoTiC-MIRI is missing."""
    from importlib import metadata

    return HOW_TO_INSTALL.format(python=python, jwst=metadata.version("jwst"))


def summary(case: str, entry: dict) -> str:
    """A few lines for people."""
    lines = [f"{case} ({entry['shape'][0]} x {entry['shape'][1]}, {entry['recipe']})"]
    for phase, found in entry["phases"].items():
        lines.append(
            f"  {phase:10s} theirs {found['theirs_s']:8.2f} s, ours {found['ours_s']:7.3f} s: "
            f"{found['ratio']:.1f} times as fast"
        )
    for step, seconds in entry["theirs"][-1]["seconds"].items():
        line = f"    {seconds:8.3f} s  {step:22s}"
        if step in entry["by_step"]:
            found = entry["by_step"][step]
            line += f"{found['theirs_ns']:9.2f}, ours {found['ours_ns']:7.2f} ns / {found['per']}"
        lines.append(line)
    lines += [
        f"  {what.replace('_', ' ')}: {value:.3g}" for what, value in entry["agreement"].items()
    ]
    peaks = [max(run["peak_memory_bytes"] for run in entry[side]) for side in ("theirs", "ours")]
    lines.append(f"  peak memory: theirs {peaks[0] / 1e9:.2f} GB, ours {peaks[1] / 1e9:.2f} GB")
    return "\n".join(lines)


def _compared(ours: list[float], theirs: list[float]) -> dict:
    """Each of their runs over the mean of our turns before and after it."""
    turns = [
        median(ours[start : start + RUNS_OF_A_TURN])
        for start in range(0, len(ours), RUNS_OF_A_TURN)
    ]
    ratios = [t / (0.5 * (turns[i] + turns[i + 1])) for i, t in enumerate(theirs)]
    return {
        "ours_s": median(turns),
        "theirs_s": median(theirs),
        "ratio": median(ratios),
        "ratios": ratios,
    }


def _sum(run: dict, names) -> float:
    return sum(run["seconds"].get(name, 0.0) for name in names)


if __name__ == "__main__":
    main()
