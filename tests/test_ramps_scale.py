"""Group scale: only a divisor that is not the number of frames changes the data."""

import numpy as np
import pytest
from ramp_cases import assert_same_ramps, ramp_model, random_ramps

from miri_gpu.containers import Readout
from miri_gpu.ramps.scale import scale_groups


@pytest.mark.parametrize(
    ("n_frames", "divisor", "factor"),
    [(1, 1, None), (4, None, None), (5, None, None), (5, 8, 1.6), (1, 4, 4.0)],
)
def test_as_the_stsci_step(on_backend, rng, n_frames, divisor, factor):
    from jwst.group_scale import GroupScaleStep

    readout = Readout(n_frames=n_frames, frame_divisor=divisor)
    ramps = random_ramps(rng)
    ours = scale_groups(on_backend(ramps), readout)
    assert_same_ramps(ours, GroupScaleStep().process(ramp_model(ramps, readout)), rtol=1e-7)
    expected = ramps.data if factor is None else ramps.data * np.float32(factor)
    assert_same_ramps(ours, ramp_model(type(ramps)(**{**vars(ramps), "data": expected})), rtol=1e-7)
