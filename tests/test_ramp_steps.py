"""The table of steps: what is applied in one pass is what the steps give one after the other."""

from types import SimpleNamespace

import numpy as np
import pytest
from ramp_cases import random_dq, random_ramps

from miri_gpu import kernels
from miri_gpu.containers import Readout
from miri_gpu.detector import DO_NOT_USE, NO_LIN_CORR
from miri_gpu.ramp_steps import RAMP_STEPS, Block, FrameCorrections, SampleStep, apply_steps
from miri_gpu.recipe import named_recipe

RECIPES = {
    "bright": {},
    "without reset": {"reset": {"skip": True}},
    "without linearity": {"linearity": {"skip": True}},
    "rscd in between": {"rscd": {"skip": False, "group_skip1": 1, "group_skip": 2}},
    "dark only": {"reset": {"skip": True}, "linearity": {"skip": True}},
    "none of them": {step: {"skip": True} for step in ("reset", "linearity", "dark_current")},
}


def block_of(rng, recipe, ramps) -> Block:
    """What the steps from reset to dark_current take."""
    image = ramps.pixeldq.shape
    powers = np.array([3.0, 1.0, 1e-6])[:, None, None]
    cubes = {
        name: rng.normal(0, 30, (2, 8, *image)).astype(np.float32) for name in ("reset", "dark")
    }
    flags = {
        f"{name}_dq": random_dq(rng, image, DO_NOT_USE, NO_LIN_CORR)
        for name in ("reset", "dark", "linearity")
    }
    linearity = (powers * rng.uniform(0.9, 1.1, (3, *image))).astype(np.float32)
    calibration = SimpleNamespace(**cubes, **flags, linearity=linearity, rscd=None)
    return Block(
        recipe=named_recipe("bright").updated(RECIPES[recipe], "a test"),
        calibration=calibration,
        readout=Readout(),
        dropped=np.zeros(ramps.data.shape[:2], dtype=bool),
        median_gain=4.0,
        frames=FrameCorrections(),
    )


@pytest.mark.parametrize("recipe", RECIPES)
@pytest.mark.parametrize("by_kernels", [True, False])
def test_steps_in_one_pass_are_those_one_by_one(rng, monkeypatch, recipe, by_kernels):
    if not by_kernels:
        monkeypatch.setenv(kernels.ENVIRONMENT_VARIABLE, "0")
    ramps = random_ramps(rng)
    for array in vars(ramps).values():
        array.flags.writeable = False
    block = block_of(rng, recipe, ramps)
    steps = ("reset", "drop_groups", "linearity", "rscd", "dark_current")
    expected = ramps
    for step in steps:
        if block.recipe.runs(step):
            expected = RAMP_STEPS[step](expected, block)
    found = apply_steps(ramps, block, start="reset", stop="reference_pixel")
    half = apply_steps(ramps, block, start="reset", stop="linearity")
    halves = apply_steps(half, block, start="linearity", stop="reference_pixel")
    for name, array in vars(expected).items():
        np.testing.assert_array_equal(getattr(found, name), array, err_msg=name)
        np.testing.assert_array_equal(getattr(halves, name), array, err_msg=name)


def test_corrections_of_samples_are_made_in_the_order_of_the_table():
    sample_steps = [step for step, run in RAMP_STEPS.items() if isinstance(run, SampleStep)]
    assert sample_steps == ["reset", "linearity", "dark_current"]
