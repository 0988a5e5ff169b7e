"""Blocks of ramps: read from a stretch, with all that belongs to them, and calibrated.

A block holds an area of some integrations, with all their groups.
"""

import math
from dataclasses import replace

from miri_gpu import raw_calibration
from miri_gpu.area import ALL_COLUMNS, Area
from miri_gpu.containers import Array, Ramps, Readout
from miri_gpu.groups_in_use import regrouped
from miri_gpu.job import Job
from miri_gpu.ramp_steps import Block, apply_steps, cut_ramps, steps_before
from miri_gpu.ramps import jumps, saturation
from miri_gpu.raw_calibration import RawCalibration
from miri_gpu.raw_samples import decode_samples
from miri_gpu.recipe import Recipe
from miri_gpu.stretches import Stretch, read_samples


def load_ramps(stretch: Stretch, area: Area, job: Job, stop: str) -> tuple[Ramps, Block]:
    """Read an area and apply the steps up to `stop`.

    These steps take each integration by itself, and so do we, as many at a time as go fast.

    Raises
    ------
    ValueError
        Where steps that need whole rows are among them and the area has some columns only.
    """
    if area.columns != ALL_COLUMNS and "reference_pixel" in steps_before(stop):
        raise ValueError(f"columns: expected all of them for the steps before {stop}, got {area}")
    outer = area.grown(_saturation_halo(job.recipe, stretch.segment.readout))
    inner = area.within(outer)
    bytes_per_int = stretch.segment.n_groups * math.prod(outer.shape) * 4
    passes = job.workers.passes(len(stretch.integrations), bytes_per_int)
    block = block_of(stretch, outer, job)
    if raw_calibration.runs_on(stretch.segment.samples.travelling_dtype, block, stop):
        ramps = _calibrate_raw(stretch, block, outer, inner, job, stop, passes)
    else:
        ramps = _apply_in_passes(stretch, outer, inner, job, stop, passes)
    return ramps, block.cut(inner)


def _calibrate_raw(stretch, block, outer, inner, job, stop, passes) -> Ramps:
    """Read the area `outer`, that of the block, and apply the steps to `inner` in it, at once."""
    xp, n_ints, n_groups = job.backend.xp, len(stretch.integrations), stretch.segment.n_groups
    calibrate = RawCalibration.of(block, inner, (n_ints, n_groups), stop, xp=xp)
    ramps = empty_ramps((n_ints, n_groups), inner, xp=xp)
    ramps = replace(ramps, pixeldq=calibrate.correction.pixeldq)
    for ints in passes:
        raw = _samples_of(stretch.part(ints), outer, job)
        out = replace(ramps, data=ramps.data[ints], groupdq=ramps.groupdq[ints])
        calibrate(raw, ints.start, out, xp=xp)
    return ramps


def _apply_in_passes(stretch, outer, inner, job, stop, passes) -> Ramps:
    """Read the area `outer` and apply the steps to `inner` in it, one after the other."""
    whole = None
    for ints in passes:
        part = stretch.part(ints)
        block = block_of(part, outer, job)
        ramps = apply_steps(read_ramps(part, outer, job), block, stop="reset")
        ramps, block = cut_ramps(ramps, inner), block.cut(inner)
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


def empty_ramps(shape: tuple[int, int], area: Area, *, xp) -> Ramps:
    """Ramps to be filled, (n_ints, n_groups) of an area; no pixel is flagged."""
    return Ramps(
        data=xp.empty((*shape, *area.shape), dtype=xp.float32),
        groupdq=xp.empty((*shape, *area.shape), dtype=xp.uint8),
        pixeldq=xp.zeros(area.shape, dtype=xp.uint32),
    )


def read_ramps(stretch: Stretch, area: Area, job: Job) -> Ramps:
    """Read the samples of an area to the device, nothing flagged."""
    xp = job.backend.xp
    data = decode_samples(_samples_of(stretch, area, job), xp=xp)
    return Ramps(
        data=data,
        groupdq=xp.zeros(data.shape, dtype=xp.uint8),
        pixeldq=xp.zeros(data.shape[2:], dtype=xp.uint32),
    )


def _samples_of(stretch: Stretch, area: Area, job: Job) -> Array:
    """Samples of an area as they travel; of some columns without gaps, as kernels take them."""
    raw = read_samples(stretch, area.rows, job)
    if area.columns == ALL_COLUMNS:
        return raw
    return job.backend.xp.ascontiguousarray(raw[..., area.columns])


def block_of(stretch: Stretch, area: Area, job: Job) -> Block:
    """What belongs to an area, beside its samples, on the device."""
    start = stretch.first_measured
    ints = slice(start, start + len(stretch.integrations))
    if stretch.frames.dropped is None:
        dropped = job.plan.dropped_groups(stretch.segment, stretch.integrations)
        dropped = job.backend.xp.asarray(dropped)
    else:
        dropped = regrouped(stretch.frames.dropped[ints], job.recipe)
    return Block(
        recipe=job.recipe,
        calibration=job.calibration.cut(area),
        readout=stretch.readout,
        dropped=dropped,
        median_gain=job.median_gain,
        frames=stretch.frames.cut(ints, area.rows),
        first_row=area.rows.start,
        first_column=area.columns.start,
    )


def jump_halo(recipe: Recipe) -> int:
    """Rows beyond a block that the jump step needs to flag its neighbours."""
    return jumps.halo_rows(recipe["jump"]) if recipe.runs("jump") else 0


def block_halo(recipe: Recipe, readout: Readout) -> int:
    """Rows beyond a block that all steps need."""
    return jump_halo(recipe) + _saturation_halo(recipe, readout)


def _saturation_halo(recipe: Recipe, readout: Readout) -> int:
    """Pixels beyond a block from which saturation spills over."""
    return saturation.halo_pixels(recipe["saturation"], readout) if recipe.runs("saturation") else 0
