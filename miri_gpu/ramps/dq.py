"""Start the data quality of the ramps from the detector's bad pixels (jwst: dq_init)."""

from dataclasses import replace

from miri_gpu.backend import namespace
from miri_gpu.containers import Array, Ramps, check_shapes
from miri_gpu.detector import DO_NOT_USE


def initialize_dq(ramps: Ramps, mask: Array) -> Ramps:
    """Add the bad-pixel mask to the pixels' flags, and its DO_NOT_USE to every sample.

    Parameters
    ----------
    ramps : Ramps
    mask : (n_rows, n_cols) uint32
        Data-quality bits of the detector's pixels.

    Returns
    -------
    Ramps : the same data, more flags

    Notes
    -----
    The dq_init step of the STScI pipeline.
    """
    xp = namespace(ramps.data, mask)
    check_shapes(ramps.data.shape[2:], mask=mask)
    return replace(
        ramps,
        pixeldq=ramps.pixeldq | mask,
        groupdq=ramps.groupdq | (mask & DO_NOT_USE).astype(xp.uint8),
    )
