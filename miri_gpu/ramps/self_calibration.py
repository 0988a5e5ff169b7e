"""Measure the detector's non-linearity on the ramps of the observation itself."""

from dataclasses import dataclass
from typing import ClassVar

from miri_gpu.backend import namespace
from miri_gpu.containers import Array, ArrayBundle
from miri_gpu.detector import (
    AD_FLOOR,
    ATOD_LIMIT_DN,
    DO_NOT_USE,
    N_AMPLIFIERS,
    N_REFERENCE_COLS,
    SATURATED,
)
from miri_gpu.numerics import fit_polynomials, masked_median, solve_symmetric
from miri_gpu.parameters import Parameters, option

N_FREE = 3  # c2, c3, c4
_REJECTION_ROUNDS = 3
_SIGMA_OF_MAD = 1.4826  # of a normal distribution


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
        Ramps that took part, and ramps that were left out because they jump.
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
    one that makes whole ramps straightest, with a slope of 1 at 0 DN.

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
    fit_groups, derive_groups = _group_ranges(params, data.shape[1])
    if data.shape[-1] < params.columns.stop:
        raise ValueError(
            f"{params.step}.col_idx_end_used: expected at most the number of columns "
            f"({data.shape[-1]}), got {params.columns.stop}"
        )
    joint = params.linear_truth == "joint"
    if joint:
        if groupdq is None:
            groupdq = xp.zeros(data.shape, dtype=xp.uint8)
        data, groupdq = ramps_used(data, groupdq, params=params)
    good, measured = (
        xp.moveaxis(which[..., params.columns], 1, -1)
        for which in _usable(data, groupdq, params, xp=xp)
    )
    ramps = xp.moveaxis(data[..., params.columns], 1, -1).astype(xp.float64)
    group = xp.arange(data.shape[1])
    in_line = (group >= fit_groups.start) & (group < fit_groups.stop)
    in_fit = (group >= derive_groups.start) & (group < derive_groups.stop)
    if joint:
        in_line = in_fit
    line = fit_polynomials(ramps, good & in_line, 1)
    has_line = (good & in_line).sum(axis=-1, keepdims=True) >= 2
    whole = (ramps, line, good & has_line, measured & has_line)
    by_amplifier = []
    for columns in _columns_of_amplifiers(params.col_idx_start_used):
        own = (array[:, :, columns].reshape(-1, data.shape[1]) for array in whole)
        by_amplifier.append(_calibrate_amplifier(*own, in_line, in_fit, params, xp=xp))
    names = ("coefficients", "coefficients_err", "residual", "residual_err")
    results = {name: xp.stack([each[name] for each in by_amplifier], axis=-1) for name in names}
    for name in ("covariance", "n_ramps", "n_rejected"):
        results[name] = xp.stack([each[name] for each in by_amplifier])
    return LinearityCalibration(**results, in_fit=in_fit)


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


def ramps_used(
    data: Array, groupdq: Array, *, params: CustomLinearityParams
) -> tuple[Array, Array]:
    """What `calibrate_linearity` looks at of the ramps of some rows, so that only that is kept.

    Parameters
    ----------
    data, groupdq : as `calibrate_linearity` takes them

    Returns
    -------
    data, groupdq : all of it; for `linear_truth = "joint"` the median ramp of each pixel, as a
        single integration, in float64
    """
    xp = namespace(data, groupdq)
    if params.linear_truth != "joint":
        return data.copy(), groupdq.copy()
    data, groupdq = xp.ascontiguousarray(data), xp.ascontiguousarray(groupdq)
    # noise in a ramp bends it and its powers alike, and would be calibrated away
    good, measured = _usable(data, groupdq, params, xp=xp)
    typical = masked_median(data.astype(xp.float64), measured, axis=0)
    flags = xp.where(good.any(axis=0), xp.uint8(0), xp.uint8(DO_NOT_USE))
    return typical[None], flags[None]


def _usable(
    data: Array, groupdq: Array | None, params: CustomLinearityParams, *, xp
) -> tuple[Array, Array]:
    """Samples that may enter the fit, and samples that have a residual: two bool arrays."""
    finite = xp.isfinite(data)
    if groupdq is None:
        return finite, finite
    good = finite & ((groupdq & (DO_NOT_USE | SATURATED)) == 0)
    own = groupdq[..., params.columns]
    dropped = ((own & DO_NOT_USE) != 0).all(axis=(0, 2, 3))[:, None, None]
    return good, good | (finite & dropped & ((groupdq & (SATURATED | AD_FLOOR)) == 0))


def _columns_of_amplifiers(first_column: int) -> list[slice]:
    """Places, among the columns used, of those that each amplifier reads."""
    first = [(k - first_column) % N_AMPLIFIERS for k in range(N_AMPLIFIERS)]
    return [slice(place, None, N_AMPLIFIERS) for place in first]


def _calibrate_amplifier(ramps, line, good, measured, in_line, in_fit, params, *, xp) -> dict:
    """The attributes of LinearityCalibration for one amplifier; ramps are (n_ramps, n_groups)."""
    scaled = xp.where(measured, ramps, 0.0) / ATOD_LIMIT_DN  # so that its powers stay comparable
    exponents = range(2, params.highest_power + 1)
    powers = [scaled**k for k in exponents]
    if (
        params.linear_truth == "joint"
    ):  # a free line for each ramp: only what no line can take up counts
        powers = [p - fit_polynomials(p, good & in_line, 1) for p in powers]
    missing = xp.where(measured, line - ramps, 0.0)
    has_samples = (good & in_fit).any(axis=-1)
    kept = has_samples
    free, inverse, residual = _least_squares(powers, missing, good & in_fit, xp=xp)
    for _ in range(0 if params.rejection_threshold is None else _REJECTION_ROUNDS):
        judged = good & (in_line | in_fit)
        kept = has_samples & ~_jump(residual, judged, params.rejection_threshold, xp=xp)
        used = good & in_fit & kept[:, None]
        free, inverse, residual = _least_squares(powers, missing, used, xp=xp)

    used = good & in_fit & kept[:, None]
    scale = xp.asarray([ATOD_LIMIT_DN**-k for k in exponents])
    n_free = len(exponents)
    covariance = xp.zeros((N_FREE, N_FREE))
    covariance[:n_free, :n_free] = (
        _covariance(powers, xp.where(used, residual, 0.0), inverse, kept.sum(), xp=xp)
        * scale[:, None]
        * scale
    )
    variance = xp.stack([covariance[k, k] for k in range(N_FREE)])
    absent = 0.0 * (free[:1] + xp.zeros(N_FREE - n_free))
    unknown = xp.isnan(free[:1])
    fixed = xp.where(unknown, xp.nan, xp.asarray([0.0, 1.0]))
    mean, mean_err = _means(residual, measured & kept[:, None], xp=xp)
    return {
        "coefficients": xp.concatenate([fixed, free * scale, absent]),
        "coefficients_err": xp.concatenate([0.0 * fixed, xp.sqrt(variance)]),
        "covariance": covariance,
        "residual": mean,
        "residual_err": mean_err,
        "n_ramps": kept.sum(),
        "n_rejected": (has_samples & ~kept).sum(),
    }


def _least_squares(powers, missing, used, *, xp):
    """Coefficients of the powers, the inverse of the normal matrix, and what is left everywhere."""
    terms = [xp.where(used, power, 0.0) for power in powers]
    normal = xp.stack([xp.stack([(a * b).sum() for b in terms]) for a in terms])
    free = solve_symmetric(normal, xp.stack([(a * missing).sum() for a in terms]))
    n = len(powers)
    inverse = solve_symmetric(xp.broadcast_to(normal, (n, n, n)), xp.eye(n))
    fitted = sum(free[k] * power for k, power in enumerate(powers))
    return free, inverse, fitted - missing


def _covariance(powers, residual, inverse, n_ramps, *, xp) -> Array:
    """Covariance (3, 3) of the coefficients of the powers, each ramp a cluster."""
    score = xp.stack([(power * residual).sum(axis=-1) for power in powers], axis=-1)
    scatter = (score[:, :, None] * score[:, None, :]).sum(axis=0)
    known = n_ramps > len(powers)
    few = n_ramps / xp.where(known, n_ramps - 1, 1)
    return xp.where(known, few * (inverse @ scatter @ inverse), xp.nan)


def _jump(residual, good, threshold, *, xp) -> Array:
    """Ramps one of whose steps from group to group is unlike the others, (n_ramps,) bool."""
    step, known = residual[:, 1:] - residual[:, :-1], good[:, 1:] & good[:, :-1]
    deviation = xp.abs(step - masked_median(step, known, axis=-1)[:, None])
    sigma = _SIGMA_OF_MAD * masked_median(deviation, known, axis=-1)
    return (known & (deviation > threshold * sigma[:, None])).any(axis=-1)


def _means(values, known, *, xp) -> tuple[Array, Array]:
    """Mean of each column over its known values and its standard error; NaN where unknown."""
    n = known.sum(axis=0)
    total = xp.where(known, values, 0.0).sum(axis=0)
    mean = xp.where(n > 0, total / xp.maximum(n, 1), xp.nan)
    square = xp.where(known, (values - mean) ** 2, 0.0).sum(axis=0)
    return mean, xp.sqrt(xp.where(n > 1, square / xp.maximum(n * (n - 1), 1), xp.nan))
