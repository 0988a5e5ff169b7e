"""Raw samples in the memory of a device, and their reduction by the functions of the core.

What is timed here is what the reduction does once it has read: the same functions, on blocks that
are cut as the reduction cuts them.
"""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Self

import numpy as np

from bench import plain
from bench.sizes import shape
from miri_gpu import detector
from miri_gpu.area import ALL_ROWS, Area
from miri_gpu.backend import Backend
from miri_gpu.containers import Array, Ramps, Rates
from miri_gpu.job import Job
from miri_gpu.ramp_blocks import block_of, read_ramps
from miri_gpu.ramp_steps import Block
from miri_gpu.ramps_to_rates import Fit, segment_to_rates
from miri_gpu.row_walks import RowWalk
from miri_gpu.segments import Segment
from miri_gpu.simulate import SimulationSettings
from miri_gpu.stretches import Stretch

_MOST_SIMULATED = 20_000_000  # samples, a few seconds' work; the others repeat them
_NOISE_FRAMES = 97  # a prime number: whole integrations hardly ever have the same ones again
_ALL = slice(None)  # integrations


@dataclass(frozen=True, eq=False)
class Source:
    """Raw samples, and all that their reduction needs.

    Attributes
    ----------
    raw : (n_ints, n_groups, n_rows, n_cols) uint16
        As they lie on disk, in the memory of the device.
    segment : Segment
        That they could have come from.
    job : Job
    n_distinct : int
        Integrations that were simulated; the others repeat them, with more noise.
    """

    raw: Array
    segment: Segment
    job: Job
    n_distinct: int

    @classmethod
    def simulated(cls, settings: SimulationSettings, backend: Backend) -> Self:
        """An observation that never sees a disk."""
        segment = plain.segment(Path("in memory"), settings)
        n_most = _MOST_SIMULATED // (settings.n_groups * detector.N_ROWS * detector.N_COLS)
        n_distinct = min(settings.n_ints, max(1, n_most))
        simulated = plain.simulated_samples(replace(settings, n_ints=n_distinct))
        stored = b"".join(map(plain.as_stored, simulated))
        few = backend.to_device(
            np.frombuffer(stored, np.uint16).reshape(n_distinct, *shape(settings)[1:])
        )
        raw = backend.xp.empty(shape(settings), dtype=np.uint16)
        raw[:n_distinct] = few
        noise = backend.to_device(
            np.random.default_rng(1).integers(-8, 9, (_NOISE_FRAMES, *raw.shape[2:]), np.int16)
        )
        for first in range(n_distinct, settings.n_ints, n_distinct):
            here = slice(first, min(first + n_distinct, settings.n_ints))
            raw[here] = _noisier(few[: here.stop - first], first, noise, xp=backend.xp)
        return cls(raw, segment, job_of(segment, settings, backend), n_distinct)

    @property
    def stretch(self) -> Stretch:
        """All integrations, their samples on the device."""
        return Stretch(self.segment, np.arange(self.raw.shape[0]), held=self.raw)

    def ramps(self, rows: slice = ALL_ROWS, ints: slice = _ALL) -> Ramps:
        """Some rows of some integrations as they enter the first step."""
        return read_ramps(self._part(ints), Area(rows), self.job)

    def block(self, rows: slice = ALL_ROWS, ints: slice = _ALL) -> Block:
        """What belongs to them; nothing was measured on whole frames, no step needs it."""
        return block_of(self._part(ints), Area(rows), self.job)

    def _part(self, ints: slice) -> Stretch:
        start, stop, _ = ints.indices(self.raw.shape[0])
        return self.stretch.part(slice(start, stop))

    def walk(self) -> RowWalk:
        """Over all rows, as the reduction walks a segment that it has read."""
        return RowWalk(self.segment, self.job, [ALL_ROWS], iter([self.stretch]))

    def rates(self) -> Rates:
        """All ramps, calibrated and fitted by the reduction, on the device."""
        return Fit.of(segment_to_rates(self.walk()).take(_ALL)).rates


def _noisier(raw: Array, first: int, frames: Array, *, xp) -> Array:
    """Samples as they lie on disk, with frames of noise, by the number of the integration."""
    n_ints, n_groups = raw.shape[:2]
    number = xp.arange(first * n_groups, (first + n_ints) * n_groups) % _NOISE_FRAMES
    samples = ((raw << 8 | raw >> 8) ^ 0x8000).astype(np.int32)
    samples += frames[number.reshape(n_ints, n_groups)]
    stored = xp.clip(samples, 0, 65535).astype(np.uint16) ^ np.uint16(0x8000)
    return stored << 8 | stored >> 8


def job_of(segment: Segment, settings: SimulationSettings, backend: Backend) -> Job:
    """What the reduction of a plain segment shares, with the linearity of the reference."""
    changes = {"custom_linearity": {"skip": True}}
    plan = plain.plan(segment, settings, backend, changes=changes)
    return Job.of(plan)
