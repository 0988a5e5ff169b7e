"""Background of a frame from columns either side of the trace, for groups and for rate images.

The background is kept small: along the columns it is a level, a straight line, or (a smoothed
line) a value for each column. `evaluate_background` spreads it over the columns.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar

from miri_gpu.backend import namespace
from miri_gpu.containers import Array
from miri_gpu.detector import DO_NOT_USE
from miri_gpu.numerics import masked_median, moving_median
from miri_gpu.parameters import Parameters, option

METHODS = ("constant", "row_wise", "col_wise")
_SHARE_WITHIN_HALF_SIGMA = 0.3829  # of normal values


@dataclass(frozen=True, kw_only=True)
class BackgroundParams(Parameters):
    """How the background of a rate image is measured."""

    step: ClassVar[str] = "background_subtract"

    method: str = option(
        "row_wise",
        "constant: one median of the frame; row_wise: a median for each row; "
        "col_wise: in each row a straight line through the medians of the two regions",
        choices=METHODS,
    )
    bkg_col_left_start: int = option(
        8, "first column of the region left of the trace", unit="column", at_least=0
    )
    bkg_col_left_end: int = option(
        17, "end of the left region, itself not in it", unit="column", at_least=1
    )
    bkg_col_right_start: int = option(
        56, "first column of the region right of the trace", unit="column", at_least=0
    )
    bkg_col_right_end: int = option(
        72, "end of the right region, itself not in it", unit="column", at_least=1
    )
    smoothing_length: int | None = option(
        None, "length of a running median along the rows", unit="row", at_least=1
    )

    def __post_init__(self):
        super().__post_init__()
        for side in ("left", "right"):
            start = getattr(self, f"bkg_col_{side}_start")
            end = getattr(self, f"bkg_col_{side}_end")
            if end <= start:
                raise ValueError(
                    f"{self.step}.bkg_col_{side}_end: expected more than bkg_col_{side}_start "
                    f"({start}), got {end}"
                )


@dataclass(frozen=True, kw_only=True)
class GroupBackgroundParams(BackgroundParams):
    """How the background of each group of a ramp is measured."""

    step: ClassVar[str] = "group_background_subtract"

    relative_to_first_group: bool = option(
        False,
        "look at what each pixel has gathered since the first group: its bias, by which pixels "
        "differ more than by noise, stays out of the median",
    )


def measure_background(
    data: Array,
    dq: Array | None = None,
    *,
    params: BackgroundParams | None = None,
    clean: Callable[[Array, Array], tuple[Array, Array]] | None = None,
) -> Array:
    """Measure the background of whole frames.

    Parameters
    ----------
    data : (..., n_rows, n_cols) float
        Frames, of ramps or of rates. NaN takes no part.
    dq : unsigned integers that broadcast against `data`, or None
        Pixels flagged DO_NOT_USE take no part.
    params : BackgroundParams or GroupBackgroundParams
    clean : function of data and dq, or None
        Cleans the columns that the background is measured on, side by side, and returns them.

    Returns
    -------
    (..., n_rows, n_terms) of the dtype of `data`
        For `evaluate_background`: n_terms is 1 (a level for each row), 2 (value at column 0 and
        slope per column) or n_cols (col_wise with smoothing). NaN where no pixel has a say.

    Raises
    ------
    ValueError
        Where a region lies beyond the last column.

    Notes
    -----
    ExoTiC-MIRI's GroupBackgroundSubtractStep and BackgroundSubtractStep.
    """
    xp = namespace(data, dq)
    params = BackgroundParams() if params is None else params
    left, right = _regions(params, data.shape[-1])
    pixels, flags = _gathered(data, left, right, xp=xp), _gathered(dq, left, right, xp=xp)
    if clean is not None:
        pixels, flags = clean(pixels, flags)
    good = None
    if flags is not None:
        good = xp.broadcast_to((flags & DO_NOT_USE) == 0, pixels.shape)

    if params.method == "col_wise":
        n_left = data[..., left].shape[-1]
        medians = (
            masked_median(pixels[..., side], None if good is None else good[..., side], axis=-1)
            for side in (slice(None, n_left), slice(n_left, None))
        )
        lines = _lines(*medians, params, xp=xp)
        if not _is_smoothed(params):
            return lines
        return _smooth(evaluate_background(lines, data.shape[-1]), params)

    if params.method == "constant":
        whole = (*pixels.shape[:-2], -1)
        level = masked_median(
            pixels.reshape(whole), None if good is None else good.reshape(whole), axis=-1
        )
        return xp.broadcast_to(level[..., None, None], (*data.shape[:-1], 1))
    levels = masked_median(pixels, good, axis=-1)[..., None]
    return _smooth(levels, params) if _is_smoothed(params) else levels


def measure_group_background(
    data: Array, groupdq: Array | None = None, *, params: GroupBackgroundParams | None = None
) -> Array:
    """Measure the background of each group of whole frames, as `measure_background` does.

    Parameters
    ----------
    data : (n_ints, n_groups, n_rows, n_cols) float
    groupdq : unsigned integers that broadcast against `data`, or None
    params : GroupBackgroundParams
        `relative_to_first_group` leaves the level of all groups of an integration where it is, and
        takes away what the background adds to them.
    """
    params = GroupBackgroundParams() if params is None else params
    if params.relative_to_first_group:
        data = data - data[:, :1]
    return measure_background(data, groupdq, params=params)


def background_error(
    data: Array, err: Array, dq: Array | None = None, *, params: BackgroundParams | None = None
) -> Array:
    """Standard deviation of a measured background, which all pixels of a row have in common.

    `rows_sharing` says how far rows have it in common, too.

    Parameters
    ----------
    data, err : (..., n_rows, n_cols) float
        Frames, and the standard deviations of their pixels, which are independent. NaN takes no
        part.
    dq : unsigned integers that broadcast against `data`, or None
        As `measure_background` takes it.
    params : BackgroundParams or GroupBackgroundParams

    Returns
    -------
    (..., n_rows, n_cols or 1) float32
        NaN where no pixel has a say.
    """
    xp = namespace(data, err, dq)
    params = BackgroundParams() if params is None else params
    left, right = _regions(params, err.shape[-1])
    pixels, sigmas, flags = (_gathered(x, left, right, xp=xp) for x in (data, err, dq))
    good = xp.isfinite(pixels) & xp.isfinite(sigmas)
    if flags is not None:
        good &= (flags & DO_NOT_USE) == 0
    square = xp.where(good, sigmas * sigmas, 0)
    if params.method == "col_wise":
        n_left = err[..., left].shape[-1]
        sides = (slice(None, n_left), slice(n_left, None))
        of_left, of_right = (
            _variance_of_median(square[..., side], good[..., side], (-1,), xp=xp) for side in sides
        )
        left_column, right_column = _middles(params)
        share = (xp.arange(err.shape[-1]) - left_column) / (right_column - left_column)
        variance = (1 - share) ** 2 * of_left + share**2 * of_right
    else:
        whole = params.method == "constant"
        variance = _variance_of_median(square, good, (-2, -1) if whole else (-1,), xp=xp)
        if whole:
            variance = variance * _excess_by_spread(pixels, sigmas, good, xp=xp)
        variance = xp.broadcast_to(variance, (*err.shape[:-1], 1))
    if _is_smoothed(params):
        variance = variance * _share_of_median(rows_sharing(params))
    return xp.sqrt(variance).astype(xp.float32)


def rows_sharing(params: BackgroundParams) -> float:
    """How many rows share the error of their background.

    Returns
    -------
    float
        Of rows that are d apart, the errors have the correlation 1 - d / n, or 0 from n on: n is 1
        where each row has its own background, the length of a running median, and infinity where
        a frame has one. Of a running median of 5 rows the sum has an error that is a tenth less,
        and at the ends of the frame, where it is over half of its length, each row a third more.
    """
    if params.method == "constant":
        return math.inf
    return 2 * _radius(params) + 1 if _is_smoothed(params) else 1


def evaluate_background(background: Array, n_cols: int) -> Array:
    """Background at every pixel, (..., n_rows, n_cols), from what `measure_background` returned.

    Any block of its rows, or of its leading axes, may be given.
    """
    xp = namespace(background)
    n_terms = background.shape[-1]
    if n_terms == 2:
        columns = xp.arange(n_cols).astype(background.dtype)
        return background[..., :1] + background[..., 1:] * columns
    return xp.broadcast_to(background, (*background.shape[:-1], n_cols))


def subtract_background(data: Array, background: Array) -> Array:
    """Subtract a measured background from the frames, or rows, that it belongs to.

    Parameters
    ----------
    data : (..., n_rows, n_cols) float
    background : (..., n_rows, n_terms)
        From `measure_background`, cut to the same rows.

    Returns
    -------
    (..., n_rows, n_cols) of the dtype of `data`
        NaN where the background is unknown.
    """
    namespace(data, background)
    return data - evaluate_background(background, data.shape[-1]).astype(data.dtype, copy=False)


def _regions(params: BackgroundParams, n_cols: int) -> tuple[slice, slice]:
    for side in ("left", "right"):
        start = getattr(params, f"bkg_col_{side}_start")
        if start >= n_cols:
            raise ValueError(
                f"{params.step}.bkg_col_{side}_start: expected less than the number of columns "
                f"({n_cols}), got {start}"
            )
    return (
        slice(params.bkg_col_left_start, params.bkg_col_left_end),
        slice(params.bkg_col_right_start, params.bkg_col_right_end),
    )


def _gathered(frames: Array | None, left: slice, right: slice, *, xp) -> Array | None:
    """The columns of both regions side by side."""
    if frames is None:
        return None
    return xp.concatenate([frames[..., left], frames[..., right]], axis=-1)


def _variance_of_median(square, good, axes, *, xp) -> Array:
    """Variance of the median of good values with these variances; the axes are kept."""
    n = good.sum(axis=axes, keepdims=True)
    mean = square.sum(axis=axes, keepdims=True, dtype=xp.float64) / xp.where(n > 0, n, xp.nan)
    return mean * _share_of_median(n)


def _excess_by_spread(pixels, sigmas, good, *, xp) -> Array:
    """By how much more the median of a frame varies, since its pixels are spread out by themselves.

    Few of them are near the median then. Of normal values that vary by sigma about means which are
    spread out themselves, s in all, the variance of the median is
    (pi/2 - asin(1 - sigma^2 / s^2)) s^2 / n. How many are near says what s is.
    """
    whole = (*pixels.shape[:-2], -1)
    pixels, sigmas, good = (x.reshape(whole) for x in (pixels, sigmas, good))
    off_median = pixels - masked_median(pixels, good, axis=-1)[..., None]
    n_near = (good & (xp.abs(off_median) < 0.5 * sigmas)).sum(axis=-1)
    share = xp.maximum(n_near, 1) / xp.maximum(good.sum(axis=-1), 1)
    ratio = xp.maximum(_SHARE_WITHIN_HALF_SIGMA / share, 1.0) ** 2
    excess = (math.pi / 2 - xp.arcsin(1 - 1 / ratio)) * ratio / (math.pi / 2)
    return excess[..., None, None]


def _share_of_median(n):
    """Variance of a median of n normal values over that of one of them.

    That of their mean times pi / 2 where they are many, and 1 for a single one; off by 2 % between.
    """
    return (math.pi / 2) / (n - 1 + math.pi / 2)


def _middles(params: BackgroundParams) -> tuple[float, float]:
    """The regions' mid-columns."""
    left = (params.bkg_col_left_start + params.bkg_col_left_end) / 2
    right = (params.bkg_col_right_start + params.bkg_col_right_end) / 2
    if left == right:
        raise ValueError(
            f"{params.step}.bkg_col_right_start, bkg_col_right_end: expected a region with "
            f"another middle than the left one's ({left:g}) for col_wise"
        )
    return left, right


def _lines(left: Array, right: Array, params: BackgroundParams, *, xp) -> Array:
    """Value at column 0 and slope of the lines through the levels at the regions' mid-columns."""
    left_column, right_column = _middles(params)
    slope = (right - left) / (right_column - left_column)
    return xp.stack([left - slope * left_column, slope], axis=-1)


def _is_smoothed(params: BackgroundParams) -> bool:
    return params.smoothing_length is not None and params.method != "constant"


def _smooth(background: Array, params: BackgroundParams) -> Array:
    return moving_median(background, radius=_radius(params), axis=-2)


def _radius(params: BackgroundParams) -> int:
    return (params.smoothing_length - 1) // 2
