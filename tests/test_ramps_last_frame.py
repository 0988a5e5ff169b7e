"""Last group: left out where there are enough."""

import numpy as np
import pytest
from ramp_cases import assert_same_ramps, ramp_model, random_ramps

from miri_gpu.backend import to_host
from miri_gpu.ramps.last_frame import flag_last_frame


@pytest.mark.parametrize("n_groups", [1, 2, 3, 7])
def test_as_the_stsci_step(on_backend, rng, n_groups):
    from jwst.lastframe.lastframe_sub import do_correction

    ramps = random_ramps(rng, (3, n_groups, 12, 16))
    assert_same_ramps(flag_last_frame(on_backend(ramps)), do_correction(ramp_model(ramps)))


def test_the_last_group_alone(on_backend, rng):
    ramps = random_ramps(rng)
    expected = ramps.groupdq.copy()
    expected[:, -1] |= 1
    np.testing.assert_array_equal(to_host(flag_last_frame(on_backend(ramps)).groupdq), expected)
