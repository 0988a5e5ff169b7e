"""A rehearsal: the steps that may refuse their settings, tried on blank frames.

A setting that does not fit the frames is refused in a moment, not after hours of fitting ramps.
"""

import numpy as np

from miri_gpu import detector
from miri_gpu.background import measure_background
from miri_gpu.ramps.self_calibration import calibrate_linearity
from miri_gpu.rates.outliers import clean_outliers
from miri_gpu.recipe import Recipe
from miri_gpu.segments import Segment
from miri_gpu.spectra.box import find_aperture, spectrum_wavelengths


def rehearse(recipe: Recipe, segment: Segment, wavelength: np.ndarray) -> None:
    """Try the steps on one blank frame.

    `wavelength` (n_rows, n_cols) [um] is that of its pixels.

    Raises
    ------
    ValueError
        By which a step refuses its settings, naming them.
    """
    frame = np.zeros((1, detector.N_ROWS, detector.N_COLS), dtype=np.float32)
    if segment.holds_ramps and recipe.runs("custom_linearity"):
        params = recipe["custom_linearity"]
        rows = slice(params.row_idx_start_used, params.row_idx_end_used)
        if not len(range(detector.N_ROWS)[rows]):
            raise ValueError(
                "custom_linearity.row_idx_start_used, row_idx_end_used: expected a range of the "
                f"{detector.N_ROWS} rows, got {rows.start}:{rows.stop}"
            )
        calibrate_linearity(
            np.zeros((1, segment.n_groups, 1, detector.N_COLS), dtype=np.float32), params=params
        )
    for step in ("group_background_subtract", "background_subtract"):
        if recipe.runs(step):
            measure_background(frame, params=recipe[step])
    clean_outliers(frame, np.zeros(frame.shape, dtype=np.uint32), params=recipe["clean_outliers"])
    recipe["trace"].cut(frame)
    find_aperture(frame, np.zeros(1), params=recipe.extraction)
    if recipe.extraction.trace_position == "constant":
        spectrum_wavelengths(wavelength, params=recipe.extraction)
