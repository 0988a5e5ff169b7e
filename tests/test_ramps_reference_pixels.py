"""Reference pixels: known drifts vanish, and a twin walks over groups, amplifiers and rows."""

from dataclasses import replace

import numpy as np
import pytest

from miri_gpu.backend import to_host
from miri_gpu.containers import Ramps
from miri_gpu.ramps.reference_pixels import (
    ReferencePixelParams,
    measure_reference_pixels,
    subtract_reference_pixels,
)


def make_ramps(rng, shape=(3, 5, 21, 72)):
    data = 10000 + rng.normal(0, 6, shape).astype(np.float32)
    data += 40 * np.arange(shape[1], dtype=np.float32)[:, None, None]
    return Ramps(
        data=data.astype(np.float32),
        groupdq=np.zeros(shape, np.uint8),
        pixeldq=np.zeros(shape[2:], np.uint32),
    )


def with_flags(ramps, rng):
    data, groupdq, pixeldq = ramps.data.copy(), ramps.groupdq.copy(), ramps.pixeldq.copy()
    pixeldq[4, 1] = 1
    pixeldq[6, 2] = 4
    groupdq[1, 3, ::3, :4] = 1
    data[0, 2, 5, 0] = np.nan
    return Ramps(data=data, groupdq=groupdq, pixeldq=pixeldq)


def twin(ramps, params):
    drift = ramps.data - ramps.data[:, :1]
    bad = (ramps.groupdq & 1 != 0) | (ramps.pixeldq & 1 != 0)
    drift = np.where(bad, np.nan, drift)
    corrected = ramps.data.copy()
    n_ints, n_groups, n_rows = drift.shape[:3]
    step = 2 if params.odd_even_rows else 1
    for i in range(n_ints):
        for group in range(n_groups):
            for row in range(n_rows):
                same = list(range(row % step, n_rows, step))
                if params.smoothing_length is not None:
                    radius = (params.smoothing_length - 1) // 2
                    at = same.index(row)
                    same = same[max(at - radius, 0) : at + radius + 1]
                for amplifier in range(4):
                    seen = np.nanmedian(drift[i, group, same, amplifier])
                    corrected[i, group, row, amplifier::4] -= seen
    return corrected


@pytest.mark.parametrize("odd_even_rows", [True, False])
@pytest.mark.parametrize("smoothing_length", [None, 6, 7, 100])
def test_is_as_the_twin_says(on_backend, rng, smoothing_length, odd_even_rows):
    params = ReferencePixelParams(smoothing_length=smoothing_length, odd_even_rows=odd_even_rows)
    ramps = with_flags(make_ramps(rng), rng)
    moved = on_backend(ramps)
    correction = measure_reference_pixels(moved, params=params)
    assert correction.shape == (3, 5, 21, 4)
    corrected = to_host(subtract_reference_pixels(moved, correction).data)
    assert corrected.dtype == np.float32
    np.testing.assert_allclose(corrected, twin(ramps, params), rtol=1e-7, atol=1e-3)


def test_known_drifts_vanish(on_backend, rng):
    still = make_ramps(rng, (2, 4, 20, 72))
    data = still.data.copy()
    data[..., :4] = 9000.0  # quiet reference pixels
    drift = rng.normal(0, 20, (2, 4, 2, 4)).round().astype(np.float32)  # parity, amplifier
    drift[:, 0] = 0
    moving = data + drift[:, :, np.arange(20) % 2][..., np.arange(72) % 4]
    ramps = on_backend(replace(still, data=moving))
    corrected = subtract_reference_pixels(ramps, measure_reference_pixels(ramps))
    np.testing.assert_allclose(to_host(corrected.data), data, atol=2e-3)


def test_measured_on_frames_and_subtracted_in_blocks_of_rows(rng):
    ramps = make_ramps(rng)
    correction = measure_reference_pixels(ramps)
    whole = subtract_reference_pixels(ramps, correction).data
    for rows in (slice(0, 5), slice(5, 21)):
        block = replace(
            ramps,
            data=ramps.data[:, :, rows],
            groupdq=ramps.groupdq[:, :, rows],
            pixeldq=ramps.pixeldq[rows],
        )
        corrected = subtract_reference_pixels(block, correction[:, :, rows])
        np.testing.assert_array_equal(corrected.data, whole[:, :, rows])


def test_nothing_to_go_by_leaves_the_data(on_backend, rng):
    ramps = make_ramps(rng)
    pixeldq = ramps.pixeldq.copy()
    pixeldq[:, :4] = 1
    ramps = replace(ramps, pixeldq=pixeldq)
    moved = on_backend(ramps)
    corrected = subtract_reference_pixels(moved, measure_reference_pixels(moved))
    np.testing.assert_array_equal(to_host(corrected.data), ramps.data)


def test_a_dropped_first_group_still_sets_the_zero_point(on_backend, rng):
    ramps = make_ramps(rng)
    groupdq = ramps.groupdq.copy()
    groupdq[:, 0] = 1
    all_groups = to_host(measure_reference_pixels(on_backend(ramps)))
    dropped = to_host(measure_reference_pixels(on_backend(replace(ramps, groupdq=groupdq))))
    np.testing.assert_array_equal(dropped[:, 1:], all_groups[:, 1:])


def test_odd_shapes_are_named(rng):
    narrow = make_ramps(rng, (1, 2, 4, 3))
    with pytest.raises(ValueError, match="4 reference columns, got 3"):
        measure_reference_pixels(narrow)
    with pytest.raises(ValueError, match="multiple of 4 columns, got 3"):
        subtract_reference_pixels(narrow, np.zeros((1, 2, 4, 4), np.float32))
    with pytest.raises(ValueError, match="smoothing_length"):
        ReferencePixelParams(smoothing_length=0)
