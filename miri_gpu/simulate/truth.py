"""The truth of a simulated observation: saved beside it, and the noise it predicts."""

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

import numpy as np

from miri_gpu.detector import FRAME_TIME_S
from miri_gpu.simulate.detector_effects import CosmicRays
from miri_gpu.simulate.scene import Scene, pixel_fractions
from miri_gpu.simulate.segments import integration_times
from miri_gpu.simulate.settings import SimulationSettings
from miri_gpu.simulate.true_detector import TrueDetector, emi_waves

QUANTISATION_DN = 1 / np.sqrt(12)  # noise of rounding to whole DN
# the ramp fit's weights: lower limit of the signal to noise ratio -> exponent (Fixsen et al. 2000)
WEIGHT_EXPONENTS = {0.0: 0.0, 5.0: 0.4, 10.0: 1.0, 20.0: 3.0, 50.0: 6.0, 100.0: 10.0}


def write_truth(
    path: Path,
    scene: Scene,
    detector: TrueDetector,
    settings: SimulationSettings,
    rays: Sequence[CosmicRays],
) -> Path:
    """Save everything that went into an observation as netCDF; the file appears complete."""
    import xarray

    variables = (
        scene_variables(scene, settings)
        | detector_variables(detector, settings)
        | cosmic_ray_variables(rays)
    )
    # netCDF attributes have no booleans
    attributes = {k: int(v) if isinstance(v, bool) else v for k, v in asdict(settings).items()}
    attributes["frame_time_s"] = FRAME_TIME_S
    dataset = xarray.Dataset(
        {name: (dims, values, {"units": unit}) for name, (dims, values, unit) in variables.items()},
        coords={"integration": np.arange(settings.n_ints)},
        attrs=attributes,
    )
    partial = path.with_suffix(".part")
    try:
        dataset.to_netcdf(partial, engine="h5netcdf")
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)
    return path


def scene_variables(scene: Scene, settings: SimulationSettings) -> dict[str, tuple]:
    """Star, transit, background, pointing and times: name -> (dimensions, values, unit)."""
    times = integration_times(0, settings.n_ints, settings)
    moments = ("int_mid_MJD_UTC", "int_mid_BJD_TDB")
    return {
        "wavelength": ("row", scene.wavelength, "um"),
        "star": ("row", scene.star / settings.gain, "DN/s"),
        "star_electrons": ("row", scene.star, "e-/s"),
        "depth": ("row", scene.depth, ""),
        "light_curve": (("integration", "row"), scene.light_curve, ""),
        "trace_column": ("row", scene.trace_col, "pixel"),
        "psf_sigma": ("row", scene.psf_sigma, "pixel"),
        "background": (("row", "column"), scene.background / settings.gain, "DN/s"),
        "x_shift": ("integration", scene.x_shift, "pixel"),
        "y_shift": ("integration", scene.y_shift, "pixel"),
        **{name: ("integration", times[name].astype(float), "day") for name in moments},
    }


def detector_variables(detector: TrueDetector, settings: SimulationSettings) -> dict[str, tuple]:
    """The detector's pixels and the interfering waves."""
    image = ("row", "column")
    waves = emi_waves(settings)
    return {
        "linearity": (("term", "column"), detector.linearity, "DN^(1 - term)"),
        "flat": (image, detector.flat, ""),
        "sensitivity": (image, detector.sensitivity, ""),
        "dark": (image, detector.dark / settings.gain, "DN/s"),
        "bias": (image, detector.bias, "DN"),
        "full_well": (image, detector.full_well, "DN"),
        "mask": (image, detector.mask, ""),
        "emi_frequency": ("wave", np.array(list(waves)), "Hz"),
        "emi_wave": (("wave", "phase"), np.stack(list(waves.values())), "DN"),
    }


def cosmic_ray_variables(rays: Sequence[CosmicRays]) -> dict[str, tuple]:
    """All pixels that a cosmic ray hit, in the order of the exposure."""
    hits = np.repeat(np.arange(len(rays)), [len(r.group) for r in rays])

    def joined(field):
        return np.concatenate([getattr(r, field) for r in rays])

    return {
        "cosmic_ray_integration": ("cosmic_ray", hits, ""),
        "cosmic_ray_group": ("cosmic_ray", joined("group"), ""),
        "cosmic_ray_row": ("cosmic_ray", joined("row"), "pixel"),
        "cosmic_ray_column": ("cosmic_ray", joined("col"), "pixel"),
        "cosmic_ray_electrons": ("cosmic_ray", joined("electrons"), "e-"),
    }


def expected_flux_error(
    truth,
    *,
    n_groups_used: int,
    half_width: float,
    aperture_center: float = 36.0,
    n_background_columns: int = 0,
) -> np.ndarray:
    """Scatter that a box-extracted flux must have, out of transit, from photons and reads alone.

    Parameters
    ----------
    truth : xarray.Dataset
        Content of the truth file.
    n_groups_used : int
        Groups of each integration that enter the ramp fit, without a gap; at least 2.
    half_width, aperture_center : float
        The box: columns rint(centre - half_width) .. rint(centre + half_width), both included.
    n_background_columns : int
        Columns whose median was subtracted as background in each row; 0 for none.

    Returns
    -------
    (n_rows,) float64 [DN/s]
        Standard deviation of the flux of one integration.
    """
    if n_groups_used < 2:
        raise ValueError(f"n_groups_used: expected at least 2, got {n_groups_used}")
    fractions = _star_fractions(truth)
    sensitivity, gain = truth["sensitivity"].values, truth.attrs["gain"]
    sky = truth["background"].values * sensitivity + truth["dark"].values
    star = truth["star"].values[:, None] * fractions * sensitivity
    box = _box(aperture_center, half_width)
    noise = {"gain": gain, "n_groups": n_groups_used, "read_noise_dn": read_noise_dn(truth.attrs)}
    photon_noise = bool(truth.attrs["photon_noise"])
    variance = rate_variance((star + sky)[:, box], photon_noise=photon_noise, **noise)
    total = (variance / truth["flat"].values[:, box] ** 2).sum(axis=1)
    if n_background_columns:
        typical = np.median(rate_variance(sky, photon_noise=photon_noise, **noise), axis=1)
        n_box = variance.shape[1]
        total += n_box**2 * (np.pi / 2) * typical / n_background_columns
    return np.sqrt(total)


def expected_flux(truth, *, half_width: float, aperture_center: float = 36.0) -> np.ndarray:
    """The star's light in the aperture, out of transit, (n_rows,) [DN/s]."""
    fractions = _star_fractions(truth)[:, _box(aperture_center, half_width)]
    return truth["star"].values * fractions.sum(axis=1)


def _star_fractions(truth) -> np.ndarray:
    """Which part of the star's light falls on each pixel of its row, (n_rows, n_cols)."""
    columns = np.arange(truth.sizes["column"])
    return pixel_fractions(truth["trace_column"].values, truth["psf_sigma"].values, columns)


def _box(center: float, half_width: float) -> slice:
    """Columns rint(centre - half_width) .. rint(centre + half_width), both included."""
    low, high = np.rint([center - half_width, center + half_width]).astype(int)
    return slice(max(low, 0), high + 1)


def read_noise_dn(settings: dict) -> float:
    """Noise of a single sample apart from its photons [DN]."""
    return float(np.hypot(settings["read_noise_dn"] * settings["read_noise"], QUANTISATION_DN))


def rate_variance(
    rate: np.ndarray, *, gain: float, n_groups: int, read_noise_dn: float, photon_noise: bool = True
) -> np.ndarray:
    """True variance of a slope that is fitted with the pipeline's optimal weights.

    The fit gives group i the weight |i - middle|^P, where P grows with the signal to noise ratio
    of the ramp. The slope is then a fixed sum of the samples: read noise enters through each
    coefficient, and the photons of each frame through the sum of all later coefficients.

    Parameters
    ----------
    rate : array [DN/s]

    Returns
    -------
    array of the same shape [(DN/s)^2]
    """
    group = np.arange(n_groups) - (n_groups - 1) / 2
    signal = np.clip(rate, 0, None) * FRAME_TIME_S * (n_groups - 1) * gain
    ratio = signal / np.sqrt((read_noise_dn * gain) ** 2 + signal + 1e-30)
    limits, exponents = zip(*WEIGHT_EXPONENTS.items(), strict=True)
    power = np.asarray(exponents)[np.searchsorted(limits, ratio, side="right") - 1]
    weights = np.abs(group / group[-1]) ** power[..., None]
    coefficients = weights * group
    coefficients /= (coefficients * group).sum(axis=-1, keepdims=True)
    later = np.cumsum(coefficients[..., ::-1], axis=-1)[..., ::-1][..., 1:]
    per_frame = np.clip(rate, 0, None) * FRAME_TIME_S / gain * photon_noise  # DN^2 of the photons
    variance = per_frame * (later**2).sum(axis=-1) + read_noise_dn**2 * (coefficients**2).sum(
        axis=-1
    )
    return variance / FRAME_TIME_S**2
