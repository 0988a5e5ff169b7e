"""The Steps for ramps: in a chain with STScI's, equal to their slow twins, and plain when wrong."""

import importlib
import logging
import tomllib
from pathlib import Path

import numpy as np
import pytest
from shell_cases import STAND_IN
from step_cases import (
    assert_unchanged,
    described,
    fitted_rates,
    flagged_ramps,
    hand_made_ramps,
    hand_made_rates,
    quick_collection,  # noqa: F401 - a fixture
    settings_of,
    snapshot,
)
from test_background import background_of_one
from test_ramps_reference_pixels import twin as reference_pixel_twin

from miri_gpu import backend, step_names
from miri_gpu.background import GroupBackgroundParams
from miri_gpu.ramps.reference_pixels import ReferencePixelParams
from miri_gpu.steps import ramps_of

stage_1 = pytest.importorskip("miri_gpu.stage_1")
datamodels = pytest.importorskip("jwst.datamodels")

BACKGROUND = {
    "method": "row_wise",
    "bkg_col_left_start": 8,
    "bkg_col_left_end": 17,
    "bkg_col_right_start": 56,
    "bkg_col_right_end": 72,
    "smoothing_length": None,
}
FIGURES = {"draw_integration": 0, "figure_path": None}
DEFAULTS = {
    "DropGroupsStep": {"drop_groups": [], "drop_groups_first_integration": []},
    "DropIntegrationsStep": {"drop_integrations": []},
    "RegroupStep": {"n_groups": 10},
    "ReferencePixelStep": {
        "smoothing_length": None,
        "odd_even_rows": True,
        "draw_correction": False,
        **FIGURES,
    },
    "GroupBackgroundSubtractStep": BACKGROUND,
}
CALLS = {
    "DropGroupsStep": {"drop_groups": [0, -1]},
    "DropIntegrationsStep": {"drop_integrations": [1, -1]},
    "RegroupStep": {"n_groups": 4},
    "ReferencePixelStep": {},
    "GroupBackgroundSubtractStep": {"bkg_col_left_start": 12},
}


pytestmark = pytest.mark.usefixtures("quick_collection")


@pytest.fixture(scope="module")
def ramps(observation):
    """The first segment (6 integrations x 12 groups) after dq_init and saturation. Do not write."""
    return flagged_ramps(observation.segments[0])


def each_step(names=tuple(CALLS)):
    return pytest.mark.parametrize("name", names)


def call(name, model, **settings):
    return getattr(stage_1, name).call(model, **settings)


# --- as ExoTiC-MIRI's


@each_step()
def test_names_and_defaults(name):
    assert name in stage_1.__all__
    settings = settings_of(getattr(stage_1, name))
    assert {key: settings.get(key) for key in DEFAULTS[name]} == DEFAULTS[name]
    assert described(getattr(stage_1, name)) == []


@each_step()
def test_every_way_of_calling_gives_the_same(name, ramps, tmp_path):
    settings = CALLS[name]
    results = [call(name, ramps, **settings), getattr(stage_1, name)().call(ramps, **settings)]
    step = getattr(stage_1, name)()
    for key, value in settings.items():
        setattr(step, key, value)
    results.append(step.run(ramps))
    ramps.copy().save(tmp_path / "ramps.fits")
    results.append(call(name, str(tmp_path / "ramps.fits"), **settings))
    results.append(call(name, tmp_path / "ramps.fits", **settings))
    for result in results:
        assert isinstance(result, datamodels.RampModel)
        np.testing.assert_array_equal(result.data, results[0].data)
        np.testing.assert_array_equal(result.groupdq, results[0].groupdq)
        assert result.data.dtype.newbyteorder("=") == np.float32
        assert result.groupdq.dtype == np.uint8


@each_step()
def test_the_input_is_never_changed(name, ramps):
    before = snapshot(ramps)
    call(name, ramps, **CALLS[name])
    assert_unchanged(ramps, before)


def test_raw_segments_are_ramps_too(observation):
    raw = datamodels.open(observation.segments[0])
    before = snapshot(raw)
    for init in (raw, observation.segments[0]):
        result = stage_1.DropGroupsStep.call(init, drop_groups=[0])
        assert isinstance(result, datamodels.RampModel)
        assert (result.groupdq[:, 0] == 1).all()
    assert_unchanged(raw, before)


@each_step(("DropGroupsStep", "ReferencePixelStep", "RegroupStep"))
def test_results_are_saved(name, ramps, tmp_path):
    result = call(name, ramps, save_results=True, output_dir=str(tmp_path), **CALLS[name])
    (path,) = tmp_path.glob("*.fits")
    with datamodels.open(path) as saved:
        assert isinstance(saved, datamodels.RampModel)
        np.testing.assert_array_equal(saved.data, result.data)
        np.testing.assert_array_equal(saved.groupdq, result.groupdq)
        assert saved.meta.cal_step.instance == result.meta.cal_step.instance


def test_each_step_says_that_it_was_done(ramps):
    marks = {
        "DropGroupsStep": "drop_groups",
        "DropIntegrationsStep": "drop_integrations",
        "RegroupStep": "regroup",
        "ReferencePixelStep": "refpix",
        "GroupBackgroundSubtractStep": "group_background_subtract",
    }
    for name, mark in marks.items():
        done = call(name, ramps, **CALLS[name]).meta.cal_step.instance
        assert set(done) - set(ramps.meta.cal_step.instance) == {mark}
        assert done[mark] == "COMPLETE"


@each_step()
def test_the_gpu_gives_the_same(name, ramps, monkeypatch):
    """The Steps on the strict stand-in for a GPU: no array crosses over unseen."""
    part = stage_1.DropIntegrationsStep.call(ramps, drop_integrations=[0, 1, 2])
    on_host = call(name, part, **CALLS[name])
    monkeypatch.setattr(backend, "select", lambda name=None: STAND_IN)
    np.testing.assert_array_equal(call(name, part, **CALLS[name]).data, on_host.data)


# --- slow twins


def test_dropped_groups_are_flagged(ramps):
    result = stage_1.DropGroupsStep.call(ramps, drop_groups=[0, 3, -1])
    expected = ramps.groupdq.copy()
    for group in (0, 3, 11):
        expected[:, group] |= 1
    np.testing.assert_array_equal(result.groupdq, expected)
    np.testing.assert_array_equal(result.data, ramps.data)


def test_more_groups_are_dropped_in_the_first_integration_of_the_exposure(ramps):
    settings = {"drop_groups": [11], "drop_groups_first_integration": [0, 1]}
    of_first = stage_1.DropGroupsStep.call(ramps, **settings)
    assert (of_first.groupdq[0, :2] & 1).all()
    np.testing.assert_array_equal(of_first.groupdq[1:, :2], ramps.groupdq[1:, :2])
    later = ramps.copy()
    later.meta.exposure.integration_start = 7
    of_later = stage_1.DropGroupsStep.call(later, **settings)
    np.testing.assert_array_equal(of_later.groupdq[0, :2], ramps.groupdq[0, :2])


@pytest.mark.parametrize(
    "settings", [{}, {"smoothing_length": 20}, {"odd_even_rows": False}], ids=str
)
def test_reference_pixels_are_as_the_twin_says(settings, rng):
    model = hand_made_ramps(n_rows=40, rng=rng)
    model.data[:, 2:, :, 1::4] += 7.0
    model.groupdq[0, 3, 5, 1] = 1
    result = stage_1.ReferencePixelStep.call(model, **settings)
    expected = reference_pixel_twin(ramps_of(model), ReferencePixelParams(**settings))
    np.testing.assert_allclose(result.data, expected, rtol=0, atol=2e-3)


@pytest.mark.parametrize("method", ["constant", "row_wise", "col_wise"])
@pytest.mark.parametrize("smoothing_length", [None, 20])
def test_group_background_is_as_the_twin_says(method, smoothing_length, rng):
    model = hand_made_ramps(n_rows=30, rng=rng)
    model.data += np.linspace(0, 20, 72)
    model.groupdq[1, 2, 7, 10:14] = 1
    settings = {"method": method, "smoothing_length": smoothing_length}
    result = stage_1.GroupBackgroundSubtractStep.call(model, **settings)
    params = GroupBackgroundParams(**settings)
    for i, group in np.ndindex(model.data.shape[:2]):
        expected = background_of_one(model.data[i, group], model.groupdq[i, group], params)
        np.testing.assert_allclose(
            result.data[i, group], model.data[i, group] - expected, rtol=0, atol=5e-3
        )


def test_dropped_integrations_are_gone_and_the_times_follow(ramps):
    model = ramps.copy()
    model.meta.exposure.integration_start, model.meta.exposure.integration_end = 7, 12
    model.int_times["integration_number"] += 6
    model.meta.exposure.exposure_time = 12.0
    result = stage_1.DropIntegrationsStep.call(model, drop_integrations=[0, 4])
    kept = [1, 2, 3, 5]
    for name in ("data", "groupdq"):
        np.testing.assert_array_equal(getattr(result, name), getattr(model, name)[kept])
    np.testing.assert_array_equal(result.pixeldq, model.pixeldq)
    for column in result.int_times.dtype.names[1:]:
        np.testing.assert_array_equal(result.int_times[column], model.int_times[column][kept])
    np.testing.assert_array_equal(result.int_times["integration_number"], [7, 8, 9, 10])
    exposure = result.meta.exposure
    assert (exposure.integration_start, exposure.integration_end) == (7, 10)
    assert exposure.nints == 12 - 2  # of the whole exposure, whose other segment has 6
    assert exposure.exposure_time == pytest.approx(12.0 * 4 / 6)
    assert result.shape == (4, 12, 416, 72)


def test_regrouped_integrations_follow_one_another(ramps, caplog):
    with caplog.at_level(logging.WARNING, "miri_gpu"):
        result = stage_1.RegroupStep.call(ramps, n_groups=5)
    assert "the last 2 of 12 groups are left over" in caplog.text
    assert result.shape == (12, 5, 416, 72)
    for i in range(6):
        for part in range(2):
            groups = slice(5 * part, 5 * part + 5)
            for name in ("data", "groupdq"):
                new, old = getattr(result, name)[2 * i + part], getattr(ramps, name)[i, groups]
                np.testing.assert_array_equal(new, old)
            start = ramps.int_times["int_start_BJD_TDB"][i] + 5 * part * 0.15904 / 86400
            expected = start + np.array([0, 0.5, 1]) * 5 * 0.15904 / 86400
            row = result.int_times[2 * i + part]
            found = [row[f"int_{moment}_BJD_TDB"] for moment in ("start", "mid", "end")]
            np.testing.assert_allclose(found, expected, rtol=0, atol=1e-10)
    np.testing.assert_array_equal(result.int_times["integration_number"], np.arange(1, 13))
    exposure = result.meta.exposure
    assert (exposure.nints, exposure.ngroups) == (2 * 12, 5)
    assert (exposure.integration_start, exposure.integration_end) == (1, 12)
    assert exposure.integration_time == pytest.approx(5 * 0.15904)


def test_stscis_steps_take_over(ramps):
    """Every Step in turn, then the ramp fit: all of it fits together."""
    model = stage_1.DropIntegrationsStep.call(ramps, drop_integrations=[0])
    model = stage_1.ReferencePixelStep.call(model)
    model = stage_1.RegroupStep.call(model, n_groups=6)
    model = stage_1.DropGroupsStep.call(model, drop_groups=[0, -1])
    model = stage_1.GroupBackgroundSubtractStep.call(model)
    rates = fitted_rates(model)
    assert rates.shape == (10, 416, 72)
    assert len(rates.int_times) == 10
    star, sky = rates.data[:, 300:380, 36], rates.data[:, 300:380, 12:17]
    assert np.nanmedian(star) > 200
    assert abs(np.nanmedian(sky)) < 5


# --- models written by hand


@each_step()
def test_few_rows_and_little_metadata_will_do(name):
    model = hand_made_ramps()
    model.groupdq = None
    result = call(name, model, **CALLS[name])
    assert result.data.shape[2:] == (12, 72)
    assert result.groupdq is None or result.groupdq.shape == result.data.shape


def test_an_err_that_a_user_gave_follows():
    model = hand_made_ramps()
    model.err = np.ones(model.data.shape)
    assert stage_1.DropIntegrationsStep.call(model, drop_integrations=[0]).err.shape[0] == 2
    assert stage_1.RegroupStep.call(model, n_groups=2).err.shape == (6, 2, 12, 72)


def test_int_times_of_another_length_are_matched_by_number_or_left_out(caplog):
    model = hand_made_ramps(n_ints=4)
    every = np.array(model.int_times)
    model.meta.exposure.integration_start = 3
    model.int_times = np.concatenate([every, every])  # 8 rows
    model.int_times["integration_number"] = np.arange(1, 9)
    result = stage_1.DropIntegrationsStep.call(model, drop_integrations=[0])
    np.testing.assert_array_equal(
        result.int_times["int_mid_BJD_TDB"], model.int_times["int_mid_BJD_TDB"][[3, 4, 5]]
    )
    model.int_times = every[:3]
    with caplog.at_level(logging.WARNING, "miri_gpu"):
        assert stage_1.DropIntegrationsStep.call(model, drop_integrations=[0]).int_times is None
    assert "INT_TIMES: expected integrations 3 to 6, got 3 others" in caplog.text


# --- what is wrong is named


@each_step()
def test_another_model_or_exposure_type_is_named(name):
    with pytest.raises(TypeError, match=r"input: expected a RampModel, got a CubeModel"):
        call(name, hand_made_rates(), **CALLS[name])
    model = hand_made_ramps()
    model.meta.exposure.type = "MIR_LRS-FIXEDSLIT"
    with pytest.raises(ValueError, match="expected MIR_LRS-SLITLESS, got MIR_LRS-FIXEDSLIT"):
        call(name, model, **CALLS[name])
    with pytest.raises(ValueError, match="data: expected some, got none"):
        call(name, datamodels.RampModel(), **CALLS[name])


@pytest.mark.parametrize(
    ("name", "settings", "message"),
    [
        ("DropGroupsStep", {"drop_groups": [5]}, "drop_groups.drop_groups: expected groups from"),
        ("DropGroupsStep", {"drop_groups": [0, 1, 2, 3, 4]}, "expected to leave at least one"),
        ("DropIntegrationsStep", {"drop_integrations": [-4]}, "drop_integrations: expected"),
        ("RegroupStep", {"n_groups": 6}, "regroup.n_groups: expected at most the 5 groups"),
        ("RegroupStep", {"n_groups": 0}, "regroup.n_groups: expected a whole number"),
        ("ReferencePixelStep", {"smoothing_length": 0}, "reference_pixel.smoothing_length"),
        ("ReferencePixelStep", {"draw_correction": True, "draw_integration": 3}, "as there are 3"),
        ("GroupBackgroundSubtractStep", {"method": "plane"}, "one of constant, row_wise"),
        ("GroupBackgroundSubtractStep", {"bkg_col_right_end": 3}, "bkg_col_right_end: expected"),
    ],
)
def test_impossible_parameters_are_named(name, settings, message):
    with pytest.raises(ValueError, match=message):
        call(name, hand_made_ramps(), **settings)


def test_unknown_keywords_are_named():
    with pytest.raises(Exception, match="drop_group'"):
        stage_1.DropGroupsStep.call(hand_made_ramps(), drop_group=[0])


def test_flags_of_another_shape_are_named():
    model = hand_made_ramps()
    model.groupdq = np.zeros((3, 5, 12, 71))
    with pytest.raises(ValueError, match=r"groupdq: expected the shape \(3, 5, 12, 72\)"):
        stage_1.DropGroupsStep.call(model, drop_groups=[0])


# --- figures


def test_the_correction_is_drawn(ramps, tmp_path, caplog):
    settings = {"draw_correction": True, "draw_integration": -1}
    stage_1.ReferencePixelStep.call(ramps, figure_path=str(tmp_path / "a.pdf"), **settings)
    stage_1.ReferencePixelStep.call(ramps, output_dir=str(tmp_path / "b"), **settings)
    stem = Path(ramps.meta.filename).stem
    written = [tmp_path / "a.pdf", tmp_path / "b" / f"{stem}_reference_pixels.png"]
    assert sorted(path for path in tmp_path.rglob("*") if path.is_file()) == written
    with caplog.at_level(logging.WARNING, "miri_gpu"):
        stage_1.ReferencePixelStep.call(ramps, **settings)
    assert "reference_pixels: drawn, but not to be seen" in caplog.text


# --- the command line of stpipe


def test_the_entry_point_lists_every_step():
    classes = [
        getattr(module, name)
        for module in map(importlib.import_module, (f"miri_gpu.{m}" for m in step_names._NAMES))
        for name in module.__all__
    ]
    listed = {name: alias for name, alias, _ in step_names.get_steps()}
    assert len(listed) == len(set(listed.values())) == len(classes) == 17
    for name, alias in listed.items():
        module, _, cls = name.rpartition(".")
        assert getattr(importlib.import_module(module), cls).class_alias == alias


def test_strun_finds_the_steps_by_their_alias(observation, tmp_path, monkeypatch):
    from stpipe import Step

    project = tomllib.loads((Path(__file__).parents[1] / "pyproject.toml").read_text())
    ((name, target),) = project["project"]["entry-points"]["stpipe.steps"].items()
    installed = tmp_path / "site" / "miri_gpu-0.dist-info"
    installed.mkdir(parents=True)
    (installed / "METADATA").write_text("Metadata-Version: 2.1\nName: miri_gpu\nVersion: 0\n")
    (installed / "entry_points.txt").write_text(f"[stpipe.steps]\n{name} = {target}\n")
    monkeypatch.syspath_prepend(tmp_path / "site")
    step = Step.from_cmdline(
        [
            "drop_groups",
            str(observation.segments[0]),
            "--drop_groups=0,-1",
            f"--output_dir={tmp_path}",
            "--save_results=true",
        ]
    )
    assert isinstance(step, stage_1.DropGroupsStep)
    (path,) = tmp_path.glob("*.fits")
    with datamodels.open(path) as saved:
        np.testing.assert_array_equal(saved.groupdq[0, :, 0, 9], [1, *[0] * 10, 1])
