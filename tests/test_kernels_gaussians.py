"""The kernel of the Gaussian fits: what the array version finds."""

import numpy as np
import pytest
from kernel_cases import cuda_on_cpu, kernel_xp  # noqa: F401

from miri_gpu.backend import to_host
from miri_gpu.numerics import fit_gaussians
from miri_gpu.numerics.gaussians import _exponential, _fit_by_kernel, _padded


def bells(rng, n_curves, n):
    """Bells with noise, first guesses, and which points are good; the last curves have faults."""
    points = np.arange(12.0, 12.0 + n)
    centre = 12 + n / 2 + rng.uniform(-3, 3, (n_curves, 1))
    width = rng.uniform(1, 2, (n_curves, 1))
    curves = 100 * np.exp(-0.5 * ((points - centre) / width) ** 2) + 5
    curves += rng.normal(0, 0.5, curves.shape)
    good = rng.random(curves.shape) < 0.9
    curves[~good] = rng.choice([np.nan, np.inf, 1e30], (~good).sum())
    start = np.stack(
        [np.full(n_curves, 90.0), np.rint(centre[:, 0]), np.full(n_curves, 1.59)]
        + [np.zeros(n_curves)],
        axis=-1,
    )
    good[-1] = False
    good[-2, 3:] = False
    good[-3], curves[-3] = True, 7.0
    good[-4], curves[-4] = True, 0.0
    start[-5] = np.nan
    start[-6, 2] = 0.0
    start[-7, 2] *= -1
    start[-8, 1] = 1e4
    return curves, points, start, good


@pytest.mark.parametrize("n", [20, 56, 128])
def test_is_the_array_version_to_the_bit(kernel_xp, rng, monkeypatch, n):  # noqa: F811
    curves, points, start, good = bells(rng, 60 if kernel_xp is np else 12, n)
    usable = np.isfinite(curves) & good
    for array in (curves, points, start, usable):
        array.flags.writeable = False
    known, weight, where = _padded(curves, points, usable, xp=np)
    fits = _fit_by_kernel(known, where, weight, start, xp=kernel_xp)
    monkeypatch.setenv("MIRI_GPU_KERNELS", "0")
    expected = fit_gaussians(curves, points, start, good)
    np.testing.assert_array_equal(fits, expected)
    assert np.isfinite(fits[:-8]).all() and np.isnan(fits[-4:]).all()
    assert fit_gaussians(curves[:0], points, start[:0]).shape == (0, 4)


def test_the_exponential_is_one(on_backend, rng):
    v = np.concatenate([-(10.0 ** rng.uniform(-300, 2.8, 10000)), [0.0, -0.0, -699.9]])
    found = to_host(_exponential(on_backend(v), xp=on_backend.xp))
    np.testing.assert_allclose(found, np.exp(v), rtol=4e-16)
    far = to_host(_exponential(on_backend(np.array([-800.0, -1e72, -np.inf])), xp=on_backend.xp))
    assert (far < 1e-300).all()
