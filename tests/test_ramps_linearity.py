"""Linearity: the polynomial inverts a known response; what has no correction stays as it was."""

import numpy as np
from ramp_cases import SHAPE, assert_same_ramps, ramp_model, random_dq, random_ramps, set_subarray

from miri_gpu.backend import to_host
from miri_gpu.containers import Ramps
from miri_gpu.detector import NO_LIN_CORR, SATURATED
from miri_gpu.ramps.linearity import correct_linearity

COEFFICIENTS = (2.0, 0.98, 1.2e-6, 3e-12, 1e-17)


def references(rng, shape):
    scatter = rng.uniform(0.9, 1.1, (5, *shape))
    coefficients = (np.array(COEFFICIENTS)[:, None, None] * scatter).astype(np.float32)
    coefficients[2, 1, 2] = coefficients[:, 3, 3] = np.nan
    coefficients[1, 5, 6] = coefficients[1, 5, 7] = 0.0
    coefficients[3, 5, 7] = np.nan
    dq = random_dq(rng, shape, NO_LIN_CORR, 1, 1 << 16)
    dq[3, 3] = dq[5, 7] = NO_LIN_CORR
    return coefficients, dq


def test_as_the_stsci_step(on_backend, rng):
    from jwst.linearity.linearity import do_correction
    from stdatamodels.jwst.datamodels import LinearityModel

    ramps = random_ramps(rng)
    coefficients, dq = references(rng, SHAPE[2:])
    reference = LinearityModel(coeffs=coefficients.copy(), dq=dq.copy())
    set_subarray(reference, *dq.shape)
    theirs = do_correction(ramp_model(ramps), reference)
    ours = correct_linearity(*on_backend(ramps, coefficients, dq))
    # the same operations in the same order: only a GPU, which fuses some, may round otherwise
    assert_same_ramps(ours, theirs, rtol=5e-7 if on_backend.name == "cupy" else 0.0)


def test_a_known_response_is_undone(on_backend):
    true = np.linspace(500, 50000, 7, dtype=np.float64)[None, :, None, None] * np.ones((2, 7, 3, 4))
    measured = true - 1e-6 * true**2  # solved for the truth by one step of the inverse series
    ramps = Ramps(
        data=measured.astype(np.float32),
        groupdq=np.zeros(true.shape, dtype=np.uint8),
        pixeldq=np.zeros((3, 4), dtype=np.uint32),
    )
    a = 1e-6  # x = y + a y^2 + 2 a^2 y^3 + 5 a^3 y^4 + ... inverts y = x - a x^2
    series = np.array([0, 1, a, 2 * a**2, 5 * a**3, 14 * a**4, 42 * a**5, 132 * a**6])
    coefficients = np.broadcast_to(series[:, None, None], (8, 3, 4)).astype(np.float32)
    ours = correct_linearity(*on_backend(ramps, coefficients, np.zeros((3, 4), dtype=np.uint32)))
    np.testing.assert_allclose(to_host(ours.data), true, rtol=2e-6)


def test_saturated_and_uncorrectable_samples_stay(on_backend, rng):
    ramps = random_ramps(rng)
    coefficients, dq = references(rng, SHAPE[2:])
    ours = correct_linearity(*on_backend(ramps, coefficients, dq))
    data, pixeldq = to_host(ours.data), to_host(ours.pixeldq)
    flagged = (pixeldq & NO_LIN_CORR) != 0
    assert {(1, 2), (3, 3), (5, 6), (5, 7)} <= {tuple(pixel) for pixel in np.argwhere(flagged)}
    np.testing.assert_array_equal(data[:, :, flagged], ramps.data[:, :, flagged])
    saturated = (ramps.groupdq & SATURATED) != 0
    assert saturated.any()
    np.testing.assert_array_equal(data[saturated], ramps.data[saturated])


def test_no_pixel_has_a_correction(on_backend, rng):
    ramps = random_ramps(rng)
    nothing = np.full((4, *SHAPE[2:]), np.nan, dtype=np.float32)
    ours = correct_linearity(*on_backend(ramps, nothing, np.zeros(SHAPE[2:], dtype=np.uint32)))
    np.testing.assert_array_equal(to_host(ours.data), ramps.data)
    assert ((to_host(ours.pixeldq) & NO_LIN_CORR) != 0).all()
