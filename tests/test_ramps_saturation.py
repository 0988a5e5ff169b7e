"""Saturation: from the first full sample on, grown into neighbours, as the STScI step does."""

import numpy as np
import pytest
from ramp_cases import SHAPE, assert_same_ramps, ramp_model, random_dq, random_ramps, set_subarray

from miri_gpu.backend import to_host
from miri_gpu.containers import Ramps, Readout
from miri_gpu.detector import AD_FLOOR, DO_NOT_USE, NO_SAT_CHECK, SATURATED
from miri_gpu.ramps.saturation import SaturationParams, flag_saturation, halo_pixels


def plain_ramps(data):
    data = np.asarray(data, dtype=np.float32)
    return Ramps(
        data=data,
        groupdq=np.zeros(data.shape, dtype=np.uint8),
        pixeldq=np.zeros(data.shape[2:], dtype=np.uint32),
    )


def references(rng, shape):
    threshold = rng.uniform(30000, 60000, shape).astype(np.float32)
    threshold[rng.uniform(size=shape) < 0.05] = np.nan
    return threshold, random_dq(rng, shape, NO_SAT_CHECK, 1, 1 << 10)


def stsci_step(ramps, threshold, threshold_dq, params, readout):
    from jwst.saturation import saturation
    from stdatamodels.jwst.datamodels import SaturationModel

    reference = SaturationModel(data=threshold.copy(), dq=threshold_dq.copy())
    set_subarray(reference, *threshold.shape)
    model = ramp_model(ramps, readout)
    return saturation.flag_saturation(model, reference, params.n_pix_grow_sat, params.use_readpatt)


def test_charge_spills_over_the_frame_at_most():
    with pytest.raises(ValueError, match=r"saturation.n_pix_grow_sat: .* at most 415\), got 416"):
        SaturationParams(n_pix_grow_sat=416)
    data = np.full((1, 2, 8, 80), 1000.0)
    data[0, 1, 2, 2] = 60000
    limit, dq = np.full((8, 80), 5e4, np.float32), np.zeros((8, 80), np.uint32)
    ours = flag_saturation(
        plain_ramps(data), limit, dq, params=SaturationParams(n_pix_grow_sat=415)
    )
    assert (ours.groupdq[0, 1] == SATURATED).all() and not ours.groupdq[0, 0].any()


@pytest.mark.parametrize("use_readpatt", [True, False])
@pytest.mark.parametrize("n_pix_grow_sat", [0, 1, 2])
@pytest.mark.parametrize("n_frames", [1, 4])
def test_as_the_stsci_step(on_backend, rng, n_frames, n_pix_grow_sat, use_readpatt):
    params = SaturationParams(n_pix_grow_sat=n_pix_grow_sat, use_readpatt=use_readpatt)
    readout = Readout(n_frames=n_frames)
    for shape in (SHAPE, (2, 1, 8, 10), (1, 2, 9, 40), (2, 3, 30, 10)):
        ramps = random_ramps(rng, shape)
        threshold, threshold_dq = references(rng, ramps.pixeldq.shape)
        theirs = stsci_step(ramps, threshold, threshold_dq, params, readout)
        ours = flag_saturation(
            *on_backend(ramps, threshold, threshold_dq), params=params, readout=readout
        )
        assert_same_ramps(ours, theirs)


def test_hidden_saturation_is_found(rng):
    """The cases that only averaged frames have do occur in the comparison above."""
    data = np.full((1, 3, 8, 10), 1000.0)
    data[0, :, 2, 2] = 1000, 46000, 60000  # reached full within its second group
    data[0, :, 5, 5] = 1000, 13500, 60000  # jumped in the last of its second group's frames
    threshold = np.full((8, 10), 50000, dtype=np.float32)
    none = np.zeros((8, 10), dtype=np.uint32)
    params, readout = SaturationParams(n_pix_grow_sat=0), Readout(n_frames=4)
    ramps = plain_ramps(data)
    flagged = flag_saturation(ramps, threshold, none, params=params, readout=readout)
    assert flagged.groupdq[0, 1, 2, 2] == DO_NOT_USE
    assert flagged.groupdq[0, 1, 5, 5] == DO_NOT_USE
    assert np.count_nonzero(flagged.groupdq) == 4
    assert_same_ramps(flagged, stsci_step(ramps, threshold, none, params, readout))


def test_flags_stay_and_spill_to_the_edges(on_backend):
    data = np.full((1, 4, 5, 6), 1000.0)
    data[0, 2, 0, 0] = 50000  # one sample only: the flag stays in all after it
    data[0, 1, 3, 3] = -1.0
    data[0, 1, 4, 5] = np.nan
    ramps, threshold = plain_ramps(data), np.full((5, 6), 50000, dtype=np.float32)
    threshold[4, 0] = np.nan
    none = np.zeros((5, 6), dtype=np.uint32)
    flagged = flag_saturation(*on_backend(ramps, threshold, none))
    expected = np.zeros(data.shape, dtype=np.uint8)
    expected[0, 2:, :2, :2] = SATURATED
    expected[0, 1, 3, 3] = AD_FLOOR | DO_NOT_USE
    np.testing.assert_array_equal(to_host(flagged.groupdq), expected)
    np.testing.assert_array_equal(np.argwhere(to_host(flagged.pixeldq)), [[4, 0]])
    assert to_host(flagged.pixeldq)[4, 0] == NO_SAT_CHECK


def test_nothing_but_nan_is_no_saturation(on_backend):
    ramps = plain_ramps(np.full((2, 3, 4, 5), np.nan))
    nothing = np.full((4, 5), np.nan, dtype=np.float32), np.zeros((4, 5), dtype=np.uint32)
    flagged = flag_saturation(*on_backend(ramps, *nothing))
    assert not to_host(flagged.groupdq).any()


@pytest.mark.parametrize("n_frames", [1, 4])
@pytest.mark.parametrize("n_pix_grow_sat", [0, 1, 3])
def test_blocks_of_rows_with_a_halo_give_the_same(rng, n_pix_grow_sat, n_frames):
    params, readout = SaturationParams(n_pix_grow_sat=n_pix_grow_sat), Readout(n_frames=n_frames)
    ramps = random_ramps(rng, (3, 6, 40, 12))
    threshold, threshold_dq = references(rng, (40, 12))
    whole = flag_saturation(ramps, threshold, threshold_dq, params=params, readout=readout)
    n_halo = halo_pixels(params, readout)
    for start in range(0, 40, 10):
        first, last = max(start - n_halo, 0), min(start + 10 + n_halo, 40)
        block = Ramps(
            data=ramps.data[:, :, first:last],
            groupdq=ramps.groupdq[:, :, first:last],
            pixeldq=ramps.pixeldq[first:last],
        )
        part = flag_saturation(
            block, threshold[first:last], threshold_dq[first:last], params=params, readout=readout
        )
        own = slice(start - first, start - first + 10)
        np.testing.assert_array_equal(
            part.groupdq[:, :, own], whole.groupdq[:, :, start : start + 10]
        )
