"""The line through a broken ramp: each segment between jumps is fitted, and their slopes averaged.

Here ramps are the second axis of arrays (n_groups, n_ramps), and the loops run over groups.
Slopes are per group; the caller divides by the time of a group.

Source: the OLS_C algorithm of the STScI ramp_fit step (stcal 1.20); weights |x - middle|^P with
the power P by signal-to-noise of Fixsen et al. 2000, PASP 112, 1350.
"""

import functools
import math
from dataclasses import dataclass

import numpy as np

from miri_gpu.containers import Array, Readout
from miri_gpu.detector import DO_NOT_USE, JUMP_DET, PERSISTENCE, SATURATED

# power of the weights by the signal-to-noise ratio of a segment: below the first limit, and so on
_SNR_LIMITS = (5.0, 10.0, 20.0, 50.0, 100.0)
_POWERS = (0.0, 0.4, 1.0, 3.0, 6.0, 10.0)


_LARGEST_VARIANCE = 1e6  # [(DN/s)^2] beyond this the STScI step writes 0


@dataclass(frozen=True, eq=False)
class PixelNoise:
    """What the variances of a pixel's slopes are made of, each (n_rows, n_cols) float64.

    A segment of n groups has a Poisson variance of poisson / (n - 1) and a read-noise variance of
    read / (n^3 - n); one of a single group counts as one of two.

    Attributes
    ----------
    gain : Array [e-/DN]
        1 where it is unknown.
    sample_var : Array [e-^2]
        Variance of one sample by read noise.
    read, poisson : Array [(DN/s)^2]
        The latter follows from slopes: None as long as they are unknown.
    """

    gain: Array
    sample_var: Array
    read: Array
    poisson: Array | None = None


@dataclass(frozen=True, eq=False)
class UsedRamps:
    """The groups of ramps that are in use, and what decides how they are fitted.

    Attributes
    ----------
    data : (n_ints, n_fitted, n_rows, n_cols) float32 [DN]
        The groups that are fitted.
    groupdq : (n_ints, n_groups, n_rows, n_cols) uint8
        Flags of these groups, and of a last one that is out of use.
    pixeldq : (n_rows, n_cols) uint32
    noise : PixelNoise
    readout : Readout
    follows_dropped : bool
        Groups before these are dropped, so a jump in the first one is none of these ramps.
    suppress_one_group : bool
        A ramp with a single good group has no rate.
    """

    data: Array
    groupdq: Array
    pixeldq: Array
    noise: PixelNoise
    readout: Readout
    follows_dropped: bool
    suppress_one_group: bool

    @property
    def invalid(self):
        """Pixels without a rate, (n_rows, n_cols) bool."""
        return (self.pixeldq & (DO_NOT_USE | SATURATED)) != 0

    @property
    def first_group_speed(self) -> float:
        """Group time over the time from the reset to the middle of the first group."""
        return self.readout.group_time_s / (
            (self.readout.n_frames + 1) * self.readout.frame_time_s / 2
        )


@dataclass(frozen=True, eq=False)
class LineFits:
    """Slopes of ramps, and the weights that their variances follow from.

    Attributes
    ----------
    slope : Array [DN / group]
        0 where there is no segment.
    poisson_weight : Array
        Sum of n - 1 over the segments; 0 where there is none.
    read_weight : Array
        Sum of n^3 - n over the segments.
    inverse_variance : Array
        Sum over the segments of the inverse of both variances together.
    """

    slope: Array
    poisson_weight: Array
    read_weight: Array
    inverse_variance: Array


def rates_of(fits, noise, invalid, group_time_s, *, xp):
    """Rates and their variances from fitted lines, by the names that `Rates` gives them.

    `invalid` says where there is no rate: NaN, with variances and error 0.
    """
    none = fits.poisson_weight == 0
    var_poisson = noise.poisson / xp.where(none, 1.0, fits.poisson_weight)
    var_rnoise = noise.read / xp.where(none, 1.0, fits.read_weight)
    var_total = 1 / xp.where(none, 1.0, fits.inverse_variance)
    rate = fits.slope / group_time_s
    # the STScI step weights with the read noise alone, so without it there is no rate
    rate = xp.where(none | (var_rnoise > 0), rate, xp.nan)
    rate = xp.where(~none & (var_rnoise >= _LARGEST_VARIANCE), 0, rate)
    nothing = none | invalid

    def known(variance):
        return xp.where(nothing | (variance >= _LARGEST_VARIANCE), 0.0, variance)

    return {
        "data": xp.where(invalid, xp.nan, rate),
        "err": xp.sqrt(known(var_total)),
        "var_poisson": known(var_poisson),
        "var_rnoise": known(var_rnoise),
    }


@functools.cache
def slope_coefficients(n_groups: int) -> np.ndarray:
    """What the samples of a segment are multiplied with to give its slope; a host array.

    Returns
    -------
    (n_powers, n_groups + 1, n_groups) float64
        For each weighting, length of a segment, and place in it; 0 outside. A single sample is
        its own slope: its line starts at zero.
    """
    length = np.arange(n_groups + 1)[:, None]
    place = np.arange(n_groups)
    middle = (length - 1) / 2
    x = np.where(place < length, place - middle, 0.0)
    distance = np.abs(x) / np.maximum(middle, 0.5)
    coefficients = np.stack([distance**power * x for power in _POWERS])
    norm = (coefficients * x).sum(axis=-1, keepdims=True)
    coefficients /= np.where(norm > 0, norm, 1.0)
    coefficients[:, 1, 0] = 1.0
    coefficients.flags.writeable = False
    return coefficients


@functools.cache
def coefficients_of_whole_ramps(n_groups: int) -> np.ndarray:
    """Those of ramps that are one segment, (n_groups, 8) float32: a row of the first few for each.

    A host array; eight, since a processor looks up as many at once.
    """
    coefficients = np.zeros((n_groups, 8), dtype=np.float32)
    coefficients[:, : len(_POWERS)] = slope_coefficients(n_groups)[:, n_groups].T
    coefficients.flags.writeable = False
    return coefficients


def weighting_class(rise, read_var, gain, *, xp):
    """Index of the weighting that suits a ramp, by the signal-to-noise ratio of its rise.

    Parameters
    ----------
    rise : float64 [DN]
        Last minus first sample; where NaN, the ratio counts as infinite, as in the STScI step.
    read_var : float64 [e-^2]
        Variance of a sample by read noise.
    gain : float64 [e-/DN]
    """
    signal = rise * gain
    variance = read_var + signal
    square = signal * signal
    below = sum((square < limit**2 * variance).astype(xp.int8) for limit in _SNR_LIMITS)
    is_least = (variance <= 0) | (gain == 0) | (signal < 0)
    return xp.where(is_least, 0, len(_POWERS) - 1 - below.astype(xp.int64))


def is_good(groupdq):
    """Whether samples may be fitted."""
    return (groupdq & (0xFF ^ PERSISTENCE)) == 0  # it marks a sample, but does not spoil it


def find_segments(groupdq, *, xp):
    """Find the segments of ramps: good samples in a row, and the jump they may start with.

    A jump sample belongs to the segment after it. Segments of one group count only where a ramp
    has no longer one, and then only the first.

    Parameters
    ----------
    groupdq : (n_groups, n_ramps) uint8

    Returns
    -------
    start, length : (n_groups, n_ramps) int16
        For each sample, the first group of its segment and the number of groups in it; length 0
        where it belongs to none.
    """
    n_groups = groupdq.shape[0]
    good = is_good(groupdq)
    jump = (groupdq & (0xFF ^ PERSISTENCE)) == JUMP_DET
    member = good.copy()
    member[:-1] |= jump[:-1] & good[1:]
    begins = member & ~good
    begins[1:] |= good[1:] & ~member[:-1]
    begins[0] = member[0]
    start = xp.zeros(groupdq.shape, dtype=xp.int16)
    for g in range(1, n_groups):
        start[g] = xp.where(begins[g], xp.int16(g), start[g - 1])
    length = xp.zeros_like(start)
    stop = xp.full(groupdq.shape[1:], n_groups, dtype=xp.int16)
    for g in reversed(range(n_groups)):
        if g + 1 < n_groups:
            stop = xp.where(good[g + 1], stop, xp.int16(g + 1))
        length[g] = xp.where(member[g], stop - start[g], xp.int16(0))
    return start, _without_single_groups(length, xp=xp)


def fit_segments(data, groupdq, noise, single_speed, *, xp) -> LineFits:
    """Fit all segments of broken ramps; the slope is their mean, weighted by the read noise.

    Parameters
    ----------
    data : (n_groups, n_ramps) float32 [DN]
    groupdq : (n_groups, n_ramps) uint8
    noise : PixelNoise of (n_ramps,) each
    single_speed : (n_ramps,) float64
        Group time over the time in which the signal of a segment of one group was collected.
    """
    n_groups, n_ramps = data.shape
    start, length = find_segments(groupdq, xp=xp)
    table = xp.asarray(slope_coefficients(n_groups)).reshape(-1)
    ramp, weighting = xp.arange(n_ramps), xp.zeros(n_ramps, dtype=xp.int64)
    slope, poisson_weight, read_weight, inverse_variance = (xp.zeros(n_ramps) for _ in range(4))
    for g in range(n_groups):
        n, place = length[g].astype(xp.int64), g - start[g].astype(xp.int64)
        inside = n > 0
        begins = inside & (place == 0)
        last = data[xp.minimum(g + xp.maximum(n, 1) - 1, n_groups - 1), ramp]
        rise = last.astype(xp.float64) - data[g]
        here = weighting_class(rise, noise.sample_var, noise.gain, xp=xp)
        weighting = xp.where(begins, here, weighting)
        coefficient = xp.take(table, (weighting * (n_groups + 1) + n) * n_groups + place)
        # the STScI step takes a NaN within a longer segment for 0
        ignored = ~inside | ((n > 2) & xp.isnan(data[g]))
        value = xp.where(ignored, xp.float32(0), data[g])
        speed = xp.where(n == 1, single_speed, 1.0)
        m = xp.maximum(n, 2).astype(xp.float64)
        by_photons, by_reading = (m - 1) / speed, (m * m * m - m) / speed**2
        slope += by_reading * coefficient * speed * value
        poisson_weight += xp.where(begins, by_photons, 0.0)
        read_weight += xp.where(begins, by_reading, 0.0)
        total = inverse(noise.poisson / by_photons + noise.read / by_reading, xp=xp)
        inverse_variance += xp.where(begins, total, 0.0)
    slope /= xp.where(read_weight > 0, read_weight, 1.0)
    return LineFits(slope, poisson_weight, read_weight, inverse_variance)


def _without_single_groups(length, *, xp):
    """Drop segments of one group, but the first one of a ramp that has no other."""
    none_longer = ~(length > 1).any(axis=0)
    kept = length.copy()
    for g in range(length.shape[0]):
        single = length[g] == 1
        kept[g] = xp.where(single & ~none_longer, xp.int16(0), length[g])
        none_longer = none_longer & ~single
    return kept


def inverse(variance, *, xp):
    """1 / variance, infinite where it is 0, without a division by 0."""
    is_zero = variance == 0
    return xp.where(is_zero, math.inf, 1 / xp.where(is_zero, 1.0, variance))
