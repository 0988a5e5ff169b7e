"""Load the reference data of one observation."""

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from miri_gpu.calibration import choose, read, read_settings
from miri_gpu.calibration.bundle import NOT_AVAILABLE, Calibration
from miri_gpu.errors import CalibrationError
from miri_gpu.rates.wavelength import wavelength_map

TYPES = (*read.IMAGE_TYPES, "specwcs", "rscd", "emicorr")
REQUIRED_TYPES = ("readnoise", "gain", "specwcs")  # no step can do without these


def load_calibration(
    observation,
    *,
    references: str | Path | None = None,
    overrides: Mapping[str, str | Path | None] | None = None,
    types: Iterable[str] = TYPES,
    velocity_m_s: float | None = None,
) -> Calibration:
    """Find, read and cut the reference files of an observation.

    CRDS chooses as it does for the jwst steps, and hears of CRDS_PATH, CRDS_CONTEXT and
    CRDS_SERVER_URL; with `references` the files come from that folder and CRDS is not asked.

    Parameters
    ----------
    observation : astropy.io.fits.Header, several of them, or path of a segment
        The primary header, or that and the one of the SCI extension. Of a file only these are read.
    references : folder or None
        Reference files, one of each type, known by their keyword REFTYPE.
    overrides : dict of type to file, or None
        Files to take instead; "N/A" leaves a reference out.
    types : iterable of str
        The types that are needed; the others stay None.
    velocity_m_s : float or None
        Radial velocity towards the target (VELOSYS), by default what the segment says, or else
        what the header says, or 0.

    Returns
    -------
    Calibration : on the host

    Raises
    ------
    CalibrationError
        Where a file is missing, unreadable or does not fit; the message names its type.
    """
    header, velocity_m_s = _header(observation, velocity_m_s)
    overrides, types = dict(overrides or {}), tuple(types)
    _check_types(types, overrides)
    subarray = read.Subarray.from_header(header, "observation")
    wanted = [reftype for reftype in types if reftype not in overrides]
    files, context = {}, ""
    if references is not None:
        files = choose.choose_from_folder(references, wanted)
    elif wanted:
        files, context = choose.choose_from_crds(header, wanted)
    files |= {t: path for t, path in choose.overridden(overrides).items() if t in types}
    _check_required(files, context)
    return Calibration(
        **_arrays(files, header, subarray, velocity_m_s),
        files={reftype: path.name if path else NOT_AVAILABLE for reftype, path in files.items()},
        context=context,
        folder="" if references is None else str(references),
    )


def _header(observation, velocity_m_s: float | None):
    """The primary header, and the velocity that it or the SCI extension states."""
    headers = observation if isinstance(observation, tuple) else (observation,)
    if isinstance(observation, str | Path):
        from astropy.io import fits

        try:
            with fits.open(observation) as hdus:
                headers = [hdu.header.copy() for hdu in hdus if hdu.name in ("PRIMARY", "SCI")]
        except OSError as error:
            raise CalibrationError(f"{observation}: not a readable FITS file ({error})") from None
    if velocity_m_s is None:
        stated = [header["VELOSYS"] for header in headers if header.get("VELOSYS") is not None]
        velocity_m_s = stated[-1] if stated else 0.0
    return headers[0], velocity_m_s


def _check_types(types: Iterable[str], overrides: Mapping) -> None:
    for reftype in (*types, *overrides):
        if reftype not in TYPES:
            raise CalibrationError(
                f"references: expected types among {', '.join(TYPES)}, got {reftype!r}"
            )


def _check_required(files: Mapping[str, Path | None], context: str) -> None:
    for reftype in REQUIRED_TYPES:
        if reftype in files and files[reftype] is None:
            raise CalibrationError(
                f"{reftype}: expected a reference file, got {NOT_AVAILABLE} "
                f"({context or 'override'})"
            )


def _arrays(files: Mapping[str, Path | None], header, subarray, velocity_m_s) -> dict:
    arrays: dict[str, Any] = {"gain_factor": header.get("GAINFACT")}
    for reftype, path in files.items():
        if path is None:
            continue
        if reftype == "rscd":
            arrays["rscd"] = read_settings.read_group_skip(path, header)
            continue
        if reftype == "emicorr":
            arrays["emicorr"] = read_settings.read_emi_reference(path, header)
            continue
        if reftype == "specwcs":
            arrays["wavelength"] = wavelength_map(
                read.read_wavelength_table(path),
                row_start=subarray.row_start,
                col_start=subarray.col_start,
                shape=(subarray.n_rows, subarray.n_cols),
                velocity_m_s=velocity_m_s,
            )
            continue
        arrays |= read.read_images(reftype, path, subarray)
    if "dark" in arrays:
        arrays["dark"] = np.ascontiguousarray(arrays["dark"][:, : _frames(header)])
    return arrays


def _frames(header) -> int | None:
    """Frames that an integration takes, at least two; None (all there are) where not stated."""
    if not isinstance(header.get("NGROUPS"), int):
        return None
    n_frames, group_gap = header.get("NFRAMES", 1), header.get("GROUPGAP", 0)
    return max(header["NGROUPS"] * (n_frames + group_gap) - group_gap, 2)
