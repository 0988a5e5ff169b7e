"""Subtract the transient that follows a detector reset (jwst: reset)."""

from miri_gpu.backend import namespace
from miri_gpu.containers import Array, Ramps, Readout
from miri_gpu.ramps.sample_corrections import SampleCorrection, correct_samples


def subtract_reset(
    ramps: Ramps,
    reset: Array,
    reset_dq: Array,
    *,
    readout: Readout = Readout(),  # noqa: B008 - frozen
) -> Ramps:
    """Subtract the reset transient from the first groups of every integration.

    Each integration of the exposure takes the reference's integration of the same number, and
    its last one beyond. Groups after the reference's last stay as they are.

    Parameters
    ----------
    ramps : Ramps
        Integrations that follow one another in the exposure.
    reset : (n_ref_ints, n_ref_groups, n_rows, n_cols) float32 [DN]
        NaN counts as 0.
    reset_dq : (n_rows, n_cols) uint32
    readout : Readout
        Says which integration of the exposure comes first.

    Returns
    -------
    Ramps

    Notes
    -----
    The reset step of the STScI pipeline.
    """
    correction = reset_correction(ramps.data.shape[0], reset, reset_dq, readout=readout)
    return correct_samples(ramps, correction)


def reset_correction(
    n_ints: int,
    reset: Array,
    reset_dq: Array,
    *,
    readout: Readout = Readout(),  # noqa: B008 - frozen
) -> SampleCorrection:
    """What subtract_reset does to so many integrations; parameters as there."""
    xp = namespace(reset, reset_dq)
    own = reset[xp.asarray(readout.planes(n_ints, reset.shape[0]))]
    known = xp.where(xp.isnan(own), xp.zeros_like(own), own)
    return SampleCorrection(pixeldq=reset_dq, reset=known)
