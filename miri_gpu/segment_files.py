"""Files that are made of a segment: its headers carried on, its times, its large arrays by blocks.

What is made of a segment may be larger than the memory: a file is laid out first, and blocks are
written to their places in it.
"""

import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path

import numpy as np

from miri_gpu.calibration import Calibration
from miri_gpu.files import opened_beside
from miri_gpu.integration_times import TIME_COLUMNS
from miri_gpu.recipe import Recipe
from miri_gpu.sections import SECTIONS
from miri_gpu.segments import Segment

_FITS_BLOCK = 2880  # bytes, of which all parts of a FITS file are multiples
UNSIGNED_ZERO = 1 << 31  # what FITS adds to 32-bit integers that are unsigned
_STEP_KEYWORDS = {s.keyword: s.step for s in SECTIONS if s.keyword is not None}
_REFERENCE_KEYWORDS = {
    "R_MASK": "mask",
    "R_MIREMI": "emicorr",
    "R_SATURA": "saturation",
    "R_RESET": "reset",
    "R_LINEAR": "linearity",
    "R_RSCD": "rscd",
    "R_DARK": "dark",
    "R_READNO": "readnoise",
    "R_GAIN": "gain",
}

# Keywords of our own: time between the first and the last group that was fitted [s], and how many
# integrations of the exposure were dropped.
USED_TIME = "USEDTIME"
N_DROPPED = "NDROPPED"


@dataclass(frozen=True, eq=False, kw_only=True)
class Origin:
    """How the rates or ramps of a segment came to be: what a file of them says beside pixels.

    Attributes
    ----------
    segment : Segment
        The one observed, whose headers are carried on.
    recipe : Recipe
        What was done.
    calibration : Calibration
        With which references; on the host.
    first_integration : int
        Index, from 0, of the first integration among those of the whole exposure that remain.
    n_ints_of_exposure : int
        How many remain.
    n_dropped : int
        How many do not.
    n_groups : int
        Groups of an integration.
    used_time_s : float [s]
        Time from the first to the last group that was fitted.
    times : dict of (n_ints,) float64 [days]
        The columns of INT_TIMES.
    """

    segment: Segment
    recipe: Recipe
    calibration: Calibration
    first_integration: int
    n_ints_of_exposure: int
    n_dropped: int
    n_groups: int
    used_time_s: float
    times: dict[str, np.ndarray]

    @property
    def n_ints(self) -> int:
        """How many integrations the file holds."""
        return len(self.times[TIME_COLUMNS[0]])

    def has_work_for(self, step: str) -> bool:
        """Whether a step of the recipe runs and changes anything."""
        readout = self.segment.readout
        if step == "group_scale" and readout.frame_divisor in (None, readout.n_frames):
            return False
        if step == "gain_scale" and self.calibration.gain_factor is None:
            return False
        return self.recipe.runs(step)


def path_of(folder: Path, segment: Segment, kind: str) -> Path:
    """Where what is made of a segment goes: its own name, `_uncal` become `_` and the kind."""
    stem = segment.path.name.removesuffix(".fits").removesuffix("_uncal")
    return folder / f"{stem}_{kind}.fits"


@contextmanager
def laid_out(path: Path, primary, images: Mapping[str, "Image"], small_parts) -> Iterator[dict]:
    """Write a FITS file whose images are filled by blocks; whole or not at all.

    Parameters
    ----------
    path : the file, replaced if it exists
    primary : header
    images : by the names of their extensions
    small_parts : function that gives the HDUs after them, called when they are filled

    Yields
    ------
    dict of name to array
        Mapped: what is written to them goes to the file. Unsigned integers of 32 bits are to be
        written with their highest bit turned (UNSIGNED_ZERO).

    Raises
    ------
    OutputError
        Where the file cannot be written, or there is no room for it.
    """
    from astropy.io import fits

    with opened_beside(path) as beside:
        arrays = _lay_out(beside, primary, images)
        yield arrays
        for array in arrays.values():
            array.flush()
        with fits.open(beside, mode="append", memmap=True) as hdus:
            hdus.extend(small_parts())


@dataclass(frozen=True)
class Image:
    """A large array of a FITS file: its shape, type on disk, unit, and a header to carry on."""

    shape: tuple[int, ...]
    dtype: str
    unit: str | None = None
    carried_on: object = None

    def header(self, name: str):
        """The header of its extension."""
        from astropy.io import fits

        dtype = np.dtype(self.dtype)
        header = fits.Header()
        header["XTENSION"] = "IMAGE"
        header["BITPIX"] = (-8 if dtype.kind == "f" else 8) * dtype.itemsize
        header["NAXIS"] = len(self.shape)
        for axis, size in enumerate(reversed(self.shape), start=1):
            header[f"NAXIS{axis}"] = size
        header["PCOUNT"], header["GCOUNT"], header["EXTNAME"] = 0, 1, name
        if dtype == np.dtype(">u4"):
            header["BSCALE"], header["BZERO"] = 1, UNSIGNED_ZERO
        if self.carried_on is not None:
            carry_on(self.carried_on, header)
        if self.unit is not None:
            header["BUNIT"] = self.unit
        return header


def _lay_out(path: Path, primary, images: Mapping[str, Image]) -> dict[str, np.ndarray]:
    """Write the headers and reserve room for the images; these, mapped."""
    from astropy.io import fits

    places = {}
    with path.open("wb") as file:
        file.write(fits.PrimaryHDU(header=primary).header.tostring().encode("ascii"))
        for name, image in images.items():
            file.write(image.header(name).tostring().encode("ascii"))
            n_bytes = int(np.prod(image.shape)) * np.dtype(image.dtype).itemsize
            places[name] = file.tell()
            file.seek(-(-n_bytes // _FITS_BLOCK) * _FITS_BLOCK, os.SEEK_CUR)
        file.truncate()
        if hasattr(os, "posix_fallocate"):  # a full disk is told now, not by a fault in a mapping
            os.posix_fallocate(file.fileno(), 0, file.tell())
    return {
        name: np.memmap(path, image.dtype, mode="r+", offset=places[name], shape=image.shape)
        for name, image in images.items()
    }


def primary_header(path: Path, origin: Origin, to_come: Sequence[str] = ()):
    """The header of a segment, with what was done to it; some steps may be still to come."""
    from miri_gpu import __version__

    segment, calibration = origin.segment, origin.calibration
    header = segment.primary.copy()
    header["FILENAME"] = path.name
    header["CAL_VER"] = f"miri_gpu {__version__}"
    for keyword, step in _STEP_KEYWORDS.items():
        if not origin.has_work_for(step):
            header[keyword] = "SKIPPED"
        elif step not in to_come:
            header[keyword] = "COMPLETE"
    for keyword, kind in _REFERENCE_KEYWORDS.items():
        if kind in calibration.files:
            header[keyword] = calibration.files[kind]
    header["CRDS_CTX"] = calibration.context
    header["NINTS"] = origin.n_ints_of_exposure
    if origin.n_dropped:
        header[N_DROPPED] = (origin.n_dropped, "integrations dropped from the exposure")
    header["INTSTART"] = origin.first_integration + 1
    header["INTEND"] = origin.first_integration + origin.n_ints
    header["NGROUPS"] = origin.n_groups
    header["EFFINTTM"] = origin.n_groups * segment.readout.group_time_s
    return header


def carry_on(old, new) -> None:
    """Copy the cards of the raw SCI header (pointing, WCS) that do not describe its array."""
    describing = ("XTENSION", "BITPIX", "PCOUNT", "GCOUNT", "EXTNAME", "BZERO", "BSCALE", "BUNIT")
    for card in old.cards:
        if card.keyword and not card.keyword.startswith("NAXIS") and card.keyword not in describing:
            new.append(card)


def int_times(origin: Origin):
    """The table of the times of the integrations, as an HDU."""
    from astropy.io import fits

    numbers = origin.first_integration + 1 + np.arange(origin.n_ints, dtype=np.int32)
    columns = [fits.Column(name="integration_number", format="J", array=numbers)]
    columns += [
        fits.Column(name=name, format="D", array=origin.times[name], unit="d")
        for name in TIME_COLUMNS
    ]
    return fits.BinTableHDU.from_columns(columns, name="INT_TIMES")


def metadata_tree(model: str):
    """The ASDF tree that a jwst step looks for in a file; next to nothing, the headers say it."""
    import asdf
    from astropy.io import fits

    buffer = BytesIO()
    asdf.AsdfFile({"meta": {"model_type": model, "telescope": "JWST"}}).write_to(buffer)
    content = np.frombuffer(buffer.getvalue(), np.uint8)
    column = fits.Column(name="ASDF_METADATA", format=f"{len(content)}B", array=content[np.newaxis])
    return fits.BinTableHDU.from_columns([column], name="ASDF")
