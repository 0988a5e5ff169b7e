"""Rate images on disk, `*_rateints.fits`: written as jwst's, and read back to enter stage 2."""

from dataclasses import dataclass
from io import BytesIO
from pathlib import Path

import numpy as np

from miri_gpu.backend import to_host
from miri_gpu.calibration import Calibration
from miri_gpu.containers import Rates
from miri_gpu.errors import SegmentError
from miri_gpu.files import write_beside
from miri_gpu.integration_times import TIME_COLUMNS
from miri_gpu.recipe import Recipe
from miri_gpu.segments import Segment

_PLANES = {
    "SCI": ("data", "DN/s"),
    "ERR": ("err", "DN/s"),
    "VAR_POISSON": ("var_poisson", "DN2 / s2"),
    "VAR_RNOISE": ("var_rnoise", "DN2 / s2"),
    "DQ": ("dq", None),
}
# The keyword by which a jwst product says that a step was done, and the step's name here.
_STEP_KEYWORDS = {
    "S_GRPSCL": "group_scale",
    "S_DQINIT": "dq_init",
    "S_MIREMI": "emicorr",
    "S_SATURA": "saturation",
    "S_FRSTFR": "firstframe",
    "S_LASTFR": "lastframe",
    "S_RESET": "reset",
    "S_LINEAR": "linearity",
    "S_RSCD": "rscd",
    "S_DARK": "dark_current",
    "S_JUMP": "jump",
}
_FIT_KEYWORDS = {"S_RAMP": "ramp_fit", "S_GANSCL": "gain_scale"}
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


@dataclass(frozen=True, kw_only=True)
class RateFacts:
    """What a file of rate images says of them.

    Attributes
    ----------
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

    first_integration: int
    n_ints_of_exposure: int
    n_dropped: int
    n_groups: int
    used_time_s: float
    times: dict[str, np.ndarray]


def rate_path(directory: Path, segment: Segment) -> Path:
    """Where a segment's rate images go: its own name, `_uncal` become `_rateints`."""
    stem = segment.path.name.removesuffix(".fits").removesuffix("_uncal")
    return directory / f"{stem}_rateints.fits"


def write_rates(
    path: Path,
    rates: Rates,
    segment: Segment,
    facts: RateFacts,
    recipe: Recipe,
    calibration: Calibration,
) -> None:
    """Write rate images as jwst's CubeModel, whole or not at all.

    Parameters
    ----------
    path : the file, replaced if it exists
    rates : Rates, on any backend
    segment : the segment they were made of, whose headers they carry on
    facts : RateFacts
    recipe, calibration : what the header says was done, and with which references
    """
    from astropy.io import fits

    header = primary_header(path, segment, facts, recipe, calibration)
    header["FILETYPE"] = "countrate"
    header["DATAMODL"] = "CubeModel"
    for keyword, step in _FIT_KEYWORDS.items():
        header[keyword] = "COMPLETE" if recipe.runs(step) else "SKIPPED"
    header[USED_TIME] = (facts.used_time_s, "[s] from the first to the last group fitted")
    hdus = fits.HDUList([fits.PrimaryHDU(header=header)])
    for extension, (name, unit) in _PLANES.items():
        hdu = fits.ImageHDU(to_host(getattr(rates, name)), name=extension)
        if extension == "SCI":
            carry_on(segment.science, hdu.header)
        if unit is not None:
            hdu.header["BUNIT"] = unit
        hdus.append(hdu)
    hdus += [int_times(facts), metadata_tree("CubeModel")]
    write_beside(path, lambda beside: hdus.writeto(beside, overwrite=True))


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


def primary_header(
    path: Path, segment: Segment, facts: RateFacts, recipe: Recipe, calibration: Calibration
):
    """The header of a segment, with what was done to its ramps before they were fitted."""
    from miri_gpu import __version__

    header = segment.primary.copy()
    header["FILENAME"] = path.name
    header["CAL_VER"] = f"miri_gpu {__version__}"
    for keyword, step in _STEP_KEYWORDS.items():
        header[keyword] = "COMPLETE" if recipe.runs(step) else "SKIPPED"
    if calibration.gain_factor is None:
        header["S_GANSCL"] = "SKIPPED"
    if segment.readout.frame_divisor in (None, segment.readout.n_frames):
        header["S_GRPSCL"] = "SKIPPED"
    for keyword, kind in _REFERENCE_KEYWORDS.items():
        if kind in calibration.files:
            header[keyword] = calibration.files[kind]
    if recipe.runs("custom_linearity"):
        header["R_LINEAR"] = "measured on the observation"
    header["CRDS_CTX"] = calibration.context
    header["NINTS"] = facts.n_ints_of_exposure
    if facts.n_dropped:
        header[N_DROPPED] = (facts.n_dropped, "integrations dropped from the exposure")
    header["INTSTART"] = facts.first_integration + 1
    header["INTEND"] = facts.first_integration + len(facts.times[TIME_COLUMNS[0]])
    header["NGROUPS"] = facts.n_groups
    header["EFFINTTM"] = facts.n_groups * segment.readout.group_time_s
    return header


def carry_on(old, new) -> None:
    """Copy the cards of the raw SCI header (pointing, WCS) that do not describe its array."""
    describing = ("XTENSION", "BITPIX", "PCOUNT", "GCOUNT", "EXTNAME", "BZERO", "BSCALE", "BUNIT")
    for card in old.cards:
        if card.keyword and not card.keyword.startswith("NAXIS") and card.keyword not in describing:
            new.append(card)


def int_times(facts: RateFacts):
    """The table of the times of the integrations, as an HDU."""
    from astropy.io import fits

    n_ints = len(facts.times[TIME_COLUMNS[0]])
    numbers = facts.first_integration + 1 + np.arange(n_ints, dtype=np.int32)
    columns = [fits.Column(name="integration_number", format="J", array=numbers)]
    columns += [
        fits.Column(name=name, format="D", array=facts.times[name], unit="d")
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
