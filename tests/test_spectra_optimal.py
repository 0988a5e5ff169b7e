"""Optimal extraction: a twin row by row, and uncertainties that are statistically right."""

import numpy as np
import pytest

from miri_gpu.backend import to_host
from miri_gpu.spectra.box import Extract1DBoxParams, extract_box
from miri_gpu.spectra.optimal import Extract1DOptimalParams, extract_optimal

GAIN, TIME_S, READ_NOISE = 3.1, 6.4, 1.5  # e-/DN, s, DN/s


def twin(data, profile, read_noise, background, centres, left, right):
    flux, flux_err = np.full(data.shape[:2], np.nan), np.full(data.shape[:2], np.nan)
    for i in range(data.shape[0]):
        if np.isnan(centres[i]):
            continue
        first, last = int(np.rint(centres[i] - left)), int(np.rint(centres[i] + right))
        for row in range(data.shape[1]):
            cut = (row, slice(first, last + 1))
            d, p, s = (a[i][cut].astype(float) for a in (data, profile, background))
            if not p.sum() > 0:
                continue
            p = p / p.sum()
            v = read_noise[cut].astype(float) ** 2 + np.abs(d.sum() * p + s) / (GAIN * TIME_S)
            norm = (p**2 / v).sum()
            flux[i, row] = (p * d / v).sum() / norm
            flux_err[i, row] = np.sqrt(p.sum() / norm)
    return np.where(np.isnan(flux_err), np.nan, flux), np.where(np.isnan(flux), np.nan, flux_err)


def scene(n_ints, n_rows, rng, light=3000.0, level=40.0):
    """Noisy frames without their background, the true profile, and the background."""
    column = np.arange(72)
    profile = np.exp(-0.5 * ((column - 36.6) / 1.4) ** 2)
    profile = np.broadcast_to(profile / profile.sum(), (n_ints, n_rows, 72))
    electrons = (light * profile + level) * GAIN * TIME_S
    data = rng.poisson(electrons) / (GAIN * TIME_S) - level
    data = data + rng.normal(0, READ_NOISE, data.shape)
    return data.astype(np.float32), profile.astype(np.float32), np.full_like(data, level)


@pytest.mark.parametrize("follow", [False, True])
@pytest.mark.parametrize("median_profile", [False, True])
def test_is_as_the_twin_says(on_backend, rng, follow, median_profile):
    data, profile, background = scene(4, 15, rng)
    profile = profile * rng.uniform(0.9, 1.1, profile.shape).astype(np.float32)
    profile[:, 2] = 0
    data[1, 4, 36] = np.nan
    read_noise = rng.uniform(1, 2, (15, 72)).astype(np.float32)
    params = Extract1DOptimalParams(
        trace_position="gaussian_fits" if follow else "constant",
        median_spatial_profile=median_profile,
    )
    centres = np.array([36.6, 37.5, 35.2, np.nan])
    spectra = extract_optimal(
        *on_backend(data, profile, read_noise),
        params=params,
        gain=GAIN,
        integration_time_s=TIME_S,
        background=on_backend(background),
        centres=on_backend(centres),
    )
    used = np.stack([np.median(profile, axis=0)] * 4) if median_profile else profile
    at = centres if follow else np.full(4, 36.0)
    flux, flux_err = twin(data, used, read_noise, background, at, 8, 8)
    np.testing.assert_allclose(to_host(spectra.flux), flux, rtol=1e-6)
    np.testing.assert_allclose(to_host(spectra.flux_err), flux_err, rtol=1e-6)
    assert np.isnan(flux[:, 2]).all()


@pytest.mark.parametrize("light", [30.0, 3000.0])
def test_pulls_have_unit_width(light):
    data, profile, background = scene(200, 100, np.random.default_rng(3), light=light)
    spectra = extract_optimal(
        data,
        profile,
        np.full((100, 72), READ_NOISE),
        gain=GAIN,
        integration_time_s=TIME_S,
        background=background,
    )
    pulls = (spectra.flux - light) / spectra.flux_err
    n = pulls.size
    assert abs(pulls.std() - 1) < 5 / np.sqrt(2 * n) + 0.005
    # weights that know the noisy flux bias the result by far less than its error
    assert abs(pulls.mean()) < 0.05


def test_the_errors_of_the_pixels_are_taken_where_they_are_known(on_backend):
    """Those of ramps that saturate are larger than the weights suppose."""
    rng = np.random.default_rng(6)
    data, profile, background = scene(200, 60, rng, light=3000.0)
    noisier = rng.normal(0, 1, data.shape) * 30.0 * (np.abs(np.arange(72) - 36) < 2)
    model = READ_NOISE**2 + (3000.0 * profile + background) / (GAIN * TIME_S)
    err = np.sqrt(model + 900.0 * (np.abs(np.arange(72) - 36) < 2))
    arrays = on_backend(data + noisier, profile, np.full((60, 72), READ_NOISE))
    kinds = {"gain": GAIN, "integration_time_s": TIME_S, "background": on_backend(background)}
    supposed = extract_optimal(*arrays, **kinds)
    known = extract_optimal(*arrays, err=on_backend(err), **kinds)
    np.testing.assert_array_equal(to_host(known.flux), to_host(supposed.flux))
    pulls = (to_host(known.flux) - 3000.0) / to_host(known.flux_err)
    assert abs(pulls.std() - 1) < 0.03
    assert (to_host(supposed.flux_err) < 0.9 * to_host(known.flux_err)).all()


def test_an_error_that_the_pixels_of_a_row_share_is_known():
    rng = np.random.default_rng(5)
    data, profile, background = scene(200, 100, rng, light=3000.0)
    data = data + rng.normal(0, 2.0, (200, 100, 1))
    kinds = {"gain": GAIN, "integration_time_s": TIME_S, "background": background}
    noise = np.full((100, 72), READ_NOISE)
    known = extract_optimal(
        data, profile, noise, background_err=np.full((200, 100, 1), 2.0), **kinds
    )
    pulls = (known.flux - 3000.0) / known.flux_err
    assert abs(pulls.std() - 1) < 0.03
    unknown = extract_optimal(data, profile, noise, **kinds)
    assert (unknown.flux_err < 0.9 * known.flux_err).all() and unknown.background_err is None
    together = np.hypot(unknown.flux_err, known.background_err)
    np.testing.assert_allclose(known.flux_err, together, rtol=1e-6)


def test_is_less_noisy_than_the_box():
    data, profile, background = scene(100, 50, np.random.default_rng(4), light=100.0)
    noise = np.full((50, 72), READ_NOISE)
    optimal = extract_optimal(
        data, profile, noise, gain=GAIN, integration_time_s=TIME_S, background=background
    )
    box = Extract1DBoxParams(aperture_left_width=8, aperture_right_width=8)
    summed = extract_box(data, np.ones_like(data), params=box)
    assert optimal.flux.std() < 0.8 * summed.flux.std()


def test_no_noise_at_all_is_nan_and_dark_pixels_do_not_matter(on_backend):
    data, profile = np.zeros((1, 2, 72), np.float32), np.zeros((1, 2, 72), np.float32)
    profile[..., 35:38] = 1 / 3
    data[0, 1, 35:38] = 10.0
    spectra = extract_optimal(
        *on_backend(data, profile, np.zeros((2, 72), np.float32)),
        gain=GAIN,
        integration_time_s=TIME_S,
    )
    np.testing.assert_allclose(to_host(spectra.flux), [[np.nan, 30.0]], rtol=1e-6)
    expected = np.sqrt(30.0 / (GAIN * TIME_S))
    np.testing.assert_allclose(to_host(spectra.flux_err), [[np.nan, expected]], rtol=1e-6)


def test_gain_may_be_a_map(on_backend, rng):
    data, profile, _ = scene(2, 5, rng)
    noise = np.full((5, 72), READ_NOISE, np.float32)
    arrays = on_backend(data, profile, noise)
    one = extract_optimal(*arrays, gain=GAIN, integration_time_s=TIME_S)
    gain = on_backend(np.full((5, 72), GAIN))
    each = extract_optimal(*arrays, gain=gain, integration_time_s=TIME_S)
    np.testing.assert_allclose(to_host(each.flux_err), to_host(one.flux_err), rtol=1e-6)


def test_impossible_values_are_named(rng):
    data, profile, _ = scene(1, 2, rng)
    with pytest.raises(ValueError, match="gain: expected a positive number, got 0"):
        extract_optimal(data, profile, data[0], gain=0, integration_time_s=TIME_S)
    with pytest.raises(ValueError, match="integration_time_s: expected a positive number"):
        extract_optimal(data, profile, data[0], gain=GAIN, integration_time_s=-1.0)
    with pytest.raises(ValueError, match="within columns"):
        extract_optimal(
            data,
            profile,
            data[0],
            params=Extract1DOptimalParams(aperture_center=4),
            gain=GAIN,
            integration_time_s=TIME_S,
        )
