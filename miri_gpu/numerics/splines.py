"""Cubic splines through evenly spaced values of many curves at once."""

import math

from miri_gpu.backend import namespace
from miri_gpu.containers import Array

N_TERMS = 4  # of a cubic
MIN_POINTS = 4  # of a not-a-knot spline
_DECAY = math.sqrt(3.0) - 2.0  # of what one value says, from each point to the next
_REACH = 32  # points, over which that falls below all precision


def spline_terms(values: Array) -> Array:
    """Cubic terms of the not-a-knot splines through evenly spaced values.

    Parameters
    ----------
    values : (n_curves, n) float64
        At points 0, 1, 2 and so on; 4 at least.

    Returns
    -------
    (n_curves, 4, n - 1) float64
        For each interval the constant, linear, quadratic and cubic term in the distance from its
        left point.
    """
    xp = namespace(values)
    slope, rise = _slopes(values, xp=xp), values[:, 1:] - values[:, :-1]
    left, right = slope[:, :-1], slope[:, 1:]
    bend = left + right - 2.0 * rise
    return xp.stack([values[:, :-1], left, rise - left - bend, bend], axis=1)


def _slopes(values: Array, *, xp) -> Array:
    """Slopes of the splines at their points, (n_curves, n).

    Inside, the slopes m solve m[i-1] + 4 m[i] + m[i+1] = 3 (y[i+1] - y[i-1]). The inverse of this
    is two recursions, forwards and backwards, each a sum over all points before with weights that
    decay; a sum that is doubled in length again and again takes few steps.
    """
    n = values.shape[1]
    slope = xp.zeros_like(values)
    slope[:, 1:-1] = (-3.0 * _DECAY) * (values[:, 2:] - values[:, :-2])
    length, weight = 1, _DECAY
    while length < min(n, _REACH):
        slope[:, length:] += weight * slope[:, :-length]
        length, weight = 2 * length, weight * weight
    length, weight = 1, _DECAY
    while length < min(n, _REACH):
        slope[:, :-length] += weight * slope[:, length:]
        length, weight = 2 * length, weight * weight
    return slope + _not_a_knot(slope, values, xp=xp)


def _not_a_knot(slope: Array, values: Array, *, xp) -> Array:
    """What makes the first two intervals one cubic, and the last two: it decays from the ends."""
    n = values.shape[1]
    bend = values[:, 2:] - 2.0 * values[:, 1:-1] + values[:, :-2]
    first = -2.0 * bend[:, :1] - (slope[:, :1] - slope[:, 2:3])
    last = -2.0 * bend[:, -1:] - (slope[:, -3:-2] - slope[:, -1:])
    own, other = 1.0 - _DECAY**2, _DECAY ** (n - 1) - _DECAY ** (n - 3)
    scale = 1.0 / (own**2 - other**2)
    from_start = scale * (own * first + other * last)
    from_end = -scale * (own * last + other * first)
    fading = xp.asarray([_DECAY**i for i in range(n)])
    return from_start * fading + from_end * fading[::-1]
