"""Extract spectra with weights that make their noise smallest (Horne 1986, PASP 98, 609)."""

from dataclasses import dataclass
from typing import ClassVar

from miri_gpu.backend import namespace
from miri_gpu.containers import Array, Spectra
from miri_gpu.numerics import masked_median
from miri_gpu.parameters import option
from miri_gpu.spectra.box import Extract1DBoxParams, find_aperture


@dataclass(frozen=True, kw_only=True)
class Extract1DOptimalParams(Extract1DBoxParams):
    """The aperture, and which spatial profile weighs its pixels."""

    step: ClassVar[str] = "extract_1d_optimal"

    aperture_left_width: int = option(
        8, "columns in the aperture left of its centre", unit="column", at_least=0
    )
    aperture_right_width: int = option(
        8, "columns in the aperture right of its centre", unit="column", at_least=0
    )
    median_spatial_profile: bool = option(
        False, "use the median profile of all integrations instead of each one's own"
    )


def extract_optimal(
    data: Array,
    profile: Array,
    read_noise: Array,
    *,
    params: Extract1DOptimalParams | None = None,
    gain: float | Array,
    integration_time_s: float,
    err: Array | None = None,
    background: Array | None = None,
    background_err: Array | None = None,
    centres: Array | None = None,
) -> Spectra:
    """Sum each row over the aperture, with the weights of Horne 1986, table 1, steps 4 to 8.

    Parameters
    ----------
    data : (n_ints, n_rows, n_cols) float [DN/s]
        Background-subtracted frames. A NaN in the aperture makes the sum unknown.
    profile : (n_ints or 1, n_rows, n_cols) float
        Spatial profile P; it is normalised to sum 1 in the aperture.
    read_noise : (n_rows, n_cols) or (n_ints, n_rows, n_cols) float [DN/s]
        Standard deviation of the data from read noise alone.
    params : Extract1DOptimalParams
    gain : float, or (n_rows, n_cols) float [e-/DN]
    integration_time_s : float [s]
        Time over which the charge of the rates was collected.
    err : (n_ints, n_rows, n_cols) float [DN/s], or None
        Standard deviations of the pixels, for the error of the flux; the weights suppose that all
        ramps last as long, which those that saturate do not. None: that of the weights.
    background : (n_ints, n_rows, n_cols) float [DN/s], or None
        What was subtracted: its photons are noise too. None = 0.
    background_err : (n_ints, n_rows, n_cols or 1) float [DN/s], or None
        Standard deviation of what was subtracted, which the pixels of a row share. None = 0.
    centres : (n_ints,) float [column], or None
        Centre of the trace in each integration, for `gaussian_fits`.

    Returns
    -------
    Spectra
        NaN where a pixel, the profile or the centre is unknown, where the profile has no light in
        the aperture, or where no pixel has a variance. `background_err` is None without the
        argument.

    Raises
    ------
    ValueError
        Where gain or integration time are not positive, a constant aperture leaves the detector,
        or `gaussian_fits` comes without centres.
    """
    xp = namespace(data, profile, read_noise, gain, err, background, background_err, centres)
    params = Extract1DOptimalParams() if params is None else params
    electrons_per_rate = _positive(gain, "gain") * _positive(
        integration_time_s, "integration_time_s"
    )
    aperture = find_aperture(data, centres, params=params)
    if params.median_spatial_profile:
        profile = masked_median(profile, axis=0)[None]
    flux, variance, shared = _weighted_sum(
        aperture.cut(data),
        _normalised(aperture.cut(profile), xp=xp),
        aperture.cut(read_noise) ** 2,
        None if err is None else aperture.cut(err),
        0.0 if background is None else aperture.cut(background),
        0.0
        if background_err is None
        else aperture.cut(xp.broadcast_to(background_err, data.shape)),
        _columns_first(electrons_per_rate, aperture.columns),
        xp=xp,
    )
    variance += shared * shared
    known = aperture.complete & xp.isfinite(flux) & xp.isfinite(variance)
    spectra = Spectra(
        flux=flux,
        flux_err=xp.sqrt(variance),
        background_err=None if background_err is None else shared,
    )
    return spectra.map(lambda values: xp.where(known, values, xp.nan).astype(xp.float32))


def _weighted_sum(
    data: Array,
    profile: Array,
    read_var: Array,
    err: Array | None,
    background: Array | float,
    background_err: Array | float,
    q: Array | float,
    *,
    xp,
) -> tuple[Array, Array, Array]:
    """Optimal flux of each row and its variance; D, P, V0, S and Q of Horne's table 1.

    All have the columns of the aperture first. The third is what the error of the background, which
    pixels share, adds up to with their weights.
    """
    flux = data.sum(axis=0)  # step 4
    variance = read_var + xp.abs(flux * profile + background) / q  # step 6
    # a pixel without light has no weight, whatever its variance
    lit = profile != 0  # True for NaN, which then shows in the sums
    weight = xp.where(lit, profile / xp.where(variance != 0, variance, xp.nan), 0.0)  # step 8
    norm = (profile * weight).sum(axis=0)
    norm = xp.where(norm > 0, norm, xp.nan)
    flux, shared = ((weight * x).sum(axis=0) / norm for x in (data, background_err))
    if err is None:
        return flux, profile.sum(axis=0) / norm, shared
    own = xp.where(lit, weight * err, 0.0)
    return flux, (own * own).sum(axis=0) / (norm * norm), shared


def _normalised(profile: Array, *, xp) -> Array:
    """Scale each row to sum 1; NaN where the sum is not positive."""
    total = profile.sum(axis=0)
    return profile / xp.where(total > 0, total, xp.nan)


def _columns_first(value: Array | float, columns: slice) -> Array | float:
    if not (hasattr(value, "shape") and value.shape):
        return value
    return namespace(value).moveaxis(value[..., columns], -1, 0)[:, None]


def _positive(value: Array | float, name: str) -> Array | float:
    if not hasattr(value, "shape") and not value > 0:
        raise ValueError(f"{name}: expected a positive number, got {value!r}")
    return value
