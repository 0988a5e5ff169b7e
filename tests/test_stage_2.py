"""The Steps for rate images: in a chain with STScI's, as their slow twins, plain when wrong."""

import logging

import numpy as np
import pytest
from scipy.optimize import curve_fit
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
from test_numerics import shift_of_one
from test_rates_outliers import twin as cleaning_twin
from test_rates_trace import gaussian
from test_spectra_box import twin as box_twin
from test_spectra_optimal import twin as optimal_twin

from miri_gpu import backend
from miri_gpu.background import BackgroundParams
from miri_gpu.detector import COL_START, DQ_NAMES, N_COLS, N_ROWS, ROW_START
from miri_gpu.rates.outliers import CleanOutliersParams

stage_2 = pytest.importorskip("miri_gpu.stage_2")
datamodels = pytest.importorskip("jwst.datamodels")

pytestmark = pytest.mark.usefixtures("observation", "quick_collection")

FIGURES = {"draw_integration": 0, "figure_path": None}
EXTRACTION = {
    "trace_position": "constant",
    "aperture_center": 36,
    "draw_psf_fits": False,
    "draw_aperture": False,
    "draw_spectra": False,
    **FIGURES,
}
DEFAULTS = {
    "InspectDQFlagsStep": {"draw_dq_flags": False, **FIGURES},
    "CleanOutliersStep": {
        "window_heights": [150, 100, 50, 40, 30, 24],
        "dq_bits_to_mask": [0],
        "poly_order": 4,
        "outlier_threshold": 4.0,
        "spatial_profile_left_idx": 26,
        "spatial_profile_right_idx": 47,
        "no_clean": False,
        "draw_cleaning_col": False,
        "draw_spatial_profiles": False,
        **FIGURES,
    },
    "BackgroundSubtractStep": {
        "method": "row_wise",
        "bkg_col_left_start": 8,
        "bkg_col_left_end": 17,
        "bkg_col_right_start": 56,
        "bkg_col_right_end": 72,
        "smoothing_length": None,
    },
    "Extract1DBoxStep": {"aperture_left_width": 4, "aperture_right_width": 4, **EXTRACTION},
    "Extract1DOptimalStep": {
        "median_spatial_profile": False,
        "aperture_left_width": 8,
        "aperture_right_width": 8,
        "integration_time_s": None,
        **EXTRACTION,
    },
    "AlignSpectraStep": {
        "align_spectra": True,
        "draw_cross_correlation_fits": False,
        "draw_trace_positions": False,
        **FIGURES,
    },
}
WAVELENGTHS = np.tile(np.linspace(14.0, 4.0, 416)[:, None], (1, 72))


@pytest.fixture(scope="module")
def rates(observation):
    """Rate images of the first segment, by STScI's steps alone. Do not write."""
    from miri_gpu.stage_1 import DropGroupsStep

    ramps = DropGroupsStep.call(flagged_ramps(observation.segments[0]), drop_groups=[-1])
    return fitted_rates(ramps)


@pytest.fixture(scope="module")
def cleaned(rates):
    """Cleaned rate images without their background, their profile and that background."""
    clean = stage_2.CleanOutliersStep()
    copy, _, _ = clean.call(rates)
    _, background = stage_2.BackgroundSubtractStep.call(copy, bkg_col_left_start=12)
    free = rates.copy()
    free.data -= background
    free, profile, _ = clean.call(free)
    return free, profile, background


@pytest.fixture
def calls(cleaned):
    """Arguments of each Step behind its model."""
    model, profile, background = cleaned
    read_noise = np.sqrt(model.var_rnoise)
    spectra = model.data[:, :, 32:41].sum(axis=2)
    return {
        "InspectDQFlagsStep": (),
        "CleanOutliersStep": (),
        "BackgroundSubtractStep": (),
        "Extract1DBoxStep": (WAVELENGTHS,),
        "Extract1DOptimalStep": (WAVELENGTHS, profile, read_noise, background),
        "AlignSpectraStep": (spectra, np.ones_like(spectra)),
    }


def each_step(names=tuple(DEFAULTS)):
    return pytest.mark.parametrize("name", names)


def arrays_of(result):
    """The arrays in what a Step returned."""
    for part in result if isinstance(result, tuple) else (result,):
        if isinstance(part, np.ndarray):
            yield part
        else:
            yield from (part.data, part.dq)


# --- as ExoTiC-MIRI's


@each_step()
def test_names_and_defaults(name):
    assert name in stage_2.__all__
    settings = settings_of(getattr(stage_2, name))
    assert {key: settings.get(key) for key in DEFAULTS[name]} == DEFAULTS[name]
    assert described(getattr(stage_2, name)) == []


@each_step()
def test_every_way_of_calling_gives_the_same(name, cleaned, calls, tmp_path):
    model, step = cleaned[0], getattr(stage_2, name)
    model.copy().save(tmp_path / "rates_rateints.fits")
    results = [
        step.call(model, *calls[name]),
        step().call(model, *calls[name]),
        step().run(model, *calls[name]),
        step.call(str(tmp_path / "rates_rateints.fits"), *calls[name]),
    ]
    for result in results[1:]:
        for ours, first in zip(arrays_of(result), arrays_of(results[0]), strict=True):
            np.testing.assert_array_equal(ours, first)


@each_step()
def test_the_input_is_never_changed(name, cleaned, calls):
    model = cleaned[0]
    before, others = snapshot(model), [argument.copy() for argument in calls[name]]
    getattr(stage_2, name).call(model, *calls[name])
    assert_unchanged(model, before)
    for argument, copy in zip(calls[name], others, strict=True):
        np.testing.assert_array_equal(argument, copy)


@each_step()
def test_the_gpu_gives_the_same(name, cleaned, calls, monkeypatch):
    """The Steps on the strict stand-in for a GPU: no array crosses over unseen."""
    on_host = getattr(stage_2, name).call(cleaned[0], *calls[name])
    monkeypatch.setattr(backend, "select", lambda name=None: STAND_IN)
    on_device = getattr(stage_2, name).call(cleaned[0], *calls[name])
    for ours, expected in zip(arrays_of(on_device), arrays_of(on_host), strict=True):
        np.testing.assert_array_equal(ours, expected)


def test_what_is_returned(cleaned, calls):
    """Order, shapes and types of the results are ExoTiC-MIRI's."""
    model = cleaned[0]
    n_ints = len(model.data)
    returned = {name: getattr(stage_2, name).call(model, *calls[name]) for name in DEFAULTS}
    cube, spectrum = (n_ints, 416, 72), (n_ints, 416)
    assert isinstance(returned["InspectDQFlagsStep"], datamodels.CubeModel)
    expected = {
        "CleanOutliersStep": [(cube, np.float64), ((n_ints, 416, 5), np.int64)],
        "BackgroundSubtractStep": [(cube, np.float32)],
        "Extract1DBoxStep": [
            ((416,), np.float64),
            (spectrum, np.float32),
            (spectrum, np.float32),
            ((n_ints,), np.float64),
        ],
        "Extract1DOptimalStep": [
            ((416,), np.float64),
            (spectrum, np.float64),
            (spectrum, np.float64),
            ((n_ints,), np.float64),
        ],
        "AlignSpectraStep": [
            (spectrum, np.float64),
            (spectrum, np.float64),
            ((n_ints,), np.float64),
            ((n_ints,), np.float64),
        ],
    }
    for name, described_as in expected.items():
        result = returned[name]
        if name in ("CleanOutliersStep", "BackgroundSubtractStep"):
            assert isinstance(result[0], datamodels.CubeModel)
            result = result[1:]
        assert [(array.shape, array.dtype.type) for array in result] == described_as
    of_lines = stage_2.BackgroundSubtractStep.call(model, method="col_wise")[1]
    assert of_lines.dtype == np.float64
    unmoved = stage_2.AlignSpectraStep.call(model, *calls["AlignSpectraStep"], align_spectra=False)
    np.testing.assert_array_equal(unmoved[0], calls["AlignSpectraStep"][0])
    assert unmoved[0].dtype == np.float32


def test_results_are_saved_and_say_what_was_done(rates, tmp_path):
    marks = {"CleanOutliersStep": "clean_outliers", "BackgroundSubtractStep": "bkg_subtract"}
    for name, mark in marks.items():
        folder = tmp_path / name
        step = getattr(stage_2, name)
        result, *_ = step.call(rates, save_results=True, output_dir=str(folder))
        (path,) = folder.iterdir()
        with datamodels.open(path) as saved:
            np.testing.assert_array_equal(saved.data, result.data)
            assert getattr(saved.meta.cal_step, mark) == "COMPLETE"


# --- slow twins


def test_flags_are_counted(rates, caplog):
    with caplog.at_level(logging.INFO, "miri_gpu"):
        result = stage_2.InspectDQFlagsStep.call(rates)
    lines = [r.getMessage() for r in caplog.records if r.name == "miri_gpu.stage_2.cleaning"]
    for bit, name in enumerate(DQ_NAMES):
        n_pixels = sum(bool(int(value) & 1 << bit) for value in rates.dq.ravel())
        assert f"DQ bit {bit:2d}, {name}: {n_pixels} pixels" in lines
    share = 100 * np.mean(rates.dq != 0)
    assert lines[-1] == f"DQ: {share:.3f} % of the pixels carry a flag"
    np.testing.assert_array_equal(result.dq, rates.dq)


def test_cleaning_is_as_the_twin_says(rates):
    settings = {"window_heights": [50, 30, 24], "dq_bits_to_mask": [0, 2], "outlier_threshold": 5.0}
    model = datamodels.CubeModel(data=rates.data[:1, 200:330], dq=rates.dq[:1, 200:330])
    model.data[0, 40, 36] = 1e5
    result, profile, n_outliers = stage_2.CleanOutliersStep.call(model, **settings)
    params = CleanOutliersParams(**settings)
    data, dq, expected = cleaning_twin(model.data, model.dq, params)
    np.testing.assert_array_equal(result.dq, dq)
    np.testing.assert_allclose(result.data, data, rtol=1e-5, atol=1e-3)
    np.testing.assert_allclose(profile, expected, rtol=1e-4, atol=1e-6)
    for width in range(5):
        flagged = (dq[:, :, 36 - width : 37 + width] != 0).sum(axis=2)
        np.testing.assert_array_equal(n_outliers[:, :, width], flagged)
    assert n_outliers[0, 40, 0] == 1


def test_without_cleaning_only_nan_goes(rates):
    result, profile, n_outliers = stage_2.CleanOutliersStep.call(rates, no_clean=True)
    np.testing.assert_array_equal(result.data, np.nan_to_num(rates.data))
    np.testing.assert_array_equal(result.dq, rates.dq)
    assert np.isnan(profile).all()
    assert n_outliers.shape == (*rates.shape[:2], 5)


@pytest.mark.parametrize("method", ["constant", "row_wise", "col_wise"])
@pytest.mark.parametrize("smoothing_length", [None, 20])
def test_background_is_as_the_twin_says(cleaned, method, smoothing_length):
    settings = {"method": method, "smoothing_length": smoothing_length}
    model = cleaned[0]
    result, background = stage_2.BackgroundSubtractStep.call(model, **settings)
    expected = background_of_one(model.data[1], model.dq[1], BackgroundParams(**settings))
    np.testing.assert_allclose(background[1], expected, rtol=1e-4, atol=1e-3)
    np.testing.assert_allclose(result.data, model.data - background, rtol=1e-5, atol=1e-3)


@pytest.mark.parametrize("trace_position", ["constant", "gaussian_fits"])
def test_box_extraction_is_as_the_twin_says(cleaned, trace_position):
    model = cleaned[0].copy()
    model.err[~np.isfinite(model.err)] = 0.0
    wavelengths, flux, flux_err, sigmas = stage_2.Extract1DBoxStep().call(
        model, WAVELENGTHS, trace_position=trace_position, aperture_right_width=5
    )
    fits = np.array([fitted(frame) for frame in model.data])
    centres = fits[:, 1] if trace_position == "gaussian_fits" else np.full(len(fits), 36.0)
    expected, expected_err = box_twin(model.data, model.err, centres, 4, 5)
    np.testing.assert_allclose(flux, expected, rtol=1e-5)
    np.testing.assert_allclose(flux_err, expected_err, rtol=1e-5)
    np.testing.assert_allclose(sigmas, fits[:, 2], rtol=1e-5)
    np.testing.assert_array_equal(wavelengths, WAVELENGTHS[:, int(np.median(centres))])


def fitted(frame):
    """Gaussian across the trace, by SciPy."""
    curve, column = np.median(frame[200:390, 12:68], axis=0).astype(float), np.arange(12, 68)
    start = [curve.max(), column[curve.argmax()], 1.59, 0.0]
    return curve_fit(gaussian, column, curve, p0=start, ftol=1e-14, xtol=1e-14, gtol=1e-14)[0]


def test_an_unknown_error_leaves_the_flux(cleaned):
    model = cleaned[0].copy()
    model.err[:] = 1.0
    model.err[0, 100, 38] = np.nan
    model.err[0, 101, 50] = np.nan  # outside the aperture
    _, flux, flux_err, _ = stage_2.Extract1DBoxStep.call(model, WAVELENGTHS)
    np.testing.assert_allclose(flux, model.data[:, :, 32:41].sum(axis=2), rtol=1e-4, atol=1e-2)
    assert np.isnan(flux_err[0, 100])
    assert np.isnan(flux_err).sum() == 1


@pytest.mark.parametrize("median_spatial_profile", [False, True])
def test_optimal_extraction_is_as_the_twin_says(cleaned, median_spatial_profile, monkeypatch):
    monkeypatch.setattr("test_spectra_optimal.TIME_S", 11 * 0.15904)  # all 12 groups
    model, profile, background = cleaned
    rows = slice(180, 220)
    read_noise = np.full(model.data.shape, 1.5, np.float32)
    _, flux, flux_err, _ = stage_2.Extract1DOptimalStep().call(
        model,
        WAVELENGTHS,
        profile,
        read_noise,
        background,
        median_spatial_profile=median_spatial_profile,
        override_gain=gain_of(3.1),
    )
    if median_spatial_profile:
        profile = np.broadcast_to(np.median(profile, axis=0), profile.shape)
    cubes = [cube[:, rows] for cube in (model.data, profile, background)]
    expected, expected_err = optimal_twin(
        cubes[0], cubes[1], read_noise[0, rows], cubes[2], np.full(len(model.data), 36.0), 8, 8
    )
    np.testing.assert_allclose(flux[:, rows], expected, rtol=1e-5)
    np.testing.assert_allclose(flux_err[:, rows], expected_err, rtol=1e-5)


def gain_of(value):
    gain = datamodels.GainModel(data=np.full((1024, 1032), value, np.float32))
    for name, text in (
        ("author", "us"),
        ("pedigree", "DUMMY"),
        ("useafter", "2020-01-01T00:00:00"),
    ):
        setattr(gain.meta, name, text)
    return gain


def test_the_noise_of_an_optimal_extraction_follows_its_arguments(cleaned):
    """More gain, more time, less background: less noise. CRDS's gain is the simulated 3.1."""
    model, profile, background = cleaned
    step, first = stage_2.Extract1DOptimalStep, (model, WAVELENGTHS, profile, 0.0)

    def noise(*arguments, **settings):
        return np.nanmedian(step.call(*first, *arguments, **settings)[2][:, 300:380])

    usual = noise()
    assert noise(override_gain=gain_of(3.1)) == pytest.approx(usual, rel=0.02)
    assert noise(override_gain=gain_of(12.4)) == pytest.approx(usual / 2, rel=0.02)
    longer = noise(integration_time_s=4 * 11 * 0.15904)
    assert longer == pytest.approx(usual / 2, rel=1e-4)
    assert noise(background) > 1.02 * usual


def test_an_unknown_gain_is_the_median_of_the_subarray(cleaned):
    model, profile, _ = cleaned

    def extracted(gain):
        arguments = (model, WAVELENGTHS, profile, 1.0)
        return stage_2.Extract1DOptimalStep.call(*arguments, override_gain=gain)[1:3]

    gain = gain_of(99.0)
    rows, cols = slice(ROW_START, ROW_START + N_ROWS), slice(COL_START, COL_START + N_COLS)
    gain.data[rows, cols] = 3.1
    gain.data[ROW_START + 300, COL_START + 30 : COL_START + 38] = (np.nan, 0, -1, np.inf) * 2
    np.testing.assert_array_equal(extracted(gain), extracted(gain_of(3.1)))


def test_an_unknown_read_noise_is_that_of_the_neighbours(cleaned):
    model, profile, _ = cleaned
    read_noise = np.full(model.data.shape, 2.0, np.float32)
    expected = stage_2.Extract1DOptimalStep.call(model, WAVELENGTHS, profile, read_noise)
    read_noise[:, ::7, 36] = np.nan
    found = stage_2.Extract1DOptimalStep.call(model, WAVELENGTHS, profile, read_noise)
    for ours, theirs in zip(found, expected, strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-6)


def test_the_fitted_time_is_read_from_our_own_rate_images(observation, tmp_path):
    from miri_gpu.products import reduce_to_directory

    reduce_to_directory(observation.segments, tmp_path, "bright", save_rates=True, backend="numpy")
    path = sorted((tmp_path / "rates").iterdir())[0]
    with datamodels.open(path) as model:
        step = stage_2.Extract1DOptimalStep()
        assert step._time_s(model) == pytest.approx(10 * 0.15904)  # the last group was dropped
        clean, profile, _ = stage_2.CleanOutliersStep.call(model)
        assert np.isfinite(step.call(clean, WAVELENGTHS, profile, 1.0)[1][:, 100:380]).all()


def test_alignment_is_as_the_twin_says(cleaned, rng):
    model = cleaned[0]
    flux = model.data[:, :, 32:41].sum(axis=2)
    moved = np.stack(
        [np.interp(np.arange(416) - k / 10, np.arange(416), flux[0]) for k in range(6)]
    )
    moved = (moved + rng.normal(0, 1, moved.shape)).astype(np.float32)
    error = rng.uniform(1, 2, moved.shape)
    aligned, aligned_err, x_shifts, y_shifts = stage_2.AlignSpectraStep().call(model, moved, error)
    template = np.median(moved, axis=0)
    expected = [shift_of_one(curve.astype(float), template) for curve in moved]
    np.testing.assert_allclose(y_shifts, expected, atol=1e-5)
    profiles = model.data[:, 200:390, 12:68].astype(float).sum(axis=1)
    expected = [shift_of_one(curve, np.median(profiles, axis=0)) for curve in profiles]
    np.testing.assert_allclose(x_shifts, expected, atol=1e-5)
    row = np.arange(416)
    for i in range(6):
        inside = (row + y_shifts[i] >= 0) & (row + y_shifts[i] <= 415)
        at = (row + y_shifts[i])[inside]
        np.testing.assert_allclose(aligned[i, inside], np.interp(at, row, moved[i]), rtol=1e-5)
        variance = np.interp(at, row, error[i] ** 2)
        np.testing.assert_allclose(aligned_err[i, inside], np.sqrt(variance), rtol=1e-5)
        assert np.isnan(aligned[i, ~inside]).all()


def test_results_are_numbers_where_the_star_is(cleaned):
    """The whole chain on simulated ramps: the star comes out, with errors that fit its scatter."""
    model, profile, background = cleaned
    read_noise = np.sqrt(model.var_rnoise)
    _, box, box_err, _ = stage_2.Extract1DBoxStep.call(model, WAVELENGTHS)
    _, best, best_err, _ = stage_2.Extract1DOptimalStep.call(
        model, WAVELENGTHS, profile, read_noise, background
    )
    rows = slice(120, 380)
    np.testing.assert_allclose(np.median(best[:, rows] / box[:, rows]), 1, atol=0.05)
    assert np.nanmedian(best_err[:, rows]) < 1.02 * np.nanmedian(box_err[:, rows])


# --- models written by hand


def test_few_rows_and_little_metadata_will_do(rng):
    model = hand_made_rates(n_ints=2, n_rows=40, rng=rng)
    model.dq = model.err = None
    wavelengths = WAVELENGTHS[:40]
    cleaned, profile, n_outliers = stage_2.CleanOutliersStep.call(model)
    assert n_outliers.shape == (2, 40, 5)
    cleaned, _ = stage_2.BackgroundSubtractStep.call(cleaned)
    assert isinstance(stage_2.InspectDQFlagsStep.call(cleaned), datamodels.CubeModel)
    _, flux, flux_err, sigmas = stage_2.Extract1DBoxStep.call(cleaned, wavelengths)
    assert np.isfinite(flux).all()
    assert np.isnan(flux_err).all()
    np.testing.assert_allclose(sigmas, 1.4, atol=0.05)
    _, best, best_err, _ = stage_2.Extract1DOptimalStep.call(
        cleaned, wavelengths, profile, 1.0, override_gain=gain_of(3.1)
    )
    np.testing.assert_allclose(best, flux, rtol=0.05)
    assert (best_err > 0).all()
    *_, x_shifts, y_shifts = stage_2.AlignSpectraStep.call(cleaned, flux, np.ones_like(flux))
    assert np.isfinite([x_shifts, y_shifts]).all()


# --- what is wrong is named


@each_step()
def test_another_model_or_exposure_type_is_named(name, calls):
    step, arguments = getattr(stage_2, name), calls[name]
    with pytest.raises(TypeError, match="input: expected a CubeModel, got a RampModel"):
        step.call(hand_made_ramps(), *arguments)
    model = hand_made_rates()
    model.meta.exposure.type = "MIR_LRS-FIXEDSLIT"
    with pytest.raises(ValueError, match="expected MIR_LRS-SLITLESS, got MIR_LRS-FIXEDSLIT"):
        step.call(model, *arguments)


@pytest.mark.parametrize(
    ("name", "settings", "message"),
    [
        ("CleanOutliersStep", {"window_heights": [0]}, r"clean_outliers\.window_heights"),
        ("CleanOutliersStep", {"spatial_profile_right_idx": 90}, "at most the number of columns"),
        ("CleanOutliersStep", {"outlier_threshold": 0.0}, "above 0"),
        ("CleanOutliersStep", {"draw_spatial_profiles": True, "draw_integration": 9}, "as there"),
        ("BackgroundSubtractStep", {"method": "plane"}, "one of constant, row_wise, col_wise"),
        ("Extract1DBoxStep", {"trace_position": "36"}, "one of constant, gaussian_fits"),
        ("Extract1DBoxStep", {"aperture_center": 70}, "aperture within columns 0 .. 71"),
        ("Extract1DOptimalStep", {"integration_time_s": -1.0}, "integration_time_s: expected"),
    ],
)
def test_impossible_parameters_are_named(name, settings, message, cleaned, calls):
    with pytest.raises(ValueError, match=message):
        getattr(stage_2, name).call(cleaned[0], *calls[name], **settings)


def test_arrays_that_do_not_fit_are_named(cleaned):
    model, profile, _ = cleaned
    with pytest.raises(ValueError, match="wavelength_map: expected 2 axes with the 416 rows"):
        stage_2.Extract1DBoxStep.call(model, WAVELENGTHS[:400])
    with pytest.raises(ValueError, match="P: expected the shape"):
        stage_2.Extract1DOptimalStep.call(model, WAVELENGTHS, profile[:, :5], 1.0)
    with pytest.raises(ValueError, match="readnoise: expected the shape"):
        stage_2.Extract1DOptimalStep.call(model, WAVELENGTHS, profile, np.ones(5))
    with pytest.raises(ValueError, match="spec_unc: expected the shape"):
        stage_2.AlignSpectraStep.call(model, model.data[..., 0], model.data[:2, :, 0])


def test_an_unknown_integration_time_is_named():
    model = hand_made_rates()
    model.meta.exposure.ngroups = None
    with pytest.raises(ValueError, match="integration_time_s: expected a time"):
        stage_2.Extract1DOptimalStep.call(model, WAVELENGTHS, model.data, 1.0)


# --- figures


def test_every_figure_is_saved(cleaned, calls, tmp_path):
    drawings = {
        "InspectDQFlagsStep": {"draw_dq_flags": ["dq_flags"]},
        "CleanOutliersStep": {
            "draw_cleaning_col": ["cleaning"],
            "draw_spatial_profiles": ["spatial_profile"],
        },
        "Extract1DBoxStep": {
            "draw_psf_fits": ["psf_fit"],
            "draw_aperture": ["aperture"],
            "draw_spectra": ["spectra"],
        },
        "Extract1DOptimalStep": {"draw_aperture": ["aperture"]},
        "AlignSpectraStep": {
            "draw_cross_correlation_fits": ["cross_correlation_x", "cross_correlation_y"],
            "draw_trace_positions": ["trace_positions"],
        },
    }
    for name, switches in drawings.items():
        folder = tmp_path / name
        settings = dict.fromkeys(switches, True)
        getattr(stage_2, name).call(
            cleaned[0], *calls[name], figure_path=str(folder), draw_integration=1, **settings
        )
        expected = {figure for figures in switches.values() for figure in figures}
        written = {path.name for path in folder.iterdir()}
        assert len(written) == len(expected)
        assert all(any(w.endswith(f"_{e}.png") for w in written) for e in expected)
