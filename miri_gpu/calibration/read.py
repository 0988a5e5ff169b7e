"""Read reference files into arrays, cut to the subarray, their flags in the standard bits."""

import warnings
from collections.abc import Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from miri_gpu.detector import DETECTOR_SHAPE, DQ_NAMES
from miri_gpu.errors import CalibrationError
from miri_gpu.rates.wavelength import WavelengthTable

# extension of each array, by type of reference
EXTENSIONS: Mapping[str, Mapping[str, str]] = {
    "mask": {"mask": "DQ"},
    "saturation": {"saturation": "SCI", "saturation_dq": "DQ"},
    "reset": {"reset": "SCI", "reset_dq": "DQ"},
    "linearity": {"linearity": "COEFFS", "linearity_dq": "DQ"},
    "dark": {"dark": "SCI", "dark_dq": "DQ"},
    "readnoise": {"read_noise": "SCI"},
    "gain": {"gain": "SCI"},
    "flat": {"flat": "SCI", "flat_err": "ERR", "flat_dq": "DQ"},
}
IMAGE_TYPES = tuple(EXTENSIONS)
_N_AXES = {"reset": 4, "dark": 4, "linearity": 3}  # the others are images
_ZERO_IF_ABSENT = ("DQ", "ERR")


@dataclass(frozen=True)
class Subarray:
    """Where a subarray lies on the detector, from 0.

    Attributes
    ----------
    row_start, col_start : int
    n_rows, n_cols : int
    """

    row_start: int
    col_start: int
    n_rows: int
    n_cols: int

    @classmethod
    def from_header(cls, header, name: str) -> "Subarray":
        """From SUBSTRT1, SUBSTRT2, SUBSIZE1, SUBSIZE2 of a header; `name` is for the error."""
        keywords = ("SUBSTRT2", "SUBSTRT1", "SUBSIZE2", "SUBSIZE1")
        values = [header.get(keyword) for keyword in keywords]
        if not all(isinstance(value, int) and value >= 1 for value in values):
            raise CalibrationError(
                f"{name}: {', '.join(keywords)}: expected whole numbers from 1, got {values}"
            )
        row, col, n_rows, n_cols = values
        return cls(row - 1, col - 1, n_rows, n_cols)

    def within(self, row_start: int, col_start: int, shape: tuple[int, int]):
        """Rows and columns of this subarray in an image that starts elsewhere, None if outside."""
        row, col = self.row_start - row_start, self.col_start - col_start
        if row < 0 or col < 0 or row + self.n_rows > shape[0] or col + self.n_cols > shape[1]:
            return None
        return slice(row, row + self.n_rows), slice(col, col + self.n_cols)


def read_images(reftype: str, path: Path, subarray: Subarray) -> dict[str, np.ndarray | float]:
    """Read the arrays of one reference file, cut to the subarray, and the factor of a gain.

    Parameters
    ----------
    reftype : one of IMAGE_TYPES
    path : Path
    subarray : Subarray

    Returns
    -------
    dict : by the names that they have in Calibration
        Flags are (n_rows, n_cols) uint32; `gain_factor` is there where a gain's file states one.

    Raises
    ------
    CalibrationError
        Where the file cannot be read, lacks an extension or does not cover the subarray.
    """
    with opened_fits(reftype, path) as hdus:
        main = next(iter(EXTENSIONS[reftype].values()))
        header, shape = hdus["PRIMARY"].header, _extension(reftype, path, hdus, main).shape
        area = _area(reftype, path, header, shape, subarray)
        arrays = {}
        for name, extension in EXTENSIONS[reftype].items():
            if extension in hdus:
                plane = _cut(_extension(reftype, path, hdus, extension), area)
            elif extension in _ZERO_IF_ABSENT and extension != main:
                plane = np.zeros((subarray.n_rows, subarray.n_cols))
            arrays[name] = _flags(plane, hdus) if extension == "DQ" else plane.astype(np.float32)
        _check_shapes(reftype, path, arrays, subarray)
        if reftype == "reset":
            arrays["reset"] = _used_reset(arrays["reset"], header)
        if reftype == "dark":
            _check_single_frames(path, header)
            arrays["average_dark"] = _average_dark(path, hdus, area, subarray)
        if reftype == "gain" and header.get("GAINFACT") is not None:
            arrays["gain_factor"] = header["GAINFACT"]
    return arrays


def read_wavelength_table(path: Path) -> WavelengthTable:
    """Read the wavelength solution of a SPECWCS reference file.

    Raises
    ------
    CalibrationError
        Where the file cannot be read or lacks part of the solution.
    """
    with opened_fits("specwcs", path) as hdus:
        header = hdus["PRIMARY"].header
        if "WAVETABLE" not in hdus or "IMYSLTL" not in header:
            raise CalibrationError(
                f"specwcs: expected an extension WAVETABLE and the keyword IMYSLTL, got {path} "
                "without"
            )
        table = hdus["WAVETABLE"].data
        y_center = np.array(table["Y_CENTER"], dtype=np.float64)
        wavelength = np.array(table["WAVELENGTH"], dtype=np.float64)
        if len(np.unique(y_center)) < max(len(table), 4) or not np.isfinite(wavelength).all():
            raise CalibrationError(
                f"specwcs: expected wavelengths at 4 or more different Y_CENTER, got others: {path}"
            )
        return WavelengthTable(
            y_center=y_center,
            wavelength=wavelength,
            y_min=float(table["Y2"].min()),
            y_max=float(table["Y0"].max()),
            reference_row=header["IMYSLTL"] - 1,
        )


@contextmanager
def opened_fits(reftype: str, path: Path):
    """Open a reference file; whatever goes wrong inside becomes a CalibrationError.

    Yields
    ------
    dict of name to HDU
        The first one of each name, found faster than in an HDUList, all of which are there;
        "PRIMARY" is the first of all.
    """
    from astropy.io import fits
    from astropy.utils.exceptions import AstropyUserWarning

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", fits.verify.VerifyWarning)
            warnings.filterwarnings("error", "File may have been truncated")
            with fits.open(path) as hdus:
                yield {hdu.name: hdu for hdu in [*hdus][::-1]} | {"PRIMARY": hdus[0]}
    except (OSError, TypeError, ValueError, KeyError, AstropyUserWarning) as error:
        raise CalibrationError(
            f"{reftype}: expected a FITS reference file, got {path} ({error})"
        ) from None


def _extension(reftype: str, path: Path, hdus, extension: str):
    if extension not in hdus or len(hdus[extension].shape) < 2:
        raise CalibrationError(f"{reftype}: expected an extension {extension}, got {path} without")
    return hdus[extension]


def _cut(hdu, area: tuple[slice, slice]) -> np.ndarray:
    """Some rows and columns of an extension's images."""
    rows, cols = area
    if len(hdu.shape) == 2:  # flags, which would all be scaled for the sake of some
        return hdu.section[rows, :][:, cols]
    return hdu.data[..., rows, cols]


def _area(reftype: str, path: Path, header, shape, subarray: Subarray) -> tuple[slice, slice]:
    """Rows and columns of the subarray in the file's images."""
    stated = header.get("SUBSTRT2"), header.get("SUBSTRT1")
    if None in stated:
        if tuple(shape[-2:]) != DETECTOR_SHAPE:
            raise CalibrationError(
                f"{reftype}: expected SUBSTRT1 and SUBSTRT2, or the whole detector, "
                f"got {path} without, {shape[-2]} x {shape[-1]}"
            )
        stated = 1, 1
    row, col = (start - 1 for start in stated)
    area = subarray.within(row, col, shape[-2:])
    if area is None:
        raise CalibrationError(
            f"{reftype}: expected to cover rows {subarray.row_start + 1} to "
            f"{subarray.row_start + subarray.n_rows}, columns {subarray.col_start + 1} to "
            f"{subarray.col_start + subarray.n_cols} of the detector, got {path} with rows "
            f"{row + 1} to {row + shape[-2]}, columns {col + 1} to {col + shape[-1]}"
        )
    return area


def _flags(dq: np.ndarray, hdus) -> np.ndarray:
    """Flags of a reference file in the standard bits, one plane for all integrations.

    A file may use bits of its own, which its table DQ_DEF then names; unknown names are dropped,
    as the STScI pipeline does.
    """
    dq = dq.astype(np.uint32)
    if dq.ndim == 4:
        dq = dq[:, 0]  # the flags of a dark's first group count, by the STScI step
    dq = np.bitwise_or.reduce(dq.reshape(-1, *dq.shape[-2:]), axis=0)
    table = hdus["DQ_DEF"].data if "DQ_DEF" in hdus else None
    if table is None or len(table) == 0:
        return dq
    standard = np.zeros_like(dq)
    for value, name in zip(table["VALUE"], table["NAME"], strict=True):
        if name.strip() in DQ_NAMES:
            flagged = (dq & np.uint32(value)) != 0
            standard |= flagged.astype(np.uint32) << np.uint32(DQ_NAMES.index(name.strip()))
    return standard


def _check_shapes(reftype: str, path: Path, arrays, subarray: Subarray) -> None:
    for name, array in arrays.items():
        n_axes = 2 if name.endswith(("_dq", "_err")) else _N_AXES.get(reftype, 2)
        if array.ndim != n_axes or array.shape[-2:] != (subarray.n_rows, subarray.n_cols):
            raise CalibrationError(
                f"{reftype}: expected {n_axes} axes that cover {subarray.n_rows} rows and "
                f"{subarray.n_cols} columns, got {path}: {name} {array.shape}"
            )


def _used_reset(reset: np.ndarray, header) -> np.ndarray:
    """The integrations and groups that the header says are meant."""
    return np.ascontiguousarray(reset[: header.get("NINTS"), : header.get("NGROUPS")])


def _check_single_frames(path: Path, header) -> None:
    if header.get("NFRAMES", 1) != 1 or header.get("GROUPGAP", 0) != 0:
        raise CalibrationError(
            "dark: expected single frames, none dropped (NFRAMES = 1, GROUPGAP = 0), got "
            f"{path} with {header.get('NFRAMES')} and {header.get('GROUPGAP')}"
        )


def _average_dark(path: Path, hdus, area, subarray: Subarray) -> np.ndarray:
    """Mean dark current of each pixel: the file's image where it has one, or else its number."""
    if "AVDRKCUR" in hdus and hdus["AVDRKCUR"].data is not None:
        image = hdus["AVDRKCUR"].data[area].astype(np.float32)
        if image.any():
            return image
    number = hdus["PRIMARY"].header.get("AVDRKCUR", 0.0)
    return np.full((subarray.n_rows, subarray.n_cols), number, dtype=np.float32)
