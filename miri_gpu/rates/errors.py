"""Errors of pixels whose own error is unknown."""

from miri_gpu import kernels
from miri_gpu.backend import namespace
from miri_gpu.containers import Array

_REACH_ROWS = 3  # several neighbours are better than one, while they are near


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
        Unknown errors replaced by the root mean square of the known ones within 3 rows or, where
        there are none, of the nearest one, or two as near. NaN in columns without a known one.
    """
    xp = namespace(err)
    by_kernel = kernels.available(xp) and err.dtype == xp.float32
    filled = (_fill_by_kernel if by_kernel else _fill_by_arrays)(err, xp=xp)
    return _fill_from_afar(filled, err, xp=xp)


def _fill_by_arrays(err: Array, *, xp) -> Array:
    known = _is_known(err, xp=xp)
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


def _fill_from_afar(filled: Array, err: Array, *, xp) -> Array:
    """Fill what no neighbour within reach could: in a few columns, if any, of many unknown rows."""
    left = xp.isnan(filled)
    ints, cols = xp.nonzero(left.any(axis=1) & ~left.all(axis=1))
    if ints.size == 0:
        return filled
    columns = xp.moveaxis(err, 1, 2)[ints, cols]
    above, far_above = _nearest_before(columns, xp=xp)
    below, far_below = (x[:, ::-1] for x in _nearest_before(columns[:, ::-1], xp=xp))
    above = xp.where(far_above <= far_below, above, below)
    below = xp.where(far_below <= far_above, below, above)
    typical = xp.sqrt((above * above + below * below) / 2).astype(xp.float32)
    column = xp.moveaxis(filled, 1, 2)  # a view: what is written to it is in the frames
    nearby = column[ints, cols]
    column[ints, cols] = xp.where(xp.isnan(nearby), typical, nearby)
    return filled


def _nearest_before(columns: Array, *, xp) -> tuple[Array, Array]:
    """The last known error up to each row of (n, n_rows), and how many rows away it is.

    It is 0, and farther than any row, where there is none.
    """
    n_rows = columns.shape[1]
    row = xp.arange(n_rows)
    known = _is_known(columns, xp=xp)
    nearest = xp.where(known, row, -n_rows)
    step = 1
    while step < n_rows:  # looks back twice as far each time: few passes
        nearest[:, step:] = xp.maximum(nearest[:, step:], nearest[:, :-step])
        step *= 2
    errors = xp.where(known, columns, 0)
    return xp.take_along_axis(errors, xp.maximum(nearest, 0), axis=1), row - nearest


def _is_known(err: Array, *, xp) -> Array:
    return xp.isfinite(err) & (err > 0)
