"""From differences that stand out to flags: the jumps, their neighbours, and the groups after them.

Each function returns new flags of one or all groups; `groups[k]` is the group that difference k
leads to, the one that is flagged.
"""

from dataclasses import dataclass

from miri_gpu.containers import Array
from miri_gpu.detector import DO_NOT_USE, JUMP_DET, SATURATED
from miri_gpu.ramps.jump_search import rounded_down, rounded_up


@dataclass(frozen=True, eq=False)
class Differences:
    """Differences between successive groups, where both are in use somewhere.

    Attributes
    ----------
    values : (n_ints, n_diffs, n_rows, n_cols) float32 [e-]
        NaN where a group of the two is NaN, DO_NOT_USE or SATURATED.
    groups : tuple of int
        The later group of each difference.
    """

    values: Array
    groups: tuple[int, ...]

    @property
    def where(self) -> slice | list[int]:
        """The index of these groups."""
        first, last = self.groups[0], self.groups[-1]
        follow = last - first + 1 == len(self.groups)
        return slice(first, last + 1) if follow else list(self.groups)


def first_differences(data, groupdq, gain, groups, *, xp) -> Differences:
    """Differences in electrons of the groups before and at `groups`."""
    hull = slice(groups[0] - 1, groups[-1] + 1)
    electrons = data[:, hull] * gain
    unusable = (groupdq[:, hull] & (DO_NOT_USE | SATURATED)) != 0
    xp.copyto(electrons, xp.float32(xp.nan), where=unusable)
    values = electrons[:, 1:] - electrons[:, :-1]
    if len(groups) < values.shape[1]:
        values = values[:, [g - groups[0] for g in groups]]
    return Differences(values, tuple(groups))


def flag_outside(groupdq, differences, low, high, *, signed, xp):
    """Flag the samples whose difference is outside the bounds, (n_diffs or 1, n_rows, n_cols).

    The bounds are those of the size of the difference where `signed` is false.
    """
    values = differences.values if signed else xp.abs(differences.values)
    jump = values < low
    jump |= values > high
    groupdq = groupdq.copy()
    groupdq[:, differences.where] |= jump * xp.uint8(JUMP_DET)
    return groupdq


def flag_neighbours(groupdq, differences, median, sigma, smallest, largest, *, xp):
    """Flag the four neighbours of jumps of between `smallest` and `largest` sigma, both excluded.

    `median` and `sigma` are (n_rows, n_cols) float64 [e-].
    """
    low, high = (
        rounded_up(median - smallest * sigma, xp=xp),
        rounded_down(median + smallest * sigma, xp=xp),
    )
    lowest, highest = (
        rounded_down(median - largest * sigma, xp=xp),
        rounded_up(median + largest * sigma, xp=xp),
    )
    groupdq = groupdq.copy()
    for k, g in enumerate(differences.groups):
        value = differences.values[:, k]
        source = ((value < low) | (value > high)) & (value > lowest) & (value < highest)
        source &= (groupdq[:, g] & JUMP_DET) != 0
        grown = source.copy()
        grown[:, 1:] |= source[:, :-1]
        grown[:, :-1] |= source[:, 1:]
        grown[:, :, 1:] |= source[:, :, :-1]
        grown[:, :, :-1] |= source[:, :, 1:]
        groupdq[:, g] |= grown * xp.uint8(JUMP_DET)
    return groupdq


def flag_after_jumps(groupdq, differences, median, sizes, n_after, *, xp):
    """Flag the groups after large jumps.

    Parameters
    ----------
    groupdq : (n_ints, n_groups, n_rows, n_cols) uint8
    differences : Differences
    median : (n_rows, n_cols) float64 [e-]
    sizes : sequence of float or 0-d array [e-]
        For each kind of jump, how far it lies above the median at least.
    n_after : sequence of int
        For each kind of jump, how many groups are flagged after it.
    """
    thresholds = [rounded_up(median + size, xp=xp) for size in sizes]
    kinds = list(zip(thresholds, n_after, strict=True))
    ages = [xp.full(groupdq[:, 0].shape, n + 1, dtype=xp.int32) for n in n_after]
    place = {g: k for k, g in enumerate(differences.groups)}
    flagged = groupdq.copy()
    for g in range(1, groupdq.shape[1]):
        is_jump = (groupdq[:, g] & JUMP_DET) != 0
        for kind, (threshold, n) in enumerate(kinds):
            age = ages[kind] + 1
            if g in place:
                large = is_jump & (differences.values[:, place[g]] >= threshold)
                age = xp.where(large, xp.int32(0), age)
            ages[kind] = age
            flagged[:, g] |= (age <= n) * xp.uint8(JUMP_DET)
    return flagged


def clear_unusable(groupdq, *, xp):
    """Take JUMP_DET from samples that are DO_NOT_USE or SATURATED."""
    unusable = (groupdq & (DO_NOT_USE | SATURATED)) != 0
    return groupdq & ~(unusable * xp.uint8(JUMP_DET))
