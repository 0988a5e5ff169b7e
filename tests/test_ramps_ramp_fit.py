import dataclasses
import itertools

import numpy as np
import pytest
from jump_fit_cases import (
    PERSISTENCE,
    READOUT,
    faultless,
    jwst_ramp_fit,
    read_only,
    troubled,
)

from miri_gpu.backend import to_host
from miri_gpu.containers import Ramps
from miri_gpu.detector import DO_NOT_USE, JUMP_DET, NO_GAIN_VALUE, SATURATED
from miri_gpu.ramps.jumps import JumpParams, flag_jumps
from miri_gpu.ramps.ramp_fit import RampFitParams, fit_ramps
from miri_gpu.ramps.ramp_segments import find_segments

TIME = READOUT.group_time_s
CASES = [(i, g, 0, g > 2) for g in (2, 3, 4, 5, 9, 12, 40) for i in (1, 3, 40, 150) if i * g < 500]
CASES += [(3, g, *drop) for g in (6, 12) for drop in ((0, 0), (1, 1), (2, 2))]


def fit(ramps, read_noise, gain, dropped=None, **keywords):
    params = RampFitParams(**keywords)
    return fit_ramps(ramps, read_noise, gain, params=params, readout=READOUT, dropped=dropped)


def with_jumps(ramps, read_noise, gain):
    params = JumpParams()
    return flag_jumps(ramps, read_noise, gain, params=params, readout=READOUT), read_noise, gain


def assert_agree(found, expected):
    """DQ the same, slopes to 1e-5 (or a millionth of their error), variances to 1e-5."""
    np.testing.assert_array_equal(found.dq, expected.dq)
    atol = 1e-6 * np.nan_to_num(expected.err) + 1e-7
    assert np.array_equal(np.isnan(found.data), np.isnan(expected.data))
    difference = np.abs(np.nan_to_num(found.data) - np.nan_to_num(expected.data))
    assert (difference <= atol + 1e-5 * np.abs(np.nan_to_num(expected.data))).all()
    for name in ("err", "var_poisson", "var_rnoise"):
        np.testing.assert_allclose(getattr(found, name), getattr(expected, name), rtol=1e-5)


@pytest.mark.parametrize(("n_ints", "n_groups", "n_first", "n_last"), CASES)
def test_the_rates_are_those_of_the_stsci_step(rng, n_ints, n_groups, n_first, n_last):
    pytest.importorskip("jwst")
    case = with_jumps(*troubled(rng, n_ints, n_groups, n_first=n_first, n_last=n_last))
    assert_agree(fit(*case), jwst_ramp_fit(*case))


@pytest.mark.parametrize(("n_ints", "n_groups"), [(1, 2), (1, 9), (3, 4), (40, 5)])
def test_ramps_of_one_group_are_those_of_the_stsci_step(rng, n_ints, n_groups):
    pytest.importorskip("jwst")
    case = with_jumps(*troubled(rng, n_ints, n_groups))
    found = fit(*case, suppress_one_group=False)
    assert np.isfinite(found.data[:, 0, 4]).all()  # only the first group is good
    assert_agree(found, jwst_ramp_fit(*case, suppress_one_group=False))
    assert np.isnan(fit(*case).data[:, 0, 4]).all()


@pytest.mark.parametrize(
    "limits", [{"firstgroup": 2}, {"lastgroup": 6}, {"firstgroup": 1, "lastgroup": 7}]
)
def test_group_limits_are_those_of_the_stsci_step(rng, limits):
    pytest.importorskip("jwst")
    case = with_jumps(*troubled(rng, 4, 9))
    assert_agree(fit(*case, **limits), jwst_ramp_fit(*case, **limits))


# The step chooses the weights of a ramp by its own noisy rise, which biases rates where the choice
# is open: here by 2 % of their error at 30 DN/s.
@pytest.mark.parametrize(
    ("rate_dn_s", "bias"), [(1.0, 0.0), (30.0, 0.02), (1000.0, 0.0), (20000.0, 0.0)]
)
def test_known_rates_come_back_with_errors_of_the_right_size(rng, rate_dn_s, bias):
    n_ints, n_groups, gain_value, noise_dn = 400, 12, 4.0, 6.0
    shape = (n_ints, n_groups, 4, 16)
    signal = rng.poisson(rate_dn_s * TIME * gain_value, shape).cumsum(axis=1) / gain_value
    data = signal + rng.normal(0, noise_dn / np.sqrt(2), shape) + 9000
    ramps = Ramps(
        data=data.astype(np.float32),
        groupdq=np.zeros(shape, dtype=np.uint8),
        pixeldq=np.zeros(shape[2:], dtype=np.uint32),
    )
    image = np.ones(shape[2:], dtype=np.float32)
    rates = fit(ramps, noise_dn * image, gain_value * image)
    pulls = (rates.data - rate_dn_s) / rates.err
    assert abs(pulls.mean() - bias) < 4 / np.sqrt(pulls.size)
    # the step adds the Poisson variance of one weighting to the read-noise variance of another
    assert 0.97 < pulls.std() < 1.07


def test_jumps_are_bridged(rng):
    ramps, read_noise, gain = faultless(rng, 3, 20, p_jump=0.0)
    hit = rng.random(ramps.data.shape) < 0.1
    hit[:, 0] = False
    straight = np.float32(200 * TIME) * np.arange(20, dtype=np.float32)[:, None, None]
    data = straight + np.cumsum(hit * np.float32(1000), axis=1, dtype=np.float32)
    groupdq = np.where(hit, np.uint8(JUMP_DET), np.uint8(0))
    rates = fit(Ramps(data=data, groupdq=groupdq, pixeldq=ramps.pixeldq), read_noise, gain)
    np.testing.assert_allclose(rates.data, 200, rtol=1e-4)
    np.testing.assert_array_equal(rates.dq, np.where(hit.any(axis=1), JUMP_DET, 0))


def test_segments_are_those_of_a_plain_search():
    """Every ramp of six samples that are good, a jump or unusable, against a loop over strings."""
    words = ["".join(word) for word in itertools.product("gju", repeat=6)]
    bits = {"g": 0, "j": JUMP_DET, "u": DO_NOT_USE}
    groupdq = np.array([[bits[c] for c in word] for word in words], dtype=np.uint8).T
    start, length = find_segments(groupdq, xp=np)
    for k, word in enumerate(words):
        expected = slow_segments(word)
        found = sorted(
            {(int(s), int(n)) for s, n in zip(start[:, k], length[:, k], strict=True) if n}
        )
        assert found == expected, word
    persistent = groupdq | np.uint8(PERSISTENCE)
    np.testing.assert_array_equal(find_segments(persistent, xp=np)[1], length)


def slow_segments(word):
    found, g = [], 0
    while g < len(word):
        if word[g] != "g":
            g += 1
            continue
        stop = g
        while stop < len(word) and word[stop] == "g":
            stop += 1
        start = g - 1 if g > 0 and word[g - 1] == "j" else g
        found.append((start, stop - start))
        g = stop
    longer = [segment for segment in found if segment[1] > 1]
    return longer or found[:1]


def test_a_block_of_rows_gives_what_the_frame_gives(rng):
    case = troubled(rng, 3, 9, n_first=1, n_last=1, n_rows=8)
    ramps, read_noise, gain = with_jumps(*case)
    dropped = ((ramps.groupdq & DO_NOT_USE) != 0).all(axis=(2, 3))
    whole = fit(ramps, read_noise, gain)
    for start, stop in ((0, 1), (1, 6), (6, 8)):
        rows = slice(start, stop)
        block = Ramps(
            data=ramps.data[:, :, rows],
            groupdq=ramps.groupdq[:, :, rows],
            pixeldq=ramps.pixeldq[rows],
        )
        part = fit(block, read_noise[rows], gain[rows], dropped)
        for name in ("data", "err", "var_poisson", "var_rnoise", "dq"):
            np.testing.assert_array_equal(getattr(part, name), getattr(whole, name)[:, rows])


@pytest.mark.parametrize("n_ints_groups", [(3, 9), (1, 2), (2, 40)], ids=str)
def test_all_backends_agree_and_leave_their_input_alone(on_backend, rng, n_ints_groups):
    case = with_jumps(*troubled(rng, *n_ints_groups, n_last=1 if n_ints_groups[1] > 3 else 0))
    expected = fit(*case)
    found = fit(*on_backend(*case)).map(to_host)
    for name in ("data", "err", "var_poisson", "var_rnoise"):
        assert getattr(found, name).dtype == np.float32
        np.testing.assert_allclose(getattr(found, name), getattr(expected, name), rtol=1e-6)
    assert found.dq.dtype == np.uint32
    np.testing.assert_array_equal(found.dq, expected.dq)


def test_limits_and_dropped_groups_leave_the_input_alone(rng):
    ramps, read_noise, gain = read_only(*troubled(rng, 2, 9, n_first=1))
    dropped = read_only(((ramps.groupdq & DO_NOT_USE) != 0).all(axis=(2, 3)))
    fit(ramps, read_noise, gain, dropped, firstgroup=2, lastgroup=6)


def test_without_usable_samples_there_is_no_rate(rng):
    ramps, read_noise, gain = faultless(rng, 2, 5)
    no_frame_drop = np.zeros((2, 5), dtype=bool)
    for flags, dq in ((DO_NOT_USE, DO_NOT_USE), (SATURATED, DO_NOT_USE | SATURATED)):
        bad = dataclasses.replace(ramps, groupdq=np.full_like(ramps.groupdq, flags))
        rates = fit(bad, read_noise, gain, no_frame_drop)
        assert np.isnan(rates.data).all()
        assert not (rates.err.any() or rates.var_poisson.any() or rates.var_rnoise.any())
        assert (rates.dq == dq).all()
    rates = fit(ramps, read_noise, np.full_like(gain, np.nan))
    assert np.isnan(rates.data).all()
    assert (rates.dq == NO_GAIN_VALUE | DO_NOT_USE).all()


def test_dark_current_adds_its_noise_only(rng):
    ramps, read_noise, gain = faultless(rng, 2, 8)
    dark = np.full_like(gain, 50.0)
    params = RampFitParams()
    plain = fit(ramps, read_noise, gain)
    dark = fit_ramps(ramps, read_noise, gain, params=params, readout=READOUT, dark_current=dark)
    np.testing.assert_array_equal(dark.data, plain.data)
    more = (dark.var_poisson - plain.var_poisson) * TIME * gain * 7
    np.testing.assert_allclose(more, 50, rtol=1e-3)


def test_too_few_groups_are_refused(rng):
    ramps, read_noise, gain = faultless(rng, 2, 5)
    dropped = np.ones((2, 5), dtype=bool)
    with pytest.raises(ValueError, match="at least 2 groups that are in use, got 0"):
        fit(ramps, read_noise, gain, dropped)
    dropped[:, 3] = False
    with pytest.raises(ValueError, match="got 1"):
        fit(ramps, read_noise, gain, dropped)


def test_impossible_settings_are_refused():
    with pytest.raises(
        ValueError, match=r"ramp_fit\.firstgroup: expected less than lastgroup \(3\)"
    ):
        RampFitParams(firstgroup=3, lastgroup=3)
    with pytest.raises(ValueError, match=r"ramp_fit\.algorithm: expected one of OLS_C, LIKELY"):
        RampFitParams(algorithm="OLS")
