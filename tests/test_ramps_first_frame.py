"""First group: left out, but where a pixel is too bright to spare it."""

import numpy as np
import pytest
from ramp_cases import assert_same_ramps, ramp_model, random_ramps

from miri_gpu.backend import to_host
from miri_gpu.containers import Ramps
from miri_gpu.detector import DO_NOT_USE, SATURATED
from miri_gpu.ramps.first_frame import FirstFrameParams, flag_first_frame
from miri_gpu.ramps.rscd import FLUX_ESTIMATED


@pytest.mark.parametrize("bright_use_group1", [True, False])
@pytest.mark.parametrize("n_groups", [1, 2, 3, 4, 7])
def test_as_the_stsci_step(on_backend, rng, n_groups, bright_use_group1):
    from jwst.firstframe.firstframe_sub import do_correction

    ramps = random_ramps(rng, (3, n_groups, 12, 16))
    params = FirstFrameParams(bright_use_group1=bright_use_group1)
    theirs = do_correction(ramp_model(ramps), bright_use_group1=bright_use_group1)
    assert_same_ramps(flag_first_frame(on_backend(ramps), params=params), theirs)


def test_bright_pixels_keep_their_first_group(on_backend):
    groupdq = np.zeros((2, 5, 1, 3), dtype=np.uint8)
    groupdq[1, 2:, 0, 1] = SATURATED
    groupdq[:, 3:, 0, 2] = SATURATED
    ramps = Ramps(
        data=np.full(groupdq.shape, np.nan, dtype=np.float32),
        groupdq=groupdq,
        pixeldq=np.zeros((1, 3), dtype=np.uint32),
    )
    flagged = flag_first_frame(on_backend(ramps))
    expected = groupdq.copy()
    expected[:, 0] = DO_NOT_USE
    expected[1, 0, 0, 1] = 0
    np.testing.assert_array_equal(to_host(flagged.groupdq), expected)
    np.testing.assert_array_equal(to_host(flagged.pixeldq), [[0, FLUX_ESTIMATED, 0]])
