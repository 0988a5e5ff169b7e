"""Optimal extraction: a twin row by row, and uncertainties that are statistically right."""

import numpy as np
import pytest

from miri_gpu.backend import to_host
from miri_gpu.containers import Rates
from miri_gpu.detector import DO_NOT_USE, JUMP_DET, SATURATED
from miri_gpu.spectra.box import Extract1DBoxParams, extract_box
from miri_gpu.spectra.optimal import Extract1DOptimalParams, extract_optimal, fitted_times

GAIN, TIME_S, READ_NOISE = 3.1, 6.4, 1.5  # e-/DN, s, DN/s


def twin(data, profile, read_noise, background, centres, left, right, time_s=None):
    time_s = np.broadcast_to(TIME_S if time_s is None else time_s, data.shape)
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
            v = read_noise[cut].astype(float) ** 2 + np.abs(d.sum() * p + s) / (
                GAIN * time_s[i][cut]
            )
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


# --- ramps that saturate are fitted over less time


def shorter_times(shape):
    """Less time where the star is brightest, and not the same in each integration."""
    time_s = np.full(shape, TIME_S, np.float32)
    time_s[..., 35:39] = TIME_S / 3
    time_s[::2, :, 36] = TIME_S / 6
    return time_s


@pytest.mark.parametrize("follow", [False, True])
def test_each_pixel_has_its_own_time(on_backend, rng, follow):
    data, profile, background = scene(4, 15, rng)
    read_noise = rng.uniform(1, 2, (15, 72)).astype(np.float32)
    time_s, centres = shorter_times(data.shape), np.array([36.6, 37.5, 35.2, 36.0])
    spectra = extract_optimal(
        *on_backend(data, profile, read_noise),
        params=Extract1DOptimalParams(trace_position="gaussian_fits" if follow else "constant"),
        gain=on_backend(np.full((15, 72), GAIN)),
        integration_time_s=on_backend(time_s),
        background=on_backend(background),
        centres=on_backend(centres),
    )
    at = centres if follow else np.full(4, 36.0)
    flux, flux_err = twin(data, profile, read_noise, background, at, 8, 8, time_s)
    np.testing.assert_allclose(to_host(spectra.flux), flux, rtol=1e-6)
    np.testing.assert_allclose(to_host(spectra.flux_err), flux_err, rtol=1e-6)


def test_a_time_for_each_pixel_that_is_the_same_changes_nothing(on_backend, rng):
    data, profile, background = scene(3, 15, rng)
    noise = rng.uniform(1, 2, data.shape).astype(np.float32)
    gain = rng.uniform(3, 4, (15, 72)).astype(np.float32)
    one, each, weighed = (
        extract_optimal(
            *on_backend(data, profile, noise),
            gain=on_backend(gain),
            background=on_backend(background),
            integration_time_s=on_backend(time_s) if hasattr(time_s, "shape") else time_s,
            weight_time_s=weight_time_s,
        )
        for time_s, weight_time_s in (
            (TIME_S, None),
            (np.full(data.shape, TIME_S, np.float32), None),
            (np.full((1, 15, 72), TIME_S, np.float32), TIME_S),
        )
    )
    for other in (each, weighed):
        for name in ("flux", "flux_err"):
            np.testing.assert_array_equal(
                *(to_host(getattr(spectra, name)) for spectra in (one, other))
            )


@pytest.mark.parametrize("weight_time_s", [None, TIME_S])
def test_pulls_have_unit_width_where_ramps_saturate(weight_time_s):
    rng = np.random.default_rng(3)
    _, profile, background = scene(200, 100, rng)
    time_s = shorter_times(profile.shape)
    electrons = (3000.0 * profile + 40.0) * GAIN * time_s
    data = rng.poisson(electrons) / (GAIN * time_s) - 40.0
    data += rng.normal(0, READ_NOISE, data.shape)
    kinds = {"gain": GAIN, "background": background}
    noise = np.full((100, 72), READ_NOISE)
    blind = extract_optimal(data, profile, noise, integration_time_s=TIME_S, **kinds)
    spectra = extract_optimal(
        data, profile, noise, integration_time_s=time_s, weight_time_s=weight_time_s, **kinds
    )
    pulls = (spectra.flux - 3000.0) / spectra.flux_err
    assert abs(pulls.std() - 1) < 5 / np.sqrt(2 * pulls.size) + 0.005
    assert abs(pulls.mean()) < 0.05
    assert ((blind.flux - 3000.0) / blind.flux_err).std() > 1.5
    if weight_time_s is not None:  # the flux stays what it is
        np.testing.assert_array_equal(spectra.flux, blind.flux)


def test_times_are_what_the_variance_by_photons_says(on_backend):
    # a column for each case: whole, saturated, saturated and jumped, as long as can be or longer
    rate = np.array([100, 100, 100, 100, 100, -1, 0, np.nan, np.inf, 100, 100, 100, 100])
    time_s = np.array([2, 2, 1, TIME_S, 9, 2, 2, 2, 2, 2, 2, 2, 2])
    gain = np.array([GAIN] * 9 + [2 * GAIN] * 4)
    known = np.where(rate > 0, np.minimum(rate, 1e3), 1.0)
    var_poisson = known / (gain * time_s)
    var_poisson[10:] = 0, np.nan, np.inf
    dq = np.full(13, SATURATED)
    dq[0], dq[2] = JUMP_DET, SATURATED | JUMP_DET
    dq[7] |= DO_NOT_USE
    expected = np.full(13, TIME_S)
    expected[[1, 2, 9]] = 2, 1, 2

    def frames(values, dtype=np.float32):
        return np.broadcast_to(values, (2, 3, 13)).astype(dtype)

    var_poisson = frames(var_poisson)
    rates = Rates(
        data=frames(rate),
        err=np.sqrt(var_poisson),
        var_poisson=var_poisson,
        var_rnoise=np.zeros_like(var_poisson),
        dq=frames(dq, np.uint32),
    )
    gain = frames(gain)[0]
    found = to_host(fitted_times(*on_backend(rates, gain), TIME_S))
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, frames(expected), rtol=1e-6)
    whole = frames(dq, np.uint32) & SATURATED == 0
    np.testing.assert_array_equal(found[whole], np.float32(TIME_S))


def test_impossible_values_are_named(rng):
    data, profile, _ = scene(1, 2, rng)
    with pytest.raises(ValueError, match="gain: expected a positive number, got 0"):
        extract_optimal(data, profile, data[0], gain=0, integration_time_s=TIME_S)
    with pytest.raises(ValueError, match="integration_time_s: expected a positive number"):
        extract_optimal(data, profile, data[0], gain=GAIN, integration_time_s=-1.0)
    with pytest.raises(ValueError, match="weight_time_s: expected a positive number, got 0"):
        extract_optimal(
            data, profile, data[0], gain=GAIN, integration_time_s=TIME_S, weight_time_s=0
        )
    with pytest.raises(ValueError, match="within columns"):
        extract_optimal(
            data,
            profile,
            data[0],
            params=Extract1DOptimalParams(aperture_center=4),
            gain=GAIN,
            integration_time_s=TIME_S,
        )
