"""The likelihood of a line through a ramp, from the covariance of the differences of its groups.

Successive differences share the read noise of the group between them (and its photons, where it
averages several frames), so their covariance is tridiagonal. One sweep up the ramp and one down
it give all that a fit needs of the inverse: time and memory are linear in the number of groups.

Here ramps are the second axis of arrays (n_diffs, n_ramps), and the loops run over differences. A
difference that is left out is not linked to its neighbours, and weighs nothing.

Source: Brandt 2024, PASP 136, 045004 (arXiv 2309.08753), whose sums A, B and C these are. The
paper takes them from determinants, which overflow for long ramps unless they are rescaled; the
pivots of an elimination stay of the order of a variance.
"""

from dataclasses import dataclass, fields
from typing import Self

from miri_gpu.containers import Array, Readout


@dataclass(frozen=True, eq=False)
class PerRamp:
    """Values of many ramps, each array with the ramps as its last axis."""

    def take(self, ramps) -> Self:
        """The values of some of the ramps only."""
        return type(self)(*(getattr(self, f.name)[..., ramps] for f in fields(self)))


@dataclass(frozen=True, eq=False)
class Covariance(PerRamp):
    """Covariance of the differences of ramps, (n_ramps,) each.

    Attributes
    ----------
    variance : float64 [DN^2]
        Of one difference; 1 where it is unknown.
    neighbour : float64 [DN^2]
        Of one difference with the next; 0 where it is unknown.
    known : bool
        False where nothing makes noise, or read noise or gain are no numbers.
    """

    variance: Array
    neighbour: Array
    known: Array


def photon_lag(readout: Readout) -> float:
    """How much of the photon noise a difference shares with the next, as a part of a group's.

    It is the mean time of a group's frames minus their variance-weighted one, over the time of a
    group (Brandt 2024, equations 4 and 11): 0 where a group is a single frame.
    """
    n = readout.n_frames
    return readout.frame_time_s * (n * n - 1) / (6 * n) / readout.group_time_s


def covariance_of(rise, read_var, gain, lag, *, xp) -> Covariance:
    """Covariance of the differences, from the signal they hold and the noise of reading.

    Parameters
    ----------
    rise : (n_ramps,) float64 [DN]
        Expected difference, not negative.
    read_var : (n_ramps,) float64 [DN^2]
        Variance of one group by read noise.
    gain : (n_ramps,) float64 [e-/DN], positive
    lag : float
        As `photon_lag` gives it.
    """
    photons = rise / gain
    variance = (1 - 2 * lag) * photons + 2 * read_var
    known = xp.isfinite(variance) & (variance > 0)
    neighbour = xp.where(known, lag * photons - read_var, 0.0)
    return Covariance(xp.where(known, variance, 1.0), neighbour, known)


@dataclass(frozen=True, eq=False)
class Climb(PerRamp):
    """What the sweep up the ramps leaves, with K the covariance and d the differences.

    Attributes
    ----------
    inverse_pivot, ones, values : (n_diffs, n_ramps) float64
        Inverse pivots, and the eliminated right-hand sides 1 and d over the pivots.
    a, b, c : (n_ramps,) float64
        The sums d K^-1 d, 1 K^-1 d and 1 K^-1 1; c is 1 where no difference is used.
    """

    inverse_pivot: Array
    ones: Array
    values: Array
    a: Array
    b: Array
    c: Array

    @property
    def slope(self) -> Array:
        """The likeliest difference [DN], (n_ramps,) float64; 0 where no difference is used."""
        return self.b / self.c

    def chi_square(self, *, xp) -> Array:
        """Squared distance of the differences from the line, in units of their noise."""
        return xp.maximum(self.a - self.b * self.b / self.c, 0.0)


def link(covariance, used, inverse_pivot, i):
    """What of difference i - 1 is subtracted from difference i to make them independent."""
    return covariance.neighbour * (used[i] & used[i - 1]) * inverse_pivot[i - 1]


def climb(differences, used, covariance, *, xp) -> Climb:
    """Sweep up the ramps.

    Parameters
    ----------
    differences : (n_diffs, n_ramps) float32 [DN]
    used : (n_diffs, n_ramps) bool
        What is not used may be NaN.
    covariance : Covariance
    """
    shape = used.shape
    inverse_pivot, ones, values = (xp.empty(shape, dtype=xp.float64) for _ in range(3))
    a, b, c = (xp.zeros(shape[1:], dtype=xp.float64) for _ in range(3))
    pivot, one, value = covariance.variance, 0.0, 0.0
    for i in range(shape[0]):
        from_last = link(covariance, used, inverse_pivot, i) if i > 0 else 0.0
        pivot = covariance.variance - from_last * covariance.neighbour
        one = used[i] - from_last * one
        value = xp.where(used[i], differences[i], 0.0) - from_last * value
        xp.divide(1.0, pivot, out=inverse_pivot[i])
        xp.multiply(one, inverse_pivot[i], out=ones[i])
        xp.multiply(value, inverse_pivot[i], out=values[i])
        a += value * values[i]
        b += value * ones[i]
        c += one * ones[i]
    return Climb(inverse_pivot, ones, values, a, b, xp.where(c > 0, c, 1.0))


@dataclass(frozen=True, eq=False)
class Descent:
    """What the sweep down the ramps leaves, (n_ramps,) float64 each.

    Attributes
    ----------
    squares, products
        Sum of the squared weights of the differences in the slope, and of each times the next.
    """

    squares: Array
    products: Array


def descend(climbed, used, covariance, *, xp) -> Descent:
    """Sweep down the ramps, for what the slope alone does not need."""
    n_diffs, n_ramps = used.shape
    squares, products = xp.zeros(n_ramps), xp.zeros(n_ramps)
    weight, from_next = 0.0, 0.0
    for i in reversed(range(n_diffs)):
        if i + 1 < n_diffs:
            from_next = link(covariance, used, climbed.inverse_pivot, i + 1)
        last = weight
        weight = climbed.ones[i] - from_next * last
        squares += weight * weight
        products += weight * last
    norm = climbed.c * climbed.c
    return Descent(squares / norm, products / norm)
