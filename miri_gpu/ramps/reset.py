"""Subtract the transient that follows a detector reset (jwst: reset)."""

from dataclasses import replace

from miri_gpu.backend import namespace
from miri_gpu.containers import Array, Ramps, Readout
from miri_gpu.ramps import ramp_kernels


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
    xp = namespace(ramps.data, reset, reset_dq)
    planes = readout.planes(ramps.data.shape[0], reset.shape[0])
    reset = reset[xp.asarray(planes)]
    known = xp.where(xp.isnan(reset), xp.zeros_like(reset), reset)
    pixeldq = ramps.pixeldq | reset_dq
    if ramp_kernels.run_on(ramps, known, xp=xp):
        data = ramp_kernels.calibrate(ramps, reset=known, first_reset=0, xp=xp)
        return replace(ramps, data=data, pixeldq=pixeldq)

    n_corrected = min(ramps.data.shape[1], reset.shape[1])
    n_own = len(planes) - 1

    data = ramps.data.copy()
    data[:n_own, :n_corrected] -= known[:n_own, :n_corrected]
    data[n_own:, :n_corrected] -= known[-1, :n_corrected]
    return replace(ramps, data=data, pixeldq=pixeldq)
