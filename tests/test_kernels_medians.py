"""The kernel of the medians: what NumPy's sort finds."""

import numpy as np
import pytest
from kernel_cases import cuda_on_cpu, kernel_xp  # noqa: F401

from miri_gpu.numerics.medians import _median_by_kernel, _median_by_sorting


def nasty_values(rng, shape, dtype):
    """Values of both signs and all sizes, many of them equal, and what is not finite."""
    data = rng.normal(0, 1, shape) * 10.0 ** rng.integers(-6, 7, shape)
    data = np.where(rng.random(shape) < 0.3, np.round(rng.normal(0, 2, shape)), data)
    data[rng.random(shape) < 0.05] = np.nan
    data[rng.random(shape) < 0.05] = np.inf
    data[rng.random(shape) < 0.05] = -np.inf
    data[..., 0] = 3.0
    return data.astype(dtype)


@pytest.mark.parametrize(
    "shape, axis", [((5, 33, 9), 1), ((6, 40), -1), ((7, 12), 0), ((8, 1), 1), ((3, 5, 24), 1)]
)
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_is_the_array_version(kernel_xp, rng, shape, axis, dtype):  # noqa: F811
    data = nasty_values(rng, shape, dtype)
    good = rng.random(shape) < 0.8
    good[0] = False
    data.flags.writeable = good.flags.writeable = False
    for mask in (None, good, good[..., :1]):
        result = _median_by_kernel(data, mask, axis, xp=kernel_xp)
        assert result.dtype == dtype
        np.testing.assert_array_equal(result, _median_by_sorting(data, mask, axis, xp=np))


@pytest.mark.parametrize("n", [1, 2, 3, 8, 9, 100, 1023, 1024])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_any_number_of_values(compiled_kernels, rng, n, dtype):
    data = nasty_values(rng, (60, n), dtype)
    data[1] = np.nan
    data[2] = np.finfo(dtype).max / 2
    data[3] = -np.finfo(dtype).max / 2
    data[4] = np.finfo(dtype).tiny / 8
    data[5] = -0.0
    data[6, ::2] = 0.0
    result = _median_by_kernel(data, None, -1, xp=np)
    np.testing.assert_array_equal(result, _median_by_sorting(data, None, -1, xp=np))
