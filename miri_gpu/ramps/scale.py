"""Undo the wrong divisor of on-board frame averaging (jwst: group_scale)."""

from dataclasses import replace

from miri_gpu.containers import Ramps, Readout


def scale_groups(ramps: Ramps, readout: Readout) -> Ramps:
    """Rescale the samples where the frames of a group were averaged with another divisor.

    The divisor on board is a power of 2; where the number of frames is not, the samples are off
    by divisor / frames. FASTR1 reads one frame per group and is returned as it came, and so is an
    exposure whose divisor is unknown.

    Parameters
    ----------
    ramps : Ramps
    readout : Readout

    Returns
    -------
    Ramps

    Notes
    -----
    The group_scale step of the STScI pipeline.
    """
    if readout.frame_divisor is None or readout.frame_divisor == readout.n_frames:
        return ramps
    return replace(ramps, data=ramps.data * (readout.frame_divisor / readout.n_frames))
