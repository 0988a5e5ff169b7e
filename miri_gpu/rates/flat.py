"""Divide by the flat field (jwst: flat_field)."""

from dataclasses import replace

from miri_gpu.backend import namespace
from miri_gpu.containers import Array, Rates
from miri_gpu.detector import DO_NOT_USE, NO_FLAT_FIELD


def apply_flat(rates: Rates, flat: Array, flat_err: Array, flat_dq: Array) -> Rates:
    """Divide rates by the flat field and propagate its error.

    Where the flat is NaN, 0 or flagged NO_FLAT_FIELD or DO_NOT_USE, the pixel gets DO_NOT_USE. In
    the result a pixel is NaN in rates, errors and variances alike if it is NaN in any of them or
    flagged DO_NOT_USE, and then carries that flag.

    Parameters
    ----------
    rates : Rates
    flat : (n_rows, n_cols) float32
    flat_err : (n_rows, n_cols) float32
    flat_dq : (n_rows, n_cols) uint32

    Returns
    -------
    Rates : with var_flat; err is the root of the sum of the three variances

    Notes
    -----
    The flat_field step of the STScI pipeline, for cubes.
    """
    xp = namespace(rates.data, flat, flat_err, flat_dq)
    unknown = xp.isnan(flat) | (flat == 0)
    flat_dq = flat_dq | unknown.astype(xp.uint32) * (DO_NOT_USE | NO_FLAT_FIELD)
    unusable = (flat_dq & (DO_NOT_USE | NO_FLAT_FIELD)) != 0
    flat_dq = flat_dq | unusable.astype(xp.uint32) * DO_NOT_USE
    divisor = xp.where(unusable, xp.ones_like(flat), flat)
    divisor_squared = divisor * divisor

    data = rates.data / divisor
    var_poisson = rates.var_poisson / divisor_squared
    var_rnoise = rates.var_rnoise / divisor_squared
    # with the divided data over the flat once more: the STScI step's own definition
    var_flat = data**2 / divisor_squared * flat_err**2
    err = xp.sqrt(var_poisson + var_rnoise + var_flat)

    dq = rates.dq | flat_dq
    # err is NaN wherever one of the variances is
    invalid = xp.isnan(data) | xp.isnan(err) | ((dq & DO_NOT_USE) != 0)
    nan = xp.asarray(float("nan"), dtype=data.dtype)
    return replace(
        rates,
        data=xp.where(invalid, nan, data),
        err=xp.where(invalid, nan, err),
        var_poisson=xp.where(invalid, nan, var_poisson),
        var_rnoise=xp.where(invalid, nan, var_rnoise),
        var_flat=xp.where(invalid, nan, var_flat),
        dq=dq | invalid.astype(xp.uint32) * DO_NOT_USE,
    )
