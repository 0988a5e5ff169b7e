"""Polynomials through curves with outliers: the arithmetic of the cleaning."""

import numpy as np

from miri_gpu import kernels
from miri_gpu.backend import namespace
from miri_gpu.containers import Array
from miri_gpu.numerics import fit_polynomials

_KERNEL_LANES, _KERNEL_ARRAYS, _KERNEL_POINTS = 8, 5, 512  # as `kernels/outliers.c` has them
_ROUNDING = 1e-12  # residuals below this share of the values are rounding, not noise


def fit_windows(
    data: Array, good: Array, windows: list[tuple[int, int]], order: int, threshold: float
) -> tuple[Array, Array]:
    """Fit each window of rows of each column of the frames, without its outliers.

    Parameters
    ----------
    data, good : (n_ints, n_rows, n_cols)
        Frames, and which of their pixels may be used; those are finite.
    windows : (start, stop) of each, one after the other, from the first row to the last
    order, threshold
        As in :func:`fit_without_outliers`.

    Returns
    -------
    fitted : (n_ints, n_rows, n_cols) float64
    inliers : (n_ints, n_rows, n_cols) bool
    """
    xp = namespace(data, good)
    fit = _fit_by_kernel if _kernel_can(windows, xp=xp) else _fit_window_by_window
    return fit(data, good, windows, order, threshold, xp=xp)


def fit_without_outliers(
    values: Array, good: Array, order: int, threshold: float
) -> tuple[Array, Array]:
    """Fit polynomials to many curves, dropping from each its worst point until none is an outlier.

    Parameters
    ----------
    values, good : (n_curves, n)
        Curves, and which of their points may be used.
    order : int
    threshold : float
        Of the largest residual, in standard deviations of the residuals.

    Returns
    -------
    fitted : (n_curves, n) float64
        0 for curves with fewer than 2 good points.
    inliers : (n_curves, n) bool
        The points that were good and have stayed so.
    """
    xp = namespace(values, good)
    windows = [(0, values.shape[1])]
    if _kernel_can(windows, xp=xp):
        frames = (values[..., None], good[..., None])
        fitted, inliers = _fit_by_kernel(*frames, windows, order, threshold, xp=xp)
        return fitted[..., 0], inliers[..., 0]
    fitted = xp.zeros(values.shape, dtype=xp.float64)
    values = xp.where(good, values, 0).astype(xp.float64)
    inliers = good.copy()
    curve = xp.arange(values.shape[0])  # the curves that have just lost a point
    for _ in range(values.shape[1]):
        value, inlier = values[curve], inliers[curve]
        fit = fit_polynomials(value, inlier, order)
        n_good = inlier.sum(axis=-1)
        fit = xp.where(n_good[:, None] >= 2, fit, 0.0)
        fitted[curve] = fit
        worst, outlying = _worst_point(value, fit, inlier, n_good, threshold, xp=xp)
        again = xp.nonzero(outlying)[0]
        if again.size == 0:
            break
        curve = curve[again]
        inliers[curve, worst[again]] = False
    return fitted, inliers


def _fit_window_by_window(
    data: Array, good: Array, windows: list, order: int, threshold: float, *, xp
) -> tuple[Array, Array]:
    """The array version: each window moved to the last axis."""
    n_ints, _, n_cols = data.shape
    model = xp.empty(data.shape, dtype=xp.float64)
    kept = xp.empty(data.shape, dtype=bool)
    for start, stop in windows:
        window = (slice(None), slice(start, stop))
        shape = (n_ints, n_cols, stop - start)
        fitted, inliers = fit_without_outliers(
            xp.swapaxes(data[window], 1, 2).reshape(-1, stop - start),
            xp.swapaxes(good[window], 1, 2).reshape(-1, stop - start),
            order,
            threshold,
        )
        model[window] = xp.swapaxes(fitted.reshape(shape), 1, 2)
        kept[window] = xp.swapaxes(inliers.reshape(shape), 1, 2)
    return model, kept


def _kernel_can(windows: list, *, xp) -> bool:
    """Whether the kernel can do these windows."""
    heights = [stop - start for start, stop in windows]
    return kernels.available(xp) and bool(heights) and 0 < max(heights) <= _KERNEL_POINTS


def _fit_by_kernel(
    data: Array, good: Array, windows: list, order: int, threshold: float, *, xp
) -> tuple[Array, Array]:
    """The kernel: all windows where they are, to the bit what the array version finds."""
    n_ints, n_rows, n_cols = data.shape
    model = xp.empty(data.shape, dtype=xp.float64)
    kept = xp.empty(data.shape, dtype=bool)
    most_points = -(-max(stop - start for start, stop in windows) // _KERNEL_LANES) * _KERNEL_LANES
    is_single = data.dtype == xp.float32
    values = xp.ascontiguousarray(data if is_single else data.astype(xp.float64))
    points = [np.linspace(-1.0, 1.0, stop - start) for start, stop in windows]
    kernels.launch(
        xp,
        "clean_windows",
        n_ints * len(windows) * n_cols,
        len(windows),
        n_rows,
        n_cols,
        most_points,
        xp.asarray(np.array([start for start, _ in windows] + [n_rows], np.int32)),
        xp.asarray(np.concatenate([*points, np.zeros(_KERNEL_LANES)])),
        order,
        threshold**2,
        _ROUNDING**2,
        values if is_single else None,
        None if is_single else values,
        xp.ascontiguousarray(good),
        model,
        kept,
        threads_per_item=_KERNEL_LANES,
        shared_bytes_per_item=_KERNEL_ARRAYS * most_points * model.itemsize,
    )
    return model, kept


def _worst_point(
    value: Array, fit: Array, inlier: Array, n_good: Array, threshold: float, *, xp
) -> tuple[Array, Array]:
    """Index of the largest residual of each curve, and whether it is an outlier."""
    square = xp.where(inlier, value - fit, 0.0)
    square *= square
    worst = square.argmax(axis=-1)
    largest = xp.take_along_axis(square, worst[:, None], axis=-1)[:, 0]
    n_good = xp.maximum(n_good, 1)
    # a least-squares polynomial leaves residuals of mean 0: their mean square is their variance
    variance = square.sum(axis=-1) / n_good
    power = xp.where(inlier, value * value, 0.0).sum(axis=-1) / n_good
    noisy = variance > _ROUNDING**2 * power
    return worst, noisy & (largest > threshold**2 * variance)
