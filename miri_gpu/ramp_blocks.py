"""Blocks of ramps: read from a segment, with all that belongs to them, and calibrated.

A block holds some rows of some integrations, with all their groups.
"""

from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

import numpy as np

from miri_gpu import detector
from miri_gpu.backend import Backend, to_host
from miri_gpu.blocks import Workers
from miri_gpu.calibration import Calibration
from miri_gpu.containers import Ramps, Readout
from miri_gpu.groups_in_use import regrouped
from miri_gpu.plan import Plan
from miri_gpu.progress import Progress
from miri_gpu.ramp_steps import Block, FrameCorrections, apply_steps, cut_rows
from miri_gpu.ramps import jumps, saturation
from miri_gpu.ramps.emi import EmiModel
from miri_gpu.ramps.self_calibration import LinearityCalibration
from miri_gpu.recipe import Recipe
from miri_gpu.segments import Segment, decode_samples, encoded_samples


@dataclass(frozen=True)
class Job:
    """What the reduction of every segment of an observation shares.

    Attributes
    ----------
    plan : Plan
    calibration : Calibration
        On the device of the backend.
    workers : Workers
    progress : Progress
    linearity : LinearityCalibration or None
        Where the non-linearity was measured on the observation, on the host.
    emi : dict of EmiModel by path of the segment
        The interference in all integrations of the segments in which it was measured so far.
    """

    plan: Plan
    calibration: Calibration
    workers: Workers
    progress: Progress
    linearity: LinearityCalibration | None = None
    emi: dict[Path, EmiModel] = field(default_factory=dict)

    @property
    def recipe(self) -> Recipe:
        """Which steps run, and how."""
        return self.plan.recipe

    @property
    def backend(self) -> Backend:
        """What computes."""
        return self.plan.backend

    @cached_property
    def median_gain(self) -> float:
        """Median gain of the whole frame [e-/DN]."""
        return float(np.nanmedian(to_host(self.calibration.gain)))


@dataclass(frozen=True)
class Stretch:
    """Successive integrations of a segment, with what was measured on their whole frames."""

    segment: Segment
    integrations: np.ndarray  # indices in the segment
    frames: FrameCorrections

    @property
    def readout(self) -> Readout:
        """The segment's readout, of these integrations."""
        return self.segment.readout_of(self.integrations)


def load_rows(stretch: Stretch, rows: slice, job: Job, stop: str) -> tuple[Ramps, Block]:
    """Read some rows and apply the steps up to `stop`; the jump step's halo rows are kept."""
    recipe = job.recipe
    n_jump = jump_halo(recipe)
    n_grow = 0
    if recipe.runs("saturation"):
        n_grow = saturation.halo_rows(recipe["saturation"], stretch.segment.readout)
    outer, inner = grown(rows, n_jump + n_grow), grown(rows, n_jump)
    ramps, block = read_block(stretch, outer, job)
    ramps = apply_steps(ramps, block, stop="reset")
    ramps, block = cut_block(ramps, block, outer, inner)
    return apply_steps(ramps, block, start="reset", stop=stop), block


def read_block(stretch: Stretch, rows: slice, job: Job) -> tuple[Ramps, Block]:
    """Read some rows of some integrations to the device, with all that belongs to them."""
    xp = job.backend.xp
    segment, integrations = stretch.segment, stretch.integrations
    raw = segment.read_samples(rows, integrations)
    data = decode_samples(job.backend.to_device(encoded_samples(raw)), xp=xp)
    ramps = Ramps(
        data=data,
        groupdq=xp.zeros(data.shape, dtype=xp.uint8),
        pixeldq=xp.zeros(data.shape[2:], dtype=xp.uint32),
    )
    dropped = stretch.frames.dropped
    if dropped is None:
        nominal = job.plan.dropped_groups(len(integrations), stretch.readout)
        dropped = xp.asarray(nominal)
    else:
        dropped = regrouped(dropped, job.recipe)
    block = Block(
        recipe=job.recipe,
        calibration=job.calibration.rows(rows),
        readout=stretch.readout,
        dropped=dropped,
        median_gain=job.median_gain,
        frames=stretch.frames.rows(rows),
        first_row=rows.start,
    )
    return ramps, block


def jump_halo(recipe: Recipe) -> int:
    """Rows beyond a block that the jump step needs to flag its neighbours."""
    return jumps.halo_rows(recipe["jump"]) if recipe.runs("jump") else 0


def grown(rows: slice, n_halo: int) -> slice:
    """The rows and a halo around them, within the frame."""
    return slice(max(rows.start - n_halo, 0), min(rows.stop + n_halo, detector.N_ROWS))


def cut_block(ramps: Ramps, block: Block, outer: slice, inner: slice) -> tuple[Ramps, Block]:
    """Cut the ramps and all that belongs to them from the outer to the inner rows."""
    rows = slice(inner.start - outer.start, inner.stop - outer.start)
    return cut_rows(ramps, rows), block.rows(rows)
