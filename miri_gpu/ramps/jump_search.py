"""What is usual among the differences of a pixel: three searches, each of which returns bounds.

The values of a pixel are sorted, so that what stands out lies at the two ends, and a search only
moves the ends inwards. `columns` is a float32 array (n_pixels, n_values): each row ascends and ends
in the NaN of unusable samples; `first` and `stop` say which part of a row is left.

Source: the two-point difference method of the STScI jump step (Anderson & Gordon 2011, PASP 123,
1237) with the numbers of stcal: differences in float32, medians and noise in float64.
"""

import math

from miri_gpu.ramps.sorted_columns import count_valid, median_between, middle_of, value_at

_FEW_VALUES = 4  # below that many the STScI step has other thresholds
_CLIPPING_ROUNDS = 5  # what astropy.stats.sigma_clip does unless told otherwise


def noise(median, read_var, *, xp):
    """Expected standard deviation of a difference [e-]; NaN where it is 0, so nothing is found.

    `median` [e-] is the usual difference, whose photons add to the variance `read_var` [e-^2] that
    the read noise of two groups gives; both (n_pixels,) float64.
    """
    sigma = xp.sqrt(xp.abs(median) + read_var)
    return xp.where(sigma == 0, xp.nan, sigma)


def rounded_up(x, *, xp):
    """The smallest float32 that is not below x: for a float32 d, d < x is d < rounded_up(x)."""
    near = _nearest_float32(x, xp=xp)
    return xp.where(near < x, xp.nextafter(near, xp.float32(math.inf)), near)


def rounded_down(x, *, xp):
    """The largest float32 that is not above x: for a float32 d, d > x is d > rounded_down(x)."""
    near = _nearest_float32(x, xp=xp)
    return xp.where(near > x, xp.nextafter(near, xp.float32(-math.inf)), near)


def range_by_noise(median, sigma, threshold, *, xp):
    """What lies within `threshold` expected standard deviations of the median.

    Returns
    -------
    low, high : (n_pixels,) float32
        Smallest and largest usual value; NaN where nothing can be said.
    """
    return (
        rounded_up(median - threshold * sigma, xp=xp),
        rounded_down(median + threshold * sigma, xp=xp),
    )


def range_by_clipping(columns, threshold, *, xp):
    """What sigma clipping keeps: within `threshold` measured standard deviations of the median.

    Returns
    -------
    low, high : (n_pixels,) float32
        Smallest and largest usual value; NaN where a pixel has no values.
    """
    n_pixels = columns.shape[0]
    low, high = xp.empty(n_pixels, dtype=xp.float32), xp.empty(n_pixels, dtype=xp.float32)
    active, n_valid = xp.arange(n_pixels), count_valid(columns)
    first, stop = xp.zeros_like(n_valid), n_valid
    for _ in range(_CLIPPING_ROUNDS):
        a, b = _clip_once(columns, first, stop, threshold, xp=xp)
        low[active], high[active] = a, b
        new_first = xp.maximum(first, (columns < a[:, None]).sum(axis=-1))
        new_stop = xp.minimum(stop, n_valid - (columns > b[:, None]).sum(axis=-1))
        changed = xp.flatnonzero((new_first != first) | (new_stop != stop))
        if changed.size == 0:
            break
        active, columns, n_valid = active[changed], columns[changed], n_valid[changed]
        first, stop = new_first[changed], new_stop[changed]
    return low, high


def range_by_removal(columns, read_var, thresholds, *, xp):
    """What is left when the value farthest from the median goes, again and again, while it is far.

    For each median the largest value is left out (with three values it is not, with two the
    smaller one is taken), so that a single jump among few differences does not hide itself.

    Parameters
    ----------
    columns : (n_pixels, n_values) float32 [e-]
        Sizes of the differences, without their sign, in any order.
    read_var : (n_pixels,) float64 [e-^2]
    thresholds : (float, float, float)
        For pixels with two, three, and four or more values left, in standard deviations.

    Returns
    -------
    low, high : (n_pixels,) float32
        Smallest and largest usual size; NaN where a pixel has no values.
    """
    low, high, suspects = _range_where_nothing_is_far(columns, read_var, thresholds, xp=xp)
    if suspects.size:
        columns = columns[suspects]
        columns.sort(axis=-1)
        low[suspects], high[suspects] = _range_by_removal(
            columns, read_var[suspects], thresholds, xp=xp
        )
    return low, high


def _range_where_nothing_is_far(columns, read_var, thresholds, *, xp):
    """The range of pixels in which nothing is removed, and which pixels are to be looked at.

    Only the middle of their values is sorted out, by which the largest and the smallest are judged
    as `_range_by_removal` judges them first. It has to look at pixels with few values, NaN or
    several equal largest values, too.
    """
    n_values = columns.shape[-1]
    if n_values < _FEW_VALUES:
        nothing = xp.full(columns.shape[0], xp.nan, dtype=xp.float32)
        return nothing, nothing.copy(), xp.arange(columns.shape[0])
    below, at, is_whole = middle_of(columns, xp=xp)
    smallest, largest = columns.min(axis=-1), columns.max(axis=-1)
    # of all but the largest
    median = (below.astype(xp.float64) + (at if n_values % 2 else below)) / 2
    farthest, _, _ = _farther(smallest, largest, median, xp=xp)
    is_far = farthest / noise(median, read_var, xp=xp) > thresholds[-1]
    is_tied = (columns == largest[:, None]).sum(axis=-1) > 1
    return smallest, largest, xp.flatnonzero(is_far | is_tied | ~is_whole)


def _range_by_removal(columns, read_var, thresholds, *, xp):
    """The same as `range_by_removal` for sorted columns."""
    n_values = columns.shape[-1]
    all_columns, active = columns, xp.arange(columns.shape[0])
    stop = count_valid(columns)
    first = xp.zeros_like(stop)
    left_first, left_stop = first.copy(), stop.copy()
    for step in range(n_values):
        top = _run_start(columns, first, stop, xp=xp)  # equal values go together
        median = _median_without_largest(columns, first, top, stop, xp=xp)
        if step > 0:
            median = median.astype(xp.float32).astype(xp.float64)  # as stcal stores it
        farthest, is_top, is_bottom = _farthest(columns, first, stop, median, xp=xp)
        limit = _limit(stop - first, thresholds, xp=xp)
        found = xp.flatnonzero(farthest / noise(median, read_var, xp=xp) > limit)
        if found.size == 0:
            break
        columns, read_var, active = columns[found], read_var[found], active[found]
        first, stop, top = first[found], stop[found], top[found]
        bottom = _run_stop(columns, first, stop, xp=xp)
        first = xp.where(is_bottom[found], bottom, first)
        stop = xp.where(is_top[found], top, stop)
        left_first[active], left_stop[active] = first, stop
    low = value_at(all_columns, left_first, xp=xp)
    return low, value_at(all_columns, left_stop - 1, xp=xp)


def _clip_once(columns, first, stop, threshold, *, xp):
    """Bounds by the median and the standard deviation of what is left."""
    median = median_between(columns, first, stop, xp=xp)
    place = xp.arange(columns.shape[-1])
    kept = (place >= first[:, None]) & (place < stop[:, None])
    deviation = xp.where(kept, columns - median[:, None], 0.0)
    count = xp.maximum(stop - first, 1)
    mean = deviation.sum(axis=-1) / count
    variance = xp.square(deviation, out=deviation).sum(axis=-1) / count - mean * mean
    return range_by_noise(median, xp.sqrt(xp.maximum(variance, 0.0)), threshold, xp=xp)


def _farthest(columns, first, stop, median, *, xp):
    """Distance of the value farthest from the median, and whether it is at the top, the bottom."""
    smallest, largest = value_at(columns, first, xp=xp), value_at(columns, stop - 1, xp=xp)
    return _farther(smallest, largest, median, xp=xp)


def _farther(smallest, largest, median, *, xp):
    above = xp.abs(largest - median).astype(xp.float32)
    below = xp.abs(smallest - median).astype(xp.float32)
    farthest = xp.maximum(above, below)
    return farthest, above == farthest, below == farthest


def _limit(count, thresholds, *, xp):
    limit = xp.full(count.shape, math.inf)  # a single value has nothing to be compared with
    limit[count == 2], limit[count == 3], limit[count >= 4] = thresholds
    return limit


def _median_without_largest(columns, first, top, stop, *, xp):
    count = stop - first
    rest = xp.where(count >= 4, top, xp.where(count == 2, first + 1, stop))
    return median_between(columns, first, rest, xp=xp)


def _run_start(columns, first, stop, *, xp):
    """Where the run of equal values begins that ends before `stop`."""
    value = value_at(columns, stop - 1, xp=xp)
    tied = (value_at(columns, stop - 2, xp=xp) == value) & (stop - first > 1)
    if not bool(tied.any()):
        return stop - 1
    return _bisect(columns, first, stop - 1, lambda x: x >= value, xp=xp)


def _run_stop(columns, first, stop, *, xp):
    """Where the run of equal values ends that begins at `first`."""
    value = value_at(columns, first, xp=xp)
    tied = (value_at(columns, first + 1, xp=xp) == value) & (stop - first > 1)
    if not bool(tied.any()):
        return first + 1
    return _bisect(columns, first, stop, lambda x: x > value, xp=xp)


def _bisect(columns, low, high, is_beyond, *, xp):
    """First place from `low` on where a test that turns true once holds; `high` where none is."""
    for _ in range(int(columns.shape[-1]).bit_length()):
        middle = (low + high) // 2
        beyond = is_beyond(value_at(columns, middle, xp=xp)) | (middle >= high)
        low, high = xp.where(beyond, low, middle + 1), xp.where(beyond, middle, high)
    return high


def _nearest_float32(x, *, xp):
    largest = float(xp.finfo(xp.float32).max)
    return xp.clip(x, -largest, largest).astype(xp.float32)
