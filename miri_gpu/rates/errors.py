"""Errors of pixels whose own error is unknown."""

from miri_gpu import kernels
from miri_gpu.backend import namespace
from miri_gpu.containers import Array

_REACH_ROWS = 3


def fill_unknown_errors(err: Array) -> Array:
    """Give pixels without an error that of their neighbours along the column.

    A pixel whose value was replaced by a smooth model of its column has no error of its own; the
    point-spread function changes slowly along the column, so the variances of the nearest rows
    say what such a pixel would have had.

    Parameters
    ----------
    err : (n_ints, n_rows, n_cols) float32
        NaN, infinite or not positive where unknown.

    Returns
    -------
    (n_ints, n_rows, n_cols) float32
        Unknown errors replaced by the root mean square of the known ones within 3 rows; NaN where
        there are none.
    """
    xp = namespace(err)
    if kernels.available(xp) and err.dtype == xp.float32:
        return _fill_by_kernel(err, xp=xp)
    return _fill_by_arrays(err, xp=xp)


def _fill_by_arrays(err: Array, *, xp) -> Array:
    known = xp.isfinite(err) & (err > 0)
    variance = xp.where(known, err, 0).astype(xp.float32)
    variance *= variance
    is_known = known.astype(xp.float32)
    total, count = variance.copy(), is_known.copy()
    for shift in range(1, _REACH_ROWS + 1):
        total[:, :-shift] += variance[:, shift:]
        total[:, shift:] += variance[:, :-shift]
        count[:, :-shift] += is_known[:, shift:]
        count[:, shift:] += is_known[:, :-shift]
    typical = xp.where(count > 0, xp.sqrt(total / xp.maximum(count, 1)), xp.float32(xp.nan))
    return xp.where(known, err, typical).astype(xp.float32, copy=False)


def _fill_by_kernel(err: Array, *, xp) -> Array:
    """The kernel, which looks at the neighbours of unknown errors only; the same to the bit."""
    filled = xp.empty_like(err, order="C")
    kernels.launch(
        xp, "fill_errors", err.size, *err.shape[1:], _REACH_ROWS, xp.ascontiguousarray(err), filled
    )
    return filled
