"""Dropped groups and integrations, and integrations cut into shorter ones."""

import numpy as np
import pytest
from ramp_cases import SHAPE, random_ramps

from miri_gpu.backend import to_host
from miri_gpu.containers import Readout
from miri_gpu.ramps.groups import (
    DropGroupsParams,
    DropIntegrationsParams,
    RegroupParams,
    drop_groups,
    drop_integrations,
    dropped_groups,
    kept_integrations,
    regroup,
    regrouped_shape,
)


def test_dropped_groups_are_flagged_and_keep_their_flags(on_backend, rng):
    ramps = random_ramps(rng)
    dropped = drop_groups(on_backend(ramps), params=DropGroupsParams(drop_groups=(0, 2, -1, 6)))
    expected = ramps.groupdq.copy()
    expected[:, [0, 2, 6]] |= 1
    np.testing.assert_array_equal(to_host(dropped.groupdq), expected)
    np.testing.assert_array_equal(to_host(dropped.data), ramps.data)


def test_no_group_need_be_dropped(rng):
    ramps = random_ramps(rng)
    kept = drop_groups(ramps, params=DropGroupsParams())
    np.testing.assert_array_equal(kept.groupdq, ramps.groupdq)


@pytest.mark.parametrize("group", [7, -8])
def test_a_group_that_does_not_exist(rng, group):
    message = rf"drop_groups\.drop_groups: expected groups from -7 to 6, .* got {group}"
    with pytest.raises(ValueError, match=message):
        drop_groups(random_ramps(rng), params=DropGroupsParams(drop_groups=(0, group)))


def test_all_groups_dropped(rng):
    params = DropGroupsParams(drop_groups=(0, 1, 2, 3, 4, 5, -1))
    with pytest.raises(ValueError, match="expected to leave at least one of 7 groups"):
        drop_groups(random_ramps(rng), params=params)


def test_dropped_integrations_are_taken_out(on_backend, rng):
    ramps = random_ramps(rng, (5, *SHAPE[1:]))
    params = DropIntegrationsParams(drop_integrations=(-1, 1))
    assert kept_integrations(5, params) == (0, 2, 3)
    kept = drop_integrations(on_backend(ramps), params=params)
    np.testing.assert_array_equal(to_host(kept.data), ramps.data[[0, 2, 3]])
    np.testing.assert_array_equal(to_host(kept.groupdq), ramps.groupdq[[0, 2, 3]])
    np.testing.assert_array_equal(to_host(kept.pixeldq), ramps.pixeldq)


def test_integrations_that_do_not_exist():
    with pytest.raises(ValueError, match=r"expected integrations from -3 to 2, .* got 3"):
        kept_integrations(3, DropIntegrationsParams(drop_integrations=(3,)))
    with pytest.raises(ValueError, match="at least one of 2 integrations, got all dropped"):
        kept_integrations(2, DropIntegrationsParams(drop_integrations=(0, -1)))


def test_regrouped_integrations_follow_in_time(on_backend, rng):
    ramps = random_ramps(rng)
    params = RegroupParams(n_groups=3)
    cut = regroup(on_backend(ramps), params=params)
    assert cut.data.shape == (*regrouped_shape(3, 7, params), *SHAPE[2:]) == (6, 3, *SHAPE[2:])
    for name in ("data", "groupdq"):
        before, after = getattr(ramps, name), to_host(getattr(cut, name))
        for i in range(3):
            np.testing.assert_array_equal(after[2 * i], before[i, :3])
            np.testing.assert_array_equal(after[2 * i + 1], before[i, 3:6])


def test_too_few_groups_to_regroup(rng):
    with pytest.raises(ValueError, match=r"regroup.n_groups: expected at most the 7 .* got 10"):
        regroup(random_ramps(rng))


def test_the_first_integration_of_the_exposure_may_lose_more(on_backend, rng):
    ramps = random_ramps(rng)
    params = DropGroupsParams(drop_groups=(0, -1), drop_groups_first_integration=(0, 1, 2))
    for first_integration, extra in ((0, [1, 2]), (1, [])):
        readout = Readout(first_integration=first_integration)
        expected = ramps.groupdq.copy()
        expected[:, [0, 6]] |= 1
        expected[0, extra] |= 1
        dropped = drop_groups(on_backend(ramps), params=params, readout=readout)
        np.testing.assert_array_equal(to_host(dropped.groupdq), expected)
        listed = dropped_groups(3, 7, params=params, readout=readout)
        assert np.flatnonzero(listed[0]).tolist() == sorted([0, *extra, 6])
        assert np.flatnonzero(listed[1]).tolist() == [0, 6]


def test_the_first_integration_must_keep_a_group(rng):
    params = DropGroupsParams(drop_groups=(0, 1, 2), drop_groups_first_integration=(3, 4, 5, 6))
    with pytest.raises(ValueError, match=r"drop_groups_first_integration: .* at least one of 7"):
        drop_groups(random_ramps(rng), params=params)
    params = DropGroupsParams(drop_groups_first_integration=(7,))
    with pytest.raises(ValueError, match=r"drop_groups_first_integration: .* got 7"):
        drop_groups(random_ramps(rng), params=params)
