"""Cleaning: the twin fits one column at a time with np.polyfit and drops one pixel at a time."""

import warnings

import numpy as np
import pytest

from miri_gpu.backend import to_host
from miri_gpu.rates.outliers import (
    CleanOutliersParams,
    clean_outliers,
    count_flagged,
    cut_windows,
    largest_deviation,
)
from miri_gpu.rates.profile import build_profile

PARAMS = CleanOutliersParams(window_heights=(50, 30, 12), outlier_threshold=5.0)


def frames(rng, n_ints=3, n_rows=100, noise=1.0):
    """A star on a background, its noise, bad pixels and cosmic rays; which pixels were hit."""
    row, column = np.arange(n_rows)[:, None], np.arange(72)
    star = 500 * np.exp(-(((row - 60) / 40) ** 2)) * np.exp(-0.5 * ((column - 36.5) / 1.4) ** 2)
    data = star + 30 + rng.normal(0, noise, (n_ints, n_rows, 72))
    hit = rng.random(data.shape) < 0.003
    data[hit] += rng.choice([-200, 300, 5000], hit.sum())
    dq = np.zeros(data.shape, np.uint32)
    dq[:, rng.random((n_rows, 72)) < 0.02] = 1
    dq[:, :, 7] = 4
    data[rng.random(data.shape) < 0.003] = np.nan
    data[0, 5, 5] = np.inf
    data[1, :, 20] = np.nan
    dq[1, 1:, 21] = 1
    return data.astype(np.float32), dq, hit


def fit_of_one(column, good, order, threshold):
    x, good = np.linspace(-1, 1, len(column)), good.copy()
    while True:
        fit = np.zeros(len(column))
        if good.sum() >= 2:
            fit = np.polyval(np.polyfit(x[good], column[good], min(order, good.sum() - 1)), x)
        residual = (column - fit)[good]
        if len(residual) < 2 or residual.std() < 1e-12 * np.abs(column[good]).max():
            return fit, good
        deviation = np.zeros(len(column))
        deviation[good] = np.abs(residual) / residual.std()
        if not deviation.max() > threshold:
            return fit, good
        good[deviation.argmax()] = False


def twin(data, dq, params):
    model, kept = np.zeros(data.shape), np.zeros(data.shape, bool)
    bits = sum(1 << bit for bit in params.dq_bits_to_mask)
    for start, stop in cut_windows(data.shape[1], params.window_heights):
        for i in range(data.shape[0]):
            for column in range(data.shape[2]):
                values = data[i, start:stop, column].astype(float)
                good = np.isfinite(values) & (dq[i, start:stop, column] & bits == 0)
                model[i, start:stop, column], kept[i, start:stop, column] = fit_of_one(
                    np.where(good, values, 0), good, params.poly_order, params.outlier_threshold
                )
    profile = np.zeros(data.shape)
    left, right = params.spatial_profile_left_idx, params.spatial_profile_right_idx
    for i in range(data.shape[0]):
        for row in range(data.shape[1]):
            light = np.clip(model[i, row, left:right], 0, None)
            uniform = np.full(right - left, 1 / (right - left))
            profile[i, row, left:right] = light / light.sum() if light.sum() > 0 else uniform
    return np.where(kept, data, model), np.where(kept, dq, dq | 16), profile


@pytest.mark.parametrize("threshold", [2.5, 5.0])
@pytest.mark.parametrize("order", [0, 4])
def test_is_as_the_twin_says(on_backend, rng, order, threshold):
    params = CleanOutliersParams(
        window_heights=(50, 30, 12), poly_order=order, outlier_threshold=threshold
    )
    data, dq, _ = frames(rng, n_ints=2)
    cleaned = clean_outliers(*on_backend(data, dq), params=params)
    expected, expected_dq, expected_profile = twin(data, dq, params)
    np.testing.assert_array_equal(to_host(cleaned.dq), expected_dq)
    np.testing.assert_allclose(to_host(cleaned.data), expected, rtol=1e-6, atol=1e-5)
    np.testing.assert_allclose(to_host(cleaned.profile), expected_profile, rtol=1e-5, atol=1e-7)
    assert to_host(cleaned.data).dtype == np.float32
    assert to_host(cleaned.dq).dtype == np.uint32


def test_finds_cosmic_rays_and_restores_what_they_hid(on_backend, rng):
    row, column = np.arange(100)[:, None], np.arange(72)
    truth = (2000 + 3 * row) * np.exp(-0.5 * ((column - 36.5) / 1.4) ** 2) / 3.5 + 30
    data = truth + rng.normal(0, 1, (4, 100, 72))
    hit = rng.random(data.shape) < 0.005
    data[hit] += 300
    dq = np.zeros(data.shape, np.uint32)
    params = CleanOutliersParams(window_heights=(100,), outlier_threshold=5.0)
    cleaned = clean_outliers(*on_backend(data.astype(np.float32), dq), params=params)
    found = (to_host(cleaned.dq) & 16) != 0
    assert found[hit].all()
    assert found[~hit].mean() < 1e-3
    left = (to_host(cleaned.data) - truth)[hit]
    assert np.abs(left).max() < 3  # the noise of a fit, at worst at the end of a window


def test_flags_by_or_and_masks_only_the_bits_asked_for(on_backend, rng):
    data, dq, _ = frames(rng)
    dq[0, 3, 3] = 1 | 16 | 1 << 31
    cleaned = to_host(clean_outliers(*on_backend(data, dq), params=PARAMS).dq)
    assert cleaned[0, 3, 3] == 1 | 16 | 1 << 31
    np.testing.assert_array_equal(cleaned & ~np.uint32(16), dq & ~np.uint32(16))
    assert ((cleaned[:, :, 7] & 16) == 0).mean() > 0.9  # bit 2 is not among those to mask
    both = CleanOutliersParams(window_heights=(50,), dq_bits_to_mask=(0, 2))
    assert (
        (to_host(clean_outliers(*on_backend(data, dq), params=both).dq)[:, :, 7] & 16) > 0
    ).all()


def test_all_bad_becomes_zero_with_a_uniform_profile(on_backend):
    data, dq = np.full((2, 60, 72), np.nan, np.float32), np.zeros((2, 60, 72), np.uint32)
    cleaned = clean_outliers(*on_backend(data, dq), params=PARAMS)
    np.testing.assert_array_equal(to_host(cleaned.data), 0)
    np.testing.assert_array_equal(to_host(cleaned.dq), 16)
    profile = to_host(cleaned.profile)
    np.testing.assert_allclose(profile[..., 26:47], 1 / 21, rtol=1e-6)
    np.testing.assert_array_equal(profile[..., :26], 0)


def test_values_without_noise_have_no_outliers(on_backend):
    row = np.arange(60.0)[:, None] * np.ones(72)
    data = np.stack([np.full((60, 72), 7.0), row, 1e6 - row**2]).astype(np.float64)
    dq = np.zeros(data.shape, np.uint32)
    params = CleanOutliersParams(window_heights=(60,), outlier_threshold=1.0)
    cleaned = clean_outliers(*on_backend(data, dq), params=params)
    np.testing.assert_array_equal(to_host(cleaned.dq), 0)
    np.testing.assert_array_equal(to_host(cleaned.data), data)


def test_does_not_depend_on_the_block(rng):
    data, dq, _ = frames(rng, n_ints=5)
    whole = clean_outliers(data, dq, params=PARAMS)
    for i in range(5):
        alone = clean_outliers(data[i : i + 1], dq[i : i + 1], params=PARAMS)
        for name in ("data", "dq", "profile", "n_outliers"):
            np.testing.assert_array_equal(getattr(alone, name)[0], getattr(whole, name)[i])


def test_no_clean_only_fills_nan(on_backend, rng):
    data, dq, _ = frames(rng)
    cleaned = clean_outliers(*on_backend(data, dq), params=CleanOutliersParams(no_clean=True))
    np.testing.assert_array_equal(to_host(cleaned.data), np.where(np.isnan(data), 0, data))
    np.testing.assert_array_equal(to_host(cleaned.dq), dq)
    assert np.isnan(to_host(cleaned.profile)).all()


def test_counts_flagged_pixels_around_the_trace(on_backend, rng):
    dq = (rng.random((2, 9, 72)) < 0.2).astype(np.uint32) << rng.integers(0, 32, (2, 9, 72)).astype(
        np.uint32
    )
    counts = to_host(count_flagged(on_backend(dq)))
    for width in range(5):
        twin = (dq[:, :, 36 - width : 37 + width] > 0).sum(axis=2)
        np.testing.assert_array_equal(counts[:, :, width], twin)


def test_windows_cycle_and_are_clipped():
    assert cut_windows(416, (150, 100, 50, 40, 30, 24)) == (
        (0, 150), (150, 250), (250, 300), (300, 340), (340, 370), (370, 394), (394, 416),
    )  # fmt: skip
    assert cut_windows(7, (3,)) == ((0, 3), (3, 6), (6, 7))


@pytest.mark.parametrize("order", [0, 4])
@pytest.mark.parametrize("height", [12, 24, 40])
def test_a_low_window_cannot_flag_anything(height, order):
    limit = largest_deviation(height, order)
    data = np.zeros((1, height, 72), np.float32)
    data[0, np.arange(72) % height, np.arange(72)] = 1e4  # one point, in every place
    dq = np.zeros(data.shape, np.uint32)
    for threshold, fires in ((0.99 * limit, True), (1.01 * limit, False)):
        params = CleanOutliersParams(
            window_heights=(height,), poly_order=order, outlier_threshold=threshold
        )
        assert (clean_outliers(data, dq, params=params).dq != 0).any() == fires
    assert largest_deviation(4, 4) == 0


def test_profile_is_normalised_light(on_backend):
    model = np.array([[[1.0, 3.0, -4.0], [-1.0, 0.0, -4.0]]])
    profile = to_host(build_profile(on_backend(model), 1, 5))
    np.testing.assert_allclose(
        profile[0], [[0, 0.25, 0.75, 0, 0], [0, 1 / 3, 1 / 3, 1 / 3, 0]], rtol=1e-6
    )


def test_impossible_settings_are_named():
    for settings, name in (
        ({"window_heights": ()}, "window_heights"),
        ({"window_heights": (0,)}, "window_heights"),
        ({"dq_bits_to_mask": (32,)}, "dq_bits_to_mask"),
        ({"outlier_threshold": 0.0}, "outlier_threshold"),
        ({"outlier_threshold": 1e300}, "outlier_threshold"),
        ({"poly_order": 21}, "poly_order"),
        ({"spatial_profile_left_idx": 50}, "spatial_profile_right_idx"),
    ):
        with pytest.raises(ValueError, match=f"clean_outliers.{name}: expected"):
            CleanOutliersParams(**settings)
    with pytest.raises(ValueError, match=r"spatial_profile_right_idx: .* \(40\), got 47"):
        clean_outliers(np.ones((1, 5, 40), np.float32), np.zeros((1, 5, 40), np.uint32))


def test_no_warning_escapes_from_extreme_values(on_backend):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        data = np.zeros((1, 60, 72), np.float32)
        data[0, 10] = 1e30
        data[0, 11, ::2] = np.nan
        clean_outliers(*on_backend(data, np.zeros(data.shape, np.uint32)), params=PARAMS)
