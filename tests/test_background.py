"""The background against a twin that walks over frames and rows."""

import numpy as np
import pytest

from miri_gpu.backend import to_host
from miri_gpu.background import (
    BackgroundParams,
    GroupBackgroundParams,
    background_error,
    evaluate_background,
    measure_background,
    measure_group_background,
    rows_sharing,
    subtract_background,
)
from miri_gpu.rates.outliers import CleanOutliersParams, replace_outliers

METHODS = ("constant", "row_wise", "col_wise")


def background_of_one(frame, dq, params):
    """Background of a frame, pixel by pixel."""
    frame = np.where((dq & 1) == 0, frame, np.nan)
    left = frame[:, params.bkg_col_left_start : params.bkg_col_left_end]
    right = frame[:, params.bkg_col_right_start : params.bkg_col_right_end]
    both = np.hstack([left, right])
    background = np.empty(frame.shape)
    for row in range(frame.shape[0]):
        if params.method == "constant":
            background[row] = np.nanmedian(both)
        elif params.method == "row_wise":
            background[row] = np.nanmedian(both[row])
        else:
            a = (params.bkg_col_left_start + params.bkg_col_left_end) / 2
            b = (params.bkg_col_right_start + params.bkg_col_right_end) / 2
            line = np.polyfit([a, b], [np.nanmedian(left[row]), np.nanmedian(right[row])], 1)
            background[row] = np.polyval(line, np.arange(frame.shape[1]))
    if params.smoothing_length is None or params.method == "constant":
        return background
    radius = (params.smoothing_length - 1) // 2
    return np.array(
        [
            np.median(background[max(row - radius, 0) : row + radius + 1], axis=0)
            for row in range(frame.shape[0])
        ]
    )


def frames(rng, shape):
    data = rng.normal(50, 5, shape).astype(np.float32) + np.arange(shape[-1], dtype=np.float32)
    dq = (rng.random(shape) < 0.1).astype(np.uint8) | (rng.random(shape) < 0.3) * np.uint8(4)
    data[rng.random(shape) < 0.05] = np.nan
    data[dq & 1 == 1] = 1e9
    return data, dq


@pytest.mark.parametrize("smoothing_length", [None, 1, 6, 7])
@pytest.mark.parametrize("method", METHODS)
def test_rates_are_as_the_twin_says(on_backend, rng, method, smoothing_length):
    params = BackgroundParams(method=method, smoothing_length=smoothing_length)
    data, dq = frames(rng, (3, 30, 72))
    arrays = on_backend(data, dq.astype(np.uint32))
    background = measure_background(*arrays, params=params)
    evaluated = to_host(evaluate_background(background, 72))
    twin = np.stack([background_of_one(*pair, params) for pair in zip(data, dq, strict=True)])
    assert evaluated.dtype == np.float32
    np.testing.assert_allclose(evaluated, twin, rtol=2e-6)
    subtracted = to_host(subtract_background(arrays[0], background))
    assert subtracted.dtype == np.float32
    np.testing.assert_allclose(subtracted, data - twin, rtol=1e-6, atol=2e-4)


@pytest.mark.parametrize("method", METHODS)
def test_groups_are_frames_like_any_other(on_backend, rng, method):
    params = GroupBackgroundParams(
        method=method, bkg_col_left_start=12, bkg_col_left_end=22, bkg_col_right_start=50
    )
    data, dq = frames(rng, (2, 3, 20, 72))
    background = to_host(measure_background(*on_backend(data, dq), params=params))
    for i in range(2):
        for group in range(3):
            twin = background_of_one(data[i, group], dq[i, group], params)
            evaluated = evaluate_background(background[i, group], 72)
            np.testing.assert_allclose(evaluated, twin, rtol=2e-6)


@pytest.mark.parametrize("smoothing_length", [None, 9])
@pytest.mark.parametrize("method", METHODS)
def test_measured_once_and_subtracted_in_blocks_of_rows(rng, method, smoothing_length):
    params = BackgroundParams(method=method, smoothing_length=smoothing_length)
    data, dq = frames(rng, (2, 40, 72))
    background = measure_background(data, dq, params=params)
    assert background.shape[:2] == (2, 40)
    whole = subtract_background(data, background)
    blocks = [
        subtract_background(data[:, rows], background[:, rows])
        for rows in (slice(0, 3), slice(3, 33), slice(33, 40))
    ]
    np.testing.assert_array_equal(np.concatenate(blocks, axis=1), whole)


def test_small_form_is_small(rng):
    data, dq = frames(rng, (2, 40, 72))
    for method, n_terms in (("constant", 1), ("row_wise", 1), ("col_wise", 2)):
        assert measure_background(data, dq, params=BackgroundParams(method=method)).shape == (
            2, 40, n_terms,
        )  # fmt: skip


def test_pixel_flags_serve_all_frames(on_backend, rng):
    data, _ = frames(rng, (3, 10, 72))
    pixeldq = (rng.random((10, 72)) < 0.2).astype(np.uint32)
    one = measure_background(*on_backend(data, pixeldq))
    each = measure_background(*on_backend(data, np.stack([pixeldq] * 3)))
    np.testing.assert_array_equal(to_host(one), to_host(each))


@pytest.mark.parametrize("method", METHODS)
def test_only_the_columns_that_are_looked_at_are_cleaned(on_backend, rng, method):
    data, dq = on_backend(*frames(rng, (2, 40, 72)))
    cleaning = CleanOutliersParams(window_heights=(20,), poly_order=1, outlier_threshold=3.0)
    params = BackgroundParams(method=method)
    n_columns = []

    def clean(pixels, flags):
        n_columns.append(pixels.shape[-1])
        return replace_outliers(pixels, flags, params=cleaning)

    ours = measure_background(data, dq, params=params, clean=clean)
    whole = measure_background(*replace_outliers(data, dq, params=cleaning), params=params)
    np.testing.assert_array_equal(to_host(ours), to_host(whole))
    assert n_columns == [9 + 16]
    assert (to_host(ours) != to_host(measure_background(data, dq, params=params))).any()


def test_a_known_slope_is_removed(on_backend):
    data = np.tile(100 + 0.25 * np.arange(72, dtype=np.float32), (2, 8, 1))
    # the median of columns start .. end - 1 sits half a column below (start + end) / 2
    background = measure_background(on_backend(data), params=BackgroundParams(method="col_wise"))
    left = to_host(subtract_background(on_backend(data), background))
    np.testing.assert_allclose(left, 0.125, atol=1e-4)


@pytest.mark.parametrize("method", METHODS)
def test_all_bad_is_nan(on_backend, rng, method):
    data, dq = frames(rng, (2, 6, 72))
    data[0] = np.nan
    dq[1] = 1
    background = measure_background(*on_backend(data, dq), params=BackgroundParams(method=method))
    assert np.isnan(to_host(subtract_background(on_backend(data), background))).all()


def test_impossible_regions_are_named():
    with pytest.raises(ValueError, match=r"bkg_col_left_end: expected more than .* \(20\), got 17"):
        BackgroundParams(bkg_col_left_start=20)
    with pytest.raises(ValueError, match=r"group_background_subtract\.bkg_col_right_start"):
        measure_background(np.ones((1, 2, 40)), params=GroupBackgroundParams())
    with pytest.raises(ValueError, match="another middle"):
        same = BackgroundParams(method="col_wise", bkg_col_right_start=8, bkg_col_right_end=17)
        measure_background(np.ones((1, 2, 72)), params=same)
    with pytest.raises(ValueError, match="method: expected one of constant, row_wise, col_wise"):
        BackgroundParams(method="none")


def noise(n_rows, n_frames=3000):
    """Frames of noise, their errors, and flags: some pixels take no part."""
    rng = np.random.default_rng(7)
    err = np.full((n_frames, n_rows, 72), 3.0, np.float32)
    data = rng.normal(50, err).astype(np.float32)
    dq = np.zeros((n_rows, 72), np.uint32)
    dq[:, [9, 60]] = 1
    dq[:, 12] = 4  # does
    err[:, :, 65] = data[:, :, 65] = np.nan
    return data, err, dq


@pytest.mark.parametrize("method", METHODS)
def test_its_error_is_its_scatter(on_backend, method):
    params = BackgroundParams(method=method)
    data, err, dq = noise(8)
    found = to_host(background_error(*on_backend(data, err, dq), params=params))
    background = evaluate_background(measure_background(data, dq, params=params), 72)
    scatter = background.std(axis=0)[:, 30:45]
    found_there = np.median(np.broadcast_to(found, data.shape)[..., 30:45], axis=0)
    np.testing.assert_allclose(found_there, scatter, rtol=0.08)
    assert found.dtype == np.float32
    if method != "constant":  # whose frames say how far their pixels are spread out
        assert np.ptp(found, axis=0).max() == 0


@pytest.mark.parametrize("smoothing_length", [None, 5, 11])
@pytest.mark.parametrize("method", METHODS)
def test_rows_share_its_error_as_far_as_it_says(on_backend, method, smoothing_length):
    params = BackgroundParams(method=method, smoothing_length=smoothing_length)
    data, err, dq = noise(60, 1000)
    found = to_host(background_error(*on_backend(data, err, dq), params=params))
    found = np.broadcast_to(found, data.shape)[0, :, 36]
    background = evaluate_background(measure_background(data, dq, params=params), 72)[..., 36]
    inner = slice(10, 50)  # a running median has fewer rows at the ends
    np.testing.assert_allclose(found[inner], background[:, inner].std(axis=0), rtol=0.15)
    apart = np.abs(np.subtract.outer(np.arange(60), np.arange(60)))
    correlation = np.clip(1 - apart / rows_sharing(params), 0, 1)
    expected = np.sqrt(found @ correlation @ found)
    assert background.sum(axis=1).std() == pytest.approx(expected, rel=0.12)  # of few rows less


@pytest.mark.parametrize("method", METHODS)
def test_the_bias_of_pixels_stays_out_of_the_background_of_groups(on_backend, method):
    rng = np.random.default_rng(3)
    rise = 20.0 * np.arange(6)[:, None, None]
    bias = rng.normal(0, 300, (30, 72))
    data = bias + rise + rng.normal(0, 6, (40, 6, 30, 72))
    scatter = {}
    for relative in (False, True):
        params = GroupBackgroundParams(method=method, relative_to_first_group=relative)
        found = to_host(measure_group_background(on_backend(data), params=params))
        at_trace = evaluate_background(found, 72)[..., 36]
        scatter[relative] = (at_trace[:, -1] - at_trace[:, 0]).std()
        np.testing.assert_allclose((at_trace[:, -1] - at_trace[:, 0]).mean(), 100.0, atol=3.0)
    assert scatter[True] < 0.7 * scatter[False]
    assert (at_trace[:, 0] == 0).all()  # the level of an integration stays


@pytest.mark.parametrize("spread", [0.5, 3.0, 30.0])
def test_the_background_of_uneven_frames_varies_more(on_backend, spread):
    params = BackgroundParams(method="constant")
    data, err, dq = noise(40, 1000)
    data += np.linspace(-1.7, 1.7, 40, dtype=np.float32)[:, None] * spread
    found = to_host(background_error(*on_backend(data, err, dq), params=params))
    scatter = measure_background(data, dq, params=params)[:, 0, 0].std()
    assert np.median(found) == pytest.approx(scatter, rel=0.15)


def test_its_error_is_unknown_where_that_of_all_pixels_is(on_backend):
    err = np.ones((2, 5, 72), np.float32)
    err[1, 3] = np.nan
    found = to_host(background_error(*on_backend(np.zeros_like(err), err)))
    assert np.isnan(found[1, 3]).all() and np.isnan(found).sum() == 1
