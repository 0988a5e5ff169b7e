"""From the time series to light curves in bands, and to the depth of a transit of known shape."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Self

import numpy as np

if TYPE_CHECKING:
    import xarray

# of each integration, what a light curve is drawn against
_BESIDE = (
    "bjd_tdb_start", "bjd_tdb_mid", "bjd_tdb_end",
    "mjd_utc_start", "mjd_utc_mid", "mjd_utc_end",
    "x_shift", "y_shift", "psf_sigma",
)  # fmt: skip


def white_light_curve(
    dataset: "xarray.Dataset", *, wavelength_min: float = 5.0, wavelength_max: float = 12.0
) -> "xarray.Dataset":
    """Sum the flux of a range of wavelengths.

    Parameters
    ----------
    dataset : the product, see `miri_gpu.timeseries`
    wavelength_min, wavelength_max : float [um]

    Returns
    -------
    xarray.Dataset
        flux, flux_error (integration_number) [DN/s]; as one band of `spectroscopic_light_curves`.
    """
    return spectroscopic_light_curves(dataset, (wavelength_min, wavelength_max)).isel(wavelength=0)


def spectroscopic_light_curves(
    dataset: "xarray.Dataset", edges: Sequence[float]
) -> "xarray.Dataset":
    """Sum the flux in bands of wavelength.

    Errors add up in quadrature, but for those of a background that rows share.

    A row whose flux is unknown in half of the integrations or more is left out of its band. Of
    the rows left, one unknown value makes the sum of its integration unknown (NaN): a sum over
    fewer rows would look like a dip. A band that loses all its rows is NaN throughout.

    Parameters
    ----------
    dataset : the product, see `miri_gpu.timeseries`
    edges : (n_bands + 1,) [um], rising
        A band holds its lower edge and not its upper one.

    Returns
    -------
    xarray.Dataset
        flux, flux_error (wavelength, integration_number) [DN/s]; n_rows (wavelength);
        coordinates: the middle of each band (wavelength), its edges, and of the integrations the
        times, shifts and PSF width.

    Raises
    ------
    ValueError
        Where the edges do not rise, or no row of the product lies in a band.
    """
    import xarray

    edges = np.asarray(edges, dtype=np.float64)
    if edges.ndim != 1 or len(edges) < 2 or not np.all(np.diff(edges) > 0):
        raise ValueError(f"edges: expected two or more rising wavelengths, got {edges.tolist()}")
    flux = dataset["flux"].values.astype(np.float64)
    known = np.isfinite(flux).mean(axis=0) > 0.5
    low, high = edges[:-1], edges[1:]
    wavelength = dataset["wavelength"].values
    in_band = (low[:, None] <= wavelength) & (wavelength < high[:, None])
    for k in np.flatnonzero(~in_band.any(axis=1)):
        raise ValueError(f"edges: no row has {low[k]:g} <= wavelength < {high[k]:g} um")
    in_band &= known
    n_rows = in_band.sum(axis=1)
    sums = np.stack([flux[:, rows].sum(axis=1) for rows in in_band])
    noise = _Noise.of(dataset)
    variances = np.stack([noise.variance_of_sum(rows) for rows in in_band])
    sums[n_rows == 0] = variances[n_rows == 0] = np.nan
    dims = ("wavelength", "integration_number")
    unit = {"units": "DN/s"}
    um = {"units": "um"}
    return xarray.Dataset(
        {
            "flux": (dims, sums, {**unit, "long_name": "flux in the band"}),
            "flux_error": (dims, np.sqrt(variances), {**unit, "long_name": "its error"}),
            "n_rows": ("wavelength", n_rows, {"units": "1", "long_name": "rows in the band"}),
        },
        {
            "wavelength": ("wavelength", (low + high) / 2, {**um, "long_name": "middle of band"}),
            "wavelength_low": ("wavelength", low, {**um, "long_name": "lower edge of band"}),
            "wavelength_high": ("wavelength", high, {**um, "long_name": "upper edge of band"}),
            "integration_number": dataset["integration_number"],
            **{name: dataset[name] for name in _BESIDE},
        },
        dataset.attrs,
    )


@dataclass(frozen=True, eq=False)
class _Noise:
    """The noise of the rows of a product: what each has by itself, and what it may share.

    Attributes
    ----------
    own, shared : (n_ints, n_rows) float64 [DN/s]
    row : (n_rows,)
    n_sharing : float
        As `miri_gpu.background.rows_sharing` has it.
    """

    own: np.ndarray
    shared: np.ndarray
    row: np.ndarray
    n_sharing: float

    @classmethod
    def of(cls, dataset: "xarray.Dataset") -> Self:
        """That of a product; without a background no row shares any."""
        error = dataset["flux_error"].values.astype(np.float64)
        if "background_flux_error" not in dataset:
            return cls(error, np.zeros_like(error), dataset["row"].values, 1.0)
        shared = dataset["background_flux_error"].values.astype(np.float64)
        own = np.sqrt(np.maximum(error**2 - shared**2, 0))
        return cls(own, shared, dataset["row"].values, float(dataset["rows_sharing_background"]))

    def variance_of_sum(self, rows: np.ndarray) -> np.ndarray:
        """Variance of the summed flux of some rows, (n_rows,) bool, in each integration."""
        own, shared, row = self.own[:, rows], self.shared[:, rows], self.row[rows]
        correlation = np.clip(1 - np.abs(row[:, None] - row) / self.n_sharing, 0, 1)
        return (own * own).sum(axis=1) + ((shared @ correlation) * shared).sum(axis=1)


def normalised(
    light_curves: "xarray.Dataset", out_of_transit: np.ndarray | None = None
) -> "xarray.Dataset":
    """Divide each light curve by its median out of transit.

    Parameters
    ----------
    light_curves : from `white_light_curve` or `spectroscopic_light_curves`
    out_of_transit : (n_ints,) bool
        Integrations that the median is taken of; None takes all.

    Returns
    -------
    xarray.Dataset
        The same, with relative flux and error (NaN where the median is unknown or 0).
    """
    flux = light_curves["flux"]
    used = flux if out_of_transit is None else flux.isel(integration_number=out_of_transit)
    level = median_of_known(used.values, axis=-1)
    level = np.where(level == 0, np.nan, level)
    relative = light_curves.copy()
    for name in ("flux", "flux_error"):
        values = light_curves[name]
        relative[name] = values.copy(data=values.values / level[..., None])
        relative[name].attrs = {**values.attrs, "units": "1"}
    relative["flux"].attrs["long_name"] = "relative flux in the band"
    return relative


def transit_depths(
    light_curves: "xarray.Dataset", shape: np.ndarray, *, against: Sequence[str] = ()
) -> "xarray.Dataset":
    """Fit a transit of known shape, on a straight line in time, to each light curve.

    The model is flux = a + b t + c x + .. - A shape, with t counted from the middle of the transit
    and x, each of what the curve is decorrelated against, from its mean; the depth is A / a. The
    error comes from the scatter of the residuals.

    Parameters
    ----------
    light_curves : from `white_light_curve` or `spectroscopic_light_curves`
    shape : (n_ints,) or (n_bands, n_ints)
        0 out of transit and 1 where the full depth is reached; NaN leaves an integration out
        (ingress, say). A boolean mask of the integrations in transit will do.
    against : names of coordinates of the light curves, such as ["x_shift"]
        NaN leaves an integration out. A transit whose depth varies with wavelength moves y_shift,
        which takes some of the depth then.

    Returns
    -------
    xarray.Dataset
        depth, depth_error : relative to the flux out of transit; NaN where the integrations at
        hand do not determine it. residual_scatter, expected_scatter : standard deviation of the
        residuals and root mean square of the flux errors, relative too.

    Raises
    ------
    ValueError
        Where the shape has another number of values, or the integrations have no such
        coordinate.
    """
    import xarray

    flux = np.atleast_2d(light_curves["flux"].values)
    error = np.atleast_2d(light_curves["flux_error"].values)
    shape = np.asarray(shape, dtype=np.float64)
    if shape.shape not in (flux.shape, flux.shape[1:]):
        n_bands, n_ints = flux.shape
        found = " x ".join(str(n) for n in shape.shape) or "one"
        raise ValueError(f"shape: expected {n_ints} values or {n_bands} x {n_ints}, got {found}")
    shapes = np.broadcast_to(shape, flux.shape)
    time = light_curves["bjd_tdb_mid"].values
    systematics = _systematics(light_curves, against)
    fits = np.array(
        [_fit_depth(time, systematics, *band) for band in zip(flux, error, shapes, strict=True)]
    )
    dims = light_curves["flux"].dims[:-1]
    columns = fits.T if dims else fits[0]
    names = {
        "depth": "transit depth",
        "depth_error": "standard deviation of the transit depth",
        "residual_scatter": "standard deviation of the residuals, relative",
        "expected_scatter": "root mean square of the flux errors, relative",
    }
    coordinates = {
        name: light_curves[name] for name in ("wavelength", "wavelength_low", "wavelength_high")
    }
    return xarray.Dataset(
        {
            name: (dims, column, {"units": "1", "long_name": long_name})
            for (name, long_name), column in zip(names.items(), columns, strict=True)
        },
        coordinates,
    )


def median_of_known(values: np.ndarray, *, axis: int) -> np.ndarray:
    """Median of what is not NaN; NaN where all is."""
    unknown = np.isnan(values).all(axis=axis, keepdims=True)
    median = np.nanmedian(np.where(unknown, 0.0, values), axis=axis)
    return np.where(np.squeeze(unknown, axis=axis), np.nan, median)


def _systematics(light_curves: "xarray.Dataset", against: Sequence[str]) -> np.ndarray:
    """Coordinates of the integrations by their names, (n_coordinates, n_ints)."""
    names = [against] if isinstance(against, str) else against
    by_int = ("integration_number",)
    found = {name: v.values for name, v in light_curves.coords.items() if v.dims == by_int}
    for name in names:
        if name not in found:
            raise ValueError(f"against: expected names among {', '.join(found)}, got {name!r}")
    columns = [found[name] for name in names]
    return np.array(columns, dtype=np.float64).reshape(-1, light_curves.sizes[by_int[0]])


def _fit_depth(time, systematics, flux, error, shape) -> tuple[float, float, float, float]:
    """Depth, its error, relative scatter of the residuals and relative error of the flux."""
    used = np.isfinite([flux, shape, time, *systematics]).all(axis=0)
    flux, error, shape, time = flux[used], error[used], shape[used], time[used]
    unknown = (np.nan,) * 4
    n_free = len(flux) - 3 - len(systematics)
    if n_free < 1 or not shape.sum() > 0:
        return unknown
    days = time - np.average(time, weights=shape)
    columns = [_of_unit_range(x - x.mean()) for x in systematics[:, used]]
    design = np.stack([-shape, np.ones_like(days), _of_unit_range(days), *columns], axis=1)
    if np.linalg.matrix_rank(design) < design.shape[1]:
        return unknown
    solution = np.linalg.lstsq(design, flux)[0]
    amplitude, level = solution[:2]
    if not level > 0:
        return unknown
    residuals = flux - design @ solution
    variance = float(residuals @ residuals) / n_free
    covariance = variance * np.linalg.inv(design.T @ design)
    depth = amplitude / level
    # of a quotient: d(A / a) = (dA - depth da) / a
    gradient = np.array([1.0, -depth]) / level
    depth_error = np.sqrt(gradient @ covariance[:2, :2] @ gradient)
    expected = np.sqrt(np.mean(error**2))
    return depth, depth_error, np.sqrt(variance) / level, expected / level


def _of_unit_range(values: np.ndarray) -> np.ndarray:
    return values / (np.ptp(values) or 1.0)
