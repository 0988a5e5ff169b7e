"""Errors of pixels whose own error is unknown."""

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
    known = xp.isfinite(err) & (err > 0)
    variance = xp.where(known, err, 0).astype(xp.float32) ** 2
    total = variance.copy()
    count = known.astype(xp.float32)
    for shift in range(1, _REACH_ROWS + 1):
        for there, here in (
            ((slice(None), slice(shift, None)), (slice(None), slice(None, -shift))),
            ((slice(None), slice(None, -shift)), (slice(None), slice(shift, None))),
        ):
            total[here] += variance[there]
            count[here] += known[there]
    typical = xp.sqrt(total / xp.maximum(count, 1))
    return xp.where(known, err, xp.where(count > 0, typical, xp.nan)).astype(xp.float32)
