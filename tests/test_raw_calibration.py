"""Raw samples calibrated in one pass: bit by bit what the steps give one after the other."""

from dataclasses import replace

import numpy as np
import pytest
from kernel_cases import *  # noqa: F403
from ramp_cases import random_dq

from miri_gpu import kernels, raw_calibration
from miri_gpu.area import Area
from miri_gpu.calibration import Calibration
from miri_gpu.containers import Ramps, Readout
from miri_gpu.detector import DO_NOT_USE, NO_LIN_CORR, NO_SAT_CHECK
from miri_gpu.ramp_steps import Block, FrameCorrections, apply_steps, cut_ramps
from miri_gpu.raw_calibration import RawCalibration
from miri_gpu.raw_samples import decode_samples, encoded_samples
from miri_gpu.recipe import named_recipe

N_INTS, N_GROUPS, N_ROWS, N_COLS = 5, 9, 11, 20
RECIPES = {
    "bright": {},
    "first groups too": {"drop_groups": {"drop_groups_first_integration": [0, 1]}},
    "wide spill": {"saturation": {"n_pix_grow_sat": 3}},
    "no spill": {"saturation": {"n_pix_grow_sat": 0}},
    "no saturation": {"saturation": {"skip": True}},
    "nothing but the samples": {
        step: {"skip": True}
        for step in ("dq_init", "saturation", "reset", "drop_groups", "linearity", "dark_current")
    },
    "dark alone": {step: {"skip": True} for step in ("reset", "drop_groups", "linearity")},
}
INNER = Area(slice(3, N_ROWS - 3), slice(2, N_COLS - 1))  # beside what spills over


def raw_samples(rng):
    """Samples as they lie on disk, some full and some at the floor."""
    rise = rng.uniform(0, 12000, (N_INTS, 1, N_ROWS, N_COLS))
    samples = 9000 + np.arange(1, N_GROUPS + 1)[:, None, None] * rise
    samples[rng.uniform(size=samples.shape) < 0.01] = 0
    samples = np.clip(samples, 0, 65535).astype(np.uint16)
    return (samples ^ 0x8000).view(np.int16).astype(">i2")


def block_of(rng, recipe, first_integration) -> Block:
    image = (N_ROWS, N_COLS)

    def flags(*bits):
        return random_dq(rng, image, *bits)

    def cube(n):
        return rng.normal(0, 30, (3, n, *image)).astype(np.float32)

    powers = np.array([3.0, 1.0, 1e-6])[:, None, None]
    threshold = rng.uniform(40000, 60000, image).astype(np.float32)
    threshold[rng.uniform(size=image) < 0.05] = np.nan
    calibration = Calibration(
        mask=flags(DO_NOT_USE, 1 << 10),
        saturation=threshold,
        saturation_dq=flags(NO_SAT_CHECK),
        reset=cube(4),
        reset_dq=flags(DO_NOT_USE),
        linearity=(powers * rng.uniform(0.9, 1.1, (3, *image))).astype(np.float32),
        linearity_dq=flags(NO_LIN_CORR),
        dark=cube(N_GROUPS),
        dark_dq=flags(DO_NOT_USE),
        gain=np.full(image, 3.1, np.float32),
    )
    return Block(
        recipe=named_recipe("bright").updated(RECIPES[recipe], "a test"),
        calibration=calibration,
        readout=Readout(first_integration=first_integration, segment_start=0),
        dropped=np.zeros((N_INTS, N_GROUPS), dtype=bool),
        median_gain=3.1,
        frames=FrameCorrections(),
    )


def one_after_the_other(raw, block, stop) -> Ramps:
    data = decode_samples(raw, xp=np)
    ramps = Ramps(
        data=data,
        groupdq=np.zeros(data.shape, np.uint8),
        pixeldq=np.zeros(data.shape[2:], np.uint32),
    )
    ramps = cut_ramps(apply_steps(ramps, block, stop="reset"), INNER)
    return apply_steps(ramps, block.cut(INNER), start="reset", stop=stop)


def at_once(raw, block, stop, passes) -> Ramps:
    calibrate = RawCalibration.of(block, INNER, (N_INTS, N_GROUPS), stop, xp=np)
    shape = (N_INTS, N_GROUPS, *INNER.shape)
    ramps = Ramps(
        data=np.empty(shape, np.float32),
        groupdq=np.empty(shape, np.uint8),
        pixeldq=calibrate.correction.pixeldq,
    )
    for ints in passes:
        part = replace(ramps, data=ramps.data[ints], groupdq=ramps.groupdq[ints])
        calibrate(raw[ints], ints.start, part, xp=np)
    return ramps


@pytest.mark.parametrize("recipe", RECIPES)
@pytest.mark.parametrize("stop", ["linearity", "time_jump"])
@pytest.mark.parametrize("first_integration", [0, 1, 7])
def test_at_once_is_one_after_the_other(
    rng, kernel_xp, monkeypatch, recipe, stop, first_integration
):
    on_disk = raw_samples(rng)
    on_disk.flags.writeable = False
    raw = encoded_samples(on_disk)
    block = block_of(rng, recipe, first_integration)
    monkeypatch.setenv(kernels.ENVIRONMENT_VARIABLE, "0")
    expected = one_after_the_other(raw, block, stop)
    monkeypatch.delenv(kernels.ENVIRONMENT_VARIABLE)

    launch = kernels.launch
    monkeypatch.setattr(
        kernels, "launch", lambda xp, *arguments, **kw: launch(kernel_xp, *arguments, **kw)
    )
    for passes in ([slice(0, N_INTS)], [slice(0, 2), slice(2, N_INTS)]):
        found = at_once(raw, block, stop, passes)
        for name, array in vars(expected).items():
            np.testing.assert_array_equal(getattr(found, name), array, err_msg=name)
            assert getattr(found, name).dtype == array.dtype
    if recipe == "bright" and stop == "time_jump":
        assert len(np.unique(expected.groupdq)) > 4


def test_other_steps_and_samples_go_the_long_way(rng, monkeypatch):
    monkeypatch.setattr(kernels, "available", lambda xp: True)
    block = block_of(rng, "bright", 0)
    short, numbers = np.dtype(np.uint16), np.dtype(np.float32)
    assert raw_calibration.runs_on(short, block, "time_jump")
    assert not raw_calibration.runs_on(numbers, block, "time_jump")
    averaged = replace(block, readout=Readout(n_frames=4, frame_divisor=4))
    assert not raw_calibration.runs_on(short, averaged, "time_jump")
    scaled = replace(block, readout=Readout(frame_divisor=2))
    assert not raw_calibration.runs_on(short, scaled, "time_jump")
    for step in ("emicorr", "firstframe", "lastframe", "rscd", "reference_pixel", "regroup"):
        recipe = block.recipe.updated({step: {"skip": False}}, "a test")
        assert not raw_calibration.runs_on(short, replace(block, recipe=recipe), "time_jump"), step
    late = block.recipe.updated({"regroup": {"skip": False}}, "a test")
    assert raw_calibration.runs_on(short, replace(block, recipe=late), "linearity")
