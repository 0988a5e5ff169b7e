"""What the simulated detector truly is: the arrays that the ramps and the references share."""

from dataclasses import dataclass

import numpy as np

from miri_gpu.detector import (
    CLOCK_S,
    CLOCKS_PER_FRAME,
    CLOCKS_PER_ROW,
    DO_NOT_USE,
    EMI_PERIOD_CLOCKS,
    N_AMPLIFIERS,
    N_COLS,
    N_REFERENCE_COLS,
    N_ROWS,
    REFERENCE_PIXEL,
)
from miri_gpu.simulate.settings import SimulationSettings

DEAD, HOT = 1 << 10, 1 << 11  # bits of the mask reference

PEDESTAL_DN = 10000.0
LINEARITY = (0.0, 1.0, 1.0e-6, 2.0e-12, 1.0e-17)  # corrected DN as powers of the measured DN
AMPLIFIER_SPREAD = (0.94, 0.98, 1.02, 1.06)  # of the non-linearity
FULL_WELL_OVER_SATURATION = 1.04
RESET_GROUPS = 16  # groups that the reset anomaly lasts
EMI_HARMONICS = {1: 1.0, 2: 0.109, 4: 0.0226}  # relative amplitudes
WEAK_HZ, WEAK_AMPLITUDE = 10.039216, 0.06  # relative to the main wave
EMI_PHASES = (0.3, 0.7)  # of the two waves at the first clock of the exposure, in turns


@dataclass(frozen=True, eq=False, kw_only=True)
class TrueDetector:
    """The simulated detector, cut to the subarray.

    Attributes
    ----------
    bias : (n_rows, n_cols) float32 [DN]
    linearity : (5, n_cols) float32
        Coefficients of the polynomial that makes measured DN linear; identity where there is
        nothing to correct.
    full_well : (n_rows, n_cols) float32 [DN]
        Highest measured level (infinite where saturation is off).
    saturation : (n_rows, n_cols) float32 [DN]
        Threshold the reference gives, a little below the full well.
    sensitivity : (n_rows, n_cols) float32
        Flat field, zero for dead pixels and reference pixels.
    flat : (n_rows, n_cols) float32
        Flat field without the dead pixels, as the reference gives it.
    dark : (n_rows, n_cols) float32 [e-/s]
        Dark current as the reference gives it.
    excess_dark : (n_rows, n_cols) float32 [e-/s]
        Dark current of hot pixels on top of it.
    reset : (2, n_reset_groups, n_rows, n_cols) float32 [DN]
        Reset anomaly of the first integration and of the others.
    mask : (n_rows, n_cols) uint32
        Data-quality bits of the pixels.
    unknown : (n_unknown, 2) int
        Row and column of good pixels for which references hold NaN.
    """

    bias: np.ndarray
    linearity: np.ndarray
    full_well: np.ndarray
    saturation: np.ndarray
    sensitivity: np.ndarray
    flat: np.ndarray
    dark: np.ndarray
    excess_dark: np.ndarray
    reset: np.ndarray
    mask: np.ndarray
    unknown: np.ndarray


def build_detector(settings: SimulationSettings) -> TrueDetector:
    """Draw the detector that belongs to a seed; an effect that is off leaves it ideal."""
    shape = (N_ROWS, N_COLS)
    science = np.arange(N_COLS) >= N_REFERENCE_COLS
    dead, hot, unknown = bad_pixels(settings)
    flat = np.ones(shape)
    if settings.flat:
        flat += 0.015 * generator(settings, "flat").standard_normal(shape) * science
    dark = np.zeros(shape)
    if settings.dark:
        spread = np.exp(0.2 * generator(settings, "dark").standard_normal(shape))
        dark = settings.dark_rate * spread * science
    saturation = settings.saturation_dn * (
        1 + 0.005 * generator(settings, "saturation").uniform(-1, 1, shape)
    )
    mask = np.zeros(shape, np.uint32)
    mask[:, ~science] |= np.uint32(REFERENCE_PIXEL)
    mask[dead] |= np.uint32(DEAD | DO_NOT_USE)
    mask[hot] |= np.uint32(HOT | DO_NOT_USE)
    excess = np.where(hot, generator(settings, "hot").uniform(300, 5000, shape), 0.0)
    full_well = saturation * FULL_WELL_OVER_SATURATION if settings.saturation else np.inf
    return TrueDetector(
        bias=bias(settings).astype(np.float32),
        linearity=linearity(settings).astype(np.float32),
        full_well=np.broadcast_to(full_well, shape).astype(np.float32),
        saturation=saturation.astype(np.float32),
        sensitivity=(flat * science * ~dead).astype(np.float32),
        flat=flat.astype(np.float32),
        dark=dark.astype(np.float32),
        excess_dark=excess.astype(np.float32),
        reset=reset_anomaly(settings).astype(np.float32),
        mask=mask,
        unknown=unknown,
    )


_STREAMS = (
    "flat", "dark", "saturation", "hot", "bad", "bias", "reset", "photons", "reads", "rays",
    "drifts",
)  # fmt: skip


def generator(settings: SimulationSettings, effect: str, integration: int | None = None):
    """Random numbers of one effect, in one integration or for the detector as a whole.

    Each effect draws from its own stream, so switching one off leaves the others as they were,
    and no integration depends on which were simulated before it.
    """
    where = [] if integration is None else [integration]
    return np.random.default_rng([settings.seed, _STREAMS.index(effect), *where])


def bad_pixels(settings) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Dead and hot pixels (boolean images), and the pixels unknown to the references."""
    dead, hot = np.zeros((2, N_ROWS, N_COLS), bool)
    if not settings.bad_pixels:
        return dead, hot, np.zeros((0, 2), int)
    science = N_ROWS * (N_COLS - N_REFERENCE_COLS)
    n_dead, n_hot, n_unknown = 30, 60, 8
    chosen = generator(settings, "bad").choice(science, n_dead + n_hot + n_unknown, replace=False)
    rows, cols = np.divmod(chosen, N_COLS - N_REFERENCE_COLS)
    cols += N_REFERENCE_COLS
    dead[rows[:n_dead], cols[:n_dead]] = True
    hot[rows[n_dead : n_dead + n_hot], cols[n_dead : n_dead + n_hot]] = True
    return dead, hot, np.stack([rows, cols], axis=1)[n_dead + n_hot :]


def bias(settings) -> np.ndarray:
    """Level of each pixel after the reset (n_rows, n_cols) [DN]."""
    level = np.full((N_ROWS, N_COLS), PEDESTAL_DN)
    if settings.bias:
        rng = generator(settings, "bias")
        amplifiers = rng.uniform(-600, 600, N_AMPLIFIERS)
        level += 60 * rng.standard_normal((N_ROWS, N_COLS)) + np.tile(
            amplifiers, N_COLS // N_AMPLIFIERS
        )
    if settings.odd_even_rows:
        level += np.where(np.arange(N_ROWS) % 2 == 0, 500.0, -500.0)[:, None]
    return level


def linearity(settings) -> np.ndarray:
    """Coefficients of the linearity polynomial of each column (5, n_cols)."""
    coefficients = np.zeros((5, N_COLS))
    coefficients[1] = 1
    if settings.nonlinearity:
        columns = np.arange(N_REFERENCE_COLS, N_COLS)
        spread = np.asarray(AMPLIFIER_SPREAD)[columns % N_AMPLIFIERS]
        coefficients[2:, columns] = np.asarray(LINEARITY)[2:, None] * spread
    return coefficients


def reset_anomaly(settings) -> np.ndarray:
    """Offset of the first groups (2, n_reset_groups, n_rows, n_cols) [DN]."""
    groups = np.arange(RESET_GROUPS)
    decays = np.stack([-120 * np.exp(-groups / 5), -30 * np.exp(-groups / 3)])
    decays -= decays[:, -1:]  # so that nothing is left where the reference ends
    rng = generator(settings, "reset")
    by_pixel = 1 + 0.1 * rng.standard_normal((N_ROWS, N_COLS))
    by_pixel *= (np.arange(N_COLS) >= N_REFERENCE_COLS) * float(settings.reset_anomaly)
    return decays[:, :, None, None] * by_pixel


def emi_waves(settings) -> dict[float, np.ndarray]:
    """One period of each interfering wave [DN], sampled at bin centres, by frequency [Hz]."""
    phase = (np.arange(256) + 0.5) / 256
    main = sum(a * np.sin(2 * np.pi * k * phase) for k, a in EMI_HARMONICS.items())
    weak = WEAK_AMPLITUDE * np.sin(2 * np.pi * phase)
    main_hz = 1 / (EMI_PERIOD_CLOCKS * CLOCK_S)
    return {main_hz: settings.emi_amplitude * main, WEAK_HZ: settings.emi_amplitude * weak}


def emi(frames: np.ndarray, settings) -> np.ndarray:
    """Interference in the samples of some frames (n_frames, n_rows, n_cols) float32 [DN].

    `frames` counts frames from the start of the exposure, reset frames included. The four
    amplifiers are read at the same clock and see the same wave.
    """
    clock = (
        frames[:, None, None] * CLOCKS_PER_FRAME
        + np.arange(N_ROWS)[:, None] * CLOCKS_PER_ROW
        + np.arange(N_COLS // N_AMPLIFIERS)
    )
    main = (clock % EMI_PERIOD_CLOCKS) / EMI_PERIOD_CLOCKS + EMI_PHASES[0]  # whole clocks: exact
    wave = sum(a * np.sin(2 * np.pi * k * main) for k, a in EMI_HARMONICS.items())
    weak = (clock * CLOCK_S * WEAK_HZ) % 1 + EMI_PHASES[1]
    wave += WEAK_AMPLITUDE * np.sin(2 * np.pi * weak)
    return np.repeat((settings.emi_amplitude * wave).astype(np.float32), N_AMPLIFIERS, axis=-1)
