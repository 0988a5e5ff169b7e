"""Waves of electromagnetic interference, and the clock that says which phase a sample sees."""

from dataclasses import dataclass, replace

import numpy as np

from miri_gpu.area import Area
from miri_gpu.backend import namespace
from miri_gpu.containers import Array
from miri_gpu.detector import (
    CLOCK_S,
    CLOCKS_PER_FRAME,
    CLOCKS_PER_ROW,
    DETECTOR_SHAPE,
    N_AMPLIFIERS,
)
from miri_gpu.numerics import spline_terms

_CLOCKS_PER_SKIPPED_ROW = 7  # of the rows outside the subarray


@dataclass(frozen=True, kw_only=True)
class EmiWave:
    """One interfering wave.

    Attributes
    ----------
    name : str
    frequency_hz : float
    shape_dn : tuple of float
        One period at the centres of equal bins [DN]; empty where it is not known.
    """

    name: str
    frequency_hz: float
    shape_dn: tuple[float, ...] = ()

    @property
    def period(self) -> float:
        """Period in clocks."""
        return (1.0 / self.frequency_hz) / CLOCK_S


@dataclass(frozen=True, kw_only=True)
class EmiReference:
    """Which waves to look for in an observation, and how its samples are clocked.

    Attributes
    ----------
    waves : tuple of EmiWave
        In the order in which they are removed, the strongest first.
    clocks_per_row : int
    clocks_per_sample : int
    clocks_per_reset : int
        Between two integrations: one frame, or 0 where none is reset.
    """

    waves: tuple[EmiWave, ...] = ()
    clocks_per_row: int = CLOCKS_PER_ROW
    clocks_per_sample: int = 1
    clocks_per_reset: int = CLOCKS_PER_FRAME


@dataclass(frozen=True, kw_only=True)
class Clock:
    """When the samples of a subarray are taken, in clocks of 10 microseconds.

    Attributes
    ----------
    per_row, per_sample, per_frame, per_integration : int
    """

    per_row: int
    per_sample: int
    per_frame: int
    per_integration: int

    @classmethod
    def of(cls, reference: EmiReference, n_groups: int, n_rows: int) -> "Clock":
        """Clock of whole frames of n_rows rows."""
        n_skipped = DETECTOR_SHAPE[0] - n_rows
        per_frame = n_rows * reference.clocks_per_row + n_skipped * _CLOCKS_PER_SKIPPED_ROW
        return cls(
            per_row=reference.clocks_per_row,
            per_sample=reference.clocks_per_sample,
            per_frame=per_frame,
            per_integration=n_groups * per_frame + reference.clocks_per_reset,
        )

    def in_frame(self, area: Area, *, xp) -> Array:
        """Clock since the start of the frame, (n_rows, n_cols / 4) int64.

        The four amplifiers are read at the same clock; an area has whole rounds of them.
        """
        row = xp.arange(area.rows.start, area.rows.stop, dtype=xp.int64)[:, None]
        edges = (area.columns.start // N_AMPLIFIERS, area.columns.stop // N_AMPLIFIERS)
        return row * self.per_row + xp.arange(*edges) * self.per_sample


class Spline:
    """Cubic spline through one period of a wave, continued by one value at either end.

    Parameters
    ----------
    shape_dn : sequence of float
        The wave at the centres of equal bins of phase.
    """

    def __init__(self, shape_dn, *, xp):
        shape_dn = np.asarray(shape_dn, dtype=np.float64)
        self.n_bins = len(shape_dn)
        values = np.concatenate((shape_dn[-1:], shape_dn, shape_dn[:1]))  # from -0.5 bins on
        terms = spline_terms(values[None])[0, ::-1]  # cubic term first
        self.terms = tuple(xp.asarray(np.ascontiguousarray(term)) for term in terms)

    def at(self, phase: Array) -> Array:
        """Value at any phase [cycles], of the same shape, float64."""
        xp = namespace(phase)
        step = phase - xp.floor(phase)
        step *= self.n_bins
        step += 0.5
        place = step.astype(xp.int64)
        step -= place
        value = xp.take(self.terms[0], place)
        for term in self.terms[1:]:
            value *= step
            value += xp.take(term, place)
        return value


@dataclass(frozen=True, eq=False)
class SplineWave:
    """A wave as a smooth function of phase, with an amplitude and a phase in each integration.

    Attributes
    ----------
    wave : EmiWave
    spline : Spline
        Through the wave's shape.
    amplitude : (n_ints,) float64
        Factor of the wave's shape.
    phase : (n_ints,) float64
        Phase at the start of each integration [cycles].
    """

    wave: EmiWave
    spline: Spline
    amplitude: Array
    phase: Array

    def integrations(self, ints: slice) -> "SplineWave":
        """Cut to some integrations."""
        return replace(self, amplitude=self.amplitude[ints], phase=self.phase[ints])

    def place_in_frame(self, clock: Clock, area: Area) -> Array:
        """Phase since the start of a frame, (n_rows, n_cols / 4) float64 [cycles]."""
        xp = namespace(self.phase)
        return (clock.in_frame(area, xp=xp) / self.wave.period) % 1

    def noise(self, clock: Clock, group: int, phase_in_frame: Array) -> Array:
        """The wave in a group, (n_ints, *shape of the phases) float64 [DN]."""
        by_integration = (slice(None), *(None,) * phase_in_frame.ndim)
        per_group = (clock.per_frame / self.wave.period) % 1
        phase = phase_in_frame + per_group * group + self.phase[by_integration]
        value = self.spline.at(phase)
        value *= self.amplitude[by_integration]
        return value


@dataclass(frozen=True, eq=False)
class TableWave:
    """A wave as a table of its values clock by clock, the same in every integration.

    Attributes
    ----------
    wave : EmiWave
    table : (n_clocks,) float64 [DN]
        Values from phase 0 on; 0 where unknown.
    integration : (n_ints,) int64
        Place of each integration, which with the clock gives its phase.
    """

    wave: EmiWave
    table: Array
    integration: Array

    def integrations(self, ints: slice) -> "TableWave":
        """Cut to some integrations."""
        return replace(self, integration=self.integration[ints])

    def place_in_frame(self, clock: Clock, area: Area) -> Array:
        """Clocks since the start of a frame, (n_rows, n_cols / 4) int64: their phase is exact."""
        return clock.in_frame(area, xp=namespace(self.table))

    def noise(self, clock: Clock, group: int, in_frame: Array) -> Array:
        """The wave in a group, (n_ints, *shape of the clocks) float64 [DN]."""
        xp = namespace(self.table)
        period = self.wave.period
        phase = table_phase(clock, self.integration, group, in_frame, period, xp=xp)
        return xp.take(self.table, (phase * period).astype(xp.int64))


def table_phase(clock, integration, group, in_frame, period, *, xp) -> Array:
    """Phase of samples by their whole clocks, (n_ints, n_rows, n_cols / 4) float64 [cycles]."""
    start = integration * clock.per_integration + group * clock.per_frame
    cycles = (in_frame + start[:, None, None]) / period
    return cycles - xp.floor(cycles)
