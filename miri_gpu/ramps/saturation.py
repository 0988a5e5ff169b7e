"""Flag samples that are saturated or below the converter's floor (jwst: saturation)."""

from dataclasses import dataclass, replace
from typing import ClassVar

from miri_gpu.backend import namespace
from miri_gpu.containers import Array, Ramps, Readout, check_shapes
from miri_gpu.detector import (
    AD_FLOOR,
    ATOD_LIMIT_DN,
    DO_NOT_USE,
    N_ROWS,
    NO_SAT_CHECK,
    SATURATED,
)
from miri_gpu.parameters import Parameters, option
from miri_gpu.ramps import ramp_kernels


@dataclass(frozen=True, kw_only=True)
class SaturationParams(Parameters):
    """Settings of the saturation step."""

    step: ClassVar[str] = "saturation"

    n_pix_grow_sat: int = option(
        1, "how far the charge of a saturated pixel spills into its neighbours", unit="pixel",
        at_least=0, at_most=N_ROWS - 1,
    )  # fmt: skip
    use_readpatt: bool = option(
        True, "look for saturation that averaging the frames of a group has hidden"
    )


def halo_pixels(params: SaturationParams, readout: Readout) -> int:
    """Pixels that a block needs on each side for its own to come out exact.

    Hidden saturation is sought beside flagged neighbours and then grown itself, so averaged
    frames need twice the reach.
    """
    hidden = params.use_readpatt and readout.n_frames > 1
    return params.n_pix_grow_sat * (2 if hidden else 1)


def flag_saturation(
    ramps: Ramps,
    threshold: Array,
    threshold_dq: Array,
    *,
    params: SaturationParams = SaturationParams(),
    readout: Readout = Readout(),  # noqa: B008 - frozen
) -> Ramps:
    """Flag SATURATED from the first sample at the threshold on, and A/D floor sample by sample.

    The flags are grown into the neighbours group by group. A sample of 0 DN or less gets AD_FLOOR
    and DO_NOT_USE. A NaN sample is neither.

    A block may be passed instead of whole frames, with references cut likewise: the outer
    :func:`halo_pixels` pixels on each side that is not the detector's edge are then to be dropped.

    Parameters
    ----------
    ramps : Ramps
    threshold : (n_rows, n_cols) float32 [DN]
        Saturation level; pixels with NaN are not checked and get NO_SAT_CHECK.
    threshold_dq : (n_rows, n_cols) uint32
        Flags of the reference file; NO_SAT_CHECK leaves a pixel unchecked.
    params : SaturationParams
    readout : Readout

    Returns
    -------
    Ramps : the same data, more flags

    Notes
    -----
    The saturation step of the STScI pipeline (stcal's `flag_saturated_pixels`).
    """
    xp = namespace(ramps.data, threshold, threshold_dq)
    check_shapes(ramps.data.shape[2:], threshold=threshold, threshold_dq=threshold_dq)
    limit, pixeldq = saturation_limit(threshold, threshold_dq)
    reach = params.n_pix_grow_sat
    if ramp_kernels.run_on(ramps, limit, xp=xp):
        groupdq = ramp_kernels.flag_full_ramps(ramps, limit, reach, xp=xp)
    else:
        groupdq = _flag_full_ramps(ramps, limit, reach, xp=xp)
    if params.use_readpatt and readout.n_frames > 1:
        unchecked = limit > ATOD_LIMIT_DN
        groupdq = _flag_hidden(ramps.data, groupdq, limit, unchecked, params, readout, xp=xp)
        groupdq = _flag_hidden_in_second_group(ramps.data, groupdq, limit, readout, xp=xp)
    return replace(ramps, groupdq=groupdq, pixeldq=ramps.pixeldq | pixeldq)


def saturation_limit(threshold: Array, threshold_dq: Array) -> tuple[Array, Array]:
    """From which sample on a pixel is saturated, and the flags that pixels get.

    Parameters
    ----------
    threshold, threshold_dq : as flag_saturation takes them

    Returns
    -------
    limit : (n_rows, n_cols) float32 [DN]
        More than the converter can give where a pixel is not checked.
    pixeldq : (n_rows, n_cols) uint32
    """
    xp = namespace(threshold, threshold_dq)
    unknown = xp.isnan(threshold)
    unchecked = unknown | ((threshold_dq & NO_SAT_CHECK) != 0)
    unreachable_dn = xp.asarray(ATOD_LIMIT_DN + 1.0, dtype=xp.float32)
    limit = xp.where(unchecked, unreachable_dn, threshold.astype(xp.float32))
    return limit, threshold_dq | unknown.astype(xp.uint32) * NO_SAT_CHECK


def _flag_full_ramps(ramps, limit, reach, *, xp) -> Array:
    """Few ramps come to a limit, as their extremes say (or NaN): only these are looked into."""
    data, group = ramps.data, xp.arange(ramps.data.shape[1], dtype=xp.int16)
    samples = xp.moveaxis(data, 1, -1)
    groupdq = ramps.groupdq.copy()
    flags = xp.moveaxis(groupdq, 1, -1)
    first = xp.full(data[:, 0].shape, len(group), dtype=xp.int16)
    high = xp.nonzero(~(data.max(axis=1) < limit))
    full = samples[high] >= limit[high[1:]][:, None]
    first[high] = xp.where(full, group, xp.int16(len(group))).min(axis=-1)
    first = earliest_around(first, reach, xp=xp)
    full = xp.nonzero(first < len(group))
    flags[full] |= _flags(first[full][:, None] <= group, SATURATED, xp=xp)
    low = xp.nonzero(~(data.min(axis=1) > 0))
    flags[low] |= _flags(samples[low] <= 0, AD_FLOOR | DO_NOT_USE, xp=xp)
    before = _has(ramps.groupdq, SATURATED)
    if bool(before.any()):  # their neighbours, too, but group by group
        groupdq |= _flags(_grown(before, reach), SATURATED, xp=xp)
    return groupdq


def earliest_around(first: Array, n_pixels: int, *, xp) -> Array:
    """The least of a number in a square of 2 n_pixels + 1 pixels around each."""
    tall = first.copy()
    for shift in range(1, n_pixels + 1):
        xp.minimum(tall[..., shift:, :], first[..., :-shift, :], out=tall[..., shift:, :])
        xp.minimum(tall[..., :-shift, :], first[..., shift:, :], out=tall[..., :-shift, :])
    wide = tall.copy()
    for shift in range(1, n_pixels + 1):
        xp.minimum(wide[..., shift:], tall[..., :-shift], out=wide[..., shift:])
        xp.minimum(wide[..., :-shift], tall[..., shift:], out=wide[..., :-shift])
    return wide


def _flag_hidden(data, groupdq, limit, unchecked, params, readout, *, xp) -> Array:
    """Flag DO_NOT_USE where the last frames of a group may have saturated, from its successor.

    A group whose successor is saturated is suspect once its average reaches what a steady ramp
    shows that is full at the group's last frame.
    """
    result = groupdq.copy()
    n_frames = readout.n_frames
    exact_limit = limit.astype(xp.float64)
    for group in range(data.shape[1] - 1):
        # the STScI step counts frames from 1 and does not count those dropped between groups
        last_frame = (group + 1) * n_frames
        dilution = (last_frame - (n_frames - 1) / 2) / last_frame
        diluted = xp.where(unchecked, exact_limit, exact_limit * dilution)
        hidden = (
            (data[:, group] >= diluted)
            & ~_has(groupdq[:, group], SATURATED | DO_NOT_USE)
            & _has(groupdq[:, group + 1], SATURATED)
        )
        result[:, group] |= _flags(_grown(hidden, params.n_pix_grow_sat), DO_NOT_USE, xp=xp)
    return result


def _flag_hidden_in_second_group(data, groupdq, limit, readout, *, xp) -> Array:
    """Flag DO_NOT_USE on second groups that a jump to saturation in their last frame may spoil.

    These are pixels that the first group alone would not let saturate by the third, that did, and
    that rose in the second by more than one frame of the way to saturation.
    """
    if data.shape[1] < 3:
        return groupdq
    n_frames = readout.n_frames
    first, second = data[:, 0], data[:, 1]
    steady = first.astype(xp.float64) / ((n_frames + 1) / 2) * (3 * n_frames) < limit
    jumped = second - first > (limit - first) / n_frames
    spoiled = (
        steady
        & jumped
        & _has(groupdq[:, 2], SATURATED)
        & ~_has(groupdq[:, 1], SATURATED)
    )  # fmt: skip
    result = groupdq.copy()
    result[:, 1] |= _flags(spoiled, DO_NOT_USE, xp=xp)
    return result


def _grown(flagged: Array, n_pixels: int) -> Array:
    """A boolean mask with every flagged pixel grown into a square of 2 n_pixels + 1 pixels."""
    grown = flagged.copy()
    for shift in range(1, n_pixels + 1):
        grown[..., shift:, :] |= flagged[..., :-shift, :]
        grown[..., :-shift, :] |= flagged[..., shift:, :]
    wide = grown.copy()
    for shift in range(1, n_pixels + 1):
        wide[..., shift:] |= grown[..., :-shift]
        wide[..., :-shift] |= grown[..., shift:]
    return wide


def _has(dq: Array, bits: int) -> Array:
    return (dq & bits) != 0


def _flags(flagged: Array, bits: int, *, xp) -> Array:
    return flagged.astype(xp.uint8) * bits
