"""Extract spectra with weights that make their noise smallest (Horne 1986, PASP 98, 609)."""

from dataclasses import dataclass
from typing import ClassVar

from miri_gpu.backend import namespace
from miri_gpu.containers import Array, Rates, Spectra
from miri_gpu.detector import SATURATED
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
    integration_time_s: float | Array,
    weight_time_s: float | None = None,
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
    integration_time_s : float, or (n_ints or 1, n_rows, n_cols) float [s]
        Time over which the charge of the rates was collected, as `fitted_times` gives it.
    weight_time_s : float [s], or None
        What the weights take that time to be, for all pixels. Where ramps saturate sooner the
        brighter the star is, weights that followed would change during a transit, and turn what
        is wrong with the profile into a change of flux. None = `integration_time_s`.
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
        Where gain or one of the times is not positive, a constant aperture leaves the detector,
        or `gaussian_fits` comes without centres.
    """
    xp = namespace(
        data, profile, read_noise, gain, integration_time_s, background, background_err, centres
    )
    params = Extract1DOptimalParams() if params is None else params
    _check_positive(gain=gain, integration_time_s=integration_time_s, weight_time_s=weight_time_s)
    aperture = find_aperture(data, centres, params=params)
    q = _columns_first(gain * integration_time_s, aperture.columns)
    q_of_weights = q
    if weight_time_s is not None:
        q_of_weights = _columns_first(gain * weight_time_s, aperture.columns)
    if params.median_spatial_profile:
        profile = masked_median(profile, axis=0)[None]
    flux, variance, shared = _weighted_sum(
        aperture.cut(data),
        _normalised(aperture.cut(profile), xp=xp),
        aperture.cut(read_noise) ** 2,
        0.0 if background is None else aperture.cut(background),
        0.0
        if background_err is None
        else aperture.cut(xp.broadcast_to(background_err, data.shape)),
        q,
        q_of_weights,
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


def fitted_times(rates: Rates, gain: Array, exposure_time_s: float) -> Array:
    """Time over which the charge of each rate was collected: less where the ramp saturates.

    Parameters
    ----------
    rates : Rates
        As they were fitted: before the flat field, which scales rates and variances differently.
    gain : (n_rows, n_cols) float [e-/DN]
        That of the fit.
    exposure_time_s : float [s]
        From the first to the last group of a whole ramp.

    Returns
    -------
    (n_ints, n_rows, n_cols) [s], of the type of the gain
        `exposure_time_s`, but what the variance by photons says where a ramp is SATURATED and that
        is less. A rate or variance that is not positive, or unknown, says nothing.

    Notes
    -----
    Photons collected over t seconds give a rate the variance rate / (gain t).
    """
    xp = namespace(rates.data, gain)
    time_s = xp.full(rates.data.shape, exposure_time_s, dtype=gain.dtype)
    places = xp.flatnonzero(rates.dq & SATURATED)  # few, if any
    rate, var_poisson = (plane.reshape(-1)[places] for plane in (rates.data, rates.var_poisson))
    per_time = gain.reshape(-1)[places % gain.size].astype(xp.float64) * var_poisson
    less = (per_time > 0) & xp.isfinite(per_time) & (rate > 0) & (rate < exposure_time_s * per_time)
    fitted = xp.where(less, rate / xp.where(less, per_time, 1), exposure_time_s)
    time_s.reshape(-1)[places] = fitted.astype(gain.dtype)
    return time_s


def _weighted_sum(
    data: Array,
    profile: Array,
    read_var: Array,
    background: Array | float,
    background_err: Array | float,
    q: Array | float,
    q_of_weights: Array | float,
    *,
    xp,
) -> tuple[Array, Array, Array]:
    """Optimal flux of each row and its variance; D, P, V0, S and Q of Horne's table 1.

    All have the columns of the aperture first. `q` is that of the noise, `q_of_weights` what the
    weights take for it. The third is what the error of the background, which pixels share, adds up
    to with their weights.
    """
    flux = data.sum(axis=0)  # step 4
    photons = xp.abs(flux * profile + background)
    variance = read_var + photons / q_of_weights  # step 6
    # a pixel without light has no weight, whatever its variance
    lit = profile != 0  # True for NaN, which then shows in the sums
    weight = xp.where(lit, profile / xp.where(variance != 0, variance, xp.nan), 0.0)  # step 8
    norm = (profile * weight).sum(axis=0)
    norm = xp.where(norm > 0, norm, xp.nan)
    flux, shared = ((weight * x).sum(axis=0) / norm for x in (data, background_err))
    flux_var = profile.sum(axis=0) / norm
    if q is not q_of_weights:  # 0 where they are the same
        beyond = xp.where(lit, photons * (1 / q - 1 / q_of_weights), 0.0)
        flux_var += (weight * weight * beyond).sum(axis=0) / (norm * norm)
    return flux, flux_var, shared


def _normalised(profile: Array, *, xp) -> Array:
    """Scale each row to sum 1; NaN where the sum is not positive."""
    total = profile.sum(axis=0)
    return profile / xp.where(total > 0, total, xp.nan)


def _columns_first(value: Array | float, columns: slice) -> Array | float:
    if not (hasattr(value, "shape") and value.shape):
        return value
    columns_first = namespace(value).moveaxis(value[..., columns], -1, 0)
    return columns_first if value.ndim == 3 else columns_first[:, None]


def _check_positive(**values: Array | float | None) -> None:
    for name, value in values.items():
        if not (value is None or hasattr(value, "shape") or value > 0):
            raise ValueError(f"{name}: expected a positive number, got {value!r}")
