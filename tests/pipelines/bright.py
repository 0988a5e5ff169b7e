"""A complete reduction of a bright star (fewer than 40 groups), STScI's steps and ours in turn.

    python bright.py OUTPUT SEGMENT_uncal.fits ...

CRDS_PATH and CRDS_CONTEXT say where the reference files are. OUTPUT becomes a netCDF file. Any
script written for ExoTiC-MIRI reads like this one; only the imports name another package.
"""

import sys

import numpy as np
import xarray
from jwst.assign_wcs import AssignWcsStep
from jwst.dark_current import DarkCurrentStep
from jwst.datamodels import RampModel
from jwst.dq_init import DQInitStep
from jwst.flatfield import FlatFieldStep
from jwst.gain_scale import GainScaleStep
from jwst.group_scale import GroupScaleStep
from jwst.jump import JumpStep
from jwst.linearity import LinearityStep
from jwst.ramp_fitting import RampFitStep
from jwst.reset import ResetStep
from jwst.saturation import SaturationStep
from jwst.srctype import SourceTypeStep

from miri_gpu.reference import GetWavelengthMap, SetCustomGain
from miri_gpu.stage_1 import DropGroupsStep
from miri_gpu.stage_2 import (
    AlignSpectraStep,
    BackgroundSubtractStep,
    CleanOutliersStep,
    Extract1DBoxStep,
)

CLEANING = {
    "dq_bits_to_mask": [0],
    "window_heights": [150, 100, 50, 40, 30, 24],
    "poly_order": 4,
    "outlier_threshold": 5.0,
}
BACKGROUND = {
    "method": "row_wise",
    "smoothing_length": None,
    "bkg_col_left_start": 12,
    "bkg_col_left_end": 22,
    "bkg_col_right_start": 50,
    "bkg_col_right_end": 68,
}
JUMPS = {
    "rejection_threshold": 15.0,
    "three_group_rejection_threshold": 15.0,
    "four_group_rejection_threshold": 15.0,
    "flag_4_neighbors": False,
    "min_jump_to_flag_neighbors": 15.0,
    "expand_large_events": False,
    "skip": False,
}
BY_ROW = ("integration_number", "wavelength")
VARIABLES = {
    "flux": (BY_ROW, "DN/s"),
    "flux_error": (BY_ROW, "DN/s"),
    "background": (BY_ROW, "DN/s"),
    "x_shift": (BY_ROW[:1], "pixel"),
    "y_shift": (BY_ROW[:1], "pixel"),
    "psf_sigma": (BY_ROW[:1], "pixel"),
    "n_outliers": ((*BY_ROW, "region_width"), ""),
}


def flagged_ramps(segment):
    """Stage 1 up to the reset anomaly."""
    ramps = GroupScaleStep().call(RampModel(segment))
    ramps = DQInitStep().call(ramps)
    ramps = SaturationStep().call(ramps, n_pix_grow_sat=1)
    return ResetStep().call(ramps)


def fitted_rates(ramps, gain, drop_groups, **linearity):
    """Stage 1 from there on: ramps become rate images."""
    drop = DropGroupsStep()
    ramps = drop.call(ramps, drop_groups=drop_groups)
    ramps = LinearityStep().call(ramps, **linearity)
    ramps = DarkCurrentStep().call(ramps)
    ramps = JumpStep().call(ramps, override_gain=gain, **JUMPS)
    _, rates = RampFitStep().call(ramps, override_gain=gain)
    return GainScaleStep().call(rates, override_gain=gain)


def extracted(rates, width):
    """Stage 2: rate images become spectra, and what belongs to them."""
    rates = SourceTypeStep().call(AssignWcsStep().call(rates))
    wavelength_map = GetWavelengthMap().call(rates)
    rates = FlatFieldStep().call(rates)

    clean = CleanOutliersStep()
    copy, _, _ = clean.call(rates, **CLEANING)
    _, background = BackgroundSubtractStep().call(copy, **BACKGROUND)
    rates.data -= background
    rates, _, n_outliers = clean.call(rates, **CLEANING)

    rates.err[~np.isfinite(rates.err)] = 0.0
    wavelength, flux, flux_error, psf_sigma = Extract1DBoxStep().call(
        rates,
        wavelength_map,
        trace_position="constant",
        aperture_center=36,
        aperture_left_width=width,
        aperture_right_width=width,
    )
    flux, flux_error, x_shift, y_shift = AlignSpectraStep().call(
        rates, flux, flux_error, align_spectra=False
    )
    return wavelength, {
        "flux": flux,
        "flux_error": flux_error,
        "background": np.median(background, axis=2),
        "x_shift": x_shift,
        "y_shift": y_shift,
        "psf_sigma": psf_sigma,
        "n_outliers": n_outliers,
    }


def save(output, wavelength, parts):
    """Join the segments and write the netCDF file."""
    joined = {name: np.concatenate([part[name] for part in parts]) for name in VARIABLES}
    dataset = xarray.Dataset(
        {name: (dims, joined[name], {"units": unit}) for name, (dims, unit) in VARIABLES.items()},
        {
            "integration_number": np.arange(1, 1 + len(joined["flux"])),
            "wavelength": ("wavelength", wavelength, {"units": "microns"}),
            "region_width": np.arange(5),
        },
    )
    dataset.to_netcdf(output)


def main(output, segments):
    """Reduce the segments of an observation, in order."""
    gain = SetCustomGain().call(RampModel(segments[-1]), gain_value=3.1)
    parts = []
    for segment in segments:
        ramps = flagged_ramps(segment)
        rates = fitted_rates(ramps, gain, drop_groups=[ramps.meta.exposure.ngroups - 1])
        wavelength, part = extracted(rates, width=4)
        parts.append(part)
    save(output, wavelength, parts)


def output_and_segments(arguments):
    """What was typed, or two lines of advice."""
    if len(arguments) < 2:
        sys.exit(
            f"usage: python {sys.argv[0]} OUTPUT SEGMENT_uncal.fits ...\n"
            "CRDS_PATH and CRDS_CONTEXT say where the reference files are."
        )
    return arguments[0], arguments[1:]


if __name__ == "__main__":
    main(*output_and_segments(sys.argv[1:]))
