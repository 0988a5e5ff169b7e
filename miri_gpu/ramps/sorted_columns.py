"""Medians of the many values of a pixel, by sorting: NaN is unusable and ends up last.

Sorting is exact, so a median never depends on which other pixels share the block.
"""

import math

_MOST_IN_NETWORK = 24  # planes, from which on rows are sorted faster than planes
_TURNED_AT_ONCE = 128  # values of each pixel, which the cache holds


def columns_of(values, *, xp):
    """The values of each pixel in a row: (n_values, ...) float32 to (n_pixels, n_values)."""
    n_values, *image = values.shape
    values = values.reshape(n_values, math.prod(image))
    columns = xp.empty(values.shape[::-1], dtype=values.dtype)
    for start in range(0, n_values, _TURNED_AT_ONCE):
        turned = slice(start, start + _TURNED_AT_ONCE)
        columns[:, turned] = values[turned].T
    return columns


def sorted_columns(values, *, xp):
    """Sort the values of each pixel: (n_values, ...) float32 to (n_pixels, n_values)."""
    columns = columns_of(values, xp=xp)
    columns.sort(axis=-1)
    return columns


def middle_of(columns, *, xp):
    """What is in the middle of each row, without sorting all of it.

    Parameters
    ----------
    columns : (n_pixels, n_values) float32
        In any order, and in another one afterwards.

    Returns
    -------
    below, at : (n_pixels,) float32
        The values of rank n_values // 2 - 1 (NaN where there is none) and n_values // 2.
    is_whole : (n_pixels,) bool
        Whether no value is NaN; else the two are of no use.
    """
    half = columns.shape[-1] // 2
    columns.partition(half, axis=-1)
    at = columns[:, half].copy()
    below = columns[:, :half].max(axis=-1) if half else xp.full_like(at, xp.nan)
    return below, at, ~xp.isnan(columns[:, half:].max(axis=-1))


def median_of_unsorted(columns, *, xp):
    """As `median_of`, of rows in any order, and in another one afterwards."""
    below, at, is_whole = middle_of(columns, xp=xp)
    lower = at if columns.shape[-1] % 2 else below
    median = (lower.astype(xp.float64) + at) / 2
    others = xp.flatnonzero(~is_whole)
    if others.size:
        rest = columns[others]
        rest.sort(axis=-1)
        median[others] = median_of(rest, xp=xp)
    return median


def median_of_planes(planes, *, xp):
    """Median of a few planes at each place, and whether none of them is NaN there.

    Parameters
    ----------
    planes : (..., n, n_rows, n_cols) float32

    Returns
    -------
    median : (..., n_rows, n_cols) float64
    is_whole : (..., n_rows, n_cols) bool
        Else the median is of no use.
    """
    n = planes.shape[-3]
    if n <= _MOST_IN_NETWORK:
        ordered = _sorted_in_network([planes[..., k, :, :].copy() for k in range(n)], xp=xp)
    else:
        rows = xp.ascontiguousarray(xp.moveaxis(planes, -3, -1))
        rows.sort(axis=-1)  # NaN last
        ordered = xp.moveaxis(rows, -1, 0)
    median = (ordered[(n - 1) // 2].astype(xp.float64) + ordered[n // 2]) / 2
    return median, ~xp.isnan(ordered[-1])


def _sorted_in_network(planes, *, xp):
    """Sort planes at each place; one NaN makes the last one NaN."""
    spare = xp.empty_like(planes[0])
    for low, high in comparisons(len(planes)):
        a, b = planes[low], planes[high]
        xp.minimum(a, b, out=spare)
        xp.maximum(a, b, out=b)
        planes[low], spare = spare, a
    return planes


def comparisons(n: int) -> list[tuple[int, int]]:
    """Which two of n values to put in order, one pair after the other, until all are sorted.

    Batcher's odd-even merge sort: blocks of sorted values are merged two by two.
    """
    pairs = []
    half = 1
    while half < n:
        for step in (half >> k for k in range(half.bit_length())):
            for block in range(0, n, 2 * half):
                for first in range(block + step % half, block + 2 * half - step, 2 * step):
                    pairs += [(i, i + step) for i in range(first, min(first + step, n - step))]
        half *= 2
    return pairs


def count_valid(columns):
    """Number of values of each pixel that are not NaN, (n_pixels,) int64."""
    return (columns == columns).sum(axis=-1)


def median_of(columns, *, xp):
    """Median of all valid values of each pixel, (n_pixels,) float64; NaN where there are none."""
    stop = count_valid(columns)
    return median_between(columns, xp.zeros_like(stop), stop, xp=xp)


def median_between(columns, first, stop, *, xp):
    """Median of places first .. stop - 1 of each row, (n_pixels,) float64; NaN where none is."""
    lower = value_at(columns, (first + stop - 1) // 2, xp=xp)
    upper = value_at(columns, (first + stop) // 2, xp=xp)
    return xp.where(stop > first, (lower.astype(xp.float64) + upper) / 2, xp.nan)


def value_at(columns, index, *, xp):
    """The value of each pixel at its own place, which is moved into the row where it is outside."""
    index = xp.clip(index, 0, columns.shape[-1] - 1)
    return xp.take_along_axis(columns, index[:, None], axis=-1)[:, 0]
