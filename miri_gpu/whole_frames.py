"""What is measured on whole frames, before the blocks of rows, which cannot see it.

Segments are walked in blocks of integrations, as often as it takes; what is kept is small.
"""

from collections.abc import Callable
from dataclasses import replace

import numpy as np

from miri_gpu import detector
from miri_gpu.area import Area
from miri_gpu.background import measure_group_background
from miri_gpu.containers import Array
from miri_gpu.groups_in_use import flags_differ
from miri_gpu.job import Job
from miri_gpu.ramp_blocks import block_of, read_ramps
from miri_gpu.ramp_steps import MEASURED_ON_FRAMES, apply_steps
from miri_gpu.ramps.emi import EmiModel, measure_emi_in_blocks
from miri_gpu.ramps.reference_pixels import measure_reference_pixels, subtract_reference_pixels
from miri_gpu.recipe import Recipe
from miri_gpu.stretches import MeasuredFrames, Stretch


def measures_frames(recipe: Recipe) -> bool:
    """Whether a recipe asks for anything that is measured on whole frames."""
    return recipe.runs("emicorr") or _measures_after_interference(recipe)


def _measures_after_interference(recipe: Recipe) -> bool:
    return flags_differ(recipe) or any(map(recipe.runs, _MEASURED_AFTERWARDS))


def measure_frames(stretch: Stretch, job: Job) -> MeasuredFrames:
    """Measure on whole frames of a stretch what the steps of the recipe need."""
    recipe, xp, n_ints = job.recipe, job.backend.xp, len(stretch.integrations)
    emi = emi_of(stretch, job)
    if not _measures_after_interference(recipe):
        return MeasuredFrames(emi=emi)
    stretch = replace(stretch, frames=MeasuredFrames(emi=emi))
    _, first = _measure_block(stretch.part(slice(0, 1)), job)  # shows what there will be
    planes = {name: ((n_ints, *array.shape[1:]), array.dtype) for name, array in first.items()}
    store = job.room.store(planes, xp=xp)
    dropped: dict[int, Array | None] = {}

    def measure(ints: slice) -> None:
        dropped[ints.start], corrections = _measure_block(stretch.part(ints), job)
        store.put(ints, corrections)

    blocks = _blocks_of_frames(stretch, n_ints, job)
    job.progress.start(f"{stretch.segment.path.name}: whole-frame corrections", len(blocks))
    job.workers.run(measure, blocks, job.progress.advance)
    parts = [dropped[start] for start in sorted(dropped)]
    return MeasuredFrames(
        emi=emi, dropped=None if parts[0] is None else xp.concatenate(parts), kept=store
    )


def emi_of(stretch: Stretch, job: Job) -> EmiModel | None:
    """The interference in a stretch, measured once for the whole segment."""
    if not job.recipe.runs("emicorr"):
        return None
    kept, everything = stretch.integrations, job.plan.integrations(stretch.segment)
    if stretch.segment.path not in job.emi:
        whole = stretch if len(kept) == len(everything) else Stretch(stretch.segment, everything)
        job.emi[stretch.segment.path] = _measure_emi(whole, job)
    first = int(np.searchsorted(everything, kept[0]))
    return job.emi[stretch.segment.path].integrations(slice(first, first + len(kept)))


def _measure_emi(stretch: Stretch, job: Job) -> EmiModel:
    segment, n_ints = stretch.segment, len(stretch.integrations)

    def walk(function: Callable, n_most: int | None = None) -> list:
        n_walked = n_ints if n_most is None else min(n_most, n_ints)
        blocks = _blocks_of_frames(stretch, n_walked, job)
        found = {}

        def work(ints: slice) -> None:
            part = stretch.part(ints)
            ramps = read_ramps(part, Area(), job)
            ramps = apply_steps(ramps, block_of(part, Area(), job), stop="emicorr")
            found[ints.start] = function(ramps, ints)

        job.progress.start(f"{segment.path.name}: interference", len(blocks))
        job.workers.run(work, blocks, job.progress.advance)
        return [found[start] for start in sorted(found)]

    return measure_emi_in_blocks(
        walk,
        job.calibration.emicorr,
        params=job.recipe["emicorr"],
        readout=segment.readout,
        integration=job.backend.xp.asarray(stretch.integrations),
        shape=(n_ints, segment.n_groups, detector.N_ROWS, detector.N_COLS),
    )


def _measure_block(stretch: Stretch, job: Job) -> tuple[Array | None, dict[str, Array]]:
    """Walk some whole frames through the steps, and keep what the blocks of rows will need.

    Returns
    -------
    dropped : (n_ints, n_groups) bool, or None
        As MeasuredFrames has it.
    corrections : dict of name in FrameCorrections to array
    """
    recipe, xp = job.recipe, job.backend.xp
    ramps, block = read_ramps(stretch, Area(), job), block_of(stretch, Area(), job)
    ramps = apply_steps(ramps, block, stop="reference_pixel")
    dropped, corrections = None, {}
    if flags_differ(recipe):
        dropped = ((ramps.groupdq & detector.DO_NOT_USE) != 0).all(axis=(2, 3))
    if recipe.runs("reference_pixel"):
        drifts = measure_reference_pixels(ramps, params=recipe["reference_pixel"])
        ramps = subtract_reference_pixels(ramps, drifts)
        corrections["reference_pixels"] = drifts
    if recipe.runs("group_background_subtract"):
        unusable = ramps.groupdq | (ramps.pixeldq & detector.DO_NOT_USE).astype(xp.uint8)
        corrections["background"] = measure_group_background(
            ramps.data, unusable, params=recipe["group_background_subtract"]
        )
    return dropped, corrections


def _blocks_of_frames(stretch: Stretch, n_ints: int, job: Job) -> list[slice]:
    n_groups = stretch.segment.n_groups
    return job.workers.cut(0, n_ints, n_groups * detector.N_ROWS * detector.N_COLS * 4)


_MEASURED_AFTERWARDS = [step for step in MEASURED_ON_FRAMES if step != "emicorr"]
