"""Errors that are unknown: the root mean square of the known ones within 3 rows."""

import numpy as np
import pytest
from kernel_cases import cuda_on_cpu, kernel_xp  # noqa: F401

from miri_gpu.backend import to_host
from miri_gpu.rates.errors import _fill_by_arrays, _fill_by_kernel, fill_unknown_errors


def errors(rng, shape=(2, 30, 9)):
    """Errors of which many are unknown, in every way; of one column all, of another all but one."""
    err = rng.uniform(1, 2, shape).astype(np.float32)
    unknown = rng.random(shape) < 0.3
    err[unknown] = rng.choice([np.nan, np.inf, -np.inf, 0.0, -1.0], unknown.sum())
    err[:, :, 3] = np.nan
    err[:, 1:, 4], err[:, 0, 4] = np.nan, 5.0
    return err


def test_is_as_the_twin_says(on_backend, rng):
    err = errors(rng)
    expected = err.copy()
    for i, row, col in np.ndindex(err.shape):
        if not (np.isfinite(err[i, row, col]) and err[i, row, col] > 0):
            near = err[i, max(row - 3, 0) : row + 4, col]
            near = near[np.isfinite(near) & (near > 0)].astype(float)
            expected[i, row, col] = np.sqrt(np.mean(near**2)) if len(near) else np.nan
    filled = to_host(fill_unknown_errors(on_backend(err)))
    np.testing.assert_allclose(filled, expected, rtol=3e-7)
    assert filled.dtype == np.float32
    assert np.isnan(filled[:, :, 3]).all() and np.isnan(filled[:, 4:, 4]).all()
    np.testing.assert_array_equal(filled[:, :4, 4], 5.0)


@pytest.mark.parametrize("shape", [(2, 30, 9), (1, 2, 6), (3, 1, 5), (0, 30, 9)])
def test_the_kernel_is_the_array_version_to_the_bit(kernel_xp, rng, shape):  # noqa: F811
    err = errors(rng, shape)
    ours, expected = _fill_by_kernel(err, xp=kernel_xp), _fill_by_arrays(err, xp=np)
    np.testing.assert_array_equal(ours, expected)
    assert ours.dtype == expected.dtype
