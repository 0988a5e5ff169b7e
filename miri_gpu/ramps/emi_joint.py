"""Fit phase and amplitude of a known wave together with a straight line in every ramp.

Of all ramps that see the wave at the same phase only the sum is needed. With r the sum less its
best line, z the wave less its own, and n the number of ramps, an amplitude c changes chi-square by
a c^2 + b c, with a = sum n z^2 and b = -2 sum r z; so c = -b / (2 a) is the best one.
"""

from miri_gpu.backend import namespace
from miri_gpu.containers import Array
from miri_gpu.ramps.emi_phase_sums import PhaseSums, without_lines
from miri_gpu.ramps.emi_waves import Clock, EmiWave, Spline, SplineWave

N_TRIALS = 500  # phases at which chi-square is computed
_NOTHING = 1e-8  # an `a` below it says nothing about the amplitude


def fit_wave(
    sums: PhaseSums,
    wave: EmiWave,
    clock: Clock,
    integration: Array,
    *,
    separately: bool,
    free_levels: bool,
) -> SplineWave:
    """Fit phase and amplitude of a wave: one of each for all integrations, or for each its own.

    Parameters
    ----------
    sums : PhaseSums
    wave : EmiWave
    clock : Clock
    integration : (n_ints,) int64
        Place of each integration; the wave runs on from one to the next.
    separately : bool
        Fit every integration by itself.
    free_levels : bool
        Let each group lie higher or lower as a whole, as the first and last ones do. The STScI step
        does not, and takes part of that for a slow wave.

    Returns
    -------
    SplineWave
        Amplitude 0 where there is nothing to fit.

    Notes
    -----
    The joint algorithm of the STScI pipeline's emicorr step: chi-square is computed at 500 phases
    and the best one is found by a parabola. Unlike there the parabola is right also where the best
    phase is beside 0, and a NaN pixel does not spoil the others.
    """
    xp = namespace(sums.data)
    curvature, gradient = _chi_square_terms(sums, wave, clock, free_levels, xp=xp)
    # the wave's phase when an integration starts, relative to the first one
    per_group = (clock.per_frame / wave.period) % 1
    n_groups = sums.data.shape[1]
    clocks_between = clock.per_integration - n_groups * clock.per_frame
    run_on = integration * (per_group * n_groups + clocks_between / wave.period)

    def at_phases(phase: Array) -> tuple[Array, Array]:
        """Terms a and b, (n_ints or 1, n_phases), with the wave at the given phases."""
        place = _next_trial(phase + run_on[:, None], phase, run_on[:, None], xp=xp)
        a = xp.take_along_axis(curvature, place, axis=1)
        b = xp.take_along_axis(gradient, place, axis=1)
        return (
            (a, b) if separately else (a.sum(axis=0, keepdims=True), b.sum(axis=0, keepdims=True))
        )

    trials = xp.arange(N_TRIALS) / N_TRIALS
    _, chi_square = _best_amplitude(*at_phases(trials[None]), xp=xp)
    phase = _minimum(chi_square, xp=xp)[:, None]
    amplitude, _ = _best_amplitude(*at_phases(phase), xp=xp)
    return SplineWave(
        wave=wave,
        spline=Spline(wave.shape_dn, xp=xp),
        amplitude=amplitude[:, 0] + xp.zeros(len(integration)),
        phase=phase[:, 0] + run_on,
    )


def _chi_square_terms(
    sums: PhaseSums, wave: EmiWave, clock: Clock, free_levels: bool, *, xp
) -> tuple[Array, Array]:
    """Terms a and b of every integration at every trial phase, both (n_ints, N_TRIALS)."""
    residual, time = without_lines(sums)
    per_group = (clock.per_frame / wave.period) % 1
    spline = Spline(wave.shape_dn, xp=xp)
    trials = (xp.arange(N_TRIALS) / N_TRIALS)[:, None]
    n_pixels = xp.maximum(sums.n_pixels.sum(axis=1, keepdims=True), 1)
    own, common, gradient = _LessLine(time), _LessLine(time), 0.0
    for group in range(sums.data.shape[1]):
        z = spline.at((sums.phase + group * per_group) % 1 + trials)
        own.add(z, group)
        gradient = gradient - 2 * xp.matmul(residual[:, group], z.T)
        if free_levels:
            z = xp.matmul(sums.n_pixels, z.T)
            common.add(z, group)
            level = residual[:, group].sum(axis=-1, keepdims=True) / n_pixels
            gradient = gradient + 2 * level * z
    curvature = xp.matmul(sums.n_pixels, own.sum_of_squares().T)
    if free_levels:
        curvature = curvature - common.sum_of_squares() / n_pixels
    return curvature, gradient


class _LessLine:
    """Adds up the squares of what values have beside a straight line in time, group by group."""

    def __init__(self, time):
        self.time = time
        self.sum = self.time_sum = self.square_sum = 0.0

    def add(self, values, group):
        self.sum = self.sum + values
        self.time_sum = self.time_sum + self.time[group] * values
        self.square_sum = self.square_sum + values * values

    def sum_of_squares(self):
        level = self.sum * self.sum / len(self.time)
        return self.square_sum - level - self.time_sum**2 / (self.time * self.time).sum()


def _next_trial(wanted, phase, run_on, *, xp) -> Array:
    """Index of the trial at a phase or, else, the next above it, round the circle.

    Where the phase is that of a trial, rounding decides; it is let decide as in the STScI step, by
    the same differences.
    """
    near = xp.ceil(wanted * N_TRIALS).astype(xp.int64)
    best, least = near, xp.full(near.shape, xp.inf)
    for offset in (-1, 0, 1):
        place = (near + offset) % N_TRIALS
        distance = (place / N_TRIALS - phase - run_on) % 1
        best = xp.where(distance < least, place, best)
        least = xp.minimum(distance, least)
    return best


def _best_amplitude(curvature: Array, gradient: Array, *, xp) -> tuple[Array, Array]:
    """Amplitude and its change of chi-square; 0 and +inf where there is nothing to fit."""
    known = (xp.abs(curvature) > _NOTHING) & xp.isfinite(gradient)
    amplitude = -gradient / (2 * xp.where(known, curvature, 1.0))
    chi_square = amplitude * (curvature * amplitude + gradient)
    return xp.where(known, amplitude, 0.0), xp.where(known, chi_square, xp.inf)


def _minimum(chi_square: Array, *, xp) -> Array:
    """Phase of the least chi-square, by a parabola through it and its neighbours, (n,) cycles."""
    best = xp.argmin(chi_square, axis=1)[:, None]
    before, least, after = (
        xp.take_along_axis(chi_square, (best + step) % N_TRIALS, axis=1)[:, 0]
        for step in (-1, 0, 1)
    )
    finite = xp.isfinite(before) & xp.isfinite(after)
    before, after = xp.where(finite, before, 0.0), xp.where(finite, after, 0.0)
    bend = before - 2 * xp.where(finite, least, 0.0) + after
    curved = finite & (bend > 0)
    step = xp.where(curved, 0.5 * (before - after) / xp.where(curved, bend, 1.0), 0.0)
    return ((best[:, 0] + step) / N_TRIALS) % 1
