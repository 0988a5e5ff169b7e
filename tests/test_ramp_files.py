"""Calibrated ramps on disk: whatever the blocks, as jwst reads them and fits them."""

import errno
import os
from dataclasses import replace

import numpy as np
import pytest
from astropy.io import fits
from shell_cases import STAND_IN, gathered, same

from miri_gpu import segment_files
from miri_gpu.blocks import Workers
from miri_gpu.errors import OutputError
from miri_gpu.job import Job
from miri_gpu.plan import make_plan
from miri_gpu.products import reduce_to_directory
from miri_gpu.ramp_files import ramp_writer
from miri_gpu.reduction import reduce_job
from miri_gpu.segment_files import path_of

SETTINGS = {
    "emicorr": {"skip": False},
    "rscd": {"skip": False, "group_skip1": 3, "group_skip": 2},
    "lastframe": {"skip": False},
    "jump": {"rejection_threshold": 6.0, "flag_4_neighbors": True},
}
# STScI's ramp fit takes the gain of the reference, and rescales in a step of its own
OWN_GAIN = {"custom_gain": {"skip": True}, "gain_scale": {"skip": True}}
CUT = {
    "regroup": {"skip": False, "n_groups": 6},
    "drop_integrations": {"skip": False, "drop_integrations": [0, 7]},
}


@pytest.fixture(scope="module")
def plan(observation):
    return planned(observation, SETTINGS)


def planned(observation, settings):
    return make_plan(
        observation.segments, "bright", settings, "numpy", observation.references, False
    )


def save(plan, folder, workers):
    """Reduce with these workers; paths of the ramps, and the rates."""
    rates, paths = [], []

    def sink(origin):
        paths.append(path_of(folder, origin.segment, "ramp"))
        return ramp_writer(paths[-1], origin)

    reduce_job(replace(Job.of(plan), workers=workers), on_rates=gathered(rates), on_ramps=sink)
    return paths, rates


@pytest.fixture(scope="module")
def saved(plan, tmp_path_factory):
    """The ramps of a reduction in small blocks, on threads."""
    folder = tmp_path_factory.mktemp("ramps")
    return save(plan, folder, Workers(3, 1_000_003))


def test_the_file_is_named_after_its_segment(saved, observation):
    names = [path.name for path in saved[0]]
    assert names == [p.name.replace("_uncal", "_ramp") for p in observation.segments]
    assert not list(saved[0][0].parent.glob(".partial*"))


@pytest.mark.parametrize("backend", ["numpy", "standin"])
def test_the_ramps_do_not_depend_on_blocks_or_backend(plan, saved, tmp_path, monkeypatch, backend):
    other = replace(plan, backend=STAND_IN) if backend == "standin" else plan
    paths, _ = save(other, tmp_path, Workers(1, 1 << 40))
    for path, expected in zip(paths, saved[0], strict=True):
        for extension in ("SCI", "GROUPDQ", "PIXELDQ", "AVDRKCUR"):
            assert same(fits.getdata(path, extension), fits.getdata(expected, extension))


def test_jwst_opens_it_as_ramps(saved, plan):
    from stdatamodels.jwst import datamodels

    with datamodels.open(saved[0][1]) as model:
        assert isinstance(model, datamodels.RampModel)
        model.validate()
        assert model.data.shape == model.groupdq.shape == (6, 12, 416, 72)
        assert model.pixeldq.shape == (416, 72) and model.pixeldq.dtype == np.uint32
        assert model.meta.exposure.integration_start == 7
        assert model.meta.cal_step.jump == model.meta.cal_step.emicorr == "COMPLETE"
        assert model.meta.cal_step.firstframe == "SKIPPED"
        assert model.meta.cal_step.ramp_fit is None
        assert len(model.int_times) == 6
        np.testing.assert_array_equal(model.average_dark_current, plan.calibration.average_dark)
        assert (model.groupdq[:, :2] & 1).all() and (model.groupdq[:, -1] & 1).all()


def test_the_fits_file_is_in_order(saved):
    with fits.open(saved[0][0]) as hdus:
        hdus.verify("exception")
        assert hdus["SCI"].header["BUNIT"] == "DN"
        assert np.isfinite(hdus["SCI"].data).mean() > 0.99
    assert saved[0][0].stat().st_size % 2880 == 0


@pytest.mark.parametrize("settings", [SETTINGS, CUT], ids=["whole", "cut"])
def test_the_fit_of_jwst_gives_our_rates(observation, tmp_path, monkeypatch, settings):
    from jwst.ramp_fitting import RampFitStep

    plan = planned(observation, {**OWN_GAIN, **settings})
    paths, rates = save(plan, tmp_path, Workers(1, 1 << 22))
    for path, ours in zip(paths, rates, strict=True):
        _, theirs = RampFitStep.call(str(path))
        assert theirs.data.shape == ours.data.shape
        np.testing.assert_array_equal(theirs.dq, ours.dq)
        np.testing.assert_allclose(ours.data, theirs.data, rtol=1e-5, atol=1e-4)
        for name in ("err", "var_poisson", "var_rnoise"):
            np.testing.assert_allclose(
                getattr(ours, name), getattr(theirs, name), rtol=1e-4, atol=1e-10
            )


# --- whole or not at all


def test_a_reduction_saves_them_where_it_is_asked(observation, tmp_path, monkeypatch):
    monkeypatch.setattr("miri_gpu.products.save_all_figures", lambda *_: None)
    reduce_to_directory(
        observation.segments, tmp_path, backend="numpy", references=observation.references,
        save_ramps=True,
    )  # fmt: skip
    found = sorted(path.name for path in (tmp_path / "ramps").iterdir())
    assert found == [path.name.replace("_uncal", "_ramp") for path in observation.segments]


@pytest.mark.parametrize("error", [KeyboardInterrupt, ValueError])
def test_nothing_stays_of_what_is_interrupted(plan, tmp_path, error):
    origin = plan.origin(plan.segments[0])
    with pytest.raises(error), ramp_writer(tmp_path / "x_ramp.fits", origin):
        raise error
    assert list(tmp_path.iterdir()) == []


@pytest.mark.skipif(not hasattr(os, "posix_fallocate"), reason="this system cannot reserve room")
def test_a_full_disk_is_told_at_once(plan, tmp_path, monkeypatch):
    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(segment_files.os, "posix_fallocate", full)
    origin = plan.origin(plan.segments[0])
    with (
        pytest.raises(OutputError, match=r"_ramp\.fits: cannot be written \(No space left"),
        ramp_writer(tmp_path / "x_ramp.fits", origin),
    ):
        pytest.fail("it started")
    assert list(tmp_path.iterdir()) == []
