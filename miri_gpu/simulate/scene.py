"""What falls on the detector: a star in transit, dispersed along the rows, over a background.

All rates are electrons per second. The tables below are measured in-flight values for
MIRI LRS slitless.
"""

from dataclasses import dataclass

import numpy as np

from miri_gpu.detector import N_COLS, N_REFERENCE_COLS, N_ROWS
from miri_gpu.simulate.settings import SimulationSettings

FIRST_LIT_ROW, LAST_LIT_ROW = 7, 394  # rows that have a wavelength
WAVELENGTH_ROWS = (7, 103, 175, 223, 271, 319, 343, 367, 380, 385, 390, 391, 393, 394)
WAVELENGTHS_UM = (
    14.05, 12.64, 11.40, 10.45, 9.34, 8.01, 7.20, 6.23, 5.56, 5.24, 4.83, 4.74, 4.45, 4.06,
)  # fmt: skip
SPLINE_SMOOTHING = 0.002  # sum of squared residuals [um^2], as assign_wcs smooths the same table
FOLD_UM = 4.5  # light below this wavelength turns back to lower rows
TRACE_ROWS = (7, 79, 151, 223, 295, 367)
TRACE_COLS = (36.35, 36.74, 37.06, 37.31, 37.49, 37.60)
PSF_WAVELENGTHS_UM = (7.7, 11.9)
PSF_SIGMAS = (1.24, 1.60)  # pixels
BACKGROUND_ROWS = (0, 26, 104, 156, 208, 260, 286, 300, 312, 338, 364, 390)
BACKGROUND_DN_S = (30, 32, 32, 39, 55, 67, 70, 70, 69, 66, 62, 57)
HOT_COLS_DN_S = {4: 1740, 5: 70, 6: 21, 7: -9, 8: 14, 9: 6, 10: -7, 11: 4}  # above background
BANDS_UM = ((6.3, 0.25), (7.8, 0.5), (10.5, 0.6))  # centre and width of the molecular bands


@dataclass(frozen=True, eq=False, kw_only=True)
class Scene:
    """The true sky as the detector sees it.

    Attributes
    ----------
    wavelength : (n_rows,) float64 [um]
        NaN in rows that no light reaches.
    star : (n_rows,) float64 [e-/s]
        Out-of-transit rate of the star, summed over the columns.
    depth : (n_rows,) float64
        Squared ratio of the radii, weighted with the light in the row; NaN without light.
    trace_col, psf_sigma : (n_rows,) float64 [pixels]
    background : (n_rows, n_cols) float64 [e-/s]
    light_curve : (n_ints, n_rows) float64
        Relative flux of the star, 1 out of transit.
    time_s : (n_ints,) float64
        Mid-time of each integration, from the start of the exposure.
    x_shift, y_shift : (n_ints,) float64 [pixels]
        Positive = moved towards higher columns, higher rows.
    """

    wavelength: np.ndarray
    star: np.ndarray
    depth: np.ndarray
    trace_col: np.ndarray
    psf_sigma: np.ndarray
    background: np.ndarray
    light_curve: np.ndarray
    time_s: np.ndarray
    x_shift: np.ndarray
    y_shift: np.ndarray


def build_scene(settings: SimulationSettings) -> Scene:
    """Compute the true star, transit, background and pointing of an observation."""
    rows = np.arange(N_ROWS)
    wavelength = wavelength_by_row()
    star, depth = star_and_depth(wavelength, settings)
    psf_sigma = np.interp(rows, *psf_sigma_by_row(wavelength))
    peak = (star * pixel_fractions(np.zeros(N_ROWS), psf_sigma, np.zeros(1))[:, 0]).max()
    star *= settings.star_peak_rate * settings.gain / peak
    time_s = (np.arange(settings.n_ints) + 0.5) * settings.integration_period_s
    x_shift, y_shift = pointing(settings)
    return Scene(
        wavelength=wavelength,
        star=star,
        depth=depth,
        trace_col=trace_column(rows),
        psf_sigma=psf_sigma,
        background=background(settings),
        light_curve=light_curve(time_s, depth, settings),
        time_s=time_s,
        x_shift=x_shift,
        y_shift=y_shift,
    )


def wavelength_table() -> tuple[np.ndarray, np.ndarray]:
    """Rows from the lowest up and their wavelengths [um], as the specwcs reference lists them."""
    from scipy.interpolate import PchipInterpolator  # slow to import, as are the others below

    rows = np.arange(FIRST_LIT_ROW, LAST_LIT_ROW + 1)
    return rows, PchipInterpolator(WAVELENGTH_ROWS, WAVELENGTHS_UM)(rows)


def wavelength_by_row() -> np.ndarray:
    """Wavelength of each row [um]: the table smoothed as assign_wcs does, NaN in dark rows."""
    from scipy.interpolate import UnivariateSpline

    rows, table = wavelength_table()
    wavelength = np.full(N_ROWS, np.nan)
    wavelength[rows] = UnivariateSpline(rows, table, s=SPLINE_SMOOTHING)(rows)
    return wavelength


def trace_column(rows: np.ndarray) -> np.ndarray:
    """Column of the star's light in some rows: a parabola through the measured positions."""
    return np.polyval(np.polyfit(TRACE_ROWS, TRACE_COLS, 2), rows)


def psf_sigma_by_row(wavelength: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Lit rows and the width of the point spread function there [pixels], linear in wavelength."""
    rows = np.flatnonzero(np.isfinite(wavelength))
    line = np.polyfit(PSF_WAVELENGTHS_UM, PSF_SIGMAS, 1)
    return rows, np.polyval(line, wavelength[rows])


def star_and_depth(wavelength, settings) -> tuple[np.ndarray, np.ndarray]:
    """Spectrum of the star (arbitrary unit) and transit depth, per row, both (n_rows,).

    Light below the fold comes to lie on rows of longer wavelength, as the prism does it.
    """
    lit = np.isfinite(wavelength)
    rows = np.flatnonzero(lit)
    direct = photons_by_row(wavelength[rows], rows, settings.star_temperature)
    fold = rows[np.nanargmin(np.abs(wavelength[rows] - FOLD_UM))]
    folded_um = FOLD_UM - 0.03 * (fold - rows)
    folded = np.where(
        (rows < fold) & (folded_um > 3.8), 0.02 * direct.max() * (folded_um - 3.8) / 0.7, 0.0
    )
    star, depth = np.zeros(N_ROWS), np.full(N_ROWS, np.nan)
    star[rows] = direct + folded
    depth[rows] = (
        direct * depth_at(wavelength[rows], settings) + folded * depth_at(folded_um, settings)
    ) / (direct + folded)
    return star, depth


def photons_by_row(wavelength, rows, temperature) -> np.ndarray:
    """Detected photons per row of a black body with a few stellar lines (arbitrary unit)."""
    hc_kt = 14387.77 / (wavelength * temperature)
    photons_per_um = wavelength**-4 / np.expm1(hc_kt)
    for centre, width, absorbed in ((5.4, 0.05, 0.06), (7.0, 0.06, 0.03), (9.0, 0.1, 0.02)):
        photons_per_um *= 1 - absorbed * np.exp(-0.5 * ((wavelength - centre) / width) ** 2)
    throughput = 1 / (1 + np.exp((4.95 - wavelength) / 0.12))  # the prism's blue edge
    throughput *= 1 / (1 + np.exp((FIRST_LIT_ROW + 8 - rows) / 2))  # fades at the red end
    return photons_per_um * throughput * np.abs(np.gradient(wavelength))


def depth_at(wavelength, settings) -> np.ndarray:
    """Transit depth at a wavelength: the mean and Gaussian molecular bands above it."""
    bands = sum(np.exp(-0.5 * ((wavelength - c) / w) ** 2) for c, w in BANDS_UM)
    return settings.transit_depth + (
        settings.depth_amplitude * bands if settings.transit_depth else 0
    )


def light_curve(time_s, depth, settings) -> np.ndarray:
    """Relative flux (n_ints, n_rows) while an opaque disc crosses a uniform one.

    Equation 1 of Mandel & Agol (2002); without limb darkening the depth at mid-transit is the
    squared ratio of the radii.
    """
    ratio = np.sqrt(np.nan_to_num(depth))[None, :]
    exposure_s = settings.n_ints * settings.integration_period_s
    crossing = np.sqrt((1 + np.sqrt(settings.transit_depth)) ** 2 - settings.impact_parameter**2)
    phase = (time_s / exposure_s - settings.transit_centre) / (settings.transit_duration / 2)
    z = np.hypot(settings.impact_parameter, phase * crossing)[:, None]
    return 1 - overlap_fraction(z, ratio)


def overlap_fraction(z, ratio) -> np.ndarray:
    """Fraction of a unit disc that a disc of radius `ratio` at distance z covers, for ratio < 1."""
    safe_z = np.maximum(z, 1e-12)
    safe_ratio = np.maximum(ratio, 1e-12)
    cos_planet = np.clip((ratio**2 + z**2 - 1) / (2 * safe_ratio * safe_z), -1, 1)
    cos_star = np.clip((1 - ratio**2 + z**2) / (2 * safe_z), -1, 1)
    kite = np.sqrt(np.clip(4 * z**2 - (1 + z**2 - ratio**2) ** 2, 0, None)) / 2
    lens = (ratio**2 * np.arccos(cos_planet) + np.arccos(cos_star) - kite) / np.pi
    return np.where(z >= 1 + ratio, 0.0, np.where(z <= 1 - ratio, ratio**2, lens))


def background(settings) -> np.ndarray:
    """Background (n_rows, n_cols) [e-/s], with the glow of the first science columns."""
    rates = np.zeros((N_ROWS, N_COLS))
    if settings.background:
        by_row = np.interp(np.arange(N_ROWS), BACKGROUND_ROWS, BACKGROUND_DN_S)
        rates[:, N_REFERENCE_COLS:] = by_row[:, None]
        for column, excess in HOT_COLS_DN_S.items():
            rates[:, column] += excess
    return rates * settings.gain


def pointing(settings) -> tuple[np.ndarray, np.ndarray]:
    """Shifts along x and y of each integration [pixels]: white jitter on a slow drift."""
    if not settings.jitter:
        return np.zeros(settings.n_ints), np.zeros(settings.n_ints)
    rng = np.random.default_rng([settings.seed, 101])
    jitter = settings.jitter_px * rng.standard_normal((settings.n_ints, 2))
    drift = settings.drift_px * np.linspace(-0.5, 0.5, settings.n_ints)
    return jitter[:, 0] + drift, jitter[:, 1] - drift


def electron_rates(scene: Scene, first: int, end: int) -> np.ndarray:
    """Expected rates of integrations first..end-1, (n, n_rows, n_cols) float32 [e-/s].

    Photons only, before the pixels' sensitivity; the reference columns stay dark.
    """
    from scipy.interpolate import CubicSpline

    rows = np.arange(N_ROWS)
    out_of_transit = CubicSpline(rows, scene.star)
    # the spectrum moves along y; the depth hardly changes over hundredths of a row
    moved = np.clip(rows - scene.y_shift[first:end, None], 0, N_ROWS - 1)
    star = np.maximum(out_of_transit(moved), 0) * scene.light_curve[first:end]
    cols = np.arange(N_COLS)
    fractions = pixel_fractions(
        scene.trace_col + scene.x_shift[first:end, None], scene.psf_sigma, cols
    )
    fractions[..., :N_REFERENCE_COLS] = 0
    return (star[..., None] * fractions + scene.background).astype(np.float32)


def pixel_fractions(centre, sigma, cols) -> np.ndarray:
    """Fraction (..., n_cols) of a Gaussian's light that falls on each pixel column."""
    from scipy.special import erf

    scale = 1 / (np.sqrt(2) * np.asarray(sigma))[..., None]
    edges = (np.append(cols, cols[-1] + 1) - 0.5 - np.asarray(centre)[..., None]) * scale
    return np.diff(erf(edges), axis=-1) / 2
