"""Rates to spectra: the steps in order, walked over a segment in blocks of integrations.

Frames are flat-fielded, cleaned, freed of their background and extracted block by block. An optimal
extraction may want the median profile of all of them: they are cleaned beforehand, too, then.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial

import numpy as np

from miri_gpu import detector
from miri_gpu.backend import namespace, to_host
from miri_gpu.background import (
    BackgroundParams,
    background_error,
    evaluate_background,
    measure_background,
    subtract_background,
)
from miri_gpu.containers import Array, ArrayBundle, Rates, Spectra
from miri_gpu.errors import SegmentError
from miri_gpu.job import Job
from miri_gpu.numerics import masked_median
from miri_gpu.plan import Plan
from miri_gpu.ramps_to_rates import Fit
from miri_gpu.rates.errors import fill_unknown_errors
from miri_gpu.rates.flat import apply_flat
from miri_gpu.rates.gain import fill_unknown_gain
from miri_gpu.rates.outliers import clean_outliers, count_flagged, replace_outliers
from miri_gpu.rates.trace import fit_trace
from miri_gpu.segments import Segment
from miri_gpu.spectra.align import cross_dispersion_profiles
from miri_gpu.spectra.box import Aperture, extract_box, find_aperture
from miri_gpu.spectra.optimal import extract_optimal

_BYTES_PER_FRAME = 2 * detector.N_ROWS * detector.N_COLS * 8  # fits are in float64
_BYTES_TOGETHER = 1 << 30  # of frames at most, which a host reads before a GPU has them


@dataclass(frozen=True, eq=False, kw_only=True)
class Frames(ArrayBundle):
    """Clean, background-free frames, ready to be extracted.

    Attributes
    ----------
    data, err : (n_ints, n_rows, n_cols) float32 [DN/s]
    var_rnoise : (n_ints, n_rows, n_cols) float32 [(DN/s)^2]
    background : (n_ints, n_rows, n_terms) float32 [DN/s]
        What was subtracted, as `measure_background` gives it.
    background_err : (n_ints, n_rows, n_cols or 1) float32 [DN/s] or None
        Its standard deviation, where it was measured.
    profile : (n_ints, n_rows, n_cols) float32 or None
        Spatial profile, of sum 1 in each row, where the extraction is optimal.
    n_outliers : (n_ints, n_rows, 5) int32
        Outliers within 0 .. 4 columns of the trace.
    n_jumps : (n_ints,) int
        Pixels with a cosmic-ray jump flagged in their ramp.
    """

    data: Array
    err: Array
    var_rnoise: Array
    background: Array
    background_err: Array | None
    profile: Array | None
    n_outliers: Array
    n_jumps: Array


@dataclass(frozen=True, eq=False, kw_only=True)
class Extraction(ArrayBundle):
    """What is kept of each integration, on the host.

    Attributes
    ----------
    flux, flux_err : (n_ints, n_rows) float32 [DN/s]
    background : (n_ints, n_rows) float32 [DN/s]
        What was subtracted, per pixel, at the columns of the aperture.
    n_outliers : (n_ints, n_rows, 5) int32
    n_jumps : (n_ints,) int
    trace_centre, psf_sigma : (n_ints,) float64 [pixel]
    cross_dispersion : (n_ints, n_cols_used) float64 [DN/s]
        Sum over rows: the profile whose shifts are the x-shifts.
    background_err : (n_ints, n_rows) float32 [DN/s] or None
        What the subtracted background has of `flux_err`.
    chi_square : (n_ints, n_rows) float64 or None
        Per degree of freedom, of all ramps in the aperture, where the likelihood was fitted; NaN
        where no ramp was.
    """

    flux: Array
    flux_err: Array
    background: Array
    n_outliers: Array
    n_jumps: Array
    trace_centre: Array
    psf_sigma: Array
    cross_dispersion: Array
    background_err: Array | None = None
    chi_square: Array | None = None


def rates_to_extraction(
    take: Callable[[slice], Fit], n_ints: int, segment: Segment, job: Job
) -> Extraction:
    """Clean and extract all frames of a segment; the main loop of stage 2.

    Parameters
    ----------
    take : function of a block of integrations
        Gives their rates, on the device.
    n_ints : int
    segment : Segment
        That they come from.
    job : Job

    Raises
    ------
    SegmentError
        Where a row of the spectrum has no usable pixel in any integration.
    """
    name, exposure_time_s = segment.path.name, job.plan.used_time_s(segment)
    blocks = blocks_of_rates(n_ints, job)
    profile = _median_profile(take, n_ints, job, name) if _wants_median_profile(job) else None
    done: dict[int, tuple[Extraction, np.ndarray]] = {}

    def extract(ints: slice) -> None:
        fit = take(ints)
        frames = clean_frames(fit.rates, job)
        if profile is not None:
            frames = replace(frames, profile=profile)
        usable = usable_rows(fit.rates)
        done[ints.start] = extract_frames(frames, fit, job, exposure_time_s), usable

    job.progress.start(f"{name}: rates to spectra", len(blocks))
    job.workers.run(extract, blocks, job.progress.advance)
    parts, rows = zip(*(done[start] for start in sorted(done)), strict=True)
    usable = np.concatenate(rows)
    check_rows(usable.any(axis=0), segment, job.calibration.wavelength)
    return without_dead(Extraction.concatenated(parts), usable)


def blocks_of_rates(n_ints: int, job: Job) -> list[slice]:
    """Integrations that are worked on together.

    As few blocks as memory and threads allow: each costs some time, however small it is.
    """
    n_bytes = min(job.workers.bytes_per_block, _BYTES_TOGETHER)
    workers = replace(job.workers, bytes_per_block=n_bytes, blocks_per_thread=1)
    return workers.cut(0, n_ints, _BYTES_PER_FRAME)


def _wants_median_profile(job: Job) -> bool:
    recipe = job.recipe
    return recipe.runs("extract_1d_optimal") and recipe["extract_1d_optimal"].median_spatial_profile


def _median_profile(take: Callable[[slice], Fit], n_ints: int, job: Job, name: str) -> Array:
    """Median spatial profile of all frames, (1, n_rows, n_cols)."""
    params, xp = job.recipe["clean_outliers"], job.backend.xp
    columns = slice(params.spatial_profile_left_idx, params.spatial_profile_right_idx)
    n_columns = len(range(detector.N_COLS)[columns])
    shape = (n_ints, detector.N_ROWS, n_columns)
    store = job.room.store({"profile": (shape, np.float32)}, xp=xp)
    median = xp.zeros((1, detector.N_ROWS, detector.N_COLS), dtype=xp.float32)

    def clean(ints: slice) -> None:
        store.put(ints, {"profile": clean_frames(take(ints).rates, job).profile[..., columns]})

    def take_median(rows: slice) -> None:
        profiles = store.take((slice(None), rows))["profile"]
        median[:, rows, columns] = masked_median(profiles, axis=0)

    blocks = blocks_of_rates(n_ints, job)
    row_blocks = job.workers.cut(0, detector.N_ROWS, 4 * n_ints * n_columns)
    job.progress.start(f"{name}: median profile", len(blocks) + len(row_blocks))
    job.workers.run(clean, blocks, job.progress.advance)
    job.workers.run(take_median, row_blocks, job.progress.advance)
    return median


def clean_frames(rates: Rates, job: Job) -> Frames:
    """Flat field, outliers and background of a block of frames, in the order of the recipe.

    The background is measured on a cleaned copy and subtracted from the rates themselves, which
    are then cleaned anew.
    """
    recipe, calibration = job.recipe, job.calibration
    xp = job.backend.xp
    if recipe.runs("flat_field"):
        rates = apply_flat(rates, calibration.flat, calibration.flat_err, calibration.flat_dq)
    data = rates.data
    background, background_err = xp.zeros((*data.shape[:2], 1), dtype=xp.float32), None
    if (last := last_background(job.plan)) is not None:
        background_err = background_error(rates.data, rates.err, rates.dq, params=last)
        background_err = fill_unknown_errors(background_err)
    if recipe.runs("background_subtract"):
        background = measure_background(
            data,
            rates.dq,
            params=recipe["background_subtract"],
            clean=partial(replace_outliers, params=recipe["clean_outliers"]),
        )
        data = subtract_background(data, background)
    profile = None
    if recipe.runs("extract_1d_optimal"):
        cleaned = clean_outliers(data, rates.dq, params=recipe["clean_outliers"])
        data, dq, profile = cleaned.data, cleaned.dq, cleaned.profile
    else:
        data, dq = replace_outliers(data, rates.dq, params=recipe["clean_outliers"])
    return Frames(
        data=data,
        err=rates.err,
        var_rnoise=rates.var_rnoise,
        background=background,
        background_err=background_err,
        profile=profile,
        n_outliers=count_flagged(dq),
        n_jumps=((rates.dq & detector.JUMP_DET) != 0).sum(axis=(1, 2)),
    )


def last_background(plan: Plan) -> BackgroundParams | None:
    """How the background is measured whose error stays: the last one that is subtracted."""
    steps = ["background_subtract"]
    if plan.from_ramps:
        steps.append("group_background_subtract")
    return next((plan.recipe[step] for step in steps if plan.recipe.runs(step)), None)


def extract_frames(frames: Frames, fit: Fit, job: Job, exposure_time_s: float) -> Extraction:
    """Extract a block of clean frames, and measure their trace.

    `fit` is what they were made of: its chi-square is of the ramps in the aperture.
    """
    xp = job.backend.xp
    trace = fit_trace(frames.data, params=job.recipe["trace"])
    background = evaluate_background(frames.background, detector.N_COLS)
    spectra = _extract(frames, trace.centre, background, job, exposure_time_s)
    aperture = find_aperture(frames.data, trace.centre, params=job.recipe.extraction)
    in_aperture = xp.where(aperture.inside, background[..., aperture.columns], 0).sum(axis=-1)
    n_inside = aperture.inside.sum(axis=-1)
    per_pixel = xp.where(n_inside > 0, in_aperture / xp.maximum(n_inside, 1), xp.nan)
    return Extraction(
        flux=spectra.flux,
        flux_err=spectra.flux_err,
        background=per_pixel,
        n_outliers=frames.n_outliers,
        n_jumps=frames.n_jumps,
        trace_centre=trace.centre,
        psf_sigma=trace.sigma,
        cross_dispersion=cross_dispersion_profiles(frames.data, params=job.recipe["trace"]),
        background_err=spectra.background_err,
        chi_square=_chi_square(fit, aperture),
    ).map(to_host)


def _chi_square(fit: Fit, aperture: Aperture) -> Array | None:
    """Chi-square per degree of freedom of all ramps in the aperture, (n_ints, n_rows)."""
    if fit.chi_square is None:
        return None
    xp = namespace(fit.chi_square)
    freedom = fit.degrees_of_freedom[..., aperture.columns]
    fitted = aperture.inside & (freedom > 0)
    chi_square = xp.where(fitted, fit.chi_square[..., aperture.columns], 0)
    total = chi_square.astype(xp.float64).sum(axis=-1)
    freedom = xp.where(fitted, freedom, 0).astype(xp.int64).sum(axis=-1)
    return xp.where(freedom > 0, total / xp.maximum(freedom, 1), xp.nan)


def _extract(
    frames: Frames, centres: Array, background: Array, job: Job, exposure_time_s: float
) -> Spectra:
    params, err = job.recipe.extraction, fill_unknown_errors(frames.err)
    if job.recipe.runs("extract_1d_box"):
        return extract_box(
            frames.data,
            err,
            params=params,
            background_err=frames.background_err,
            centres=centres,
        )
    # the median profile, where it is wanted, was taken over all integrations, not this block's
    return extract_optimal(
        frames.data,
        frames.profile,
        fill_unknown_errors(job.backend.xp.sqrt(frames.var_rnoise)),
        params=replace(params, median_spatial_profile=False),
        gain=fill_unknown_gain(job.calibration.gain),
        integration_time_s=exposure_time_s,
        err=err,
        background=background,
        background_err=frames.background_err,
        centres=centres,
    )


def usable_rows(rates: Rates) -> np.ndarray:
    """Which rows of each integration have a usable pixel, (n_ints, n_rows) bool, on the host."""
    xp = namespace(rates.data)
    usable = xp.isfinite(rates.data) & ((rates.dq & detector.DO_NOT_USE) == 0)
    return to_host(usable[:, :, detector.N_REFERENCE_COLS :].any(axis=2))


def without_dead(extraction: Extraction, usable: np.ndarray) -> Extraction:
    """No flux where an integration has no usable pixel at all, by its `usable_rows`.

    Cleaning fills such frames with 0, as if that were known.
    """
    dead = ~usable.any(axis=1)
    if not dead.any():
        return extraction
    of_rows = ("flux", "flux_err", "background", "background_err")
    known = {n: getattr(extraction, n) for n in of_rows if getattr(extraction, n) is not None}
    blanked = {n: np.where(dead[:, None], np.float32(np.nan), array) for n, array in known.items()}
    return replace(extraction, **blanked)


def check_rows(usable: np.ndarray, segment: Segment, wavelength: Array) -> None:
    """Raise SegmentError where a row of the spectrum is not usable, (n_rows,) bool."""
    in_spectrum = to_host(namespace(wavelength).isfinite(wavelength).any(axis=1))
    dead = np.flatnonzero(in_spectrum & ~usable)
    if len(dead):
        raise SegmentError(
            f"{segment.path}: every pixel is NaN, saturated or unusable in "
            f"row{'s' if len(dead) > 1 else ''} {_ranges(dead)}"
        )


def _ranges(numbers: np.ndarray) -> str:
    """Rising numbers in words: "7 to 147, 200"."""
    runs = np.split(numbers, np.flatnonzero(np.diff(numbers) > 1) + 1)
    return ", ".join(str(r[0]) if len(r) == 1 else f"{r[0]} to {r[-1]}" for r in runs)
