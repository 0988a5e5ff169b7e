"""A cubic spline that is as smooth as a given sum of squared deviations allows."""

from itertools import pairwise

import numpy as np

_DEGREE = 3
_TOLERANCE = 1e-3  # of the sum of squares
_MAX_ITERATIONS = 20


def smoothed(x: np.ndarray, y: np.ndarray, sum_of_squares: float) -> np.ndarray:
    """Values at x of the smoothing spline through (x, y).

    Parameters
    ----------
    x : (n,) float64, rising
    y : (n,) float64
    sum_of_squares : float
        That the deviations of y may have.

    Returns
    -------
    (n,) float64

    Notes
    -----
    The algorithm of Dierckx 1975 (J. Comp. Appl. Math. 1, 165), in the steps of his FITPACK, so
    that SciPy's `UnivariateSpline` gives the same. To import that takes half a second; it is done
    only where the curve is so rough that it takes many knots.

    Knots are added where the deviations of the least-squares spline are largest, until they are
    allowed. Jumps of its third derivative are then penalised with a weight of 1 / p, so that the
    deviations have the sum of squares.
    """
    tolerance = _TOLERANCE * sum_of_squares
    knots: list[int] = []  # between the ends: at which of the points
    n_more, before, of_polynomial = 0, 0.0, None
    while len(knots) + 2 * (_DEGREE + 1) < max(len(x) // 2, 2 * (_DEGREE + 1) + 1):
        basis = _basis(x, knots)
        fit = _least_squares(basis, y)
        squares = (y - fit) ** 2
        excess = squares.sum() - sum_of_squares
        if abs(excess) < tolerance or (excess < 0 and not knots):
            return fit
        if excess < 0:
            jumps = _jumps(x, knots)
            return _penalised(y, basis, jumps, sum_of_squares, of_polynomial, excess)
        if not knots:
            of_polynomial, n_more = excess, 1
        else:
            gain = before - excess
            wanted = int(n_more * excess / gain) if gain > tolerance else 2 * n_more
            n_more = min(2 * n_more, max(wanted, n_more // 2, 1))
        before = excess
        knots = _with_more(knots, n_more, squares)
    from scipy.interpolate import UnivariateSpline

    return UnivariateSpline(x, y, s=sum_of_squares)(x)


def _all_knots(x: np.ndarray, knots: list[int]) -> np.ndarray:
    """The knots, and the ends as often as cubic B-splines want them."""
    return np.concatenate([x[[0] * (_DEGREE + 1)], x[knots], x[[-1] * (_DEGREE + 1)]])


def _basis(x: np.ndarray, knots: list[int]) -> np.ndarray:
    """B-splines on these knots at all points, (n, n_splines), by de Boor's recursion."""
    t = _all_knots(x, knots)
    interval = np.searchsorted(t[: len(t) - _DEGREE - 1], x, side="right") - 1
    splines = (np.arange(len(t) - 1) == interval[:, None]).astype(np.float64)
    for degree in range(1, _DEGREE + 1):
        width = t[degree:] - t[:-degree]
        slope = np.where(width > 0, 1.0 / np.where(width > 0, width, 1.0), 0.0)
        rising = (x[:, None] - t[:-degree]) * slope
        splines = splines[:, :-1] * rising[:, :-1] + splines[:, 1:] * (1.0 - rising[:, 1:])
    return splines


def _jumps(x: np.ndarray, knots: list[int]) -> np.ndarray:
    """Jumps of the third derivatives of the B-splines at the knots, (n_knots, n_splines)."""
    t = _all_knots(x, knots)
    scale = ((x[-1] - x[0]) / (len(knots) + 1)) ** _DEGREE
    jumps = np.zeros((len(knots), len(knots) + _DEGREE + 1))
    for row in range(len(knots)):
        at = row + _DEGREE + 1
        for spline in range(row, at + 1):
            own = t[spline : spline + _DEGREE + 2]
            others = np.delete(own, at - spline)
            jumps[row, spline] = scale * (own[-1] - own[0]) / np.prod(t[at] - others)
    return jumps


def _with_more(knots: list[int], n_more: int, squares: np.ndarray) -> list[int]:
    """Add knots, each in the middle of the interval with the largest sum of squares."""
    edges = [0, *knots, len(squares) - 1]
    shared = squares.copy()
    shared[knots] /= 2  # a point on a knot belongs to both of its intervals
    sums = [shared[start : end + 1].sum() for start, end in pairwise(edges)]
    for _ in range(n_more):
        n_inside = np.diff(edges) - 1
        worst = int(np.argmax(np.where(n_inside > 0, sums, -1.0)))
        n_left = n_inside[worst] // 2
        of_a_point = sums[worst] / n_inside[worst]
        sums[worst : worst + 1] = [
            of_a_point * n_left,
            of_a_point * (n_inside[worst] - n_left - 1),
        ]
        edges.insert(worst + 1, edges[worst] + int(n_left) + 1)
    return edges[1:-1]


def _least_squares(matrix: np.ndarray, y: np.ndarray) -> np.ndarray:
    return matrix @ np.linalg.lstsq(matrix, y, rcond=None)[0]


def _penalised(
    y: np.ndarray,
    basis: np.ndarray,
    jumps: np.ndarray,
    sum_of_squares: float,
    at_zero: float,
    at_infinity: float,
) -> np.ndarray:
    """The spline whose deviations have the sum of squares; the search is for its p.

    `at_zero` and `at_infinity` are by how much too large they are of the polynomial, and of the
    least-squares spline.
    """
    tolerance = _TOLERANCE * sum_of_squares
    low, high = (0.0, at_zero), (np.inf, at_infinity)
    p = basis.shape[1] / np.abs(np.diag(np.linalg.qr(basis, mode="r"))).sum()
    bracketed_below = bracketed_above = False
    y_and_no_jumps = np.concatenate([y, np.zeros(len(jumps))])
    for _ in range(_MAX_ITERATIONS):
        fit = _least_squares(np.concatenate([basis, jumps / p]), y_and_no_jumps)[: len(y)]
        excess = ((y - fit) ** 2).sum() - sum_of_squares
        if abs(excess) < tolerance:
            break
        if not bracketed_above and excess - high[1] <= tolerance:
            high, p = (p, excess), 0.04 * p
            p = p if p > low[0] else 0.9 * low[0] + 0.1 * high[0]
            continue
        bracketed_above |= excess < 0
        if not bracketed_below and low[1] - excess <= tolerance:
            low, p = (p, excess), p / 0.04
            p = p if p < high[0] else 0.1 * low[0] + 0.9 * high[0]
            continue
        bracketed_below |= excess > 0
        if not high[1] < excess < low[1]:
            break
        middle = p, excess
        p = _root(low, middle, high)
        low, high = (low, middle) if excess < 0 else (middle, high)
    return fit


def _root(low, middle, high) -> float:
    """Where a rational function (u p + v) / (p + w) through three points is 0."""
    (p1, f1), (p2, f2), (p3, f3) = low, middle, high
    if np.isinf(p3):
        return (p1 * (f1 - f3) * f2 - p2 * (f2 - f3) * f1) / ((f1 - f2) * f3)
    h1, h2, h3 = f1 * (f2 - f3), f2 * (f3 - f1), f3 * (f1 - f2)
    return -(p1 * p2 * h3 + p2 * p3 * h1 + p3 * p1 * h2) / (p1 * h1 + p2 * h2 + p3 * h3)
