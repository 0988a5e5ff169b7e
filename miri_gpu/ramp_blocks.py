"""Blocks of ramps: read from a stretch, with all that belongs to them, and calibrated.

A block holds some rows of some integrations, with all their groups.
"""

from dataclasses import replace

from miri_gpu import detector, raw_calibration
from miri_gpu.containers import Ramps, Readout
from miri_gpu.groups_in_use import regrouped
from miri_gpu.job import Job
from miri_gpu.ramp_steps import Block, apply_steps, cut_rows
from miri_gpu.ramps import jumps, saturation
from miri_gpu.raw_calibration import RawCalibration
from miri_gpu.raw_samples import decode_samples
from miri_gpu.recipe import Recipe
from miri_gpu.stretches import Stretch, read_samples

ALL_ROWS = slice(0, detector.N_ROWS)


def load_rows(stretch: Stretch, rows: slice, job: Job, stop: str) -> tuple[Ramps, Block]:
    """Read some rows and apply the steps up to `stop`; the jump step's halo rows are kept.

    These steps take each integration by itself, and so do we, as many at a time as go fast.
    """
    n_jump = jump_halo(job.recipe)
    n_grow = block_halo(job.recipe, stretch.segment.readout) - n_jump
    outer, inner = grown(rows, n_jump + n_grow), grown(rows, n_jump)
    bytes_per_int = stretch.segment.n_groups * (outer.stop - outer.start) * detector.N_COLS * 4
    passes = job.workers.passes(len(stretch.integrations), bytes_per_int)
    block = block_of(stretch, outer, job)
    if raw_calibration.runs_on(stretch.segment.samples.travelling_dtype, block, stop):
        ramps = _calibrate_raw(stretch, block, outer, inner, job, stop, passes)
    else:
        ramps = _apply_in_passes(stretch, outer, inner, job, stop, passes)
    return ramps, block.rows(within(inner, outer))


def _calibrate_raw(stretch, block, outer, inner, job, stop, passes) -> Ramps:
    """Read the rows `outer`, those of the block, and apply the steps to `inner`, all at once."""
    xp, n_ints, n_groups = job.backend.xp, len(stretch.integrations), stretch.segment.n_groups
    calibrate = RawCalibration.of(block, within(inner, outer), (n_ints, n_groups), stop, xp=xp)
    ramps = empty_ramps((n_ints, n_groups), inner, xp=xp)
    ramps = replace(ramps, pixeldq=calibrate.correction.pixeldq)
    for ints in passes:
        raw = read_samples(stretch.part(ints), outer, job)
        out = replace(ramps, data=ramps.data[ints], groupdq=ramps.groupdq[ints])
        calibrate(raw, ints.start, out, xp=xp)
    return ramps


def _apply_in_passes(stretch, outer, inner, job, stop, passes) -> Ramps:
    """Read the rows `outer` and apply the steps to `inner`, one after the other."""
    whole = None
    for ints in passes:
        part = stretch.part(ints)
        block = block_of(part, outer, job)
        ramps = apply_steps(read_ramps(part, outer, job), block, stop="reset")
        ramps, block = cut_block(ramps, block, outer, inner)
        ramps = apply_steps(ramps, block, start="reset", stop=stop)
        if len(passes) == 1:
            return ramps
        n_parts = ramps.data.shape[0] // (ints.stop - ints.start)
        if whole is None:
            shape = (len(stretch.integrations) * n_parts, ramps.data.shape[1])
            whole = empty_ramps(shape, inner, xp=job.backend.xp)
        place = slice(ints.start * n_parts, ints.stop * n_parts)
        whole.data[place], whole.groupdq[place] = ramps.data, ramps.groupdq
        whole = replace(whole, pixeldq=whole.pixeldq | ramps.pixeldq)  # one may flag a pixel
    return whole


def empty_ramps(shape: tuple[int, int], rows: slice, *, xp) -> Ramps:
    """Ramps to be filled, (n_ints, n_groups) of some rows; no pixel is flagged."""
    image = (rows.stop - rows.start, detector.N_COLS)
    return Ramps(
        data=xp.empty((*shape, *image), dtype=xp.float32),
        groupdq=xp.empty((*shape, *image), dtype=xp.uint8),
        pixeldq=xp.zeros(image, dtype=xp.uint32),
    )


def read_ramps(stretch: Stretch, rows: slice, job: Job) -> Ramps:
    """Read the samples of some rows to the device, nothing flagged."""
    xp = job.backend.xp
    data = decode_samples(read_samples(stretch, rows, job), xp=xp)
    return Ramps(
        data=data,
        groupdq=xp.zeros(data.shape, dtype=xp.uint8),
        pixeldq=xp.zeros(data.shape[2:], dtype=xp.uint32),
    )


def block_of(stretch: Stretch, rows: slice, job: Job) -> Block:
    """What belongs to some rows, beside their samples, on the device."""
    start = stretch.first_measured
    ints = slice(start, start + len(stretch.integrations))
    if stretch.frames.dropped is None:
        dropped = job.plan.dropped_groups(stretch.segment, stretch.integrations)
        dropped = job.backend.xp.asarray(dropped)
    else:
        dropped = regrouped(stretch.frames.dropped[ints], job.recipe)
    return Block(
        recipe=job.recipe,
        calibration=job.calibration.rows(rows),
        readout=stretch.readout,
        dropped=dropped,
        median_gain=job.median_gain,
        frames=stretch.frames.cut(ints, rows),
        first_row=rows.start,
    )


def jump_halo(recipe: Recipe) -> int:
    """Rows beyond a block that the jump step needs to flag its neighbours."""
    return jumps.halo_rows(recipe["jump"]) if recipe.runs("jump") else 0


def block_halo(recipe: Recipe, readout: Readout) -> int:
    """Rows beyond a block that all steps need."""
    n_grow = 0
    if recipe.runs("saturation"):
        n_grow = saturation.halo_rows(recipe["saturation"], readout)
    return jump_halo(recipe) + n_grow


def grown(rows: slice, n_halo: int) -> slice:
    """The rows and a halo around them, within the frame."""
    return slice(max(rows.start - n_halo, 0), min(rows.stop + n_halo, detector.N_ROWS))


def within(inner: slice, outer: slice) -> slice:
    """Some rows, counted from the first of others that are around them."""
    return slice(inner.start - outer.start, inner.stop - outer.start)


def cut_block(ramps: Ramps, block: Block, outer: slice, inner: slice) -> tuple[Ramps, Block]:
    """Cut the ramps and all that belongs to them from the outer to the inner rows."""
    rows = within(inner, outer)
    return cut_rows(ramps, rows), block.rows(rows)
