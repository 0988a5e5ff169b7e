"""Calibrated ramps on disk, `*_ramp.fits`: as they enter the ramp fit, and as jwst reads them.

A segment's ramps may be larger than the memory: the file is laid out first, and blocks of rows
are written to their places in it.
"""

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np

from miri_gpu import detector
from miri_gpu.backend import to_host
from miri_gpu.calibration import Calibration
from miri_gpu.containers import Ramps
from miri_gpu.files import opened_beside
from miri_gpu.rate_files import RateFacts, carry_on, int_times, metadata_tree, primary_header
from miri_gpu.recipe import Recipe
from miri_gpu.segments import Segment

_FITS_BLOCK = 2880  # bytes, of which all parts of a FITS file are multiples
_FRAME = (detector.N_ROWS, detector.N_COLS)


def ramp_path(directory: Path, segment: Segment) -> Path:
    """Where a segment's ramps go: its own name, `_uncal` become `_ramp`."""
    stem = segment.path.name.removesuffix(".fits").removesuffix("_uncal")
    return directory / f"{stem}_ramp.fits"


@contextmanager
def ramp_writer(
    path: Path, segment: Segment, facts: RateFacts, recipe: Recipe, calibration: Calibration
) -> Iterator[Callable[[slice, Ramps], None]]:
    """Write ramps as jwst's RampModel, block by block; whole or not at all.

    Parameters
    ----------
    path : the file, replaced if it exists
    segment : the segment they were made of, whose headers they carry on
    facts : RateFacts
    recipe, calibration : what the header says was done, and with which references

    Yields
    ------
    function of rows and their ramps, on any backend, that may be called from several threads

    Raises
    ------
    OutputError
        Where the file cannot be written, or there is no room for it.
    """
    shape = (len(facts.times["int_mid_MJD_UTC"]), facts.n_groups, *_FRAME)
    pixeldq = np.zeros(_FRAME, dtype=np.uint32)
    with opened_beside(path) as beside:
        primary = primary_header(path, segment, facts, recipe, calibration)
        data, groupdq = _lay_out(beside, primary, segment, shape)

        def write(rows: slice, ramps: Ramps) -> None:
            data[:, :, rows] = to_host(ramps.data)
            groupdq[:, :, rows] = to_host(ramps.groupdq)
            pixeldq[rows] = to_host(ramps.pixeldq)

        yield write
        data.flush()
        groupdq.flush()
        _append_small_parts(beside, pixeldq, facts, recipe, calibration)


def _lay_out(path: Path, primary, segment: Segment, shape: tuple[int, ...]):
    """Write the headers and reserve room for SCI and GROUPDQ; their samples, mapped."""
    from astropy.io import fits

    primary["FILETYPE"] = "calibrated ramp"
    primary["DATAMODL"] = "RampModel"
    science = _image_header("SCI", -32, shape)
    carry_on(segment.science, science)
    science["BUNIT"] = "DN"
    parts = {">f4": science, "u1": _image_header("GROUPDQ", 8, shape)}
    places = []
    with path.open("wb") as file:
        file.write(fits.PrimaryHDU(header=primary).header.tostring().encode("ascii"))
        for dtype, header in parts.items():
            file.write(header.tostring().encode("ascii"))
            n_bytes = int(np.prod(shape)) * np.dtype(dtype).itemsize
            places.append((dtype, file.tell()))
            file.seek(-(-n_bytes // _FITS_BLOCK) * _FITS_BLOCK, os.SEEK_CUR)
        file.truncate()
        if hasattr(os, "posix_fallocate"):  # a full disk is told now, not by a fault in a mapping
            os.posix_fallocate(file.fileno(), 0, file.tell())
    return [
        np.memmap(path, dtype=dtype, mode="r+", offset=offset, shape=shape)
        for dtype, offset in places
    ]


def _image_header(name: str, bits: int, shape: tuple[int, ...]):
    from astropy.io import fits

    header = fits.Header()
    header["XTENSION"], header["BITPIX"], header["NAXIS"] = "IMAGE", bits, len(shape)
    for axis, size in enumerate(reversed(shape), start=1):
        header[f"NAXIS{axis}"] = size
    header["PCOUNT"], header["GCOUNT"], header["EXTNAME"] = 0, 1, name
    return header


def _append_small_parts(
    path: Path, pixeldq: np.ndarray, facts: RateFacts, recipe: Recipe, calibration: Calibration
) -> None:
    from astropy.io import fits

    parts = [fits.ImageHDU(pixeldq, name="PIXELDQ")]
    if recipe.runs("dark_current") and calibration.average_dark is not None:
        # its photon noise is in the ramps: a fit adds it to the variances
        parts.append(fits.ImageHDU(to_host(calibration.average_dark), name="AVDRKCUR"))
    parts += [int_times(facts), metadata_tree("RampModel")]
    with fits.open(path, mode="append", memmap=True) as hdus:
        hdus.extend(parts)
