"""What of a product is to be doubted is said, once it can be known."""

import logging

import numpy as np

from miri_gpu.ramps.self_calibration import LinearityCalibration
from miri_gpu.recipe import Recipe
from miri_gpu.spectra.box import aperture_edges

log = logging.getLogger(__name__)

_DOUBTFUL_SHARE = 0.3  # of a coefficient, that is its error


def doubt_group_background(recipe: Recipe) -> None:
    """Warn where flux errors lack some noise of a background that groups have lost."""
    step = "group_background_subtract"
    if recipe.runs(step) and not recipe[step].relative_to_first_group:
        log.warning(
            "%s: flux_error is too small: pixels of a group differ by their bias, so that what is "
            "subtracted has the noise of one or two; relative_to_first_group = true leaves it out",
            step,
        )


def doubt_linearity(found: LinearityCalibration) -> None:
    """Warn where the ramps hardly determine the non-linearity; `found` is on the host.

    Amplifiers that read the wings of the trace never do, but little of its light is there.
    """
    share = np.median(np.abs(found.coefficients_err[2] / found.coefficients[2]))
    if share > _DOUBTFUL_SHARE:
        log.warning(
            "custom_linearity: the ramps are too faint, or too few, to tell the square term to "
            "better than %.0f %%; custom_linearity.skip = true takes that of the reference file",
            100 * share,
        )


def doubt_aperture(recipe: Recipe, centres: np.ndarray) -> None:
    """Warn where the aperture moves from column to column; `centres` (n_ints,) [column]."""
    params = recipe.extraction
    if params.trace_position == "constant":
        return
    first, _ = aperture_edges(centres[np.isfinite(centres)], params=params)
    _, counts = np.unique(first, return_counts=True)
    if len(counts) > 1:
        log.warning(
            "%s.trace_position: the aperture is whole columns, and %d of %d integrations have it "
            'elsewhere: their flux steps; trace_position = "constant" leaves it where it is',
            params.step,
            len(first) - counts.max(),
            len(first),
        )
