"""The least squares of self-calibration, added up over blocks of ramps.

Ramps are walked over several times and are never there all at once: there may be any number.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass

from miri_gpu.backend import namespace
from miri_gpu.containers import Array
from miri_gpu.detector import AD_FLOOR, ATOD_LIMIT_DN, DO_NOT_USE, N_AMPLIFIERS, SATURATED
from miri_gpu.numerics import fit_polynomials, masked_median, solve_small

_REJECTION_ROUNDS = 3
_SIGMA_OF_MAD = 1.4826  # of a normal distribution
_LEAST_FREEDOM = 0.05  # that is left to a ramp which determines a solution by itself


@dataclass(frozen=True, eq=False, kw_only=True)
class Question:
    """What is to be fitted.

    Attributes
    ----------
    in_line, in_fit : (n_groups,) bool
        Groups through which each ramp's straight line goes, and those that the polynomials make
        straight.
    first_column : int
        Of the detector, that the first column of the ramps is.
    highest_power : int
        Of the polynomials.
    lines_are_free : bool
        Whether each ramp's line is fitted together with the polynomials. Integrations are then
        halves of the observation, whose ramps are the same but for their noise.
    rejection_threshold : float or None
        Ramps that jump by more than this are left out [sigma].
    """

    in_line: Array
    in_fit: Array
    first_column: int
    highest_power: int
    lines_are_free: bool
    rejection_threshold: float | None


@dataclass(frozen=True, eq=False, kw_only=True)
class AmplifierFit:
    """What the ramps of one amplifier say, with samples in units of ATOD_LIMIT_DN.

    Attributes
    ----------
    free : (n_free,) float64
        Coefficients of the powers from 2 on; NaN where the ramps do not determine them.
    covariance : (n_free, n_free) float64
        Each ramp is a cluster.
    n_ramps, n_rejected : () int64
    residual, residual_err : (n_groups,) float64 [DN]
        Mean of what is left, and its standard error.
    """

    free: Array
    covariance: Array
    n_ramps: Array
    n_rejected: Array
    residual: Array
    residual_err: Array


def fit_linearity(
    walk: Callable[[], Iterable[tuple[Array, Array]]], question: Question
) -> list[AmplifierFit]:
    """Fit the polynomials of each amplifier.

    Parameters
    ----------
    walk : function
        Gives blocks of data and groupdq, (n_ints, n_groups, n_rows, n_cols), anew at each call.
    question : Question
    """
    dropped, n_blocks = None, 0
    for _, groupdq in walk():
        here = dropped_groups(groupdq)
        dropped = here if dropped is None else dropped & here
        n_blocks += 1

    def anew() -> Iterator[list[_Ramps]]:
        return (_by_amplifier(*block, dropped, question) for block in walk())

    single = list(anew()) if n_blocks == 1 else None

    def ramps() -> Iterable[list[_Ramps]]:
        return anew() if single is None else single

    judges: Sequence[Array | None] = [None] * N_AMPLIFIERS
    solutions = _solve(ramps, judges)
    for _ in range(0 if question.rejection_threshold is None else _REJECTION_ROUNDS):
        judges = [free for free, _ in solutions]
        solutions = _solve(ramps, judges)
    totals = _added(
        [r.totals(judge, *found) for r, judge, found in zip(block, judges, solutions, strict=True)]
        for block in ramps()
    )
    return [_concluded(*found) for found in zip(solutions, totals, strict=True)]


def dropped_groups(groupdq: Array) -> Array:
    """Groups that are DO_NOT_USE in all integrations and pixels, (n_groups,) bool."""
    return ((groupdq & DO_NOT_USE) != 0).all(axis=(0, 2, 3))


def usable_samples(data: Array, groupdq: Array, dropped: Array, *, xp) -> tuple[Array, Array]:
    """Samples that may enter the fit, and samples that have a residual: two bool arrays."""
    finite = xp.isfinite(data)
    good = finite & ((groupdq & (DO_NOT_USE | SATURATED)) == 0)
    own = dropped[:, None, None] & ((groupdq & (SATURATED | AD_FLOOR)) == 0)
    return good, good | (finite & own)


@dataclass(frozen=True, eq=False)
class _Ramps:
    """Ramps that one amplifier has read, each in one or in two halves.

    Noise in a ramp bends it and its powers alike, and would be calibrated away. That of the other
    half is not in them, and most of it not in its line: powers of that stand in for a half's own
    where two things are multiplied (instrumental variables: Fuller 1987, Measurement Error Models,
    1.4).

    Attributes
    ----------
    powers : list of (n_halves, n_ramps, n_groups) float64
        From the second on; where lines are free, without what these can take up.
    instruments : list of (n_halves, n_ramps, n_groups) float64
        Where lines are free the same of the other half's line, else the powers themselves.
    missing : (n_halves, n_ramps, n_groups) float64 [DN]
        What the powers are to make up for: the straight line minus the ramp.
    good, measured : (n_ramps, n_groups) bool
        As `usable_samples` has them, in all halves, of ramps that have a line.
    question : Question
    """

    powers: list[Array]
    instruments: list[Array]
    missing: Array
    good: Array
    measured: Array
    question: Question

    def residuals(self, free: Array) -> Array:
        """What is left of the halves, (n_halves, n_ramps, n_groups) [DN]."""
        return sum(free[k] * power for k, power in enumerate(self.powers)) - self.missing

    def fitted(self, judge: Array | None) -> tuple[Array, Array]:
        """Ramps with samples to be fitted, and which of them do not jump by a solution."""
        question, xp = self.question, namespace(self.missing)
        fitted = (self.good & question.in_fit).any(axis=-1)
        if judge is None:
            return fitted, fitted
        judged = self.good & (question.in_line | question.in_fit)
        residual = self.residuals(judge).mean(axis=0)
        jumps = _jump(residual, judged, question.rejection_threshold, xp=xp)
        return fitted, fitted & ~jumps

    def equations(self, judge: Array | None) -> tuple[Array]:
        """Normal matrix and right side, (n_free, n_free + 1)."""
        xp = namespace(self.missing)
        _, kept = self.fitted(judge)
        used = self.good & self.question.in_fit & kept[:, None]
        terms = [xp.where(used, power, 0.0) for power in self.instruments]
        rows = [[(a * b).sum() for b in (*self.powers, self.missing)] for a in terms]
        return (xp.stack([xp.stack(row) for row in rows]),)

    def totals(self, judge: Array | None, free: Array, inverse: Array) -> tuple[Array, ...]:
        """Scatter of the scores, numbers of ramps kept and rejected; of each group the number of
        residuals, their sum and the sum of their squares.

        A ramp that has pulled the solution towards itself has a score that is too small for it.
        """
        xp, residuals = namespace(self.missing), self.residuals(free)
        fitted, kept = self.fitted(judge)
        used = self.good & self.question.in_fit & kept[:, None]
        in_fit = xp.where(used, residuals, 0.0)
        score = xp.stack([(z * in_fit).sum(axis=(0, -1)) for z in self.instruments], axis=-1)
        weighed = [
            sum(inverse[k, j] * p for k, p in enumerate(self.powers)) for j in range(free.size)
        ]
        pairs = zip(self.instruments, weighed, strict=True)
        leverage = sum(xp.where(used, z * w, 0.0).sum(axis=(0, -1)) for z, w in pairs)
        score = score / xp.maximum(1 - leverage, _LEAST_FREEDOM)[:, None]
        known = self.measured & kept[:, None]
        residual = xp.where(known, residuals.mean(axis=0), 0.0)
        return (
            (score[:, :, None] * score[:, None, :]).sum(axis=0),
            kept.sum(),
            (fitted & ~kept).sum(),
            known.sum(axis=0),
            residual.sum(axis=0),
            (residual * residual).sum(axis=0),
        )


def _by_amplifier(data: Array, groupdq: Array, dropped: Array, question: Question) -> list[_Ramps]:
    """The ramps of a block, by the amplifier that has read them."""
    xp, n_groups, n_cols = namespace(data, groupdq), data.shape[1], data.shape[3]
    n_halves = data.shape[0] if question.lines_are_free else 1

    def ramps_of(cube: Array) -> Array:
        return xp.moveaxis(cube, 1, -1).reshape(n_halves, -1, n_cols, n_groups)

    usable = usable_samples(data, groupdq, dropped, xp=xp)
    good, measured = (ramps_of(which).all(axis=0) for which in usable)
    ramps = ramps_of(data).astype(xp.float64)
    in_line = good & question.in_line
    line = fit_polynomials(ramps, in_line, 1)
    has_line = in_line.sum(axis=-1, keepdims=True) >= 2
    whole = (ramps, line, good & has_line, measured & has_line)
    by_amplifier = []
    for amplifier in range(N_AMPLIFIERS):
        first = (amplifier - question.first_column) % N_AMPLIFIERS
        own = (array[..., first::N_AMPLIFIERS, :] for array in whole)
        flat = (array.reshape(*array.shape[:-3], -1, n_groups) for array in own)
        by_amplifier.append(_ramps_of(*flat, question, xp=xp))
    return by_amplifier


def _ramps_of(ramps, line, good, measured, question, *, xp) -> _Ramps:
    weight = (good & question.in_line).astype(xp.float64)

    def powers_of(samples: Array) -> list[Array]:
        scaled = samples / ATOD_LIMIT_DN  # so that its powers stay comparable
        powers = [scaled**k for k in range(2, question.highest_power + 1)]
        if question.lines_are_free:  # only what no line can take up counts
            powers = [_without_lines(power, weight, xp=xp) for power in powers]
        return powers

    powers = powers_of(xp.where(measured, ramps, 0.0))
    instruments = powers_of(line[::-1]) if question.lines_are_free else powers
    missing = xp.where(measured, line - ramps, 0.0)
    return _Ramps(powers, instruments, missing, good, measured, question)


def _without_lines(curves: Array, weight: Array, *, xp) -> Array:
    """Curves (n_halves, n_ramps, n_groups) less their lines; of all halves with one weight."""
    n = xp.maximum(weight.sum(axis=-1, keepdims=True), 1)
    time = xp.arange(weight.shape[-1], dtype=xp.float64)
    time = time - (weight * time).sum(axis=-1, keepdims=True) / n
    lever = weight * time
    squares = (lever * time).sum(axis=-1, keepdims=True)
    slope = (lever * curves).sum(axis=-1, keepdims=True) / xp.where(squares > 0, squares, 1)
    level = (weight * curves).sum(axis=-1, keepdims=True) / n
    return curves - level - slope * time


def _added(blocks: Iterable[Sequence[tuple[Array, ...]]]) -> list[tuple[Array, ...]]:
    """Add up what belongs to each amplifier, one thing at a time, over blocks."""
    total = None
    for block in blocks:
        if total is None:
            total = list(block)
        else:
            pairs = (zip(a, b, strict=True) for a, b in zip(total, block, strict=True))
            total = [tuple(a + b for a, b in pair) for pair in pairs]
    return total


def _solve(ramps, judges) -> list[tuple[Array, Array]]:
    """Coefficients of the powers, and the inverse of the normal matrix, of each amplifier."""
    solutions = []
    for (equations,) in _added(
        [r.equations(judge) for r, judge in zip(block, judges, strict=True)] for block in ramps()
    ):
        xp, n = namespace(equations), equations.shape[0]
        normal, right = equations[:, :n], equations[:, n]
        inverse = solve_small(xp.broadcast_to(normal, (n, n, n)), xp.eye(n)).T
        solutions.append((solve_small(normal, right), inverse))
    return solutions


def _concluded(solution, totals) -> AmplifierFit:
    """The covariance is the sandwich of White (1980), with each ramp a cluster, and leverages taken
    out as of a jackknife (MacKinnon & White 1985, J. Econometrics 29, 305)."""
    free, inverse = solution
    scatter, n_ramps, n_rejected, n, total, squares = totals
    xp = namespace(free)
    known = n_ramps > free.size
    mean = xp.where(n > 0, total / xp.maximum(n, 1), xp.nan)
    square = xp.maximum(squares - total * total / xp.maximum(n, 1), 0.0)
    return AmplifierFit(
        free=free,
        covariance=xp.where(known, inverse @ scatter @ inverse.T, xp.nan),
        n_ramps=n_ramps,
        n_rejected=n_rejected,
        residual=mean,
        residual_err=xp.sqrt(xp.where(n > 1, square / xp.maximum(n * (n - 1), 1), xp.nan)),
    )


def _jump(residual, good, threshold, *, xp) -> Array:
    """Ramps one of whose steps from group to group is unlike the others, (n_ramps,) bool."""
    step, known = residual[:, 1:] - residual[:, :-1], good[:, 1:] & good[:, :-1]
    deviation = xp.abs(step - masked_median(step, known, axis=-1)[:, None])
    sigma = _SIGMA_OF_MAD * masked_median(deviation, known, axis=-1)
    return (known & (deviation > threshold * sigma[:, None])).any(axis=-1)
