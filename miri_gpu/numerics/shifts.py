"""Shifts of curves along their axis: measured to a fraction of a pixel, and undone."""

import numpy as np
from scipy.interpolate import CubicSpline

from miri_gpu.backend import namespace
from miri_gpu.containers import Array

STEPS_PER_PIXEL = 200  # of the lags that are compared
_PARABOLA_RADIUS = 7  # steps either side of the peak
_N_TERMS = 4  # of a cubic
_CURVES_AT_ONCE = 512
_MIN_POINTS = 4  # of a cubic spline


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

    Computed without the long vectors. A spline is a cubic in each pixel, so a correlation at one
    lag is a product of the curve's coefficients and a vector that depends on the template alone.
    Whole-pixel lags are searched first, then every 1/200 pixel around the best.

    ExoTiC-MIRI cuts 3 pixels off the ends of the curve, but not of the template: the two lines
    then differ, and a curve shows a shift against itself. Nothing is cut here.
    """
    xp = namespace(curves, template)
    n = curves.shape[-1]
    if n < _MIN_POINTS:
        raise ValueError(f"curves: expected at least {_MIN_POINTS} points, got {n}")
    known = xp.isfinite(curves)
    comparable = known & xp.isfinite(template)
    template = xp.where(xp.isfinite(template), template, 0).astype(xp.float64)
    curves = xp.where(comparable, curves, template).astype(xp.float64)

    matrix = _spline_matrix(n, xp=xp)
    kernel = _correlation_kernel(_level(_spline(template[None], matrix), xp=xp)[0], xp=xp)
    shifts = xp.empty(curves.shape[0], dtype=xp.float64)
    for start in range(0, curves.shape[0], _CURVES_AT_ONCE):
        part = slice(start, start + _CURVES_AT_ONCE)
        terms = _level(_spline(curves[part], matrix), xp=xp)
        shifts[part] = _peak_lag(terms, kernel, xp=xp)
    return xp.where(comparable.any(axis=-1), shifts / STEPS_PER_PIXEL, xp.nan)


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


def _spline_matrix(n: int, *, xp) -> Array:
    """Matrix (n, (n - 1) x 4) from values to the coefficients of their not-a-knot cubic spline."""
    # the coefficients are linear in the values: those of the unit vectors hold for all curves
    unit = CubicSpline(np.arange(n), np.eye(n)).c[::-1]  # (term, interval, point)
    return xp.asarray(unit.transpose(2, 1, 0).reshape(n, -1))


def _spline(curves: Array, matrix: Array) -> Array:
    """Coefficients of the splines, (n_curves, n - 1, 4), constant term first."""
    return (curves @ matrix).reshape(curves.shape[0], -1, _N_TERMS)


def _level(terms: Array, *, xp) -> Array:
    """Subtract the line through the first and the last of the fine samples."""
    n_intervals = terms.shape[1]
    last = (STEPS_PER_PIXEL - 1) / STEPS_PER_PIXEL
    first_value = terms[:, :1, 0]
    last_value = sum(terms[:, -1:, k] * last**k for k in range(_N_TERMS))
    slope = (last_value - first_value) / (n_intervals - 1 + last)
    line = xp.stack(
        [first_value + slope * xp.arange(n_intervals), slope + 0.0 * terms[:, :, 1]], -1
    )
    return xp.concatenate([terms[:, :, :2] - line, terms[:, :, 2:]], axis=-1)


def _correlation_kernel(template_terms: Array, *, xp) -> Array:
    """Vectors whose products with a curve's coefficients are the correlations.

    Returns (n_steps, n_intervals + 1, 4): at lag (200 L + q) / 200 pixel the correlation is the sum
    over interval i and term k of kernel[q, i, k] and the curve's term k in interval i + L.
    """
    step = np.arange(STEPS_PER_PIXEL)
    powers = (step[:, None] / STEPS_PER_PIXEL) ** np.arange(_N_TERMS)
    samples = template_terms @ xp.asarray(powers.T.copy())  # (n_intervals, n_steps)
    moved = step[:, None] + step  # a template's step p meets the curve's step p + q
    in_same = moved < STEPS_PER_PIXEL
    wrapped = powers[moved % STEPS_PER_PIXEL]  # (p, q, term)
    same, following = (
        xp.asarray(np.where(which[:, :, None], wrapped, 0.0).reshape(STEPS_PER_PIXEL, -1))
        for which in (in_same, ~in_same)
    )
    n_intervals = samples.shape[0]
    kernel = xp.zeros((n_intervals + 1, STEPS_PER_PIXEL, _N_TERMS))
    kernel[:-1] += (samples @ same).reshape(n_intervals, STEPS_PER_PIXEL, _N_TERMS)
    kernel[1:] += (samples @ following).reshape(n_intervals, STEPS_PER_PIXEL, _N_TERMS)
    return xp.ascontiguousarray(kernel.transpose(1, 0, 2))


def _peak_lag(terms: Array, kernel: Array, *, xp) -> Array:
    """Lag of the largest correlation, in steps and fractions of a step."""
    n_curves, n_intervals = terms.shape[:2]
    whole = _whole_pixel_lags(terms, kernel[0, :-1], xp=xp)
    # the best whole pixel and its neighbours, at every step
    interval = whole[:, None, None] + xp.arange(-1, 2)[:, None] + xp.arange(n_intervals + 1)
    outside = (interval < 0) | (interval >= n_intervals)
    curve = xp.arange(n_curves)[:, None, None]
    near = terms[curve, xp.clip(interval, 0, n_intervals - 1)]
    near = xp.where(outside[..., None], 0.0, near).reshape(n_curves * 3, -1)
    fine = (near @ kernel.reshape(STEPS_PER_PIXEL, -1).T).reshape(n_curves, -1)

    radius = _PARABOLA_RADIUS
    peak = xp.clip(fine.argmax(axis=-1), radius, fine.shape[-1] - 1 - radius)
    offset = xp.arange(-radius, radius + 1)
    around = xp.take_along_axis(fine, peak[:, None] + offset, axis=-1)
    return (whole - 1) * STEPS_PER_PIXEL + peak + _vertex(around, offset, xp=xp)


def _whole_pixel_lags(terms: Array, kernel: Array, *, xp) -> Array:
    """The whole-pixel lag of the largest correlation, (n_curves,) int."""
    n_intervals = terms.shape[1]
    lags = xp.arange(-(n_intervals - 1), n_intervals)
    source = xp.arange(n_intervals) - lags[:, None]  # template interval that meets interval i
    outside = (source < 0) | (source >= n_intervals)
    moved = xp.where(outside[..., None], 0.0, kernel[xp.clip(source, 0, n_intervals - 1)])
    correlation = terms.reshape(terms.shape[0], -1) @ moved.reshape(lags.shape[0], -1).T
    return correlation.argmax(axis=-1) - (n_intervals - 1)


def _vertex(values: Array, offset: Array, *, xp) -> Array:
    """Where the least-squares parabola through evenly spaced values has its vertex."""
    t = offset.astype(xp.float64)
    square = t * t - (t * t).mean()
    values = values - values[:, values.shape[-1] // 2, None]  # differences are small: keep digits
    slope = (values * t).sum(axis=-1) / (t * t).sum()
    curvature = (values * square).sum(axis=-1) / (square * square).sum()
    peaked = curvature < 0
    return xp.where(peaked, -slope / (2.0 * xp.where(peaked, curvature, -1.0)), xp.nan)
