"""What happens to each sample by itself: reset, linearity and dark.

These steps prepare a correction each; those of successive steps are made in one pass.
"""

import math
from dataclasses import dataclass, fields, replace
from typing import Self

from miri_gpu import kernels
from miri_gpu.backend import namespace
from miri_gpu.containers import Array, Ramps, check_shapes
from miri_gpu.detector import SATURATED
from miri_gpu.ramps.ramp_kernels import images, run_on


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

    def arguments(self, *, xp) -> list:
        """As kernels take them: references, each with what says how large it is, 0 for none."""
        arguments = []
        for array, n_sizes in ((self.reset, 2), (self.coefficients, 1), (self.dark, 1)):
            if array is None:
                arguments += [None, *[0] * n_sizes]
            else:
                arguments += [xp.ascontiguousarray(array), *array.shape[:n_sizes]]
        return arguments


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
    planes = {name: a[(0,) * (a.ndim - 2)] for name, a in vars(c).items() if a is not None}
    check_shapes(ramps.data.shape[2:], **planes)
    references = [array for array in (c.reset, c.coefficients, c.dark) if array is not None]
    if run_on(ramps, *references, xp=xp):
        data = _corrected(ramps, c, xp=xp)
    else:
        data = ramps.data if c.reset is None else _subtracted(ramps.data, c.reset, xp=xp)
        if c.coefficients is not None:
            data = _through_polynomial(data, ramps.groupdq, c.coefficients, xp=xp)
        data = data if c.dark is None else _subtracted(data, c.dark, xp=xp)
    return replace(ramps, data=data, pixeldq=ramps.pixeldq | c.pixeldq)


def _corrected(ramps: Ramps, correction: SampleCorrection, *, xp) -> Array:
    n_groups, *image = ramps.data.shape[1:]
    result = xp.empty(ramps.data.shape, dtype=xp.float32)
    kernels.launch(
        xp, "calibrate_ramps", result.size,
        *images(ramps.data, xp=xp),
        *images(ramps.groupdq, xp=xp),
        *correction.arguments(xp=xp),
        n_groups, math.prod(image), result,
    )  # fmt: skip
    return result


def _subtracted(data: Array, reference: Array, *, xp) -> Array:
    """Less the reference's own integration for each, and its last one beyond."""
    n_own, n_groups = reference.shape[0] - 1, min(data.shape[1], reference.shape[1])
    first, rest, groups = slice(n_own), slice(n_own, None), slice(n_groups)
    result = xp.empty(data.shape, dtype=xp.float32)
    xp.subtract(data[first, groups], reference[first, groups], out=result[first, groups])
    xp.subtract(data[rest, groups], reference[-1, groups], out=result[rest, groups])
    result[:, n_groups:] = data[:, n_groups:]
    return result


def _through_polynomial(data: Array, groupdq: Array, coefficients: Array, *, xp) -> Array:
    """Horner's rule, in the samples' own precision."""
    value = coefficients[-1] * data
    for power in range(coefficients.shape[0] - 2, 0, -1):
        value += coefficients[power]
        value *= data
    value += coefficients[0]
    xp.copyto(value, data, where=(groupdq & SATURATED) != 0)
    return value
