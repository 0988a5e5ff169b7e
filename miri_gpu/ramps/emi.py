"""Measure and subtract the interference of 390.6 Hz and 10 Hz (jwst: emicorr)."""

import math
from dataclasses import dataclass, replace

from miri_gpu.area import Area
from miri_gpu.backend import namespace
from miri_gpu.containers import Array, Ramps, Readout
from miri_gpu.detector import N_AMPLIFIERS
from miri_gpu.ramps.emi_harmonics import N_BINS, wave_amplitudes, with_measured_shape
from miri_gpu.ramps.emi_joint import fit_wave
from miri_gpu.ramps.emi_phase_sums import PhaseSums, Walk, phase_sums
from miri_gpu.ramps.emi_sequential import read_wave
from miri_gpu.ramps.emi_settings import (
    EmiParams,
    check_emi,
    check_emi_possible,
    used_algorithm,
)
from miri_gpu.ramps.emi_waves import Clock, EmiReference, EmiWave, SplineWave, TableWave

__all__ = [
    "EmiModel",
    "EmiParams",
    "EmiReference",
    "EmiWave",
    "check_emi",
    "measure_emi",
    "measure_emi_in_blocks",
    "subtract_emi",
    "used_algorithm",
]


@dataclass(frozen=True, eq=False, kw_only=True)
class EmiModel:
    """The interference that was found in a segment: what is subtracted, and how strong it was.

    Attributes
    ----------
    waves : tuple of SplineWave or TableWave
        In the order in which they were found.
    clock : Clock
    amplitude_before, amplitude_after : (n_waves, n_ints) float64 [DN]
        Amplitude of a sine of the same power as the wave in the samples of quiet pixels, before
        and after it was subtracted. Noise adds to both in quadrature.
    """

    waves: tuple[SplineWave | TableWave, ...]
    clock: Clock
    amplitude_before: Array | None = None
    amplitude_after: Array | None = None

    @property
    def frequencies_hz(self) -> tuple[float, ...]:
        """Frequency of each wave."""
        return tuple(wave.wave.frequency_hz for wave in self.waves)

    def integrations(self, ints: slice) -> "EmiModel":
        """Cut to some integrations."""
        return replace(
            self,
            waves=tuple(wave.integrations(ints) for wave in self.waves),
            **{
                name: None if getattr(self, name) is None else getattr(self, name)[:, ints]
                for name in ("amplitude_before", "amplitude_after")
            },
        )


def measure_emi(
    ramps: Ramps,
    reference: EmiReference | None = None,
    *,
    params: EmiParams | None = None,
    readout: Readout = Readout(),  # noqa: B008 - frozen
    integration: Array | None = None,
) -> EmiModel:
    """Measure the interference in a segment that is held in memory; see measure_emi_in_blocks."""
    xp = namespace(ramps.data, ramps.pixeldq)
    if integration is None:
        integration = xp.arange(ramps.data.shape[0])

    def walk(function, n_ints=None):
        ints = slice(0, n_ints)
        part = replace(ramps, data=ramps.data[ints], groupdq=ramps.groupdq[ints])
        return [function(part, ints)]

    return measure_emi_in_blocks(
        walk,
        reference,
        params=params,
        readout=readout,
        integration=integration,
        shape=ramps.data.shape,
    )


def measure_emi_in_blocks(
    walk: Walk,
    reference: EmiReference | None = None,
    *,
    params: EmiParams | None = None,
    readout: Readout = Readout(),  # noqa: B008 - frozen
    integration: Array,
    shape: tuple[int, int, int, int],
) -> EmiModel:
    """Measure the interference in a segment, block by block.

    Wave after wave is found in what the ones before have left. By joint and self_calibrated each
    costs two walks over the segment, by sequential six; the result is the same for any blocks.

    Parameters
    ----------
    walk : Walk
        Walks over blocks of integrations, whole frames of ramps as they are after dq_init. Pixels
        with any flag in pixeldq, or a NaN sample, take no part (in sequential flagged ones do).
    reference : EmiReference or None
        None where there is no reference file: the settings must then say the frequencies.
    params : EmiParams
    readout : Readout
    integration : (n_ints,) int64
        Place of each integration in the segment: not all may be there.
    shape : (n_ints, n_groups, n_rows, n_cols) of the segment

    Returns
    -------
    EmiModel

    Raises
    ------
    ValueError
        Where there are too few groups for what the settings ask, or no wave to look for.

    Notes
    -----
    The emicorr step of the STScI pipeline; self_calibrated, the phase sums' own fit of the wave's
    shape, and the amplitudes before and after are added here.
    """
    params = EmiParams() if params is None else params
    n_groups, n_rows = shape[1:3]
    reference = EmiReference() if reference is None else reference
    check_emi_possible(params, n_groups, readout, has_reference=bool(reference.waves))
    xp = namespace(integration)
    clock = Clock.of(reference, n_groups, n_rows)
    model = EmiModel(waves=(), clock=clock)
    before, after = [], []
    for wave in _wanted(reference, params):
        cleaned = _cleaned(walk, model)
        if used_algorithm(params) == "sequential":
            fitted, strengths = _sequential(
                cleaned, wave, clock, integration, params, n_groups, xp=xp
            )
        else:
            fitted, strengths = _joint(cleaned, wave, clock, integration, params, xp=xp)
        model = replace(model, waves=(*model.waves, fitted))
        before.append(strengths[0])
        after.append(strengths[1])
    return replace(model, amplitude_before=xp.stack(before), amplitude_after=xp.stack(after))


def subtract_emi(ramps: Ramps, model: EmiModel, *, row_start: int = 0, col_start: int = 0) -> Ramps:
    """Subtract the interference from ramps, or from a block of their rows and columns.

    Parameters
    ----------
    ramps : Ramps
        The integrations that the model was measured on (or cut it with EmiModel.integrations).
    model : EmiModel
    row_start, col_start : int
        Row and column of the frame with which the block starts; it has whole rounds of the
        amplifiers.

    Returns
    -------
    Ramps
    """
    xp = namespace(ramps.data)
    n_ints, n_groups, n_rows, n_cols = data_shape = ramps.data.shape
    area = Area.of_shape((n_rows, n_cols), row_start, col_start)
    data = ramps.data
    for wave in model.waves:
        # the last axis of this view is the amplifier: all four see the same wave
        samples = data.reshape(n_ints, n_groups, n_rows, -1, N_AMPLIFIERS)
        corrected = xp.empty_like(samples)
        phase = wave.place_in_frame(model.clock, area)
        for group in range(n_groups):
            noise = wave.noise(model.clock, group, phase)
            corrected[:, group] = samples[:, group] - noise[..., None]
        data = corrected.reshape(data_shape)
    return replace(ramps, data=data)


def _wanted(reference: EmiReference, params: EmiParams) -> tuple[EmiWave, ...]:
    if params.onthefly_corr_freq is None:
        return reference.waves
    return tuple(EmiWave(name=f"{hz:g} Hz", frequency_hz=hz) for hz in params.onthefly_corr_freq)


def _cleaned(walk: Walk, model: EmiModel) -> Walk:
    """The same walk, over ramps without the waves of the model."""
    if not model.waves:
        return walk

    def cleaned(function, n_ints=None):
        return walk(
            lambda ramps, ints: function(subtract_emi(ramps, model.integrations(ints)), ints),
            n_ints,
        )

    return cleaned


def _joint(walk, wave, clock, integration, params, *, xp):
    """Fit a wave together with the ramps; also its strength before and after."""
    measured, separately = params.algorithm == "self_calibrated", params.fit_ints_separately
    n_bins = N_BINS if measured else len(wave.shape_dn)
    sums = phase_sums(walk, wave.period, n_bins, clock, midpoints=not measured, xp=xp)
    if measured:
        wave = with_measured_shape(wave, sums, clock, integration, separately=separately)
    fitted = fit_wave(
        sums,
        wave,
        clock,
        integration,
        separately=separately,
        free_levels=measured,
    )
    left = _without_wave(sums, fitted, clock, xp=xp)
    return fitted, (wave_amplitudes(sums, wave, clock), wave_amplitudes(left, wave, clock))


def _without_wave(sums: PhaseSums, fitted: SplineWave, clock: Clock, *, xp) -> PhaseSums:
    """The sums as they are once the wave has been subtracted from the samples."""
    groups = [
        sums.data[:, group] - sums.n_pixels * fitted.noise(clock, group, sums.phase)
        for group in range(sums.data.shape[1])
    ]
    return replace(sums, data=xp.stack(groups, axis=1))


def _sequential(walk, wave, clock, integration, params, n_groups, *, xp):
    """Read a wave off ramps that were fitted before; also its strength before and after."""
    fitted = read_wave(
        walk,
        wave,
        clock,
        integration,
        n_ints_to_phase=_ints_to_phase(params, wave, clock, len(integration), n_groups),
        n_bins=params.nbins,
        scale_reference=params.scale_reference,
        xp=xp,
    )

    def strength(over):
        sums = phase_sums(over, wave.period, N_BINS, clock, midpoints=False, xp=xp)
        return wave_amplitudes(sums, wave, clock)

    corrected = _cleaned(walk, EmiModel(waves=(fitted,), clock=clock))
    return fitted, (strength(walk), strength(corrected))


def _ints_to_phase(params: EmiParams, wave: EmiWave, clock: Clock, n_ints: int, n_groups: int):
    """Number of integrations that the sequential algorithm looks at."""
    if params.nints_to_phase is not None:
        return min(params.nints_to_phase, n_ints)
    if params.use_n_cycles is None:
        return n_ints
    # the STScI step counts a frame's clocks for each group, and no reset
    cycles = params.use_n_cycles * wave.period / (clock.per_frame * n_groups)
    return min(math.ceil(cycles), n_ints)
