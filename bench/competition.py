"""jwst and ExoTiC-MIRI beside miri_gpu: same machine, same segment, turn and turn about.

Ours, theirs, ours, ..., each in a fresh process with the same recipe and reference files; imports,
simulation and writing are not counted on either side. Each of their runs is compared with the mean
of our two beside it. Stage 1 is the STScI steps of the installed jwst; cleaning and extraction are
ExoTiC-MIRI's, which may need an environment of its own (--exotic-python).
"""

import statistics
import subprocess
import sys
from dataclasses import asdict, dataclass
from pathlib import Path

import click
import numpy as np

from bench.apart import BenchError, run_apart
from bench.results import RESULTS, write_results
from bench.sizes import SIZES, data_folder, describe_size, observation_of
from miri_gpu import backend as backends
from miri_gpu.recipe import SECTIONS, Recipe, load_recipe, parse_settings
from miri_gpu.simulate import Observation

STEPS = ("stage1", "cleaning", "all")

# What is compared with what: our stages and their steps. Our plan (references, wavelengths, checks)
# counts as part of our stage 1, because each of their steps looks up its own reference.
PHASES = {
    "stage1": (
        ("plan", "non-linearity", "whole-frame corrections", "ramps to rates"),
        (
            "open", "custom_gain", "group_scale", "dq_init", "saturation", "reset", "drop_groups",
            "custom_linearity", "linearity", "dark_current", "jump", "ramp_fit", "gain_scale",
        ),
    ),
    "cleaning": (
        ("cleaning",),
        ("flat_field", "clean_outliers", "background_subtract", "clean_outliers_again"),
    ),
    "extraction": (("extraction", "rest"), ("extract_1d_box", "align_spectra")),
}  # fmt: skip

HOW_TO_INSTALL = """\
exotic_miri is not installed in {python}, so its cleaning and extraction cannot be measured.
Install it there, or in an environment of its own:

    python -m venv exotic
    exotic/bin/pip install "jwst=={jwst}" exotic-miri
    python -m bench.competition --exotic-python exotic/bin/python
"""


@click.command(help=__doc__)
@click.option("--size", type=click.Choice(list(SIZES)), default="faint", help="What to reduce.")
@click.option("--steps", type=click.Choice(STEPS), default="all", help="What to compare.")
@click.option("--backend", type=click.Choice(backends.BACKENDS), help="Where ours computes.")
@click.option("--repeat", type=click.IntRange(1), default=1, help="Their runs; ours are one more.")
@click.option(
    "--exotic-python", default=sys.executable, help="Interpreter that has jwst and exotic_miri."
)
@click.option("--set", "changes", multiple=True, metavar="STEP.KEY=VALUE", help="For both.")
@click.option("--data", type=click.Path(path_type=Path), help="Folder that keeps simulated data.")
@click.option(
    "--results", type=click.Path(path_type=Path), default=RESULTS, help="Where JSON goes."
)
def main(
    size: str,
    steps: str,
    backend: str | None,
    repeat: int,
    exotic_python: str,
    changes: tuple[str, ...],
    data: Path | None,
    results: Path,
) -> None:
    """Measure, print, write."""
    chosen, settings = backends.select(backend), parse_settings(changes)
    if not has_exotic(exotic_python):
        if steps != "stage1":
            click.echo(how_to_install(exotic_python), err=True)
        if steps == "cleaning":
            raise SystemExit(2)
        steps = "stage1"
        settings["custom_linearity"] = {"skip": True}  # it is ExoTiC-MIRI's: nobody takes it then
    with data_folder(data) as folder:
        contest = Contest(size, steps, chosen.name, settings, observation_of(size, folder), folder)
        entry = compete(contest, repeat, exotic_python)
    case = "/".join([size, steps, chosen.name, *changes])
    path = write_results("competition", {case: entry}, chosen, results)
    click.echo(summary(entry))
    click.echo(f"written to {path}")


@dataclass(frozen=True)
class Contest:
    """What both sides do."""

    size: str
    steps: str
    backend: str  # of ours
    settings: dict[str, dict]  # changes to the recipe
    observation: Observation
    folder: Path  # for what they leave

    @property
    def recipe(self) -> Recipe:
        """The recipe that the number of groups chooses, with the changes."""
        return load_recipe(None, SIZES[self.size].n_groups).updated(self.settings, "--set")

    def arrays(self, side: str) -> str:
        """Where the last results of a side lie."""
        return str(self.folder / f"{side}.npz")


def compete(contest: Contest, repeat: int, python: str) -> dict:
    """Run both sides in turn, `repeat` of theirs between `repeat + 1` of ours, and compare."""
    observation, recipe = contest.observation, contest.recipe
    ours_task = {
        "segments": [str(path) for path in observation.segments],
        "backend": contest.backend,
        "settings": contest.settings,
        "save_arrays": contest.arrays("ours"),
    }
    if contest.steps == "cleaning":  # both begin with rates, made by ours and not measured
        folder = contest.folder / f"{contest.size}-rates"
        made = run_apart("bench.run_ours", {**ours_task, "rates_folder": str(folder)}, observation)
        ours_task["segments"] = made["rate_files"]
    theirs_task = {
        "segment": ours_task["segments"][0],
        "recipe": recipe_by_step(recipe),
        "steps": contest.steps,
        "save_arrays": contest.arrays("theirs"),
    }
    ours = [run_apart("bench.run_ours", ours_task, observation)]
    theirs = []
    for _ in range(repeat):
        theirs.append(run_apart("bench.run_theirs", theirs_task, observation, python))
        ours.append(run_apart("bench.run_ours", ours_task, observation))
    return {
        "size": contest.size,
        **describe_size(SIZES[contest.size]),
        "backend": contest.backend,
        "recipe": recipe.name,
        "changes": contest.settings,
        "steps": contest.steps,
        "phases": compare_phases(ours, theirs),
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
    if "extraction" in phases:
        phases["all"] = _compared(
            [run["total_s"] for run in ours], [run["total_s"] for run in theirs]
        )
    return phases


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


def summary(entry: dict) -> str:
    """A few lines for people."""
    shape = f"{entry['shape'][0]} x {entry['shape'][1]}"
    lines = [f"{entry['size']} ({shape}, {entry['recipe']}, {entry['backend']})"]
    for phase, found in entry["phases"].items():
        lines.append(
            f"  {phase:10s} theirs {found['theirs_s']:8.2f} s, ours {found['ours_s']:7.3f} s: "
            f"{found['ratio']:.1f} times as fast"
        )
    seconds = entry["theirs"][-1]["seconds"]
    lines += [f"    {taken:8.3f} s  {step}" for step, taken in seconds.items()]
    lines += [
        f"  {what.replace('_', ' ')}: {value:.3g}" for what, value in entry["agreement"].items()
    ]
    peaks = [max(run["peak_memory_bytes"] for run in entry[side]) for side in ("theirs", "ours")]
    lines.append(f"  peak memory: theirs {peaks[0] / 1e9:.2f} GB, ours {peaks[1] / 1e9:.2f} GB")
    return "\n".join(lines)


def _compared(ours: list[float], theirs: list[float]) -> dict:
    """Each of their runs over the mean of ours before and after it."""
    ratios = [t / (0.5 * (ours[i] + ours[i + 1])) for i, t in enumerate(theirs)]
    return {
        "ours_s": statistics.median(ours),
        "theirs_s": statistics.median(theirs),
        "ratio": statistics.median(ratios),
        "ratios": ratios,
    }


def _sum(run: dict, names) -> float:
    return sum(run["seconds"].get(name, 0.0) for name in names)


if __name__ == "__main__":
    main()
