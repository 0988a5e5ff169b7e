"""The product: what it holds, that it survives its file, and that files appear whole or not."""

import numpy as np
import pytest

from miri_gpu.errors import MiriGpuError, OutputError
from miri_gpu.timeseries import (
    Provenance,
    build_timeseries,
    load_timeseries,
    save_timeseries,
)

N_INTS, N_ROWS = 6, 9
CADENCE_S = 1.6


def int_times(n_ints=N_INTS, *, bjd_zero=0.0):
    mid = 59791.125 + np.arange(n_ints) * CADENCE_S / 86400
    offsets = {"start": -0.8 / 86400, "mid": 0.0, "end": 0.8 / 86400}
    utc = {f"int_{moment}_MJD_UTC": mid + offset for moment, offset in offsets.items()}
    tdb = {f"int_{m}_BJD_TDB": mid + 0.003 + o + bjd_zero for m, o in offsets.items()}
    return utc | tdb


def measured(rng, n_ints=N_INTS):
    planes = {
        name: rng.normal(size=(n_ints, N_ROWS)).astype("f4") for name in ("flux", "background")
    }
    lines = {
        n: rng.normal(size=n_ints) for n in ("x_shift", "y_shift", "trace_centre", "psf_sigma")
    }
    return {
        **planes,
        **lines,
        "flux_error": np.full((n_ints, N_ROWS), 0.5, "f4"),
        "n_outliers": rng.integers(0, 9, (n_ints, N_ROWS, 5)),
        "n_jumps": rng.integers(0, 99, n_ints),
    }


@pytest.fixture
def wavelength():
    """Falls with the row; the outer rows have none."""
    values = np.linspace(12.0, 5.0, N_ROWS)
    values[[0, -1]] = np.nan
    return values


@pytest.fixture
def product(rng, wavelength):
    return build_timeseries(
        wavelength=wavelength,
        times=int_times(),
        integration_number=np.arange(11, 11 + N_INTS),
        provenance=Provenance(
            recipe="[jump]\nskip = true\n",
            backend="numpy",
            reference_files={"flat": "f.fits", "dark": "d.fits"},
            input_files=["a_uncal.fits", "b_uncal.fits"],
            target="WASP-0",
            n_groups=12,
            group_time_s=0.15904,
        ),
        **measured(rng),
    )


def test_rows_without_a_wavelength_are_left_out_everywhere(rng, product, wavelength):
    given = measured(np.random.default_rng(20220712))
    np.testing.assert_array_equal(product["row"], np.arange(1, N_ROWS - 1))
    np.testing.assert_array_equal(product["wavelength"], wavelength[1:-1])
    for name in ("flux", "flux_error", "background", "n_outliers"):
        np.testing.assert_array_equal(product[name].values, given[name][:, 1:-1])
    for name in ("x_shift", "y_shift", "trace_centre", "psf_sigma", "n_jumps"):
        np.testing.assert_array_equal(product[name].values, given[name])


def test_dimensions_are_those_of_the_documentation(product):
    by_row = ("integration_number", "wavelength")
    assert product["flux"].dims == product["background"].dims == by_row
    assert product["n_outliers"].dims == (*by_row, "region_width")
    assert product["x_shift"].dims == ("integration_number",)
    np.testing.assert_array_equal(product["integration_number"], np.arange(11, 17))
    np.testing.assert_array_equal(product["region_width"], np.arange(5))


def test_everything_has_a_unit_and_a_name(product):
    for name, variable in product.variables.items():
        assert variable.attrs["units"], name
        assert variable.attrs["long_name"], name


def test_spectra_are_stored_as_float32_and_counts_as_integers(product):
    planes = ("flux", "flux_error", "background")
    assert {product[name].dtype for name in planes} == {np.dtype("f4")}
    assert product["n_outliers"].dtype == np.int16


@pytest.mark.parametrize("bjd_zero", [0.0, 2400000.5])
def test_times_are_full_bjd_and_mjd_whichever_the_table_counts(rng, wavelength, bjd_zero):
    dataset = build_timeseries(
        wavelength=wavelength,
        times=int_times(bjd_zero=bjd_zero),
        integration_number=np.arange(N_INTS),
        provenance=Provenance(),
        **measured(rng),
    )
    assert dataset["bjd_tdb_mid"].values[0] == pytest.approx(2459791.628, abs=1e-9)
    assert dataset["mjd_utc_mid"].values[0] == 59791.125
    assert np.all(dataset["bjd_tdb_start"] < dataset["bjd_tdb_mid"])
    assert np.all(dataset["mjd_utc_mid"] < dataset["mjd_utc_end"])
    assert float(dataset["integration_duration"]) == pytest.approx(CADENCE_S, abs=1e-3)


def test_one_integration_lasts_from_its_start_to_its_end(rng, wavelength):
    dataset = build_timeseries(
        wavelength=wavelength,
        times=int_times(1),
        integration_number=np.array([1]),
        provenance=Provenance(),
        **measured(rng, 1),
    )
    assert float(dataset["integration_duration"]) == pytest.approx(1.6, abs=1e-3)


def test_provenance_is_in_the_attributes(product):
    assert product.attrs["recipe"] == "[jump]\nskip = true\n"
    assert product.attrs["reference_files"] == "dark: d.fits\nflat: f.fits"
    assert (product.attrs["n_groups"], product.attrs["group_time_s"]) == (12, 0.15904)
    assert (product.attrs["filter"], product.attrs["subarray"]) == ("P750L", "SLITLESSPRISM")
    assert "gain_e_per_dn" not in product.attrs  # unknown
    assert product.attrs["input_files"].split("\n") == ["a_uncal.fits", "b_uncal.fits"]
    assert f"numpy {np.__version__}" in product.attrs["versions"]
    assert product.attrs["created"].endswith("+00:00")


def test_an_absent_or_unknown_variable_is_named(rng, wavelength):
    given = measured(rng)
    given["flux_err"] = given.pop("flux_error")
    with pytest.raises(TypeError, match="absent or unknown: flux_err, flux_error"):
        build_timeseries(
            wavelength=wavelength,
            times=int_times(),
            integration_number=np.arange(N_INTS),
            provenance=Provenance(),
            **given,
        )


def optional(rng):
    """What only some recipes measure: two waves, chi-squares, the linearity of four amplifiers."""
    return {
        "frequency": np.array([390.625, 10.039216]),
        "emi_amplitude_before": rng.normal(size=(2, N_INTS)),
        "emi_amplitude_after": rng.normal(size=(2, N_INTS)),
        "chi_square": rng.normal(size=(N_INTS, N_ROWS)),
        "background_flux_error": rng.normal(size=(N_INTS, N_ROWS)),
        "rows_sharing_background": np.inf,
        "linearity_coefficients": rng.normal(size=(5, 4)),
        "linearity_coefficients_error": rng.normal(size=(5, 4)),
        "linearity_residual": rng.normal(size=(12, 4)),
        "linearity_residual_error": rng.normal(size=(12, 4)),
        "linearity_in_fit": np.arange(12) > 3,
        "linearity_n_ramps": np.array([9, 9, 8, 9]),
        "linearity_n_rejected": np.array([0, 0, 1, 0]),
    }


def test_what_only_some_recipes_measure_is_there_where_it_was(rng, wavelength, tmp_path, product):
    given = optional(rng)
    dataset = build_timeseries(
        wavelength=wavelength,
        times=int_times(),
        integration_number=np.arange(N_INTS),
        provenance=Provenance(),
        **measured(rng),
        **given,
    )
    assert not set(given) & set(product.variables)
    test_everything_has_a_unit_and_a_name(dataset)
    assert dataset["emi_amplitude_before"].dims == ("frequency", "integration_number")
    assert dataset["frequency"].attrs["units"] == "Hz" and "frequency" in dataset.coords
    np.testing.assert_array_equal(dataset["chi_square"], given["chi_square"][:, 1:-1].astype("f4"))
    np.testing.assert_array_equal(dataset["linearity_residual"], given["linearity_residual"])
    assert dataset["linearity_in_fit"].dtype == np.int8
    save_timeseries(dataset, tmp_path / "t.nc")
    assert load_timeseries(tmp_path / "t.nc").identical(dataset)


def test_the_product_survives_its_file(product, tmp_path):
    product["flux"].values[0, 0] = np.nan
    path = tmp_path / "timeseries.nc"
    save_timeseries(product, path)
    assert load_timeseries(path).identical(product)
    assert [file.name for file in tmp_path.iterdir()] == ["timeseries.nc"]


def test_anybody_can_open_the_file_with_xarray_alone(product, tmp_path):
    import xarray

    save_timeseries(product, tmp_path / "t.nc")
    with xarray.open_dataset(tmp_path / "t.nc", engine="h5netcdf") as dataset:
        assert dataset["bjd_tdb_mid"].dtype == np.float64
        assert float(dataset["integration_duration"]) == pytest.approx(CADENCE_S, abs=1e-3)


def test_saving_replaces_an_older_product(product, tmp_path):
    path = tmp_path / "t.nc"
    path.write_text("older")
    save_timeseries(product, path)
    assert load_timeseries(path).identical(product)


def test_nothing_is_left_where_saving_fails(product, tmp_path):
    with pytest.raises(OutputError, match=r"no/such/t\.nc: cannot be written"):
        save_timeseries(product, tmp_path / "no" / "such" / "t.nc")
    product["flux"].attrs["broken"] = object()
    with pytest.raises(Exception, match="broken"):
        save_timeseries(product, tmp_path / "t.nc")
    assert list(tmp_path.iterdir()) == []


def test_files_that_are_no_product_are_refused_by_name(product, tmp_path):
    with pytest.raises(MiriGpuError, match=r"absent\.nc: no such file"):
        load_timeseries(tmp_path / "absent.nc")
    (tmp_path / "text.nc").write_text("hello")
    with pytest.raises(MiriGpuError, match=r"text\.nc: not a netCDF file"):
        load_timeseries(tmp_path / "text.nc")
    product.drop_vars(["flux", "x_shift"]).to_netcdf(tmp_path / "other.nc", engine="h5netcdf")
    with pytest.raises(MiriGpuError, match=r"other\.nc: .* it has no flux, x_shift"):
        load_timeseries(tmp_path / "other.nc")
