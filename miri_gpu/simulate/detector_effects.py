"""From electrons per second to the samples of one integration, as the detector delivers them."""

from dataclasses import dataclass

import numpy as np

from miri_gpu.detector import (
    ATOD_LIMIT_DN,
    FRAME_TIME_S,
    N_AMPLIFIERS,
    N_COLS,
    N_REFERENCE_COLS,
    N_ROWS,
)
from miri_gpu.simulate.settings import SimulationSettings
from miri_gpu.simulate.true_detector import TrueDetector, emi, generator

NEWTON_STEPS = 3  # the error squares each time, from hundreds of DN: below float32 after three
RAY_SHARES = {(0, 0): 0.76, (-1, 0): 0.06, (1, 0): 0.06, (0, -1): 0.06, (0, 1): 0.06}
SETTLING = {"first": (-56.0, 5.8), "others": (-11.0, 1.3)}  # DN in group 0, decay in frames
LAST_FRAME_DN = (13.0, 23.0)  # even rows, odd rows


@dataclass(frozen=True, eq=False)
class CosmicRays:
    """Pixels hit in an integration: index of group, row, column, and the charge [e-]."""

    group: np.ndarray
    row: np.ndarray
    col: np.ndarray
    electrons: np.ndarray


def integration_samples(
    integration: int, rate: np.ndarray, detector: TrueDetector, settings: SimulationSettings
) -> tuple[np.ndarray, CosmicRays]:
    """Expose, digitise and read one integration.

    Parameters
    ----------
    integration : int
        Index in the exposure, from 0.
    rate : (n_rows, n_cols) float32 [e-/s]
        Expected rate of photons.

    Returns
    -------
    samples : (n_groups, n_rows, n_cols) uint16 [DN]
    rays : CosmicRays
        The cosmic rays that hit.
    """
    rays = cosmic_rays(integration, detector, settings)
    charge = accumulated_electrons(integration, rate, rays, detector, settings)
    samples = measured_level(charge, detector, settings)
    samples += electronics(integration, detector, settings)
    np.rint(samples, out=samples)
    return np.clip(samples, 0, ATOD_LIMIT_DN, out=samples).astype(np.uint16), rays


def accumulated_electrons(integration, rate, rays, detector, settings) -> np.ndarray:
    """Charge at each read (n_groups, n_rows, n_cols) float32 [e-]."""
    expected = (rate * detector.sensitivity + detector.dark + detector.excess_dark) * FRAME_TIME_S
    shape = (settings.n_groups, N_ROWS, N_COLS)
    if settings.photon_noise:
        rng = generator(settings, "photons", integration)
        charge = rng.poisson(expected, shape).astype(np.float32)
    else:
        charge = np.broadcast_to(expected.astype(np.float32), shape).copy()
    np.add.at(charge, (rays.group, rays.row, rays.col), rays.electrons)
    for group in range(1, settings.n_groups):
        charge[group] += charge[group - 1]
    return charge


def cosmic_rays(integration, detector, settings) -> CosmicRays:
    """Draw the cosmic rays of an integration: each hits a pixel and its four neighbours."""
    if not settings.cosmic_rays:
        return CosmicRays(*(np.zeros(0, int) for _ in range(3)), np.zeros(0, np.float32))
    rng = generator(settings, "rays", integration)
    n_rays = rng.poisson(settings.cosmic_ray_rate * settings.n_groups)
    group = rng.integers(0, settings.n_groups, n_rays)
    row = rng.integers(0, N_ROWS, n_rays)
    col = rng.integers(N_REFERENCE_COLS, N_COLS, n_rays)
    charge = settings.cosmic_ray_electrons * np.exp(rng.standard_normal(n_rays))
    hits = [(group, row + dy, col + dx, charge * share) for (dy, dx), share in RAY_SHARES.items()]
    group, row, col, charge = (np.concatenate(parts) for parts in zip(*hits, strict=True))
    inside = (row >= 0) & (row < N_ROWS) & (col >= N_REFERENCE_COLS) & (col < N_COLS)
    return CosmicRays(group[inside], row[inside], col[inside], charge[inside].astype(np.float32))


def measured_level(charge, detector, settings) -> np.ndarray:
    """Level of the pixels before the electronics (n_groups, n_rows, n_cols) float32 [DN].

    The linearity polynomial of the reference, applied to the result, gives a level that grows
    by exactly charge / gain; its zero point is the linearised bias.
    """
    linear = charge * np.float32(1 / settings.gain)
    linear += polynomial(detector.bias, detector.linearity)
    limit = np.minimum(detector.full_well, np.float32(2 * ATOD_LIMIT_DN))
    np.minimum(linear, polynomial(limit, detector.linearity), out=linear)
    return inverse_polynomial(linear, detector.linearity)


def polynomial(level, coefficients) -> np.ndarray:
    """The linearity polynomial, coefficients (5, n_cols), of a level (..., n_cols)."""
    result = np.broadcast_to(coefficients[-1], level.shape)
    for term in coefficients[-2::-1]:
        result = result * level + term
    return result


def inverse_polynomial(linear, coefficients) -> np.ndarray:
    """The level whose linearity polynomial is `linear`, by Newton's method, group by group."""
    slope_terms = coefficients[1:] * np.arange(1, len(coefficients), dtype=np.float32)[:, None]
    level = linear.copy()
    for group in range(len(linear)):
        for _ in range(NEWTON_STEPS):
            miss = polynomial(level[group], coefficients) - linear[group]
            level[group] -= miss / polynomial(level[group], slope_terms)
    return level


def electronics(integration, detector, settings) -> np.ndarray:
    """All that adds to a sample on its way out (n_groups, n_rows, n_cols) float32 [DN]."""
    shape = (settings.n_groups, N_ROWS, N_COLS)
    if settings.read_noise:
        rng = generator(settings, "reads", integration)
        added = rng.standard_normal(shape, dtype=np.float32)
        added *= np.float32(settings.read_noise_dn)
    else:
        added = np.zeros(shape, np.float32)
    science = added[..., N_REFERENCE_COLS:]
    science += settling(integration, settings)[:, None, None]
    if settings.last_group:
        science[-1] += np.where(np.arange(N_ROWS) % 2 == 0, *LAST_FRAME_DN)[:, None]
    if settings.reset_anomaly:
        anomaly = detector.reset[min(integration, 1), : settings.n_groups]
        added[: len(anomaly)] += anomaly
    if settings.amplifier_drifts:
        added += amplifier_drifts(integration, settings)
    if settings.emi:
        first_frame = integration * (settings.n_groups + 1)  # one reset frame each
        added += emi(first_frame + np.arange(settings.n_groups), settings)
    return added


def settling(integration, settings) -> np.ndarray:
    """How low each group sits after the reset (n_groups,) float32 [DN]; in no reference."""
    if not settings.first_group:
        return np.zeros(settings.n_groups, np.float32)
    depth, decay = SETTLING["first" if integration == 0 else "others"]
    return (depth * np.exp(-np.arange(settings.n_groups) / decay)).astype(np.float32)


def amplifier_drifts(integration, settings) -> np.ndarray:
    """Drift of the amplifiers (n_groups, n_rows, n_cols) float32 [DN].

    A random walk for each amplifier with a smaller part of its own for odd and for even rows,
    the same in the reference column and in the science columns that the amplifier reads.
    """
    rng = generator(settings, "drifts", integration)
    steps = rng.standard_normal((settings.n_groups, 1, N_AMPLIFIERS))
    steps = steps + 0.3 * rng.standard_normal((settings.n_groups, 2, N_AMPLIFIERS))
    walk = settings.drift_dn * np.cumsum(steps, axis=0)
    return np.tile(walk, (1, N_ROWS // 2, N_COLS // N_AMPLIFIERS)).astype(np.float32)
