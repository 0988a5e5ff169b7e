"""Rate images on disk: as jwst reads them, and as they are read back."""

from dataclasses import replace

import numpy as np
import pytest
from astropy.io import fits
from shell_cases import gathered, same

from miri_gpu.errors import OutputError
from miri_gpu.plan import make_plan
from miri_gpu.ramp_files import ramp_writer
from miri_gpu.rate_files import load_rates, rate_writer
from miri_gpu.reduction import run_plan
from miri_gpu.segment_files import path_of
from miri_gpu.segments import open_segment, open_segments

SETTINGS = {
    "regroup": {"skip": False, "n_groups": 6},
    "drop_integrations": {"skip": False, "drop_integrations": [0, 7]},
}


@pytest.fixture(scope="module")
def made(observation, tmp_path_factory):
    """Rate files of a reduction that changes the integrations, and the rates in them."""
    folder = tmp_path_factory.mktemp("rates")
    references = observation.references
    plan = make_plan(observation.segments, "bright", SETTINGS, "numpy", references, False)
    rates, paths = [], []

    def sink(origin):
        paths.append(path_of(folder, origin.segment, "rateints"))
        return rate_writer(paths[-1], origin)

    run_plan(plan, on_rates=sink)
    run_plan(plan, on_rates=gathered(rates))
    return plan, list(zip(paths, rates, strict=True))


def test_the_file_is_named_after_its_segment(made, observation):
    names = [path.name for path, _ in made[1]]
    assert names == [p.name.replace("_uncal", "_rateints") for p in observation.segments]


def test_what_was_written_is_read_back_exactly(made):
    for path, rates in made[1]:
        read = load_rates(open_segment(path), np.arange(10))
        for name, plane in vars(rates).items():
            if plane is not None:
                assert same(plane, getattr(read, name)), name


def test_some_integrations_are_read(made):
    path, rates = made[1][0]
    read = load_rates(open_segment(path), np.array([3, 8]))
    assert same(read.data, rates.data[[3, 8]])
    assert same(read.dq, rates.dq[[3, 8]])


def test_cut_and_dropped_integrations_are_counted_anew(made):
    """As if the exposure had been observed so: 12 integrations, 2 dropped, each cut in 2."""
    plan, written = made
    first, second = open_segments([path for path, _ in written])
    for segment, numbers in ((first, range(1, 11)), (second, range(11, 21))):
        header = segment.primary
        assert (header["INTSTART"], header["INTEND"]) == (numbers[0], numbers[-1])
        assert (header["NINTS"], header["NGROUPS"]) == (20, 6)
        assert header["EFFINTTM"] == pytest.approx(6 * 0.15904)
        table = fits.getdata(segment.path, "INT_TIMES")
        assert np.array_equal(table["integration_number"], numbers)
        duration_s = (table["int_end_MJD_UTC"] - table["int_start_MJD_UTC"]) * 86400
        np.testing.assert_allclose(duration_s, 6 * 0.15904, atol=1e-4)
    assert first.times["int_start_MJD_UTC"][0] == plan.segments[0].times["int_start_MJD_UTC"][1]


def test_dropped_integrations_are_not_dropped_twice(made, observation):
    plan, written = made
    paths = [path for path, _ in written]
    again = make_plan(paths, plan.recipe, {}, "numpy", observation.references, False)
    assert again.kept.all()


def test_the_header_says_what_was_done_and_with_what(made):
    header = fits.getheader(made[1][0][0])
    assert header["S_RAMP"] == header["S_JUMP"] == header["S_DARK"] == "COMPLETE"
    assert header["R_DARK"] == "jwst_miri_dark_0001.fits"
    assert header["CAL_VER"].startswith("miri_gpu ")
    assert header["CRDS_CTX"] == ""  # the references came from a folder
    assert header["TARGNAME"] == "SIMULATED-STAR"
    science = fits.getheader(made[1][0][0], "SCI")
    assert science["BUNIT"] == "DN/s"
    assert science["CRVAL3"] == 0.0 and science["NAXIS"] == 3


@pytest.mark.parametrize(
    ("gain_factor", "skipped", "rates_say", "ramps_say"),
    [
        (None, (), "SKIPPED", "SKIPPED"),
        (2.5, (), "COMPLETE", None),
        (2.5, ("gain_scale", "dark_current"), "SKIPPED", "SKIPPED"),
    ],
)
def test_what_was_not_done_is_said(made, tmp_path, gain_factor, skipped, rates_say, ramps_say):
    """Neither what the recipe leaves out nor what had nothing to do was; ramps are scaled later."""
    plan, path = made[0], tmp_path / "x.fits"
    recipe = plan.recipe.updated({step: {"skip": True} for step in skipped}, "test")
    calibration = replace(plan.calibration, gain_factor=gain_factor)
    plan = replace(plan, recipe=recipe, calibration=calibration)
    for writer, expected in ((rate_writer, rates_say), (ramp_writer, ramps_say)):
        with writer(path, plan.origin(plan.segments[0])):
            pass
        header = fits.getheader(path)
        assert header.get("S_GANSCL") == expected
        assert header["S_DARK"] == ("SKIPPED" if "dark_current" in skipped else "COMPLETE")
        assert header["S_GRPSCL"] == "SKIPPED"


def test_jwst_opens_it_as_a_cube_and_its_steps_take_it(made, observation):
    from jwst.assign_wcs import AssignWcsStep
    from jwst.flatfield import FlatFieldStep
    from stdatamodels.jwst import datamodels

    path, rates = made[1][1]
    with datamodels.open(path) as model:
        assert isinstance(model, datamodels.CubeModel)
        model.validate()
        assert same(np.asarray(model.data, dtype=np.float32), rates.data)
        assert np.array_equal(model.dq, rates.dq)
        assert model.meta.exposure.integration_start == 11
        assert model.meta.cal_step.ramp_fit == "COMPLETE"
        assert len(model.int_times) == 10
    with_wcs = AssignWcsStep.call(str(path))
    flattened = FlatFieldStep.call(with_wcs)
    assert flattened.meta.cal_step.flat_field == "COMPLETE"
    wavelength = flattened.meta.wcs(36.0, 300.0)[2]
    assert wavelength == pytest.approx(made[0].calibration.wavelength[300, 36], abs=1e-6)


def test_a_file_that_cannot_be_written_is_named_and_leaves_nothing(made, tmp_path):
    origin = made[0].origin(made[0].segments[0])
    path = tmp_path / "absent" / "x_rateints.fits"
    with (
        pytest.raises(OutputError, match=str(path)),
        rate_writer(path, origin),
    ):
        pytest.fail("it started")
    assert list(tmp_path.iterdir()) == []
