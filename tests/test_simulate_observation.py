"""The simulator: what it writes is reproducible, complete, and what the JWST pipeline expects."""

import logging
import os
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest

from miri_gpu.detector import N_COLS, N_ROWS
from miri_gpu.simulate import SimulationSettings, expected_flux_error, simulate
from miri_gpu.simulate.crds_cache import CONTEXT, with_checksum
from miri_gpu.simulate.scene import build_scene
from miri_gpu.simulate.segments import TIME_COLUMNS
from miri_gpu.simulate.true_detector import build_detector

SETTINGS = SimulationSettings(n_ints=5, n_groups=6, n_segments=2, seed=3, cosmic_ray_rate=2.0)


def samples_of(path):
    from astropy.io import fits

    return fits.getdata(path, "SCI")


@pytest.fixture(scope="module")
def observation(tmp_path_factory):
    return simulate(tmp_path_factory.mktemp("observation"), SETTINGS)


@pytest.fixture(scope="module")
def truth(observation):
    return observation.load_truth()


@pytest.fixture
def crds(observation, monkeypatch):
    """The simulated cache is the one that CRDS uses."""
    for name in {"CRDS_SERVER_URL"} & set(os.environ):
        monkeypatch.delenv(name)
    monkeypatch.setenv("CRDS_PATH", str(observation.crds_path))
    monkeypatch.setenv("CRDS_CONTEXT", observation.crds_context)


def test_importing_the_simulator_is_light():
    code = "import sys, miri_gpu.simulate; print(*{n.split('.')[0] for n in sys.modules})"
    loaded = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )
    assert not {"astropy", "asdf", "crds", "jwst", "xarray"} & set(loaded.stdout.split())


# --- the files


def test_segments_follow_each_other(observation):
    from astropy.io import fits

    headers = [fits.getheader(path) for path in observation.segments]
    assert [(h["EXSEGNUM"], h["INTSTART"], h["INTEND"]) for h in headers] == [(1, 1, 2), (2, 3, 5)]
    assert {(h["EXSEGTOT"], h["NINTS"], h["NGROUPS"]) for h in headers} == {(2, 5, 6)}
    shapes = [samples_of(path).shape for path in observation.segments]
    assert shapes == [(2, 6, N_ROWS, N_COLS), (3, 6, N_ROWS, N_COLS)]


def test_files_are_whole_and_nothing_else_is_left(observation):
    from astropy.io import fits

    names = {path.name for path in observation.directory.iterdir()}
    assert names == {*(path.name for path in observation.segments), "truth.nc", "crds"}
    for path in observation.segments:
        assert path.stat().st_size % 2880 == 0
        with fits.open(path) as file:
            file.verify("exception")
            assert [hdu.name for hdu in file] == ["PRIMARY", "SCI", "INT_TIMES", "ASDF"]
            assert samples_of(path).dtype == np.uint16


def test_integration_times_are_those_of_the_segment(observation):
    from astropy.io import fits

    tables = [fits.getdata(path, "INT_TIMES") for path in observation.segments]
    assert [list(table["integration_number"]) for table in tables] == [[1, 2], [3, 4, 5]]
    assert tables[0].columns.names == ["integration_number", *TIME_COLUMNS]
    times = np.concatenate(tables)
    period = np.diff(times["int_mid_BJD_TDB"]) * 86400
    assert period == pytest.approx(7 * 0.15904, abs=2e-5)  # 6 groups and a reset frame
    length = (times["int_end_MJD_UTC"] - times["int_start_MJD_UTC"]) * 86400
    assert length == pytest.approx(6 * 0.15904, abs=2e-5)


def test_jwst_opens_a_segment_as_ramps(observation):
    from jwst import datamodels

    path = str(observation.segments[1])
    with datamodels.open(path) as model:
        assert isinstance(model, datamodels.Level1bModel)
    with datamodels.RampModel(path) as model:
        assert model.shape == (3, 6, N_ROWS, N_COLS)
        assert len(model.int_times) == 3
        assert model.meta.exposure.type == "MIR_LRS-SLITLESS"
        assert np.array_equal(model.data, samples_of(path))


@pytest.mark.parametrize("name", ["star_peak_rate", "read_noise_dn", "drift_dn"])
def test_infinite_settings_are_refused(name):
    with pytest.raises(ValueError, match=rf"simulate\.{name}: expected a finite number, got inf"):
        SimulationSettings(**{name: float("inf")})


def test_a_second_simulation_replaces_the_first(tmp_path):
    settings = SimulationSettings(n_ints=3, n_groups=2, n_segments=3)
    simulate(tmp_path, settings)
    observation = simulate(tmp_path, replace(settings, n_segments=1))
    assert sorted(tmp_path.glob("*.fits")) == list(observation.segments)


def test_a_failure_leaves_no_half_written_segment(tmp_path):
    def stop(done, total):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        simulate(tmp_path, SimulationSettings(n_ints=2, n_groups=2, n_segments=1), progress=stop)
    assert [path.name for path in tmp_path.iterdir()] == ["crds"]


# --- reproducible


def test_samples_depend_neither_on_the_run_nor_on_the_segmentation(observation, tmp_path):
    expected = np.concatenate([samples_of(path) for path in observation.segments])
    calls = []
    again = simulate(
        tmp_path, replace(SETTINGS, n_segments=1), progress=lambda *done: calls.append(done)
    )
    assert np.array_equal(samples_of(again.segments[0]), expected)
    assert calls == [(k, 5) for k in range(1, 6)]


def test_more_segments_than_integrations_are_refused():
    with pytest.raises(ValueError, match=r"n_segments: expected at most n_ints \(4\), got 5"):
        SimulationSettings(n_ints=4, n_segments=5)


# --- the references


def test_mappings_carry_their_own_checksum(observation):
    from crds.core import rmap

    folder = observation.crds_path / "mappings" / "jwst"
    for path in folder.iterdir():
        mapping = rmap.Mapping.from_file(str(path))  # raises where the checksum is wrong
        assert mapping.header["name"] == path.name
    assert (folder / CONTEXT).exists()


def test_a_changed_rule_changes_the_checksum():
    one, other = (with_checksum({"name": "a"}, f"{{{k}: 1}}\n") for k in (1, 2))
    assert one.split("sha1sum")[1][:40] != other.split("sha1sum")[1][:40]


STEPS = (
    "GroupScaleStep", "DQInitStep", "EmiCorrStep", "SaturationStep", "FirstFrameStep",
    "LastFrameStep", "ResetStep", "LinearityStep", "RscdStep", "DarkCurrentStep", "RefPixStep",
    "JumpStep", "RampFitStep", "GainScaleStep", "AssignWcsStep", "FlatFieldStep",
)  # fmt: skip


@pytest.fixture(scope="module")
def stsci_rates(observation):
    """The second segment after all steps of STScI, with the references of the cache."""
    import jwst.step
    from jwst import datamodels

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(logging.root.manager, "disable", logging.CRITICAL)
        patch.setenv("CRDS_PATH", str(observation.crds_path))
        patch.setenv("CRDS_CONTEXT", observation.crds_context)
        model = datamodels.RampModel(str(observation.segments[1]))
        for name in STEPS:
            step = getattr(jwst.step, name, None)
            if step is None:  # FirstFrameStep goes away in future releases
                continue
            options = {"skip": False} if name == "EmiCorrStep" else {}
            model = step.call(model, **options)
            model = model[1] if isinstance(model, tuple) else model  # RampFitStep gives two
    return model


def test_the_steps_of_stsci_run_offline(stsci_rates):
    done = stsci_rates.meta.cal_step.instance
    skipped = {name for name, status in done.items() if status == "SKIPPED"}
    assert skipped <= {"group_scale", "refpix", "gain_scale"}  # not for this mode or readout
    assert {"reset", "linearity", "dark_sub", "ramp_fit", "assign_wcs", "flat_field"} <= set(done)
    assert stsci_rates.meta.ref_file.crds.context_used == CONTEXT


def test_the_steps_of_stsci_recover_the_rates(stsci_rates, truth):
    import numpy.ma as ma

    columns = slice(31, 45)
    usable = (stsci_rates.dq & 1) == 0
    rates = ma.masked_array(stsci_rates.data, ~usable)[:, 100:380]
    background = ma.median(rates[..., 15:25], axis=2)
    star = (rates[..., columns] - background[..., None]).sum(axis=(0, 1, 2)) / 3
    expected = (truth["star"] * truth["light_curve"][2:]).mean("integration")[100:380].sum()
    assert star == pytest.approx(float(expected), rel=0.02)  # a per cent of the pixels is masked


def test_the_wavelengths_of_the_wcs_are_the_true_ones(stsci_rates, truth):
    col, row = np.meshgrid(np.arange(N_COLS), np.arange(N_ROWS))
    wavelength = stsci_rates.meta.wcs(col, row)[2]
    assert np.isnan(wavelength[:, :4]).all()
    for column in (4, 36, 71):
        np.testing.assert_allclose(wavelength[:, column], truth["wavelength"], rtol=1e-12)


def test_any_other_type_of_reference_is_not_applicable(crds, observation):
    from jwst.step import Extract1dStep, SuperBiasStep

    path = str(observation.segments[0])
    for step, kind in ((SuperBiasStep(), "superbias"), (Extract1dStep(), "apcorr")):
        assert step.get_reference_file(path, kind) == "N/A"


def test_references_agree_with_the_truth(observation, truth):
    from astropy.io import fits

    folder = observation.references
    rows, cols = slice(528, 528 + N_ROWS), slice(0, N_COLS)

    def reference(kind, name):
        return fits.getdata(folder / f"jwst_miri_{kind}_0001.fits", name)

    coefficients = reference("linearity", "COEFFS")[:, rows, cols]
    known = np.isfinite(coefficients)
    assert 0 < np.count_nonzero(~known[1]) < 10
    np.testing.assert_array_equal(
        coefficients[known], np.broadcast_to(truth["linearity"].values[:, None], known.shape)[known]
    )
    assert np.array_equal(reference("mask", "DQ")[rows, cols], truth["mask"])
    dark = reference("dark", "SCI")
    np.testing.assert_allclose(dark[0, 5], truth["dark"] * 6 * 0.15904, rtol=1e-6)
    assert np.median(reference("readnoise", "SCI")) == pytest.approx(6 * np.sqrt(2))


# --- the truth


def test_the_truth_holds_what_went_in(truth):
    scene, detector = build_scene(SETTINGS), build_detector(SETTINGS)
    np.testing.assert_array_equal(truth["light_curve"], scene.light_curve)
    np.testing.assert_array_equal(truth["bias"], detector.bias)
    np.testing.assert_allclose(truth["star_electrons"], truth["star"] * SETTINGS.gain)
    assert truth.attrs["transit_depth"] == SETTINGS.transit_depth
    assert truth["star"].attrs["units"] == "DN/s"
    assert truth.sizes["cosmic_ray"] > 10


def test_one_group_has_no_flux_error(truth):
    with pytest.raises(ValueError, match="n_groups_used: expected at least 2, got 1"):
        expected_flux_error(truth, n_groups_used=1, half_width=4)
