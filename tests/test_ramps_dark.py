"""Dark: which integration and frames of the reference are subtracted from which groups."""

import numpy as np
import pytest
from ramp_cases import SHAPE, assert_same_ramps, ramp_model, random_dq, random_ramps

from miri_gpu.backend import to_host
from miri_gpu.containers import Readout
from miri_gpu.ramps.dark import subtract_dark


def stsci_step(ramps, dark, dark_dq, readout):
    from stcal.dark_current.dark_sub import do_correction
    from stdatamodels.jwst.datamodels import DarkMIRIModel

    dq = np.zeros((dark.shape[0], 1, *dark.shape[2:]), dtype=np.uint32)
    dq[-1, 0] = dark_dq
    reference = DarkMIRIModel(data=dark.copy(), dq=dq)
    exposure = reference.meta.exposure
    exposure.nframes, exposure.ngroups, exposure.groupgap = 1, dark.shape[1], 0
    return do_correction(ramp_model(ramps, readout), reference)[0]


@pytest.mark.parametrize(
    "readout",
    [
        Readout(),
        Readout(first_integration=1),
        Readout(first_integration=40),
        Readout(n_frames=2),
        Readout(n_frames=3, group_gap=1),
        Readout(n_frames=1, group_gap=2),
    ],
    ids=str,
)
@pytest.mark.parametrize("reference_shape", [(1, 7), (2, 40), (2, 4), (5, 2)])
def test_as_the_stsci_step(on_backend, rng, reference_shape, readout):
    ramps = random_ramps(rng)
    dark = np.cumsum(rng.normal(5, 2, (*reference_shape, *SHAPE[2:])), axis=1).astype(np.float32)
    dark[0, 1, 3, 4] = dark[-1, -1, 8, 8] = np.nan
    dark_dq = random_dq(rng, SHAPE[2:], 1, 1 << 23)
    theirs = stsci_step(ramps, dark, dark_dq, readout)
    ours = subtract_dark(*on_backend(ramps, dark, dark_dq), readout=readout)
    # theirs is in double precision once it had to extrapolate
    assert_same_ramps(ours, theirs, rtol=3e-7, atol=1e-4)
    n_frames_needed = SHAPE[1] * (readout.n_frames + readout.group_gap) - readout.group_gap
    if reference_shape[1] >= n_frames_needed and readout.n_frames == 1 and not readout.group_gap:
        assert_same_ramps(ours, theirs)


def test_a_short_dark_is_extrapolated(on_backend, rng):
    ramps = random_ramps(rng)
    dark = np.broadcast_to(
        np.array([7.0, 10.0, 12.0], dtype=np.float32)[None, :, None, None], (2, 3, *SHAPE[2:])
    )
    none = np.zeros(SHAPE[2:], dtype=np.uint32)
    ours = subtract_dark(*on_backend(ramps, dark, none))
    ramp = np.array([7, 10, 12, 14, 16, 18, 20], dtype=np.float32)[:, None, None]
    np.testing.assert_array_equal(to_host(ours.data), ramps.data - ramp)


def test_one_frame_cannot_be_extrapolated(on_backend, rng):
    ramps = random_ramps(rng)
    dark = np.zeros((1, 1, *SHAPE[2:]), dtype=np.float32)
    none = np.zeros(SHAPE[2:], dtype=np.uint32)
    with pytest.raises(ValueError, match=r"dark: expected 7 frames, or at least 2 .* got 1"):
        subtract_dark(*on_backend(ramps, dark, none))
