"""What is to be doubted is said, and nothing else."""

import logging
from types import SimpleNamespace

import numpy as np
import pytest

from miri_gpu.doubts import doubt_aperture, doubt_group_background, doubt_linearity
from miri_gpu.recipe import load_recipe

BRIGHT = load_recipe("bright", 9)


@pytest.fixture
def said(caplog):
    """What was warned of."""
    caplog.set_level(logging.WARNING, "miri_gpu")
    return lambda: caplog.text


def test_errors_that_lack_the_noise_of_the_background(said):
    doubt_group_background(BRIGHT)
    assert not said()
    runs = BRIGHT.updated({"group_background_subtract": {"skip": False}}, "test")
    doubt_group_background(runs)
    assert not said()
    absolute = {"group_background_subtract": {"relative_to_first_group": False}}
    doubt_group_background(runs.updated(absolute, "test"))
    assert "relative_to_first_group = true leaves it out" in said()


def test_a_non_linearity_that_is_hardly_known(said):
    def found(*errors):
        coefficients = np.array([[0.0] * 4, [1.0] * 4, [1e-6, -1e-6, 1e-6, 1e-6]])
        return SimpleNamespace(
            coefficients=coefficients, coefficients_err=np.array([[0] * 4, [0] * 4, errors])
        )

    doubt_linearity(found(9e-7, 2e-7, 1e-7, 3e-7))
    doubt_linearity(found(*[np.nan] * 4))
    assert not said()
    doubt_linearity(found(9e-7, 1e-7, 5e-7, 7e-7))
    assert "better than 60 %; custom_linearity.skip = true" in said()


def test_an_aperture_that_moves_by_a_column(said):
    follows = BRIGHT.updated({"extract_1d_box": {"trace_position": "gaussian_fits"}}, "test")
    doubt_aperture(BRIGHT, np.array([37.49, 37.51]))
    doubt_aperture(follows, np.array([37.3, np.nan, 37.4]))
    doubt_aperture(follows, np.array([np.nan]))
    assert not said()
    doubt_aperture(follows, np.array([37.49, 37.51, 37.49, np.nan]))
    assert "extract_1d_box.trace_position: the aperture is whole columns, and 1 of 3" in said()
