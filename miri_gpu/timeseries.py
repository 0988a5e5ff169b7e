"""The product: one xarray Dataset for a whole observation, its netCDF file, and light curves.

======================  ==================================  ====================================
variable                dimensions                          unit
======================  ==================================  ====================================
flux, flux_error        integration_number, wavelength      DN/s
background              integration_number, wavelength      DN/s, of a pixel
n_outliers              ..., wavelength, region_width       pixels with any data-quality flag
n_jumps                 integration_number                  pixels with a jump in their ramp
x_shift, y_shift        integration_number                  pixel, positive to higher index
trace_centre            integration_number                  pixel (column)
psf_sigma               integration_number                  pixel
integration_duration    none                                s, from one integration to the next
bjd_tdb_start/mid/end   integration_number (coordinate)     d
mjd_utc_start/mid/end   integration_number (coordinate)     d
row                     wavelength (coordinate)             detector row of the subarray
======================  ==================================  ====================================

Only where the recipe measures them:

==========================  ==============================  ====================================
variable                    dimensions                      unit
==========================  ==============================  ====================================
background_flux_error       integration_number, wavelength  DN/s
rows_sharing_background     none                            rows
chi_square                  integration_number, wavelength  1, per degree of freedom
emi_amplitude_before        frequency, integration_number   DN
emi_amplitude_after         frequency, integration_number   DN
frequency                   frequency (coordinate)          Hz
linearity_coefficients      power, amplifier                DN^(1-power); and ..._error
linearity_residual          group, amplifier                DN; and ..._error
linearity_in_fit            group                           1 where the fit used the group
linearity_n_ramps           amplifier                       ramps that the fit used
linearity_n_rejected        amplifier                       ramps that it left out
==========================  ==============================  ====================================

Rows without a wavelength are left out; the others keep the order of the detector, so that the
wavelength falls along its axis. NaN means unknown.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from miri_gpu import detector
from miri_gpu.errors import MiriGpuError, OutputError
from miri_gpu.files import write_beside
from miri_gpu.integration_times import SECONDS_PER_DAY
from miri_gpu.versions import installed_versions

if TYPE_CHECKING:
    import xarray

_BY_INT = ("integration_number",)
_BY_ROW = ("integration_number", "wavelength")
_DESCRIPTIONS = {  # name: (dimensions, unit, what it is)
    "flux": (_BY_ROW, "DN/s", "stellar flux"),
    "flux_error": (_BY_ROW, "DN/s", "standard deviation of the flux"),
    "background": (_BY_ROW, "DN/s", "background of a pixel, subtracted in the aperture"),
    "n_outliers": (
        (*_BY_ROW, "region_width"),
        "1",
        "pixels with any data-quality flag within region_width columns of the trace",
    ),
    "n_jumps": (_BY_INT, "1", "pixels with a cosmic-ray jump flagged in their ramp"),
    "x_shift": (_BY_INT, "pixel", "cross-dispersion shift, positive to higher columns"),
    "y_shift": (_BY_INT, "pixel", "dispersion shift, positive to higher rows"),
    "trace_centre": (_BY_INT, "pixel", "column of the centre of the trace"),
    "psf_sigma": (_BY_INT, "pixel", "Gaussian standard deviation of the trace"),
}
_BY_FREQUENCY = ("frequency", "integration_number")
_OPTIONAL = {  # likewise; of what only some recipes measure
    "background_flux_error": (_BY_ROW, "DN/s", "what the subtracted background has of flux_error"),
    "rows_sharing_background": (
        (),
        "row",
        "background_flux_error of rows that are d apart has the correlation 1 - d / this number",
    ),
    "chi_square": (_BY_ROW, "1", "chi-square per degree of freedom of the ramps in the aperture"),
    "emi_amplitude_before": (_BY_FREQUENCY, "DN", "amplitude of the interference in the ramps"),
    "emi_amplitude_after": (
        _BY_FREQUENCY,
        "DN",
        "amplitude of what was left of the interference once it was subtracted",
    ),
    "linearity_coefficients": (
        ("power", "amplifier"),
        "DN^(1-power)",
        "coefficients of the measured non-linearity",
    ),
    "linearity_coefficients_error": (
        ("power", "amplifier"),
        "DN^(1-power)",
        "standard deviation of the coefficients, 0 for the fixed ones",
    ),
    "linearity_residual": (
        ("group", "amplifier"),
        "DN",
        "mean of the corrected ramps less their straight lines",
    ),
    "linearity_residual_error": (
        ("group", "amplifier"),
        "DN",
        "standard error of the mean residual",
    ),
    "linearity_in_fit": (("group",), "1", "1 where the non-linearity was fitted to the group"),
    "linearity_n_ramps": (("amplifier",), "1", "ramps that the non-linearity was fitted to"),
    "linearity_n_rejected": (("amplifier",), "1", "ramps left out of the fit, for they jump"),
}
_OPTIONAL_COORDINATES = {
    "frequency": (("frequency",), "Hz", "frequency of the interference"),
}
_STORED = {"n_outliers": np.int16, "linearity_in_fit": np.int8}  # other spectra: float32
_MOMENTS = ("start", "mid", "end")
_MJD_ZERO = 2400000.5  # JD - MJD


@dataclass(frozen=True, kw_only=True)
class Provenance:
    """How a time series was made; each field becomes an attribute of the product.

    Attributes
    ----------
    recipe : the recipe as used, in TOML
    backend, device : what computed
    crds_context : the CRDS context, empty where the references came from a folder
    references : the folder, empty where CRDS chose
    reference_files : file by type of reference
    input_files : names of the segments
    target, program, observation : what the headers say was observed
    n_groups : of an integration; None where it is not known, as for the next two
    group_time_s : from one group to the next
    gain_e_per_dn : median of the pixels
    """

    recipe: str = ""
    backend: str = ""
    device: str = ""
    crds_context: str = ""
    references: str = ""
    reference_files: Mapping[str, str] = field(default_factory=dict)
    input_files: Sequence[str] = ()
    target: str = ""
    program: str = ""
    observation: str = ""
    n_groups: int | None = None
    group_time_s: float | None = None
    gain_e_per_dn: float | None = None

    def attributes(self) -> dict[str, str | int | float]:
        """Numbers and texts, known ones: lists one item to a line, mappings as "type: file"."""
        values = {f.name: getattr(self, f.name) for f in fields(self)}
        values["reference_files"] = "\n".join(
            f"{kind}: {name}" for kind, name in sorted(self.reference_files.items())
        )
        values["input_files"] = "\n".join(str(name) for name in self.input_files)
        return {name: value for name, value in values.items() if value is not None}


def build_timeseries(
    *,
    wavelength: np.ndarray,
    times: Mapping[str, np.ndarray],
    integration_number: np.ndarray,
    provenance: Provenance,
    **measured: np.ndarray,
) -> "xarray.Dataset":
    """Join what was measured on all segments into the product.

    Parameters
    ----------
    wavelength : (n_rows,) [um]
        NaN where a row has none: these rows are left out.
    times : dict of (n_ints,) float64 [d]
        The columns of INT_TIMES: `int_mid_BJD_TDB` and so on, as MJD or as full JD.
    integration_number : (n_ints,) int
        Number in the exposure, from 1.
    provenance : Provenance
    flux, flux_error, background : (n_ints, n_rows) [DN/s]
    n_outliers : (n_ints, n_rows, n_widths)
    n_jumps : (n_ints,)
    x_shift, y_shift, trace_centre, psf_sigma : (n_ints,) [pixel]
    background_flux_error : (n_ints, n_rows) [DN/s], optional
    rows_sharing_background : float, optional
    chi_square : (n_ints, n_rows), optional
    frequency : (n_waves,) [Hz], emi_amplitude_before, emi_amplitude_after : (n_waves, n_ints) [DN],
        optional
    linearity_coefficients, ..._residual, ... : as LinearityCalibration has them, optional

    Returns
    -------
    xarray.Dataset

    Raises
    ------
    TypeError
        Where a variable is absent that is not optional, or one is unknown.
    """
    import xarray

    optional = {**_OPTIONAL, **_OPTIONAL_COORDINATES}
    wrong = (set(_DESCRIPTIONS) - set(measured)) | (
        set(measured) - set(_DESCRIPTIONS) - set(optional)
    )
    if wrong:
        raise TypeError(
            f"variables: expected {', '.join(_DESCRIPTIONS)}; absent or unknown: "
            f"{', '.join(sorted(wrong))}"
        )
    rows = np.flatnonzero(np.isfinite(wavelength))
    described = {
        name: _described(name, np.asarray(measured[name]), rows, *description)
        for name, description in {**_DESCRIPTIONS, **optional}.items()
        if name in measured
    }
    variables = {n: v for n, v in described.items() if n not in _OPTIONAL_COORDINATES}
    clocks = time_coordinates(times)
    variables["integration_duration"] = (
        (),
        integration_duration_s(clocks),
        {"units": "s", "long_name": "time from one integration to the next"},
    )
    n_widths = np.shape(measured["n_outliers"])[-1]
    coordinates = {
        "integration_number": (
            _BY_INT,
            np.asarray(integration_number),
            {"units": "1", "long_name": "number of the integration in the exposure, from 1"},
        ),
        "wavelength": (
            ("wavelength",),
            np.asarray(wavelength, dtype=np.float64)[rows],
            {"units": "um", "long_name": "wavelength"},
        ),
        "row": (("wavelength",), rows, {"units": "1", "long_name": "row of the subarray, from 0"}),
        "region_width": (
            ("region_width",),
            np.arange(n_widths),
            {"units": "pixel", "long_name": "columns on either side of the trace"},
        ),
        **clocks,
        **{name: described[name] for name in _OPTIONAL_COORDINATES if name in described},
    }
    attributes = {
        "title": "MIRI LRS slitless time series",
        "instrument": detector.INSTRUMENT,
        "filter": detector.FILTER,
        "subarray": detector.SUBARRAY,
        **provenance.attributes(),
        "versions": "\n".join(f"{k} {v}" for k, v in installed_versions().items()),
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
    }
    return xarray.Dataset(variables, coordinates, attributes)


def _described(name: str, values: np.ndarray, rows: np.ndarray, dims, unit, long_name) -> tuple:
    """A variable of the product: its dimensions, its values as stored, and what they are."""
    if "wavelength" in dims:
        values = values[:, rows].astype(_STORED.get(name, np.float32))
    elif name in _STORED:
        values = values.astype(_STORED[name])
    return dims, values, {"units": unit, "long_name": long_name}


def time_coordinates(times: Mapping[str, np.ndarray]) -> dict[str, tuple]:
    """The columns of INT_TIMES as coordinates: barycentric ones as full BJD, the others as MJD."""
    coordinates = {}
    for moment in _MOMENTS:
        bjd = np.asarray(times[f"int_{moment}_BJD_TDB"], dtype=np.float64)
        # INT_TIMES counts barycentric days like MJD, though its columns are called BJD
        bjd = np.where(bjd < _MJD_ZERO / 2, bjd + _MJD_ZERO, bjd)
        mjd = np.asarray(times[f"int_{moment}_MJD_UTC"], dtype=np.float64)
        coordinates[f"bjd_tdb_{moment}"] = (
            _BY_INT,
            bjd,
            {"units": "d", "long_name": f"{moment} of the integration, BJD in TDB"},
        )
        coordinates[f"mjd_utc_{moment}"] = (
            _BY_INT,
            mjd,
            {"units": "d", "long_name": f"{moment} of the integration, MJD in UTC"},
        )
    return coordinates


def integration_duration_s(clocks: Mapping[str, tuple]) -> float:
    """Median time between mid-integrations; of a single integration, from its start to its end."""
    start, mid, end = (clocks[f"bjd_tdb_{moment}"][1] for moment in _MOMENTS)
    steps = np.diff(mid) if len(mid) > 1 else end - start
    return float(np.median(steps)) * SECONDS_PER_DAY


def save_timeseries(dataset: "xarray.Dataset", path: str | Path) -> None:
    """Write the product as netCDF, whole or not at all.

    Raises
    ------
    OutputError
        Where the file cannot be written.
    """
    packed = {"zlib": True, "complevel": 4, "shuffle": True}
    encoding = {name: packed for name, variable in dataset.data_vars.items() if variable.ndim > 1}

    def write(beside: Path) -> None:
        dataset.to_netcdf(beside, engine="h5netcdf", encoding=encoding)

    try:
        write_beside(Path(path), write)
    except OSError as error:
        raise OutputError(f"{path}: cannot be written ({error.strerror or error})") from None


def load_timeseries(path: str | Path) -> "xarray.Dataset":
    """Read a product into memory.

    Raises
    ------
    MiriGpuError
        Where there is no such file, or it is no time series.
    """
    import xarray

    if not Path(path).is_file():
        raise MiriGpuError(f"{path}: no such file")
    try:
        dataset = xarray.load_dataset(path, engine="h5netcdf")
    except (OSError, ValueError) as error:
        raise MiriGpuError(f"{path}: not a netCDF file ({error})") from None
    absent = [name for name in _DESCRIPTIONS if name not in dataset]
    if absent:
        raise MiriGpuError(f"{path}: expected a time series, it has no {', '.join(absent)}")
    return dataset
