"""What the tests of the Steps share: models written by hand, and STScI's steps around ours."""

import gc

import numpy as np
import pytest

TIMES = (
    "int_start_mjd_utc", "int_mid_mjd_utc", "int_end_mjd_utc",
    "int_start_bjd_tdb", "int_mid_bjd_tdb", "int_end_bjd_tdb",
)  # fmt: skip
EXPOSURE_TYPE = "MIR_LRS-SLITLESS"


@pytest.fixture(scope="module")
def quick_collection():
    """Keep what has been imported out of the garbage collection that every Step begins with."""
    gc.freeze()
    yield
    gc.unfreeze()


def hand_made_ramps(n_ints=3, n_groups=5, n_rows=12, n_cols=72, rng=None):
    """A RampModel with hardly more than data, as a user would write it in a test."""
    from jwst.datamodels import RampModel

    model = RampModel()
    ramp = 10000.0 + 100 * np.arange(n_groups)[:, None, None]
    model.data = np.broadcast_to(ramp, (n_ints, n_groups, n_rows, n_cols)).astype(np.float32)
    if rng is not None:
        model.data += rng.normal(0, 6, model.data.shape)
    model.groupdq = np.zeros(model.data.shape)
    _describe(model, n_ints, n_groups)
    return model


def hand_made_rates(n_ints=3, n_rows=416, n_cols=72, rng=None):
    """A CubeModel with hardly more than data: a star on a background."""
    from jwst.datamodels import CubeModel

    model = CubeModel()
    row, column = np.arange(n_rows)[:, None], np.arange(n_cols)
    star = (200 + row) * np.exp(-0.5 * ((column - 36.4) / 1.4) ** 2)
    model.data = np.broadcast_to(star + 30, (n_ints, n_rows, n_cols)).astype(np.float32)
    if rng is not None:
        model.data += rng.normal(0, 1, model.data.shape)
    model.err = np.ones(model.data.shape)
    model.dq = np.zeros(model.data.shape)
    _describe(model, n_ints, 5)
    return model


def _describe(model, n_ints, n_groups):
    time = 60000.0 + np.arange(n_ints) / 8640
    columns = [np.arange(1.0, n_ints + 1), *(time + k / 86400 for k in (0, 1, 2, 10, 11, 12))]
    names = ["integration_number", *TIMES]
    model.int_times = np.rec.fromarrays(columns, names=names)
    model.meta.exposure.nints, model.meta.exposure.ngroups = n_ints, n_groups
    model.meta.exposure.type = EXPOSURE_TYPE


def flagged_ramps(segment):
    """A raw segment after STScI's first steps."""
    from jwst.dq_init import DQInitStep
    from jwst.saturation import SaturationStep

    return SaturationStep.call(DQInitStep.call(str(segment)), n_pix_grow_sat=1)


def fitted_rates(ramps):
    """Rate images of ramps, by STScI's steps."""
    from jwst.gain_scale import GainScaleStep
    from jwst.ramp_fitting import RampFitStep

    _, rates = RampFitStep.call(ramps)
    return GainScaleStep.call(rates)


def snapshot(model):
    """Everything a model holds, copied: to see later that it is as it was."""
    return {
        name: np.array(value) if isinstance(value, np.ndarray) else value
        for name, value in model.to_flat_dict(include_arrays=True).items()
    }


def assert_unchanged(model, before):
    """A model holds what its snapshot says."""
    after = snapshot(model)
    assert set(after) == set(before)
    for name, value in before.items():
        np.testing.assert_array_equal(after[name], value, err_msg=name)


def settings_of(step_class):
    """The settings that a Step has beside those of every Step, with their defaults."""
    from jwst.stpipe import Step

    step = step_class()
    names = set(step_class.load_spec_file()) - set(Step.load_spec_file())
    return {name: getattr(step, name) for name in names if not name.startswith("override_")}


def described(step_class):
    """Which of a Step's settings lack a comment that says what they are."""
    spec = step_class.load_spec_file()
    return [name for name in settings_of(step_class) if not spec.inline_comments[name]]
