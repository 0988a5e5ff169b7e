"""Array maths against slow obvious twins: NumPy one curve at a time, and SciPy."""

import warnings

import numpy as np
import pytest
import standin
from scipy import signal
from scipy.interpolate import CubicSpline
from scipy.optimize import curve_fit

from miri_gpu.backend import to_host
from miri_gpu.numerics import (
    cross_correlation_shifts,
    fit_gaussians,
    fit_polynomials,
    interpolate_shifted,
    masked_median,
    moving_median,
    solve_small,
    solve_symmetric,
    spline_terms,
)


def nanmedian(data, axis):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # NumPy warns of slices without any value
        return np.nanmedian(data, axis=axis)


class TestMaskedMedian:
    @pytest.mark.parametrize("dtype", [np.float32, np.float64])
    @pytest.mark.parametrize("axis", [0, 1, -1])
    def test_is_the_median_of_numpy(self, on_backend, rng, axis, dtype):
        data = rng.normal(size=(6, 7, 8)).astype(dtype)
        data[rng.random(data.shape) < 0.3] = np.nan
        good = rng.random(data.shape) < 0.7
        data[:, 0, 0], good[0, :, 1], good[1, 1, :] = np.nan, False, False
        median = to_host(masked_median(*on_backend(data, good), axis=axis))
        assert median.dtype == dtype
        np.testing.assert_array_equal(median, nanmedian(np.where(good, data, np.nan), axis))

    def test_without_a_mask_uses_all_finite_values(self, on_backend, rng):
        data = rng.normal(size=(5, 9))
        data[2, 3:] = np.nan
        median = to_host(masked_median(on_backend(data), axis=-1))
        np.testing.assert_array_equal(median, np.nanmedian(data, axis=-1))

    def test_all_bad_is_nan(self, on_backend):
        data, good = np.ones((3, 4), np.float32), np.zeros((3, 4), bool)
        assert np.isnan(to_host(masked_median(*on_backend(data, good), axis=1))).all()

    def test_largest_numbers_do_not_overflow(self, on_backend):
        data = np.full((1, 2), np.finfo(np.float32).max, np.float32)
        np.testing.assert_array_equal(to_host(masked_median(on_backend(data), axis=1)), data[:, 0])


class TestMovingMedian:
    @pytest.mark.parametrize("radius", [0, 1, 3, 50])
    @pytest.mark.parametrize("axis", [1, -1])
    def test_is_the_median_of_each_clipped_window(self, on_backend, rng, radius, axis):
        data = rng.normal(size=(3, 11, 13)).astype(np.float32)
        good = rng.random(data.shape) < 0.6
        smooth = to_host(moving_median(*on_backend(data, good), radius=radius, axis=axis))
        masked = np.moveaxis(np.where(good, data, np.nan), axis, -1)
        twin = np.empty_like(masked)
        for i in range(masked.shape[-1]):
            twin[..., i] = nanmedian(masked[..., max(i - radius, 0) : i + radius + 1], -1)
        np.testing.assert_array_equal(smooth, np.moveaxis(twin, -1, axis))

    def test_does_not_depend_on_how_many_windows_are_held(self, rng, monkeypatch):
        data = rng.normal(size=(7, 20))
        at_once = moving_median(data, radius=4, axis=-1)
        monkeypatch.setattr("miri_gpu.numerics.medians._WINDOW_SAMPLES", 1)
        np.testing.assert_array_equal(moving_median(data, radius=4, axis=-1), at_once)


class TestFitPolynomials:
    @pytest.mark.parametrize("order", [0, 1, 4])
    def test_is_the_least_squares_polynomial(self, on_backend, rng, order):
        values = rng.normal(size=(20, 150)) + 1000.0
        good = rng.random(values.shape) < 0.8
        values[~good] = np.nan
        fitted = to_host(fit_polynomials(*on_backend(values, good), order))
        x = np.linspace(-1, 1, 150)
        for fit, value, use in zip(fitted, values, good, strict=True):
            twin = np.polynomial.Polynomial.fit(x[use], value[use], order, domain=[-1, 1])(x)
            np.testing.assert_allclose(fit, twin, rtol=1e-12)

    def test_finds_a_polynomial_anywhere_from_few_neighbouring_points(self, on_backend, rng):
        x = np.arange(150) / 150
        values = 3 - 2 * x + 5 * x**2 - x**3 + 4 * x**4
        good = np.zeros((2, 150), bool)
        good[0, 60:66] = good[1, 140:] = True
        fitted = to_host(fit_polynomials(*on_backend(np.stack([values] * 2), good), 4))
        np.testing.assert_allclose(fitted, np.stack([values] * 2), rtol=1e-4)
        np.testing.assert_allclose(fitted[good], np.stack([values] * 2)[good], rtol=1e-13)

    def test_at_given_points(self, on_backend, rng):
        x = np.sort(rng.uniform(-5, 80, 30))
        values = rng.normal(size=(4, 30))
        good = np.ones(values.shape, bool)
        fitted = to_host(fit_polynomials(*on_backend(values, good), 3, points=on_backend(x)))
        twin = [np.polynomial.Polynomial.fit(x, value, 3)(x) for value in values]
        np.testing.assert_allclose(fitted, twin, atol=1e-11)

    def test_few_good_points_lower_the_order(self, on_backend):
        values = np.tile([5.0, np.nan, 7.0, 1.0, 1.0, 100.0], (4, 1))
        good = np.array(
            [
                [0, 0, 0, 0, 0, 0],
                [1, 0, 0, 0, 0, 0],
                [1, 0, 1, 0, 0, 0],
                [1, 0, 1, 0, 1, 0],
            ],
            bool,
        )
        fitted = to_host(fit_polynomials(*on_backend(values, good), 4))
        np.testing.assert_array_equal(fitted[0], 0)
        np.testing.assert_allclose(fitted[1], 5)
        np.testing.assert_allclose(fitted[2], [5, 6, 7, 8, 9, 10], rtol=1e-14)
        np.testing.assert_allclose(fitted[3], [5, 7, 7, 5, 1, -5], rtol=1e-13)

    def test_does_not_depend_on_the_other_curves(self, rng):
        values, good = rng.normal(size=(9, 77)), rng.random((9, 77)) < 0.9
        at_once = fit_polynomials(values, good, 4)
        alone = [fit_polynomials(values[i : i + 1], good[i : i + 1], 4)[0] for i in range(9)]
        np.testing.assert_array_equal(at_once, alone)


class TestSolveSymmetric:
    @pytest.mark.parametrize("n", [1, 3, 5])
    def test_solves(self, on_backend, rng, n):
        half = rng.normal(size=(50, n, n + 2))
        matrix, vector = half @ half.transpose(0, 2, 1), rng.normal(size=(50, n))
        solution = to_host(solve_symmetric(*on_backend(matrix, vector)))
        twin = np.linalg.solve(matrix, vector[..., None])[..., 0]
        np.testing.assert_allclose(solution, twin, rtol=1e-8)

    def test_singular_is_nan(self, on_backend):
        matrix = np.array(
            [[[1.0, 1.0], [1.0, 1.0]], [[0.0, 0.0], [0.0, 0.0]], np.full((2, 2), np.nan)]
        )
        vector = np.ones((3, 2))
        assert np.isnan(to_host(solve_symmetric(*on_backend(matrix, vector)))).all()
        assert np.isnan(to_host(solve_small(*on_backend(matrix, vector)))).all()

    @pytest.mark.parametrize("n", [1, 2, 3])
    def test_a_matrix_need_not_be_symmetric(self, on_backend, rng, n):
        matrix = np.eye(n) * n + rng.uniform(-0.5, 0.5, (7, n, n))
        vector = rng.normal(size=(7, n))
        solution = to_host(solve_small(*on_backend(matrix, vector)))
        twin = np.linalg.solve(matrix, vector[..., None])[..., 0]
        np.testing.assert_allclose(solution, twin, rtol=1e-10)
        assert np.isnan(to_host(solve_small(*on_backend(-matrix, vector)))).all()


def gaussian(x, amplitude, centre, sigma, base):
    return base + amplitude * np.exp(-0.5 * ((x - centre) / sigma) ** 2)


class TestFitGaussians:
    points = np.arange(12, 68)

    def guess(self, curves):
        height, position = curves.max(axis=-1), self.points[curves.argmax(axis=-1)]
        return np.stack(
            [height, position, np.full_like(height, 1.59), np.zeros_like(height)], axis=-1
        )

    def test_finds_the_truth(self, on_backend, rng):
        truth = np.stack(
            [
                rng.uniform(10, 1e5, 30),
                rng.uniform(30, 45, 30),
                rng.uniform(1, 3, 30),
                rng.normal(0, 5, 30),
            ],
            axis=-1,
        )
        curves = gaussian(self.points, *truth.T[..., None])
        fit = to_host(fit_gaussians(*on_backend(curves, self.points, self.guess(curves))))
        np.testing.assert_allclose(fit, truth, rtol=1e-8, atol=1e-7)

    def test_is_the_fit_of_scipy(self, on_backend, rng):
        curves = gaussian(self.points, 100, 36.3, 1.5, 3) + rng.normal(0, 3, (20, 56))
        good = rng.random(curves.shape) < 0.95
        start = self.guess(curves)
        fit = to_host(fit_gaussians(*on_backend(curves, self.points, start, good)))
        for found, curve, use, p0 in zip(fit, curves, good, start, strict=True):
            twin, _ = curve_fit(
                gaussian, self.points[use], curve[use], p0=p0, ftol=1e-14, xtol=1e-14, gtol=1e-14
            )
            np.testing.assert_allclose(found, twin, rtol=1e-6, atol=1e-6)

    def test_failed_fits_are_nan_and_spoil_no_other(self, on_backend, rng):
        curves = np.stack([gaussian(self.points, 50, 36, 1.5, 1)] * 6)
        start = self.guess(curves)
        curves[0] = np.nan
        curves[1] = 0.0
        curves[2, 3:] = np.nan
        curves[3] = 7.0
        start[1, 0] = 0.0
        start[3, 0] = 0.0
        curves[4, :10] = np.nan
        fit = to_host(fit_gaussians(*on_backend(curves, self.points, start)))
        assert np.isnan(fit[:4]).all()
        np.testing.assert_allclose(fit[4:], [[50, 36, 1.5, 1]] * 2, rtol=1e-8)

    def test_noise_without_a_peak_ends(self, on_backend, rng):
        curves = rng.normal(size=(50, 56))
        fit = to_host(fit_gaussians(*on_backend(curves, self.points, self.guess(curves))))
        assert (np.isnan(fit).all(axis=1) | np.isfinite(fit).all(axis=1)).all()


def shift_of_one(curve, template):
    """The definition, with the long vectors."""
    fine = np.arange((len(curve) - 1) * 200) / 200
    levelled = []
    for values in (curve, template):
        samples = CubicSpline(np.arange(len(values)), values)(fine)
        levelled.append(samples - np.linspace(samples[0], samples[-1], len(samples)))
    correlation = signal.correlate(*levelled, method="fft")
    lags = signal.correlation_lags(len(fine), len(fine))
    peak = correlation.argmax()
    around = correlation[peak - 7 : peak + 8] - correlation[peak]
    curvature, slope, _ = np.polyfit(np.arange(-7, 8), around, 2)
    return (lags[peak] - slope / (2 * curvature)) / 200


@pytest.mark.parametrize("n", [4, 5, 6, 33, 416])
def test_splines_are_those_of_scipy(on_backend, rng, n):
    values = rng.normal(0, 100, (5, n))
    expected = CubicSpline(np.arange(n), values, axis=1).c  # cubic term first, curves last
    terms = to_host(spline_terms(on_backend(values)))
    np.testing.assert_allclose(terms, expected[::-1].transpose(2, 0, 1), rtol=0, atol=1e-11)


class TestShifts:
    index = np.arange(416.0)

    def spectrum(self, shift):
        row = self.index - np.asarray(shift)[..., None]
        light = 3000 * np.exp(-(((row - 385) / 80) ** 2)) / (1 + np.exp((row - 392) / 0.7))
        return light + 30 * np.sin(row / 7) * np.exp(-(((row - 330) / 50) ** 2))

    def test_is_the_definition(self, on_backend, rng):
        curves = self.spectrum(rng.normal(0, 0.5, 8)) + rng.normal(0, 5, (8, 416))
        curves[1] = rng.normal(0, 1, 416)  # nothing to be seen
        curves[2] = np.roll(curves[2], 100)
        template = self.spectrum(0.0)
        shifts = to_host(cross_correlation_shifts(*on_backend(curves, template)))
        twin = [shift_of_one(curve, template) for curve in curves]
        np.testing.assert_allclose(shifts, twin, atol=1e-6)

    def test_finds_the_truth(self, on_backend):
        truth = np.array([-1.3, -0.3, -0.05, 0.0, 0.02, 0.2, 0.7])
        curves = self.spectrum(truth).astype(np.float32)
        shifts = cross_correlation_shifts(*on_backend(curves, self.spectrum(0.0)))
        np.testing.assert_allclose(to_host(shifts), truth, atol=2e-4)

    def test_unknown_points_say_nothing(self, on_backend):
        curves = self.spectrum(np.array([0.1, 0.1, 0.0]))
        curves[0, 100:103] = curves[1] = np.nan
        template = self.spectrum(0.0)
        template[-5:] = np.nan
        shifts = to_host(cross_correlation_shifts(*on_backend(curves, template)))
        np.testing.assert_allclose(shifts, [0.1, np.nan, 0.0], atol=1e-3)

    def test_does_not_depend_on_the_block(self, rng):
        curves = self.spectrum(rng.normal(0, 0.5, 300)) + rng.normal(0, 5, (300, 416))
        template = self.spectrum(0.0)
        whole = cross_correlation_shifts(curves, template)
        for part in (slice(0, 1), slice(100, 300)):
            alone = cross_correlation_shifts(curves[part], template)
            np.testing.assert_array_equal(alone, whole[part])

    def test_too_short(self):
        with pytest.raises(ValueError, match="at least 4 points, got 3"):
            cross_correlation_shifts(np.ones((2, 3)), np.ones(3))

    def test_interpolation_is_linear_and_unknown_outside(self, on_backend, rng):
        curves = rng.normal(size=(5, 30))
        curves[4, 7] = np.nan
        shifts = np.array([0.0, 0.3, -1.7, np.nan, 0.0])
        moved = to_host(interpolate_shifted(*on_backend(curves, shifts)))
        for i in range(3):
            twin = np.interp(
                np.arange(30) + shifts[i], np.arange(30), curves[i], left=np.nan, right=np.nan
            )
            np.testing.assert_allclose(moved[i], twin, rtol=1e-12)
        assert np.isnan(moved[3]).all()
        np.testing.assert_array_equal(moved[4], curves[4])


def test_gaussian_fit_waits_once_an_iteration():
    points = np.arange(56)
    curves = standin.StandInArray(gaussian(points, 100, 36.3, 1.5, 3)[None])
    start = standin.StandInArray(np.array([[90.0, 36.0, 1.6, 0.0]]))
    with standin.syncs() as count:
        fit_gaussians(curves, standin.StandInArray(points), start)
    assert 1 <= count() <= 30
