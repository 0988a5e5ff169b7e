"""Ramps with a flag or a NaN in them: taken out of the cube, fitted by segments, put back.

Most ramps have none and are fitted in place; which way a ramp goes is decided by its own samples
alone, so results do not depend on what else is in the block.

Source: the OLS_C algorithm of the STScI ramp_fit step (stcal 1.20).
"""

from dataclasses import dataclass, fields

from miri_gpu.containers import Array
from miri_gpu.detector import DO_NOT_USE, JUMP_DET, SATURATED
from miri_gpu.ramps.ramp_segments import (
    PixelNoise,
    UsedRamps,
    fit_segments,
    is_good,
    rates_of,
)
from miri_gpu.ramps.sorted_columns import median_of, sorted_columns


@dataclass(frozen=True, eq=False)
class BrokenRamps:
    """Ramps taken out of a cube (n_ints, n_groups, n_rows, n_cols).

    Attributes
    ----------
    place : (n_ramps,) int64
        Where they come from: index into the flat (n_ints, n_rows, n_cols).
    pixel : (n_ramps,) int64
        The same for the flat (n_rows, n_cols).
    data : (n_fitted, n_ramps) float32 [DN]
        The groups that are fitted.
    groupdq : (n_groups, n_ramps) uint8
        Flags of these groups, and of a last one that is out of use.
    only_first : (n_ramps,) bool
        Nothing but the first group is good, and it is to be used.
    """

    place: Array
    pixel: Array
    data: Array
    groupdq: Array
    only_first: Array

    def take(self, cube):
        """The values of an array (n_ints, n_rows, n_cols) at these ramps."""
        return cube.reshape(-1)[self.place]

    def put(self, cube, values) -> None:
        """Write the values of these ramps into a contiguous array (n_ints, n_rows, n_cols)."""
        if not cube.flags.c_contiguous:
            raise ValueError("expected a contiguous array: the values would go into a copy of it")
        cube.reshape(-1)[self.place] = values.astype(cube.dtype)


def gather_broken_ramps(used: UsedRamps, is_broken, *, xp) -> BrokenRamps | None:
    """Take the broken ramps out of the cube; None where there are none.

    A jump in the first group after dropped ones is no jump of what is left. Where one-group ramps
    are suppressed, all their groups become DO_NOT_USE.
    """
    n_ints, _, n_rows, n_cols = used.data.shape
    place = xp.flatnonzero(is_broken)
    if place.size == 0:
        return None
    integration, pixel = place // (n_rows * n_cols), place % (n_rows * n_cols)

    def samples(cube):
        planes = (cube[:, g].reshape(n_ints, n_rows * n_cols) for g in range(cube.shape[1]))
        return xp.stack([plane[integration, pixel] for plane in planes])

    flags = samples(used.groupdq)
    n_good = is_good(flags).sum(axis=0)
    if used.follows_dropped:
        flags[0] &= 0xFF ^ JUMP_DET
    if used.suppress_one_group:
        flags |= (n_good == 1) * xp.uint8(DO_NOT_USE)
    untouched = flags == 0
    return BrokenRamps(
        place=place,
        pixel=pixel,
        data=samples(used.data),
        groupdq=flags,
        only_first=untouched[0] & (untouched.sum(axis=0) == 1) & (not used.suppress_one_group),
    )


def union_of_flags(groupdq, *, axis):
    """All flags that any group of a ramp has."""
    groups = [(slice(None),) * axis + (g,) for g in range(groupdq.shape[axis])]
    flags = groupdq[groups[0]].copy()
    for group in groups[1:]:
        flags |= groupdq[group]
    return flags


def median_slopes(broken, used, *, xp):
    """Median difference of each ramp, (n_ramps,) float64 [DN / group]; 0 where there is none.

    Where no two neighbouring samples are usable, the first sample itself is taken as a difference.
    """
    flags = broken.groupdq[: len(broken.data)]
    usable = (flags & (DO_NOT_USE | SATURATED)) == 0
    data = xp.where(usable, broken.data, xp.float32(xp.nan))
    steps = xp.where((flags[1:] & JUMP_DET) != 0, xp.float32(xp.nan), data[1:] - data[:-1])
    median = median_of(sorted_columns(steps, xp=xp), xp=xp)
    median = xp.where(xp.isnan(median), data[0], median)
    median = xp.where(broken.only_first, data[0] * used.first_group_speed, median)
    return xp.where(xp.isnan(median), 0.0, median)


def fit_broken_ramps(broken, used, noise, *, xp):
    """Rates of broken ramps by the names of `Rates`, and the flags that their ramps add, uint32.

    `noise` is that of the pixels, PixelNoise of images.
    """
    unusable = (broken.groupdq & (DO_NOT_USE | SATURATED)) != 0
    saturated = (broken.groupdq[0] & SATURATED) != 0
    hopeless = unusable.all(axis=0) | saturated
    noise = PixelNoise(
        **{f.name: getattr(noise, f.name).reshape(-1)[broken.pixel] for f in fields(noise)}
    )
    single_speed = 1.0 + broken.only_first * (used.first_group_speed - 1.0)
    flags = broken.groupdq[: len(broken.data)]
    fits = fit_segments(broken.data, flags, noise, single_speed, xp=xp)
    invalid = used.invalid.reshape(-1)[broken.pixel] | hopeless
    rates = rates_of(fits, noise, invalid, used.readout.group_time_s, xp=xp)
    return rates, hopeless * xp.uint32(DO_NOT_USE)
