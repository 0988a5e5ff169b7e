"""One reduction by jwst and, where it is installed, ExoTiC-MIRI, measured from within.

`python -m bench.run_theirs TASK` prints JSON. It runs in the environment of the competition, so it
imports nothing of miri_gpu; what the recipe says comes with the task.
"""

import importlib
import importlib.util
import json
import sys
import time
import types

import numpy as np

from bench.clock import Stopwatch, peak_memory_bytes

DO_NOT_USE = 1
_STSCI_STEPS = {
    "group_scale": ("jwst.group_scale", "GroupScaleStep"),
    "dq_init": ("jwst.dq_init", "DQInitStep"),
    "saturation": ("jwst.saturation", "SaturationStep"),
    "reset": ("jwst.reset", "ResetStep"),
    "linearity": ("jwst.linearity", "LinearityStep"),
    "dark_current": ("jwst.dark_current", "DarkCurrentStep"),
    "jump": ("jwst.jump", "JumpStep"),
    "ramp_fit": ("jwst.ramp_fitting", "RampFitStep"),
    "gain_scale": ("jwst.gain_scale", "GainScaleStep"),
    "assign_wcs": ("jwst.assign_wcs", "AssignWcsStep"),
    "flat_field": ("jwst.flatfield", "FlatFieldStep"),
}
# What CRDS imports when it is first asked; imported beforehand, since imports do not count.
IMPORTED_BY_CRDS = ("crds.jwst.locate", "crds.roman", "crds.tobs")
RAMP_STEPS = (
    "group_scale", "dq_init", "saturation", "reset", "drop_groups", "custom_linearity", "linearity",
    "dark_current", "jump", "ramp_fit", "gain_scale",
)  # fmt: skip


class Pipeline:
    """The steps of a recipe, called as its authors document, each one timed.

    Parameters
    ----------
    recipe : dict of step to its settings; a step that is absent is left out
    """

    def __init__(self, recipe: dict[str, dict]):
        self.recipe = recipe
        self.stopwatch = Stopwatch()
        self.steps = {
            name: getattr(importlib.import_module(module), step)
            for name, (module, step) in _STSCI_STEPS.items()
        }
        self.datamodels = importlib.import_module("jwst.datamodels")
        for name in IMPORTED_BY_CRDS:
            importlib.import_module(name)
        self.exotic = _import_exotic()
        self.overrides: dict[str, dict] = {}

    def call(self, step: str, model):
        """Run one of the STScI steps with the recipe's settings."""
        settings = self.settings(step, self.steps[step])
        with self.stopwatch.stage(step):
            return self.steps[step].call(model, **settings, **self.overrides.get(step, {}))

    def settings(self, step: str, their_step: type) -> dict:
        """What the recipe says of a step, of what their step can be told."""
        known = their_step.load_spec_file()
        values = self.recipe.get(step, {})
        return {
            name: value for name, value in values.items() if name in known and value is not None
        }

    def ramps_to_rates(self, path: str):
        """Stage 1: from a raw segment to its rates, a model."""
        with self.stopwatch.stage("open"):
            model = self.datamodels.RampModel(path)
        self._override_gain(model)
        for step in RAMP_STEPS:
            if step not in self.recipe:
                continue
            if step == "drop_groups":
                with self.stopwatch.stage(step):
                    model.groupdq[:, self.recipe[step]["drop_groups"]] |= DO_NOT_USE
            elif step == "custom_linearity":
                self._override_linearity(model)
            elif step == "ramp_fit":
                model = self.call(step, model)[1]  # the rates of each integration
            else:
                model = self.call(step, model)
        return model

    def call_exotic(self, step: str, name: str, model, *arrays, stage: str | None = None):
        """Run one of ExoTiC-MIRI's stage-2 steps with the recipe's settings."""
        their_step = getattr(self.exotic.stage_2, name)
        settings = self.settings(step, their_step)
        with self.stopwatch.stage(stage or step):
            return their_step.call(model, *arrays, **settings)

    def rates_to_spectra(self, rates) -> dict:
        """Stage 2, by ExoTiC-MIRI: flat, cleaning, background, cleaning, extraction, shifts."""
        rates = self.call("assign_wcs", rates)
        with self.stopwatch.stage("wavelength_map"):
            wavelength = self.exotic.reference.GetWavelengthMap.call(rates)
        if "flat_field" in self.recipe:
            rates = self.call("flat_field", rates)
        copy = rates.copy()  # because the cleaning changes what it is given
        cleaned = self.call_exotic("clean_outliers", "CleanOutliersStep", copy)[0]
        background = self.call_exotic("background_subtract", "BackgroundSubtractStep", cleaned)[1]
        rates.data = rates.data - background
        rates = self.call_exotic(
            "clean_outliers", "CleanOutliersStep", rates, stage="clean_outliers_again"
        )[0]
        _, flux, err, _ = self.call_exotic("extract_1d_box", "Extract1DBoxStep", rates, wavelength)
        aligned = self.call_exotic("align_spectra", "AlignSpectraStep", rates, flux, err)
        return {"flux": aligned[0], "flux_err": aligned[1]}

    def _override_gain(self, model) -> None:
        """One gain for all pixels, for the steps that use it."""
        if "custom_gain" not in self.recipe:
            return
        with self.stopwatch.stage("custom_gain"):
            reference = self.steps["jump"]().get_reference_file(model, "gain")
            gain = self.datamodels.GainModel(reference)
            gain.data = np.full_like(gain.data, self.recipe["custom_gain"]["gain_value"])
        for step in ("jump", "ramp_fit", "gain_scale"):
            self.overrides[step] = {"override_gain": gain}

    def _override_linearity(self, model) -> None:
        """The self-calibrated linearity, where ExoTiC-MIRI is there to measure it."""
        if self.exotic is None:
            return
        their_step = self.exotic.reference.SetCustomLinearity
        settings = self.settings("custom_linearity", their_step)
        settings["group_idx_end_derive"] %= model.data.shape[1]  # it takes no negative one
        with self.stopwatch.stage("custom_linearity"):
            linearity = their_step.call(model, **settings)
        self.overrides["linearity"] = {"override_linearity": linearity}


def run_once(task: dict) -> dict:
    """Reduce one segment and measure it.

    Parameters
    ----------
    task : dict
        `segment`: path, of raw ramps or of rates; `recipe`: settings by step; `steps`: "stage1",
        "stage2" or "all"; and, optional, `save_arrays`: .npz file for rates and spectra.

    Returns
    -------
    dict : `seconds`, `total_s`, `imports_s`, `peak_memory_bytes`, `python`, `packages`
    """
    began = time.perf_counter()
    pipeline = Pipeline(task["recipe"])
    start = time.perf_counter()
    arrays = {}
    if task["steps"] == "stage2":
        rates = pipeline.datamodels.CubeModel(task["segment"])
    else:
        rates = pipeline.ramps_to_rates(task["segment"])
        arrays = {"rates": rates.data.copy(), "dq": rates.dq.copy()}
    if task["steps"] != "stage1":
        arrays |= pipeline.rates_to_spectra(rates)
    end = time.perf_counter()
    if "save_arrays" in task:
        np.savez(task["save_arrays"], **arrays)
    return {
        "seconds": pipeline.stopwatch.seconds,
        "total_s": end - start,
        "imports_s": start - began,
        "peak_memory_bytes": peak_memory_bytes(),
        **describe_environment(),
    }


def describe_environment() -> dict:
    """Which interpreter and packages these are."""
    metadata = importlib.import_module("importlib.metadata")
    versions = {}
    for package in ("jwst", "stcal", "exotic-miri", "numpy", "scipy"):
        try:
            versions[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            continue
    return {"python": sys.version.split()[0], "packages": versions}


def _import_exotic():
    """The package exotic_miri with its parts, or None where it is not installed."""
    if importlib.util.find_spec("exotic_miri") is None:
        return None
    for part in ("reference", "stage_2"):
        importlib.import_module(f"exotic_miri.{part}")
    if np.__version__.partition(".")[0] != "1":
        importlib.import_module("exotic_miri.stage_2.clean_outliers_step").np = _older_numpy()
    return importlib.import_module("exotic_miri")


def _older_numpy():
    """NumPy as the cleaning of ExoTiC-MIRI 1.0.1 expects it: two things changed with NumPy 2.

    RankWarning has moved, and "0" has become True as a boolean: every pixel would count as bad, and
    the cleaned frames would be zero. What stands in takes no longer than what NumPy 1 did.
    """

    def binary_digits(number, width):
        return [int(digit) for digit in np.binary_repr(number, width)]

    changed = {"RankWarning": np.exceptions.RankWarning, "binary_repr": binary_digits}
    return types.SimpleNamespace(**{**vars(np), **changed})


if __name__ == "__main__":
    print(json.dumps(run_once(json.loads(sys.argv[1]))))
