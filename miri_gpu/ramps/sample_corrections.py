"""What happens to each sample by itself: reset, linearity and dark.

These steps prepare a correction each; those of successive steps are made in one pass.
"""

from dataclasses import dataclass, fields, replace
from typing import Self

from miri_gpu.backend import namespace
from miri_gpu.containers import Array, Ramps
from miri_gpu.detector import SATURATED
from miri_gpu.ramps import ramp_kernels


@dataclass(frozen=True, eq=False, kw_only=True)
class SampleCorrection:
    """Corrections of samples, in the order in which they are made; each may be None.

    Attributes
    ----------
    pixeldq : (n_rows, n_cols) uint32
        Flags that pixels get.
    reset : (n_ref_ints, n_ref_groups, n_rows, n_cols) float32 [DN], finite
        Subtracted from the first groups: each integration takes its own, and the last one beyond.
    coefficients : (n_coeffs, n_rows, n_cols) float32, finite
        Of a polynomial in the samples, from the constant term up; saturated ones are left as they
        are.
    dark : (n_ref_ints, n_groups, n_rows, n_cols) float32 [DN], finite
        Subtracted, likewise.
    """

    pixeldq: Array
    reset: Array | None = None
    coefficients: Array | None = None
    dark: Array | None = None

    def then(self, later: Self) -> Self:
        """This correction and a later one, which begins with none that comes before these."""
        known = {f.name: getattr(later, f.name) for f in fields(later)}
        known = {name: array for name, array in known.items() if array is not None}
        return replace(self, **{**known, "pixeldq": self.pixeldq | later.pixeldq})


def correct_samples(ramps: Ramps, correction: SampleCorrection) -> Ramps:
    """Make all corrections of samples.

    Parameters
    ----------
    ramps : Ramps
    correction : SampleCorrection

    Returns
    -------
    Ramps : with new data, and more flags of pixels
    """
    c = correction
    xp = namespace(ramps.data, c.pixeldq, c.reset, c.coefficients, c.dark)
    references = [array for array in (c.reset, c.coefficients, c.dark) if array is not None]
    if ramp_kernels.run_on(ramps, *references, xp=xp):
        data = ramp_kernels.calibrate(
            ramps, reset=c.reset, coefficients=c.coefficients, dark=c.dark, xp=xp
        )
    else:
        data = ramps.data if c.reset is None else _subtracted(ramps.data, c.reset)
        if c.coefficients is not None:
            data = _through_polynomial(data, ramps.groupdq, c.coefficients, xp=xp)
        data = data if c.dark is None else _subtracted(data, c.dark)
    return replace(ramps, data=data, pixeldq=ramps.pixeldq | c.pixeldq)


def _subtracted(data: Array, reference: Array) -> Array:
    """Less the reference's own integration for each, and its last one beyond."""
    n_own, n_groups = reference.shape[0] - 1, min(data.shape[1], reference.shape[1])
    data = data.copy()
    data[:n_own, :n_groups] -= reference[:n_own, :n_groups]
    data[n_own:, :n_groups] -= reference[-1, :n_groups]
    return data


def _through_polynomial(data: Array, groupdq: Array, coefficients: Array, *, xp) -> Array:
    """Horner's rule, in the samples' own precision."""
    value = coefficients[-1] * data
    for power in range(coefficients.shape[0] - 2, 0, -1):
        value += coefficients[power]
        value *= data
    value += coefficients[0]
    xp.copyto(value, data, where=(groupdq & SATURATED) != 0)
    return value
