"""Undo a non-standard detector gain (jwst: gain_scale)."""

from dataclasses import replace

from miri_gpu.containers import Rates


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
