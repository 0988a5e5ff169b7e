"""The functions of rates, spectra and plain curves that are timed, up to aligned spectra."""

from collections.abc import Iterator
from functools import partial

import numpy as np

from bench.case import Case, beside_the_trace, planes_of
from miri_gpu import detector
from miri_gpu.background import (
    background_error,
    evaluate_background,
    measure_background,
    subtract_background,
)
from miri_gpu.containers import Rates, Spectra
from miri_gpu.job import Job
from miri_gpu.numerics import fit_gaussians, fit_polynomials, masked_median, moving_median
from miri_gpu.rates.dq_report import count_dq_flags
from miri_gpu.rates.errors import fill_unknown_errors
from miri_gpu.rates.flat import apply_flat
from miri_gpu.rates.gain import scale_gain
from miri_gpu.rates.outliers import clean_outliers, count_flagged, replace_outliers
from miri_gpu.rates.trace import fit_trace
from miri_gpu.rates_to_spectra import blocks_of_rates
from miri_gpu.spectra.align import (
    AlignSpectraParams,
    align_spectra,
    cross_dispersion_profiles,
    measure_shifts,
)
from miri_gpu.spectra.box import extract_box, find_aperture
from miri_gpu.spectra.optimal import extract_optimal


def rate_cases(rates: Rates, job: Job) -> Iterator[Case]:
    """What works on whole frames of the rates, of some integrations, up to aligned spectra."""
    recipe, calibration, xp = job.recipe, job.calibration, job.backend.xp
    rates = rates.map(lambda plane: plane[_some_frames(rates, job)])
    flat = (calibration.flat, calibration.flat_err, calibration.flat_dq)
    flattened = apply_flat(rates, *flat)
    data, dq, shape = flattened.data, flattened.dq, rates.data.shape
    cleaning, levels = recipe["clean_outliers"], recipe["background_subtract"]
    replace = partial(replace_outliers, params=cleaning)
    background = measure_background(data, dq, params=levels, clean=replace)
    clean = clean_outliers(subtract_background(data, background), dq, params=cleaning)
    err = fill_unknown_errors(flattened.err)
    noise = fill_unknown_errors(xp.sqrt(flattened.var_rnoise))
    background_err = background_error(data, flattened.err, dq, params=levels)
    box, optimal = recipe["extract_1d_box"], recipe["extract_1d_optimal"]
    in_box = find_aperture(clean.data, None, params=box).columns
    in_optimal = find_aperture(clean.data, None, params=optimal).columns
    calls = {
        "rates: gain_scale": (lambda: scale_gain(rates, 2.0), planes_of(rates)),
        "rates: flat_field": (lambda: apply_flat(rates, *flat), planes_of(rates)),
        "rates: clean_outliers": (
            lambda: clean_outliers(data, dq, params=cleaning),
            (data, dq),
        ),
        "rates: replace_outliers": (lambda: replace(data, dq), (data, dq)),
        "rates: measure_background": (
            lambda: measure_background(data, dq, params=levels, clean=replace),
            (*beside_the_trace(data, levels), *beside_the_trace(dq, levels)),
        ),
        "rates: background_error": (
            lambda: background_error(data, flattened.err, dq, params=levels),
            [part for a in (data, flattened.err, dq) for part in beside_the_trace(a, levels)],
        ),
        "rates: subtract_background": (
            lambda: subtract_background(data, background),
            (data, background),
        ),
        "rates: fill_unknown_errors": (
            lambda: fill_unknown_errors(flattened.err),
            (flattened.err,),
        ),
        "rates: count_flagged": (lambda: count_flagged(dq), (dq,)),
        "rates: count_dq_flags": (lambda: count_dq_flags(dq), (dq,)),
        "rates: fit_trace": (
            lambda: fit_trace(clean.data, params=recipe["trace"]),
            (recipe["trace"].cut(clean.data),),
        ),
        "spectra: extract_1d_box": (
            lambda: extract_box(clean.data, err, params=box, background_err=background_err),
            (clean.data[..., in_box], err[..., in_box], background_err),
        ),
        "spectra: extract_1d_optimal": (
            lambda: extract_optimal(
                clean.data,
                clean.profile,
                noise,
                params=optimal,
                gain=calibration.gain,
                integration_time_s=1.0,
                err=err,
                background=evaluate_background(background, detector.N_COLS),
                background_err=background_err,
            ),
            (
                *(a[..., in_optimal] for a in (clean.data, clean.profile, noise, err)),
                background,
                background_err,
            ),
        ),
        "spectra: cross_dispersion_profiles": (
            lambda: cross_dispersion_profiles(clean.data, params=recipe["trace"]),
            (recipe["trace"].cut(clean.data),),
        ),
    }
    for name, (run, reads) in calls.items():
        yield Case(name, "pixel", shape, run, reads)
    yield from spectrum_cases(extract_box(clean.data, err, params=box))


def spectrum_cases(spectra: Spectra) -> Iterator[Case]:
    """What works on the spectra of some integrations."""
    shifts, align = measure_shifts(spectra.flux), AlignSpectraParams(align_spectra=True)
    flux, shape = spectra.flux, spectra.flux.shape
    measure = lambda: measure_shifts(flux)  # noqa: E731
    yield Case("spectra: measure_shifts", "row", shape, measure, (flux,))
    move = lambda: align_spectra(spectra, shifts, params=align)  # noqa: E731
    yield Case("spectra: align_spectra", "row", shape, move, planes_of(spectra))


def numerics_cases(rates: Rates, job: Job) -> Iterator[Case]:
    """The maths beneath, on the frames of the rates."""
    xp = job.backend.xp
    data = rates.data[_some_frames(rates, job)]
    good, curves = xp.isfinite(data), xp.where(xp.isfinite(data), data, 0)
    windows = xp.ascontiguousarray(xp.moveaxis(curves[:, 200:300], 1, -1))  # of 100 rows
    usable = xp.ones(windows.shape, dtype=bool)
    calls = {
        "masked_median, over columns": (lambda: masked_median(data, good, axis=2), (data, good)),
        "masked_median, over integrations": (
            lambda: masked_median(data, good, axis=0),
            (data, good),
        ),
        "moving_median": (lambda: moving_median(data, good, radius=5, axis=1), (data, good)),
        "fit_polynomials": (lambda: fit_polynomials(windows, usable, 4), (windows, usable)),
    }
    for name, (run, reads) in calls.items():
        yield Case(f"numerics: {name}", "pixel", reads[0].shape, run, reads)

    columns = xp.arange(data.shape[2], dtype=xp.float64)
    bell = 100.0 * xp.exp(-0.5 * ((columns - 36.3) / 1.5) ** 2)
    profiles = bell + 0 * curves[:, 200:300].mean(axis=1)
    start = xp.asarray(np.tile([90.0, 36.0, 1.6, 0.0], (profiles.shape[0], 1)))
    fit = lambda: fit_gaussians(profiles, columns, start)  # noqa: E731
    yield Case(
        "numerics: fit_gaussians", "curve", profiles.shape[:1], fit, (profiles, columns, start)
    )


def _some_frames(rates: Rates, job: Job) -> slice:
    """As many integrations as go through the steps together."""
    return blocks_of_rates(rates.data.shape[0], job)[0]
