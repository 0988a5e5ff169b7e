"""Rates to spectra: the steps in order, walked over a segment in blocks of integrations.

Frames are flat-fielded, cleaned and freed of their background block by block, and extracted when
all of them are clean, because an optimal extraction may want the median profile of them all.
"""

from dataclasses import dataclass, fields, replace
from typing import Self

import numpy as np

from miri_gpu import detector
from miri_gpu.backend import to_host
from miri_gpu.background import evaluate_background, measure_background, subtract_background
from miri_gpu.containers import Array, ArrayBundle, Rates
from miri_gpu.numerics import masked_median
from miri_gpu.ramps_to_rates import Job
from miri_gpu.rates.errors import fill_unknown_errors
from miri_gpu.rates.flat import apply_flat
from miri_gpu.rates.outliers import clean_outliers
from miri_gpu.rates.trace import fit_trace
from miri_gpu.spectra.align import cross_dispersion_profiles
from miri_gpu.spectra.box import extract_box, find_aperture
from miri_gpu.spectra.optimal import extract_optimal


@dataclass(frozen=True, eq=False, kw_only=True)
class Frames(ArrayBundle):
    """Clean, background-free frames, ready to be extracted.

    Attributes
    ----------
    data, err : (n_ints, n_rows, n_cols) float32 [DN/s]
    read_noise : (n_ints, n_rows, n_cols) float32 [DN/s]
        Standard deviation of the rates from read noise alone.
    background : (n_ints, n_rows, n_terms) float32 [DN/s]
        What was subtracted, as `measure_background` gives it.
    profile : (n_ints, n_rows, n_cols) float32
        Spatial profile, of sum 1 in each row.
    n_outliers : (n_ints, n_rows, 5) int32
        Outliers within 0 .. 4 columns of the trace.
    n_jumps : (n_ints,) int
        Pixels with a cosmic-ray jump flagged in their ramp.
    """

    data: Array
    err: Array
    read_noise: Array
    background: Array
    profile: Array
    n_outliers: Array
    n_jumps: Array

    @classmethod
    def concatenated(cls, parts: list[Self], *, xp) -> Self:
        """Join along the integrations."""
        return cls(
            **{f.name: xp.concatenate([getattr(p, f.name) for p in parts]) for f in fields(cls)}
        )


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
    """

    flux: Array
    flux_err: Array
    background: Array
    n_outliers: Array
    n_jumps: Array
    trace_centre: Array
    psf_sigma: Array
    cross_dispersion: Array

    @classmethod
    def concatenated(cls, parts: list[Self]) -> Self:
        """Join along the integrations."""
        return cls(
            **{f.name: np.concatenate([getattr(p, f.name) for p in parts]) for f in fields(cls)}
        )


def rates_to_extraction(rates: Rates, job: Job, *, name: str, exposure_time_s: float) -> Extraction:
    """Clean and extract all frames of a segment; the main loop of stage 2.

    Parameters
    ----------
    rates : Rates
        On the device.
    job : Job
    name : str
        What progress is reported as.
    exposure_time_s : float [s]
        Time over which the charge of a rate was collected.
    """
    n_ints = rates.data.shape[0]
    bytes_per_int = 2 * detector.N_ROWS * detector.N_COLS * 8  # fits are in float64
    blocks = job.workers.cut(0, n_ints, bytes_per_int)

    cleaned: dict[int, Frames] = {}

    def clean(ints: slice) -> None:
        cleaned[ints.start] = clean_frames(rates.map(lambda plane: plane[ints]), job)

    job.progress.start(f"{name}: cleaning", len(blocks))
    job.workers.run(clean, blocks, job.progress.advance)
    frames = Frames.concatenated([cleaned[i] for i in sorted(cleaned)], xp=job.backend.xp)
    cleaned.clear()

    median_profile = None
    if (
        job.recipe.runs("extract_1d_optimal")
        and job.recipe["extract_1d_optimal"].median_spatial_profile
    ):
        median_profile = masked_median(frames.profile, axis=0)[None]

    extracted: dict[int, Extraction] = {}

    def extract(ints: slice) -> None:
        block = frames.map(lambda plane: plane[ints])
        if median_profile is not None:
            block = replace(block, profile=median_profile)
        extracted[ints.start] = extract_frames(block, job, exposure_time_s)

    job.progress.start(f"{name}: extraction", len(blocks))
    job.workers.run(extract, blocks, job.progress.advance)
    return Extraction.concatenated([extracted[i] for i in sorted(extracted)])


def clean_frames(rates: Rates, job: Job) -> Frames:
    """Flat field, outliers and background of a block of frames, in the order of the recipe.

    The background is measured on a cleaned copy and subtracted from the rates themselves, which
    are then cleaned anew.
    """
    recipe, calibration = job.recipe, job.calibration
    xp = job.backend.xp
    if recipe.runs("flat_field"):
        rates = apply_flat(rates, calibration.flat, calibration.flat_err, calibration.flat_dq)
    cleaned = clean_outliers(rates.data, rates.dq, params=recipe["clean_outliers"])
    background = xp.zeros((*rates.data.shape[:2], 1), dtype=xp.float32)
    if recipe.runs("background_subtract"):
        background = measure_background(
            cleaned.data, cleaned.dq, params=recipe["background_subtract"]
        )
        cleaned = clean_outliers(
            subtract_background(rates.data, background), rates.dq, params=recipe["clean_outliers"]
        )
    return Frames(
        data=cleaned.data,
        err=fill_unknown_errors(rates.err),
        read_noise=fill_unknown_errors(xp.sqrt(rates.var_rnoise)),
        background=background,
        profile=cleaned.profile,
        n_outliers=cleaned.n_outliers,
        n_jumps=((rates.dq & detector.JUMP_DET) != 0).sum(axis=(1, 2)),
    )


def extract_frames(frames: Frames, job: Job, exposure_time_s: float) -> Extraction:
    """Extract a block of clean frames, and measure their trace."""
    trace = fit_trace(frames.data, params=job.recipe["trace"])
    background = evaluate_background(frames.background, detector.N_COLS)
    spectra, params = _extract(frames, trace.centre, background, job, exposure_time_s)
    aperture = find_aperture(frames.data, trace.centre, params=params)
    in_aperture = job.backend.xp.where(aperture.inside, background[..., aperture.columns], 0).sum(
        axis=-1
    )
    return Extraction(
        flux=spectra.flux,
        flux_err=spectra.flux_err,
        background=in_aperture / aperture.inside.sum(axis=-1),
        n_outliers=frames.n_outliers,
        n_jumps=frames.n_jumps,
        trace_centre=trace.centre,
        psf_sigma=trace.sigma,
        cross_dispersion=cross_dispersion_profiles(frames.data, params=job.recipe["trace"]),
    ).map(to_host)


def _extract(frames: Frames, centres: Array, background: Array, job: Job, exposure_time_s: float):
    params = job.recipe.extraction
    if job.recipe.runs("extract_1d_box"):
        return extract_box(frames.data, frames.err, params=params, centres=centres), params
    # the median profile, where it is wanted, was taken over all integrations, not this block's
    spectra = extract_optimal(
        frames.data,
        frames.profile,
        frames.read_noise,
        params=replace(params, median_spatial_profile=False),
        gain=job.calibration.gain,
        integration_time_s=exposure_time_s,
        background=background,
        centres=centres,
    )
    return spectra, params
