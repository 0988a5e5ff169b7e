"""Calibrated ramps on disk, `*_ramp.fits`: as they enter the ramp fit, and as jwst reads them."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np

from miri_gpu import detector
from miri_gpu.backend import to_host
from miri_gpu.containers import Ramps
from miri_gpu.segment_files import (
    Image,
    Origin,
    int_times,
    laid_out,
    metadata_tree,
    primary_header,
)

_FRAME = (detector.N_ROWS, detector.N_COLS)


@contextmanager
def ramp_writer(path: Path, origin: Origin) -> Iterator[Callable[[slice, Ramps], None]]:
    """Write ramps as jwst's RampModel, block by block; whole or not at all.

    Parameters
    ----------
    path : the file, replaced if it exists
    origin : Origin

    Yields
    ------
    function of rows and their ramps, on any backend, that may be called from several threads

    Raises
    ------
    OutputError
        Where the file cannot be written, or there is no room for it.
    """
    shape = (origin.n_ints, origin.n_groups, *_FRAME)
    images = {
        "SCI": Image(shape=shape, dtype=">f4", unit="DN", carried_on=origin.segment.science),
        "GROUPDQ": Image(shape=shape, dtype="u1"),
    }
    primary = primary_header(path, origin, to_come=("ramp_fit", "gain_scale"))
    primary["FILETYPE"] = "calibrated ramp"
    primary["DATAMODL"] = "RampModel"
    pixeldq = np.zeros(_FRAME, dtype=np.uint32)

    def small_parts() -> list:
        from astropy.io import fits

        average_dark = origin.calibration.average_dark
        parts = [fits.ImageHDU(pixeldq, name="PIXELDQ")]
        if origin.recipe.runs("dark_current") and average_dark is not None:
            # its photon noise is in the ramps: a fit adds it to the variances
            parts.append(fits.ImageHDU(average_dark, name="AVDRKCUR"))
        return [*parts, int_times(origin), metadata_tree("RampModel")]

    with laid_out(path, primary, images, small_parts) as arrays:

        def write(rows: slice, ramps: Ramps) -> None:
            arrays["SCI"][:, :, rows] = to_host(ramps.data)
            arrays["GROUPDQ"][:, :, rows] = to_host(ramps.groupdq)
            pixeldq[rows] = to_host(ramps.pixeldq)

        yield write
