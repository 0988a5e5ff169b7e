"""Errors that are unknown: the root mean square of the known ones within 3 rows, or the nearest."""

import numpy as np
import pytest
from kernel_cases import cuda_on_cpu, kernel_xp  # noqa: F401

from miri_gpu.backend import to_host
from miri_gpu.rates.errors import _fill_by_arrays, _fill_by_kernel, fill_unknown_errors


def errors(rng, shape=(2, 30, 9)):
    """Errors of which many are unknown, in every way; of one column all, of another all but one.

    One column has gaps of 6 to 9 rows, which leave 0 to 3 in the middle out of reach.
    """
    err = rng.uniform(1, 2, shape).astype(np.float32)
    unknown = rng.random(shape) < 0.3
    err[unknown] = rng.choice([np.nan, np.inf, -np.inf, 0.0, -1.0], unknown.sum())
    err[:, :, 3] = np.nan
    err[:, 1:, 4], err[:, 0, 4] = np.nan, 5.0
    err[..., 0] = rng.uniform(1, 2, shape[:2])
    for first, n in ((1, 6), (8, 7), (16, 8), (25, 9)):
        err[:, first : first + n, 0] = np.nan
    return err


def twin(err):
    expected = err.copy()
    for i, row, col in np.ndindex(err.shape):
        column = err[i, :, col].astype(float)
        [known] = np.nonzero(np.isfinite(column) & (column > 0))
        if row in known:
            continue
        distance = np.abs(known - row)
        reach = max(3, distance.min(initial=len(column)))
        near = column[known[distance <= reach]]
        expected[i, row, col] = np.sqrt(np.mean(near**2)) if len(near) else np.nan
    return expected


def test_is_as_the_twin_says(on_backend, rng):
    err = errors(rng)
    filled = to_host(fill_unknown_errors(on_backend(err)))
    np.testing.assert_allclose(filled, twin(err), rtol=3e-7)
    assert filled.dtype == np.float32
    assert np.isnan(filled[:, :, 3]).all()
    np.testing.assert_array_equal(filled[:, :, 4], 5.0)


def test_seven_unknown_rows_leave_none_without_an_error(on_backend):
    err = np.full((1, 20, 2), np.nan, np.float32)
    err[0, :6, 0], err[0, 13:, 0] = 3.0, 4.0  # row 9 is 4 rows from both
    filled = to_host(fill_unknown_errors(on_backend(err)))
    np.testing.assert_allclose(filled[0, 8:11, 0], [3.0, np.sqrt(12.5), 4.0], rtol=1e-6)
    assert np.isnan(filled[..., 1]).all()


@pytest.mark.parametrize("shape", [(3, 20, 5), (2, 416, 72)])
def test_what_a_pixel_gets_does_not_depend_on_the_block(rng, shape):
    err = errors(rng, shape)
    err[rng.random(shape) < 0.8] = np.nan
    whole = fill_unknown_errors(err)
    np.testing.assert_array_equal(
        np.concatenate([fill_unknown_errors(e[None]) for e in err]), whole
    )
    known = np.isfinite(err) & (err > 0)
    np.testing.assert_array_equal(
        np.isnan(whole), np.broadcast_to(~known.any(axis=1)[:, None], shape)
    )


@pytest.mark.parametrize("shape", [(2, 30, 9), (1, 2, 6), (3, 1, 5), (0, 30, 9)])
def test_the_kernel_is_the_array_version_to_the_bit(kernel_xp, rng, shape):  # noqa: F811
    err = errors(rng, shape)
    ours, expected = _fill_by_kernel(err, xp=kernel_xp), _fill_by_arrays(err, xp=np)
    np.testing.assert_array_equal(ours, expected)
    assert ours.dtype == expected.dtype


def test_with_and_without_kernels_all_is_the_same_to_the_bit(rng, monkeypatch):
    err = errors(rng, (3, 60, 9))
    err[rng.random(err.shape) < 0.7] = np.nan
    by_kernels = fill_unknown_errors(err)
    monkeypatch.setenv("MIRI_GPU_KERNELS", "0")
    np.testing.assert_array_equal(fill_unknown_errors(err), by_kernels)
