"""Smoothing splines: those of SciPy, which are FITPACK's."""

import warnings

import numpy as np
import pytest
from scipy.interpolate import UnivariateSpline

from miri_gpu.numerics.smoothing import smoothed


def by_scipy(x, y, sum_of_squares):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # about tolerances that cannot be met
        return UnivariateSpline(x, y, s=sum_of_squares)(x)


@pytest.mark.parametrize("sum_of_squares", [1e-6, 0.002, 0.1])
@pytest.mark.parametrize("noise", [0, 1e-4, 0.002])
@pytest.mark.parametrize("n", [5, 19, 60, 388])
def test_is_the_spline_of_scipy(rng, n, noise, sum_of_squares):
    x = np.cumsum(rng.uniform(0.5, 1.5, n))
    y = 5 + 9 * ((x - x[0] + 1) / n) ** 0.7 + rng.normal(0, noise, n)
    smooth = smoothed(x, y, sum_of_squares)
    np.testing.assert_allclose(smooth, by_scipy(x, y, sum_of_squares), rtol=0, atol=1e-9)


@pytest.mark.parametrize("factor", [1e-3, 1.0, 1e3])
def test_a_weight_that_is_hard_to_find(rng, factor):
    """Curves of several shapes, so that the search for p starts too high and too low."""
    x = np.linspace(0, 1, 200)
    for y in (np.sin(12 * x), np.abs(x - 0.4), np.exp(5 * x), rng.normal(0, 1e-3, 200) + x**5):
        allowed = factor * 1e-4 * np.var(y)
        np.testing.assert_allclose(
            smoothed(x, y, allowed), by_scipy(x, y, allowed), rtol=0, atol=1e-9 * np.ptp(y)
        )


def test_a_smooth_curve_does_without_scipy(monkeypatch):
    import scipy.interpolate

    monkeypatch.delattr(scipy.interpolate, "UnivariateSpline")
    x = np.arange(388.0)
    y = 5 + 9 * ((x + 1) / 388) ** 0.7
    assert ((smoothed(x, y, 0.002) - y) ** 2).sum() == pytest.approx(0.002, rel=1e-3)


def test_what_a_cubic_may_be_is_a_cubic(rng):
    x = np.arange(50.0)
    y = 1e-4 * (x - 20) ** 3 + rng.normal(0, 0.01, 50)
    np.testing.assert_allclose(smoothed(x, y, 1.0), np.polyval(np.polyfit(x, y, 3), x), atol=1e-9)
