"""Light curves in bands, and depths whose errors are statistically right."""

from itertools import pairwise

import numpy as np
import pytest
import xarray

from miri_gpu.light_curves import (
    median_of_known,
    normalised,
    spectroscopic_light_curves,
    transit_depths,
    white_light_curve,
)

N_INTS = 120
WAVELENGTHS = np.array([12.5, 11.0, 9.5, 8.0, 7.0, 6.0, 5.5, 4.5])


def trapezoid():
    """0 out of transit, 1 inside, straight sides; not centred."""
    phase = np.linspace(-1, 1.2, N_INTS)
    return np.clip((0.5 - np.abs(phase)) / 0.15, 0, 1)


def make_product(flux, error):
    times = 2459791.0 + np.arange(flux.shape[0]) * 10 / 86400
    by_row = ("integration_number", "wavelength")
    clocks = {
        f"{clock}_{moment}": ("integration_number", times)
        for clock in ("bjd_tdb", "mjd_utc")
        for moment in ("start", "mid", "end")
    }
    return xarray.Dataset(
        {"flux": (by_row, flux), "flux_error": (by_row, np.broadcast_to(error, flux.shape))},
        {
            "wavelength": WAVELENGTHS,
            "row": ("wavelength", np.arange(len(WAVELENGTHS))),
            "integration_number": np.arange(1, flux.shape[0] + 1),
            "x_shift": ("integration_number", 4e-3 * np.sin(np.arange(flux.shape[0]))),
            "y_shift": ("integration_number", 4e-3 * np.cos(np.arange(flux.shape[0]) ** 1.3)),
            "psf_sigma": ("integration_number", np.full(flux.shape[0], 0.8)),
            **clocks,
        },
    )


@pytest.fixture
def product(rng):
    flux = rng.normal(1000.0, 5.0, (N_INTS, len(WAVELENGTHS))).astype("f4")
    return make_product(flux, np.linspace(1, 8, len(WAVELENGTHS), dtype="f4"))


def test_bands_are_sums_with_errors_in_quadrature(product):
    edges = (5.0, 6.0, 8.0, 12.0)
    curves = spectroscopic_light_curves(product, edges)
    assert curves["flux"].dims == ("wavelength", "integration_number")
    for k, (low, high) in enumerate(pairwise(edges)):  # the slow obvious twin
        rows = [i for i, w in enumerate(WAVELENGTHS) if low <= w < high]
        assert curves["n_rows"].values[k] == len(rows)
        for i in range(N_INTS):
            one = product.isel(integration_number=i)
            flux = sum(float(one["flux"].values[row]) for row in rows)
            error = sum(float(one["flux_error"].values[row]) ** 2 for row in rows) ** 0.5
            assert curves["flux"].values[k, i] == pytest.approx(flux, rel=1e-12)
            assert curves["flux_error"].values[k, i] == pytest.approx(error, rel=1e-12)
    np.testing.assert_array_equal(curves["wavelength"], [5.5, 7.0, 10.0])
    np.testing.assert_array_equal(curves["bjd_tdb_mid"], product["bjd_tdb_mid"])


@pytest.mark.parametrize(
    ("n_sharing", "correlations"),
    [(1, [1, 0, 0, 0]), (2, [1, 0.5, 0, 0]), (4, [1, 0.75, 0.5, 0.25]), (np.inf, [1, 1, 1, 1])],
)
def test_the_error_of_a_background_adds_up_as_rows_share_it(product, n_sharing, correlations):
    product["background_flux_error"] = product["flux_error"] * 0.6
    product["rows_sharing_background"] = n_sharing
    rows = slice(2, 6)
    total = product["flux_error"].values[0, rows]
    covariance = np.diag((0.8 * total) ** 2)
    for i, j in np.ndindex(4, 4):
        covariance[i, j] += correlations[abs(i - j)] * 0.36 * total[i] * total[j]
    curve = spectroscopic_light_curves(product, (6.0, 10.0)).isel(wavelength=0)
    np.testing.assert_allclose(curve["flux_error"], np.sqrt(covariance.sum()), rtol=1e-6)


def test_the_white_light_curve_is_one_band(product):
    white = white_light_curve(product)
    assert white["flux"].dims == ("integration_number",)
    np.testing.assert_allclose(
        white["flux"], product["flux"].values[:, 1:-1].sum(axis=1), rtol=1e-6
    )
    narrow = white_light_curve(product, wavelength_min=7.5, wavelength_max=8.5)
    np.testing.assert_array_equal(narrow["flux"], product["flux"].values[:, 3])


def test_unknown_flux_never_looks_like_a_dip(product):
    flux = product["flux"].values
    flux[:, 1] = np.nan  # 11 um: never known, left out
    flux[: N_INTS // 2 + 5, 2] = np.nan  # 9.5 um: mostly unknown, left out
    flux[7, 3] = np.nan  # 8 um: once unknown
    curve = spectroscopic_light_curves(product, (7.5, 12.0)).isel(wavelength=0)
    assert int(curve["n_rows"]) == 1
    assert np.flatnonzero(np.isnan(curve["flux"])).tolist() == [7]


def test_a_band_without_known_flux_is_unknown(product):
    product["flux"].values[:, 1] = np.nan
    curves = spectroscopic_light_curves(product, (5.0, 10.0, 12.0))
    assert np.isnan(curves["flux"].values[1]).all()
    assert np.isnan(curves["flux_error"].values[1]).all()
    assert np.isfinite(curves["flux"].values[0]).all()
    depths = transit_depths(curves, trapezoid())
    assert np.isfinite(depths["depth"].values[0])
    assert np.isnan(depths["depth"].values[1])


@pytest.mark.parametrize(
    ("edges", "words"),
    [
        ((5.0,), "two or more rising"),
        ((6.0, 5.0), "two or more rising"),
        ((5.0, float("nan")), "two or more rising"),
        ((5.0, 9.0, 9.2, 12.0), "no row has 9 <= wavelength < 9.2"),
    ],
)
def test_impossible_bands_are_refused(product, edges, words):
    with pytest.raises(ValueError, match=words):
        spectroscopic_light_curves(product, edges)


def test_normalised_curves_have_median_one_out_of_transit(product):
    out = trapezoid() == 0
    curves = spectroscopic_light_curves(product, (5.0, 8.0, 12.0))
    relative = normalised(curves, out)
    np.testing.assert_allclose(np.median(relative["flux"].values[:, out], axis=1), 1.0)
    np.testing.assert_allclose(
        relative["flux_error"] / relative["flux"], curves["flux_error"] / curves["flux"]
    )
    assert relative["flux"].attrs == {"units": "1", "long_name": "relative flux in the band"}
    assert curves["flux"].attrs["units"] == "DN/s"  # the argument is what it was
    assert curves["flux"].attrs["long_name"] == "flux in the band"
    assert float(normalised(white_light_curve(product))["flux"].median()) == pytest.approx(1.0)


def test_normalising_by_nothing_is_unknown(product):
    product["flux"].values[:] = 0.0
    assert np.isnan(normalised(white_light_curve(product))["flux"]).all()


def test_depth_without_noise_is_exact_under_a_slope():
    """The product of slope and depth is odd about mid-transit and cancels, if the shape is even."""
    time = np.arange(N_INTS) - (N_INTS - 1) / 2
    shape = np.clip((30 - np.abs(time)) / 8, 0, 1)
    depth = np.array([0.03, 0.025, 0.02, 0.02, 0.015, 0.01, 0.01, 0.0])
    flux = 1000 * (1 + 1e-4 * time[:, None]) * (1 - depth * shape[:, None])
    curves = spectroscopic_light_curves(make_product(flux, 1.0), (4.0, 5.0, 6.0, 7.5))
    depths = transit_depths(curves, shape)
    np.testing.assert_allclose(depths["depth"], [0.0, 0.01, 0.0125], atol=1e-6)
    assert float(depths["expected_scatter"].values[0]) == pytest.approx(1e-3, rel=1e-6)


def test_depth_errors_are_right_statistically(rng):
    """Many noisy transits: the pulls have mean 0 and width 1, the scatters are the noise put in."""
    n_trials, noise, true = 600, 4.0, 0.02
    shape = trapezoid()
    flux = 1000 * (1 - true * shape)[:, None] + rng.normal(0, noise, (N_INTS, n_trials))
    pulls, scatters = [], []
    for trial in range(0, n_trials, len(WAVELENGTHS)):
        part = make_product(flux[:, trial : trial + len(WAVELENGTHS)], noise)
        edges = (4.0, 5.0, 5.7, 6.5, 7.5, 9.0, 10.0, 12.0, 13.0)
        depths = transit_depths(spectroscopic_light_curves(part, edges), shape)
        pulls.extend((depths["depth"].values - true) / depths["depth_error"].values)
        scatters.extend(depths["residual_scatter"].values / depths["expected_scatter"].values)
    assert abs(np.mean(pulls)) < 4 / np.sqrt(n_trials)
    assert np.std(pulls) == pytest.approx(1.0, abs=0.12)
    assert np.mean(scatters) == pytest.approx(1.0, abs=0.02)


def test_what_a_curve_is_decorrelated_against_leaves_its_depth(rng):
    shape = trapezoid()
    product = make_product(np.empty((N_INTS, len(WAVELENGTHS))), 2.0)
    lost = 1 + 5.0 * product["x_shift"].values - 3.0 * (product["y_shift"].values - 0.02)
    true = np.linspace(0.01, 0.03, len(WAVELENGTHS))
    flux = 1000 * lost[:, None] * (1 - true * shape[:, None])
    product["flux"].values[:] = flux + rng.normal(0, 2.0, flux.shape)
    product["x_shift"].values[9] = np.nan  # left out
    edges = (4.0, 5.0, 5.7, 6.5, 7.5, 9.0, 10.0, 12.0, 13.0)
    curves = spectroscopic_light_curves(product, edges)
    assert (transit_depths(curves, shape)["residual_scatter"] > 5e-3).all()
    found = transit_depths(curves, shape, against=("x_shift", "y_shift"))
    ratio = found["residual_scatter"] / found["expected_scatter"]
    np.testing.assert_allclose(ratio, 1.0, atol=0.25)
    pulls = (found["depth"].values - true[::-1]) / found["depth_error"].values
    assert np.abs(pulls).max() < 4 and 0.4 < pulls.std() < 1.8


def test_variables_that_determine_nothing_leave_the_depth_unknown(product):
    white = white_light_curve(product)
    assert np.isnan(float(transit_depths(white, trapezoid(), against=["psf_sigma"])["depth"]))
    twice = ["x_shift", "x_shift"]
    assert np.isnan(float(transit_depths(white, trapezoid(), against=twice)["depth"]))
    with pytest.raises(ValueError, match=r"against: expected names among .*x_shift.*, got 'shift'"):
        transit_depths(white, trapezoid(), against=["shift"])
    for name in ("wavelength", "flux"):
        with pytest.raises(ValueError, match=f"got '{name}'"):
            transit_depths(white, trapezoid(), against=name)


def test_a_mask_and_unknown_points_will_do_for_the_shape(rng):
    shape = trapezoid()
    flux = 1000 * (1 - 0.02 * shape)[:, None] + rng.normal(0, 1.0, (N_INTS, len(WAVELENGTHS)))
    flux[50, 4] = np.nan
    white = white_light_curve(make_product(flux, 1.0))
    inside = np.where((shape > 0) & (shape < 1), np.nan, shape)  # sides left out
    from_mask = transit_depths(white, inside)
    assert from_mask["depth"].dims == ()
    deviation = abs(float(from_mask["depth"]) - 0.02) / float(from_mask["depth_error"])
    assert deviation < 4
    full = transit_depths(white, shape > 0.5)
    assert 0.015 < float(full["depth"]) < 0.021


@pytest.mark.parametrize(
    "shape", [np.zeros(N_INTS), np.ones(N_INTS), np.full(N_INTS, np.nan)], ids=["0", "1", "nan"]
)
def test_a_depth_that_nothing_determines_is_unknown(product, shape):
    depths = transit_depths(white_light_curve(product), shape)
    assert np.isnan(float(depths["depth"]))
    assert np.isnan(float(depths["depth_error"]))


@pytest.mark.parametrize(
    ("shape", "found"),
    [(np.ones(10), "10"), (np.ones((3, N_INTS)), f"3 x {N_INTS}"), (1.0, "one")],
)
def test_a_shape_of_other_integrations_or_bands_is_refused(product, shape, found):
    curves = spectroscopic_light_curves(product, (5.0, 8.0, 12.0))
    message = f"shape: expected {N_INTS} values or 2 x {N_INTS}, got {found}$"
    with pytest.raises(ValueError, match=message):
        transit_depths(curves, shape)


def test_median_of_known_passes_over_nan():
    values = np.array([[1.0, np.nan, 5.0], [np.nan, np.nan, np.nan]])
    np.testing.assert_array_equal(median_of_known(values, axis=1), [3.0, np.nan])
    np.testing.assert_array_equal(median_of_known(values, axis=0), [1.0, np.nan, 5.0])
