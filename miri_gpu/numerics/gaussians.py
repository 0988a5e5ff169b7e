"""Gaussians with a base, fitted to many curves at once."""

import math

from miri_gpu import kernels
from miri_gpu.backend import namespace
from miri_gpu.containers import Array
from miri_gpu.numerics.polynomials import solve_symmetric

_N_PARAMETERS = 4
_KERNEL_LANES = 8  # as `kernels/lanes.h` has them
_KERNEL_POINTS = 128  # up to which NumPy's sums are those of the lanes
_MAX_ITERATIONS = 100
_TOLERANCE = 1e-10  # of a step relative to its parameter
_LARGEST = 1e30  # a parameter that runs away stops here: its fit has failed
_SMALLEST_SIGMA = 1e-6

_LOG_2 = 0.6931471805599453
_LOG_2_HIGH = 0.693147180369123816490  # with few enough bits that n times it is exact
_LOG_2_LOW = 1.90821492927058770002e-10
_TO_WHOLE = 1.5 * 2.0**52
_EXPONENTIAL = [1.0 / math.factorial(k) for k in range(14)]  # of its series


def fit_gaussians(curves: Array, points: Array, start: Array, good: Array | None = None) -> Array:
    """Fit amplitude, centre, sigma and base of a Gaussian to each curve, by least squares.

    Parameters
    ----------
    curves : (n_curves, n) float
    points : (n,) float
        Where the curves are known.
    start : (n_curves, 4) float
        First guess: amplitude, centre, sigma, base.
    good : (n_curves, n) bool, or None
        True = use. None uses every finite value.

    Returns
    -------
    (n_curves, 4) float64
        Amplitude, centre, sigma (positive) and base. NaN where the fit fails: fewer than 4 good
        points, no minimum found, or none that determines all parameters (a flat curve).

    Notes
    -----
    Levenberg-Marquardt, with the damping scaled by the curvature (Marquardt 1963). All curves
    take their steps together until the last one has converged.
    """
    xp = namespace(curves, points, start, good)
    usable = xp.isfinite(curves) if good is None else xp.isfinite(curves) & good
    known, weight, points = _padded(curves, points, usable, xp=xp)
    if kernels.available(xp) and points.size <= _KERNEL_POINTS:
        return _fit_by_kernel(known, points, weight, start, xp=xp)
    fit = start.astype(xp.float64)
    damping = xp.full((fit.shape[0], 1), 1e-3)
    running = weight.sum(axis=-1, keepdims=True) >= _N_PARAMETERS
    converged = xp.zeros_like(running)
    sums = _look(fit, known, points, weight, xp=xp)

    for _ in range(_MAX_ITERATIONS):
        step = _damped_step(sums, damping, xp=xp)
        trial = xp.clip(fit + step, -_LARGEST, _LARGEST)
        trial_sums = _look(trial, known, points, weight, xp=xp)
        better = running & (trial_sums[0] < sums[0])  # False for NaN
        small = xp.abs(step) <= _TOLERANCE * (xp.abs(fit) + _TOLERANCE * xp.abs(fit[:, :1]))
        converged = converged | (running & small.all(axis=-1, keepdims=True))

        fit = xp.where(better, trial, fit)
        sums = [
            xp.where(better[..., None] if new.ndim == 3 else better, new, old)
            for new, old in zip(trial_sums, sums, strict=True)
        ]
        damping = xp.where(better, damping * 0.1, damping * 10.0)
        damping = xp.clip(damping, 1e-15, 1e15)
        running = running & ~converged & ~xp.isnan(step).any(axis=-1, keepdims=True)
        if not bool(running.any()):
            break
    return _positive_sigma(xp.where(converged, fit, xp.nan), xp=xp)


def _padded(curves: Array, points: Array, usable: Array, *, xp) -> tuple[Array, Array, Array]:
    """Curves, their weights, and points, filled up with points of weight 0 to whole lanes."""
    n_curves, n = curves.shape
    size = -(-n // _KERNEL_LANES) * _KERNEL_LANES
    known, where = xp.zeros((n_curves, size)), xp.zeros(size)
    weight = xp.zeros_like(known)
    known[:, :n], weight[:, :n], where[:n] = xp.where(usable, curves, 0), usable, points
    return known, weight, where


def _fit_by_kernel(known: Array, points: Array, weight: Array, start: Array, *, xp) -> Array:
    """The same fits by the kernel, to the bit, in one go instead of a hundred steps of many."""
    fits = xp.ascontiguousarray(start).astype(xp.float64)
    kernels.launch(
        xp,
        "fit_gaussians",
        fits.shape[0],
        points.size // _KERNEL_LANES,
        _MAX_ITERATIONS,
        _TOLERANCE,
        _LARGEST,
        _SMALLEST_SIGMA,
        known,
        points,
        weight,
        fits,
        threads_per_item=_KERNEL_LANES,
    )
    return fits


def _look(fit: Array, curves: Array, points: Array, weight: Array, *, xp) -> list[Array]:
    """The cost (n_curves, 1) of these parameters, its gradient (n_curves, 4) and its curvature
    (n_curves, 4, 4): sums over the points.
    """
    amplitude, centre, sigma, base = (fit[:, k : k + 1] for k in range(_N_PARAMETERS))
    width = xp.where(sigma < 0, -1.0, 1.0) * xp.maximum(xp.abs(sigma), _SMALLEST_SIGMA)
    distance = (points - centre) / width
    bell = _exponential(-0.5 * distance * distance, xp=xp)
    by_centre = weight * (amplitude / width * (bell * distance))
    slopes = xp.stack([weight * bell, by_centre, by_centre * distance, weight], axis=1)
    residual = weight * (curves - base - amplitude * bell)
    return [
        (residual * residual).sum(axis=-1, keepdims=True),
        (slopes * residual[:, None]).sum(axis=-1),
        (slopes[:, :, None] * slopes[:, None]).sum(axis=-1),
    ]


def _exponential(v: Array, *, xp) -> Array:
    """exp(v), where v is not above 0, as 2^n exp(r) with |r| < 0.35.

    Made of sums and products, so that it is the same to the bit wherever it is computed; those of
    the libraries are not.
    """
    v = xp.maximum(v, -700.0)
    # so large a number has no digits behind the point, and its last bits are n
    shifted = v * (1.0 / _LOG_2) + _TO_WHOLE
    n = shifted - _TO_WHOLE
    r = (v - n * _LOG_2_HIGH) - n * _LOG_2_LOW
    total = xp.full_like(r, _EXPONENTIAL[-1])
    for coefficient in reversed(_EXPONENTIAL[:-1]):
        total *= r
        total += coefficient
    return total * ((shifted.view(xp.int64) + 1023) << 52).view(xp.float64)


def _damped_step(sums: list[Array], damping: Array, *, xp) -> Array:
    """The step of Levenberg and Marquardt; NaN where the curvature is singular."""
    _, gradient, curvature = sums
    diagonal = xp.arange(_N_PARAMETERS)
    scale = xp.sqrt(curvature[:, diagonal, diagonal])
    determined = (scale > 0) & xp.isfinite(scale)
    scale = xp.where(determined, scale, 1.0)
    # scaled to a unit diagonal, so that units and sizes of the parameters do not matter
    curvature = curvature / (scale[:, :, None] * scale[:, None, :])
    curvature = curvature + damping[:, :, None] * xp.eye(_N_PARAMETERS)
    step = solve_symmetric(curvature, gradient / scale) / scale
    return xp.where(determined.all(axis=-1, keepdims=True), step, xp.nan)


def _positive_sigma(fit: Array, *, xp) -> Array:
    """A Gaussian of width -sigma is the one of width sigma."""
    is_sigma = xp.arange(_N_PARAMETERS) == 2
    return xp.where(is_sigma, xp.abs(fit), fit)
