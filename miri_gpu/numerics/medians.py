"""Medians of the good values: along an axis, and in a window that moves along it."""

import math

from miri_gpu import kernels
from miri_gpu.backend import namespace
from miri_gpu.containers import Array

_KERNELS = {"float32": "median_float32", "float64": "median_float64"}
_KERNEL_LANES, _KERNEL_VALUES = 8, 1024  # as `kernels/medians.c` has them
_WINDOW_SAMPLES = 1 << 22  # most samples that the windows of a moving median hold at once


def masked_median(data: Array, good: Array | None = None, *, axis: int) -> Array:
    """Median along an axis of the values that are good and finite; NaN where there is none.

    Parameters
    ----------
    data : (..., n, ...) float
    good : bool array that broadcasts against `data`, or None
        True = use. None uses every finite value.
    axis : int

    Returns
    -------
    array of the dtype of `data`, without `axis`
        Equal to `numpy.nanmedian` of the data with NaN where not good.

    Notes
    -----
    What is not good becomes +inf, is sorted to the end, and the middle of the good ones is picked:
    many times faster than NumPy's own. A kernel sorts nothing, and is faster still.
    """
    xp = namespace(data, good)
    by_kernel = kernels.available(xp) and _kernel_fits(data, axis)
    return (_median_by_kernel if by_kernel else _median_by_sorting)(data, good, axis, xp=xp)


def _median_by_sorting(data: Array, good: Array | None, axis: int, *, xp) -> Array:
    usable = xp.isfinite(data) if good is None else xp.isfinite(data) & good
    # one contiguous row for each median: the layout that sorts fastest on either backend
    ordered = xp.ascontiguousarray(xp.moveaxis(xp.where(usable, data, xp.inf), axis, -1))
    ordered = ordered.astype(data.dtype, copy=False)
    ordered.sort(axis=-1)
    return _middle(ordered, usable.sum(axis=axis), xp=xp)


def _kernel_fits(data: Array, axis: int) -> bool:
    """Whether the kernel can take these medians."""
    return data.dtype.name in _KERNELS and 0 < data.shape[axis] <= _KERNEL_VALUES


def _median_by_kernel(data: Array, good: Array | None, axis: int, *, xp) -> Array:
    """The same as the array version, by the kernel: in place, without moving the axis."""
    axis %= data.ndim
    n, outer, inner = data.shape[axis], data.shape[:axis], data.shape[axis + 1 :]
    if good is not None:
        good = xp.ascontiguousarray(xp.broadcast_to(good, data.shape))
    medians = xp.empty((*outer, *inner), dtype=data.dtype)
    kernels.launch(
        xp,
        _KERNELS[data.dtype.name],
        medians.size,
        n,
        math.prod(inner),
        xp.ascontiguousarray(data),
        good,
        medians,
        threads_per_item=_KERNEL_LANES,
        shared_bytes_per_item=n * data.dtype.itemsize,
    )
    return medians


def _middle(ordered: Array, n_good: Array, *, xp) -> Array:
    """Mean of the two middle values of the first `n_good` along the last axis."""
    last = max(ordered.shape[-1] - 1, 0)
    lower = xp.clip((n_good - 1) // 2, 0, last)[..., None]
    upper = xp.clip(n_good // 2, 0, last)[..., None]
    below = xp.take_along_axis(ordered, lower, axis=-1)[..., 0]
    above = xp.take_along_axis(ordered, upper, axis=-1)[..., 0]
    return xp.where(n_good > 0, 0.5 * below + 0.5 * above, ordered.dtype.type(xp.nan))


def moving_median(data: Array, good: Array | None = None, *, radius: int, axis: int) -> Array:
    """Median of the good values in a window that moves along an axis and is clipped at its ends.

    Parameters
    ----------
    data : (..., n, ...) float
    good : bool array that broadcasts against `data`, or None
        True = use. None uses every finite value.
    radius : int
        The window at i holds i - radius .. i + radius.
    axis : int

    Returns
    -------
    array of the shape and dtype of `data`
        NaN where the window holds no good value.
    """
    xp = namespace(data, good)
    usable = xp.isfinite(data) if good is None else xp.isfinite(data) & good
    rows = xp.ascontiguousarray(xp.moveaxis(xp.where(usable, data, xp.nan), axis, -1))
    n = rows.shape[-1]
    n_window = min(radius, max(n - 1, 0)) * 2 + 1
    members = xp.arange(n)[:, None] + (xp.arange(n_window) - n_window // 2)
    inside = (members >= 0) & (members < n)
    members = xp.clip(members, 0, max(n - 1, 0))

    flat = rows.astype(data.dtype, copy=False).reshape(-1, n)
    smooth = xp.empty_like(flat)
    n_at_once = max(_WINDOW_SAMPLES // max(n * n_window, 1), 1)
    for start in range(0, flat.shape[0], n_at_once):
        part = slice(start, start + n_at_once)
        smooth[part] = masked_median(flat[part][:, members], inside, axis=-1)
    return xp.moveaxis(smooth.reshape(rows.shape), -1, axis)
