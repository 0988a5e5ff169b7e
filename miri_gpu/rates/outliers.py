"""Find outliers against smooth spatial profiles, and replace them."""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from miri_gpu import kernels
from miri_gpu.backend import namespace
from miri_gpu.containers import Array, ArrayBundle
from miri_gpu.detector import OUTLIER
from miri_gpu.numerics import fit_polynomials
from miri_gpu.parameters import Parameters, option
from miri_gpu.rates.profile import build_profile

TRACE_COLUMN = 36  # outliers are counted around it
N_REGION_WIDTHS = 5  # within 0 .. 4 columns of the trace
_KERNEL_LANES, _KERNEL_ARRAYS, _KERNEL_POINTS = 8, 5, 512  # as `kernels/outliers.c` has them
_ROUNDING = 1e-12  # residuals below this share of the values are rounding, not noise


@dataclass(frozen=True, kw_only=True)
class CleanOutliersParams(Parameters):
    """How smooth the profiles are, and what counts as an outlier."""

    step: ClassVar[str] = "clean_outliers"

    window_heights: tuple[int, ...] = option(
        (150, 100, 50, 40, 30, 24),
        "heights of the windows that the rows are cut into, repeated until all rows are covered",
        unit="row",
        at_least=1,
    )
    dq_bits_to_mask: tuple[int, ...] = option(
        (0,), "numbers of the DQ bits whose pixels are replaced", at_least=0, at_most=31
    )
    poly_order: int = option(4, "order of the polynomial in a window of a column", at_least=0)
    outlier_threshold: float = option(
        4.0,
        "smallest deviation from the polynomial that makes an outlier",
        unit="standard deviation",
        above=0,
    )
    spatial_profile_left_idx: int = option(
        26, "first column of the spatial profile", unit="column", at_least=0
    )
    spatial_profile_right_idx: int = option(
        47, "end of the spatial profile, itself not in it", unit="column", at_least=1
    )
    no_clean: bool = option(False, "replace NaN by 0, and do nothing else")

    def __post_init__(self):
        super().__post_init__()
        if not self.window_heights:
            raise ValueError(f"{self.step}.window_heights: expected at least one height, got none")
        if self.spatial_profile_right_idx <= self.spatial_profile_left_idx:
            raise ValueError(
                f"{self.step}.spatial_profile_right_idx: expected more than "
                f"spatial_profile_left_idx ({self.spatial_profile_left_idx}), "
                f"got {self.spatial_profile_right_idx}"
            )


@dataclass(frozen=True, eq=False, kw_only=True)
class CleanedFrames(ArrayBundle):
    """Frames without outliers, and what was learnt while they were cleaned.

    Attributes
    ----------
    data : (n_ints, n_rows, n_cols) float32
    dq : (n_ints, n_rows, n_cols) uint32
    profile : (n_ints, n_rows, n_cols) float32
        Spatial profile, of sum 1 in each row; NaN where nothing was cleaned.
    n_outliers : (n_ints, n_rows, 5) int32
        Pixels with any DQ bit set, within 0 .. 4 columns of column 36.
    """

    data: Array
    dq: Array
    profile: Array
    n_outliers: Array


def clean_outliers(
    data: Array, dq: Array, *, params: CleanOutliersParams | None = None
) -> CleanedFrames:
    """Replace outliers and bad pixels by the smooth spatial profile, frame by frame.

    Parameters
    ----------
    data : (n_ints, n_rows, n_cols) float
        Rate images. What is not finite is replaced.
    dq : (n_ints, n_rows, n_cols) uint32
        Pixels with any bit of `dq_bits_to_mask` are replaced.
    params : CleanOutliersParams

    Returns
    -------
    CleanedFrames
        Replaced pixels carry the DQ bit OUTLIER. A window of a column with fewer than 2 good
        pixels is filled with 0.

    Raises
    ------
    ValueError
        Where the spatial profile reaches beyond the last column.

    Notes
    -----
    ExoTiC-MIRI's CleanOutliersStep, after Horne 1986. Where a window has no more good pixels than
    `poly_order`, the polynomial is the one of highest order that they determine. In a window of few
    rows a high threshold never fires: see `largest_deviation`.
    """
    xp = namespace(data, dq)
    params = CleanOutliersParams() if params is None else params
    n_ints, n_rows, n_cols = data.shape
    left, right = params.spatial_profile_left_idx, params.spatial_profile_right_idx
    if right > n_cols:
        raise ValueError(
            f"{params.step}.spatial_profile_right_idx: expected at most the number of columns "
            f"({n_cols}), got {right}"
        )
    if params.no_clean:
        return CleanedFrames(
            data=xp.where(xp.isnan(data), data.dtype.type(0), data),
            dq=dq,
            profile=xp.full(data.shape, xp.nan, dtype=xp.float32),
            n_outliers=count_flagged(dq),
        )
    good = xp.isfinite(data) & ((dq & bit_mask(params.dq_bits_to_mask)) == 0)
    windows = cut_windows(n_rows, params.window_heights)
    fit = _fit_by_kernel if _kernel_fits(windows, xp=xp) else _fit_window_by_window
    model, kept = fit(data, good, windows, params.poly_order, params.outlier_threshold, xp=xp)
    flagged = dq | xp.where(kept, 0, OUTLIER).astype(dq.dtype)
    return CleanedFrames(
        data=xp.where(kept, data, model.astype(data.dtype)),
        dq=flagged,
        profile=build_profile(model, left, right),
        n_outliers=count_flagged(flagged),
    )


def fit_without_outliers(
    values: Array, good: Array, order: int, threshold: float
) -> tuple[Array, Array]:
    """Fit polynomials to many curves, dropping from each its worst point until none is an outlier.

    Parameters
    ----------
    values, good : (n_curves, n)
        Curves, and which of their points may be used.
    order : int
    threshold : float
        Of the largest residual, in standard deviations of the residuals.

    Returns
    -------
    fitted : (n_curves, n) float64
        0 for curves with fewer than 2 good points.
    inliers : (n_curves, n) bool
        The points that were good and have stayed so.
    """
    xp = namespace(values, good)
    windows = [(0, values.shape[1])]
    if _kernel_fits(windows, xp=xp):
        frames = (values[..., None], good[..., None])
        fitted, inliers = _fit_by_kernel(*frames, windows, order, threshold, xp=xp)
        return fitted[..., 0], inliers[..., 0]
    fitted = xp.zeros(values.shape, dtype=xp.float64)
    values = xp.where(good, values, 0).astype(xp.float64)
    inliers = good.copy()
    curve = xp.arange(values.shape[0])  # the curves that have just lost a point
    for _ in range(values.shape[1]):
        value, inlier = values[curve], inliers[curve]
        fit = fit_polynomials(value, inlier, order)
        n_good = inlier.sum(axis=-1)
        fit = xp.where(n_good[:, None] >= 2, fit, 0.0)
        fitted[curve] = fit
        worst, outlying = _worst_point(value, fit, inlier, n_good, threshold, xp=xp)
        again = xp.nonzero(outlying)[0]
        if again.size == 0:
            break
        curve = curve[again]
        inliers[curve, worst[again]] = False
    return fitted, inliers


def _fit_window_by_window(
    data: Array, good: Array, windows: list, order: int, threshold: float, *, xp
) -> tuple[Array, Array]:
    """Fit every window of every column of the frames; the results have their shape."""
    n_ints, _, n_cols = data.shape
    model = xp.empty(data.shape, dtype=xp.float64)
    kept = xp.empty(data.shape, dtype=bool)
    for start, stop in windows:
        window = (slice(None), slice(start, stop))
        shape = (n_ints, n_cols, stop - start)
        fitted, inliers = fit_without_outliers(
            xp.swapaxes(data[window], 1, 2).reshape(-1, stop - start),
            xp.swapaxes(good[window], 1, 2).reshape(-1, stop - start),
            order,
            threshold,
        )
        model[window] = xp.swapaxes(fitted.reshape(shape), 1, 2)
        kept[window] = xp.swapaxes(inliers.reshape(shape), 1, 2)
    return model, kept


def _kernel_fits(windows: list, *, xp) -> bool:
    """Whether the kernel can do these windows."""
    heights = [stop - start for start, stop in windows]
    return kernels.available(xp) and bool(heights) and 0 < max(heights) <= _KERNEL_POINTS


def _fit_by_kernel(
    data: Array, good: Array, windows: list, order: int, threshold: float, *, xp
) -> tuple[Array, Array]:
    """The same as :func:`_fit_window_by_window`, by the kernel."""
    n_ints, n_rows, n_cols = data.shape
    model = xp.empty(data.shape, dtype=xp.float64)
    kept = xp.empty(data.shape, dtype=bool)
    most_points = -(-max(stop - start for start, stop in windows) // _KERNEL_LANES) * _KERNEL_LANES
    is_single = data.dtype == xp.float32
    values = xp.ascontiguousarray(data if is_single else data.astype(xp.float64))
    points = [np.linspace(-1.0, 1.0, stop - start) for start, stop in windows]
    kernels.launch(
        xp,
        "clean_windows",
        n_ints * len(windows) * n_cols,
        len(windows),
        n_rows,
        n_cols,
        most_points,
        xp.asarray(np.array([start for start, _ in windows] + [n_rows], np.int32)),
        xp.asarray(np.concatenate([*points, np.zeros(_KERNEL_LANES)])),
        order,
        threshold**2,
        _ROUNDING**2,
        values if is_single else None,
        None if is_single else values,
        xp.ascontiguousarray(good),
        model,
        kept,
        threads_per_item=_KERNEL_LANES,
        shared_bytes_per_item=_KERNEL_ARRAYS * most_points * model.itemsize,
    )
    return model, kept


def _worst_point(
    value: Array, fit: Array, inlier: Array, n_good: Array, threshold: float, *, xp
) -> tuple[Array, Array]:
    """Index of the largest residual of each curve, and whether it is an outlier."""
    square = xp.where(inlier, value - fit, 0.0)
    square *= square
    worst = square.argmax(axis=-1)
    largest = xp.take_along_axis(square, worst[:, None], axis=-1)[:, 0]
    n_good = xp.maximum(n_good, 1)
    # a least-squares polynomial leaves residuals of mean 0: their mean square is their variance
    variance = square.sum(axis=-1) / n_good
    power = xp.where(inlier, value * value, 0.0).sum(axis=-1) / n_good
    noisy = variance > _ROUNDING**2 * power
    return worst, noisy & (largest > threshold**2 * variance)


def cut_windows(n_rows: int, heights: tuple[int, ...]) -> list[tuple[int, int]]:
    """Rows (start, stop) of windows whose heights repeat until all rows are covered."""
    windows, start = [], 0
    while start < n_rows:
        stop = min(start + heights[len(windows) % len(heights)], n_rows)
        windows.append((start, stop))
        start = stop
    return windows


def largest_deviation(height: int, order: int) -> float:
    """The most standard deviations by which one point can miss the polynomial of its window.

    An outlier is part of the fit and of the standard deviation that it is measured against. With n
    points, of which number i has leverage h_i, its deviation cannot exceed sqrt(n (1 - h_i)): a
    threshold above the largest of these flags nothing, whatever the data.
    """
    if height <= order + 1:
        return 0.0
    basis, _ = np.linalg.qr(np.polynomial.legendre.legvander(np.linspace(-1, 1, height), order))
    return float(np.sqrt(height * (1 - (basis**2).sum(axis=1).min())))


def count_flagged(dq: Array) -> Array:
    """Count the pixels with any DQ bit within 0 .. 4 columns of the trace.

    Parameters
    ----------
    dq : (n_ints, n_rows, n_cols) uint32

    Returns
    -------
    (n_ints, n_rows, 5) int32
    """
    xp = namespace(dq)
    flagged = dq != 0
    counts = [
        flagged[..., max(TRACE_COLUMN - width, 0) : TRACE_COLUMN + width + 1].sum(axis=-1)
        for width in range(N_REGION_WIDTHS)
    ]
    return xp.stack(counts, axis=-1).astype(xp.int32)


def bit_mask(bits: tuple[int, ...]) -> int:
    """The DQ value in which the bits of these numbers are set."""
    return sum(1 << bit for bit in set(bits))
