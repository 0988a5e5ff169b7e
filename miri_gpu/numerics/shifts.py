"""Shifts of curves along their axis: measured to a fraction of a pixel, and undone."""

from functools import cache

import numpy as np

from miri_gpu.backend import namespace
from miri_gpu.containers import Array
from miri_gpu.numerics.splines import MIN_POINTS, N_TERMS, spline_terms

STEPS_PER_PIXEL = 200  # of the lags that are compared
_PARABOLA_RADIUS = 7  # steps either side of the peak
_PIXELS_NEAR = 3  # whose steps are compared: the best whole pixel and its neighbours
_CURVES_AT_ONCE = 128


def cross_correlation_shifts(curves: Array, template: Array) -> Array:
    """Shift of each curve against a template, by cross-correlation at 1/200 pixel.

    Parameters
    ----------
    curves : (n_curves, n) float
        A NaN takes the template's value; a curve with nothing to compare has no shift.
    template : (n,) float
        Where it is NaN, nothing is compared.

    Returns
    -------
    (n_curves,) float64 [pixel]
        Positive = moved towards higher index. NaN = unknown.

    Raises
    ------
    ValueError
        Where the curves are too short to be interpolated.

    Notes
    -----
    Defined as: interpolate curve and template by not-a-knot cubic splines at every 1/200 pixel,
    subtract from each the line through its ends, cross-correlate, and put a parabola through the
    15 lags around the largest correlation.

    Computed without the long vectors. Both splines are cubics in each pixel, so their correlation
    at any lag follows from the sums over pixels of the products of their terms, at two whole-pixel
    lags. Whole-pixel lags are searched first, then every 1/200 pixel around the best.

    ExoTiC-MIRI cuts 3 pixels off the ends of the curve, but not of the template: the two lines
    then differ, and a curve shows a shift against itself. Nothing is cut here.
    """
    xp = namespace(curves, template)
    n = curves.shape[-1]
    if n < MIN_POINTS:
        raise ValueError(f"curves: expected at least {MIN_POINTS} points, got {n}")
    comparable = xp.isfinite(template)
    template = xp.where(comparable, template, 0).astype(xp.float64)
    template_terms = _level(spline_terms(template[None]), xp=xp)[0]
    products = xp.asarray(_step_products())
    shifts = xp.empty(curves.shape[0], dtype=xp.float64)
    for start in range(0, curves.shape[0], _CURVES_AT_ONCE):
        part = slice(start, start + _CURVES_AT_ONCE)
        known = xp.isfinite(curves[part]) & comparable
        terms = _level(spline_terms(xp.where(known, curves[part], template)), xp=xp)
        lag = _peak_lag(terms, template_terms, products, xp=xp) / STEPS_PER_PIXEL
        shifts[part] = xp.where(known.any(axis=-1), lag, xp.nan)
    return shifts


def interpolate_shifted(curves: Array, shifts: Array) -> Array:
    """Linear interpolation of each curve at index + shift.

    Parameters
    ----------
    curves : (n_curves, n) float
    shifts : (n_curves,) float [pixel]

    Returns
    -------
    (n_curves, n) of the dtype of `curves`
        NaN beyond the ends of the curve, beside a NaN, and where the shift is NaN.
    """
    xp = namespace(curves, shifts)
    n = curves.shape[-1]
    position = xp.arange(n) + shifts.astype(xp.float64)[:, None]
    inside = (position >= 0) & (position <= n - 1)  # False for NaN
    position = xp.where(inside, position, 0.0)
    left = position.astype(xp.int64)
    right = xp.clip(left + 1, 0, n - 1)
    fraction = position - left
    at_left = xp.take_along_axis(curves, left, axis=-1)
    at_right = xp.take_along_axis(curves, right, axis=-1)
    # a neighbour of no weight must not spoil the value with its NaN
    between = xp.where(fraction > 0, (1.0 - fraction) * at_left + fraction * at_right, at_left)
    return xp.where(inside, between, xp.nan).astype(curves.dtype)


def _level(terms: Array, *, xp) -> Array:
    """Subtract the line through the first and the last of the fine samples."""
    n_intervals = terms.shape[2]
    last = (STEPS_PER_PIXEL - 1) / STEPS_PER_PIXEL
    first_value = terms[:, 0, :1]
    last_value = sum(terms[:, k, -1:] * last**k for k in range(N_TERMS))
    slope = (last_value - first_value) / (n_intervals - 1 + last)
    levelled = terms.copy()
    levelled[:, 0] -= first_value + slope * xp.arange(n_intervals)
    levelled[:, 1] -= slope
    return levelled


@cache
def _step_products() -> np.ndarray:
    """Sums over the steps of a pixel of powers of where the curve and the template are.

    Returns (2 x 4 x 4, n_steps): moved by q steps, a template's step p meets the curve's step
    p + q, in the same interval or in the one that follows; then of which terms, the curve's before
    the template's.
    """
    step = np.arange(STEPS_PER_PIXEL)
    powers = (step[:, None] / STEPS_PER_PIXEL) ** np.arange(N_TERMS)
    moved = step[:, None] + step  # (p, q)
    following = moved >= STEPS_PER_PIXEL
    curve = powers[moved % STEPS_PER_PIXEL]
    either = [np.where(which[..., None], curve, 0.0) for which in (~following, following)]
    sums = np.stack([np.einsum("pqk,pj->kjq", part, powers) for part in either])
    return sums.reshape(-1, STEPS_PER_PIXEL)


def _peak_lag(terms: Array, template_terms: Array, products: Array, *, xp) -> Array:
    """Lag of the largest correlation, in steps and fractions of a step."""
    whole = _whole_pixel_lags(terms[:, 0], template_terms[0], xp=xp)
    near = _term_products(terms, template_terms, whole - _PIXELS_NEAR // 2, xp=xp)
    # (n_curves, pixels, 2 x 4 x 4): at a whole-pixel lag, and at the one that follows
    pairs = xp.concatenate([near[:, :-1], near[:, 1:]], axis=-1)
    fine = xp.matmul(pairs, products).reshape(len(terms), -1)

    radius = _PARABOLA_RADIUS
    peak = xp.clip(fine.argmax(axis=-1), radius, fine.shape[-1] - 1 - radius)
    offset = xp.arange(-radius, radius + 1)
    around = xp.take_along_axis(fine, peak[:, None] + offset, axis=-1)
    first = (whole - _PIXELS_NEAR // 2) * STEPS_PER_PIXEL
    return first + peak + _vertex(around, offset, xp=xp)


def _whole_pixel_lags(curves: Array, template: Array, *, xp) -> Array:
    """The whole-pixel lag of the largest correlation of the values, (n_curves,) int."""
    n = curves.shape[1]
    length = 1 << (2 * n - 1).bit_length()  # for lags up to n - 1 either way
    spectra = xp.fft.rfft(curves, length) * xp.conj(xp.fft.rfft(template, length))
    correlation = xp.fft.irfft(spectra, length)
    rising = xp.concatenate([correlation[:, length - n + 1 :], correlation[:, :n]], axis=1)
    return rising.argmax(axis=-1) - (n - 1)


def _term_products(terms: Array, template_terms: Array, first: Array, *, xp) -> Array:
    """Sums of the products of terms at 4 whole-pixel lags from the first, (n_curves, 4, 4 x 4)."""
    n = terms.shape[2]
    n_lags = _PIXELS_NEAR + 1
    # at a lag of L, the curve's interval i meets the template's interval i - L
    interval = xp.arange(n + n_lags - 1) - (n_lags - 1) - first[:, None]
    padded = xp.pad(template_terms, ((0, 0), (1, 1)))  # nothing beyond its ends
    met = xp.swapaxes(xp.take(padded, xp.clip(interval + 1, 0, n + 1), axis=1), 0, 1)
    sums = [
        xp.matmul(terms, xp.swapaxes(met[..., n_lags - 1 - lag :][..., :n], 1, 2))
        for lag in range(n_lags)
    ]
    return xp.stack(sums, axis=1).reshape(len(terms), n_lags, -1)


def _vertex(values: Array, offset: Array, *, xp) -> Array:
    """Where the least-squares parabola through evenly spaced values has its vertex."""
    t = offset.astype(xp.float64)
    square = t * t - (t * t).mean()
    values = values - values[:, values.shape[-1] // 2, None]  # differences are small: keep digits
    slope = (values * t).sum(axis=-1) / (t * t).sum()
    curvature = (values * square).sum(axis=-1) / (square * square).sum()
    peaked = curvature < 0
    return xp.where(peaked, -slope / (2.0 * xp.where(peaked, curvature, -1.0)), xp.nan)
