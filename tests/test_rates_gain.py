"""The gain: scale rates and errors by the factor, variances by its square; fill unknown ones."""

import numpy as np
from rate_cases import assert_same_rates, random_rates, rate_model

from miri_gpu.backend import to_host
from miri_gpu.rates.gain import fill_unknown_gain, scale_gain


def test_as_the_stsci_step(on_backend, rng):
    from jwst.gain_scale.gain_scale import do_correction

    rates = random_rates(rng)
    ours = scale_gain(on_backend(rates), 2.5)
    assert_same_rates(ours, do_correction(rate_model(rates), 2.5), rtol=1e-7)
    np.testing.assert_allclose(
        to_host(ours.err) ** 2, to_host(ours.var_poisson) + to_host(ours.var_rnoise), rtol=1e-5
    )


def test_no_factor_changes_nothing(on_backend, rng):
    rates = random_rates(rng)
    assert_same_rates(scale_gain(on_backend(rates), None), rate_model(rates))


def test_an_unknown_gain_is_the_median_of_the_others(on_backend):
    gain = np.array([[3.0, np.nan, 4.0], [0.0, 8.0, np.inf]], dtype=np.float32)
    filled = to_host(fill_unknown_gain(on_backend(gain)))
    np.testing.assert_array_equal(filled, [[3, 4, 4], [4, 8, 4]])
    assert filled.dtype == np.float32
    assert np.isnan(fill_unknown_gain(np.full((2, 2), np.nan, dtype=np.float32))).all()
