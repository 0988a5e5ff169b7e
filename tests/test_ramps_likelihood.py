import dataclasses
import math
import warnings

import numpy as np
import pytest
from jump_fit_cases import READOUT, faultless, jwst_ramp_fit, read_only, troubled

from miri_gpu.backend import to_host
from miri_gpu.containers import Ramps, Rates, Readout
from miri_gpu.detector import DO_NOT_USE, JUMP_DET, NO_GAIN_VALUE, SATURATED
from miri_gpu.ramps import likelihood_pieces
from miri_gpu.ramps.likelihood import LikelihoodParams, fit_ramps_likelihood
from miri_gpu.ramps.likelihood_jumps import pair_threshold
from miri_gpu.ramps.likelihood_sweeps import photon_lag

TIME = READOUT.group_time_s
AVERAGED = Readout(group_time_s=5 * TIME, n_frames=4, group_gap=1)
RATE_NAMES = ("data", "err", "var_poisson", "var_rnoise")
FIT_NAMES = ("chi_square", "degrees_of_freedom", "groupdq")


def fit(ramps, read_noise, gain, readout=READOUT, dropped=None, dark=None, **settings):
    return fit_ramps_likelihood(
        ramps,
        read_noise,
        gain,
        params=LikelihoodParams(**settings),
        readout=readout,
        dropped=dropped,
        dark_current=dark,
    )


def plain_ramps(rng, rate_dn_s, shape, *, noise_dn=6.0, gain_value=4.0, pedestal=9000.0, gap=1):
    """Ramps of one rate: Ramps, read noise and gain; each group is `gap` frames after the last."""
    signal = rng.poisson(rate_dn_s * TIME * gap * gain_value, shape).cumsum(axis=1) / gain_value
    data = pedestal + signal + rng.normal(0, noise_dn / math.sqrt(2), shape)
    ramps = Ramps(
        data=data.astype(np.float32),
        groupdq=np.zeros(shape, dtype=np.uint8),
        pixeldq=np.zeros(shape[2:], dtype=np.uint32),
    )
    image = np.ones(shape[2:], dtype=np.float32)
    return ramps, noise_dn * image, gain_value * image


def averaged_ramps(rng, n_ints, n_groups):
    """Ramps whose groups average frames as AVERAGED says, some with jumps within a group."""
    shape, image = (n_ints, n_groups * 5, 3, 16), (3, 16)
    rate, gain, noise = rng.uniform(1, 300, image), rng.uniform(3, 5, image), 6.0
    signal = rng.poisson(rate * TIME * gain, shape) / gain
    signal += (rng.random(shape) < 0.01) * 300.0
    frames = signal.cumsum(axis=1) + rng.normal(0, noise / math.sqrt(2), shape)
    data = frames.reshape(n_ints, n_groups, 5, *image)[:, :, :4].mean(axis=2)
    ramps = Ramps(
        data=data.astype(np.float32),
        groupdq=np.zeros(data.shape, dtype=np.uint8),
        pixeldq=np.zeros(image, dtype=np.uint32),
    )
    return ramps, np.full(image, noise, dtype=np.float32), gain.astype(np.float32)


# --- the same as the LIKELY algorithm of the STScI step


def stcal_likely(ramps, read_noise, gain, readout=READOUT, dark=None, threshold=None):
    """What stcal gives for each integration: Rates, chi-square, and flags of the groups."""
    likely_fit = pytest.importorskip("stcal.ramp_fitting.likely_fit")
    from stcal.ramp_fitting.ramp_fit_class import RampData

    given = RampData()
    dark = np.zeros_like(gain) if dark is None else dark
    groupdq = ramps.groupdq.copy()
    given.set_arrays(ramps.data.copy(), groupdq, ramps.pixeldq.copy(), dark)
    given.set_meta(
        name="MIRI",
        frame_time=readout.frame_time_s,
        group_time=readout.group_time_s,
        groupgap=readout.group_gap,
        nframes=readout.n_frames,
    )
    given.flags_do_not_use, given.flags_saturated, given.flags_jump_det = 1, 2, 4
    given.rejection_threshold = threshold
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        _, each, _ = likely_fit.likely_ramp_fit(given, read_noise.copy(), gain.copy())
    names = {"slope": "data", **{name: name for name in (*RATE_NAMES[1:], "dq")}}
    rates = Rates(**{ours: each[theirs] for theirs, ours in names.items()})
    return rates, each["chisq"], groupdq


def comparable(ramps, read_noise, gain):
    """Ramps of which stcal makes something sensible; see below for the others."""
    good = ramps.groupdq == 0
    whole = (good[:, 1:] & good[:, :-1]).sum(axis=1) > 2
    whole &= np.median(np.diff(ramps.data, axis=1), axis=1) > 0  # not where it is NaN
    return whole & ((ramps.pixeldq & DO_NOT_USE) == 0) & (gain > 0) & (read_noise > 0)


def assert_agree(found, expected, where):
    """DQ the same; rates to 1e-5 (or a millionth of their error), variances to 1e-4."""
    rates, chi_square, groupdq = expected
    np.testing.assert_array_equal(found.rates.dq[where], rates.dq[where])
    jumps = np.moveaxis(found.groupdq, 1, 0)[:, where], np.moveaxis(groupdq, 1, 0)[:, where]
    np.testing.assert_array_equal(*jumps)
    for name, rtol in zip(RATE_NAMES, (1e-5, 1e-4, 1e-4, 1e-4), strict=True):
        pair = getattr(found.rates, name)[where], getattr(rates, name)[where]
        limit = 1e-6 * np.nan_to_num(rates.err[where], posinf=0.0) if name == "data" else 0.0
        assert (np.isnan(pair[0]) == np.isnan(pair[1])).all()
        assert (np.nan_to_num(abs(pair[0] - pair[1]) - rtol * abs(pair[1])) <= limit).all()
    np.testing.assert_allclose(found.chi_square[where], chi_square[where], rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(
    ("n_ints", "n_groups"), [(3, 4), (1, 5), (12, 9), (4, 12), (3, 40), (1, 100)]
)
def test_ramps_with_jumps_are_fitted_as_by_stcal(rng, n_ints, n_groups):
    case = faultless(rng, n_ints, n_groups)
    expected = stcal_likely(*case)
    assert (expected[2] & JUMP_DET).any()
    assert_agree(fit(*case), expected, comparable(*case))


@pytest.mark.parametrize("n_groups", [5, 9, 40])
@pytest.mark.parametrize("threshold", [None, 3.0])
def test_groups_that_average_frames_are_fitted_as_by_stcal(rng, n_groups, threshold):
    case = averaged_ramps(rng, 4, n_groups)
    expected = stcal_likely(*case, readout=AVERAGED, threshold=threshold)
    sigma = {} if threshold is None else {"rejection_threshold": threshold}
    found = fit(*case, readout=AVERAGED, **sigma)
    assert ((found.groupdq[:, 1:] & found.groupdq[:, :-1] & JUMP_DET) != 0).any()  # pairs
    assert_agree(found, expected, comparable(*case))


@pytest.mark.parametrize(("n_ints", "n_groups"), [(5, 6), (4, 9), (3, 40)])
@pytest.mark.parametrize("drop", [(0, 0), (1, 1)])
def test_flagged_and_saturated_ramps_are_fitted_as_by_stcal(rng, n_ints, n_groups, drop):
    case = troubled(rng, n_ints, n_groups, n_first=drop[0], n_last=drop[1])
    where = comparable(*case)
    assert where.mean() > 0.5
    assert_agree(fit(*case, as_stsci=True), stcal_likely(*case), where)


def test_dark_current_adds_its_noise_as_by_stcal(rng):
    case = faultless(rng, 3, 9)
    dark = rng.uniform(1, 50, case[1].shape).astype(np.float32)
    assert_agree(fit(*case, dark=dark), stcal_likely(*case, dark=dark), comparable(*case))


def test_the_rates_are_those_of_the_jwst_step(rng):
    pytest.importorskip("jwst")
    case = faultless(rng, 3, 12)
    found, expected = fit(*case).rates, jwst_ramp_fit(*case, algorithm="LIKELY")
    where = comparable(*case)
    assert where.mean() > 0.7
    for name in (*RATE_NAMES, "dq"):
        pair = (getattr(rates, name)[where] for rates in (found, expected))
        np.testing.assert_allclose(*pair, rtol=1e-5)


# --- where it is meant to differ


def test_dropped_groups_hardly_matter(rng):
    """The step's median is over dropped groups, too: far below the noise."""
    ramps, *noise = plain_ramps(rng, 100.0, (10, 12, 4, 32))
    ramps.groupdq[:, [0, -1]] = DO_NOT_USE
    found, expected = fit(ramps, *noise).rates, stcal_likely(ramps, *noise)[0]
    assert (abs(found.data - expected.data) < 0.01 * expected.err).mean() > 0.99


def test_ramps_that_saturate_early_keep_their_differences(rng):
    """The step's median is over the flat end, so that it finds jumps in the photon noise."""
    ramps, *noise = plain_ramps(rng, 5000.0, (1, 40, 8, 32))
    ramps.data[:, 15:] = ramps.data[:, 15:16]
    ramps.groupdq[:, 15:] = SATURATED
    found, expected = fit(ramps, *noise), stcal_likely(ramps, *noise)
    assert ((found.groupdq & JUMP_DET) != 0).sum() <= 1
    assert ((expected[2] & JUMP_DET) != 0).any(axis=1).mean() > 0.5
    assert found.rates.data.std() < 0.95 * expected[0].data.std()


def test_jumps_of_dark_ramps_are_found(rng):
    """Where six differences have a median of 0 or less, the STScI step divides 0 by 0."""
    ramps, *noise = plain_ramps(rng, 0.0, (2, 7, 4, 16))
    ramps.data[:, 4:] += 1000
    dark = np.median(np.diff(ramps.data, axis=1), axis=1) <= 0
    assert dark.any()
    assert (fit(ramps, *noise).groupdq[:, 4] & JUMP_DET).all()


def test_the_difference_after_a_flagged_jump_is_used(rng):
    case = faultless(rng, 3, 20, p_jump=0.02)
    both = fit(*case)
    flagged = dataclasses.replace(case[0], groupdq=both.groupdq)
    again = fit(flagged, *case[1:], find_jumps=False)
    assert (flagged.groupdq & JUMP_DET).any()
    np.testing.assert_array_equal(again.degrees_of_freedom, both.degrees_of_freedom)
    near = abs(again.rates.data - both.rates.data) < 0.05 * both.rates.err
    assert near.all()
    step = fit(flagged, *case[1:], find_jumps=False, as_stsci=True)
    assert (step.degrees_of_freedom < again.degrees_of_freedom).any()


def test_among_two_differences_no_jump_is_found(rng):
    ramps, *noise = plain_ramps(rng, 10.0, (2, 3, 2, 4))
    ramps.data[0, 2] += 5000
    found = fit(ramps, *noise)
    assert not found.groupdq.any()
    assert (found.chi_square[0] > 1000).all() and (found.degrees_of_freedom == 1).all()


# --- the same as a plain fit with whole matrices


def slow_fit(samples, rate, noise_dn, gain_value):
    """Generalised least squares of the samples themselves: rate, chi-square, variances."""
    times = TIME * np.arange(1, len(samples) + 1)
    photons = rate / gain_value * np.minimum(times[:, None], times)
    reading = noise_dn**2 / 2 * np.eye(len(samples))
    inverse = np.linalg.inv(photons + reading)
    design = np.stack([np.ones_like(times), times], axis=1)
    spread = np.linalg.inv(design.T @ inverse @ design)
    pedestal, slope = spread @ design.T @ inverse @ samples
    residuals = samples - pedestal - slope * times
    weights = (spread @ design.T @ inverse)[1]
    variances = [weights @ part @ weights for part in (photons, reading)]
    return slope, residuals @ inverse @ residuals, *variances


@pytest.mark.parametrize("rate_dn_s", [3.0, 100.0, 5000.0])
def test_rate_and_chi_square_are_those_of_least_squares(rng, rate_dn_s):
    ramps, *noise = plain_ramps(rng, rate_dn_s, (1, 12, 1, 20), pedestal=0.0)
    first = fit(ramps, *noise, find_jumps=False)
    guess = np.median(np.diff(ramps.data, axis=1), axis=1).clip(0) / TIME
    for pixel in range(20):
        samples = ramps.data[0, :, 0, pixel].astype(float)
        rate, *_ = slow_fit(samples, guess[0, 0, pixel], 6.0, 4.0)
        expected = slow_fit(samples, max(rate, 0.0), 6.0, 4.0)
        found = [first.rates.data, first.chi_square]
        found += [first.rates.var_poisson, first.rates.var_rnoise]
        np.testing.assert_allclose([a[0, 0, pixel] for a in found], expected, rtol=1e-5, atol=1e-4)
        assert first.rates.err[0, 0, pixel] ** 2 == pytest.approx(sum(expected[2:]), rel=1e-5)


def test_jumps_are_those_that_improve_chi_square_most(rng):
    """Each difference, or pair of them, left out in turn; matrices of what is left."""
    ramps, *noise = plain_ramps(rng, 50.0, (1, 8, 1, 40))
    ramps.data[0, rng.integers(1, 8, 40), 0, np.arange(40)] += rng.normal(0, 60, 40)
    found = fit(ramps, *noise, two_differences=True, rejection_threshold=3.0)
    for pixel in range(40):
        differences = np.diff(ramps.data[0, :, 0, pixel].astype(float))
        jumps = slow_jumps(differences, 6.0, 4.0, 3.0)
        flagged = (found.groupdq[0, 1:, 0, pixel] & JUMP_DET) != 0
        np.testing.assert_array_equal(flagged.nonzero()[0], jumps)
    assert found.groupdq.any()


def slow_jumps(differences, noise_dn, gain_value, sigma):
    n = len(differences)
    read_var = noise_dn**2 / 2
    photons = max(np.median(differences), 0) / gain_value
    covariance = np.diag(np.full(n, photons + 2 * read_var))
    covariance -= read_var * (np.eye(n, k=1) + np.eye(n, k=-1))
    left = list(range(n))

    def chi_square(kept):
        inverse = np.linalg.inv(covariance[np.ix_(kept, kept)])
        d, ones = differences[kept], np.ones(len(kept))
        return d @ inverse @ d - (ones @ inverse @ d) ** 2 / (ones @ inverse @ ones)

    for fewest in (3, *[4] * n):
        options = [([i], sigma**2) for i in left]
        options += [([i, i + 1], pair_threshold(sigma)) for i in left if i + 1 in left]
        if len(left) < fewest:
            break
        gains = [
            chi_square(left) - chi_square([k for k in left if k not in out]) - threshold
            for out, threshold in options
            if len(out) < len(left)
        ]
        if max(gains) <= 0:
            break
        left = [k for k in left if k not in options[int(np.argmax(gains))][0]]
    return sorted(set(range(n)) - set(left))


# --- known truth


@pytest.mark.parametrize("rate_dn_s", [1.0, 30.0, 1000.0, 20000.0])
@pytest.mark.parametrize("n_groups", [5, 12, 40])
def test_known_rates_come_back_with_errors_and_chi_square_of_the_right_size(
    rng, rate_dn_s, n_groups
):
    found = fit(*plain_ramps(rng, rate_dn_s, (200, n_groups, 4, 16)))
    n = found.rates.data.size
    error = found.rates.data.astype(float) - rate_dn_s
    assert abs(error.mean() / error.std()) < 4 / math.sqrt(n)
    # an error is smaller where the rate came out low, so pulls have a mean: their width is tested
    pulls = error / found.rates.err
    assert abs(pulls.std() - 1) < 0.03
    chi_square, dof = found.chi_square.astype(float), found.degrees_of_freedom
    assert abs((chi_square - dof).mean()) < 4 * math.sqrt(2 * dof.mean() / n)
    assert (chi_square - dof).std() == pytest.approx(math.sqrt(2 * dof.mean()), rel=0.05)


def test_the_bias_of_the_median_is_removed(rng):
    """Photons and read noise alike: the median biases rates, and the errors of long ramps."""
    case = plain_ramps(rng, 1.0, (4000, 9, 4, 16), noise_dn=1.0)

    def bias(**settings):
        rates = fit(*case, find_jumps=False, **settings).rates.data.astype(float)
        return (rates.mean() - 1.0) / rates.std() * math.sqrt(rates.size)

    assert bias(debias=False) > 5
    assert abs(bias()) < 3
    case = plain_ramps(rng, 1.0, (60, 40, 4, 16), noise_dn=1.0)
    rates = fit(*case, debias=False).rates
    assert ((rates.data - 1) / rates.err).std() > 1.3
    rates = fit(*case).rates
    assert ((rates.data - 1) / rates.err).std() < 1.12


def test_long_and_noisy_ramps_do_not_overflow(rng):
    for noise_dn in (1e-3, 1e4):
        found = fit(*plain_ramps(rng, 100.0, (2, 400, 2, 8), noise_dn=noise_dn, pedestal=0.0))
        assert np.isfinite(found.rates.data).all() and np.isfinite(found.rates.err).all()
        assert (found.chi_square / found.degrees_of_freedom < 1.5).all()


# Injected into the middle of ramps of 20 groups; detected where the significance of the jump, its
# amplitude over the error with which the other differences tell it, plus noise is above 4.5.
@pytest.mark.parametrize("rate_dn_s", [5.0, 100.0, 3000.0])
def test_jumps_are_found_as_often_as_their_size_says(rng, rate_dn_s):
    n_groups, at, sigma = 20, 9, 4.5
    photons, read_var = rate_dn_s * TIME / 4.0, 18.0
    covariance = (photons + 2 * read_var) * np.eye(n_groups - 1)
    covariance -= read_var * (np.eye(n_groups - 1, k=1) + np.eye(n_groups - 1, k=-1))
    inverse = np.linalg.inv(covariance)
    error = 1 / math.sqrt(inverse[at, at] - inverse[at].sum() ** 2 / inverse.sum())
    for amplitude, expected in ((0, 3e-6), (3, 0.067), (4.5, 0.5), (6, 0.933), (9, 1.0)):
        ramps, *noise = plain_ramps(rng, rate_dn_s, (20, n_groups, 4, 16))
        ramps.data[:, at + 1 :] += np.float32(amplitude * error)
        jumps = (fit(ramps, *noise, rejection_threshold=sigma).groupdq & JUMP_DET) != 0
        n = jumps[:, 0].size
        # the covariance is that of a noisy median, which blurs the threshold a little
        tolerance = 4 * math.sqrt(expected * (1 - expected) / n) + 0.03 * (0 < expected < 1)
        assert abs(jumps[:, at + 1].mean() - expected) < tolerance + 0.003
        jumps[:, at : at + 3] = False  # read noise may shift a faint one by a group
        assert jumps.mean() < 3e-4


@pytest.mark.parametrize("with_pairs", [False, True])
def test_false_alarms_are_as_rare_as_the_threshold_says(rng, with_pairs):
    case = plain_ramps(rng, 200.0, (50, 20, 4, 32))
    jumps = fit(*case, rejection_threshold=3.0, two_differences=with_pairs).groupdq != 0
    chance = math.erfc(3 / math.sqrt(2))  # of one difference; of one pair, too
    rate = jumps.any(axis=1).mean() / 19
    assert 0.7 * chance < rate < (1.9 if with_pairs else 1.1) * chance


def test_a_sample_that_is_off_spoils_two_differences(rng):
    ramps, *noise = plain_ramps(rng, 100.0, (3, 20, 4, 16))
    ramps.data[:, 8] += 100.0
    found = fit(ramps, *noise, two_differences=True)
    flagged = (found.groupdq & JUMP_DET) != 0
    assert flagged[:, [8, 9]].all() and flagged.sum() <= 2 * flagged[:, 0].size + 2
    assert abs(found.rates.data.mean() - 100) < 4 * found.rates.err.mean() / math.sqrt(192)


# --- what is unusable


def test_without_usable_samples_there_is_no_rate(rng):
    ramps, read_noise, gain = faultless(rng, 2, 6)
    no_frame_drop = np.zeros((2, 6), dtype=bool)
    for flags, dq in ((DO_NOT_USE, DO_NOT_USE), (SATURATED, DO_NOT_USE | SATURATED)):
        bad = dataclasses.replace(ramps, groupdq=np.full_like(ramps.groupdq, flags))
        assert_no_fit(fit(bad, read_noise, gain, dropped=no_frame_drop), dq)
    nothing = dataclasses.replace(ramps, data=np.full_like(ramps.data, np.nan))
    assert_no_fit(fit(nothing, read_noise, gain), DO_NOT_USE)
    assert_no_fit(fit(ramps, np.full_like(gain, np.nan), gain), DO_NOT_USE)
    for value in (np.nan, 0.0, -1.0):
        assert_no_fit(fit(ramps, read_noise, np.full_like(gain, value)), NO_GAIN_VALUE | DO_NOT_USE)
    pixels = dataclasses.replace(ramps, pixeldq=np.full_like(ramps.pixeldq, DO_NOT_USE))
    assert np.isnan(fit(pixels, read_noise, gain).rates.data).all()


def assert_no_fit(found, dq):
    assert np.isnan(found.rates.data).all()
    assert np.isnan(found.chi_square).all()
    assert not any(getattr(found.rates, name).any() for name in RATE_NAMES[1:])
    assert not found.degrees_of_freedom.any()
    assert not (found.groupdq & JUMP_DET).any()
    assert (found.rates.dq == dq).all()


def test_a_nan_spoils_two_differences_only(rng):
    ramps, *noise = plain_ramps(rng, 100.0, (2, 12, 2, 8))
    ramps.data[:, 5] = np.nan
    holed = fit(ramps, *noise)
    ramps.data[:, 5], ramps.groupdq[:, 5] = 1e4, DO_NOT_USE
    flagged = fit(ramps, *noise)
    assert (holed.degrees_of_freedom <= 8).all() and np.isfinite(holed.rates.data).all()
    for name in RATE_NAMES:
        np.testing.assert_array_equal(getattr(holed.rates, name), getattr(flagged.rates, name))


def test_too_few_groups_and_impossible_settings_are_refused(rng):
    ramps, read_noise, gain = faultless(rng, 2, 5)
    dropped = np.ones((2, 5), dtype=bool)
    with pytest.raises(ValueError, match="at least 2 groups that are in use, got 0"):
        fit(ramps, read_noise, gain, dropped=dropped)
    dropped[:, 3] = False
    with pytest.raises(ValueError, match="got 1"):
        fit(ramps, read_noise, gain, dropped=dropped)
    with pytest.raises(ValueError, match=r"likelihood\.rejection_threshold: expected a number"):
        LikelihoodParams(rejection_threshold=0.0)


def test_thresholds_and_lags_are_known():
    assert pair_threshold(4.5) == pytest.approx(23.8, abs=0.01)  # of the STScI step
    assert pair_threshold(60.0) == 3610  # its chance is too small for a number
    assert photon_lag(READOUT) == 0
    times = np.arange(1, 5) * TIME
    variance_time = ((9 - 2 * np.arange(1, 5)) * times).sum() / 16
    assert photon_lag(AVERAGED) == pytest.approx((times.mean() - variance_time) / (5 * TIME))


# --- blocks and backends


def assert_same_fits(found, expected, rows=slice(None), **tolerance):
    for name in (*RATE_NAMES, "dq"):
        a, b = getattr(found.rates, name), getattr(expected.rates, name)[:, rows]
        np.testing.assert_allclose(a, b, **{"rtol": 0, **tolerance})
        assert a.dtype == b.dtype
    for name in FIT_NAMES:
        a, b = getattr(found, name), getattr(expected, name)
        np.testing.assert_allclose(a, b[..., rows, :], **{"rtol": 0, **tolerance})
        assert a.dtype == b.dtype


def test_a_block_of_rows_gives_what_the_frame_gives(rng, monkeypatch):
    case = troubled(rng, 5, 9, n_first=1, n_last=1, n_rows=8)
    ramps, read_noise, gain = case
    dropped = ((ramps.groupdq & DO_NOT_USE) != 0).all(axis=(2, 3))
    whole = fit(*case, two_differences=True)
    for start, stop, n_samples in ((0, 1, 1 << 20), (1, 6, 300), (6, 8, 1), (0, 8, 700)):
        monkeypatch.setattr(likelihood_pieces, "_SAMPLES_ON_CPU", n_samples)
        rows = slice(start, stop)
        block = Ramps(
            data=ramps.data[:, :, rows],
            groupdq=ramps.groupdq[:, :, rows],
            pixeldq=ramps.pixeldq[rows],
        )
        part = fit(block, read_noise[rows], gain[rows], dropped=dropped, two_differences=True)
        assert_same_fits(part, whole, rows)


@pytest.mark.parametrize("settings", [{}, {"two_differences": True}, {"as_stsci": True}], ids=str)
def test_all_backends_agree_and_leave_their_input_alone(on_backend, rng, settings):
    case = troubled(rng, 3, 12, n_last=1)
    expected = fit(*case, **settings)
    on_device = fit(*on_backend(*case), **settings)
    found = dataclasses.replace(
        on_device,
        rates=on_device.rates.map(to_host),
        **{name: to_host(getattr(on_device, name)) for name in FIT_NAMES},
    )
    assert_same_fits(found, expected, rtol=1e-6)
    no_gain = (found.rates.dq & NO_GAIN_VALUE) != 0
    np.testing.assert_array_equal(no_gain, np.broadcast_to(~(case[2] > 0), no_gain.shape))


@pytest.mark.parametrize("find_jumps", [True, False])
@pytest.mark.parametrize("debias", [True, False])
def test_nothing_is_written_to(rng, find_jumps, debias):
    case = read_only(*troubled(rng, 2, 9, n_first=1))
    dropped = read_only(((case[0].groupdq & DO_NOT_USE) != 0).all(axis=(2, 3)))
    dark = read_only(np.ones_like(case[2]))
    fit(*case, dropped=dropped, dark=dark, find_jumps=find_jumps, debias=debias)
