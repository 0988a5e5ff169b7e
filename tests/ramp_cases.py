"""Ramps with all that goes wrong on a detector, and the same ramps as models of STScI's steps."""

import numpy as np

from miri_gpu.backend import to_host
from miri_gpu.containers import Ramps, Readout

SHAPE = (3, 7, 12, 16)


def random_ramps(rng, shape=SHAPE) -> Ramps:
    """Ramps with jumps, saturated, dead, hot and NaN pixels, and flags that steps before left."""
    n_ints, n_groups, n_rows, n_cols = shape
    slope = rng.uniform(0, 9000, (n_ints, 1, n_rows, n_cols))
    slope[:, :, 2, 3] = 0.0  # dead
    slope[:, :, 4, 5] = 60000.0  # hot
    data = 9000 + slope * np.arange(1, n_groups + 1)[:, None, None]
    jumps = rng.uniform(size=shape) < 0.02
    data += np.cumsum(np.where(jumps, rng.uniform(1000, 30000, shape), 0), axis=1)
    data += rng.normal(0, 10, shape)
    data = np.minimum(data, 65535)
    data[0, n_groups // 2, 5, 7] = data[-1, :, 6, 8] = np.nan
    data[0, n_groups // 3, 7, 9] = -3.0
    data[:, :, 2, 3] = 0.0
    bits = rng.choice([0, 0, 0, 0, 0, 1, 2, 4, 64], shape)
    return Ramps(
        data=data.astype(np.float32),
        groupdq=np.where(rng.uniform(size=shape) < 0.03, bits, 0).astype(np.uint8),
        pixeldq=rng.choice([0, 0, 0, 1, 1 << 10, 1 << 21], shape[2:]).astype(np.uint32),
    )


def random_dq(rng, shape, *flags: int) -> np.ndarray:
    """Flags of a reference file: most pixels good, the others one of some flags."""
    return rng.choice([0] * 20 + list(flags), shape).astype(np.uint32)


def ramp_model(ramps: Ramps, readout: Readout | None = None):
    """The same ramps as a model that STScI's steps take."""
    from stdatamodels.jwst import datamodels

    readout = readout or Readout()
    model = datamodels.RampModel(
        data=ramps.data.copy(), groupdq=ramps.groupdq.copy(), pixeldq=ramps.pixeldq.copy()
    )
    n_ints, n_groups, n_rows, n_cols = ramps.data.shape
    exposure = model.meta.exposure
    exposure.nints, exposure.ngroups = n_ints, n_groups
    exposure.nframes, exposure.groupgap = readout.n_frames, readout.group_gap
    exposure.frame_divisor = readout.frame_divisor
    exposure.integration_start = readout.first_integration + 1
    exposure.integration_end = readout.first_integration + n_ints
    model.meta.exposure.type = "MIR_LRS-SLITLESS"
    model.meta.instrument.name, model.meta.instrument.detector = "MIRI", "MIRIMAGE"
    set_subarray(model, n_rows, n_cols)
    return model


def set_subarray(model, n_rows: int, n_cols: int) -> None:
    """Say that a model lies in the lower left corner of the detector."""
    model.meta.instrument.name = "MIRI"
    model.meta.subarray.xstart = model.meta.subarray.ystart = 1
    model.meta.subarray.xsize, model.meta.subarray.ysize = n_cols, n_rows


def assert_same_ramps(ours: Ramps, model, rtol=0.0, atol=0.0) -> None:
    """Our ramps have the flags of STScI's model, and its data to the given tolerance."""
    np.testing.assert_array_equal(to_host(ours.groupdq), model.groupdq)
    np.testing.assert_array_equal(to_host(ours.pixeldq), model.pixeldq)
    np.testing.assert_allclose(to_host(ours.data), model.data, rtol=rtol, atol=atol)
    assert ours.data.dtype == np.float32
    assert ours.groupdq.dtype == np.uint8
    assert ours.pixeldq.dtype == np.uint32
