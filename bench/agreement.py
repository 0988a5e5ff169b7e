"""How closely each step gives what the installed jwst gives: `python -m bench.agreement`.

Segments are simulated with everything that goes wrong (jumps, saturation, dead, hot and NaN
pixels); STScI's steps run on them one after the other, and each of ours runs on what its twin was
given. The table says how many samples or pixels were compared, in how many a data-quality bit
differs, and the largest and median relative differences (relative to 1 DN, or 1 DN/s, where the
value is smaller than that).
"""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from importlib import metadata
from pathlib import Path

import click
import numpy as np

from bench.observations import data_folder
from bench.readme import put
from bench.results import RESULTS, write_results
from miri_gpu import backend as backends
from miri_gpu.calibration import load_calibration
from miri_gpu.containers import Ramps, Rates
from miri_gpu.detector import DO_NOT_USE, SATURATED
from miri_gpu.ramp_steps import RAMP_STEPS, Block, FrameCorrections
from miri_gpu.ramps.emi import measure_emi
from miri_gpu.ramps.likelihood import LikelihoodParams, fit_ramps_likelihood
from miri_gpu.ramps.ramp_fit import RampFitParams, fit_ramps
from miri_gpu.rates.flat import apply_flat
from miri_gpu.rates.gain import scale_gain
from miri_gpu.recipe import Recipe, named_recipe
from miri_gpu.segments import open_segment
from miri_gpu.simulate import Observation, SimulationSettings, simulate

_FAULTY = SimulationSettings(n_segments=1, star_peak_rate=9000.0, cosmic_ray_rate=3.0, seed=5)
CASES = {
    f"{n_ints} x {n_groups}": replace(_FAULTY, n_ints=n_ints, n_groups=n_groups)
    for n_ints, n_groups in ((150, 9), (3, 40), (40, 64), (1, 100))
}
TINY = {"2 x 5": replace(_FAULTY, n_ints=2, n_groups=5)}


@dataclass(frozen=True)
class Agreement:
    """One step on one segment: theirs beside ours."""

    step: str
    case: str
    n_compared: int
    n_dq_differ: int
    n_nan_differ: int
    largest: float
    median: float
    largest_err: float | None = None
    largest_variance: float | None = None


@contextmanager
def crds_cache(observation: Observation) -> Iterator[None]:
    """Let STScI's steps find the simulated references, and no server."""
    changed = {
        "CRDS_PATH": str(observation.crds_path),
        "CRDS_CONTEXT": observation.crds_context,
        "CRDS_SERVER_URL": None,
    }
    before = {name: os.environ.get(name) for name in changed}

    def assign(values):
        for name, value in values.items():
            os.environ.pop(name, None)
            if value is not None:
                os.environ[name] = value

    assign(changed)
    try:
        yield
    finally:
        assign(before)


# STScI's steps in the order of Detector1Pipeline: module and class, our name, settings tried.
_BRIGHT_JUMP = {
    "rejection_threshold": 15.0,
    "three_group_rejection_threshold": 15.0,
    "four_group_rejection_threshold": 15.0,
    "flag_4_neighbors": False,
}
LIKELY_AS_STSCI, LIKELY = "ramp_fit (LIKELY, as_stsci = true)", "ramp_fit (LIKELY)"
WHY = {  # what is compared, and where ours differs on purpose
    LIKELY_AS_STSCI: "compared: ramps of at least three usable differences, of pixels with a gain",
    LIKELY: (
        "no jump is looked for among two differences; dropped and saturated groups do not decide "
        "how noisy a ramp is; the difference after a flagged jump is used; without a rate, error "
        "and variances are 0 (theirs NaN), with DO_NOT_USE, and NO_GAIN_VALUE where that is why"
    ),
}
RAMP_TWINS = (
    ("group_scale", "GroupScaleStep", "group_scale", {}),
    ("dq_init", "DQInitStep", "dq_init", {}),
    ("emicorr", "EmiCorrStep", "emicorr", {"algorithm": "sequential"}),
    ("emicorr", "EmiCorrStep", "emicorr", {"algorithm": "joint"}),
    ("saturation", "SaturationStep", "saturation", {"n_pix_grow_sat": 2}),
    ("saturation", "SaturationStep", "saturation", {}),
    ("firstframe", "FirstFrameStep", "firstframe", {}),
    ("lastframe", "LastFrameStep", "lastframe", {}),
    ("reset", "ResetStep", "reset", {}),
    ("linearity", "LinearityStep", "linearity", {}),
    ("rscd", "RscdStep", "rscd", {}),
    ("dark_current", "DarkCurrentStep", "dark_current", {}),
    ("jump", "JumpStep", "jump", {"minimum_sigclip_groups": 10**6, **_BRIGHT_JUMP}),
    ("jump", "JumpStep", "jump", {"after_jump_flag_dn1": 100.0, "after_jump_flag_time1": 0.5}),
    ("jump", "JumpStep", "jump", {}),
)


def compare_case(case: str, settings: SimulationSettings, folder: Path) -> list[Agreement]:
    """Run all steps of both sides on one simulated segment.

    Where a step is tried with several settings, the next one goes on from the last of them.
    """
    observation = simulate(folder / case.replace(" ", ""), settings)
    with crds_cache(observation), _quiet():
        return list(_compare(case, observation.segments[0]))


def _compare(case: str, path: Path) -> Iterator[Agreement]:
    from stdatamodels.jwst import datamodels

    segment = open_segment(path)
    calibration = load_calibration(path)
    model = datamodels.RampModel(path)
    model.pixeldq = np.zeros(model.shape[2:], dtype=np.uint32)
    model.groupdq = np.zeros(model.shape, dtype=np.uint8)
    for number, (module, cls, step, settings) in enumerate(RAMP_TWINS):
        recipe = _recipe(step, settings)
        given = _ramps(model)
        theirs = _step(module, cls).call(model, skip=False, **settings)
        ours = RAMP_STEPS[step](given, _block(step, recipe, calibration, segment, given))
        yield _ramp_agreement(_label(step, settings), case, ours, _ramps(theirs))
        if number + 1 == len(RAMP_TWINS) or RAMP_TWINS[number + 1][2] != step:
            model = theirs
            if step == "dark_current":
                yield from _compare_likelihood(case, model, calibration, segment)
    yield from _compare_rate_steps(case, model, calibration, segment)


def _compare_likelihood(case, model, calibration, segment) -> Iterator[Agreement]:
    """The LIKELY algorithm, which finds the jumps itself."""
    given = _ramps(model)
    _, cube = _step("ramp_fitting", "RampFitStep").call(model, algorithm="LIKELY")
    theirs = _rates(cube)
    good = (given.groupdq & (DO_NOT_USE | SATURATED)) == 0
    comparable = (good[:, 1:] & good[:, :-1]).sum(axis=1) > 2
    comparable &= ((given.pixeldq & DO_NOT_USE) == 0) & (calibration.gain > 0)
    for label, as_stsci in ((LIKELY_AS_STSCI, True), (LIKELY, False)):
        ours = fit_ramps_likelihood(
            given,
            calibration.read_noise,
            calibration.gain,
            params=LikelihoodParams(as_stsci=as_stsci),
            readout=segment.readout,
            dark_current=calibration.average_dark,
        ).rates
        where = comparable if as_stsci else slice(None)
        pair = (rates.map(lambda plane: plane[where]) for rates in (ours, theirs))  # noqa: B023
        yield _rate_agreement(label, case, *pair)


def _compare_rate_steps(case, model, calibration, segment) -> Iterator[Agreement]:
    given = _ramps(model)
    _, cube = _step("ramp_fitting", "RampFitStep").call(model)
    ours = fit_ramps(
        given,
        calibration.read_noise,
        calibration.gain,
        params=RampFitParams(),
        readout=segment.readout,
        dark_current=calibration.average_dark,
    )
    yield _rate_agreement("ramp_fit (OLS_C)", case, ours, _rates(cube))
    scaled = cube.copy()
    scaled.meta.exposure.gain_factor = 1.25
    given = _rates(scaled)
    theirs = _rates(_step("gain_scale", "GainScaleStep").call(scaled))
    yield _rate_agreement("gain_scale (1.25)", case, scale_gain(given, 1.25), theirs)
    given = _rates(cube)
    theirs = _step("flatfield", "FlatFieldStep").call(
        _step("assign_wcs", "AssignWcsStep").call(cube)
    )
    ours = apply_flat(given, calibration.flat, calibration.flat_err, calibration.flat_dq)
    yield _rate_agreement("flat_field", case, ours, _rates(theirs))


def _step(module: str, cls: str):
    import importlib

    return getattr(importlib.import_module(f"jwst.{module}"), cls)


def _label(step: str, settings: dict) -> str:
    if settings.get("minimum_sigclip_groups"):
        return "jump (recipe `bright`)"
    words = ", ".join(f"{key} = {value}" for key, value in settings.items())
    return f"{step} ({words})" if words else step


def _recipe(step: str, settings: dict) -> Recipe:
    """The settings of jwst's own defaults, with some changed."""
    recipe = named_recipe("bright")
    if step not in recipe.settings:
        return recipe
    defaults = type(recipe[step])(**settings)
    return replace(recipe, settings={**recipe.settings, step: defaults})


def _block(step: str, recipe: Recipe, calibration, segment, ramps: Ramps) -> Block:
    """What our step needs for a whole frame."""
    emi = None
    if step == "emicorr":
        emi = measure_emi(
            ramps, calibration.emicorr, params=recipe["emicorr"], readout=segment.readout
        )
    dropped = ((ramps.groupdq & 1) != 0).all(axis=(2, 3))
    return Block(
        recipe=recipe,
        calibration=calibration,
        readout=segment.readout,
        dropped=dropped,
        median_gain=float(np.nanmedian(calibration.gain)),
        frames=FrameCorrections(emi=emi),
    )


def _ramps(model) -> Ramps:
    return Ramps(
        data=np.array(model.data, dtype=np.float32),
        groupdq=np.array(model.groupdq, dtype=np.uint8),
        pixeldq=np.array(model.pixeldq, dtype=np.uint32),
    )


def _rates(model) -> Rates:
    names = ("data", "err", "var_poisson", "var_rnoise")
    planes = {name: np.array(getattr(model, name), dtype=np.float32) for name in names}
    return Rates(**planes, dq=np.array(model.dq, dtype=np.uint32))


def _ramp_agreement(step: str, case: str, ours: Ramps, theirs: Ramps) -> Agreement:
    largest, median, n_nan = differences(ours.data, theirs.data)
    n_dq = int((ours.groupdq != theirs.groupdq).sum() + (ours.pixeldq != theirs.pixeldq).sum())
    return Agreement(step, case, ours.data.size, n_dq, n_nan, largest, median)


def _rate_agreement(step: str, case: str, ours: Rates, theirs: Rates) -> Agreement:
    largest, median, n_nan = differences(ours.data, theirs.data)
    variances = ("var_poisson", "var_rnoise")
    compared = [differences(getattr(ours, n), getattr(theirs, n)) for n in variances]
    err = differences(ours.err, theirs.err)
    return Agreement(
        step,
        case,
        ours.data.size,
        int((ours.dq != theirs.dq).sum()),
        n_nan + err[2] + sum(v[2] for v in compared),
        largest,
        median,
        largest_err=err[0],
        largest_variance=max(v[0] for v in compared),
    )


def differences(ours: np.ndarray, theirs: np.ndarray) -> tuple[float, float, int]:
    """Largest and median relative difference, and how many are NaN on one side only."""
    known = np.isfinite(ours) & np.isfinite(theirs)
    n_differ = int((np.isnan(ours) != np.isnan(theirs)).sum())
    if not known.any():
        return 0.0, 0.0, n_differ
    a, b = ours[known].astype(np.float64), theirs[known].astype(np.float64)
    relative = np.abs(a - b) / np.maximum(np.abs(b), 1.0)
    return float(relative.max()), float(np.median(relative)), n_differ


@contextmanager
def _quiet() -> Iterator[None]:
    """Without the log lines and warnings of STScI's steps."""
    import logging
    import warnings

    logging.disable(logging.CRITICAL)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(logging.NOTSET)


def table(found: list[Agreement]) -> str:
    """The agreement of each step, its worst case over all segments, as Markdown."""
    lines = [
        "| step | compared | DQ differs | NaN differs | data | median | error | variance "
        "| why it differs |",
        "|---|---:|---:|---:|---:|---:|---:|---:|---|",
    ]
    for step in dict.fromkeys(a.step for a in found):
        of_step = [a for a in found if a.step == step]
        extremes = [_worst(of_step, name) for name in ("largest", "median")]
        extremes += [_worst(of_step, name) for name in ("largest_err", "largest_variance")]
        counts = [sum(getattr(a, n) for a in of_step)
                  for n in ("n_compared", "n_dq_differ", "n_nan_differ")]  # fmt: skip
        cells = [
            f"{step}",
            *(f"{c:,}".replace(",", " ") for c in counts),
            *extremes,
            WHY.get(step, ""),
        ]
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def _worst(found: list[Agreement], name: str) -> str:
    values = [getattr(a, name) for a in found if getattr(a, name) is not None]
    if not values:
        return ""
    return f"{max(values):.0e}" if max(values) > 0 else "0"


def captioned(text: str) -> str:
    """The table as it stands in the README: after what was compared with what."""
    versions = ", ".join(f"{name} {metadata.version(name)}" for name in ("jwst", "stcal", "numpy"))
    cases = ", ".join(CASES)
    return f"Against {versions}; segments of {cases} (integrations x groups).\n\n{text}"


@click.command(help=__doc__)
@click.option("--case", "cases", multiple=True, type=click.Choice([*CASES, *TINY]))
@click.option("--data", type=click.Path(path_type=Path), help="Folder that keeps the simulations.")
@click.option("--results", type=click.Path(path_type=Path), default=RESULTS)
@click.option("--readme", is_flag=True, help="Put the table into README.md.")
def main(cases, data, results, readme):
    """Compare, print the table, and keep the figures."""
    with data_folder(data) as folder:
        found = []
        for case in cases or CASES:
            click.echo(f"{case} ...", err=True)
            found += compare_case(case, {**CASES, **TINY}[case], folder)
    text = table(found)
    click.echo(text)
    versions = {name: metadata.version(name) for name in ("jwst", "stcal", "numpy")}
    entries = {f"{a.step} / {a.case}": {**asdict(a), "versions": versions} for a in found}
    write_results("agreement", entries, backends.select("numpy"), results)
    if readme:
        put("agreement", captioned(text))


if __name__ == "__main__":
    main()
