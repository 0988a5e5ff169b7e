"""The reduction: raw segments in, time series out. Read this file first.

`reduce` walks the path of the data:

    segments ──segment_to_rates──► Rates ──rates_to_extraction──► Extraction ──► time series

Ramps are calibrated and fitted in blocks of rows that hold all integrations
(`ramps_to_rates`); rates are cleaned and extracted in blocks of integrations that hold whole
frames (`rates_to_spectra`). No result depends on where the blocks are cut.
"""

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from miri_gpu import backend as backends
from miri_gpu.backend import Backend
from miri_gpu.blocks import Workers
from miri_gpu.calibration import Calibration, load_calibration
from miri_gpu.containers import Rates, Spectra
from miri_gpu.errors import RecipeError
from miri_gpu.progress import Progress, Silent
from miri_gpu.ramps.jumps import clipping_limit, jump_method
from miri_gpu.ramps_to_rates import (
    Job,
    check_rows,
    dropped_groups,
    segment_to_rates,
    with_custom_linearity,
)
from miri_gpu.rate_files import USED_TIME, RateFacts, load_rates
from miri_gpu.rates_to_spectra import Extraction, extraction_params, rates_to_extraction
from miri_gpu.recipe import Recipe, load_recipe, settings_at_fault
from miri_gpu.rehearsal import rehearse
from miri_gpu.segments import Segment, open_segments
from miri_gpu.spectra.align import align_spectra, measure_shifts
from miri_gpu.spectra.box import spectrum_wavelengths

if TYPE_CHECKING:
    import xarray

    from miri_gpu.timeseries import Provenance

log = logging.getLogger(__name__)

_SECONDS_PER_DAY = 86400.0

# Steps that need a reference file: without one (N/A for this mode) they are left out.
_STAGE_1_REFERENCES = {
    "dq_init": "mask",
    "saturation": "saturation",
    "reset": "reset",
    "linearity": "linearity",
    "dark_current": "dark",
}
_REFERENCE_OF_STEP = {**_STAGE_1_REFERENCES, "flat_field": "flat"}


@dataclass(frozen=True)
class Plan:
    """All that is decided before the first pixel is read."""

    segments: tuple[Segment, ...]
    recipe: Recipe
    calibration: Calibration
    backend: Backend
    kept: np.ndarray  # (n_ints of the exposure,) bool


def reduce(
    segments: Sequence[str | Path],
    recipe: str | Path | Recipe | None = None,
    *,
    settings: Mapping[str, Mapping[str, Any]] | None = None,
    backend: str | None = None,
    references: str | Path | None = None,
    partial: bool = False,
    memory_bytes: int | None = None,
    progress: Progress | None = None,
    on_rates: Callable[[Segment, Rates], None] | None = None,
) -> "xarray.Dataset":
    """Reduce the segments of one observation to its time series.

    Parameters
    ----------
    segments : files `*_uncal.fits` (raw ramps) or `*_rateints.fits` (rate images), in any order
    recipe : "bright", "faint", a TOML file or a Recipe; None lets the number of groups choose
    settings : changes to the recipe, `{"jump": {"rejection_threshold": 10}}`
    backend : "auto", "cupy" or "numpy"; None asks the environment variable MIRI_GPU_BACKEND
    references : a folder of reference files; None asks CRDS
    partial : accept that segments of the exposure are missing
    memory_bytes : how much memory blocks may take; None asks the device
    progress : where to report to; None reports nothing
    on_rates : called with each raw segment and its rates, on the device, when they are ready

    Returns
    -------
    xarray.Dataset
        See `miri_gpu.timeseries` for its variables.

    Raises
    ------
    MiriGpuError
        Where the input cannot be reduced: the message names the file or the parameter.
    """
    plan = make_plan(segments, recipe, settings or {}, backend, references, partial)
    return run_plan(plan, memory_bytes=memory_bytes, progress=progress, on_rates=on_rates)


def make_plan(
    paths: Sequence[str | Path],
    recipe: str | Path | Recipe | None,
    settings: Mapping[str, Mapping[str, Any]],
    backend: str | None,
    references: str | Path | None,
    partial: bool,
) -> Plan:
    """Open the segments, choose recipe, references and backend, and check that they agree."""
    segments = open_segments(paths, partial=partial)
    if not isinstance(recipe, Recipe):
        recipe = load_recipe(recipe, segments[0].n_groups)
    recipe = recipe.updated(settings, "settings")
    chosen = backends.select(backend)
    calibration = load_calibration(
        segments[0].path,
        references=references,
        types=reference_types(recipe, from_ramps=segments[0].holds_ramps),
    )
    if recipe.runs("custom_gain"):
        calibration = calibration.with_gain(recipe["custom_gain"])
    recipe = _without_absent_references(recipe, calibration, segments[0].holds_ramps)
    kept = kept_integrations(segments, recipe)
    check_groups(recipe, segments)
    with settings_at_fault():
        rehearse(recipe, segments[0])
    warn_of_idle_jumps(recipe, segments)
    return Plan(segments, recipe, calibration, chosen, kept)


@settings_at_fault()
def run_plan(
    plan: Plan,
    *,
    memory_bytes: int | None = None,
    progress: Progress | None = None,
    on_rates: Callable[[Segment, Rates], None] | None = None,
) -> "xarray.Dataset":
    """Reduce segment after segment, then align the whole observation."""
    log.info("backend: %s on %s (%s)", plan.backend.name, plan.backend.device, plan.backend.reason)
    job = Job(
        recipe=plan.recipe,
        calibration=plan.calibration.to(plan.backend),
        backend=plan.backend,
        workers=Workers.of(plan.backend, memory_bytes),
        kept=plan.kept,
        progress=progress or Silent(),
    )
    if plan.segments[0].holds_ramps and plan.recipe.runs("custom_linearity"):
        job = with_custom_linearity(plan.segments[-1], job)
    parts = [reduce_segment(segment, job, on_rates) for segment in plan.segments]
    return assemble(plan, job, Extraction.concatenated(parts))


def reduce_segment(
    segment: Segment, job: Job, on_rates: Callable[[Segment, Rates], None] | None
) -> Extraction:
    """Reduce one segment; where it already holds rate images, stage 1 is left out."""
    if segment.holds_ramps:
        rates = segment_to_rates(segment, job)
        check_rows(rates, segment, job.calibration.wavelength)
        if on_rates is not None:
            on_rates(segment, rates)
    else:
        rates = load_rates(segment, job.integrations(segment)).map(job.backend.to_device)
        check_rows(rates, segment, job.calibration.wavelength)
    return rates_to_extraction(
        rates,
        job,
        name=segment.path.name,
        exposure_time_s=used_time_s(job.recipe, segment),
    )


def assemble(plan: Plan, job: Job, extraction: Extraction) -> "xarray.Dataset":
    """Align the spectra of the whole observation and make the product."""
    from miri_gpu.timeseries import build_timeseries

    y_shift = measure_shifts(extraction.flux)
    spectra = align_spectra(
        Spectra(flux=extraction.flux, flux_err=extraction.flux_err),
        y_shift,
        params=plan.recipe["align_spectra"],
    )
    times = [integration_times(plan, segment) for segment in plan.segments]
    return build_timeseries(
        wavelength=spectrum_wavelengths(
            plan.calibration.wavelength,
            extraction.trace_centre,
            params=extraction_params(plan.recipe),
        ),
        times={name: np.concatenate([part[name] for part in times]) for name in times[0]},
        integration_number=integration_numbers(plan),
        provenance=provenance(plan, job),
        flux=spectra.flux,
        flux_error=spectra.flux_err,
        background=extraction.background,
        n_outliers=extraction.n_outliers,
        n_jumps=extraction.n_jumps,
        x_shift=measure_shifts(extraction.cross_dispersion),
        y_shift=y_shift,
        trace_centre=extraction.trace_centre,
        psf_sigma=extraction.psf_sigma,
    )


def provenance(plan: Plan, job: Job) -> "Provenance":
    """How the time series was made, for its attributes."""
    from miri_gpu.timeseries import Provenance

    header = plan.segments[0].primary
    return Provenance(
        recipe=plan.recipe.to_toml(),
        backend=plan.backend.name,
        device=plan.backend.device,
        crds_context=job.calibration.context,
        reference_files=job.calibration.files,
        input_files=[segment.path.name for segment in plan.segments],
        target=plan.segments[0].target,
        program=header.get("PROGRAM", ""),
        observation=header.get("OBSERVTN", ""),
    )


def n_parts(plan: Plan) -> int:
    """How many integrations the recipe makes of one that was observed."""
    first = plan.segments[0]
    if not (first.holds_ramps and plan.recipe.runs("regroup")):
        return 1
    return first.n_groups // plan.recipe["regroup"].n_groups


def rate_facts(plan: Plan, segment: Segment) -> RateFacts:
    """What the file of a segment's rate images says of them, as if they were observed so."""
    n_observed = segment.primary.get("NINTS", len(plan.kept))
    n_dropped = int((~plan.kept).sum())
    cut = segment.holds_ramps and plan.recipe.runs("regroup")
    return RateFacts(
        first_integration=int(plan.kept[: segment.first_integration].sum()) * n_parts(plan),
        n_ints_of_exposure=(n_observed - n_dropped) * n_parts(plan),
        n_groups=plan.recipe["regroup"].n_groups if cut else segment.n_groups,
        used_time_s=used_time_s(plan.recipe, segment),
        times=integration_times(plan, segment),
    )


def integration_numbers(plan: Plan) -> np.ndarray:
    """Number in the exposure, from 1, of each integration of the product.

    Where the recipe cuts integrations, the parts are numbered anew, as if observed so.
    """
    numbers = []
    for segment in plan.segments:
        first = segment.first_integration
        kept = first + np.flatnonzero(plan.kept[first : first + segment.n_ints])
        numbers.append((kept[:, None] * n_parts(plan) + np.arange(n_parts(plan))).ravel() + 1)
    return np.concatenate(numbers)


def integration_times(plan: Plan, segment: Segment) -> dict[str, np.ndarray]:
    """Times of the integrations that a segment gives, dropped ones left out, cut ones divided.

    Returns
    -------
    dict of (n_ints,) float64 [days]
        The columns of INT_TIMES.
    """
    first = segment.first_integration
    kept = np.flatnonzero(plan.kept[first : first + segment.n_ints])
    times = {name: column[kept] for name, column in segment.times.items()}
    if not (segment.holds_ramps and plan.recipe.runs("regroup")):
        return times
    n_new = plan.recipe["regroup"].n_groups
    part_days = n_new * segment.readout.group_time_s / _SECONDS_PER_DAY
    offsets = part_days * np.arange(segment.n_groups // n_new)
    divided = {}
    for scale in ("MJD_UTC", "BJD_TDB"):
        start = (times[f"int_start_{scale}"][:, None] + offsets).ravel()
        divided[f"int_start_{scale}"] = start
        divided[f"int_mid_{scale}"] = start + 0.5 * part_days
        divided[f"int_end_{scale}"] = start + part_days
    return divided


def kept_integrations(segments: Sequence[Segment], recipe: Recipe) -> np.ndarray:
    """Which integrations of the exposure are not dropped, (n_ints of the exposure,) bool."""
    last = segments[-1]
    n_ints = last.first_integration + last.n_ints
    kept = np.ones(n_ints, dtype=bool)
    if recipe.runs("drop_integrations"):
        dropped = recipe["drop_integrations"].drop_integrations
        _check_indices("drop_integrations.drop_integrations", dropped, n_ints, "integrations")
        kept[list(dropped)] = False
    for segment in segments:
        first = segment.first_integration
        if not kept[first : first + segment.n_ints].any():
            raise RecipeError(
                "drop_integrations.drop_integrations: expected to leave an integration of each "
                f"segment, got all of {segment.path} dropped"
            )
    return kept


def check_groups(recipe: Recipe, segments: Sequence[Segment]) -> None:
    """Raise RecipeError where the recipe asks for groups that the ramps do not have."""
    first = segments[0]
    if not first.holds_ramps and USED_TIME in first.primary:
        return  # they were dropped, and it is known how many
    n_groups = first.n_groups
    if recipe.runs("drop_groups"):
        _check_indices(
            "drop_groups.drop_groups", recipe["drop_groups"].drop_groups, n_groups, "groups"
        )
    n_new = n_groups
    if first.holds_ramps and recipe.runs("regroup"):
        n_new = recipe["regroup"].n_groups
        if n_new > n_groups:
            raise RecipeError(
                f"regroup.n_groups: expected at most the {n_groups} groups of {first.path}, "
                f"got {n_new}"
            )
        if n_groups % n_new:
            log.warning(
                "regroup.n_groups: the last %d of %d groups are left over and lost",
                n_groups % n_new,
                n_groups,
            )
    n_left = int(used_groups(recipe, first).sum(axis=1).min())
    if n_left < 2:
        raise RecipeError(
            f"drop_groups.drop_groups, regroup.n_groups: expected to leave at least 2 of {n_new} "
            f"groups in each integration of {first.path}, got {n_left} left"
        )


def used_groups(recipe: Recipe, segment: Segment) -> np.ndarray:
    """Which groups of an integration, or of the parts it is cut into, are not dropped.

    Returns
    -------
    (n_parts, n_groups) bool
    """
    if not segment.holds_ramps:  # whatever was cut into them, rate images are cut no more
        recipe = recipe.updated({"regroup": {"skip": True}}, "rate images")
    return ~dropped_groups(recipe, 1, segment.n_groups)


def used_time_s(recipe: Recipe, segment: Segment) -> float:
    """Time over which a ramp was fitted, from its first to its last used group [s].

    Of the parts of a cut integration, the median; of rate images, what their header says, or else
    what follows from the groups that the recipe drops.
    """
    if not segment.holds_ramps and USED_TIME in segment.primary:
        return segment.primary[USED_TIME]
    n_steps = [np.ptp(np.flatnonzero(used)) for used in used_groups(recipe, segment)]
    return float(np.median(n_steps)) * segment.readout.group_time_s


def reference_types(recipe: Recipe, *, from_ramps: bool) -> list[str]:
    """The types of reference file that a reduction with this recipe reads."""
    of_step = _REFERENCE_OF_STEP if from_ramps else {"flat_field": "flat"}
    types = [reference for step, reference in of_step.items() if recipe.runs(step)]
    if recipe.runs("custom_linearity") and "linearity" in types:
        types.remove("linearity")
    return [*types, "gain", "specwcs", *(["readnoise"] if from_ramps else [])]


def _check_indices(name: str, indices: Sequence[int], n: int, what: str) -> None:
    for index in indices:
        if not -n <= index < n:
            raise RecipeError(
                f"{name}: expected {what} from {-n} to {n - 1}, as there are {n}, got {index}"
            )


def _without_absent_references(
    recipe: Recipe, calibration: Calibration, from_ramps: bool
) -> Recipe:
    """Leave out the steps that have no reference file for this mode, and say so."""
    wanted = reference_types(recipe, from_ramps=from_ramps)
    changes = {}
    for step, reference in _REFERENCE_OF_STEP.items():
        if recipe.runs(step) and reference in wanted and getattr(calibration, reference) is None:
            log.warning("%s is left out: there is no %s reference for this mode", step, reference)
            changes[step] = {"skip": True}
    return recipe.updated(changes, "references")


def warn_of_idle_jumps(recipe: Recipe, segments: Sequence[Segment]) -> None:
    """Say which way of finding jumps a segment gets, and warn where it cannot find any."""
    if not (segments[0].holds_ramps and recipe.runs("jump")):
        return
    params = recipe["jump"]
    for segment in segments:
        dropped = dropped_groups(recipe, segment.n_ints, segment.n_groups)
        method = jump_method(params, dropped)
        log.info("%s: jumps are sought by the method %r", segment.path.name, method)
        n_ints = len(dropped)
        if method == "none":
            log.warning("%s: too few groups to find jumps", segment.path.name)
        elif method == "sigma_clipping" and params.rejection_threshold >= clipping_limit(n_ints):
            log.warning(
                "%s: jump.rejection_threshold: among %d integrations nothing deviates by more than "
                "%.1f standard deviations, so that %g finds no jump",
                segment.path.name,
                n_ints,
                clipping_limit(n_ints),
                params.rejection_threshold,
            )
