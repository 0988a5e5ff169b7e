import dataclasses

import numpy as np
import pytest
from jump_fit_cases import READOUT, faultless, jwst_jump, read_only, troubled

from miri_gpu.backend import to_host
from miri_gpu.detector import DO_NOT_USE, JUMP_DET, NO_GAIN_VALUE, SATURATED
from miri_gpu.ramps.jump_search import range_by_clipping, range_by_removal
from miri_gpu.ramps.jumps import (
    JumpParams,
    clipping_limit,
    flag_jumps,
    halo_rows,
    jump_method,
    values_clipped,
)
from miri_gpu.ramps.sorted_columns import sorted_columns

PLAIN = {"rejection_threshold": 15.0, "flag_4_neighbors": False}
AFTER = {
    "after_jump_flag_dn1": 100.0,
    "after_jump_flag_time1": 0.5,
    "after_jump_flag_dn2": 800.0,
    "after_jump_flag_time2": 1.3,
}
POOLED = {"only_use_ints": False, "minimum_sigclip_groups": 20, "rejection_threshold": 3.0}

OPTIONS = ["default", "plain", "after", "pooled"]
SIZES = [(i, g) for g in (2, 3, 4, 5, 9, 12, 40) for i in (1, 3, 40, 110) if i * g < 1000]


def flag(ramps, read_noise, gain, **keywords):
    return flag_jumps(ramps, read_noise, gain, params=JumpParams(**keywords), readout=READOUT)


def frame_dropped(ramps):
    return ((ramps.groupdq & DO_NOT_USE) != 0).all(axis=(2, 3))


@pytest.mark.parametrize("keywords", [{}, PLAIN, AFTER, POOLED], ids=OPTIONS)
@pytest.mark.parametrize(("n_ints", "n_groups"), SIZES)
def test_the_flags_are_those_of_the_stsci_step(rng, n_ints, n_groups, keywords):
    pytest.importorskip("jwst")
    n_last = 1 if n_groups > 3 else 0
    case = troubled(rng, n_ints, n_groups, n_first=n_groups // 9, n_last=n_last)
    expected = jwst_jump(*case, **keywords)
    found = flag(*case, **keywords)
    np.testing.assert_array_equal(found.groupdq, expected.groupdq)
    np.testing.assert_array_equal(found.pixeldq, expected.pixeldq)


@pytest.mark.parametrize("time", [9 * READOUT.group_time_s, 2.0**31, 1e300, float("inf")])
@pytest.mark.parametrize("kind", [1, 2])
def test_all_groups_after_a_jump_can_be_flagged(rng, kind, time):
    ramps, read_noise, gain = faultless(rng, 3, 9, p_jump=0.1)
    after = {f"after_jump_flag_dn{kind}": 50.0, f"after_jump_flag_time{kind}": time}
    jumps = flag(ramps, read_noise, gain, **PLAIN).groupdq & JUMP_DET != 0
    found = flag(ramps, read_noise, gain, **PLAIN, **after).groupdq & JUMP_DET != 0
    large = jumps[:, 1:] & (np.diff(ramps.data, axis=1) > 500)
    assert large.any()
    assert found[:, 1:][np.logical_or.accumulate(large, axis=1)].all()


def test_equal_differences_are_flagged_together_as_in_the_stsci_step(rng):
    pytest.importorskip("jwst")
    ramps, read_noise, gain = faultless(rng, 3, 6, p_jump=0.1)
    ramps = dataclasses.replace(ramps, data=np.rint(ramps.data / 50) * np.float32(50))
    gain[:] = 4.0
    expected = jwst_jump(ramps, read_noise, gain)
    np.testing.assert_array_equal(flag(ramps, read_noise, gain).groupdq, expected.groupdq)


@pytest.mark.parametrize(("n_ints", "n_groups"), [(1, 40), (20, 6), (250, 4)])
def test_injected_jumps_are_found_and_little_else(rng, n_ints, n_groups):
    ramps, read_noise, gain = faultless(rng, n_ints, n_groups, n_rows=20, p_jump=0.0)
    data = ramps.data.copy()
    hit = rng.random(data.shape) < 0.2 / n_groups / n_ints  # rarely two in a pixel
    hit[:, 0] = False
    noise = np.sqrt((np.median(np.diff(data, axis=1), axis=(0, 1)) + 3 * read_noise) * 4)
    data += np.cumsum(hit * 60 * noise, axis=1).astype(np.float32)
    ramps = dataclasses.replace(ramps, data=data)
    found = (flag(ramps, read_noise, gain, **PLAIN).groupdq & JUMP_DET) != 0
    assert found[hit].mean() > 0.98
    assert found[~hit].mean() < 1e-4


def test_sigma_clipping_cannot_exceed_its_limit(rng):
    assert clipping_limit(200) == pytest.approx(14.18, abs=0.01)
    for n_ints, fires in ((200, False), (240, True)):
        ramps, read_noise, gain = faultless(rng, n_ints, 3, n_rows=2, p_jump=0.0)
        ramps.data[7, 2, 1, 5] += 30000
        found = flag(ramps, read_noise, gain, **PLAIN).groupdq
        assert bool(found[7, 2, 1, 5] & JUMP_DET) is fires is (clipping_limit(n_ints) > 15)


def test_one_value_after_the_other_is_removed(rng):
    """The fast search against a plain loop over one pixel at a time."""
    values = np.abs(rng.normal(20, 8, (9, 300))).astype(np.float32)
    values[rng.random(values.shape) < 0.2] *= 8
    values[rng.random(values.shape) < 0.2] = np.nan
    values[:, :20] = np.rint(values[:, :20] / 40) * 40
    read_var, thresholds = np.full(300, 30.0), (6.0, 5.0, 4.0)
    low, high = range_by_removal(sorted_columns(values, xp=np), read_var, thresholds, xp=np)
    expected = np.array([slow_removal(v, 30.0, thresholds) for v in values.T])
    np.testing.assert_array_equal(low, expected[:, 0])
    np.testing.assert_array_equal(high, expected[:, 1])


def slow_removal(values, read_var, thresholds):
    left = np.sort(values[~np.isnan(values)])
    while len(left) >= 2:
        rest = left[left < left.max()] if len(left) >= 4 else left
        if len(rest) == 0:
            break
        median = left.min() if len(left) == 2 else np.median(rest)
        distance = np.abs(left - median)
        limit = thresholds[min(len(left), 4) - 2]
        if distance.max() <= limit * np.sqrt(np.abs(median) + read_var):
            break
        left = left[distance < distance.max()]
    return (left.min(), left.max()) if len(left) else (np.nan, np.nan)


def test_sigma_clipping_is_that_of_astropy(rng):
    stats = pytest.importorskip("astropy.stats")
    values = rng.normal(100, 10, (120, 50)).astype(np.float32)
    values[rng.random(values.shape) < 0.1] += 70
    values[rng.random(values.shape) < 0.1] = np.nan
    low, high = range_by_clipping(sorted_columns(values, xp=np), 2.5, xp=np)
    masked = np.ma.masked_invalid(values.astype(np.float64))
    kept = ~np.ma.getmaskarray(stats.sigma_clip(masked, sigma=2.5, axis=0))
    np.testing.assert_array_equal((values >= low) & (values <= high), kept)


def test_a_block_of_rows_gives_what_the_frame_gives(rng):
    for n_ints, n_groups in ((3, 7), (2, 20), (120, 4)):
        ramps, read_noise, gain = troubled(rng, n_ints, n_groups, n_last=1, n_rows=9)
        params = JumpParams(**AFTER)
        facts = {"params": params, "readout": READOUT, "dropped": frame_dropped(ramps)}
        facts["median_gain"] = float(np.nanmedian(gain))
        whole = flag_jumps(ramps, read_noise, gain, **facts)
        halo = halo_rows(params)
        for start, stop in ((0, 1), (1, 5), (5, 9)):
            first = max(start - halo, 0)
            rows = slice(first, stop + halo)
            block = dataclasses.replace(
                ramps,
                data=ramps.data[:, :, rows],
                groupdq=ramps.groupdq[:, :, rows],
                pixeldq=ramps.pixeldq[rows],
            )
            part = flag_jumps(block, read_noise[rows], gain[rows], **facts).groupdq
            inner = slice(start - first, stop - first)
            np.testing.assert_array_equal(part[:, :, inner], whole.groupdq[:, :, start:stop])


@pytest.mark.parametrize("keywords", [{}, AFTER, POOLED], ids=["default", "after", "pooled"])
@pytest.mark.parametrize("n_ints_groups", [(3, 7), (2, 20), (120, 4)], ids=str)
def test_all_backends_agree_and_leave_their_input_alone(on_backend, rng, n_ints_groups, keywords):
    case = troubled(rng, *n_ints_groups, n_last=1)
    expected = flag(*case, **keywords)
    found = flag(*on_backend(*case), **keywords)
    np.testing.assert_array_equal(to_host(found.groupdq), expected.groupdq)
    np.testing.assert_array_equal(to_host(found.pixeldq), expected.pixeldq)
    assert found.groupdq.dtype == np.uint8
    assert found.pixeldq.dtype == np.uint32


@pytest.mark.parametrize("n_ints_groups", [(2, 6), (2, 20), (120, 4)], ids=str)
def test_nothing_usable_means_no_jumps(rng, n_ints_groups):
    ramps, read_noise, gain = faultless(rng, *n_ints_groups)
    for flags in (DO_NOT_USE, SATURATED):
        bad = dataclasses.replace(ramps, groupdq=np.full_like(ramps.groupdq, flags | JUMP_DET))
        found = flag(*read_only(bad, read_noise, gain), **AFTER)
        assert (found.groupdq == flags).all()
    nan = dataclasses.replace(ramps, data=np.full_like(ramps.data, np.nan))
    assert not flag(nan, read_noise, gain, **AFTER).groupdq.any()
    unknown = np.full_like(gain, np.nan)
    found = flag(ramps, read_noise, unknown, **AFTER)
    assert not found.groupdq.any()
    assert (found.pixeldq == NO_GAIN_VALUE | DO_NOT_USE).all()


def test_two_groups_come_back_as_they_are(rng):
    ramps, read_noise, gain = troubled(rng, 3, 2)
    assert flag(ramps, read_noise, gain) is ramps


def test_the_method_follows_the_groups_in_use():
    dropped = np.zeros((40, 64), dtype=bool)
    assert jump_method(JumpParams(), dropped) == "single_pass"
    assert jump_method(JumpParams(only_use_ints=False), dropped) == "sigma_clipping"
    assert jump_method(JumpParams(minimum_sigclip_groups=40), dropped) == "sigma_clipping"
    dropped[3, :54] = True
    assert jump_method(JumpParams(), dropped) == "iterative"
    dropped[3, :62] = True
    assert jump_method(JumpParams(), dropped) == "none"


def test_sigma_clipping_has_as_many_values_as_there_are_usable_differences():
    dropped = np.zeros((4, 8), dtype=bool)
    dropped[:, -1] = dropped[0, :3] = dropped[1, 5] = True
    assert values_clipped(JumpParams(only_use_ints=False), dropped) == 3 + 4 + 6 + 6
    assert values_clipped(JumpParams(), dropped) == 4
    assert values_clipped(JumpParams(), dropped[:2]) == 2
    dropped[:, ::2] = True
    assert values_clipped(JumpParams(), dropped) == 0 == clipping_limit(0) == clipping_limit(1)


def test_impossible_settings_are_refused():
    with pytest.raises(ValueError, match=r"jump\.expand_large_events: expected false .* got true"):
        JumpParams(expand_large_events=True)
    with pytest.raises(ValueError, match=r"jump\.find_showers"):
        JumpParams(find_showers=True)
    with pytest.raises(ValueError, match=r"jump\.rejection_threshold"):
        JumpParams(rejection_threshold=-1.0)
