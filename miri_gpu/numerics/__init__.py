"""Array maths with no astronomy in it: medians, fits and shifts of many curves at once.

Every function takes arrays of either backend, its leading axes are a batch, and a Python loop
never runs over the batch.
"""

from miri_gpu.numerics.gaussians import fit_gaussians
from miri_gpu.numerics.medians import masked_median, moving_median
from miri_gpu.numerics.polynomials import fit_polynomials, solve_small, solve_symmetric
from miri_gpu.numerics.shifts import cross_correlation_shifts, interpolate_shifted
from miri_gpu.numerics.splines import spline_terms

__all__ = [
    "cross_correlation_shifts",
    "fit_gaussians",
    "fit_polynomials",
    "interpolate_shifted",
    "masked_median",
    "moving_median",
    "solve_small",
    "solve_symmetric",
    "spline_terms",
]
