"""Extract spectra by summing an aperture around the trace."""

from dataclasses import dataclass
from typing import ClassVar

from miri_gpu.backend import namespace
from miri_gpu.containers import Array, Spectra
from miri_gpu.parameters import Parameters, option

TRACE_POSITIONS = ("constant", "gaussian_fits")


@dataclass(frozen=True, kw_only=True)
class Extract1DBoxParams(Parameters):
    """The aperture."""

    step: ClassVar[str] = "extract_1d_box"

    trace_position: str = option(
        "constant",
        "constant: the aperture is centred on aperture_center; "
        "gaussian_fits: on the trace of each integration",
        choices=TRACE_POSITIONS,
    )
    aperture_center: int = option(36, "column of the trace", unit="column", at_least=0)
    aperture_left_width: int = option(
        4, "columns in the aperture left of its centre", unit="column", at_least=0
    )
    aperture_right_width: int = option(
        4, "columns in the aperture right of its centre", unit="column", at_least=0
    )


def extract_box(
    data: Array,
    err: Array,
    *,
    params: Extract1DBoxParams | None = None,
    background_err: Array | None = None,
    centres: Array | None = None,
) -> Spectra:
    """Sum each row over the aperture.

    Parameters
    ----------
    data, err : (n_ints, n_rows, n_cols) float [DN/s]
        Frames, and the standard deviations of their pixels. A NaN in the aperture makes the sum
        unknown: replace bad pixels before.
    params : Extract1DBoxParams
    background_err : (n_ints, n_rows, n_cols or 1) float [DN/s], or None
        Standard deviation of what was subtracted, which the pixels of a row share. None = 0.
    centres : (n_ints,) float [column], or None
        Centre of the trace in each integration, for `gaussian_fits`.

    Returns
    -------
    Spectra
        NaN where a pixel is NaN (of the flux: in `data`, of its error: in `err`), the centre is
        NaN, or the aperture leaves the detector. `background_err` is None without the argument.

    Raises
    ------
    ValueError
        Where a constant aperture leaves the detector, or `gaussian_fits` comes without centres.

    Notes
    -----
    ExoTiC-MIRI's Extract1DBoxStep: columns rint(centre - left) .. rint(centre + right).
    """
    xp = namespace(data, err, background_err, centres)
    params = Extract1DBoxParams() if params is None else params
    aperture = find_aperture(data, centres, params=params)
    noise = aperture.cut(err)
    noise *= noise
    variance = noise.sum(axis=0)
    shared = None
    if background_err is not None:
        shared = aperture.cut(xp.broadcast_to(background_err, data.shape)).sum(axis=0)
        variance += shared * shared
    spectra = Spectra(
        flux=aperture.cut(data).sum(axis=0), flux_err=xp.sqrt(variance), background_err=shared
    )
    return spectra.map(lambda sums: _where_complete(sums, aperture, xp=xp))


def _where_complete(sums: Array, aperture: "Aperture", *, xp) -> Array:
    """Sums over the aperture as float32, NaN where it is not all on the detector."""
    known = aperture.complete & xp.isfinite(sums)
    return xp.where(known, sums, xp.nan).astype(xp.float32)


@dataclass(frozen=True, eq=False)
class Aperture:
    """Which pixels of each row are summed.

    Attributes
    ----------
    columns : slice
        Columns that hold the apertures of all integrations.
    inside : (n_ints or 1, 1, n_columns) bool
        Which of these columns are in the aperture of an integration.
    is_constant : bool
        Whether all of them are, in all integrations.
    complete : (n_ints or 1, 1) bool
        Whether the aperture lies on the detector, at a known centre.
    """

    columns: slice
    inside: Array
    complete: Array
    is_constant: bool

    def cut(self, frames: Array) -> Array:
        """Cut the aperture out of frames, and fill what it leaves out of its columns with 0.

        Parameters
        ----------
        frames : (n_ints or 1, n_rows, n_cols) or (n_rows, n_cols) float

        Returns
        -------
        (n_columns, n_ints or 1, n_rows) float64, new
            Columns first: a sum over them is one of contiguous arrays.
        """
        xp = namespace(frames)
        pixels = frames[..., self.columns]
        if not self.is_constant:
            pixels = xp.where(self.inside, pixels, 0)
        columns_first = xp.moveaxis(pixels, -1, 0).astype(xp.float64, order="C")
        return columns_first if pixels.ndim == 3 else columns_first[:, None]


def find_aperture(data: Array, centres: Array | None, *, params: Extract1DBoxParams) -> Aperture:
    """Find the aperture of each integration, as the parameters say.

    Parameters
    ----------
    data : (n_ints, n_rows, n_cols)
        The frames; only their shape and their backend count.
    centres : (n_ints,) float [column], or None
    params : Extract1DBoxParams or Extract1DOptimalParams
    """
    xp = namespace(data, centres)
    n_cols = data.shape[-1]
    if params.trace_position == "constant":
        first = params.aperture_center - params.aperture_left_width
        last = params.aperture_center + params.aperture_right_width
        if first < 0 or last >= n_cols:
            raise ValueError(
                f"{params.step}.aperture_center, aperture_left_width, aperture_right_width: "
                f"expected an aperture within columns 0 .. {n_cols - 1}, got {first} .. {last}"
            )
        columns = slice(first, last + 1)
        inside = xp.ones((1, 1, last + 1 - first), dtype=bool)
        return Aperture(columns, inside, xp.ones((1, 1), dtype=bool), True)
    if centres is None:
        raise ValueError(f"{params.step}.trace_position: gaussian_fits needs fitted centres")
    # NaN compares as False: no column is inside
    first, last = (edge[:, None] for edge in aperture_edges(centres, params=params))
    column = xp.arange(n_cols)
    inside = (column >= first) & (column <= last)
    return Aperture(slice(0, n_cols), inside[:, None], (first >= 0) & (last < n_cols), False)


def aperture_edges(centres: Array, *, params: Extract1DBoxParams) -> tuple[Array, Array]:
    """First and last column of apertures around such centres, (n_ints,) float each."""
    xp = namespace(centres)
    return (
        xp.rint(centres - params.aperture_left_width),
        xp.rint(centres + params.aperture_right_width),
    )


def spectrum_wavelengths(
    wavelength_map: Array, centres: Array | None = None, *, params: Extract1DBoxParams | None = None
) -> Array:
    """Wavelength of each row: the map's column at the whole part of the median trace centre.

    Parameters
    ----------
    wavelength_map : (n_rows, n_cols) float [um]
    centres : (n_ints,) float [column], or None
        Of the whole observation, for `gaussian_fits`.
    params : Extract1DBoxParams or Extract1DOptimalParams

    Returns
    -------
    (n_rows,) float [um]
        NaN outside the bounding box of the wavelength solution.

    Raises
    ------
    ValueError
        Where no centre is known, or the column lies off the map or has no wavelengths.
    """
    xp = namespace(wavelength_map)
    params = Extract1DBoxParams() if params is None else params
    if params.trace_position == "constant":
        name, column = "aperture_center", params.aperture_center
    else:
        if centres is None or not bool(xp.isfinite(centres).any()):
            raise ValueError(f"{params.step}.trace_position: no fit of the trace has a centre")
        name, column = "trace_position", int(xp.nanmedian(centres))
    n_cols = wavelength_map.shape[1]
    if not (0 <= column < n_cols and bool(xp.isfinite(wavelength_map[:, column]).any())):
        raise ValueError(
            f"{params.step}.{name}: expected the trace on a column with wavelengths "
            f"(of 0 .. {n_cols - 1}), got {column}"
        )
    return wavelength_map[:, column]
