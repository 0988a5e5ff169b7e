"""Cosmic-ray jumps: samples that differ from the one before by more than noise explains.

Source: the STScI jump step (jwst 3.0, stcal 1.20, two-point difference method).
"""

import math
from dataclasses import dataclass, replace
from typing import ClassVar

from miri_gpu.backend import namespace, to_host
from miri_gpu.containers import Array, Ramps, Readout, check_shapes
from miri_gpu.detector import DO_NOT_USE, NO_GAIN_VALUE
from miri_gpu.parameters import Parameters, option
from miri_gpu.ramps import ramp_kernels
from miri_gpu.ramps.jump_flags import (
    clear_unusable,
    first_differences,
    flag_after_jumps,
    flag_neighbours,
    flag_outside,
)
from miri_gpu.ramps.jump_search import (
    noise,
    range_by_clipping,
    range_by_noise,
    range_by_removal,
)
from miri_gpu.ramps.sorted_columns import columns_of, median_of_unsorted, sorted_columns

_FEWEST_GROUPS = 3  # the STScI step does not look at shorter ramps


@dataclass(frozen=True, kw_only=True)
class JumpParams(Parameters):
    """Settings of the jump detection, named as the STScI step names them."""

    step: ClassVar[str] = "jump"

    rejection_threshold: float = option(4.0, "size of a jump from which it is flagged",
        unit="sigma", at_least=0)  # fmt: skip
    three_group_rejection_threshold: float = option(
        6.0, "the same where only two differences are usable", unit="sigma", at_least=0
    )
    four_group_rejection_threshold: float = option(
        5.0, "the same where only three differences are usable", unit="sigma", at_least=0
    )
    flag_4_neighbors: bool = option(True, "flag the four neighbours of a jump, too")
    max_jump_to_flag_neighbors: float = option(
        1000.0, "jumps larger than this leave their neighbours unflagged", unit="sigma"
    )
    min_jump_to_flag_neighbors: float = option(
        10.0, "jumps smaller than this leave their neighbours unflagged", unit="sigma"
    )
    after_jump_flag_dn1: float = option(
        0.0, "size of a jump from which the groups after it are flagged", unit="DN", at_most=1e6
    )
    after_jump_flag_time1: float = option(
        0.0, "how long after such a jump groups are flagged", unit="s", at_least=0
    )
    after_jump_flag_dn2: float = option(
        0.0, "size of a larger jump, which is followed by more flagged groups", unit="DN",
        at_most=1e6,
    )  # fmt: skip
    after_jump_flag_time2: float = option(
        0.0, "how long after such a larger jump groups are flagged", unit="s", at_least=0
    )
    min_diffs_single_pass: int = option(
        10,
        "differences of an integration from which all jumps are found in one pass; with fewer "
        "they are removed one by one",
        at_least=1,
    )
    minimum_sigclip_groups: int = option(
        100, "integrations (or groups) from which sigma clipping finds the jumps", at_least=1
    )
    only_use_ints: bool = option(
        True, "sigma clipping compares a difference with the same one of other integrations only"
    )
    expand_large_events: bool = option(
        False, "snowballs of the near-infrared detectors: not available for MIRI, must be false"
    )
    find_showers: bool = option(
        False, "showers over many pixels: not available for this subarray, must be false"
    )

    def __post_init__(self):
        super().__post_init__()
        for name in ("expand_large_events", "find_showers"):
            if getattr(self, name):
                raise ValueError(
                    f"jump.{name}: expected false (extended events are not searched for in this "
                    "mode), got true"
                )


def halo_rows(params: JumpParams) -> int:
    """Rows above and below a block whose own jumps decide flags within the block."""
    return 1 if params.flag_4_neighbors else 0


def jump_method(params: JumpParams, dropped) -> str:
    """Which search the settings and the number of usable groups choose.

    Parameters
    ----------
    params : JumpParams
    dropped : (n_ints, n_groups) bool, on the host
        Groups that are DO_NOT_USE on the whole frame.

    Returns
    -------
    "none", "iterative", "single_pass" or "sigma_clipping"
    """
    n_ints, n_groups = dropped.shape
    if n_groups < _FEWEST_GROUPS:
        return "none"
    n_samples = n_ints if params.only_use_ints else int((~dropped).sum())
    if n_samples >= params.minimum_sigclip_groups:
        return "sigma_clipping"
    n_usable = n_groups - int(dropped.sum(axis=1).max())
    if n_usable < _FEWEST_GROUPS:
        return "none"
    return "single_pass" if n_usable - 1 >= params.min_diffs_single_pass else "iterative"


def values_clipped(params: JumpParams, dropped) -> int:
    """Among how many differences, at most, sigma clipping looks for one that stands out.

    Parameters
    ----------
    params : JumpParams
    dropped : (n_ints, n_groups) bool, on the host
        Groups that are DO_NOT_USE on the whole frame.
    """
    usable = ~(dropped[:, 1:] | dropped[:, :-1])
    return int(usable.sum(axis=0).max() if params.only_use_ints else usable.sum())


def clipping_limit(n_values: int) -> float:
    """How many standard deviations one of n values can at most be away from their median.

    A sigma-clipping threshold beyond this flags nothing, whatever the data.
    """
    return n_values / math.sqrt(n_values - 1) if n_values > 1 else 0.0


def flag_jumps(
    ramps: Ramps,
    read_noise: Array,
    gain: Array,
    *,
    params: JumpParams,
    readout: Readout,
    dropped: Array | None = None,
    median_gain: float | None = None,
) -> Ramps:
    """Flag the samples of ramps that jump, as the STScI jump step does.

    Parameters
    ----------
    ramps : Ramps
        Samples that are NaN, DO_NOT_USE or SATURATED take no part. Samples must not be infinite.
    read_noise : (n_rows, n_cols) float32 [DN]
        Noise of a difference of two frames (the STScI reference file).
    gain : (n_rows, n_cols) float32 [e-/DN]
    params : JumpParams
    readout : Readout
    dropped : (n_ints, n_groups) bool, optional
        Groups that are DO_NOT_USE on the whole frame; needed where the ramps are a block of its
        rows. By default what the ramps at hand show.
    median_gain : float, optional
        Median gain of the frame [e-/DN], for the thresholds of the groups after a jump; by
        default that of the gain at hand.

    Returns
    -------
    Ramps
        The same data; JUMP_DET in groupdq (never beside DO_NOT_USE or SATURATED), and
        NO_GAIN_VALUE and DO_NOT_USE in pixeldq where the gain is not positive. Ramps of fewer
        than three groups come back as they are.

    Notes
    -----
    Neighbours are flagged across rows: a block needs `halo_rows(params)` rows on each side, whose
    own flags are incomplete. The STScI step also takes back the jumps of a sigma-clipped group in
    which every pixel of the frame is flagged; that is left out, since no block can see it.
    """
    xp = namespace(ramps.data, ramps.groupdq, ramps.pixeldq, read_noise, gain)
    check_shapes(ramps.data.shape[2:], read_noise=read_noise, gain=gain)
    if ramps.data.shape[1] < _FEWEST_GROUPS:
        return ramps
    if dropped is None:
        dropped = ((ramps.groupdq & DO_NOT_USE) != 0).all(axis=(2, 3))
    dropped = to_host(dropped)
    method = jump_method(params, dropped)
    always = dropped.all(axis=0)
    groups = [g for g in range(1, len(always)) if not (always[g - 1] or always[g])]
    pixeldq = ramps.pixeldq | ~(gain > 0) * xp.uint32(NO_GAIN_VALUE | DO_NOT_USE)
    groupdq = ramps.groupdq
    if method != "none" and groups:
        read_var = ((read_noise * gain) ** 2).astype(xp.float64) / readout.n_frames
        n_after = _groups_after(params, readout.group_time_s, ramps.data.shape[1])
        if _is_in_kernel(method, n_after) and ramp_kernels.run_on(ramps, gain, xp=xp):
            groupdq = _flag_by_kernel(ramps, read_var, gain, groups, method, params, xp=xp)
            return replace(ramps, groupdq=groupdq, pixeldq=pixeldq)
        differences = first_differences(ramps.data, groupdq, gain, groups, xp=xp)
        if median_gain is None:
            median_gain = median_of_unsorted(columns_of(gain.reshape(-1, 1), xp=xp), xp=xp)
        groupdq = _flag(groupdq, differences, read_var, median_gain, method, params, n_after, xp=xp)
    return replace(ramps, groupdq=clear_unusable(groupdq, xp=xp), pixeldq=pixeldq)


def _groups_after(params, group_time_s, n_groups):
    """How many groups are flagged after a large jump, and after a larger one: at most all."""
    times = (params.after_jump_flag_time1, params.after_jump_flag_time2)
    return [int(min(time, n_groups * group_time_s) // group_time_s) for time in times]


def _is_in_kernel(method, n_after):
    return method in ("single_pass", "iterative") and max(n_after) == 0


def _flag_by_kernel(ramps, read_var, gain, groups, method, params, *, xp):
    limits = (params.min_jump_to_flag_neighbors, params.max_jump_to_flag_neighbors)
    return ramp_kernels.flag_jumps(
        ramps,
        read_var,
        gain,
        groups,
        single_pass=method == "single_pass",
        limits=_removal_thresholds(params),
        neighbours=limits if params.flag_4_neighbors else None,
        xp=xp,
    )


def _removal_thresholds(params):
    """For pixels with two, three, and four or more differences left."""
    return (
        params.three_group_rejection_threshold,
        params.four_group_rejection_threshold,
        params.rejection_threshold,
    )


def _flag(groupdq, differences, read_var, median_gain, method, params, n_after, *, xp):
    """Flag the jumps, then their neighbours, then the groups after them: new flags.

    `read_var` (n_rows, n_cols) float64 [e-^2] is the variance of a difference by read noise.
    """
    median = sigma = None
    if method == "single_pass" or params.flag_4_neighbors or max(n_after) > 0:
        median = median_of_unsorted(_pooled(differences.values, xp=xp), xp=xp)
        median = median.reshape(read_var.shape)
        sigma = noise(median, read_var, xp=xp)
    if method == "single_pass":
        low, high = range_by_noise(median, sigma, params.rejection_threshold, xp=xp)
    elif method == "sigma_clipping":
        low, high = _range_by_clipping(differences, params, xp=xp)
    else:
        low, high = _range_by_removal(differences, read_var, params, xp=xp)
    bounds = (bound.reshape(-1, *read_var.shape) for bound in (low, high))
    groupdq = flag_outside(groupdq, differences, *bounds, signed=method != "iterative", xp=xp)
    if params.flag_4_neighbors:
        limits = (params.min_jump_to_flag_neighbors, params.max_jump_to_flag_neighbors)
        groupdq = flag_neighbours(groupdq, differences, median, sigma, *limits, xp=xp)
    if max(n_after) > 0:
        sizes_dn = (params.after_jump_flag_dn1, params.after_jump_flag_dn2)
        sizes = [median_gain * size for size in sizes_dn]
        groupdq = flag_after_jumps(groupdq, differences, median, sizes, n_after, xp=xp)
    return groupdq


def _range_by_clipping(differences, params, *, xp):
    """Usual range of each difference, by its values in all integrations; or of all together."""
    values = differences.values
    if not params.only_use_ints:
        columns = _pooled(values, xp=xp)
        columns.sort(axis=-1)
        return range_by_clipping(columns, params.rejection_threshold, xp=xp)
    each = [
        range_by_clipping(
            sorted_columns(values[:, k], xp=xp), params.rejection_threshold, xp=xp
        )
        for k in range(len(differences.groups))
    ]  # fmt: skip
    return tuple(xp.stack(bound) for bound in zip(*each, strict=True))


def _range_by_removal(differences, read_var, params, *, xp):
    sizes = _pooled(differences.values, xp=xp)
    xp.abs(sizes, out=sizes)
    thresholds = _removal_thresholds(params)
    return range_by_removal(sizes, read_var.reshape(-1), thresholds, xp=xp)


def _pooled(values, *, xp):
    """All differences of each pixel, of all integrations, (n_pixels, n_ints x n_diffs)."""
    n_ints, n_diffs, *image = values.shape
    return columns_of(values.reshape(n_ints * n_diffs, *image), xp=xp)
