"""Subtract the dark current (jwst: dark_current)."""

from miri_gpu.backend import namespace
from miri_gpu.containers import Array, Ramps, Readout
from miri_gpu.ramps.sample_corrections import SampleCorrection, correct_samples


def subtract_dark(
    ramps: Ramps,
    dark: Array,
    dark_dq: Array,
    *,
    readout: Readout = Readout(),  # noqa: B008 - frozen
) -> Ramps:
    """Subtract the dark ramp from every integration.

    In the exposure's first segment each integration takes the reference's integration of the same
    number, and its last one beyond; later segments take the last one throughout. A reference that
    is too short is extrapolated by its last two frames.

    Parameters
    ----------
    ramps : Ramps
        Integrations that follow one another in the exposure.
    dark : (n_ref_ints, n_ref_frames, n_rows, n_cols) float32 [DN]
        Frame by frame, none averaged or dropped. NaN counts as 0.
    dark_dq : (n_rows, n_cols) uint32
    readout : Readout
        Which frames make a group, and which integration of the exposure comes first.

    Returns
    -------
    Ramps

    Raises
    ------
    ValueError
        Where a single dark frame would have to be extrapolated.

    Notes
    -----
    The dark_current step of the STScI pipeline (stcal's `dark_sub`).
    """
    return correct_samples(ramps, dark_correction(*ramps.data.shape[:2], dark, dark_dq, readout))


def dark_correction(
    n_ints: int,
    n_groups: int,
    dark: Array,
    dark_dq: Array,
    readout: Readout = Readout(),  # noqa: B008 - frozen
) -> SampleCorrection:
    """What subtract_dark does to so many integrations of so many groups; parameters as there."""
    xp = namespace(dark, dark_dq)
    planes = readout.planes(n_ints, dark.shape[0])
    if not readout.in_first_segment:  # STScI's step gives later segments the last plane throughout
        planes = planes[-1:]
    own = _as_groups(dark[xp.asarray(planes)], n_groups, readout, xp=xp)
    return SampleCorrection(pixeldq=dark_dq, dark=own)


def _as_groups(dark: Array, n_groups: int, readout: Readout, *, xp) -> Array:
    """The dark of the exposure's groups, from that of single frames."""
    n_frames, stride = readout.n_frames, readout.n_frames + readout.group_gap
    dark = _extended(dark, (n_groups - 1) * stride + n_frames, xp=xp)
    dark = xp.where(xp.isnan(dark), xp.zeros_like(dark), dark)
    if n_frames == 1:
        return dark[:, : (n_groups - 1) * stride + 1 : stride]
    groups = [
        dark[:, start : start + n_frames].mean(axis=1)
        for start in range(0, n_groups * stride, stride)
    ]
    return xp.stack(groups, axis=1)


def _extended(dark: Array, n_needed: int, *, xp) -> Array:
    """The dark with frames added at the rate of its last two until there are enough."""
    n_missing = n_needed - dark.shape[1]
    if n_missing <= 0:
        return dark
    if dark.shape[1] < 2:
        raise ValueError(
            f"dark: expected {n_needed} frames, or at least 2 to extrapolate from, "
            f"got {dark.shape[1]}"
        )
    rate = dark[:, -1] - dark[:, -2]
    step = xp.arange(1, n_missing + 1, dtype=xp.float64)[None, :, None, None]
    added = dark[:, -1:] + step * rate[:, None]
    return xp.concatenate((dark, added.astype(dark.dtype)), axis=1)
