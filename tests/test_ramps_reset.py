"""Reset: which integration of the reference is subtracted from which of the exposure."""

import numpy as np
import pytest
from ramp_cases import SHAPE, assert_same_ramps, ramp_model, random_dq, random_ramps

from miri_gpu.backend import to_host
from miri_gpu.containers import Readout
from miri_gpu.ramps.reset import subtract_reset


@pytest.mark.parametrize("first_integration", [0, 1, 5])
@pytest.mark.parametrize("reference_shape", [(1, 4), (2, 4), (4, 7), (2, 20)])
def test_as_the_stsci_step(on_backend, rng, reference_shape, first_integration):
    from jwst.reset.reset_sub import do_correction
    from stdatamodels.jwst.datamodels import ResetModel

    ramps, readout = random_ramps(rng), Readout(first_integration=first_integration)
    reset = rng.normal(0, 50, (*reference_shape, *SHAPE[2:])).astype(np.float32)
    reset[0, 1, 3, 4] = np.nan
    reset_dq = random_dq(rng, SHAPE[2:], 1, 1 << 14)
    reference = ResetModel(data=reset.copy(), dq=reset_dq.copy())
    reference.meta.exposure.nints, reference.meta.exposure.ngroups = reference_shape
    theirs = do_correction(ramp_model(ramps, readout), reference)
    ours = subtract_reset(*on_backend(ramps, reset, reset_dq), readout=readout)
    assert_same_ramps(ours, theirs)


def test_later_groups_and_integrations(on_backend, rng):
    ramps = random_ramps(rng)
    reset = np.stack([np.full((2, *SHAPE[2:]), 8.0), np.full((2, *SHAPE[2:]), 2.0)])
    none = np.zeros(SHAPE[2:], dtype=np.uint32)
    ours = subtract_reset(*on_backend(ramps, reset.astype(np.float32), none))
    expected = ramps.data.copy()
    expected[0, :2] -= np.float32(8)
    expected[1:, :2] -= np.float32(2)
    np.testing.assert_array_equal(to_host(ours.data), expected)
