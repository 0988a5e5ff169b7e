"""Self-calibrated linearity: finds the polynomial that bent the ramps, and equals a plain twin."""

from dataclasses import replace

import numpy as np
import pytest
from numpy.polynomial import polynomial

from miri_gpu.backend import to_host
from miri_gpu.detector import DO_NOT_USE
from miri_gpu.ramps import self_calibration
from miri_gpu.ramps.self_calibration import (
    CustomLinearityParams,
    calibrate_linearity,
    expand_linearity,
)
from miri_gpu.simulate import SimulationSettings
from miri_gpu.simulate.detector_effects import integration_samples
from miri_gpu.simulate.scene import build_scene, electron_rates
from miri_gpu.simulate.true_detector import build_detector

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
    found = calibrate_linearity(*on_backend(data, groupdq), params=params)
    coefficients = to_host(found.coefficients)
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
    coefficients = to_host(calibrate_linearity(on_backend(samples), params=params).coefficients)
    np.testing.assert_array_equal(coefficients[0], 0)
    np.testing.assert_array_equal(coefficients[1], 1)
    np.testing.assert_allclose(coefficients[2:], np.stack([TRUTH] * 4, axis=1), rtol=1e-5)


def test_each_amplifier_has_its_own(on_backend, rng):
    linear = straight(rng)
    samples = linear.copy()
    samples[:, 12:, :, 37] = bent(linear, 2.0)[:, 12:, :, 37]
    params = CustomLinearityParams(group_idx_start_fit=0, group_idx_end_fit=12)
    coefficients = to_host(calibrate_linearity(on_backend(samples), params=params).coefficients)
    np.testing.assert_allclose(coefficients[2:, [0, 2, 3]], 0, atol=1e-15)
    assert coefficients[2, 1] > 1e-6


def test_an_amplifier_without_samples_is_nan(on_backend, rng):
    data = bent(straight(rng)).astype(np.float32)
    data[..., 36] = np.nan
    coefficients = to_host(calibrate_linearity(on_backend(data)).coefficients)
    assert np.isnan(coefficients[:, 0]).all()
    assert np.isfinite(coefficients[:, 1:]).all()
    everywhere = calibrate_linearity(on_backend(np.full((1, 50, 2, 72), np.nan, np.float32)))
    for name, values in vars(everywhere.map(to_host)).items():
        assert name[:2] in ("n_", "in") or np.isnan(values).all()
    assert not to_host(everywhere.n_ramps).any()


def test_the_joint_fit_makes_slopes_proportional_to_the_light(on_backend):
    """What decides a transit depth: after correction, bright and faint pixels are alike."""
    rng = np.random.default_rng(8)
    rates = np.geomspace(40, 600, 30)[:, None] * np.linspace(0.8, 1, 72)  # [DN per group]
    linear = 10500 + rng.uniform(-700, 700, (30, 72)) + rates * np.arange(1, 61)[:, None, None]
    photons = np.cumsum(rng.normal(0, 1, (25, 60, 30, 72)) * np.sqrt(rates / 3.1), axis=1)
    samples = linear + photons
    for _ in range(30):  # the sample whose corrected value is the linear one
        samples += linear + photons - (samples + 9.4e-7 * samples**2 + 1.9e-12 * samples**3)
    params = CustomLinearityParams(
        linear_truth="joint", highest_power=2, group_idx_start_derive=0, group_idx_end_derive=60
    )
    found = calibrate_linearity(on_backend(samples.astype(np.float32)), params=params)
    coefficients = to_host(expand_linearity(found.coefficients, 30, 72))
    corrected = samples + coefficients[2] * samples**2
    slopes = (corrected[:, -1] - corrected[:, 0]).mean(axis=0)[:, 34:39] / 59
    ratio = slopes / rates[:, 34:39]
    assert np.ptp(ratio.mean(axis=1)[::6]) < 0.004
    assert ratio.mean() == pytest.approx(1, abs=0.01)
    raw = (samples[:, -1] - samples[:, 0]).mean(axis=0)[:, 34:39] / 59 / rates[:, 34:39]
    assert np.ptp(raw.mean(axis=1)[::6]) > 0.012


# --- how well it is known

EARLY = CustomLinearityParams(  # the line through groups that the cases below leave straight
    group_idx_start_fit=0, group_idx_end_fit=12, group_idx_start_derive=12, group_idx_end_derive=50
)


def noisy(rng, rate, n_groups=50, n_straight=12):
    """Ramps of rates (n_ints, 1, n_rows, 5) [DN per group] in the trace's columns, NaN elsewhere.

    The first `n_straight` groups are not bent. Without `rng`, there is no noise.
    """
    n_ints, _, n_rows, _ = rate.shape
    shape = (n_ints, n_groups, n_rows, 5)
    electrons = 3.1 * np.broadcast_to(rate, shape)
    linear = 3000 + np.cumsum(electrons if rng is None else rng.poisson(electrons), axis=1) / 3.1
    data = np.full((n_ints, n_groups, n_rows, 72), np.nan)
    samples = np.where(np.arange(n_groups)[:, None, None] < n_straight, linear, bent(linear))
    data[..., 34:39] = samples if rng is None else samples + rng.normal(0, 6, shape)
    return data


@pytest.fixture(scope="module")
def rate():
    return np.random.default_rng(1).uniform(500, 1200, (10, 1, 10, 5))


def test_the_errors_are_right(rate):
    rng = np.random.default_rng(2)
    truth = calibrate_linearity(noisy(None, rate), params=EARLY).coefficients[2:]
    pulls, chi_square = [], []
    for _ in range(50):
        found = calibrate_linearity(noisy(rng, rate), params=EARLY)
        error = found.coefficients[2:] - truth
        pulls.append(error / found.coefficients_err[2:])
        chi_square.append(np.einsum("ka,akl,la->a", error, np.linalg.inv(found.covariance), error))
        residual_pull = (found.residual / found.residual_err)[12:]
    assert np.abs(np.mean(pulls)) < 0.15
    assert 0.85 < np.std(pulls) < 1.2  # 2.3 by the residual variance alone
    assert 2.4 < np.mean(chi_square) < 4.2  # three coefficients
    assert np.abs(residual_pull).max() < 5


JOINT = CustomLinearityParams(
    linear_truth="joint", highest_power=2, group_idx_start_derive=0, group_idx_end_derive=50
)


def test_noise_is_not_taken_for_a_bend():
    """Of faint ramps, whose noise is larger than what bends them."""
    rng = np.random.default_rng(11)
    rate = rng.uniform(1, 40, (12, 1, 40, 5))
    truth = calibrate_linearity(noisy(None, rate, n_straight=0), params=JOINT).coefficients[2]
    pulls = []
    for _ in range(12):
        found = calibrate_linearity(noisy(rng, rate, n_straight=0), params=JOINT)
        pulls.append((found.coefficients[2] - truth) / found.coefficients_err[2])
    assert np.abs(np.mean(pulls)) < 0.6  # -7 from ramps that are compared with themselves
    assert 0.7 < np.std(pulls) < 1.6


def test_the_joint_fit_is_as_the_twin_says(on_backend, rate):
    data = noisy(np.random.default_rng(5), rate, n_straight=0)
    data[4, 20, 3] = np.nan
    found = calibrate_linearity(on_backend(data), params=JOINT).map(to_host)
    own = [0, 4]  # of columns 34..38, those that amplifier 2 reads
    halves = [np.nanmedian(data[k::2][..., 34:39][..., own], axis=0) for k in (0, 1)]
    groups, products = np.arange(50), []
    for row, column in np.ndindex(10, 2):
        squares, of_lines, bends = [], [], []
        for half in halves:
            ramp = half[:, row, column]
            line = np.polyval(np.polyfit(groups, ramp, 1), groups)
            for found_squares, samples in ((squares, ramp), (of_lines, line)):
                square = (samples / 65535) ** 2
                found_squares.append(square - np.polyval(np.polyfit(groups, square, 1), groups))
            bends.append(line - ramp)
        of_others = of_lines[::-1]
        products.append(
            [sum(z @ x for z, x in zip(of_others, xs, strict=True)) for xs in (squares, bends)]
        )
    normal, right = np.sum(products, axis=0)
    assert found.coefficients[2, 2] == pytest.approx(right / normal / 65535**2, rel=1e-6)
    assert found.n_ramps.tolist() == [10, 10, 20, 10]


def test_the_covariance_is_as_the_twin_says(on_backend, rate):
    data = noisy(np.random.default_rng(3), rate)
    found = calibrate_linearity(on_backend(data), params=EARLY).map(to_host)
    own = [0, 4]  # of columns 34..38, those that amplifier 2 reads
    ramps = np.moveaxis(data[..., 34:39][..., own], 1, -1).reshape(-1, 50)
    groups = np.arange(50)
    design, target = [], []
    for ramp in ramps:
        line = np.polyval(np.polyfit(groups[:12], ramp[:12], 1), groups[12:])
        scaled = ramp[12:] / 65535
        design.append(np.stack([scaled**2, scaled**3, scaled**4], axis=1))
        target.append(line - ramp[12:])
    solution = np.linalg.lstsq(np.concatenate(design), np.concatenate(target), rcond=None)[0]
    inverse = np.linalg.inv(sum(x.T @ x for x in design))
    leverages = [np.trace(x @ inverse @ x.T) for x in design]
    scores = [
        x.T @ (x @ solution - y) / (1 - leverage)
        for x, y, leverage in zip(design, target, leverages, strict=True)
    ]
    expected = inverse @ sum(np.outer(g, g) for g in scores) @ inverse
    scale = 65535.0 ** -np.array([2, 3, 4])
    np.testing.assert_allclose(found.covariance[2], expected * np.outer(scale, scale), rtol=1e-5)
    np.testing.assert_allclose(found.coefficients_err[2:, 2], np.sqrt(np.diag(expected)) * scale,
                               rtol=1e-5)  # fmt: skip
    np.testing.assert_array_equal(found.coefficients_err[:2], 0)
    assert found.n_ramps.tolist() == [100, 100, 200, 100]
    assert found.n_rejected.tolist() == [0, 0, 0, 0]


def test_too_few_ramps_have_coefficients_but_no_errors(on_backend, rate):
    found = calibrate_linearity(on_backend(noisy(None, rate[:1, :, :3])), params=EARLY)
    found = found.map(to_host)
    assert np.isfinite(found.coefficients).all()
    assert np.isnan(found.coefficients_err[2:, [0, 1, 3]]).all()  # 3 ramps, 3 coefficients
    assert np.isfinite(found.coefficients_err[2:, 2]).all()  # two columns


def test_the_residual_shows_groups_that_took_no_part(on_backend, rate):
    data = noisy(None, rate)
    data[:, -1] += 13.0  # the last frame sits high
    groupdq = np.zeros(data.shape, np.uint8)
    groupdq[:, -1] = DO_NOT_USE
    groupdq[:, 30, 2] = DO_NOT_USE  # of one row only
    data[:, 30, 2] = 0.0
    params = CustomLinearityParams(
        group_idx_start_fit=0,
        group_idx_end_fit=12,
        group_idx_start_derive=12,
        group_idx_end_derive=40,
    )
    found = calibrate_linearity(*on_backend(data, groupdq), params=params).map(to_host)
    np.testing.assert_array_equal(found.in_fit, (np.arange(50) >= 12) & (np.arange(50) < 40))
    np.testing.assert_allclose(found.residual[12:49], 0.0, atol=0.05)
    np.testing.assert_allclose(found.residual[49], 13.0, rtol=0.3)  # times the local slope
    # the first groups were left straight: there the polynomial is what sets them off
    level = 3000 + rate.mean() * np.arange(1, 13)
    expected = polynomial.polyval(level, [0, 0, *TRUTH])
    np.testing.assert_allclose(found.residual[:12, 2], expected, rtol=0.1)


def test_leaves_out_ramps_that_a_cosmic_ray_hit(on_backend, rate):
    rng = np.random.default_rng(4)
    data = noisy(rng, rate, n_straight=0)
    truth = calibrate_linearity(noisy(None, rate, n_straight=0), params=EARLY).coefficients[2:]
    hit = rng.random(rate.shape) < 0.08
    group = rng.integers(1, 50, rate.shape)
    step = hit * rng.uniform(300, 3000, rate.shape)
    data[..., 34:39] += step * (np.arange(50)[:, None, None] >= group)
    both = {}
    for threshold in (None, 6.0):
        params = CustomLinearityParams(
            group_idx_start_fit=0,
            group_idx_end_fit=12,
            group_idx_start_derive=12,
            group_idx_end_derive=50,
            rejection_threshold=threshold,
        )
        both[threshold] = calibrate_linearity(on_backend(data), params=params).map(to_host)
    n_hit = np.array([hit[..., columns].sum() for columns in ([2], [3], [0, 4], [1])])
    rejected = both[6.0].n_rejected
    assert (np.abs(rejected - n_hit) <= 2).all()
    np.testing.assert_array_equal(both[6.0].n_ramps + rejected, [100, 100, 200, 100])
    np.testing.assert_array_equal(both[None].n_rejected, 0)
    pulls = (both[6.0].coefficients[2:] - truth) / both[6.0].coefficients_err[2:]
    assert np.abs(pulls).max() < 4
    ratio = both[None].coefficients_err[2:] / both[6.0].coefficients_err[2:]
    assert ratio.min() > 1.5


@pytest.mark.parametrize("threshold", [None, 6.0])
def test_any_number_of_ramps_is_looked_at_block_by_block(monkeypatch, on_backend, rate, threshold):
    data = noisy(np.random.default_rng(6), rate)
    data[3, 20:, 4, 36] += 5000.0
    groupdq = np.zeros(data.shape, np.uint8)
    groupdq[:, 17] = DO_NOT_USE  # dropped
    groupdq[0, 40] = DO_NOT_USE  # in one block only
    params = replace(EARLY, rejection_threshold=threshold)
    whole = calibrate_linearity(*on_backend(data, groupdq), params=params).map(to_host)
    monkeypatch.setattr(self_calibration, "_RAMPS_AT_ONCE", 3 * 10 * 5)  # of three integrations
    parts = calibrate_linearity(*on_backend(data, groupdq), params=params).map(to_host)
    for name, expected in vars(whole).items():
        np.testing.assert_allclose(vars(parts)[name], expected, rtol=1e-6, atol=1e-30, err_msg=name)


def test_straightens_the_ramps_of_the_simulated_detector():
    effects = ("cosmic_rays", "first_group", "last_group", "reset_anomaly", "emi",
               "amplifier_drifts")  # fmt: skip
    settings = SimulationSettings(
        n_ints=4, n_groups=50, n_segments=1, star_peak_rate=5500.0, **dict.fromkeys(effects, False)
    )
    silent = replace(settings, photon_noise=False, read_noise=False)
    scene, detector = build_scene(settings), build_detector(settings)

    def exposed(chosen, integration):
        rate = electron_rates(scene, integration, integration + 1)[0]
        samples, _ = integration_samples(integration, rate, detector, chosen)
        return samples[:, 350:386].astype(float)

    params = CustomLinearityParams(  # a line through much of the ramp would be bent itself
        group_idx_start_fit=0,
        group_idx_end_fit=8,
        group_idx_start_derive=0,
        group_idx_end_derive=50,
    )
    found = calibrate_linearity(np.stack([exposed(settings, i) for i in range(4)]), params=params)
    ramps, groups = exposed(silent, 0), np.arange(50.0)

    def departure(curves):
        line = polynomial.polyval(groups, polynomial.polyfit(groups, curves, 1)).T
        return np.abs(curves - line).max(axis=0)

    for column, amplifier in ((37, 1), (38, 2)):
        own = ramps[:, :, column]
        own = own[:, own[-1] > 30000]
        straightened = polynomial.polyval(own, found.coefficients[:, amplifier])
        assert own.shape[1] > 3
        assert departure(own).min() > 30
        assert (departure(straightened) < 0.4 * departure(own)).all()
    bent_residual = np.abs(polynomial.polyval(30000.0, detector.linearity[:, 37]) - 30000.0)
    assert np.nanmax(np.abs(found.residual)) < 0.1 * bent_residual


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
    with pytest.raises(ValueError, match=r"col_idx_end_used.*columns \(38\), got 39"):
        calibrate_linearity(data[..., :38])
