"""Measure the detector's non-linearity on the ramps of the observation itself."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from miri_gpu.backend import namespace
from miri_gpu.containers import Array, ArrayBundle
from miri_gpu.detector import (
    ATOD_LIMIT_DN,
    DO_NOT_USE,
    N_AMPLIFIERS,
    N_REFERENCE_COLS,
)
from miri_gpu.numerics import masked_median
from miri_gpu.parameters import Parameters, option
from miri_gpu.ramps.linearity_fit import (
    AmplifierFit,
    Question,
    dropped_groups,
    fit_linearity,
    usable_samples,
)

N_FREE = 3  # c2, c3, c4
_RAMPS_AT_ONCE = 1 << 14  # whatever the memory: sums do not depend on it then


@dataclass(frozen=True, kw_only=True)
class CustomLinearityParams(Parameters):
    """Which part of the ramps is taken as linear, and which is calibrated."""

    step: ClassVar[str] = "custom_linearity"

    linear_truth: str = option(
        "fit_groups",
        "fit_groups: the line through the first part of each ramp, though it is bent itself; "
        "joint: a line for each ramp, fitted together with the polynomials to the calibrated part",
        choices=("fit_groups", "joint"),
    )
    group_idx_start_fit: int = option(10, "first group of the part taken as linear", unit="group")
    group_idx_end_fit: int = option(
        40, "end of the part taken as linear, itself not in it", unit="group"
    )
    group_idx_start_derive: int = option(
        10, "first group of the part that is calibrated", unit="group"
    )
    group_idx_end_derive: int = option(
        -1, "end of the part that is calibrated, itself not in it; -1 leaves out the last group",
        unit="group",
    )  # fmt: skip
    row_idx_start_used: int = option(350, "first row used", unit="row")
    row_idx_end_used: int = option(386, "end of the rows used, itself not in it", unit="row")
    col_idx_start_used: int = option(34, "first column used", unit="column", at_least=0)
    col_idx_end_used: int = option(39, "end of the columns used, itself not in it", unit="column")
    highest_power: int = option(
        4, "power of the polynomials' last term; the terms above 2 are hardly determined by "
        "linear_truth = joint", at_least=2, at_most=4,
    )  # fmt: skip
    rejection_threshold: float | None = option(
        None, "leave out ramps that jump by more than this from one group to the next; nothing "
        "keeps all", unit="sigma", above=0,
    )  # fmt: skip

    def __post_init__(self):
        super().__post_init__()
        if self.col_idx_end_used - self.col_idx_start_used < N_AMPLIFIERS:
            raise ValueError(
                f"{self.step}.col_idx_end_used: expected at least col_idx_start_used "
                f"({self.col_idx_start_used}) + {N_AMPLIFIERS}, a column of each amplifier, "
                f"got {self.col_idx_end_used}"
            )

    @property
    def columns(self) -> slice:
        """The columns used."""
        return slice(self.col_idx_start_used, self.col_idx_end_used)


@dataclass(frozen=True, eq=False, kw_only=True)
class LinearityCalibration(ArrayBundle):
    """The non-linearity of each amplifier, how well it is known, and what it leaves.

    Attributes
    ----------
    coefficients : (5, n_amplifiers) float64
        c0 .. c4 of F = sum of c_k [DN^(1 - k)] x DN^k; c0 = 0, c1 = 1. NaN where an amplifier's
        samples do not determine them.
    coefficients_err : (5, n_amplifiers) float64
        Their standard deviations; 0 for the fixed ones, NaN where they are not known.
    covariance : (n_amplifiers, 3, 3) float64
        Of c2, c3 and c4, which are strongly correlated; 0 beyond `highest_power`.
    residual, residual_err : (n_groups, n_amplifiers) float64 [DN]
        Mean over the ramps of F - (the straight line), in every group, also in those that took no
        part in the fit; and its standard error. NaN where a group has no samples.
    in_fit : (n_groups,) bool
        Groups whose samples the polynomials were fitted to.
    n_ramps, n_rejected : (n_amplifiers,) int64
        Ramps that took part (median ones of pixels by `joint`), and ramps that were left out
        because they jump.
    """

    coefficients: Array
    coefficients_err: Array
    covariance: Array
    residual: Array
    residual_err: Array
    in_fit: Array
    n_ramps: Array
    n_rejected: Array


def calibrate_linearity(
    data: Array, groupdq: Array | None = None, *, params: CustomLinearityParams | None = None
) -> LinearityCalibration:
    """Fit, for each amplifier, the polynomial that makes ramps as straight as their first part.

    Parameters
    ----------
    data : (n_ints, n_groups, n_rows_used, n_cols) float [DN]
        The rows `row_idx_start_used : row_idx_end_used` of the ramps, before any linearity
        correction; all columns.
    groupdq : (n_ints, n_groups, n_rows_used, n_cols) uint8, or None
        Samples flagged DO_NOT_USE or SATURATED take no part, nor do NaN. Groups that are
        DO_NOT_USE everywhere (dropped groups) take no part in the fit but have a residual.
    params : CustomLinearityParams

    Returns
    -------
    LinearityCalibration

    Raises
    ------
    ValueError
        Where the ranges of groups hold fewer than 2 (fit) or no groups (derive), or the data lack
        the columns of the trace.

    Notes
    -----
    ExoTiC-MIRI's SetCustomLinearityStep: a straight line through the "fit" groups of each ramp is
    the truth F for its "derive" groups; then least squares in F - DN for c2, c3 and c4.

    That line is bent itself, the more so the brighter the pixel, and a bent truth makes the depth
    of a transit too shallow. With `linear_truth = "joint"` no part of a ramp is taken as linear:
    the least squares have a free line for each pixel's median ramp, so that the polynomial is the
    one that makes whole ramps straightest, with a slope of 1 at 0 DN. Noise bends a ramp and its
    square alike, so each pixel has two median ramps, of every other integration, and each of them
    is compared with the square of the other's line.

    Beyond it: the covariance allows for errors that all samples of a ramp share, of its line and of
    the photons it gathered (the sandwich of White 1980, Econometrica 48, 817, with each ramp a
    cluster). One from the residual variance alone would take each sample for independent, and give
    errors that are several times too small. Not in it are errors that ramps share.

    With `rejection_threshold`, a ramp is left out where the step of its residual from one group to
    the next is farther than so many sigma (1.4826 MAD of the ramp's own steps) from their median:
    a cosmic ray bends the line, so that none of the ramp can be trusted.
    """
    xp = namespace(data, groupdq)
    params = CustomLinearityParams() if params is None else params
    if data.shape[-1] < params.columns.stop:
        raise ValueError(
            f"{params.step}.col_idx_end_used: expected at most the number of columns "
            f"({data.shape[-1]}), got {params.columns.stop}"
        )
    if groupdq is None:
        groupdq = xp.zeros(data.shape, dtype=xp.uint8)
    used = (array[..., params.columns] for array in (data, groupdq))
    kept = ramps_used(*used, params=params)
    return calibrate_kept(
        lambda ints: tuple(array[ints] for array in kept), kept[0].shape, params=params, xp=xp
    )


def ramps_used(
    data: Array, groupdq: Array, *, params: CustomLinearityParams
) -> tuple[Array, Array]:
    """What `calibrate_linearity` looks at of the ramps of some rows, so that only that is kept.

    Parameters
    ----------
    data, groupdq : as `calibrate_linearity` takes them, but only the columns used

    Returns
    -------
    data, groupdq : of type and size as `kept_as` says
        All of it; for `linear_truth = "joint"` the median ramp of each pixel in every other
        integration, and in those between.
    """
    xp = namespace(data, groupdq)
    if params.linear_truth != "joint":
        return data, groupdq
    good, measured = usable_samples(data, groupdq, dropped_groups(groupdq), xp=xp)
    n_halves, dtype = kept_as(data.shape[0], params=params)
    halves = [slice(k, None, n_halves) for k in range(n_halves)]
    typical = [masked_median(data[half].astype(dtype), measured[half], axis=0) for half in halves]
    is_good = xp.stack([good[half].any(axis=0) for half in halves])
    return xp.stack(typical), xp.where(is_good, xp.uint8(0), xp.uint8(DO_NOT_USE))


def kept_as(n_ints: int, *, params: CustomLinearityParams) -> tuple[int, type]:
    """How many ramps of each pixel `ramps_used` gives of so many, and in which type."""
    return (min(n_ints, 2), np.float64) if params.linear_truth == "joint" else (n_ints, np.float32)


def calibrate_kept(
    take: Callable[[slice], tuple[Array, Array]],
    shape: tuple[int, ...],
    *,
    params: CustomLinearityParams,
    xp,
) -> LinearityCalibration:
    """The same as `calibrate_linearity`, of what `ramps_used` gave, wherever that is kept.

    Parameters
    ----------
    take : function of successive integrations
        Gives their data and groupdq; called for all of them, several times.
    shape : (n_ints, n_groups, n_rows_used, n_cols_used) of all
    params : CustomLinearityParams
    xp : module that the arrays belong to
    """
    fit_groups, derive_groups = _group_ranges(params, shape[1])
    is_joint = params.linear_truth == "joint"
    n_at_once = shape[0] if is_joint else max(1, _RAMPS_AT_ONCE // math.prod(shape[2:]))
    blocks = [slice(i, i + n_at_once) for i in range(0, shape[0], n_at_once)]
    group = xp.arange(shape[1])
    in_fit = (group >= derive_groups.start) & (group < derive_groups.stop)
    in_line = (group >= fit_groups.start) & (group < fit_groups.stop)
    question = Question(
        in_line=in_fit if is_joint else in_line,
        in_fit=in_fit,
        first_column=params.col_idx_start_used,
        highest_power=params.highest_power,
        lines_are_free=is_joint,
        rejection_threshold=params.rejection_threshold,
    )
    return _calibration(fit_linearity(lambda: map(take, blocks), question), in_fit)


def expand_linearity(coefficients: Array, n_rows: int, n_cols: int) -> Array:
    """Spread coefficients of the amplifiers over the pixels.

    Parameters
    ----------
    coefficients : (n_coeffs, n_amplifiers) float
    n_rows, n_cols : int

    Returns
    -------
    (n_coeffs, n_rows, n_cols) float32
        All 0 in the reference columns: a linear term of 0 leaves a pixel uncorrected.
    """
    xp = namespace(coefficients)
    column = xp.arange(n_cols)
    by_column = coefficients.astype(xp.float32)[:, column % N_AMPLIFIERS]
    by_column = xp.where(column < N_REFERENCE_COLS, xp.float32(0), by_column)
    return xp.ascontiguousarray(
        xp.broadcast_to(by_column[:, None], (coefficients.shape[0], n_rows, n_cols))
    )


def _group_ranges(params: CustomLinearityParams, n_groups: int) -> tuple[slice, slice]:
    """The ranges of groups with negative indices resolved."""
    ranges = []
    for name, n_needed in (("fit", 2), ("derive", 1)):
        start, end = (getattr(params, f"group_idx_{edge}_{name}") for edge in ("start", "end"))
        first, stop, _ = slice(start, end).indices(n_groups)
        if stop - first < n_needed:
            raise ValueError(
                f"{params.step}.group_idx_start_{name}, group_idx_end_{name}: expected a range of "
                f"at least {n_needed} of the {n_groups} groups, got {start}:{end}"
            )
        ranges.append(slice(first, stop))
    return ranges[0], ranges[1]


def _calibration(found: list[AmplifierFit], in_fit: Array) -> LinearityCalibration:
    """All amplifiers together, in DN, with the terms that are fixed or left out."""
    xp, n_free = namespace(in_fit), found[0].free.size
    scale = xp.asarray([ATOD_LIMIT_DN**-k for k in range(2, 2 + n_free)])
    coefficients = xp.zeros((2 + N_FREE, len(found)))
    coefficients[1] = 1.0
    covariance = xp.zeros((len(found), N_FREE, N_FREE))
    for k, fit in enumerate(found):
        coefficients[2 : 2 + n_free, k] = fit.free * scale
        coefficients[:, k] += 0.0 * fit.free[0]  # unknown as a whole
        covariance[k, :n_free, :n_free] = fit.covariance * scale[:, None] * scale
    variance = xp.stack([covariance[:, k, k] for k in range(N_FREE)])
    fixed = 0.0 * coefficients[:2]
    return LinearityCalibration(
        coefficients=coefficients,
        coefficients_err=xp.concatenate([fixed, xp.sqrt(variance)]),
        covariance=covariance,
        residual=xp.stack([fit.residual for fit in found], axis=-1),
        residual_err=xp.stack([fit.residual_err for fit in found], axis=-1),
        in_fit=in_fit,
        n_ramps=xp.stack([fit.n_ramps for fit in found]),
        n_rejected=xp.stack([fit.n_rejected for fit in found]),
    )
