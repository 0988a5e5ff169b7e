"""The kernel of the cleaning: to the last bit what the array version finds."""

import numpy as np
import pytest
from kernel_cases import cuda_on_cpu, kernel_xp  # noqa: F401

from miri_gpu.rates.outlier_fits import (
    _fit_by_kernel,
    _fit_window_by_window,
    fit_without_outliers,
)
from miri_gpu.rates.outliers import clean_outliers, cut_windows

HEIGHTS = (150, 29, 16, 5, 1)


@pytest.fixture
def by_arrays(monkeypatch, without_kernels):
    """The array version."""

    def fit(*args):
        return _fit_window_by_window(*args, xp=np)

    return fit


def nasty_frames(rng, n_ints=2, n_rows=205, n_cols=11, dtype=np.float32):
    """A curve with noise, outliers, and columns with every fault."""
    row = np.arange(n_rows)[:, None]
    data = 300 + 200 * np.sin(row / 50) + rng.normal(0, 2, (n_ints, n_rows, n_cols))
    hit = rng.random(data.shape) < 0.02
    data[hit] += rng.choice([-300, 40, 5000, 1e6], hit.sum())
    good = rng.random(data.shape) < 0.95
    good[:, :, 1] = False
    good[:, 1:, 2] = False
    good[:, :, 3] = row[:, 0] % 40 < 3
    data[:, :, 4] = 7.0
    data[:, :, 5] = row[:, 0]
    data[:, :, 6] = 0.0
    data[:, 20, 6] = 1.0
    data[:, :, 7] *= 1e30
    good[:, :, 8] = True
    data[~good] = rng.choice([np.nan, np.inf, -np.inf, 1e38], (~good).sum())
    return data.astype(dtype), good


@pytest.mark.parametrize("order, threshold", [(0, 2.5), (1, 1.0), (4, 2.5), (4, 5.0), (6, 4.0)])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_is_the_array_version_to_the_bit(kernel_xp, by_arrays, rng, order, threshold, dtype):  # noqa: F811
    data, good = nasty_frames(rng, 2 if kernel_xp is np else 1, n_cols=9, dtype=dtype)
    for array in (data, good):
        array.flags.writeable = False
    windows = cut_windows(data.shape[1], HEIGHTS)
    expected, expected_kept = by_arrays(data, good, windows, order, threshold)
    fitted, kept = _fit_by_kernel(data, good, windows, order, threshold, xp=kernel_xp)
    np.testing.assert_array_equal(kept, expected_kept)
    np.testing.assert_array_equal(fitted, expected)
    assert (good & ~kept).any() and kept.dtype == bool and fitted.dtype == np.float64


@pytest.mark.parametrize("n", [1, 2, 7, 8, 9, 127, 128, 129, 257, 416, 505, 512])
def test_windows_of_any_length(compiled_kernels, by_arrays, rng, n):
    data, good = nasty_frames(rng, 1, n_rows=n, n_cols=9) if n > 20 else (
        rng.normal(0, 1, (1, n, 9)),
        rng.random((1, n, 9)) < 0.8,
    )  # fmt: skip
    expected = by_arrays(data, good, [(0, n)], 4, 2.0)
    fitted = _fit_by_kernel(data, good, [(0, n)], 4, 2.0, xp=np)
    for one, other in zip(fitted, expected, strict=True):
        np.testing.assert_array_equal(one, other)


def test_cleaning_is_the_same_with_and_without(compiled_kernels, rng, monkeypatch):
    data, good = nasty_frames(rng, 3, n_rows=416, n_cols=72)
    dq = np.where(good, 0, 1).astype(np.uint32)
    fast = clean_outliers(data, dq)
    curves = fit_without_outliers(data[0].T.copy(), good[0].T.copy(), 3, 4.0)
    monkeypatch.setenv("MIRI_GPU_KERNELS", "0")
    slow = clean_outliers(data, dq)
    for name in ("data", "dq", "profile", "n_outliers"):
        np.testing.assert_array_equal(getattr(fast, name), getattr(slow, name))
        assert getattr(fast, name).dtype == getattr(slow, name).dtype
    again = fit_without_outliers(data[0].T.copy(), good[0].T.copy(), 3, 4.0)
    for one, other in zip(curves, again, strict=True):
        np.testing.assert_array_equal(one, other)


def test_very_high_windows_and_empty_frames_are_left_to_arrays(rng):
    data, good = nasty_frames(rng, 1, n_rows=600, n_cols=9)
    fitted, _ = fit_without_outliers(data[0].T.copy(), good[0].T.copy(), 2, 4.0)
    assert fitted.shape == (9, 600)
    for shape in ((0, 50, 72), (2, 0, 72)):
        assert clean_outliers(np.zeros(shape), np.zeros(shape, np.uint32)).data.shape == shape


def test_many_threads_do_not_disturb_one_another(compiled_kernels, rng):
    from concurrent.futures import ThreadPoolExecutor

    data, good = nasty_frames(rng, 8, n_rows=100, n_cols=20)
    windows = cut_windows(100, (60, 40))
    expected, _ = _fit_by_kernel(data, good, windows, 4, 4.0, xp=np)
    with ThreadPoolExecutor(8) as pool:
        parts = pool.map(
            lambda i: _fit_by_kernel(data[i : i + 1], good[i : i + 1], windows, 4, 4.0, xp=np)[0],
            range(8),
        )
        np.testing.assert_array_equal(np.concatenate(list(parts)), expected)
