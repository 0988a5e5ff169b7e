"""The kernel of the Gaussian fits: what the array version finds."""

import numpy as np
import pytest
from kernel_cases import cuda_on_cpu, kernel_xp  # noqa: F401

from miri_gpu.numerics import fit_gaussians
from miri_gpu.numerics.gaussians import _fit_by_kernel


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


@pytest.mark.parametrize("n", [20, 56])
def test_is_the_array_version(kernel_xp, rng, monkeypatch, n):  # noqa: F811
    curves, points, start, good = bells(rng, 60 if kernel_xp is np else 12, n)
    usable = np.isfinite(curves) & good
    for array in (curves, points, start, usable):
        array.flags.writeable = False
    fits = _fit_by_kernel(curves, points, start, usable, xp=kernel_xp)
    monkeypatch.setenv("MIRI_GPU_KERNELS", "0")
    expected = fit_gaussians(curves, points, start, good)
    np.testing.assert_allclose(fits[:-8], expected[:-8], rtol=1e-9, atol=1e-9)
    np.testing.assert_allclose(fits[-8:], expected[-8:], rtol=1e-6, atol=1e-6)
    assert np.isfinite(fits[:-8]).all() and np.isnan(fits[-4:]).all()
    assert fit_gaussians(curves[:0], points, start[:0]).shape == (0, 4)
