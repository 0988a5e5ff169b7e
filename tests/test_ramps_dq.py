"""Bad pixels: every flag reaches the pixel, only DO_NOT_USE its samples."""

import numpy as np
from ramp_cases import assert_same_ramps, ramp_model, random_dq, random_ramps, set_subarray

from miri_gpu.backend import to_host
from miri_gpu.containers import Ramps
from miri_gpu.ramps.dq import initialize_dq


def test_the_mask_reaches_pixels_and_samples(on_backend):
    mask = np.array([[0, 1, 1 << 10, 1 | 1 << 31]], dtype=np.uint32)
    ramps = Ramps(
        data=np.ones((2, 3, 1, 4), dtype=np.float32),
        groupdq=np.full((2, 3, 1, 4), 4, dtype=np.uint8),
        pixeldq=np.full((1, 4), 1 << 11, dtype=np.uint32),
    )
    flagged = initialize_dq(*on_backend(ramps, mask))
    np.testing.assert_array_equal(to_host(flagged.pixeldq), mask | 1 << 11)
    np.testing.assert_array_equal(
        to_host(flagged.groupdq), np.broadcast_to([4, 5, 4, 5], (2, 3, 1, 4))
    )
    np.testing.assert_array_equal(to_host(flagged.data), ramps.data)


def test_as_the_stsci_step(on_backend, rng):
    from jwst.dq_init.dq_initialization import do_dqinit
    from stdatamodels.jwst.datamodels import MaskModel

    ramps = random_ramps(rng)
    mask = random_dq(rng, ramps.pixeldq.shape, 1, 1 << 10, 1 << 11 | 1, 1 << 31)
    reference = MaskModel(dq=mask.copy())
    set_subarray(reference, *mask.shape)
    theirs = do_dqinit(ramp_model(ramps), reference)
    assert_same_ramps(initialize_dq(*on_backend(ramps, mask)), theirs)
