"""Raw samples in the memory of a device, and their reduction by the functions of the core.

What is timed here is what the reduction does once it has read: the same functions, on blocks that
are cut as the reduction cuts them.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
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
from miri_gpu.ramp_blocks import Job, cut_block, grown, jump_halo
from miri_gpu.ramp_steps import Block, FrameCorrections, apply_steps
from miri_gpu.ramps import saturation
from miri_gpu.ramps_to_rates import fit_block
from miri_gpu.rates_to_spectra import Extraction, clean_frames, extract_frames
from miri_gpu.segments import Segment, decode_samples
from miri_gpu.simulate import SimulationSettings

_MOST_SIMULATED = 20_000_000  # samples, a few seconds' work; the others repeat them
_FRAME = slice(0, detector.N_ROWS)


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

    def block(self, rows: slice = _FRAME, ints: slice = slice(None)) -> tuple[Ramps, Block]:
        """Some rows of some integrations as they enter the first step, with what belongs to them.

        Nothing was measured on whole frames: steps that need it are not among those that run.
        """
        job, xp = self.job, self.job.backend.xp
        readout = self.segment.readout_of(np.arange(self.raw.shape[0])[ints])
        data = decode_samples(self.raw[ints, :, rows], xp=xp)
        ramps = Ramps(
            data=data,
            groupdq=xp.zeros(data.shape, dtype=xp.uint8),
            pixeldq=xp.zeros(data.shape[2:], dtype=xp.uint32),
        )
        block = Block(
            recipe=job.recipe,
            calibration=job.calibration.rows(rows),
            readout=readout,
            dropped=xp.asarray(job.plan.dropped_groups(data.shape[0], readout)),
            median_gain=job.median_gain,
            frames=FrameCorrections(),
            first_row=rows.start,
        )
        return ramps, block


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
    job = source.job
    n_ints, n_groups = source.raw.shape[:2]
    blocks = job.workers.cut(0, detector.N_ROWS, n_ints * n_groups * detector.N_COLS * 4)
    found = _in_blocks(lambda rows: _rows_to_rates(source, rows), blocks, job)
    xp = job.backend.xp
    names = [name for name, plane in vars(found[0]).items() if plane is not None]
    return Rates(**{n: xp.concatenate([getattr(r, n) for r in found], axis=1) for n in names})


def _rows_to_rates(source: Source, rows: slice) -> Rates:
    """The steps on some rows, with as many around them as the steps look at."""
    recipe = source.job.recipe
    inner = grown(rows, jump_halo(recipe))
    outer = grown(inner, saturation.halo_rows(recipe["saturation"], source.segment.readout))
    ramps, block = source.block(outer)
    ramps = apply_steps(ramps, block, stop="reset")
    ramps, block = cut_block(ramps, block, outer, inner)
    ramps = apply_steps(ramps, block, start="reset")
    ramps, block = cut_block(ramps, block, inner, rows)
    return fit_block(ramps, block).rates


def rates_to_spectra(rates: Rates, source: Source) -> Extraction:
    """Clean and extract all frames, in blocks of integrations."""
    job = source.job
    exposure_time_s = job.plan.used_time_s(source.segment)
    bytes_per_frame = 2 * detector.N_ROWS * detector.N_COLS * 8
    blocks = job.workers.cut(0, rates.data.shape[0], bytes_per_frame)

    def extract(ints: slice) -> Extraction:
        frames = clean_frames(rates.map(lambda plane: plane[ints]), job)
        return extract_frames(frames, job, exposure_time_s)

    return Extraction.concatenated(_in_blocks(extract, blocks, job))


def _in_blocks(work: Callable, blocks: list[slice], job: Job) -> list:
    """What the work gives for each block, in their order."""
    found: dict[int, Any] = {}

    def keep(block: slice) -> None:
        found[block.start] = work(block)

    job.workers.run(keep, blocks, job.progress.advance)
    return [found[start] for start in sorted(found)]
