"""Raw samples in the memory of a device, and their reduction by the functions of the core.

What is timed here is what the reduction does once it has read: the same functions, on blocks that
are cut as the reduction cuts them.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import reduce
from operator import or_
from pathlib import Path
from typing import Any, Self

import numpy as np

from bench import plain
from bench.sizes import shape
from miri_gpu import detector
from miri_gpu.backend import Backend
from miri_gpu.blocks import Workers
from miri_gpu.containers import Array, Ramps, Rates
from miri_gpu.progress import Silent
from miri_gpu.ramp_blocks import Job, block_halo, cut_block, grown
from miri_gpu.ramp_steps import Block, FrameCorrections, apply_steps
from miri_gpu.ramps_to_rates import Fit, fit_block
from miri_gpu.rates_to_spectra import Extraction, clean_frames, extract_frames
from miri_gpu.raw_samples import decode_samples
from miri_gpu.segments import Segment
from miri_gpu.simulate import SimulationSettings

_MOST_SIMULATED = 20_000_000  # samples, a few seconds' work; the others repeat them
_FRAME, _ALL = slice(0, detector.N_ROWS), slice(None)
BYTES_PER_FRAME = 2 * detector.N_ROWS * detector.N_COLS * 8  # as the reduction counts them


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
        Integrations that were simulated; the others repeat them.
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
        for first in range(0, settings.n_ints, n_distinct):
            raw[first : first + n_distinct] = few[: settings.n_ints - first]
        return cls(raw, segment, job_of(segment, settings, backend), n_distinct)

    def ramps(self, rows: slice = _FRAME, ints: slice = _ALL) -> Ramps:
        """Some rows of some integrations as they enter the first step."""
        xp = self.job.backend.xp
        data = decode_samples(self.raw[ints, :, rows], xp=xp)
        return Ramps(
            data=data,
            groupdq=xp.zeros(data.shape, dtype=xp.uint8),
            pixeldq=xp.zeros(data.shape[2:], dtype=xp.uint32),
        )

    def block(self, rows: slice = _FRAME, ints: slice = _ALL) -> Block:
        """What belongs to them; nothing was measured on whole frames, no step needs it."""
        job, numbers = self.job, np.arange(self.raw.shape[0])[ints]
        readout = self.segment.readout_of(numbers)
        dropped = job.plan.dropped_groups(len(numbers), readout)
        return Block(
            recipe=job.recipe,
            calibration=job.calibration.rows(rows),
            readout=readout,
            dropped=job.backend.xp.asarray(dropped),
            median_gain=job.median_gain,
            frames=FrameCorrections(),
            first_row=rows.start,
        )

    @property
    def bytes_per_row(self) -> int:
        """Of all integrations and groups, as float32."""
        return self.raw.shape[0] * self.raw.shape[1] * detector.N_COLS * 4

    def row_blocks(self) -> list[slice]:
        """Rows as the reduction takes them, with all integrations."""
        workers = self.job.workers.fitting(self.bytes_per_row)
        return workers.cut(0, detector.N_ROWS, self.bytes_per_row)

    def passes(self, rows: slice) -> list[slice]:
        """Integrations that go through the first steps together, of some rows."""
        n_ints = self.raw.shape[0]
        n_rows = rows.stop - rows.start
        return self.job.workers.passes(n_ints, n_rows * self.bytes_per_row // n_ints)


def job_of(segment: Segment, settings: SimulationSettings, backend: Backend) -> Job:
    """What the reduction of a plain segment shares, with the linearity of the reference."""
    changes = {"custom_linearity": {"skip": True}}
    plan = plain.plan(segment, settings, backend, changes=changes)
    return Job(
        plan=plan,
        calibration=plan.calibration.to(backend),
        workers=Workers.of(backend),
        progress=Silent(),
    )


def samples_to_rates(source: Source) -> Rates:
    """Calibrate and fit all ramps, in blocks of rows with all integrations."""

    def fit(rows: slice) -> Rates:
        ramps, block = calibrated(source, rows)
        return fit_block(apply_steps(ramps, block, start="time_jump"), block).rates

    found = _in_blocks(fit, source.row_blocks(), source.job)
    xp = source.job.backend.xp
    names = [name for name, plane in vars(found[0]).items() if plane is not None]
    return Rates(**{n: xp.concatenate([getattr(r, n) for r in found], axis=1) for n in names})


def calibrated(source: Source, rows: slice) -> tuple[Ramps, Block]:
    """Some rows as they enter the search for jumps, with what belongs to them.

    Some integrations at a time, with the rows around that the steps look at; the search for jumps
    of the recipes looks at none.
    """
    around = grown(rows, block_halo(source.job.recipe, source.segment.readout))
    parts = []
    for ints in source.passes(around):
        block = source.block(around, ints)
        ramps = apply_steps(source.ramps(around, ints), block, stop="reset")
        ramps, block = cut_block(ramps, block, around, rows)
        parts.append(apply_steps(ramps, block, start="reset", stop="time_jump"))
    return _joined(parts, xp=source.job.backend.xp), source.block(rows)


def _joined(parts: list[Ramps], *, xp) -> Ramps:
    """One after the other; what flags a pixel in one of them flags it."""
    if len(parts) == 1:
        return parts[0]
    return Ramps(
        data=xp.concatenate([part.data for part in parts]),
        groupdq=xp.concatenate([part.groupdq for part in parts]),
        pixeldq=reduce(or_, [part.pixeldq for part in parts]),
    )


def rates_to_spectra(rates: Rates, source: Source) -> Extraction:
    """Clean and extract all frames, in blocks of integrations."""
    job = source.job
    exposure_time_s = job.plan.used_time_s(source.segment)

    def extract(ints: slice) -> Extraction:
        fit = Fit(rates=rates.map(lambda plane: plane[ints]))
        return extract_frames(clean_frames(fit.rates, job), fit, job, exposure_time_s)

    blocks = job.workers.passes(rates.data.shape[0], BYTES_PER_FRAME)
    return Extraction.concatenated(_in_blocks(extract, blocks, job))


def _in_blocks(work: Callable, blocks: list[slice], job: Job) -> list:
    """What the work gives for each block, in their order."""
    found: dict[int, Any] = {}

    def keep(block: slice) -> None:
        found[block.start] = work(block)

    job.workers.run(keep, blocks, job.progress.advance)
    return [found[start] for start in sorted(found)]
