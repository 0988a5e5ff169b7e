"""Read reference files that hold no images: how many groups to skip, and interfering waves."""

import warnings
from pathlib import Path

import numpy as np

from miri_gpu.calibration.read import opened_fits
from miri_gpu.errors import CalibrationError
from miri_gpu.ramps.emi import EmiReference, EmiWave

_OLD_SUBARRAY_NAMES = {"SUBPRISM": "SLITLESSPRISM"}
_UNKNOWN = -1  # an older table does not say how many groups the first integration loses


def read_group_skip(path: Path, header) -> tuple[int, int] | None:
    """Read how many first groups an RSCD reference file leaves out.

    Parameters
    ----------
    path : Path
    header : astropy.io.fits.Header
        Of the observation: its subarray and read-out pattern choose the row of the table.

    Returns
    -------
    (first, later) integrations of an exposure, -1 where the file does not say; None where the
    table has no such row

    Raises
    ------
    CalibrationError
        Where the file cannot be read.
    """
    wanted = _subarray(header), header.get("READPATT", "")
    with opened_fits("rscd", path) as hdus:
        if "RSCD_GROUP_SKIP" not in hdus:
            raise CalibrationError(
                f"rscd: expected an extension RSCD_GROUP_SKIP, got {path} without"
            )
        table = hdus["RSCD_GROUP_SKIP"].data
        has_first = "group_skip1" in (name.lower() for name in table.names)
        for row in table:
            if (row["subarray"].strip(), row["readpatt"].strip()) == wanted:
                first = int(row["group_skip1"]) if has_first else _UNKNOWN
                return first, int(row["group_skip"])
    return None


def read_emi_reference(path: Path, header) -> EmiReference | None:
    """Read the interfering waves that an EMICORR reference file holds for an observation.

    Parameters
    ----------
    path : Path
    header : astropy.io.fits.Header
        Of the observation: its subarray, read-out pattern and detector choose the waves.

    Returns
    -------
    EmiReference, or None where the file has no waves for the mode

    Raises
    ------
    CalibrationError
        Where the file cannot be read or a wave is not there.
    """
    tree = _asdf_tree(path)
    subarray, pattern = _subarray(header), str(header.get("READPATT", "")).upper()
    speed = next((speed for speed in ("FAST", "SLOW") if speed in pattern), None)
    if subarray == "FULL":
        subarray = f"FULL_{speed}"
    try:
        case = tree["subarray_cases"].get(subarray)
        names = None if case is None else case["freqs"].get(speed)
        if names is not None and speed == "SLOW":
            names = names.get(header.get("DETECTOR"))
        if not names:
            return None
        return EmiReference(
            waves=tuple(_wave(name, tree["frequencies"][name]) for name in names),
            clocks_per_row=int(case["rowclocks"]),
            clocks_per_sample=int(header.get("NSAMPLES", 1)),
            clocks_per_reset=int(case["frameclocks"]) if pattern.endswith("R1") else 0,
        )
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise CalibrationError(
            f"emicorr: expected frequencies and subarray_cases, got {path} with a fault in them "
            f"({type(error).__name__}: {error})"
        ) from None


def _wave(name: str, stored) -> EmiWave:
    shape = np.asarray(stored["phase_amplitudes"], dtype=np.float64)
    if shape.ndim != 1 or len(shape) < 4 or not np.isfinite(shape).all():
        raise ValueError(f"phase_amplitudes of {name}: expected 4 or more numbers")
    return EmiWave(
        name=name, frequency_hz=float(stored["frequency"]), shape_dn=tuple(shape.tolist())
    )


def _subarray(header) -> str:
    name = str(header.get("SUBARRAY", "")).upper()
    return _OLD_SUBARRAY_NAMES.get(name, name)


def _asdf_tree(path: Path) -> dict:
    """The content of an ASDF file as plain dicts, lists and arrays."""
    import asdf

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of files written by a newer asdf
            with asdf.open(path, lazy_load=False, memmap=False) as file:
                return dict(file.tree)
    except (OSError, TypeError, ValueError, KeyError, RuntimeError) as error:
        raise CalibrationError(
            f"emicorr: expected an ASDF reference file, got {path} ({error})"
        ) from None
