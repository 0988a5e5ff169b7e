"""Self-calibrated linearity: finds the polynomial that bent the ramps, and equals a plain twin."""

import numpy as np
import pytest

from miri_gpu.backend import to_host
from miri_gpu.ramps.self_calibration import (
    CustomLinearityParams,
    calibrate_linearity,
    expand_linearity,
)

TRUTH = np.array([1.2e-6, 3e-12, 2e-17])  # c2, c3, c4


def bent(linear, scale=1.0):
    """Samples whose polynomial is `linear`, by Newton's method."""
    c2, c3, c4 = TRUTH * scale
    samples = linear.copy()
    for _ in range(30):
        value = samples + c2 * samples**2 + c3 * samples**3 + c4 * samples**4
        slope = 1 + 2 * c2 * samples + 3 * c3 * samples**2 + 4 * c4 * samples**3
        samples -= (value - linear) / slope
    return samples


def straight(rng, n_ints=3, n_groups=50, n_rows=12):
    rate = rng.uniform(300, 1000, (n_ints, 1, n_rows, 72))
    return 3000 + rate * np.arange(n_groups)[:, None, None]


def twin(data, bad, params):
    n_groups = data.shape[1]
    groups = np.arange(n_groups)
    in_fit = groups[params.group_idx_start_fit : params.group_idx_end_fit]
    in_derive = groups[params.group_idx_start_derive : params.group_idx_end_derive]
    coefficients = np.zeros((5, 4))
    coefficients[1] = 1
    samples, truths = [[] for _ in range(4)], [[] for _ in range(4)]
    for column in range(34, 39):
        for i in range(data.shape[0]):
            for row in range(data.shape[2]):
                ramp, use = data[i, :, row, column].astype(float), ~bad[i, :, row, column]
                fit = in_fit[use[in_fit]]
                derive = in_derive[use[in_derive]]
                line = np.polyfit(fit, ramp[fit], 1)
                samples[column % 4].extend(ramp[derive])
                truths[column % 4].extend(np.polyval(line, derive))
    for amplifier in range(4):
        x, f = np.array(samples[amplifier]), np.array(truths[amplifier])
        scaled = x / 65535
        powers = np.stack([scaled**2, scaled**3, scaled**4], axis=1)
        solution = np.linalg.lstsq(powers, f - x, rcond=None)[0]
        coefficients[2:, amplifier] = solution / 65535.0 ** np.array([2, 3, 4])
    return coefficients


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("derive", [(10, -1), (5, 50)])
def test_is_as_the_twin_says(on_backend, rng, dtype, derive):
    params = CustomLinearityParams(group_idx_start_derive=derive[0], group_idx_end_derive=derive[1])
    data = (bent(straight(rng)) + rng.normal(0, 6, (3, 50, 12, 72))).astype(dtype)
    groupdq = np.zeros(data.shape, np.uint8)
    groupdq[rng.random(data.shape) < 0.02] = 1
    groupdq[:, 45:, :4] = 2
    groupdq[:, 20:30] |= 4  # a jump flag changes nothing
    data[0, 12, 3, 35] = np.nan
    bad = (groupdq & 3 != 0) | ~np.isfinite(data)
    coefficients = to_host(calibrate_linearity(*on_backend(data, groupdq), params=params))
    np.testing.assert_allclose(coefficients, twin(data, bad, params), rtol=1e-7)


def test_finds_the_polynomial_that_bent_the_ramps(on_backend):
    # the fitted part is straight, so the line through it is the truth
    rng = np.random.default_rng(5)
    linear = straight(rng, n_ints=4)
    samples = np.where(np.arange(50)[:, None, None] < 12, linear, bent(linear))
    params = CustomLinearityParams(
        group_idx_start_fit=0,
        group_idx_end_fit=12,
        group_idx_start_derive=12,
        group_idx_end_derive=50,
    )
    coefficients = to_host(calibrate_linearity(on_backend(samples), params=params))
    np.testing.assert_array_equal(coefficients[0], 0)
    np.testing.assert_array_equal(coefficients[1], 1)
    np.testing.assert_allclose(coefficients[2:], np.stack([TRUTH] * 4, axis=1), rtol=1e-5)


def test_each_amplifier_has_its_own(on_backend, rng):
    linear = straight(rng)
    samples = linear.copy()
    samples[:, 12:, :, 37] = bent(linear, 2.0)[:, 12:, :, 37]
    params = CustomLinearityParams(group_idx_start_fit=0, group_idx_end_fit=12)
    coefficients = to_host(calibrate_linearity(on_backend(samples), params=params))
    np.testing.assert_allclose(coefficients[2:, [0, 2, 3]], 0, atol=1e-15)
    assert coefficients[2, 1] > 1e-6


def test_an_amplifier_without_samples_is_nan(on_backend, rng):
    data = bent(straight(rng)).astype(np.float32)
    data[..., 36] = np.nan
    coefficients = to_host(calibrate_linearity(on_backend(data)))
    assert np.isnan(coefficients[:, 0]).all()
    assert np.isfinite(coefficients[:, 1:]).all()
    everywhere = calibrate_linearity(on_backend(np.full((1, 50, 2, 72), np.nan, np.float32)))
    assert np.isnan(to_host(everywhere)).all()


def test_expands_to_the_pixels(on_backend, rng):
    coefficients = rng.normal(size=(5, 4))
    expanded = to_host(expand_linearity(on_backend(coefficients), 6, 72))
    assert expanded.shape == (5, 6, 72)
    assert expanded.dtype == np.float32
    for column in range(72):
        expected = coefficients[:, column % 4].astype(np.float32) if column >= 4 else np.zeros(5)
        np.testing.assert_array_equal(expanded[:, 2, column], expected)


def test_impossible_ranges_are_named():
    data = np.ones((1, 20, 2, 72), np.float32)
    with pytest.raises(ValueError, match=r"group_idx_start_fit.*at least 2 of the 5 groups"):
        calibrate_linearity(data[:, :5])
    with pytest.raises(ValueError, match=r"group_idx_start_derive.* got 10:3"):
        calibrate_linearity(data, params=CustomLinearityParams(group_idx_end_derive=3))
    with pytest.raises(ValueError, match="at least 39 columns, got 38"):
        calibrate_linearity(data[..., :38])
