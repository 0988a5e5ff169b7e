"""The detector's gain: what it is where it is unknown; undo a non-standard one (gain_scale)."""

from dataclasses import replace

from miri_gpu.backend import namespace
from miri_gpu.containers import Array, Rates
from miri_gpu.numerics import masked_median


def fill_unknown_gain(gain: Array) -> Array:
    """Give pixels without a gain the median of the others.

    The ramp fit leaves such a pixel out. Where its rate was replaced by a smooth model of its
    column, an extraction has to know what noise its photons make.

    Parameters
    ----------
    gain : (n_rows, n_cols) float [e-/DN]
        NaN, infinite or not positive where unknown.

    Returns
    -------
    (n_rows, n_cols) float [e-/DN]
        NaN where no pixel has a gain.
    """
    xp = namespace(gain)
    known = xp.isfinite(gain) & (gain > 0)
    median = masked_median(gain.reshape(1, -1), known.reshape(1, -1), axis=1)
    return xp.where(known, gain, median)


def scale_gain(rates: Rates, gain_factor: float | None) -> Rates:
    """Multiply rates and errors by the gain factor, variances by its square.

    Parameters
    ----------
    rates : Rates
    gain_factor : float or None
        Standard over actual gain; with None the rates are returned as they came.

    Returns
    -------
    Rates

    Notes
    -----
    The gain_scale step of the STScI pipeline.
    """
    if gain_factor is None:
        return rates
    return replace(
        rates,
        data=rates.data * gain_factor,
        err=rates.err * gain_factor,
        var_poisson=rates.var_poisson * gain_factor**2,
        var_rnoise=rates.var_rnoise * gain_factor**2,
        var_flat=None if rates.var_flat is None else rates.var_flat * gain_factor**2,
    )
