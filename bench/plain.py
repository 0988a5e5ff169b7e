"""An observation that needs neither astropy nor jwst, for machines that have only array libraries.

Samples and references are those of `miri_gpu.simulate`, to the bit. The samples lie in a FITS file
with no more keywords than a reduction asks for; the references never see a disk.
"""

from collections.abc import Iterable, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np

from miri_gpu import detector
from miri_gpu.backend import Backend
from miri_gpu.calibration import Calibration
from miri_gpu.calibration.read import EXTENSIONS
from miri_gpu.integration_times import TIME_COLUMNS
from miri_gpu.plan import Plan
from miri_gpu.rates.wavelength import WavelengthTable, wavelength_map
from miri_gpu.recipe import load_recipe
from miri_gpu.segments import Segment
from miri_gpu.simulate import SimulationSettings, references
from miri_gpu.simulate.observation import exposed
from miri_gpu.simulate.scene import build_scene
from miri_gpu.simulate.segments import (
    BARYCENTRE_S,
    BLOCK_BYTES,
    START_MJD,
    as_stored,
    integration_times,
)
from miri_gpu.simulate.true_detector import build_detector

FILE_NAME = "plain_uncal.fits"


def segment(
    path: Path, settings: SimulationSettings, number: int = 1, n_segments: int = 1
) -> Segment:
    """The segment that a file holds, or will hold: of the settings, and by default all there is.

    Its samples lie behind two headers of one block each.
    """
    first = (number - 1) * settings.n_ints
    times = integration_times(first, first + settings.n_ints, settings)
    place = {
        "NINTS": n_segments * settings.n_ints,
        "EXSEGNUM": number,
        "EXSEGTOT": n_segments,
        "INTSTART": first + 1,
        "INTEND": first + settings.n_ints,
    }
    return Segment(
        path=path,
        primary={**_primary_keywords(settings), **place},
        science=_science_keywords(settings),
        offset=2 * BLOCK_BYTES,
        times={name: times[name].astype(np.float64) for name in TIME_COLUMNS},
    )


def simulated_samples(settings: SimulationSettings) -> list[np.ndarray]:
    """All integrations, each (n_groups, n_rows, n_cols) uint16 [DN]."""
    scene, true_detector = build_scene(settings), build_detector(settings)
    return list(exposed(scene, true_detector, settings, 0, settings.n_ints, [], None))


def write_segment(segment: Segment, samples: Iterable[np.ndarray]) -> None:
    """Write the file of a segment, an integration at a time."""
    partial = segment.path.with_suffix(".part")
    with partial.open("wb") as file:
        file.write(_header(segment.primary))
        file.write(_header(segment.science))
        n_bytes = sum(file.write(as_stored(integration)) for integration in samples)
        file.write(bytes(-n_bytes % BLOCK_BYTES))
    partial.replace(segment.path)


def plan(
    segment: Segment,
    settings: SimulationSettings,
    backend: Backend,
    recipe: str | None = None,
    changes: Mapping[str, Mapping[str, Any]] = MappingProxyType({}),
) -> Plan:
    """The plan that `make_plan` would make of the same observation with all its files."""
    chosen = load_recipe(recipe, settings.n_groups).updated(changes, "settings")
    calibration = simulated_calibration(settings)
    if chosen.runs("custom_gain"):
        calibration = calibration.with_gain(chosen["custom_gain"])
    return Plan((segment,), chosen, calibration, backend, np.ones(settings.n_ints, dtype=bool))


def simulated_calibration(settings: SimulationSettings) -> Calibration:
    """The references as `load_calibration` reads them from the files."""
    kept, true_detector = _KeptReferences(), build_detector(settings)
    references.write_pixel_references(kept, true_detector, settings)
    references.write_ramp_references(kept, true_detector, settings)
    references.write_specwcs(kept, settings)
    table = kept.extensions.pop("specwcs")["WAVETABLE"]
    arrays = {
        name: _as_read(kept.extensions[kind][extension], is_flags=extension == "DQ")
        for kind, extensions in EXTENSIONS.items()
        for name, extension in extensions.items()
    }
    return Calibration(
        **arrays,
        average_dark=np.zeros((detector.N_ROWS, detector.N_COLS), dtype=np.float32),
        wavelength=wavelength_map(
            WavelengthTable(
                y_center=table["Y_CENTER"],
                wavelength=table["WAVELENGTH"],
                y_min=float(table["Y2"].min()),
                y_max=float(table["Y0"].max()),
                reference_row=references.Y_REF - 1,
            )
        ),
        context="in memory",
    )


class _KeptReferences:
    """Takes the place of the simulator's writer: keeps what that would write to FITS files."""

    def __init__(self):
        self.extensions: dict[str, dict[str, np.ndarray]] = {}

    def fits(self, kind: str, model: str, extensions: dict, *, full_frame=False, cards=()) -> None:
        rows, cols = slice(None), slice(None)
        if full_frame:
            rows = slice(detector.ROW_START, detector.ROW_START + detector.N_ROWS)
            cols = slice(detector.COL_START, detector.COL_START + detector.N_COLS)
        self.extensions[kind] = {
            name: array if array.dtype.names else array[..., rows, cols]
            for name, array in extensions.items()
        }


def _as_read(array: np.ndarray, *, is_flags: bool) -> np.ndarray:
    """Images in float32; flags of all integrations in one plane."""
    if not is_flags:
        return np.ascontiguousarray(array, dtype=np.float32)
    planes = array.reshape(-1, *array.shape[-2:])
    return np.bitwise_or.reduce(planes, axis=0).astype(np.uint32)


def _primary_keywords(settings: SimulationSettings) -> dict[str, Any]:
    """What a reduction asks of the primary header."""
    return {
        "SIMPLE": True,
        "BITPIX": 8,
        "NAXIS": 0,
        "EXTEND": True,
        "INSTRUME": detector.INSTRUMENT,
        "DETECTOR": detector.DETECTOR,
        "EXP_TYPE": detector.EXPOSURE_TYPE,
        "FILTER": detector.FILTER,
        "SUBARRAY": detector.SUBARRAY,
        "TARGNAME": "SIMULATED-STAR",
        "EXPSTART": START_MJD,
        "BARTDELT": BARYCENTRE_S,
        "NINTS": settings.n_ints,
        "NGROUPS": settings.n_groups,
        "NFRAMES": 1,
        "FRMDIVSR": 1,
        "GROUPGAP": 0,
        "DRPFRMS1": 0,
        "NRESETS": 1,
        "TFRAME": detector.FRAME_TIME_S,
        "TGROUP": detector.FRAME_TIME_S,
        "EXSEGNUM": 1,
        "EXSEGTOT": 1,
        "INTSTART": 1,
        "INTEND": settings.n_ints,
    }


def _science_keywords(settings: SimulationSettings) -> dict[str, Any]:
    """What makes the samples an extension SCI."""
    return {
        "XTENSION": "IMAGE",
        "BITPIX": 16,
        "NAXIS": 4,
        "NAXIS1": detector.N_COLS,
        "NAXIS2": detector.N_ROWS,
        "NAXIS3": settings.n_groups,
        "NAXIS4": settings.n_ints,
        "PCOUNT": 0,
        "GCOUNT": 1,
        "BSCALE": 1,
        "BZERO": 32768,
        "EXTNAME": "SCI",
        "BUNIT": "DN",
    }


def _header(keywords: Mapping[str, Any]) -> bytes:
    """A FITS header of one block."""
    written = {True: "T", False: "F"}
    cards = [
        f"{name:8}= {value!r:<20}" if isinstance(value, str)
        else f"{name:8}= {written[value] if isinstance(value, bool) else value:>20}"
        for name, value in keywords.items()
    ]  # fmt: skip
    return "".join(f"{card:80}" for card in [*cards, "END"]).ljust(BLOCK_BYTES).encode("ascii")
