"""Measure the detector's non-linearity on the ramps of the observation itself."""

from dataclasses import dataclass
from typing import ClassVar

from miri_gpu.backend import namespace
from miri_gpu.containers import Array
from miri_gpu.detector import (
    ATOD_LIMIT_DN,
    DO_NOT_USE,
    N_AMPLIFIERS,
    N_REFERENCE_COLS,
    SATURATED,
)
from miri_gpu.numerics import fit_polynomials, solve_symmetric
from miri_gpu.parameters import Parameters, option

TRACE_COLUMNS = slice(34, 39)  # bright enough to reach the non-linear part of the ramp
N_COEFFICIENTS = 5  # c0 .. c4, of which c0 = 0 and c1 = 1 are fixed


@dataclass(frozen=True, kw_only=True)
class CustomLinearityParams(Parameters):
    """Which part of the ramps is taken as linear, and which is calibrated."""

    step: ClassVar[str] = "custom_linearity"

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


def calibrate_linearity(
    data: Array, groupdq: Array | None = None, *, params: CustomLinearityParams | None = None
) -> Array:
    """Fit, for each amplifier, the polynomial that makes ramps as straight as their first part.

    Parameters
    ----------
    data : (n_ints, n_groups, n_rows_used, n_cols) float [DN]
        The rows `row_idx_start_used : row_idx_end_used` of the ramps, before any linearity
        correction; all columns.
    groupdq : (n_ints, n_groups, n_rows_used, n_cols) uint8, or None
        Samples flagged DO_NOT_USE or SATURATED take no part, nor do NaN.
    params : CustomLinearityParams

    Returns
    -------
    (5, n_amplifiers) float64
        c0 .. c4 of F = sum of c_k [DN^(1 - k)] x DN^k; c0 = 0, c1 = 1. NaN where an amplifier's
        samples do not determine them.

    Raises
    ------
    ValueError
        Where the ranges of groups hold fewer than 2 (fit) or no groups (derive), or the data lack
        the columns of the trace.

    Notes
    -----
    ExoTiC-MIRI's SetCustomLinearityStep: a straight line through the "fit" groups of each ramp is
    the truth F for its "derive" groups; then least squares in F - DN for c2, c3 and c4.
    """
    xp = namespace(data, groupdq)
    params = CustomLinearityParams() if params is None else params
    fit_groups, derive_groups = _group_ranges(params, data.shape[1])
    if data.shape[-1] < TRACE_COLUMNS.stop:
        raise ValueError(
            f"data: expected at least {TRACE_COLUMNS.stop} columns, got {data.shape[-1]}"
        )
    ramps = xp.moveaxis(data[..., TRACE_COLUMNS], 1, -1).astype(xp.float64)
    good = xp.isfinite(ramps)
    if groupdq is not None:
        unusable = xp.moveaxis(groupdq[..., TRACE_COLUMNS], 1, -1) & (DO_NOT_USE | SATURATED)
        good = good & (unusable == 0)

    group = xp.arange(data.shape[1])
    in_fit = (group >= fit_groups.start) & (group < fit_groups.stop)
    fitted = good & in_fit
    truth = fit_polynomials(ramps, fitted, 1)[..., derive_groups]
    usable = good[..., derive_groups] & (fitted.sum(axis=-1, keepdims=True) >= 2)
    return _coefficients(ramps[..., derive_groups], truth, usable, xp=xp)


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


def _coefficients(ramps: Array, truth: Array, usable: Array, *, xp) -> Array:
    """Least squares for c2, c3, c4 of each amplifier, over all its samples."""
    columns = range(TRACE_COLUMNS.start, TRACE_COLUMNS.stop)
    missing = xp.where(usable, truth - ramps, 0.0)
    scaled = xp.where(usable, ramps, 0.0) / ATOD_LIMIT_DN  # so that its powers stay comparable
    powers = [scaled**k for k in range(2, N_COEFFICIENTS)]
    by_amplifier = []
    for amplifier in range(N_AMPLIFIERS):
        own = [i for i, column in enumerate(columns) if column % N_AMPLIFIERS == amplifier]
        columns_own = slice(own[0], None, N_AMPLIFIERS)
        terms = [power[..., columns_own, :] for power in powers]
        target = missing[..., columns_own, :]
        normal = xp.stack([xp.stack([(a * b).sum() for b in terms]) for a in terms])
        solution = solve_symmetric(normal, xp.stack([(a * target).sum() for a in terms]))
        scale = xp.asarray([ATOD_LIMIT_DN**-k for k in range(2, N_COEFFICIENTS)])
        by_amplifier.append(solution * scale)
    free = xp.stack(by_amplifier, axis=-1)
    fixed = xp.where(xp.isnan(free[:1]), xp.nan, xp.asarray([[0.0], [1.0]]))
    return xp.concatenate([fixed, free])
