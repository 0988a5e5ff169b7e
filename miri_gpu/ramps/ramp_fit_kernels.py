"""What the kernels of the ramp fit take, and when they run."""

import functools
import math
from dataclasses import dataclass

import numpy as np

from miri_gpu import kernels
from miri_gpu.containers import Array, Ramps, Rates
from miri_gpu.ramps import ramp_kernels
from miri_gpu.ramps.ramp_kernels import images
from miri_gpu.ramps.ramp_segments import (
    PixelNoise,
    UsedRamps,
    coefficients_of_whole_ramps,
    slope_coefficients,
)
from miri_gpu.ramps.sorted_columns import comparisons

_MOST_GROUPS = 1024  # for which a kernel has working memory
_BYTES = 4
_THREADS_PER_BLOCK = 64


@dataclass(frozen=True, eq=False)
class Slopes:
    """What is known of ramps before the noise of their pixels is.

    Attributes
    ----------
    median_sum : (n_rows, n_cols) float64 [DN / group]
        Sum over the integrations of the median differences.
    rate : (n_ints, n_rows, n_cols) float32 [DN/s]
    dq : (n_ints, n_rows, n_cols) uint32
    is_broken : (n_ints, n_rows, n_cols) int32
        Whether a ramp is not one segment.
    """

    median_sum: Array
    rate: Array
    dq: Array
    is_broken: Array


def run_on(ramps: Ramps, n_fitted: int, *, xp) -> bool:
    """Whether kernels fit these ramps, in so many groups."""
    return ramp_kernels.run_on(ramps, xp=xp) and n_fitted <= _MOST_GROUPS


def fit_slopes(used: UsedRamps, *, xp) -> Slopes:
    """Fit the slope of each ramp, and find its median difference."""
    n_ints, n_fitted, *image = used.data.shape
    n_pixels = math.prod(image)
    cube = (n_ints, *image)
    median, median_sum = xp.empty(cube), xp.empty(tuple(image))
    slopes = Slopes(
        median_sum=median_sum,
        rate=xp.empty(cube, dtype=xp.float32),
        dq=xp.empty(cube, dtype=xp.uint32),
        is_broken=xp.empty(cube, dtype=xp.int32),
    )
    pairs = xp.asarray(sorting_pairs(n_fitted // 2))
    kernels.launch(
        xp, "fit_slopes", median.size,
        *images(used.data, xp=xp),
        *_flags(used, xp=xp),
        used.readout.group_time_s,
        xp.asarray(coefficients_of_whole_ramps(n_fitted)),
        xp.asarray(slope_coefficients(n_fitted)),
        pairs, len(pairs),
        xp.ascontiguousarray(used.noise.gain), xp.ascontiguousarray(used.noise.sample_var),
        xp.ascontiguousarray(used.pixeldq), n_pixels,
        median, slopes.rate, slopes.dq, slopes.is_broken,
        shared_bytes_per_item=_BYTES * n_fitted,
        threads_per_block=_THREADS_PER_BLOCK,
    )  # fmt: skip
    kernels.launch(xp, "sum_integrations", n_pixels, median, n_ints, median_sum)
    return slopes


def finish_rates(
    used: UsedRamps, slopes: Slopes, noise: PixelNoise, unit: dict[str, Array], *, xp
) -> Rates:
    """Find the variances of all rates, and which of them there are.

    `unit` has what becomes of a rate of 1 DN/s in a ramp of one segment, for each pixel, by the
    names of `Rates`.
    """
    n_pixels = math.prod(used.pixeldq.shape)
    names = ("err", "var_poisson", "var_rnoise")
    rates = Rates(
        data=slopes.rate,
        dq=slopes.dq,
        **{name: xp.empty(slopes.rate.shape, dtype=xp.float32) for name in names},
    )
    kernels.launch(
        xp, "finish_rates", rates.data.size,
        *_flags(used, xp=xp),
        xp.ascontiguousarray(noise.poisson), xp.ascontiguousarray(noise.read),
        *(xp.ascontiguousarray(unit[name], dtype=xp.float32) for name in ("data", *names)),
        xp.ascontiguousarray(used.pixeldq), n_pixels, slopes.dq, slopes.is_broken,
        rates.data, rates.err, rates.var_poisson, rates.var_rnoise,
    )  # fmt: skip
    return rates


@functools.cache
def sorting_pairs(n: int) -> np.ndarray:
    """Which two of 2 n values to put in order, pair after pair, until both halves are sorted.

    Returns
    -------
    (n_pairs, 2) int32
        By turns of one half and of the other; a host array.
    """
    one = np.array(comparisons(n), dtype=np.int32).reshape(-1, 1, 2)
    both = (one + np.array([[0], [n]], dtype=np.int32)).reshape(-1, 2)
    both.flags.writeable = False
    return both


def _flags(used, *, xp):
    """The flags of the groups, and what is to be made of them."""
    return (
        *images(used.groupdq, xp=xp),
        used.groupdq.shape[1],
        used.data.shape[1],
        int(used.follows_dropped),
        int(used.suppress_one_group),
        used.first_group_speed,
    )
