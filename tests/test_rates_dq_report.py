"""Counts of data-quality flags."""

import math

import numpy as np
import pytest

from miri_gpu.backend import to_host
from miri_gpu.rates.dq_report import count_dq_flags


@pytest.mark.parametrize("dtype", [np.uint8, np.uint32])
def test_counts_are_those_of_a_pixel_by_pixel_count(on_backend, rng, dtype):
    dq = rng.integers(0, np.iinfo(dtype).max, (2, 5, 6), dtype=dtype, endpoint=True)
    dq[rng.uniform(size=dq.shape) < 0.4] = 0
    report = count_dq_flags(on_backend(dq))
    slow = [sum((int(pixel) >> bit) & 1 for pixel in dq.ravel()) for bit in range(32)]
    assert to_host(report.counts).tolist() == slow
    assert report.fraction == sum(pixel != 0 for pixel in dq.ravel()) / dq.size


def test_no_pixels_have_no_fraction():
    assert math.isnan(count_dq_flags(np.zeros((0, 3), dtype=np.uint32)).fraction)
