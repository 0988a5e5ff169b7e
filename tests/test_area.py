"""Areas: what a halo adds, and where an area lies in another."""

import numpy as np
import pytest

from miri_gpu.area import ALL_COLUMNS, ALL_ROWS, Area
from miri_gpu.detector import N_AMPLIFIERS, N_COLS, N_ROWS

AREAS = [
    Area(),
    Area(slice(10, 30)),
    Area(slice(10, 30), slice(31, 41)),
    Area(slice(0, 1), slice(0, 1)),
    Area(slice(N_ROWS - 1, N_ROWS), slice(N_COLS - 1, N_COLS)),
]


@pytest.mark.parametrize("area", AREAS)
@pytest.mark.parametrize("n_pixels", [0, 1, 3])
def test_a_halo_is_around_an_area_and_within_the_frame(area, n_pixels):
    outer = area.grown(n_pixels)
    assert outer.rows.start == max(area.rows.start - n_pixels, 0)
    assert outer.rows.stop == min(area.rows.stop + n_pixels, N_ROWS)
    assert 0 <= outer.columns.start <= max(area.columns.start - n_pixels, 0)
    assert min(area.columns.stop + n_pixels, N_COLS) <= outer.columns.stop <= N_COLS
    assert outer.columns.start % N_AMPLIFIERS == outer.columns.stop % N_AMPLIFIERS == 0
    assert outer.shape[1] < area.shape[1] + 2 * (n_pixels + N_AMPLIFIERS)


@pytest.mark.parametrize("area", AREAS)
def test_an_area_is_found_within_another(area):
    frame = np.arange(N_ROWS * N_COLS).reshape(N_ROWS, N_COLS)
    outer = area.grown(2)
    there = frame[*outer][*area.within(outer)]
    np.testing.assert_array_equal(there, frame[*area])
    assert there.shape == area.shape


def test_all_of_a_frame_has_no_halo():
    assert Area().grown(5) == (ALL_ROWS, ALL_COLUMNS)
    assert Area.of_shape((N_ROWS, N_COLS)) == Area()
    assert Area.of_shape((3, 8), row_start=7, col_start=4) == (slice(7, 10), slice(4, 12))
