"""Each effect of the simulated detector: off is off, on does what it says, noise has its size."""

from dataclasses import fields, replace

import numpy as np
import pytest

from miri_gpu.detector import FRAME_TIME_S, N_COLS, N_ROWS
from miri_gpu.simulate.detector_effects import (
    integration_samples,
    inverse_polynomial,
    polynomial,
)
from miri_gpu.simulate.settings import SimulationSettings
from miri_gpu.simulate.true_detector import build_detector
from miri_gpu.simulate.truth import rate_variance

EFFECTS = [f.name for f in fields(SimulationSettings) if f.default is True]
ALL_OFF = dict.fromkeys(EFFECTS, False)
RATE = np.full((N_ROWS, N_COLS), 500.0, np.float32)  # e-/s
DARK = np.zeros_like(RATE)


def settings_with(*effects, **options):
    """Everything off but the named effects."""
    options = {"n_groups": 8, "n_ints": 4, "seed": 5, **options}
    return SimulationSettings(**(ALL_OFF | dict.fromkeys(effects, True) | options))


def expose(settings, integration=1, rate=RATE):
    samples, _ = integration_samples(integration, rate, build_detector(settings), settings)
    return samples.astype(float)


def change(effect, integration=1, rate=RATE, **options):
    """What one effect adds to a detector without any, exact to the rounding of samples."""
    settings = settings_with(**options)
    with_effect = replace(settings, **{effect: True})
    return expose(with_effect, integration, rate) - expose(settings, integration, rate)


def test_the_ideal_detector_counts_electrons():
    samples = expose(settings_with())
    expected = 10000 + 500 / 3.1 * FRAME_TIME_S * np.arange(1, 9)
    assert np.abs(samples[:, :, 4:] - expected[:, None, None]).max() <= 0.51
    assert (samples[:, :, :4] == 10000).all()


def test_switches_cover_the_effects():
    assert len(EFFECTS) == 17
    default = SimulationSettings(n_ints=4, n_groups=8)
    reference = expose(default)
    seen = {"background", "jitter"}  # part of the scene
    for effect in set(EFFECTS) - seen - {"saturation"}:
        assert (expose(replace(default, **{effect: False})) != reference).any(), effect


def test_effects_draw_from_separate_streams():
    """Switching one random effect off leaves the other random numbers as they were."""
    both = expose(settings_with("read_noise", "photon_noise"))
    reads = change("read_noise")
    photons = expose(settings_with("photon_noise"))
    assert np.abs(both - photons - reads).max() <= 1.01


def test_photon_noise_is_poisson():
    samples = expose(settings_with("photon_noise", n_groups=20, gain=0.5))[:, :, 4:]
    electrons = np.diff(samples, axis=0) * 0.5
    expected = 500 * FRAME_TIME_S
    assert electrons.mean() == pytest.approx(expected, rel=0.002)
    assert electrons.var() == pytest.approx(expected, rel=0.01)


def test_read_noise_has_its_size():
    noise = change("read_noise", rate=DARK, read_noise_dn=9.0)
    assert noise.std() == pytest.approx(9.0, rel=0.005)
    assert abs(noise.mean()) < 0.07


def test_two_integrations_and_two_seeds_differ():
    settings = settings_with("read_noise")
    assert (expose(settings, 1) != expose(settings, 2)).any()
    assert (expose(settings, 1) != expose(replace(settings, seed=6), 1)).any()


@pytest.mark.parametrize("integration", [0, 3])
def test_interference_keeps_the_clock(integration):
    added = change("emi", integration, emi_amplitude=400.0)
    group, row, col = np.meshgrid(*(np.arange(n) for n in added.shape), indexing="ij")
    frame = integration * 9 + group  # eight groups and the reset frame
    time_s = (frame * 15904 + row * 28 + col // 4) * 1e-5
    basis = [
        f(2 * np.pi * hz * time_s) for hz in (390.625, 781.25, 1562.5) for f in (np.sin, np.cos)
    ]
    fitted, *_ = np.linalg.lstsq(np.stack(basis, -1).reshape(-1, 6), added.ravel(), rcond=None)
    amplitudes = np.hypot(fitted[::2], fitted[1::2])
    np.testing.assert_allclose(amplitudes, [400, 400 * 0.109, 400 * 0.0226], atol=0.5)
    phase = np.arctan2(fitted[1], fitted[0]) / (2 * np.pi)
    assert phase % 1 == pytest.approx(0.3, abs=1e-3)  # from the first clock of the exposure
    assert (added[..., 0] == added[..., 3]).all()  # all amplifiers see the same


def test_interference_repeats_after_eight_frames():
    weak_off = change("emi", 0, n_groups=16)
    assert np.abs(weak_off[8:] - weak_off[:8]).max() <= 2  # but for the weak 10 Hz wave


def test_cosmic_rays_are_those_listed():
    settings = settings_with("cosmic_rays", cosmic_ray_rate=3.0)
    detector = build_detector(settings)
    samples, rays = integration_samples(1, RATE, detector, settings)
    electrons = np.zeros(samples.shape)
    np.add.at(electrons, (rays.group, rays.row, rays.col), rays.electrons)
    expected = np.cumsum(electrons, axis=0) / settings.gain
    added = samples - expose(settings_with())
    assert np.abs(added - expected).max() <= 1.01
    assert len(rays.group) > 20
    assert (rays.col >= 4).all()


def test_cosmic_rays_come_at_the_rate_asked_for():
    settings = settings_with("cosmic_rays", cosmic_ray_rate=2.0, cosmic_ray_electrons=1e4)
    detector = build_detector(settings)
    hits = [integration_samples(k, RATE, detector, settings)[1] for k in range(20)]
    n_rays = sum(len(h.group) for h in hits) / 5  # a ray hits five pixels, fewer at an edge
    assert n_rays == pytest.approx(2.0 * 8 * 20, rel=0.15)


def test_the_polynomial_undoes_the_nonlinearity():
    settings = settings_with("nonlinearity", n_groups=40)
    detector = build_detector(settings)
    rate = np.full((N_ROWS, N_COLS), 20000.0, np.float32)
    samples, _ = integration_samples(1, rate, detector, settings)
    linear = polynomial(samples.astype(np.float64), detector.linearity.astype(np.float64))
    step = np.diff(linear, axis=0)[:, :, 4:]
    assert samples.max() > 45000
    assert np.abs(step - 20000 / 3.1 * FRAME_TIME_S).max() < 1.5  # rounding of two samples
    assert np.diff(samples.astype(float), axis=0)[-1, 0, 40] < 0.95 * step.mean()


def test_the_inverse_is_exact():
    settings = settings_with("nonlinearity")
    coefficients = build_detector(settings).linearity
    level = np.linspace(0, 60000, 500 * N_COLS, dtype=np.float32).reshape(5, 100, N_COLS)
    back = inverse_polynomial(polynomial(level, coefficients), coefficients)
    assert np.abs(back - level).max() < 0.02


def test_saturated_pixels_stop_above_the_threshold():
    settings = settings_with("saturation", "nonlinearity")
    detector = build_detector(settings)
    bright = np.full((N_ROWS, N_COLS), 1e6, np.float32)
    samples, _ = integration_samples(1, bright, detector, settings)
    last = samples[-1, :, 4:]
    assert (last > detector.saturation[:, 4:]).all()
    assert last.max() < 63000
    assert (samples[-1] == samples[-2]).all()
    open_end = replace(settings, saturation=False)
    unlimited, _ = integration_samples(1, bright, build_detector(open_end), open_end)
    assert (unlimited[-1, :, 4:] == 65535).all()


def test_bias_and_rows():
    bias = change("bias", rate=DARK)
    assert (bias == bias[0]).all() and 100 < bias[0].std() < 1000
    rows = change("odd_even_rows")
    assert (rows[:, ::2] == 500).all() and (rows[:, 1::2] == -500).all()


def test_first_groups_settle_faster_after_the_first_integration():
    first, later = change("first_group", 0), change("first_group", 1)
    np.testing.assert_allclose(first[:5, 0, 40], [-56, -47, -40, -33, -28], atol=1.01)
    np.testing.assert_allclose(later[:5, 0, 40], [-11, -5, -2, -1, 0], atol=1.01)
    assert not first[..., :4].any()


def test_last_frame_sits_high():
    added = change("last_group")
    assert not added[:-1].any()
    assert (added[-1, ::2, 4:] == 13).all() and (added[-1, 1::2, 4:] == 23).all()


def test_reset_anomaly_is_the_reference():
    settings = settings_with("reset_anomaly", n_groups=20)
    reset = build_detector(settings).reset
    for integration, which in ((0, 0), (1, 1), (7, 1)):
        added = change("reset_anomaly", integration, n_groups=20)
        assert np.abs(added[:16] - reset[which]).max() <= 1.01
        assert not added[16:].any()


def test_amplifiers_drift_with_their_reference_column():
    added = change("amplifier_drifts", rate=DARK, drift_dn=50.0)
    for column in range(4, N_COLS):
        np.testing.assert_array_equal(added[..., column], added[..., column % 4])
    np.testing.assert_array_equal(added[:, 0], added[:, 2])  # rows of one parity
    assert (added[:, 0, 0] != added[:, 0, 1]).any() and (added[:, 0] != added[:, 1]).any()
    assert np.diff(added[:, ::2, :4], axis=0).std() == pytest.approx(50, rel=0.5)


def test_bad_pixels_are_in_the_mask():
    detector = build_detector(settings_with("bad_pixels"))
    dead, hot = (detector.mask & bit for bit in (1 << 10, 1 << 11))
    assert (detector.sensitivity[:, 4:][dead[:, 4:] > 0] == 0).all()
    assert (detector.excess_dark[hot > 0] >= 300).all()
    assert np.count_nonzero(dead) == 30 and np.count_nonzero(hot) == 60
    assert ((detector.mask & 1) > 0).sum() == 90
    assert not (detector.mask[tuple(detector.unknown.T)] & 1).any()
    assert not (build_detector(settings_with()).mask[:, 4:]).any()


def test_dark_and_flat():
    settings = settings_with("dark", dark_rate=300.0, gain=0.1)
    dark = build_detector(settings).dark
    added = change("dark", dark_rate=300.0, gain=0.1, n_groups=2)
    assert np.abs(added[1] - dark * 2 * FRAME_TIME_S / 0.1).max() <= 1.01
    flat = build_detector(settings_with("flat")).flat
    assert flat[:, 4:].std() == pytest.approx(0.015, rel=0.05)
    assert (flat[:, :4] == 1).all()


@pytest.mark.parametrize("rate_dn_s", [0.0, 30.0, 3000.0])
def test_predicted_variance_of_a_slope_is_the_measured_one(rate_dn_s, rng):
    """Against many ramps and the weights written out by hand."""
    n_groups, read_noise, gain = 9, 6.0, 3.1
    predicted = rate_variance(
        np.array(rate_dn_s), gain=gain, n_groups=n_groups, read_noise_dn=read_noise
    )
    steps = rng.poisson(rate_dn_s * gain * FRAME_TIME_S, (40000, n_groups)) / gain
    ramps = np.cumsum(steps, axis=1) + read_noise * rng.standard_normal((40000, n_groups))
    signal = rate_dn_s * gain * FRAME_TIME_S * (n_groups - 1)
    ratio = signal / np.sqrt((read_noise * gain) ** 2 + signal)
    power = {0.0: 0.0, 30.0: 0.4, 3000.0: 10.0}[rate_dn_s]
    assert {0.0: ratio < 5, 30.0: 5 <= ratio < 10, 3000.0: ratio >= 100}[rate_dn_s]
    offset = np.arange(n_groups) - 4.0
    weight = np.abs(offset / 4) ** power
    slopes = (ramps * weight * offset).sum(axis=1) / (weight * offset**2).sum() / FRAME_TIME_S
    assert slopes.var() == pytest.approx(float(predicted), rel=0.03)
