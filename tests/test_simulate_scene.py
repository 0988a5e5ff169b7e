"""The simulated sky: star, transit, trace and pointing have the known properties they claim."""

from dataclasses import replace

import numpy as np
import pytest

from miri_gpu.simulate.scene import (
    WAVELENGTH_ROWS,
    WAVELENGTHS_UM,
    build_scene,
    electron_rates,
    overlap_fraction,
    pixel_fractions,
)
from miri_gpu.simulate.settings import SimulationSettings

SETTINGS = SimulationSettings(n_ints=40)


@pytest.fixture(scope="module")
def scene():
    return build_scene(SETTINGS)


def test_wavelengths_pass_near_the_measured_ones(scene):
    rows = np.array(WAVELENGTH_ROWS)
    assert np.abs(scene.wavelength[rows] - WAVELENGTHS_UM).max() < 0.02
    lit = np.isfinite(scene.wavelength)
    assert (np.flatnonzero(lit)[[0, -1]] == [7, 394]).all()
    assert (np.diff(scene.wavelength[lit]) < 0).all()


def test_the_depth_is_that_of_the_bands(scene):
    assert scene.depth[np.nanargmin(np.abs(scene.wavelength - 13))] == pytest.approx(
        0.025, abs=1e-4
    )
    assert scene.depth[np.nanargmin(np.abs(scene.wavelength - 7.8))] == pytest.approx(
        0.029, abs=2e-4
    )
    lit = np.isfinite(scene.depth)
    np.testing.assert_allclose(1 - scene.light_curve.min(axis=0)[lit], scene.depth[lit])


def test_the_transit_lasts_as_long_as_asked(scene):
    inside = scene.light_curve[:, 300] < 1
    middle = np.flatnonzero(inside).mean()
    assert np.count_nonzero(inside) == pytest.approx(0.4 * 40, abs=1)
    assert middle == pytest.approx(19.5)
    flat = build_scene(replace(SETTINGS, transit_depth=0.0))
    assert (flat.light_curve == 1).all()


def test_overlap_of_discs_equals_counted_area():
    x = (np.arange(2000) + 0.5) / 1000 - 1
    star = np.hypot(x[:, None], x) < 1
    for z, ratio in ((0.0, 0.3), (0.5, 0.3), (0.9, 0.3), (1.1, 0.3), (1.4, 0.3), (0.95, 0.1)):
        both = star & (np.hypot(x[:, None] - z, x) < ratio)
        counted = np.count_nonzero(both) / np.count_nonzero(star)
        assert overlap_fraction(z, ratio) == pytest.approx(counted, abs=2e-5)


def test_the_brightest_pixel_has_the_rate_asked_for(scene):
    still = replace(scene, background=np.zeros_like(scene.background))
    peak = electron_rates(still, 0, 1).max() / SETTINGS.gain
    assert 0.75 * 3500 < peak < 1.01 * 3500  # the trace is not centred on a pixel
    brighter = build_scene(replace(SETTINGS, star_peak_rate=7000.0))
    np.testing.assert_allclose(brighter.star, 2 * scene.star)


def test_light_falls_where_the_trace_is(scene):
    dark = replace(scene, background=np.zeros_like(scene.background))
    rates = electron_rates(dark, 0, 2).astype(float)
    assert (rates[..., :4] == 0).all()
    cols = np.arange(rates.shape[-1])
    rows = slice(20, 380)
    total = rates.sum(axis=-1)[:, rows]
    centre = (rates * cols).sum(axis=-1)[:, rows] / total
    shifted = scene.trace_col[rows] + scene.x_shift[:2, None]
    np.testing.assert_allclose(centre, shifted, atol=1e-3)
    width = np.sqrt((rates * (cols - scene.trace_col[:, None]) ** 2).sum(-1)[:, rows] / total)
    expected = np.sqrt(scene.psf_sigma[rows] ** 2 + 1 / 12)  # the width of a pixel
    np.testing.assert_allclose(width, np.broadcast_to(expected, width.shape), rtol=2e-3)


def test_the_spectrum_moves_along_the_rows(scene):
    quiet = replace(scene, background=np.zeros_like(scene.background), x_shift=np.zeros(40))
    moved = replace(quiet, y_shift=np.ones(40))
    still = replace(quiet, y_shift=np.zeros(40))
    before = electron_rates(still, 0, 1)[0, 50:380].sum(axis=-1)
    after = electron_rates(moved, 0, 1)[0, 51:381].sum(axis=-1)
    np.testing.assert_allclose(after, before, rtol=1e-3)


def test_pointing_has_the_jitter_asked_for():
    settings = SimulationSettings(n_ints=4000, n_segments=1, drift_px=0.0)
    scene = build_scene(settings)
    for shift in (scene.x_shift, scene.y_shift):
        assert shift.std() == pytest.approx(0.004, rel=0.05)
        assert abs(shift.mean()) < 4e-4
    still = build_scene(replace(settings, jitter=False))
    assert not still.x_shift.any() and not still.y_shift.any()


def test_background_can_be_switched_off(scene):
    assert scene.background[200, 4] > 20 * scene.background[200, 40] > 0
    assert not build_scene(replace(SETTINGS, background=False)).background.any()


def test_fractions_of_a_gaussian_sum_to_one():
    fractions = pixel_fractions(np.array([20.3, 36.0]), np.array([1.0, 1.8]), np.arange(72))
    np.testing.assert_allclose(fractions.sum(axis=-1), 1)
