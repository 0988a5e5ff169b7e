"""The trace: truth is found, SciPy agrees, and failed fits are NaN."""

import numpy as np
import pytest
from scipy.optimize import curve_fit

from miri_gpu.backend import to_host
from miri_gpu.rates.trace import TraceParams, fit_trace

NAMES = ("amplitude", "centre", "sigma", "base")


def gaussian(x, amplitude, centre, sigma, base=0.0):
    return base + amplitude * np.exp(-0.5 * ((x - centre) / sigma) ** 2)


def frames(truth, n_rows=416):
    column = np.arange(72)
    return np.stack([np.tile(gaussian(column, *one), (n_rows, 1)) for one in truth])


def test_finds_the_truth(on_backend, rng):
    truth = np.array([[800.0, 36.2, 1.3, 5.0], [90.0, 37.9, 1.7, 40.0], [1e5, 40.0, 2.4, 0.0]])
    trace = fit_trace(on_backend(frames(truth)))
    for name, expected in zip(NAMES, truth.T, strict=True):
        np.testing.assert_allclose(to_host(getattr(trace, name)), expected, rtol=1e-7, atol=1e-5)


def test_is_the_fit_of_scipy_to_the_medians(on_backend, rng):
    data = frames([[500.0, 36.4, 1.5, 3.0]] * 4) + rng.normal(0, 20, (4, 416, 72))
    data = data.astype(np.float32)
    data[2, 210:260, 30] = np.nan
    trace = fit_trace(on_backend(data))
    column = np.arange(12, 68)
    for i in range(4):
        median = np.nanmedian(data[i, 200:390, 12:68], axis=0).astype(float)
        start = [median.max(), column[median.argmax()], 1.59, 0.0]
        twin, _ = curve_fit(gaussian, column, median, p0=start, ftol=1e-14, xtol=1e-14, gtol=1e-14)
        found = [float(to_host(getattr(trace, name))[i]) for name in NAMES]
        np.testing.assert_allclose(found, twin, rtol=1e-6)


def test_failed_fits_are_nan(on_backend):
    data = frames([[500.0, 36.4, 1.5, 3.0]] * 4)
    data[0] = np.nan
    data[1] = 0.0
    data[2, :, 15:] = np.nan
    trace = fit_trace(on_backend(data))
    for name in NAMES:
        values = to_host(getattr(trace, name))
        assert np.isnan(values[:3]).all()
        assert np.isfinite(values[3])


def test_does_not_depend_on_the_block(rng):
    data = frames([[500.0, 36.4, 1.5, 3.0]] * 5) + rng.normal(0, 20, (5, 416, 72))
    whole = fit_trace(data)
    for i in range(5):
        alone = fit_trace(data[i : i + 1])
        for name in NAMES:
            assert getattr(alone, name)[0] == getattr(whole, name)[i]


def test_impossible_ranges_are_named():
    with pytest.raises(ValueError, match=r"trace\.row_idx_end_used: expected at least 201"):
        TraceParams(row_idx_end_used=200)
    with pytest.raises(ValueError, match=r"trace\.col_idx_end_used: expected at least 16"):
        TraceParams(col_idx_end_used=15)
    with pytest.raises(ValueError, match="row_idx_end_used: expected at most 300"):
        fit_trace(np.ones((1, 300, 72)))
