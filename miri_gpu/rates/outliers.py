"""Find outliers against smooth spatial profiles, and replace them."""

import math
from dataclasses import dataclass
from typing import ClassVar

from miri_gpu.backend import namespace
from miri_gpu.containers import Array, ArrayBundle
from miri_gpu.parameters import Parameters, option
from miri_gpu.rates.outlier_fits import Windows, clean_windows, orthonormal_polynomials
from miri_gpu.rates.profile import build_profile

TRACE_COLUMN = 36  # outliers are counted around it
N_REGION_WIDTHS = 5  # within 0 .. 4 columns of the trace


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
    poly_order: int = option(
        4, "order of the polynomial in a window of a column", at_least=0, at_most=20
    )
    outlier_threshold: float = option(
        4.0,
        "smallest deviation from the polynomial that makes an outlier",
        unit="standard deviation",
        above=0,
        at_most=1e6,
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
    n_cols = data.shape[2]
    left, right = params.spatial_profile_left_idx, params.spatial_profile_right_idx
    if right > n_cols:
        raise ValueError(
            f"{params.step}.spatial_profile_right_idx: expected at most the number of columns "
            f"({n_cols}), got {right}"
        )
    cleaned, flagged, model = _cleaned(data, dq, params, slice(left, right), xp=xp)
    unknown = xp.full(data.shape, xp.nan, dtype=xp.float32)
    return CleanedFrames(
        data=cleaned,
        dq=flagged,
        profile=unknown if params.no_clean else build_profile(model, left, n_cols),
        n_outliers=count_flagged(flagged),
    )


def replace_outliers(
    data: Array, dq: Array, *, params: CleanOutliersParams | None = None
) -> tuple[Array, Array]:
    """Do what `clean_outliers` does, for the pixels alone: of whole frames, or of some columns.

    Parameters
    ----------
    data : (n_ints, n_rows, n_cols) float
    dq : (n_ints, n_rows, n_cols) uint32
    params : CleanOutliersParams

    Returns
    -------
    data, dq : as in CleanedFrames
    """
    xp = namespace(data, dq)
    params = CleanOutliersParams() if params is None else params
    cleaned, flagged, _ = _cleaned(data, dq, params, slice(0, 0), xp=xp)
    return cleaned, flagged


def _cleaned(data: Array, dq: Array, params: CleanOutliersParams, modelled: slice, *, xp):
    """Cleaned pixels, their flags, and the model of some columns, as `clean_windows` gives it."""
    if params.no_clean:
        return xp.where(xp.isnan(data), data.dtype.type(0), data), dq, None
    return clean_windows(
        data,
        dq,
        cut_windows(data.shape[1], params.window_heights),
        masked=bit_mask(params.dq_bits_to_mask),
        order=params.poly_order,
        threshold=params.outlier_threshold,
        modelled=modelled,
    )


def cut_windows(n_rows: int, heights: tuple[int, ...]) -> Windows:
    """Rows (start, stop) of windows whose heights repeat until all rows are covered."""
    windows, start = [], 0
    while start < n_rows:
        stop = min(start + heights[len(windows) % len(heights)], n_rows)
        windows.append((start, stop))
        start = stop
    return tuple(windows)


def largest_deviation(height: int, order: int) -> float:
    """The most standard deviations by which one point can miss the polynomial of its window.

    An outlier is part of the fit and of the standard deviation that it is measured against. With n
    points, of which number i has leverage h_i, its deviation cannot exceed sqrt(n (1 - h_i)): a
    threshold above the largest of these flags nothing, whatever the data.
    """
    if height <= order + 1:
        return 0.0
    leverage = (orthonormal_polynomials(height, order) ** 2).sum(axis=1)
    return math.sqrt(height * (1 - leverage.min()))


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
    first = TRACE_COLUMN - N_REGION_WIDTHS + 1
    flagged = (dq[..., first : TRACE_COLUMN + N_REGION_WIDTHS] != 0).astype(xp.int32)
    middle = N_REGION_WIDTHS - 1
    counts = [flagged[..., middle]]
    for width in range(1, N_REGION_WIDTHS):
        counts.append(counts[-1] + flagged[..., middle - width] + flagged[..., middle + width])
    return xp.stack(counts, axis=-1)


def bit_mask(bits: tuple[int, ...]) -> int:
    """The DQ value in which the bits of these numbers are set."""
    return sum(1 << bit for bit in set(bits))
