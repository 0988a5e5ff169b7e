"""Jumps found in time: equal to a plain twin, indifferent to cuts, and how many are found."""

from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
import standin

from miri_gpu.backend import to_host
from miri_gpu.containers import Ramps, Readout
from miri_gpu.detector import DO_NOT_USE, JUMP_DET, SATURATED
from miri_gpu.ramps.time_jumps import TimeJumpParams, edge_integrations, flag_time_jumps

METHODS = ("median_mad", "running_median")
GAIN, READ_NOISE = 3.1, 8.5  # e-/DN; DN of a difference


def exposure(rng, n_ints, n_groups, n_rows=4, n_cols=16, light_curve=1.0):
    """Noisy ramps of faint to bright pixels without a jump: ramps [DN], noise of a difference."""
    electrons = np.broadcast_to(np.geomspace(5.0, 3000.0, n_cols), (n_rows, n_cols))
    scale = np.broadcast_to(light_curve, n_ints)[:, None, None, None]
    size = (n_ints, n_groups, n_rows, n_cols)
    data = np.cumsum(rng.poisson(electrons * scale, size), axis=1) / GAIN
    data += rng.normal(0.0, READ_NOISE / np.sqrt(2), size)
    data += rng.normal(10000.0, 20.0, (n_ints, 1, n_rows, n_cols))
    return data, np.sqrt(electrons / GAIN**2 + READ_NOISE**2)


def as_ramps(data, groupdq=None):
    groupdq = np.zeros(data.shape, np.uint8) if groupdq is None else groupdq
    pixeldq = np.zeros(data.shape[2:], np.uint32)
    return Ramps(data=data.astype(np.float32), groupdq=groupdq, pixeldq=pixeldq)


def references(ramps):
    image = ramps.data.shape[2:]
    return np.full(image, READ_NOISE, np.float32), np.full(image, GAIN, np.float32)


def flagged(ramps, params, read_noise=None, gain=None, **keywords):
    """Which samples are flagged, on the host; read noise and gain by default the true ones."""
    if read_noise is None:
        read_noise, gain = references(ramps)
    found = flag_time_jumps(
        ramps, read_noise, gain, params=params, readout=Readout(), **keywords
    )  # fmt: skip
    return (to_host(found.groupdq) & JUMP_DET) != 0


def integrations(ramps, which):
    return replace(ramps, data=ramps.data[which], groupdq=ramps.groupdq[which])


def troubled(rng, n_ints=40, n_groups=9):
    """Ramps with jumps, unusable samples, dead pixels and useless references."""
    data, sigma = exposure(rng, n_ints, n_groups)
    hit = rng.random(data.shape) < 0.02
    data += np.cumsum(hit * rng.uniform(-20, 20, data.shape) * sigma, axis=1)
    groupdq = np.zeros(data.shape, np.uint8)
    for flag in (DO_NOT_USE, SATURATED, JUMP_DET):
        groupdq[rng.random(data.shape) < 0.02] |= flag
    groupdq[:, -1] |= DO_NOT_USE  # dropped
    groupdq[:, :, 0, 0] |= SATURATED
    groupdq[:, 2:, 0, 1] |= SATURATED  # one difference is left
    groupdq[3:, :, 0, 2] |= DO_NOT_USE
    groupdq[4:, :, 0, 3] |= DO_NOT_USE
    data[:, :, 0, 4] = np.nan
    data[::2, :, 0, 5] = np.nan
    data[rng.random(data.shape) < 0.01] = np.nan
    data[:, :, 0, 6] = 1000.0
    ramps = as_ramps(data, groupdq)
    read_noise, gain = references(ramps)
    gain[1, :3] = np.nan, 0.0, -3.0
    read_noise[1, 3:5] = np.nan, 0.0
    return ramps, read_noise, gain


# --- the slow twin


def known(values):
    return values[~np.isnan(values)]


def mad(values, centre):
    return 1.4826 * np.median(np.abs(values - centre))


def twin(ramps, read_noise, gain, params):
    data = (ramps.data * gain).astype(np.float32)
    data[(ramps.groupdq & (DO_NOT_USE | SATURATED)) != 0] = np.nan
    differences = (data[:, 1:] - data[:, :-1]).astype(float)
    flags = ramps.groupdq.copy()
    for i, k, row, col in np.ndindex(differences.shape):
        curve = differences[:, :, row, col]
        read_var = float((read_noise[row, col] * gain[row, col]) ** 2)
        if is_jump(curve, i, k, read_var, params):
            flags[i, k + 1, row, col] |= JUMP_DET
    flags[(flags & (DO_NOT_USE | SATURATED)) != 0] &= 255 - JUMP_DET
    return flags


def is_jump(curve, i, k, read_var, params):
    """Whether difference k of integration i of a pixel (n_ints, n_diffs) is a jump."""
    half = params.window // 2
    first, stop = max(i - half, 0), i + half + 1
    around = [*range(first, i), *range(i + 1, min(stop, len(curve)))]

    def departure(difference):
        own, others = curve[i, difference], known(curve[around, difference])
        if np.isnan(own) or len(others) < 3:
            return np.nan, np.nan
        if params.method == "median_mad":
            others = np.append(others, own)
        return own - np.median(others), np.median(others)

    left, median = departure(k)
    expected = np.sqrt(abs(median) + read_var)
    if not (expected > 0 and abs(left) > params.threshold * expected):
        return False
    if params.method == "median_mad":
        windows = [known(window) for window in curve[first:stop].T]
        spread = np.concatenate([w - np.median(w) for w in windows if len(w)])
        level = 0.0
    else:
        spread = known(np.array([departure(j)[0] for j in range(curve.shape[1])]))
        level = np.median(spread)
    if len(spread) < 5:
        return True
    return abs(left - level) > params.threshold * mad(spread, level)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize(("window", "n_groups"), [(5, 9), (11, 9), (7, 4)])
def test_is_as_the_twin_says(on_backend, rng, method, window, n_groups):
    params = TimeJumpParams(method=method, window=window, threshold=4.0)
    ramps, read_noise, gain = troubled(rng, n_ints=24, n_groups=n_groups)
    found = flag_time_jumps(
        *on_backend(ramps, read_noise, gain), params=params, readout=Readout()
    )  # fmt: skip
    expected = twin(ramps, read_noise, gain, params)
    np.testing.assert_array_equal(to_host(found.groupdq), expected)
    np.testing.assert_array_equal(to_host(found.data), ramps.data)
    new = (expected & ~ramps.groupdq & JUMP_DET) != 0
    assert 20 < new.sum() < 0.2 * new.size
    assert not new[:, :, 0, [0, 2, 4]].any()
    assert not new[:, :, 1, [0, 1, 3]].any()


# --- where it is cut


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("cuts", [(13, 26), (2, 5), (20, 21)])
def test_does_not_depend_on_where_the_observation_is_cut(on_backend, rng, method, cuts):
    params = TimeJumpParams(method=method, window=9, threshold=4.0)
    ramps, read_noise, gain = on_backend(*troubled(rng))
    whole = flagged(ramps, params, read_noise, gain)
    for n_edge in (4, 7):  # more than the window needs changes nothing
        assert n_edge >= edge_integrations(params)
        parts = []
        for first, stop in pairwise((0, *cuts, 40)):
            before = integrations(ramps, slice(max(first - n_edge, 0), first)) if first else None
            after = integrations(ramps, slice(stop, stop + n_edge)) if stop < 40 else None
            part = integrations(ramps, slice(first, stop))
            parts.append(flagged(part, params, read_noise, gain, before=before, after=after))
        np.testing.assert_array_equal(np.concatenate(parts), whole)


def test_without_its_neighbours_a_cut_shows():
    ramps, read_noise, gain = troubled(np.random.default_rng(1))
    params = TimeJumpParams(window=9, threshold=4.0)
    whole = flagged(ramps, params, read_noise, gain)
    alone = [flagged(integrations(ramps, s), params, read_noise, gain)
             for s in (slice(20), slice(20, None))]  # fmt: skip
    assert (np.concatenate(alone) != whole).any()


@pytest.mark.parametrize("method", METHODS)
def test_does_not_depend_on_the_block_of_rows(rng, method, monkeypatch):
    params = TimeJumpParams(method=method, threshold=4.0)
    ramps, read_noise, gain = troubled(rng)
    whole = flagged(ramps, params, read_noise, gain)
    monkeypatch.setattr("miri_gpu.ramps.time_jumps._GATHERED_SAMPLES", 700)
    for rows in (slice(0, 1), slice(1, 4)):
        block = Ramps(
            data=ramps.data[:, :, rows],
            groupdq=ramps.groupdq[:, :, rows],
            pixeldq=ramps.pixeldq[rows],
        )
        found = flagged(block, params, read_noise[rows], gain[rows])
        np.testing.assert_array_equal(found, whole[:, :, rows])


def test_dropped_groups_only_spare_work(on_backend, rng):
    ramps, read_noise, gain = troubled(rng)
    dropped = np.zeros((40, 9), bool)
    dropped[:, -1] = True
    params = TimeJumpParams(threshold=4.0)
    moved = on_backend(ramps, read_noise, gain)
    with_hint = flagged(moved[0], params, *moved[1:], dropped=on_backend(dropped))
    np.testing.assert_array_equal(with_hint, flagged(moved[0], params, *moved[1:]))


@pytest.mark.parametrize("method", METHODS)
def test_a_window_longer_than_the_observation_takes_no_more_room(on_backend, rng, method):
    ramps, read_noise, gain = troubled(rng, n_ints=9)
    params = TimeJumpParams(method=method, window=21, threshold=4.0)
    moved, there = on_backend(ramps), on_backend(read_noise, gain)
    found = flagged(moved, params, *there)
    expected = (twin(ramps, read_noise, gain, params) & JUMP_DET) != 0
    np.testing.assert_array_equal(found, expected)
    endless = replace(params, window=10**9 + 1)  # would be of terabytes
    np.testing.assert_array_equal(flagged(moved, endless, *there), found)
    cut = {"before": slice(3), "": slice(3, 5), "after": slice(5, None)}
    parts = {name: integrations(moved, which) for name, which in cut.items()}
    here = parts.pop("")
    np.testing.assert_array_equal(flagged(here, endless, *there, **parts), found[3:5])


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("n_here", [1, 6])
def test_groups_that_only_neighbours_use_are_not_lost(on_backend, rng, method, n_here):
    data, _ = exposure(rng, 14, 6, n_rows=20)
    groupdq = np.zeros(data.shape, np.uint8)
    groupdq[4 : 4 + n_here, :2] |= DO_NOT_USE
    ramps = as_ramps(data, groupdq)
    params = TimeJumpParams(method=method, window=9, threshold=2.0)  # many, for the scatter to show
    dropped = np.zeros((n_here, 6), bool)
    dropped[:, :2] = True
    whole = flagged(ramps, params)[4 : 4 + n_here]
    cut = {"before": slice(4), "": slice(4, 4 + n_here), "after": slice(4 + n_here, None)}
    parts = {name: on_backend(integrations(ramps, which)) for name, which in cut.items()}
    here, there = parts.pop(""), on_backend(*references(ramps))
    with_hint = flagged(here, params, *there, **parts, dropped=on_backend(dropped))
    np.testing.assert_array_equal(with_hint, flagged(here, params, *there, **parts))
    np.testing.assert_array_equal(with_hint, whole)
    assert whole.sum() > 20


def test_flags_that_are_there_change_nothing(rng):
    data, sigma = exposure(rng, 30, 9)
    data += np.cumsum((rng.random(data.shape) < 0.01) * 12 * sigma, axis=1)
    groupdq = (rng.random(data.shape) < 0.3) * np.uint8(JUMP_DET)
    found = flagged(as_ramps(data, groupdq), TimeJumpParams())
    expected = flagged(as_ramps(data), TimeJumpParams()) | (groupdq != 0)
    np.testing.assert_array_equal(found, expected)


# --- what is found: fractions of the jumps of so many sigma (of a difference) that are flagged

FOUND = {
    # (method, n_ints, n_groups): {amplitude: (at least, at most)}
    ("median_mad", 200, 9): {3: (0.0, 0.05), 5: (0.35, 0.55), 7: (0.88, 1), 10: (0.99, 1)},
    ("median_mad", 40, 64): {3: (0.0, 0.05), 5: (0.35, 0.55), 7: (0.92, 1), 10: (0.99, 1)},
    ("running_median", 200, 9): {3: (0.0, 0.05), 5: (0.15, 0.45), 7: (0.5, 1), 10: (0.8, 1)},
    ("running_median", 40, 64): {3: (0.0, 0.05), 5: (0.25, 0.5), 7: (0.8, 1), 10: (0.99, 1)},
}


@pytest.mark.parametrize("case", FOUND, ids=str)
def test_finds_jumps_by_their_size(case):
    method, n_ints, n_groups = case
    rng = np.random.default_rng(11)
    for amplitude, (fewest, most) in FOUND[case].items():
        data, sigma = exposure(rng, n_ints, n_groups, n_rows=6)
        hit = rng.random(data.shape) < 3e-3
        hit[:, 0] = False
        data += np.cumsum(hit * amplitude * sigma, axis=1)
        found = flagged(as_ramps(data), TimeJumpParams(method=method))
        assert hit.sum() > 400
        assert fewest <= found[hit].mean() <= most, amplitude
        assert found[~hit].mean() < 3e-5, amplitude  # the ones beside them are not blamed


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("window", [5, 15])
def test_false_alarms_are_as_rare_as_noise_allows(method, window):
    # beyond 5 sigma lies 6e-7 of normal noise, and 1e-5 of that of a few electrons
    data, _ = exposure(np.random.default_rng(12), 400, 20, n_rows=8, n_cols=24)
    found = flagged(as_ramps(data), TimeJumpParams(method=method, window=window))
    assert found.mean() < 2e-5


# --- what must not be flagged


@pytest.mark.parametrize("method", METHODS)
def test_transit_and_bent_ramps_are_no_jumps(method):
    rng = np.random.default_rng(13)
    time = np.arange(300)
    light_curve = 1 - 0.03 * ((time > 120) & (time < 180)) + 0.01 * np.exp(-time / 30)
    light_curve[200] *= 1.1  # a whole integration that differs: by 5 sigma where it is brightest
    data, _ = exposure(rng, 300, 12, n_rows=8, light_curve=light_curve)
    data -= 1e-6 * data**2  # non-linear
    data -= 200 * np.exp(-np.arange(12) / 2)[:, None, None]  # settles, the same each time
    found = flagged(as_ramps(data), TimeJumpParams(method=method))
    calm = np.ones(300, bool)
    calm[200] = False
    assert found[calm].mean() < 2e-5
    assert found[200].mean() < (0.2 if method == "median_mad" else 1e-3)


def telegraph(rng, data, p_flip, amplitude):
    """Add an offset to each ramp that comes and goes; returns where it flips."""
    flips = rng.random(data.shape) < p_flip
    state = np.cumsum(flips, axis=1) % 2
    data += amplitude * state
    flips[:, 0] = False
    return flips


@pytest.mark.parametrize("method", METHODS)
def test_pixels_that_flip_all_the_time_are_left_alone(method):
    rng = np.random.default_rng(14)
    data, sigma = exposure(rng, 60, 40, n_rows=8)
    telegraph(rng, data, 0.5, 8 * sigma)
    ramps = as_ramps(data)
    found = flagged(ramps, TimeJumpParams(method=method))
    by_noise_alone = np.abs(np.diff(data, axis=1)
                            - np.median(np.diff(data, axis=1), axis=0)) > 5 * sigma  # fmt: skip
    assert by_noise_alone.mean() > 0.3
    # the scatter of a single ramp is known less well
    assert found.mean() < {"median_mad": 1e-3, "running_median": 1e-2}[method]


@pytest.mark.parametrize("method", METHODS)
def test_rare_flips_are_found_and_nothing_else(method):
    rng = np.random.default_rng(15)
    data, sigma = exposure(rng, 60, 40, n_rows=8)
    flips = telegraph(rng, data, 0.02, 10 * sigma)
    found = flagged(as_ramps(data), TimeJumpParams(method=method))
    assert found[flips].mean() > 0.97
    assert found[~flips].mean() < 2e-5


# --- edges


@pytest.mark.parametrize("method", METHODS)
def test_judges_nothing_without_three_neighbours(on_backend, rng, method):
    data, sigma = exposure(rng, 9, 12)
    data[0, 6:] += 100 * sigma
    ramps = on_backend(as_ramps(data))
    read_noise, gain = on_backend(*references(ramps))
    params = TimeJumpParams(method=method, window=5)
    assert not flagged(ramps, params, read_noise, gain).any()
    assert flagged(ramps, replace(params, window=7), read_noise, gain)[0, 6].all()
    for n_ints in (1, 3):
        few = integrations(ramps, slice(n_ints))
        assert not flagged(few, params, read_noise, gain).any()
    no_groups = Ramps(
        data=ramps.data[:, :1], groupdq=ramps.groupdq[:, :1], pixeldq=ramps.pixeldq
    )  # fmt: skip
    assert not flagged(no_groups, params, read_noise, gain).any()


def test_the_gpu_is_waited_for_a_few_times_only():
    ramps, read_noise, gain = troubled(np.random.default_rng(16))
    ramps = ramps.map(standin.StandInArray)
    references_there = standin.StandInArray(read_noise), standin.StandInArray(gain)
    for method in METHODS:
        with standin.syncs() as count:
            flag_time_jumps(
                ramps, *references_there, params=TimeJumpParams(method=method), readout=Readout()
            )
        assert count() <= 4


def test_impossible_settings_and_shapes_are_named(rng):
    with pytest.raises(ValueError, match=r"time_jump\.window: expected an odd number, got 6"):
        TimeJumpParams(window=6)
    with pytest.raises(ValueError, match=r"time_jump\.method: expected one of median_mad"):
        TimeJumpParams(method="mean")
    ramps = as_ramps(exposure(rng, 8, 9)[0])
    other = as_ramps(exposure(rng, 4, 8)[0])
    with pytest.raises(ValueError, match=r"after: expected .*\(9, 4, 16\), got \(8, 4, 16\)"):
        flagged(ramps, TimeJumpParams(), after=other)
