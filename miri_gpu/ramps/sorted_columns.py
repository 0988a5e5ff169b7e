"""Medians of the many values of a pixel, by sorting: NaN is unusable and ends up last.

Sorting is exact, so a median never depends on which other pixels share the block.
"""

import math


def sorted_columns(values, *, xp):
    """Sort the values of each pixel: (n_values, ...) float32 to (n_pixels, n_values)."""
    columns = values.reshape(values.shape[0], math.prod(values.shape[1:])).T.copy()
    columns.sort(axis=-1)
    return columns


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
