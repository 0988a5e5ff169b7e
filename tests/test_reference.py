"""The Steps for reference data: against the simulated CRDS cache, and plain when wrong."""

import numpy as np
import pytest
from step_cases import (
    assert_unchanged,
    described,
    flagged_ramps,
    hand_made_ramps,
    hand_made_rates,
    quick_collection,  # noqa: F401 - a fixture
    settings_of,
    snapshot,
)
from test_ramps_self_calibration import bent
from test_ramps_self_calibration import twin as linearity_twin

from miri_gpu.calibration import load_calibration
from miri_gpu.detector import DETECTOR_SHAPE
from miri_gpu.ramps.self_calibration import CustomLinearityParams

reference = pytest.importorskip("miri_gpu.reference")
datamodels = pytest.importorskip("jwst.datamodels")

pytestmark = pytest.mark.usefixtures("observation", "quick_collection")

SAVED = {"save": False, "save_path": None}
DEFAULTS = {
    "GetIntegrationTimes": {},
    "SetCustomGain": {"gain_value": 3.1},
    "SetCustomLinearity": {
        "group_idx_start_fit": 10,
        "group_idx_end_fit": 40,
        "group_idx_start_derive": 10,
        "group_idx_end_derive": -1,
        "row_idx_start_used": 350,
        "row_idx_end_used": 386,
        "rejection_threshold": None,
        "draw_corrections": False,
        "draw_integration": 0,
        "figure_path": None,
    },
    "GetWavelengthMap": {"trim_col_start": 0, "trim_col_end": 72, **SAVED},
    "GetDefaultGain": {"median_value": False, **SAVED},
    "GetDefaultReadNoise": {"median_value": False, **SAVED},
}
DERIVED = {
    "group_idx_start_fit": 1,
    "group_idx_end_fit": 5,
    "group_idx_start_derive": 1,
    "row_idx_start_used": 300,
    "row_idx_end_used": 380,
}


@pytest.fixture(scope="module")
def ramps(observation):
    """The last segment after STScI's first steps. Do not write."""
    return flagged_ramps(observation.segments[-1])


@pytest.fixture(scope="module")
def located(observation):
    """Blank rate images that know where they are, after assign_wcs. Do not write."""
    from jwst.assign_wcs import AssignWcsStep

    model = datamodels.CubeModel(data=np.ones((2, 416, 72), np.float32))
    with datamodels.open(observation.segments[0]) as raw:
        model.update(raw)
    return AssignWcsStep.call(model)


@pytest.mark.parametrize("name", DEFAULTS)
def test_names_and_defaults(name):
    assert name in reference.__all__
    settings = settings_of(getattr(reference, name))
    assert {key: settings.get(key) for key in DEFAULTS[name]} == DEFAULTS[name]
    assert described(getattr(reference, name)) == []


@pytest.mark.parametrize("name", [name for name in DEFAULTS if name != "GetWavelengthMap"])
def test_the_input_is_never_changed(name, ramps):
    before = snapshot(ramps)
    getattr(reference, name).call(ramps, **(DERIVED if name == "SetCustomLinearity" else {}))
    assert_unchanged(ramps, before)


# --- times


def test_integration_times(observation, ramps):
    for init in (ramps, observation.segments[-1]):
        times, duration_s = reference.GetIntegrationTimes().call(init)
        assert type(duration_s) is float
        assert duration_s == pytest.approx(13 * 0.15904, rel=1e-5)
        expected = datamodels.open(observation.segments[-1]).int_times
        np.testing.assert_array_equal(times["int_mid_BJD_TDB"], expected["int_mid_BJD_TDB"])


def test_integration_times_of_models_written_by_hand():
    times, duration_s = reference.GetIntegrationTimes.call(hand_made_ramps())
    assert isinstance(times["int_mid_BJD_TDB"], np.ndarray)
    assert duration_s == pytest.approx(10.0, abs=1e-5)
    _, alone_s = reference.GetIntegrationTimes.call(hand_made_rates(n_ints=1))
    assert alone_s == pytest.approx(2.0, abs=1e-5)


def test_missing_times_are_named():
    model = hand_made_ramps()
    del model.int_times
    with pytest.raises(ValueError, match="INT_TIMES: expected a table, got none"):
        reference.GetIntegrationTimes.call(model)


# --- gain and read noise


def test_custom_gain(ramps):
    gain = reference.SetCustomGain().call(ramps, gain_value=2.5)
    assert isinstance(gain, datamodels.GainModel)
    assert gain.data.shape == DETECTOR_SHAPE
    assert gain.data.dtype == np.float32
    assert (gain.data == np.float32(2.5)).all()
    step = reference.SetCustomGain()
    assert (step.run(ramps).data == np.float32(3.1)).all()


def test_stscis_steps_take_the_gain(ramps):
    from jwst.ramp_fitting import RampFitStep

    gain = reference.SetCustomGain.call(ramps, gain_value=6.2)
    _, rates = RampFitStep.call(ramps, override_gain=gain)
    _, usual = RampFitStep.call(ramps)  # with the reference's 3.1
    ratio = np.nanmedian(rates.var_poisson[:, 380, 36] / usual.var_poisson[:, 380, 36])
    assert ratio == pytest.approx(0.5, rel=0.02)


@pytest.mark.parametrize(
    ("name", "model_type", "kind", "file_name"),
    [
        ("GetDefaultGain", "GainModel", "gain", "default_gain.fits"),
        ("GetDefaultReadNoise", "ReadnoiseModel", "read_noise", "default_readnoise.fits"),
    ],
)
def test_defaults_are_those_of_crds(name, model_type, kind, file_name, observation, tmp_path):
    segment = observation.segments[0]
    step = getattr(reference, name)()
    model = step.call(segment, save=True, save_path=str(tmp_path))
    assert isinstance(model, getattr(datamodels, model_type))
    expected = getattr(load_calibration(segment), kind)
    np.testing.assert_array_equal(model.data[528:944, :72], expected)
    with datamodels.open(tmp_path / file_name) as saved:
        np.testing.assert_array_equal(saved.data, model.data)
    median = step.call(segment, median_value=True)
    assert type(median) is float
    assert median == pytest.approx(float(np.nanmedian(model.data)))


def test_an_override_stands_in_for_crds(ramps):
    gain = reference.SetCustomGain.call(ramps, gain_value=4.0)
    assert reference.GetDefaultGain.call(ramps, median_value=True, override_gain=gain) == 4.0
    with pytest.raises(ValueError, match="gain: expected a reference file"):
        reference.GetDefaultGain.call(ramps, override_gain="N/A")


# --- linearity


def test_custom_linearity_is_as_the_twin_says(ramps):
    model = reference.SetCustomLinearity().call(ramps, group_idx_end_derive=11, **DERIVED)
    assert isinstance(model, datamodels.LinearityModel)
    assert model.coeffs.shape == (5, *DETECTOR_SHAPE)
    params = CustomLinearityParams(group_idx_end_derive=11, **DERIVED)
    used = slice(300, 380)
    bad = (ramps.groupdq[:, :, used] & 3) != 0
    expected = linearity_twin(ramps.data[:, :, used].astype(float), bad, params)
    for amplifier in range(4):
        pixels = model.coeffs[:, :, 4 + amplifier :: 4]
        one = expected[:, amplifier, None, None]
        np.testing.assert_allclose(pixels, np.broadcast_to(one, pixels.shape), rtol=1e-4)
    assert (model.coeffs[:, :, :4] == 0).all()
    assert (model.dq == 0).all()


def test_stscis_step_straightens_ramps_with_it(rng):
    from jwst.linearity import LinearityStep

    straight = 3000 + rng.uniform(300, 1000, (2, 1, 40, 72)) * np.arange(45)[:, None, None]
    model = datamodels.RampModel(data=bent(straight).astype(np.float32))
    model.groupdq = np.zeros(straight.shape)
    model.pixeldq = np.zeros((40, 72))
    model.meta.exposure.type = "MIR_LRS-SLITLESS"
    model.meta.instrument.name, model.meta.instrument.detector = "MIRI", "MIRIMAGE"
    model.meta.observation.date, model.meta.observation.time = "2023-03-13", "11:17:21.976"
    subarray = model.meta.subarray
    subarray.xstart, subarray.ystart, subarray.xsize, subarray.ysize = 1, 529, 72, 40
    ranges = {"group_idx_start_fit": 0, "group_idx_end_fit": 6, "group_idx_start_derive": 0}
    linearity = reference.SetCustomLinearity.call(
        model, row_idx_start_used=0, row_idx_end_used=40, **ranges
    )
    corrected = LinearityStep.call(model, override_linearity=linearity).data
    missing, left = deviations_from_lines(model.data, corrected, n_fitted=6)
    assert missing > 800
    assert left < 0.05 * missing


def deviations_from_lines(ramps, corrected, n_fitted):
    """How far ramps of the trace stray, at most, from lines through their first groups [DN]."""
    group = np.arange(ramps.shape[1])
    before, after = (
        np.moveaxis(samples[..., 34:39], 1, 0).reshape(len(group), -1).astype(float)
        for samples in (ramps, corrected)
    )
    slope, start = np.polyfit(group[:n_fitted], before[:n_fitted], 1)
    lines = start + slope * group[:, None]
    return np.abs(before - lines).max(), np.abs(after - lines).max()


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"row_idx_start_used": 500, "row_idx_end_used": 510}, "row_idx_start_used"),
        ({"group_idx_start_fit": 11, "group_idx_end_fit": 12}, "group_idx_start_fit"),
        ({"row_idx_start_used": 2, "row_idx_end_used": 2}, "range of the 416 rows, got 2:2"),
    ],
)
def test_impossible_ranges_are_named(ramps, settings, message):
    with pytest.raises(ValueError, match=message):
        reference.SetCustomLinearity.call(ramps, **{**DERIVED, **settings})


def test_ramps_that_determine_nothing_are_named():
    model = hand_made_ramps()
    model.groupdq[:] = 1
    ranges = {"group_idx_start_fit": 0, "group_idx_end_fit": 4, "group_idx_start_derive": 0}
    with pytest.raises(ValueError, match="expected ramps that determine the polynomials"):
        reference.SetCustomLinearity.call(
            model, row_idx_start_used=0, row_idx_end_used=12, **ranges
        )


def test_the_correction_is_drawn(ramps, tmp_path):
    path = tmp_path / "linearity.png"
    reference.SetCustomLinearity.call(
        ramps, draw_corrections=True, figure_path=str(path), **DERIVED
    )
    assert path.stat().st_size > 10000


# --- wavelengths


def test_the_wavelength_map_is_the_one_of_the_reduction(observation, located, tmp_path):
    wavelengths = reference.GetWavelengthMap().call(located, save=True, save_path=str(tmp_path))
    assert isinstance(wavelengths, np.ndarray)
    assert (wavelengths.shape, wavelengths.dtype) == ((416, 72), np.float64)
    expected = load_calibration(observation.segments[0]).wavelength
    np.testing.assert_allclose(wavelengths, expected, rtol=1e-9)
    assert np.isnan(wavelengths[3]).all()
    for row, column in ((150, 36), (380, 40)):
        assert wavelengths[row, column] == located.meta.wcs(column, row)[-1]
    (path,) = tmp_path.iterdir()
    assert path.name.endswith("_wavelengthmap.fits")


def test_the_wavelength_map_is_trimmed(located):
    whole = reference.GetWavelengthMap.call(located, trim_col_end=73)
    part = reference.GetWavelengthMap.call(located, trim_col_start=10, trim_col_end=20)
    np.testing.assert_array_equal(part, whole[:, 10:20])


# --- what is wrong is named


def test_rate_images_without_a_wcs_are_named():
    with pytest.raises(ValueError, match="WCS of the step assign_wcs, got none"):
        reference.GetWavelengthMap.call(hand_made_rates())


@pytest.mark.parametrize("name", DEFAULTS)
def test_other_models_are_named(name):
    image = datamodels.ImageModel((5, 5))
    with pytest.raises(TypeError, match=r"input: expected a .*, got a ImageModel"):
        getattr(reference, name).call(image)


def test_impossible_gains_are_named(ramps):
    with pytest.raises(ValueError, match=r"custom_gain.gain_value: expected .*, got -1"):
        reference.SetCustomGain.call(ramps, gain_value=-1.0)


def test_linearity_is_for_slitless_exposures_only(ramps):
    model = hand_made_ramps()
    model.meta.exposure.type = "MIR_IMAGE"
    with pytest.raises(ValueError, match="expected MIR_LRS-SLITLESS, got MIR_IMAGE"):
        reference.SetCustomLinearity.call(model)
