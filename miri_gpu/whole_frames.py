"""What is measured on whole frames, before the blocks of rows, which cannot see it.

Segments are walked in blocks of integrations, as often as it takes; what is kept is small.
"""

from collections.abc import Callable

import numpy as np

from miri_gpu import detector
from miri_gpu.background import measure_background
from miri_gpu.containers import Array
from miri_gpu.groups_in_use import flags_differ
from miri_gpu.ramp_blocks import Job, MeasuredFrames, Stretch, block_of, read_ramps
from miri_gpu.ramp_steps import MEASURED_ON_FRAMES, FrameCorrections, apply_steps
from miri_gpu.ramps.emi import EmiModel, measure_emi_in_blocks
from miri_gpu.ramps.reference_pixels import measure_reference_pixels, subtract_reference_pixels
from miri_gpu.segments import Segment

_FRAME = slice(0, detector.N_ROWS)


def measure_frames(
    segment: Segment, kept: np.ndarray, job: Job, held: Array | None = None
) -> MeasuredFrames:
    """Measure on whole frames of successive integrations what the steps of the recipe need.

    `held` are their samples, where they are on the device already.
    """
    recipe, xp = job.recipe, job.backend.xp
    emi = emi_of(segment, kept, job)
    if not (flags_differ(recipe) or any(map(recipe.runs, _MEASURED_AFTERWARDS))):
        return MeasuredFrames(emi=emi)
    stretch = Stretch(segment, kept, MeasuredFrames(emi=emi), held=held)
    first = _measure_block(stretch.part(slice(0, 1)), job)  # shows what there will be
    large = {n: getattr(first, n) for n in _LARGE if getattr(first, n) is not None}
    store = job.workers.room.store(
        {name: ((len(kept), *array.shape[1:]), array.dtype) for name, array in large.items()},
        xp=xp,
    )
    dropped: dict[int, Array] = {}

    def measure(ints: slice) -> None:
        found = _measure_block(stretch.part(ints), job)
        store.put(ints, {name: getattr(found, name) for name in large})
        dropped[ints.start] = found.dropped

    blocks = _blocks_of_frames(segment, len(kept), job)
    job.progress.start(f"{segment.path.name}: whole-frame corrections", len(blocks))
    job.workers.run(measure, blocks, job.progress.advance)
    parts = [dropped[start] for start in sorted(dropped)]
    return MeasuredFrames(
        emi=emi, dropped=None if parts[0] is None else xp.concatenate(parts), kept=store
    )


def emi_of(segment: Segment, kept: np.ndarray, job: Job) -> EmiModel | None:
    """The interference in successive integrations, measured once for the whole segment."""
    if not job.recipe.runs("emicorr"):
        return None
    everything = job.plan.integrations(segment)
    if segment.path not in job.emi:
        job.emi[segment.path] = _measure_emi(segment, everything, job)
    first = int(np.searchsorted(everything, kept[0]))
    return job.emi[segment.path].integrations(slice(first, first + len(kept)))


def _measure_emi(segment: Segment, kept: np.ndarray, job: Job) -> EmiModel:
    def walk(function: Callable, n_ints: int | None = None) -> list:
        n_walked = len(kept) if n_ints is None else min(n_ints, len(kept))
        blocks = _blocks_of_frames(segment, n_walked, job)
        found = {}

        def work(ints: slice) -> None:
            stretch = Stretch(segment, kept[ints])
            ramps = read_ramps(stretch, _FRAME, job)
            ramps = apply_steps(ramps, block_of(stretch, _FRAME, job), stop="emicorr")
            found[ints.start] = function(ramps, ints)

        job.progress.start(f"{segment.path.name}: interference", len(blocks))
        job.workers.run(work, blocks, job.progress.advance)
        return [found[start] for start in sorted(found)]

    return measure_emi_in_blocks(
        walk,
        job.calibration.emicorr,
        params=job.recipe["emicorr"],
        readout=segment.readout,
        integration=job.backend.xp.asarray(kept),
        shape=(len(kept), segment.n_groups, detector.N_ROWS, detector.N_COLS),
    )


def _measure_block(stretch: Stretch, job: Job) -> FrameCorrections:
    """Walk some whole frames through the steps, and keep what the blocks of rows will need."""
    recipe, xp = job.recipe, job.backend.xp
    ramps, block = read_ramps(stretch, _FRAME, job), block_of(stretch, _FRAME, job)
    ramps = apply_steps(ramps, block, stop="reference_pixel")
    dropped = drifts = background = None
    if flags_differ(recipe):
        dropped = ((ramps.groupdq & detector.DO_NOT_USE) != 0).all(axis=(2, 3))
    if recipe.runs("reference_pixel"):
        drifts = measure_reference_pixels(ramps, params=recipe["reference_pixel"])
        ramps = subtract_reference_pixels(ramps, drifts)
    if recipe.runs("group_background_subtract"):
        unusable = ramps.groupdq | (ramps.pixeldq & detector.DO_NOT_USE).astype(xp.uint8)
        background = measure_background(
            ramps.data, unusable, params=recipe["group_background_subtract"]
        )
    return FrameCorrections(dropped=dropped, reference_pixels=drifts, background=background)


def _blocks_of_frames(segment: Segment, n_ints: int, job: Job) -> list[slice]:
    return job.workers.cut(0, n_ints, segment.n_groups * detector.N_ROWS * detector.N_COLS * 4)


_LARGE = ("reference_pixels", "background")
_MEASURED_AFTERWARDS = [step for step in MEASURED_ON_FRAMES if step != "emicorr"]
