"""Shape and amplitude of an interfering wave as a sum of harmonics, fitted with a line per ramp.

A straight line in every ramp takes part of a wave with it, most of it where an integration holds
few groups: here what is left of each harmonic is fitted to what is left of the ramps, so that
shape and amplitude come out whole. Each group may lie higher or lower as a whole, as the first and
last ones do: a slow wave, of which a frame does not see whole cycles, would take that for its own.
Nothing needs to be known of the wave but its frequency.
"""

from dataclasses import replace

import numpy as np

from miri_gpu.backend import namespace, to_host
from miri_gpu.containers import Array
from miri_gpu.numerics import solve_symmetric
from miri_gpu.ramps.emi_phase_sums import PhaseSums, without_lines
from miri_gpu.ramps.emi_waves import Clock, EmiWave

N_HARMONICS = 4
N_BINS = 256  # of a measured shape
# A harmonic that advances by whole cycles from group to group is a level in every ramp: nothing
# tells it from the bias, and it does no harm. This much of its size keeps the fit solvable.
_RIDGE = 1e-9


def wave_amplitudes(sums: PhaseSums, wave: EmiWave, clock: Clock) -> Array:
    """Amplitude of the wave in each integration: of a sine of the same power.

    Returns
    -------
    (n_ints,) float64 [DN]
        Noise adds to it in quadrature. NaN where no ramp is left to measure it on.
    """
    xp = namespace(sums.data)
    terms = solve_symmetric(*_normal_equations(sums, wave, clock, xp=xp))
    return xp.sqrt((terms * terms).sum(axis=-1))


def with_measured_shape(
    wave: EmiWave, sums: PhaseSums, clock: Clock, integration: Array, *, separately: bool
) -> EmiWave:
    """The wave with the shape that all integrations show together.

    Parameters
    ----------
    wave : EmiWave
    sums : PhaseSums
    clock : Clock
    integration : (n_ints,) int64
        Place of each integration.
    separately : bool
        Bring every integration to the phase that it shows by itself; or else the wave runs on from
        one to the next.

    Returns
    -------
    EmiWave
        Flat where no ramp is left to measure it on.
    """
    xp = namespace(sums.data)
    matrix, vector = _normal_equations(sums, wave, clock, xp=xp)
    if separately:
        terms = solve_symmetric(matrix, vector)
        cycles = -xp.arctan2(terms[:, 1], terms[:, 0]) / (2 * np.pi)
        cycles = xp.where(xp.isfinite(cycles), cycles, 0.0)
    else:
        cycles = (integration * (clock.per_integration / wave.period)) % 1
    turn = _rotation(cycles, xp=xp)
    matrix = xp.matmul(xp.matmul(turn, matrix), xp.swapaxes(turn, -1, -2)).sum(axis=0)
    vector = xp.matmul(turn, vector[..., None]).sum(axis=0)[..., 0]
    terms = to_host(solve_symmetric(matrix, vector))
    terms = np.where(np.isfinite(terms), terms, 0.0)
    phase = (np.arange(N_BINS) + 0.5) / N_BINS
    return replace(wave, shape_dn=tuple((_harmonics(phase, xp=np) @ terms).tolist()))


def _normal_equations(sums: PhaseSums, wave: EmiWave, clock: Clock, *, xp) -> tuple[Array, Array]:
    """Least squares for the terms of each integration: (n_ints, n, n) and (n_ints, n) float64."""
    residual, time = without_lines(sums)
    per_group = (clock.per_frame / wave.period) % 1
    basis = [_harmonics((sums.phase + group * per_group) % 1, xp=xp) for group in range(len(time))]
    basis = xp.stack(basis)  # (n_groups, n_phases, n)
    left = basis - basis.mean(axis=0)
    slope = (left * time[:, None, None]).sum(axis=0) / (time * time).sum()
    left = left - slope * time[:, None, None]
    products = (left[..., :, None] * left[..., None, :]).sum(axis=0)
    whole = (basis * basis).sum(axis=0)
    products = products + _RIDGE * whole[..., None] * xp.eye(whole.shape[-1])

    n_phases, n = whole.shape
    matrix = xp.matmul(sums.n_pixels, products.reshape(n_phases, n * n)).reshape(-1, n, n)
    vector = sum(xp.matmul(residual[:, group], left[group]) for group in range(len(time)))
    # what each group has in common is no wave: its level is fitted too
    per_pixel = 1 / xp.maximum(sums.n_pixels.sum(axis=1), 1)[:, None]
    for group in range(len(time)):
        common = xp.matmul(sums.n_pixels, left[group])
        level = residual[:, group].sum(axis=-1, keepdims=True)
        matrix = matrix - (common * per_pixel)[..., None] * common[:, None]
        vector = vector - common * per_pixel * level
    return matrix, vector


def _harmonics(phase: Array, *, xp) -> Array:
    """Cosine and sine of each harmonic, (n_phases, 2 N_HARMONICS)."""
    angles = [2 * np.pi * k * phase for k in range(1, N_HARMONICS + 1)]
    return xp.stack([f(angle) for angle in angles for f in (xp.cos, xp.sin)], axis=-1)


def _rotation(cycles: Array, *, xp) -> Array:
    """Turns an integration's terms back to the first integration's phase, (n_ints, n, n)."""
    rotation = xp.zeros((cycles.shape[0], 2 * N_HARMONICS, 2 * N_HARMONICS))
    for k in range(N_HARMONICS):
        angle = 2 * np.pi * (k + 1) * cycles
        cosine, sine = xp.cos(angle), xp.sin(angle)
        rotation[:, 2 * k, 2 * k] = rotation[:, 2 * k + 1, 2 * k + 1] = cosine
        rotation[:, 2 * k, 2 * k + 1] = -sine
        rotation[:, 2 * k + 1, 2 * k] = sine
    return rotation
