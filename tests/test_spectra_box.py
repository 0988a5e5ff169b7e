"""Box extraction against a loop over integrations and rows."""

import numpy as np
import pytest

from miri_gpu.backend import to_host
from miri_gpu.spectra.box import Extract1DBoxParams, extract_box, spectrum_wavelengths


def twin(data, err, centres, left, right):
    flux, flux_err = np.full(data.shape[:2], np.nan), np.full(data.shape[:2], np.nan)
    for i, centre in enumerate(centres):
        if np.isnan(centre):
            continue
        first, last = int(np.rint(centre - left)), int(np.rint(centre + right))
        if first < 0 or last >= data.shape[2]:
            continue
        for row in range(data.shape[1]):
            flux[i, row] = data[i, row, first : last + 1].astype(float).sum()
            variance = (err[i, row, first : last + 1].astype(float) ** 2).sum()
            flux_err[i, row] = np.sqrt(variance)
    return flux, flux_err  # an error that is unknown leaves the flux as it is


def frames(rng, n_ints=6):
    data = rng.normal(100, 10, (n_ints, 20, 72)).astype(np.float32)
    err = rng.uniform(1, 2, data.shape).astype(np.float32)
    data[0, 3, 36] = np.nan
    data[0, 4, 50] = np.nan  # outside
    err[1, 5, 35] = np.nan
    return data, err


@pytest.mark.parametrize("widths", [(4, 4), (0, 0), (3, 5)])
def test_constant_aperture(on_backend, rng, widths):
    data, err = frames(rng)
    params = Extract1DBoxParams(aperture_left_width=widths[0], aperture_right_width=widths[1])
    spectra = extract_box(*on_backend(data, err), params=params)
    flux, flux_err = twin(data, err, [36] * 6, *widths)
    np.testing.assert_allclose(to_host(spectra.flux), flux, rtol=1e-7)
    np.testing.assert_allclose(to_host(spectra.flux_err), flux_err, rtol=1e-7)
    assert to_host(spectra.flux).dtype == np.float32


def test_aperture_that_follows_the_trace(on_backend, rng):
    data, err = frames(rng)
    centres = np.array([36.2, 36.5, 35.5, np.nan, 2.0, 68.9])
    params = Extract1DBoxParams(trace_position="gaussian_fits")
    spectra = extract_box(*on_backend(data, err), params=params, centres=on_backend(centres))
    flux, flux_err = twin(data, err, centres, 4, 4)
    np.testing.assert_allclose(to_host(spectra.flux), flux, rtol=1e-7)
    np.testing.assert_allclose(to_host(spectra.flux_err), flux_err, rtol=1e-7)
    assert np.isnan(flux[3:]).all()
    assert np.isfinite(flux[2]).all()


def test_wavelengths_are_those_of_the_median_centre(on_backend, rng):
    wavelength_map = rng.uniform(5, 12, (20, 72))
    wavelength_map[:3] = np.nan
    found = to_host(spectrum_wavelengths(on_backend(wavelength_map)))
    np.testing.assert_array_equal(found, wavelength_map[:, 36])
    follow = Extract1DBoxParams(trace_position="gaussian_fits")
    centres = np.array([37.9, np.nan, 37.6, 38.2])
    found = spectrum_wavelengths(*on_backend(wavelength_map, centres), params=follow)
    np.testing.assert_array_equal(to_host(found), wavelength_map[:, 37])


def test_impossible_apertures_are_named():
    data = np.ones((2, 3, 72), np.float32)
    with pytest.raises(ValueError, match=r"within columns 0 .. 71, got 66 .. 74"):
        extract_box(data, data, params=Extract1DBoxParams(aperture_center=70))
    follow = Extract1DBoxParams(trace_position="gaussian_fits")
    with pytest.raises(ValueError, match="gaussian_fits needs fitted centres"):
        extract_box(data, data, params=follow)
    with pytest.raises(ValueError, match="no fit of the trace has a centre"):
        spectrum_wavelengths(data[0], np.full(2, np.nan), params=follow)
    with pytest.raises(ValueError, match="trace_position: expected one of"):
        Extract1DBoxParams(trace_position="guess")


@pytest.mark.parametrize("centre", [3.9, 72.0, -1.2])
def test_a_column_without_wavelengths_is_named(on_backend, rng, centre):
    wavelength_map = rng.uniform(5, 12, (20, 72))
    wavelength_map[:, :4] = np.nan
    follow = Extract1DBoxParams(trace_position="gaussian_fits")
    message = r"trace_position: .* column with wavelengths \(of 0 .. 71\), got "
    with pytest.raises(ValueError, match=f"{message}{int(centre)}"):
        spectrum_wavelengths(*on_backend(wavelength_map, np.array([centre])), params=follow)
    fixed = Extract1DBoxParams(aperture_center=3)
    with pytest.raises(ValueError, match=r"aperture_center: .* column with wavelengths .*, got 3"):
        spectrum_wavelengths(on_backend(wavelength_map), params=fixed)


def test_what_the_pixels_of_a_row_share_adds_up_before_it_is_squared(on_backend, rng):
    data, err = frames(rng)
    alone = extract_box(data, err)
    shared = rng.uniform(0.1, 0.5, (6, 20, 1)).astype(np.float32)
    both = extract_box(*on_backend(data, err), background_err=on_backend(shared))
    np.testing.assert_allclose(to_host(both.background_err), 9 * shared[..., 0], rtol=1e-6)
    assert alone.background_err is None
    expected = np.hypot(alone.flux_err, 9 * shared[..., 0])
    np.testing.assert_allclose(to_host(both.flux_err), expected, rtol=1e-6)
    np.testing.assert_array_equal(to_host(both.flux), alone.flux)
