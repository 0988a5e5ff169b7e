"""Jumps by likelihood: differences without which a line describes the ramp much better.

Leaving a difference out is the same as fitting a jump of free size to it, so the whole ramp
decides, not the difference alone.

Source: Brandt 2024, PASP 136, 045005 (arXiv 2404.01326), and the LIKELY algorithm of the STScI
ramp_fit step (stcal 1.20).
"""

import math

from miri_gpu.ramps.likelihood_sweeps import climb, link

_FEWEST = 3  # differences of a ramp; among two, neither can be told to be the jump
_FEWEST_AGAIN = 4  # the same once a jump has been left out, as in the STScI step
_SMALLEST_SHARE = 1e-9  # of its information that a difference adds to what the others know of it


def pair_threshold(sigma: float) -> float:
    """Improvement of chi-square from which two differences are left out.

    Noise alone reaches it as seldom as one difference reaches sigma^2.
    """
    chance = math.erfc(sigma / math.sqrt(2))
    return -2 * math.log(chance) if chance > 0 else sigma**2 + 10


def omit_jumps(differences, used, covariance, sigma, with_pairs, *, xp):
    """Leave out the difference that fits worst, or the pair of them, while that improves the fit.

    Parameters
    ----------
    differences : (n_diffs, n_ramps) float32 [DN]
    used : (n_diffs, n_ramps) bool
    covariance : Covariance
    sigma : float
        Significance from which a jump is one.
    with_pairs : bool
        Whether two successive differences may hold one jump.

    Returns
    -------
    used : (n_diffs, n_ramps) bool
        Without the jumps.
    slope : (n_ramps,) float64 [DN]
        The likeliest difference, fitted without the jumps; 0 where none is used.
    """
    n_diffs = used.shape[0]
    kept, place = used.copy(), xp.arange(n_diffs)[:, None]
    climbed = climb(differences, used, covariance, xp=xp)
    slope, fewest = climbed.slope.copy(), _FEWEST
    # without a jump, chi-square can improve by all that it is, and no more
    active = xp.flatnonzero(climbed.chi_square(xp=xp) > sigma**2)
    if 2 * active.size < slope.size:
        differences, used, covariance, climbed = (
            differences[:, active], used[:, active], covariance.take(active), climbed.take(active)
        )  # fmt: skip
    else:  # too many to be worth gathering
        active = xp.arange(slope.size)
    for _ in range(n_diffs):
        excess, worst, is_pair = _worst(climbed, used, covariance, sigma, with_pairs, xp=xp)
        enough = covariance.known & (used.sum(axis=0) >= fewest)
        found = xp.flatnonzero(enough & (excess > 0))
        if found.size == 0:
            break
        active, fewest = active[found], _FEWEST_AGAIN
        differences, covariance = differences[:, found], covariance.take(found)
        worst, is_pair = worst[found], is_pair[found]
        jump = (place == worst) | ((place == worst + 1) & is_pair)
        used = used[:, found] & ~jump
        kept[:, active] = used
        climbed = climb(differences, used, covariance, xp=xp)
        slope[active] = climbed.slope
    return kept, slope


def _worst(climbed, used, covariance, sigma, with_pairs, *, xp):
    """Which difference, or pair of them, a ramp does best without.

    Returns
    -------
    excess : (n_ramps,) float64
        How far the improvement of chi-square is above its threshold.
    worst : (n_ramps,) int64
        The difference, or the first one of a pair.
    is_pair : (n_ramps,) bool
    """
    n_diffs, n_ramps = used.shape
    of_one, of_pair = sigma**2, pair_threshold(sigma)
    slope, inverse_c = climbed.slope, 1 / climbed.c
    excess = xp.full(n_ramps, -of_pair)
    worst, is_pair = xp.zeros(n_ramps, dtype=xp.int64), xp.zeros(n_ramps, dtype=bool)
    weight, residual, diagonal, information, from_next = (0.0,) * 5
    for i in reversed(range(n_diffs)):
        above = (weight, residual, diagonal, information)
        if i + 1 < n_diffs:
            from_next = link(covariance, used, climbed.inverse_pivot, i + 1)
        # row i of the inverse covariance: times 1, times the deviations, and on the diagonal
        weight = climbed.ones[i] - from_next * weight
        residual = climbed.values[i] - slope * climbed.ones[i] - from_next * residual
        diagonal = climbed.inverse_pivot[i] + from_next * from_next * diagonal
        information = diagonal - weight * weight * inverse_c
        alone = information <= _SMALLEST_SHARE * diagonal
        information = xp.where(alone, 1.0, information)
        gain = xp.where(alone, 0.0, residual * residual / information)
        better = gain - of_one > excess
        excess = xp.where(better, gain - of_one, excess)
        worst = xp.where(better, i, worst)
        if not with_pairs:
            continue
        is_pair = is_pair & ~better
        if i + 1 < n_diffs:
            here = (weight, residual, information)
            gain = _gain_of_pair(here, above, from_next, inverse_c, xp=xp)
            better = (gain - of_pair > excess) & used[i] & used[i + 1]
            excess = xp.where(better, gain - of_pair, excess)
            worst = xp.where(better, i, worst)
            is_pair = is_pair | better
    return excess, worst, is_pair


def _gain_of_pair(here, above, from_next, inverse_c, *, xp):
    """Improvement of chi-square without two successive differences; 0 where it is undefined."""
    weight, residual, information = here
    weight_above, residual_above, diagonal_above, information_above = above
    shared = -from_next * diagonal_above - weight * weight_above * inverse_c
    determinant = information * information_above - shared * shared
    undefined = determinant <= _SMALLEST_SHARE * information * information_above
    gain = (
        information_above * residual * residual
        - 2 * shared * residual * residual_above
        + information * residual_above * residual_above
    ) / xp.where(undefined, 1.0, determinant)
    return xp.where(undefined, 0.0, gain)
