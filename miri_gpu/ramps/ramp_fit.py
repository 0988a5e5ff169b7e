"""Rates from ramps: a straight line through the samples between jumps, optimally weighted.

Source: the STScI ramp_fit step, algorithm OLS_C (jwst 3.0, stcal 1.20), its second product, one
rate for each integration. Weights: Fixsen et al. 2000, PASP 112, 1350.
"""

import math
from dataclasses import dataclass, replace
from typing import ClassVar

from miri_gpu.backend import namespace, to_host
from miri_gpu.containers import Array, Ramps, Rates, Readout, check_shapes
from miri_gpu.detector import DO_NOT_USE, JUMP_DET, NO_GAIN_VALUE, SATURATED
from miri_gpu.parameters import Parameters, option
from miri_gpu.ramps import ramp_fit_kernels
from miri_gpu.ramps.broken_ramps import (
    fit_broken_ramps,
    gather_broken_ramps,
    median_slopes,
    union_of_flags,
)
from miri_gpu.ramps.ramp_segments import (
    PERSISTENCE,
    LineFits,
    PixelNoise,
    UsedRamps,
    coefficients_of_whole_ramps,
    inverse,
    rates_of,
    weighting_class,
)
from miri_gpu.ramps.sorted_columns import median_of_planes


@dataclass(frozen=True, kw_only=True)
class RampFitParams(Parameters):
    """Settings of the ramp fit, named as the STScI step names them."""

    step: ClassVar[str] = "ramp_fit"

    algorithm: str = option(
        "OLS_C",
        "how ramps are fitted: by least squares between jumps, or by the likelihood of the whole",
        choices=("OLS_C", "LIKELY"),
    )
    weighting: str = option("optimal", "how samples are weighted", choices=("optimal",))
    suppress_one_group: bool = option(
        True, "give no rate to a ramp with a single good group, whose rate needs a bias of zero"
    )
    firstgroup: int | None = option(None, "ignore the groups before this one", at_least=0)
    lastgroup: int | None = option(None, "ignore the groups after this one", at_least=0)

    def __post_init__(self):
        super().__post_init__()
        first, last = self.firstgroup, self.lastgroup
        if first is not None and last is not None and first >= last:
            raise ValueError(
                f"ramp_fit.firstgroup: expected less than lastgroup ({last}), got {first}"
            )


def fit_ramps(
    ramps: Ramps,
    read_noise: Array,
    gain: Array,
    *,
    params: RampFitParams,
    readout: Readout,
    dropped: Array | None = None,
    dark_current: Array | None = None,
) -> Rates:
    """Fit the count rate of each ramp, as the STScI ramp_fit step does.

    Parameters
    ----------
    ramps : Ramps
        All integrations of some rows: the Poisson variance is that of the pixel's median rate,
        the mean over the integrations.
    read_noise : (n_rows, n_cols) float32 [DN]
        Noise of a difference of two frames (the STScI reference file).
    gain : (n_rows, n_cols) float32 [e-/DN]
    params : RampFitParams
    readout : Readout
    dropped : (n_ints, n_groups) bool, optional
        Groups that are DO_NOT_USE on the whole frame; needed where the ramps are a block of its
        rows. By default what the ramps at hand show.
    dark_current : (n_rows, n_cols) float32 [e-/s], optional
        Mean dark current, whose noise is in the ramps though its signal is not; by default 0.

    Returns
    -------
    Rates
        Rates [DN/s] with their variances by photons and by read noise. Ramps without usable
        samples, saturated from the first group on, or of a pixel that is DO_NOT_USE: NaN, with
        variances and error 0, and DO_NOT_USE. JUMP_DET, SATURATED: some group was.

    Raises
    ------
    ValueError
        Where fewer than two groups are in use.

    Notes
    -----
    Leading groups that are dropped in all integrations are left out, and one last group, as the
    step does for MIRI. Not done: the step's extra read-noise variance of CHARGELOSS groups, which
    no MIRI step sets; and no result at all where the first group is saturated on the whole frame.
    """
    xp = namespace(ramps.data, ramps.groupdq, ramps.pixeldq, read_noise, gain, dark_current)
    check_shapes(ramps.data.shape[2:], read_noise=read_noise, gain=gain, dark_current=dark_current)
    groupdq, dropped = with_limits(ramps.groupdq, dropped, params)
    groups, n_fitted = _group_range(dropped)
    used = UsedRamps(
        data=ramps.data[:, groups][:, :n_fitted],
        groupdq=groupdq[:, groups],
        pixeldq=ramps.pixeldq | ~(gain > 0) * xp.uint32(NO_GAIN_VALUE | DO_NOT_USE),
        noise=_read_noise(read_noise, gain, readout, xp=xp),
        readout=readout,
        follows_dropped=groups.start > 0,
        suppress_one_group=params.suppress_one_group,
    )
    if ramp_fit_kernels.run_on(ramps, n_fitted, xp=xp):
        return _fit_by_kernels(used, dark_current, xp=xp)
    return _fit_by_arrays(used, dark_current, xp=xp)


def ignored_groups(n_groups: int, params: RampFitParams) -> list[int]:
    """The groups before firstgroup and after lastgroup."""
    first = 0 if params.firstgroup is None else params.firstgroup
    last = n_groups - 1 if params.lastgroup is None else params.lastgroup
    return [g for g in range(n_groups) if g < first or g > last]


def with_limits(groupdq: Array, dropped: Array | None, params: RampFitParams):
    """Drop the groups before firstgroup and after lastgroup.

    Parameters
    ----------
    groupdq : (n_ints, n_groups, n_rows, n_cols) uint8
    dropped : (n_ints, n_groups) bool, or None
        Groups that are DO_NOT_USE on the whole frame; by default what the flags show.
    params : RampFitParams

    Returns
    -------
    groupdq : the same, or a copy with more flags
    dropped : (n_ints, n_groups) bool, on the host
    """
    if dropped is None:
        dropped = ((groupdq & DO_NOT_USE) != 0).all(axis=(2, 3))
    dropped = to_host(dropped)
    ignored = ignored_groups(dropped.shape[1], params)
    if ignored:
        dropped, groupdq = dropped.copy(), groupdq.copy()
        dropped[:, ignored] = True
        for g in ignored:
            groupdq[:, g] |= DO_NOT_USE
    return groupdq, dropped


def _group_range(dropped):
    """The groups whose flags count, as a slice, and how many of them are fitted.

    All leading groups that are dropped everywhere are left out, but only one at the end, as the
    STScI step does for MIRI; further ones at the end are flagged, so that there is nothing to fit.
    """
    in_use = (~dropped).any(axis=0).nonzero()[0]
    if len(in_use) < 2:
        raise ValueError(
            f"ramp_fit: expected ramps of at least 2 groups that are in use, got {len(in_use)}"
        )
    first, last, n_groups = int(in_use[0]), int(in_use[-1]), dropped.shape[1]
    stop = n_groups if last == n_groups - 1 else n_groups - 1
    return slice(first, stop), last + 1 - first


def _fit_by_kernels(used, dark_current, *, xp) -> Rates:
    """Lines through all ramps, in fused loops."""
    slopes = ramp_fit_kernels.fit_slopes(used, xp=xp)
    noise = _with_photons(used.noise, slopes.median_sum, used, dark_current, xp=xp)
    slope = xp.full(used.invalid.shape, used.readout.group_time_s, dtype=xp.float32)
    unit = _rates_of_whole_ramps(slope, used, noise, xp=xp)
    return ramp_fit_kernels.finish_rates(used, slopes, noise, unit, xp=xp)


def _fit_by_arrays(used, dark_current, *, xp) -> Rates:
    """The same: ramps without a flag in place, then those that have one."""
    # as if no sample were flagged; where one is NaN, or flagged after all, it is replaced below
    median, is_whole = median_of_planes(used.data[:, 1:] - used.data[:, :-1], xp=xp)
    is_whole &= union_of_flags(used.groupdq[:, : used.data.shape[1]], axis=1) == 0
    flags = union_of_flags(used.groupdq, axis=1)
    broken = gather_broken_ramps(used, ~is_whole, xp=xp)
    if broken is not None:
        broken.put(median, median_slopes(broken, used, xp=xp))
        broken.put(flags, union_of_flags(broken.groupdq, axis=0))

    noise = _with_photons(used.noise, median.sum(axis=0), used, dark_current, xp=xp)
    rates = _rates_of_whole_ramps(_slopes(used.data, noise, xp=xp), used, noise, xp=xp)
    cubes = {name: xp.empty(median.shape, dtype=xp.float32) for name in rates}
    for name, image in rates.items():
        cubes[name][...] = image
    dq = used.pixeldq | (flags & (JUMP_DET | PERSISTENCE | SATURATED)).astype(xp.uint32)
    if broken is not None:
        rates_of_broken, dq_of_broken = fit_broken_ramps(broken, used, noise, xp=xp)
        for name, values in rates_of_broken.items():
            broken.put(cubes[name], values)
        broken.put(dq, broken.take(dq) | dq_of_broken)
    return Rates(dq=dq, **cubes)


def _read_noise(read_noise, gain, readout, *, xp) -> PixelNoise:
    """What the variances of a pixel's slopes are made of, but for the photons."""
    gain = xp.where(gain > 0, gain, 1).astype(xp.float64)
    read_dn = read_noise / math.sqrt(2 * readout.n_frames)  # of one sample
    return PixelNoise(
        gain=gain,
        sample_var=(read_dn * gain) ** 2,
        read=12 * (read_dn.astype(xp.float64) / readout.group_time_s) ** 2,
    )


def _with_photons(noise, median_sum, used, dark_current, *, xp) -> PixelNoise:
    """The same with the photons, from the sum over the integrations of median differences."""
    group_time = used.readout.group_time_s
    signal = xp.maximum(median_sum / (used.data.shape[0] * group_time), 0.0)
    if dark_current is not None:
        signal = signal + dark_current
    return replace(noise, poisson=signal / (group_time * noise.gain))


def _rates_of_whole_ramps(slope, used, noise, *, xp):
    """Rates and variances of ramps without a flag, which are one segment each.

    `slope` is a cube, or an image of it; the variances are images.
    """
    n = used.data.shape[1]
    by_photons, by_reading = float(n - 1), float(n**3 - n)
    ones = xp.ones_like(noise.read)
    fits = LineFits(
        slope=slope,
        poisson_weight=by_photons * ones,
        read_weight=by_reading * ones,
        inverse_variance=inverse(noise.poisson / by_photons + noise.read / by_reading, xp=xp),
    )
    return rates_of(fits, noise, used.invalid, used.readout.group_time_s, xp=xp)


def _slopes(data, noise, *, xp):
    """Weighted slopes of ramps without a flag, (n_ints, n_rows, n_cols) float32 [DN / group].

    The weights are symmetric, so samples at the same distance from the middle are taken
    together: their differences are small, and float32 is enough.
    """
    n_groups = data.shape[1]
    rise = data[:, -1].astype(xp.float64) - data[:, 0]
    weighting = weighting_class(rise, noise.sample_var, noise.gain, xp=xp)
    table = coefficients_of_whole_ramps(n_groups)
    slopes = {
        k: xp.zeros(rise.shape, dtype=xp.float32) for k in _present(weighting, table.shape[1])
    }
    term = xp.empty(rise.shape, dtype=xp.float32)
    for g in range(n_groups // 2):
        mirror = n_groups - 1 - g
        difference = data[:, mirror] - data[:, g]
        for k, slope in slopes.items():
            slope += xp.multiply(difference, table[mirror, k], out=term)
    chosen = xp.zeros(rise.shape, dtype=xp.float32)
    for k, slope in slopes.items():
        xp.copyto(chosen, slope, where=weighting == k)
    return chosen


def _present(weighting, n_weightings) -> list[int]:
    """Which weightings occur."""
    return [k for k in range(n_weightings) if bool((weighting == k).any())]
