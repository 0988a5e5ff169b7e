"""Figures, for a paper or a first look: of the product, and of what a Step did.

Functions called `plot_*` return a matplotlib Figure; no window is opened unless it is asked for.
"""

from miri_gpu.plots.frames import (
    plot_aperture,
    plot_cleaning,
    plot_dq_flags,
    plot_psf_fit,
    plot_spatial_profile,
)
from miri_gpu.plots.product import (
    plot_median_spectrum,
    plot_shifts,
    plot_spectroscopic_map,
    plot_white_light_curve,
    save_figures,
)
from miri_gpu.plots.ramps import plot_linearity, plot_reference_pixels
from miri_gpu.plots.show import present_figures
from miri_gpu.plots.spectra import plot_cross_correlation, plot_spectra, plot_trace_positions

__all__ = [
    "plot_aperture",
    "plot_cleaning",
    "plot_cross_correlation",
    "plot_dq_flags",
    "plot_linearity",
    "plot_median_spectrum",
    "plot_psf_fit",
    "plot_reference_pixels",
    "plot_shifts",
    "plot_spatial_profile",
    "plot_spectra",
    "plot_spectroscopic_map",
    "plot_trace_positions",
    "plot_white_light_curve",
    "present_figures",
    "save_figures",
]
