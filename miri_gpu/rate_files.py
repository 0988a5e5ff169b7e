"""Rate images on disk, `*_rateints.fits`: written as jwst's, and read back to enter stage 2."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np

from miri_gpu import detector
from miri_gpu.backend import to_host
from miri_gpu.containers import Rates
from miri_gpu.errors import SegmentError
from miri_gpu.segment_files import (
    UNSIGNED_ZERO,
    USED_TIME,
    Image,
    Origin,
    int_times,
    laid_out,
    metadata_tree,
    primary_header,
)
from miri_gpu.segments import Segment

_PLANES = {
    "SCI": ("data", "DN/s"),
    "ERR": ("err", "DN/s"),
    "VAR_POISSON": ("var_poisson", "DN2 / s2"),
    "VAR_RNOISE": ("var_rnoise", "DN2 / s2"),
    "DQ": ("dq", None),
}


@contextmanager
def rate_writer(path: Path, origin: Origin) -> Iterator[Callable[[slice, Rates], None]]:
    """Write rate images as jwst's CubeModel, block by block; whole or not at all.

    Parameters
    ----------
    path : the file, replaced if it exists
    origin : Origin

    Yields
    ------
    function of integrations and their rates, on any backend

    Raises
    ------
    OutputError
        Where the file cannot be written, or there is no room for it.
    """
    header = primary_header(path, origin)
    header["FILETYPE"] = "countrate"
    header["DATAMODL"] = "CubeModel"
    header[USED_TIME] = (origin.used_time_s, "[s] from the first to the last group fitted")
    shape = (origin.n_ints, detector.N_ROWS, detector.N_COLS)
    images = {
        extension: Image(
            shape=shape,
            dtype=">u4" if name == "dq" else ">f4",
            unit=unit,
            carried_on=origin.segment.science if extension == "SCI" else None,
        )
        for extension, (name, unit) in _PLANES.items()
    }
    small_parts = [int_times(origin), metadata_tree("CubeModel")]
    with laid_out(path, header, images, lambda: small_parts) as arrays:

        def write(ints: slice, rates: Rates) -> None:
            for extension, (name, _) in _PLANES.items():
                part = to_host(getattr(rates, name))
                arrays[extension][ints] = part ^ UNSIGNED_ZERO if name == "dq" else part

        yield write


def load_rates(segment: Segment, integrations: np.ndarray) -> Rates:
    """Read the rate images of some integrations of a segment, rising, on the host.

    Raises
    ------
    SegmentError
        Where an extension is missing or has another shape than SCI.
    """
    from astropy.io import fits

    planes = {}
    first = int(integrations[0])
    with fits.open(segment.path) as hdus:
        for extension, (name, _) in _PLANES.items():
            if extension not in hdus:
                raise SegmentError(f"{segment.path}: expected an extension {extension}, got none")
            if hdus[extension].shape != segment.shape:
                raise SegmentError(
                    f"{segment.path}: {extension}: expected the shape of SCI {segment.shape}, "
                    f"got {hdus[extension].shape}"
                )
            plane = hdus[extension].section[first : int(integrations[-1]) + 1]
            dtype = np.uint32 if name == "dq" else np.float32
            planes[name] = np.ascontiguousarray(plane[integrations - first], dtype=dtype)
    return Rates(**planes)
