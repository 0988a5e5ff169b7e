"""Flat field: division, its error, and pixels whose flat is unknown."""

import numpy as np
import pytest
from kernel_cases import cuda_on_cpu, kernel_xp  # noqa: F401
from rate_cases import PLANES, SHAPE, assert_same_rates, random_rates, rate_model

from miri_gpu.backend import to_host
from miri_gpu.containers import Rates
from miri_gpu.detector import DO_NOT_USE, NO_FLAT_FIELD
from miri_gpu.rates.flat import _divide_by_arrays, _divide_by_kernel, apply_flat

ALL_PLANES = (*PLANES, "var_flat")


def references(rng):
    flat = rng.normal(1, 0.05, SHAPE[1:]).astype(np.float32)
    flat_err = rng.uniform(0, 0.01, SHAPE[1:]).astype(np.float32)
    flat[1, 2], flat[3, 4], flat_err[5, 6] = np.nan, 0.0, np.nan
    flat_dq = rng.choice([0] * 20 + [1, NO_FLAT_FIELD, 1 << 25], SHAPE[1:]).astype(np.uint32)
    return flat, flat_err, flat_dq


def test_as_the_stsci_step(on_backend, rng):
    from jwst.flatfield.flat_field import do_correction
    from stdatamodels.jwst.datamodels import FlatModel

    rates = random_rates(rng)
    flat, flat_err, flat_dq = references(rng)
    reference = FlatModel(data=flat.copy(), err=flat_err.copy(), dq=flat_dq.copy())
    reference.meta.subarray = rate_model(rates).meta.subarray
    reference.meta.instrument.name = "MIRI"
    theirs, _ = do_correction(rate_model(rates), flat=reference)
    ours = apply_flat(*on_backend(rates, flat, flat_err, flat_dq))
    assert_same_rates(ours, theirs, ALL_PLANES, rtol=5e-7)


def test_known_values(on_backend):
    value = np.full((1, 1, 3), 12.0, dtype=np.float32)
    rates = Rates(data=value, err=value, var_poisson=value, var_rnoise=value / 2,
                  dq=np.zeros((1, 1, 3), dtype=np.uint32))  # fmt: skip
    flat = np.array([[2.0, np.nan, 0.0]], dtype=np.float32)
    flat_err = np.full((1, 3), 0.1, dtype=np.float32)
    ours = apply_flat(*on_backend(rates, flat, flat_err, np.zeros((1, 3), dtype=np.uint32)))
    planes = {name: to_host(getattr(ours, name))[0, 0] for name in ALL_PLANES}
    expected = {"data": 6.0, "var_poisson": 3.0, "var_rnoise": 1.5, "var_flat": 0.09}
    for name, number in expected.items():
        np.testing.assert_allclose(planes[name], [number, np.nan, np.nan], rtol=1e-6)
    np.testing.assert_allclose(planes["err"][0], np.sqrt(4.59), rtol=1e-6)
    unusable = DO_NOT_USE | NO_FLAT_FIELD
    np.testing.assert_array_equal(to_host(ours.dq)[0, 0], [0, unusable, unusable])


def test_no_pixel_has_a_flat(on_backend, rng):
    rates = random_rates(rng)
    nothing = np.full(SHAPE[1:], np.nan, dtype=np.float32)
    ours = apply_flat(*on_backend(rates, nothing, nothing, np.zeros(SHAPE[1:], dtype=np.uint32)))
    assert all(np.isnan(to_host(getattr(ours, name))).all() for name in ALL_PLANES)
    assert ((to_host(ours.dq) & DO_NOT_USE) != 0).all()


@pytest.mark.parametrize("n_ints", [1, 5])
def test_the_kernel_is_the_array_version_to_the_bit(kernel_xp, rng, n_ints):  # noqa: F811
    rates = random_rates(rng).map(lambda plane: plane[:n_ints])
    flat, flat_err, flat_dq = references(rng)
    flat = np.where(np.isnan(flat) | (flat == 0), np.float32(1), flat)
    expected = _divide_by_arrays(rates, flat, flat_err, flat_dq, xp=np)
    ours = _divide_by_kernel(rates, flat, flat_err, flat_dq, xp=kernel_xp)
    for name in (*ALL_PLANES, "dq"):
        np.testing.assert_array_equal(getattr(ours, name), getattr(expected, name))
        assert getattr(ours, name).dtype == getattr(expected, name).dtype
