"""Polynomials through columns with outliers: the arithmetic of the cleaning.

The polynomials of a window are orthonormal on all of its rows, so that those of a column are found
with few products. On the rows that are good in a column they are not quite orthonormal: the
products on its bad rows are missing, and a small system of equations makes up for them.
"""

from functools import cache

import numpy as np

from miri_gpu import kernels
from miri_gpu.backend import namespace
from miri_gpu.containers import Array
from miri_gpu.detector import OUTLIER

Windows = tuple[tuple[int, int], ...]  # first row and end of each

_KERNEL_TERMS = 8  # as `kernels/outliers.c` has it
_ROUNDING = 1e-12  # residuals below this share of the values are rounding, not noise
_LEAST_PIVOT = 1e-12  # below, the good rows do not determine the term


def clean_windows(
    data: Array,
    dq: Array,
    windows: Windows,
    *,
    masked: int,
    order: int,
    threshold: float,
    modelled: slice,
) -> tuple[Array, Array, Array]:
    """Fit each window of rows of each column, drop its outliers, and fill in the polynomial.

    Points are dropped one by one, the worst first, with a new fit after each.

    Parameters
    ----------
    data : (n_ints, n_rows, n_cols) float
        What is not finite is bad.
    dq : (n_ints, n_rows, n_cols) uint32
        Pixels with any of the bits `masked` are bad.
    windows : tuple of (int, int)
        One after the other, from the first row to the last.
    order : int
        Of the polynomials; lower where the good rows determine no more.
    threshold : float
        Of the largest residual, in standard deviations of the residuals.
    modelled : slice
        Columns whose polynomials are wanted.

    Returns
    -------
    cleaned : (n_ints, n_rows, n_cols) of the dtype of `data`
        The polynomial where a pixel is bad or an outlier; 0 where fewer than 2 are good.
    flagged : (n_ints, n_rows, n_cols) uint32
        With the bit OUTLIER there.
    model : (n_ints, n_rows, n_modelled) float64
        The polynomials.
    """
    xp = namespace(data, dq)
    basis = _basis_of_windows(windows, order)
    clean = _clean_by_kernel if _kernel_can(data, dq, basis, xp=xp) else _clean_by_arrays
    return clean(data, dq, windows, basis, masked, threshold, modelled, xp=xp)


@cache
def orthonormal_polynomials(n: int, order: int) -> np.ndarray:
    """Polynomials that are orthonormal on n evenly spaced points.

    Returns
    -------
    (n, order + 1) float64, not to be written to
        Rising in order; 0 where the points are too few to determine them.
    """
    basis = np.zeros((n, order + 1))
    vandermonde = np.polynomial.legendre.legvander(np.linspace(-1, 1, n), min(order, n - 1))
    basis[:, : vandermonde.shape[1]] = np.linalg.qr(vandermonde)[0]
    basis.flags.writeable = False
    return basis


@cache
def _basis_of_windows(windows: Windows, order: int) -> np.ndarray:
    """The polynomials of each window at its rows, (n_rows, order + 1)."""
    parts = [orthonormal_polynomials(stop - start, order) for start, stop in windows]
    return np.concatenate([np.empty((0, order + 1)), *parts])


def _kernel_can(data: Array, dq: Array, basis: np.ndarray, *, xp) -> bool:
    return (
        kernels.available(xp)
        and data.dtype == xp.float32
        and dq.dtype == xp.uint32
        and basis.shape[1] <= _KERNEL_TERMS
    )


def _clean_by_kernel(
    data: Array, dq: Array, windows: Windows, basis, masked, threshold, modelled: slice, *, xp
) -> tuple[Array, Array, Array]:
    """The kernel: to the bit what the array version finds."""
    n_ints, n_rows, n_cols = data.shape
    first, end, _ = modelled.indices(n_cols)
    cleaned, flagged = xp.empty_like(data), xp.empty(data.shape, dtype=xp.uint32)
    model = xp.empty((n_ints, n_rows, end - first), dtype=xp.float64)
    kernels.launch(
        xp,
        "clean_windows",
        n_ints * len(windows) * n_cols,
        len(windows),
        n_rows,
        n_cols,
        xp.asarray(np.array([start for start, _ in windows] + [n_rows], dtype=np.int32)),
        xp.asarray(basis),
        basis.shape[1],
        threshold**2,
        _ROUNDING**2,
        _LEAST_PIVOT,
        xp.ascontiguousarray(data),
        xp.ascontiguousarray(dq),
        masked,
        first,
        end - first,
        cleaned,
        flagged,
        model,
    )
    return cleaned, flagged, model


def _clean_by_arrays(
    data: Array, dq: Array, windows: Windows, basis, masked, threshold, modelled: slice, *, xp
) -> tuple[Array, Array, Array]:
    """The array version: the columns of a window side by side, of all frames."""
    n_ints, _, n_cols = data.shape
    is_bad = ~xp.isfinite(data) | ((dq & masked) != 0)
    cleaned, model = data.copy(), xp.empty(data[..., modelled].shape, dtype=xp.float64)
    for start, stop in windows:
        rows = slice(start, stop)
        values, bad = (
            xp.swapaxes(frames[:, rows], 0, 1).reshape(stop - start, -1)
            for frames in (data, is_bad)
        )
        fitted, bad = fit_without_outliers(values, bad, xp.asarray(basis[rows]), threshold)
        values = xp.where(bad, fitted.astype(data.dtype), values)
        values, bad, fitted = (
            xp.swapaxes(points.reshape(stop - start, n_ints, n_cols), 0, 1)
            for points in (values, bad, fitted)
        )
        cleaned[:, rows], is_bad[:, rows], model[:, rows] = values, bad, fitted[..., modelled]
    return cleaned, dq | is_bad * dq.dtype.type(OUTLIER), model


def fit_without_outliers(
    values: Array, bad: Array, basis: Array, threshold: float
) -> tuple[Array, Array]:
    """Fit polynomials to many curves, dropping from each its worst point until none is an outlier.

    Parameters
    ----------
    values, bad : (n, n_curves)
        Curves, and which of their points may not be used.
    basis : (n, n_terms) float64
        Polynomials that are orthonormal on all points.
    threshold : float
        Of the largest residual, in standard deviations of the residuals.

    Returns
    -------
    fitted : (n, n_curves) float64
        0 for curves with fewer than 2 good points.
    bad : (n, n_curves) bool
        Also the points that were dropped.
    """
    xp = namespace(values, bad, basis)
    bad = bad.copy()
    known = xp.where(bad, 0, values).astype(xp.float64)
    n_good = len(values) - bad.sum(axis=0).astype(xp.float64)
    missing = _missing_products(bad, basis, xp=xp)
    fitted, is_bad, curve = None, bad, None
    for _ in range(len(values) + 1):
        fit = _evaluate(_solve(known, basis, missing, n_good, xp=xp), basis)
        if curve is None:
            fitted, curve = fit, xp.arange(values.shape[1])
        else:
            fitted[:, curve] = fit
        square = xp.where(is_bad, 0.0, known - fit)
        square *= square
        again = xp.nonzero(_has_outlier(square, known, n_good, threshold, xp=xp))[0]
        if again.size == 0:
            break
        # only the curves that have an outlier go on, without it
        curve, n_good = curve[again], n_good[again] - 1.0
        known, is_bad, square = (xp.take(a, again, axis=1) for a in (known, is_bad, square))
        worst = square.argmax(axis=0)
        each = xp.arange(again.size)
        known[worst, each], is_bad[worst, each], bad[worst, curve] = 0.0, True, True
        missing = {(a, b): sums[again] + (basis[:, a] * basis[:, b])[worst]
                   for (a, b), sums in missing.items()}  # fmt: skip
    return fitted, bad


def _missing_products(bad: Array, basis: Array, *, xp) -> dict[tuple[int, int], Array]:
    """Sums over the bad points of each curve of the products of two polynomials."""
    point, curve = xp.nonzero(bad)
    n_terms = basis.shape[1]
    return {
        (a, b): xp.bincount(curve, (basis[:, a] * basis[:, b])[point], bad.shape[1])
        for a in range(n_terms)
        for b in range(a + 1)
    }


def _solve(known: Array, basis: Array, missing, n_good: Array, *, xp) -> list[Array]:
    """Terms of the least-squares polynomials, by the decomposition L D L^T; 0 if undetermined."""
    n_terms = basis.shape[1]
    lower, inverse, terms = {}, [], []
    for a in range(n_terms):
        for b in range(a + 1):
            product = float(a == b) - missing[a, b]
            for k in range(b):
                product = product - lower[a, k] * lower[b, k] * inverse[k]
            lower[a, b] = product
        determined = (lower[a, a] > _LEAST_PIVOT) & (n_good >= 2)
        inverse.append(xp.where(determined, 1.0 / xp.where(determined, lower[a, a], 1.0), 0.0))
        term = _total(known * basis[:, a, None], xp=xp)
        for k in range(a):
            term = term - lower[a, k] * terms[k]
        terms.append(term * inverse[a])
    for a in reversed(range(n_terms)):
        for k in range(a + 1, n_terms):
            terms[a] = terms[a] - lower[k, a] * inverse[a] * terms[k]
    return terms


def _evaluate(terms: list[Array], basis: Array) -> Array:
    fit = terms[0] * basis[:, :1]
    for a in range(1, len(terms)):
        fit += terms[a] * basis[:, a, None]
    return fit


def _has_outlier(square: Array, known: Array, n_good: Array, threshold: float, *, xp) -> Array:
    """Whether the largest residual of each curve is an outlier."""
    n = xp.maximum(n_good, 1.0)
    # a least-squares polynomial leaves residuals of mean 0: their mean square is their variance
    variance = _total(square, xp=xp) / n
    power = _total(known * known, xp=xp) / n
    noisy = variance > _ROUNDING**2 * power
    return noisy & (square.max(axis=0) > threshold**2 * variance)


def _total(terms: Array, *, xp) -> Array:
    """Sum over the points of each curve, one after the other, as the kernel does.

    Of a single curve NumPy would sum in another order: it is given a second one.
    """
    if terms.shape[1] == 1:
        return xp.concatenate([terms, terms], axis=1).sum(axis=0)[:1]
    return terms.sum(axis=0)
