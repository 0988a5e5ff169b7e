"""Divide by the flat field (jwst: flat_field)."""

import math
from dataclasses import replace

from miri_gpu import kernels
from miri_gpu.backend import namespace
from miri_gpu.containers import Array, Rates, check_shapes
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
    check_shapes(rates.data.shape[1:], flat=flat, flat_err=flat_err, flat_dq=flat_dq)
    unknown = xp.isnan(flat) | (flat == 0)
    flat_dq = flat_dq | unknown.astype(xp.uint32) * (DO_NOT_USE | NO_FLAT_FIELD)
    unusable = (flat_dq & (DO_NOT_USE | NO_FLAT_FIELD)) != 0
    flat_dq = flat_dq | unusable.astype(xp.uint32) * DO_NOT_USE
    divisor = xp.where(unusable, xp.ones_like(flat), flat)
    divide = _divide_by_kernel if _kernel_can(rates, flat, flat_err, xp=xp) else _divide_by_arrays
    return divide(rates, divisor, flat_err, flat_dq, xp=xp)


def _divide_by_arrays(
    rates: Rates, divisor: Array, flat_err: Array, flat_dq: Array, *, xp
) -> Rates:
    """The array version, where the divisor is finite everywhere."""
    divisor_squared = divisor * divisor
    data = rates.data / divisor
    var_poisson = rates.var_poisson / divisor_squared
    var_rnoise = rates.var_rnoise / divisor_squared
    # with the divided data over the flat once more: the STScI step's own definition
    var_flat = data * data / divisor_squared * (flat_err * flat_err)
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


def _kernel_can(rates: Rates, flat: Array, flat_err: Array, *, xp) -> bool:
    planes = (rates.data, rates.var_poisson, rates.var_rnoise, flat, flat_err)
    return (
        kernels.available(xp)
        and rates.data.size > 0
        and rates.dq.dtype == xp.uint32
        and all(plane.dtype == xp.float32 for plane in planes)
    )


def _divide_by_kernel(
    rates: Rates, divisor: Array, flat_err: Array, flat_dq: Array, *, xp
) -> Rates:
    """The kernel: in one pass, to the bit what the array version gives."""
    names = ("data", "err", "var_poisson", "var_rnoise", "var_flat")
    divided = {name: xp.empty(rates.data.shape, dtype=xp.float32) for name in names}
    divided["dq"] = xp.empty(rates.data.shape, dtype=xp.uint32)
    given = (divisor, flat_err, flat_dq, rates.data, rates.var_poisson, rates.var_rnoise, rates.dq)
    kernels.launch(
        xp,
        "divide_by_flat",
        rates.data.size,
        math.prod(rates.data.shape[1:]),
        *(xp.ascontiguousarray(array) for array in given),
        *divided.values(),
    )
    return replace(rates, **divided)
