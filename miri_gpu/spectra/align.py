"""Measure how the spectra move on the detector, and put them back on one grid of rows."""

from dataclasses import dataclass
from typing import ClassVar

from miri_gpu.backend import namespace
from miri_gpu.containers import Array, Spectra
from miri_gpu.numerics import cross_correlation_shifts, interpolate_shifted, masked_median
from miri_gpu.parameters import Parameters, option
from miri_gpu.rates.trace import TraceParams


@dataclass(frozen=True, kw_only=True)
class AlignSpectraParams(Parameters):
    """Whether spectra are moved, or their shifts only measured."""

    step: ClassVar[str] = "align_spectra"

    align_spectra: bool = option(True, "move the spectra by the shifts that were measured")


def cross_dispersion_profiles(data: Array, *, params: TraceParams | None = None) -> Array:
    """Sum frames along the dispersion, so that their shifts can be measured without them.

    Parameters
    ----------
    data : (n_ints, n_rows, n_cols) float
    params : TraceParams
        The rows and columns used.

    Returns
    -------
    (n_ints, n_cols_used) float64
        NaN in a column with a NaN.
    """
    xp = namespace(data)
    params = TraceParams() if params is None else params
    return params.cut(data).astype(xp.float64).sum(axis=1)


def measure_shifts(curves: Array, template: Array | None = None) -> Array:
    """Shift of each spectrum, or cross-dispersion profile, against a template.

    Parameters
    ----------
    curves : (n_ints, n) float
        Of the whole observation, where there is no template.
    template : (n,) float, or None
        None takes the median of the curves.

    Returns
    -------
    (n_ints,) float64 [pixel]
        Positive = moved towards higher index; NaN where a curve is unknown. See
        `miri_gpu.numerics.cross_correlation_shifts`.
    """
    namespace(curves, template)
    if template is None:
        template = masked_median(curves, axis=0)
    return cross_correlation_shifts(curves, template)


def align_spectra(
    spectra: Spectra, y_shifts: Array, *, params: AlignSpectraParams | None = None
) -> Spectra:
    """Interpolate fluxes and variances at row + shift; nothing moves without `align_spectra`.

    Parameters
    ----------
    spectra : Spectra
    y_shifts : (n_ints,) float [row]
        From `measure_shifts`.
    params : AlignSpectraParams

    Returns
    -------
    Spectra
        NaN in rows that come from beyond the detector, and everywhere where the shift is NaN.

    Notes
    -----
    ExoTiC-MIRI's AlignSpectraStep, but for the variance, which it takes for the error. Between two
    rows a spectrum is less noisy than that, by up to 30 %, and what rows share of their noise makes
    up for it: errors of sums over rows are right, those of single rows too large.
    """
    xp = namespace(spectra.flux, spectra.flux_err, y_shifts)
    params = AlignSpectraParams() if params is None else params
    if not params.align_spectra:
        return spectra

    def moved(err: Array) -> Array:
        variance = interpolate_shifted(err.astype(xp.float64) ** 2, y_shifts)
        return xp.sqrt(variance).astype(err.dtype)

    return Spectra(
        flux=interpolate_shifted(spectra.flux, y_shifts),
        flux_err=moved(spectra.flux_err),
        background_err=None if spectra.background_err is None else moved(spectra.background_err),
    )
