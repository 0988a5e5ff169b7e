"""RSCD: how many first groups each pixel loses, in the first and in later integrations."""

import numpy as np
import pytest
from ramp_cases import SHAPE, assert_same_ramps, ramp_model, random_ramps

from miri_gpu.backend import to_host
from miri_gpu.containers import Ramps, Readout
from miri_gpu.detector import DO_NOT_USE, SATURATED
from miri_gpu.ramps.rscd import FLUX_ESTIMATED, RscdParams, flag_rscd, skipped_groups


def saturating_ramps(rng, shape=SHAPE) -> Ramps:
    """Ramps of which many pixels saturate, at any group, and stay so, as they do on a detector."""
    ramps = random_ramps(rng, shape)
    n_ints, n_groups, *frame = shape
    full_at = rng.integers(0, 3 * n_groups, (n_ints, 1, *frame))
    saturated = np.arange(n_groups)[:, None, None] >= full_at
    groupdq = ramps.groupdq & ~np.uint8(SATURATED) | saturated.astype(np.uint8) * SATURATED
    return Ramps(data=ramps.data, groupdq=groupdq, pixeldq=ramps.pixeldq)


def stsci_step(ramps, group_skip, readout):
    from jwst.rscd.rscd_sub import do_correction
    from stdatamodels.jwst.datamodels import RSCDModel

    columns = [
        ("subarray", "S17"),
        ("readpatt", "S12"),
        ("group_skip1", "i4"),
        ("group_skip", "i4"),
    ]
    rows = [("FULL", "FASTR1", 9, 9), ("SLITLESSPRISM", "FASTR1", *group_skip)]
    model = ramp_model(ramps, readout)
    model.meta.subarray.name, model.meta.exposure.readpatt = "SLITLESSPRISM", "FASTR1"
    model.meta.exposure.nints = readout.first_integration + ramps.data.shape[0]
    return do_correction(model, RSCDModel(rscd_group_skip_table=np.array(rows, dtype=columns)))


@pytest.mark.parametrize("first_integration", [0, 1, 40])
@pytest.mark.parametrize("group_skip", [(5, 4), (2, 6), (0, 0), (12, 1), (-1, 3)])
def test_as_the_stsci_step(on_backend, rng, group_skip, first_integration):
    readout = Readout(first_integration=first_integration)
    for n_ints, n_groups in ((3, 2), (2, 3), (2, 5), (1, 6), (4, 7), (3, 9), (2, 20)):
        ramps = saturating_ramps(rng, (n_ints, n_groups, 9, 10))
        theirs = stsci_step(ramps, group_skip, readout)
        ours = flag_rscd(on_backend(ramps), group_skip, readout=readout)
        assert_same_ramps(ours, theirs)


def slow_twin(groupdq, first, later, first_integration):
    """Pixel by pixel, from the rules."""
    groupdq, estimated = groupdq.copy(), np.zeros(groupdq.shape[2:], dtype=bool)
    for i in range(groupdq.shape[0]):
        for row, col in np.ndindex(groupdq.shape[2:]):
            ramp = groupdq[i, :, row, col]
            n_skipped = first if i + first_integration == 0 else later
            saturated = np.flatnonzero(ramp & SATURATED)
            if len(saturated) and 0 < saturated[0] < n_skipped + 2:
                estimated[row, col] |= max(saturated[0] - 2, 0) < n_skipped
                n_skipped = max(saturated[0] - 2, 0)
            ramp[:n_skipped] |= DO_NOT_USE
    return groupdq, estimated


def test_as_the_slow_twin(on_backend, rng):
    ramps = saturating_ramps(rng, (3, 12, 9, 10))
    flagged = flag_rscd(on_backend(ramps), (5, 4))
    groupdq, estimated = slow_twin(ramps.groupdq, 5, 4, 0)
    np.testing.assert_array_equal(to_host(flagged.groupdq), groupdq)
    np.testing.assert_array_equal((to_host(flagged.pixeldq) & FLUX_ESTIMATED) != 0, estimated)


def test_two_groups_are_left_before_saturation():
    groupdq = np.zeros((2, 10, 1, 5), dtype=np.uint8)
    for col, full_at in enumerate((0, 1, 3, 6, 7)):
        groupdq[:, full_at:, 0, col] = SATURATED
    ramps = Ramps(
        data=np.full(groupdq.shape, np.nan, dtype=np.float32),
        groupdq=groupdq,
        pixeldq=np.zeros((1, 5), dtype=np.uint32),
    )
    flagged = flag_rscd(ramps, (5, 4))
    lost = (flagged.groupdq & DO_NOT_USE).sum(axis=1)[:, 0]
    np.testing.assert_array_equal(lost, [[5, 0, 1, 4, 5], [4, 0, 1, 4, 4]])
    np.testing.assert_array_equal(flagged.pixeldq[0] != 0, [False, True, True, True, False])


def test_settings_take_the_place_of_the_reference(rng):
    ramps = saturating_ramps(rng)
    own = flag_rscd(ramps, params=RscdParams(group_skip1=3, group_skip=1))
    assert_same_ramps(own, stsci_step(ramps, (3, 1), Readout()))
    assert skipped_groups(40, (5, 4), params=RscdParams(group_skip1=12)) == (12, 4)
    assert skipped_groups(9, (5, 4)) == (5, 4)
    assert skipped_groups(7, (5, 4)) == (4, 4)
    with pytest.raises(ValueError, match=r"rscd\.group_skip: expected a number .* got nothing"):
        flag_rscd(ramps, params=RscdParams(group_skip1=3))
