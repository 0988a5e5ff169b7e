"""Ramps with everything that can happen to them, and the STScI steps that run on the same ramps."""

import warnings

import numpy as np

from miri_gpu.containers import Ramps, Rates, Readout
from miri_gpu.detector import AD_FLOOR, DO_NOT_USE, FRAME_TIME_S, JUMP_DET, SATURATED

READOUT = Readout()
PERSISTENCE = 32


def faultless(rng, n_ints, n_groups, n_rows=6, n_cols=16, *, p_jump=0.03):
    """Noisy ramps of bright and faint pixels without flags, some with jumps.

    Returns ramps, read noise [DN] and gain [e-/DN]; all arrays can be written to.
    """
    image, cube = (n_rows, n_cols), (n_ints, n_groups, n_rows, n_cols)
    rate = rng.choice([0.5, 5.0, 50.0, 500.0, 3000.0], image) * rng.uniform(0.5, 1.5, image)
    gain, read_noise = rng.uniform(3.0, 5.5, image), rng.uniform(4.0, 8.0, image)
    signal = rng.poisson(rate * FRAME_TIME_S * gain, cube) / gain
    signal += (rng.random(cube) < p_jump) * rng.exponential(500.0, cube)
    data = np.cumsum(signal, axis=1) + rng.normal(0.0, read_noise / np.sqrt(2), cube)
    data += rng.normal(10000.0, 20.0, (n_ints, 1, *image))
    ramps = Ramps(
        data=data.astype(np.float32),
        groupdq=np.zeros(cube, dtype=np.uint8),
        pixeldq=np.zeros(image, dtype=np.uint32),
    )
    return ramps, read_noise.astype(np.float32), gain.astype(np.float32)


def troubled(rng, n_ints, n_groups, *, n_first=0, n_last=0, **sizes):
    """The same, saturated, flagged at random, with dead pixels and useless references.

    `n_first` and `n_last` groups are dropped on the whole frame.
    """
    ramps, read_noise, gain = faultless(rng, n_ints, n_groups, **sizes)
    data, groupdq, pixeldq = ramps.data, ramps.groupdq, ramps.pixeldq
    saturated = np.maximum.accumulate(data > np.quantile(data, 0.97), axis=1)
    groupdq[saturated] |= SATURATED
    rare = ((0.01, DO_NOT_USE), (0.01, PERSISTENCE), (0.005, JUMP_DET), (0.003, AD_FLOOR),
            (0.005, AD_FLOOR | DO_NOT_USE))  # fmt: skip
    for probability, flag in rare:
        groupdq[rng.random(groupdq.shape) < probability] |= flag
    flag_whole_ramps(groupdq)
    pixeldq[1, :3] = DO_NOT_USE, 1 << 10, 1 << 11
    gain[1, 3:6] = 0.0, np.nan, -1.0
    read_noise[1, 6] = 0.0
    data[:, :, 1, 7] = np.nan
    data[:, -1, 1, 8] = np.nan
    data[:, 0, 1, 9] = np.nan
    data[:, :, 1, 10] = 1000.0
    read_noise[1, 11] = np.nan
    groupdq[:, :n_first] |= DO_NOT_USE
    groupdq[:, n_groups - n_last :] |= DO_NOT_USE
    return ramps, read_noise, gain


def flag_whole_ramps(groupdq):
    """Give the pixels of the first row one pattern of flags each."""
    groupdq[:, :, 0, 0] |= DO_NOT_USE
    groupdq[:, :, 0, 1] |= SATURATED
    groupdq[:, 0, 0, 2] |= SATURATED
    groupdq[:, 1:, 0, 3] |= SATURATED
    groupdq[:, 1:, 0, 4] |= DO_NOT_USE
    groupdq[:, 2:, 0, 5] |= SATURATED
    groupdq[:, :, 0, 6] |= JUMP_DET
    groupdq[:, 1:, 0, 7] |= JUMP_DET
    groupdq[:, ::2, 0, 8] |= DO_NOT_USE
    groupdq[:, 1::2, 0, 9] |= DO_NOT_USE
    groupdq[0, :, 0, 10] |= SATURATED


def read_only(*things):
    """Protect arrays, and containers of arrays, from being written to; the same objects."""
    for thing in things:
        arrays = vars(thing).values() if isinstance(thing, (Ramps, Rates)) else (thing,)
        for array in arrays:
            array.flags.writeable = False
    return things if len(things) > 1 else things[0]


def jwst_jump(ramps, read_noise, gain, **keywords):
    """What the STScI jump step gives: Ramps."""
    from jwst.jump import JumpStep

    model = _run(JumpStep, ramps, read_noise, gain, keywords)
    return Ramps(data=ramps.data, groupdq=model.groupdq, pixeldq=model.pixeldq)


def jwst_ramp_fit(ramps, read_noise, gain, **keywords):
    """What the STScI ramp_fit step gives for each integration: Rates, or None."""
    from jwst.ramp_fitting import RampFitStep

    _, model = _run(RampFitStep, ramps, read_noise, gain, keywords)
    if model is None:
        return None
    names = ("data", "err", "var_poisson", "var_rnoise", "dq")
    return Rates(**{name: np.array(getattr(model, name)) for name in names})


def _run(step, ramps, read_noise, gain, keywords):
    from stdatamodels.jwst import datamodels

    model = _placed(
        datamodels.RampModel(
            data=ramps.data.copy(), groupdq=ramps.groupdq.copy(), pixeldq=ramps.pixeldq.copy()
        )
    )
    exposure = model.meta.exposure
    exposure.nints, exposure.ngroups = ramps.data.shape[:2]
    exposure.nframes, exposure.groupgap, exposure.drop_frames1 = READOUT.n_frames, 0, 0
    exposure.group_time, exposure.frame_time = READOUT.group_time_s, READOUT.frame_time_s
    step = step(
        override_gain=_placed(datamodels.GainModel(data=gain.copy())),
        override_readnoise=_placed(datamodels.ReadnoiseModel(data=read_noise.copy())),
        **keywords,
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return step.process(model)  # not run(), which asks CRDS even where nothing is needed


def _placed(model):
    """Say that a model covers the frame at hand, so that nothing is cut from it."""
    model.meta.instrument.name = "MIRI"
    subarray = model.meta.subarray
    subarray.xstart, subarray.ystart, subarray.fastaxis, subarray.slowaxis = 1, 1, 1, 2
    subarray.ysize, subarray.xsize = model.data.shape[-2:]
    return model
