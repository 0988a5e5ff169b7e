"""The kernel of the cleaning: to the last bit what the array version finds."""

from functools import partial

import numpy as np
import pytest
from kernel_cases import cuda_on_cpu, kernel_xp  # noqa: F401

from miri_gpu.rates.outlier_fits import (
    _basis_of_windows,
    _clean_by_arrays,
    _clean_by_kernel,
    clean_windows,
)
from miri_gpu.rates.outliers import CleanOutliersParams, clean_outliers, cut_windows

HEIGHTS = (150, 29, 16, 5, 1)
MASKED = 5
MODELLED = slice(2, 9)


def cleaned(clean, data, dq, windows, order, threshold, *, xp=np):
    basis = _basis_of_windows(windows, order)
    return clean(data, dq, windows, basis, MASKED, threshold, MODELLED, xp=xp)


by_arrays, by_kernel = partial(cleaned, _clean_by_arrays), partial(cleaned, _clean_by_kernel)


def nasty_frames(rng, n_ints=2, n_rows=205, n_cols=11):
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
    data[:, 20:21, 6] = 1.0
    data[:, :, 7] *= 1e30
    good[:, :, 8] = True
    data[~good] = rng.choice([np.nan, np.inf, -np.inf, 1e38], (~good).sum())
    dq = np.where(good, rng.choice([0, 2, 16, 1 << 31], good.shape), rng.choice([1, 4], good.shape))
    dq[~np.isfinite(data)] = 0  # some are known by their values alone
    return data.astype(np.float32), dq.astype(np.uint32)


def assert_same(ours, expected):
    for one, other in zip(ours, expected, strict=True):
        np.testing.assert_array_equal(one, other)
        assert one.dtype == other.dtype


@pytest.mark.parametrize("order, threshold", [(0, 2.5), (1, 1.0), (4, 2.5), (4, 5.0), (7, 4.0)])
@pytest.mark.parametrize("n_cols", [9, 24])
def test_is_the_array_version_to_the_bit(kernel_xp, rng, order, threshold, n_cols):  # noqa: F811
    data, dq = nasty_frames(rng, 2, n_cols=n_cols)
    for array in (data, dq):
        array.flags.writeable = False
    windows = cut_windows(data.shape[1], HEIGHTS)
    expected = by_arrays(data, dq, windows, order, threshold)
    ours = by_kernel(data, dq, windows, order, threshold, xp=kernel_xp)
    assert_same(ours, expected)
    assert ((ours[1] & 16) > (dq & 16)).any()
    assert ours[2].shape == (*data.shape[:2], 7)


@pytest.mark.parametrize("n", [1, 2, 7, 8, 9, 127, 128, 129, 257, 416, 600])
def test_windows_of_any_length(compiled_kernels, rng, n):
    data, dq = nasty_frames(rng, 1, n_rows=n)
    assert_same(
        by_kernel(data, dq, ((0, n),), 4, 2.0),
        by_arrays(data, dq, ((0, n),), 4, 2.0),
    )


@pytest.mark.parametrize("n_cols", [1, 2, 7, 8, 17])
def test_frames_of_any_width(kernel_xp, rng, n_cols):  # noqa: F811
    data, dq = (frames[..., -n_cols:].copy() for frames in nasty_frames(rng, 1, n_cols=20))
    windows = cut_windows(data.shape[1], HEIGHTS)
    assert_same(
        by_kernel(data, dq, windows, 4, 4.0, xp=kernel_xp),
        by_arrays(data, dq, windows, 4, 4.0),
    )


def test_cleaning_is_the_same_with_and_without(compiled_kernels, rng, monkeypatch):
    data, dq = nasty_frames(rng, 3, n_rows=416, n_cols=72)
    params = CleanOutliersParams(dq_bits_to_mask=(0, 2))
    fast = clean_outliers(data, dq, params=params)
    monkeypatch.setenv("MIRI_GPU_KERNELS", "0")
    slow = clean_outliers(data, dq, params=params)
    for name in ("data", "dq", "profile", "n_outliers"):
        np.testing.assert_array_equal(getattr(fast, name), getattr(slow, name))
        assert getattr(fast, name).dtype == getattr(slow, name).dtype


def test_what_the_kernel_cannot_do_is_left_to_arrays(rng):
    data, dq = nasty_frames(rng, 1, n_rows=60)
    settings = {"masked": MASKED, "threshold": 4.0, "modelled": MODELLED}
    for values, order in ((data.astype(np.float64), 4), (data, 8)):
        found, _, _ = clean_windows(values, dq, ((0, 60),), order=order, **settings)
        assert found.dtype == values.dtype
        assert np.isfinite(found).all()
    for shape in ((0, 50, 72), (2, 0, 72)):
        for dtype in (np.float32, np.float64):
            empty = clean_outliers(np.zeros(shape, dtype), np.zeros(shape, np.uint32))
            assert empty.data.shape == shape


def test_many_threads_do_not_disturb_one_another(compiled_kernels, rng):
    from concurrent.futures import ThreadPoolExecutor

    data, dq = nasty_frames(rng, 8, n_rows=100, n_cols=20)
    windows = cut_windows(100, (60, 40))
    expected, _, _ = by_kernel(data, dq, windows, 4, 4.0)
    with ThreadPoolExecutor(8) as pool:
        parts = pool.map(
            lambda i: by_kernel(data[i : i + 1], dq[i : i + 1], windows, 4, 4.0)[0], range(8)
        )
        np.testing.assert_array_equal(np.concatenate(list(parts)), expected)
