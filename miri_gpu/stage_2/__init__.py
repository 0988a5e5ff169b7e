"""Steps for rate images, between those of the STScI pipeline: ExoTiC-MIRI's, by name and keyword.

from miri_gpu.stage_2 import CleanOutliersStep
rates, profile, n_outliers = CleanOutliersStep.call(rates, outlier_threshold=5.0)
"""

from miri_gpu.stage_2.alignment import AlignSpectraStep
from miri_gpu.stage_2.cleaning import BackgroundSubtractStep, CleanOutliersStep, InspectDQFlagsStep
from miri_gpu.stage_2.extraction import Extract1DBoxStep, Extract1DOptimalStep

__all__ = [
    "AlignSpectraStep",
    "BackgroundSubtractStep",
    "CleanOutliersStep",
    "Extract1DBoxStep",
    "Extract1DOptimalStep",
    "InspectDQFlagsStep",
]
