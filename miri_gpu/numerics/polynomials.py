"""Least squares for many small problems at once: polynomials, and symmetric linear systems."""

from miri_gpu.backend import namespace
from miri_gpu.containers import Array


def fit_polynomials(
    values: Array, good: Array, order: int, *, points: Array | None = None
) -> Array:
    """Least-squares polynomial through the good points of each curve, at all its points.

    Parameters
    ----------
    values : (..., n) float
        Curves; what is not good may be anything, NaN included.
    good : (..., n) bool
        True = use in the fit; broadcasts against `values`.
    order : int
        Of the polynomial. A curve with no more than `order` good points gets the highest order that
        they determine, and so passes through them; a curve without any gets zero.
    points : (n,) float, or None
        Where the values are known; None stands for evenly spaced ones.

    Returns
    -------
    (..., n) float64

    Notes
    -----
    Polynomials that are orthogonal on the good points of their own curve follow from a three-term
    recurrence (Forsythe 1957, J. SIAM 5, 74). No system of equations is solved, so nothing is
    ill-conditioned or singular. Sums run along the last axis: results depend on no other curve.
    """
    xp = namespace(values, good, points)
    n = values.shape[-1]
    if points is None:
        points = xp.linspace(-1.0, 1.0, n)
    good = xp.broadcast_to(good, values.shape)
    weight = good.astype(xp.float64)
    n_good = weight.sum(axis=-1, keepdims=True)
    known = xp.where(good, values, 0).astype(xp.float64)

    residual = known.copy()
    polynomial, previous, previous_norm = xp.ones_like(weight), None, None
    for degree in range(min(order, n - 1) + 1):
        weighted = weight * polynomial
        determined = n_good > degree
        norm = xp.where(determined, (weighted * polynomial).sum(axis=-1, keepdims=True), 1.0)
        projection = (weighted * residual).sum(axis=-1, keepdims=True)
        residual -= xp.where(determined, projection / norm, 0.0) * polynomial
        if degree == order:
            break
        weighted *= polynomial
        weighted *= points
        following = points - weighted.sum(axis=-1, keepdims=True) / norm
        following *= polynomial
        if previous is not None:
            following -= (norm / previous_norm) * previous
        polynomial, previous, previous_norm = following, polynomial, norm
    return known - residual


def solve_symmetric(matrix: Array, vector: Array) -> Array:
    """Solve many small symmetric, positive definite systems at once.

    Parameters
    ----------
    matrix : (..., n, n) float64
        The lower triangle is used.
    vector : (..., n) float64

    Returns
    -------
    (..., n) float64
        NaN where the matrix is not positive definite (singular, or not finite).

    Notes
    -----
    The decomposition L D L^T written out: a singular matrix has a defined result on either backend.
    """
    xp = namespace(matrix, vector)
    n = vector.shape[-1]
    lower = [[None] * n for _ in range(n)]
    pivot = [None] * n
    for j in range(n):
        d = matrix[..., j, j]
        for k in range(j):
            d = d - lower[j][k] * lower[j][k] * pivot[k]
        # what rounding leaves of a singular matrix's pivot is no pivot
        pivot[j] = xp.where(d > 1e-14 * xp.abs(matrix[..., j, j]), d, xp.nan)
        for i in range(j + 1, n):
            element = matrix[..., i, j]
            for k in range(j):
                element = element - lower[i][k] * lower[j][k] * pivot[k]
            lower[i][j] = element / pivot[j]

    solution = [vector[..., i] for i in range(n)]
    for i in range(n):
        for k in range(i):
            solution[i] = solution[i] - lower[i][k] * solution[k]
    solution = [solution[i] / pivot[i] for i in range(n)]
    for i in reversed(range(n)):
        for k in range(i + 1, n):
            solution[i] = solution[i] - lower[k][i] * solution[k]
    return xp.stack(solution, axis=-1)


def solve_small(matrix: Array, vector: Array) -> Array:
    """Solve many small systems at once, whose pivots are positive in the order they are in.

    Parameters
    ----------
    matrix : (..., n, n) float64
        Such as the product of two sets of functions that are much alike, of one with the other.
    vector : (..., n) float64

    Returns
    -------
    (..., n) float64
        NaN where a pivot is not positive.
    """
    xp = namespace(matrix, vector)
    n = vector.shape[-1]
    rows = [[matrix[..., i, j] for j in range(n)] + [vector[..., i]] for i in range(n)]
    for j in range(n):
        d = rows[j][j]
        pivot = xp.where(d > 1e-14 * xp.abs(matrix[..., j, j]), d, xp.nan)
        rows[j] = [element / pivot for element in rows[j]]
        for i in range(n):
            if i != j:
                factor = rows[i][j]
                rows[i] = [a - factor * b for a, b in zip(rows[i], rows[j], strict=True)]
    return xp.stack([row[n] for row in rows], axis=-1)
