"""Gain scale: rates and errors by the factor, variances by its square."""

import numpy as np
from rate_cases import assert_same_rates, random_rates, rate_model

from miri_gpu.backend import to_host
from miri_gpu.rates.gain import scale_gain


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
