"""Blocks of ramps: read from a segment, with all that belongs to them, and calibrated.

A block holds some rows of some integrations, with all their groups.
"""

import logging
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path

import numpy as np

from miri_gpu import detector, raw_calibration
from miri_gpu.backend import Backend, is_out_of_memory, to_host
from miri_gpu.blocks import Workers, evenly_cut
from miri_gpu.calibration import Calibration
from miri_gpu.containers import Array, Ramps, Readout
from miri_gpu.groups_in_use import regrouped
from miri_gpu.plan import Plan
from miri_gpu.progress import Progress
from miri_gpu.ramp_steps import Block, FrameCorrections, apply_steps, cut_rows
from miri_gpu.ramps import jumps, saturation
from miri_gpu.ramps.emi import EmiModel
from miri_gpu.ramps.self_calibration import LinearityCalibration
from miri_gpu.raw_calibration import RawCalibration
from miri_gpu.raw_samples import decode_samples, encoded_samples, travelling_dtype
from miri_gpu.read_ahead import read_ahead
from miri_gpu.recipe import Recipe
from miri_gpu.segments import Segment
from miri_gpu.storage import Store

log = logging.getLogger(__name__)

_PARTS_OF_A_SEGMENT = 3  # at least: nothing is computed before the first of them has come


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

    def maps(self, segment: Segment) -> bool:
        """Whether the raw samples of a segment fit the memory, where the system then keeps them."""
        return segment.samples.n_bytes <= self.workers.room.bytes_of_samples

    def upload(self, segment: Segment) -> Array | None:
        """All raw samples of a segment to a GPU, ahead of its turn; None where that is no use.

        The parts of the first segment are computed with while others are on their way. Others are
        copied as a whole, which is faster, where the GPU has room for two.
        """
        is_ahead = self.backend.on_gpu and segment is not self.plan.segments[0]
        if not (is_ahead and segment.holds_ramps and self.maps(segment)):
            return None
        if 2 * segment.samples.n_bytes > self.workers.room.bytes_of_uploads:
            return None
        segment.samples.ask_for()
        return self.upload_samples(np.asarray(segment.raw), self.plan.integrations(segment))

    def upload_samples(self, raw: np.ndarray, integrations: np.ndarray) -> Array | None:
        """Samples of some integrations to the device, as they travel; None where it has no room.

        `raw` are samples as they lie on disk, (n_ints, n_groups, n_rows, n_cols).
        """
        dtype, items = travelling_dtype(raw.dtype), integrations
        if dtype == np.uint16:
            raw = raw.view(dtype)
        if follow_one_another(integrations):
            raw, items = integrations_of(raw, integrations), None
        try:
            return self.backend.upload(raw, dtype, items)
        except Exception as error:
            if not is_out_of_memory(error):
                raise
        log.warning("out of memory with samples of %d MB: read by blocks", raw.nbytes >> 20)
        self.backend.release_memory()
        return None

    def rows_held(self, segment: Segment, n_halo: int) -> int | None:
        """How many rows of a segment are read at a time; None where they stay in their file.

        On a GPU so many that one part is on its way while the one before is computed with.
        """
        room, bytes_per_row = self.workers.room, segment.samples.n_bytes // detector.N_ROWS
        in_memory, uploaded = (
            n_bytes // 2 // bytes_per_row - 2 * n_halo
            for n_bytes in (room.bytes_of_samples, room.bytes_of_uploads)
        )
        n_most = in_memory
        if self.backend.on_gpu:
            n_most = min(uploaded, -(-detector.N_ROWS // _PARTS_OF_A_SEGMENT))
        if not self.maps(segment):
            return min(n_most, in_memory)
        return n_most if self.backend.on_gpu and n_most > 2 * n_halo else None

    @cached_property
    def median_gain(self) -> float:
        """Median gain of the whole frame [e-/DN]."""
        return float(np.nanmedian(to_host(self.calibration.gain)))


@dataclass(frozen=True, eq=False)
class MeasuredFrames:
    """What was measured on the whole frames of successive integrations, as FrameCorrections has it.

    Attributes
    ----------
    emi, dropped : as there, or None
    kept : Store of reference_pixels and background, or None
    """

    emi: EmiModel | None = None
    dropped: Array | None = None
    kept: Store | None = None

    def cut(self, ints: slice, rows: slice) -> FrameCorrections:
        """What belongs to some of the integrations and some rows, on the device."""
        return FrameCorrections(
            emi=None if self.emi is None else self.emi.integrations(ints),
            dropped=None if self.dropped is None else self.dropped[ints],
            **({} if self.kept is None else self.kept.take((ints, slice(None), rows))),
        )


@dataclass(frozen=True, eq=False)
class Stretch:
    """Successive integrations of a segment, with what was measured on their whole frames.

    Attributes
    ----------
    segment : Segment
    integrations : (n_ints,) int
        Indices in the segment.
    frames : MeasuredFrames
        Of these integrations, and perhaps of more.
    first_measured : int
        Where these begin among those.
    held : (n_ints, n_groups, n_rows_held, n_cols) uint16 or float32, or None
        Samples of some rows as they travel, where these are in memory, or on the device already.
    held_from : int
        The first of these rows.
    """

    segment: Segment
    integrations: np.ndarray
    frames: MeasuredFrames = MeasuredFrames()
    first_measured: int = 0
    held: Array | None = None
    held_from: int = 0

    @property
    def readout(self) -> Readout:
        """The segment's readout, of these integrations."""
        return self.segment.readout_of(self.integrations)

    def part(self, ints: slice) -> "Stretch":
        """Some of the integrations."""
        return replace(
            self,
            integrations=self.integrations[ints],
            first_measured=self.first_measured + ints.start,
            held=None if self.held is None else self.held[ints],
        )

    def holding(self, rows: slice, job: Job) -> "Stretch":
        """The same, with the samples of some rows in memory, in that of a GPU if it computes.

        Where there is no room for them, they are read again by the blocks.
        """
        if job.maps(self.segment):
            raw, integrations = np.asarray(self.segment.raw)[:, :, rows], self.integrations
        else:
            raw = self.segment.samples.read_rows(rows, self.integrations)
            integrations = np.arange(len(raw))
        return replace(self, held=job.upload_samples(raw, integrations), held_from=rows.start)

    @property
    def travelling_dtype(self) -> np.dtype:
        """What samples travel as."""
        return self.segment.samples.travelling_dtype if self.held is None else self.held.dtype

    def samples(self, rows: slice) -> Array:
        """Samples of some rows as they travel: a view, of what is in memory if any is."""
        if self.held is not None:
            return self.held[:, :, rows.start - self.held_from : rows.stop - self.held_from]
        raw = np.asarray(self.segment.raw)[:, :, rows]
        return encoded_samples(integrations_of(raw, self.integrations))


def follow_one_another(integrations: np.ndarray) -> bool:
    """Whether none is left out between the first and the last."""
    return bool(integrations[-1] - integrations[0] + 1 == len(integrations))


def integrations_of(raw: Array, integrations: np.ndarray) -> Array:
    """Some integrations of a segment, in their order: a view, where they follow one another."""
    if follow_one_another(integrations):
        return raw[integrations[0] : integrations[-1] + 1]
    return raw[integrations]


def walk_rows(
    stretch: Stretch,
    rows: slice,
    job: Job,
    work: Callable[[Stretch, slice], None],
    *,
    task: str,
    n_beside: int = 0,
) -> None:
    """Run some work on every row, by blocks of rows with all integrations of the stretch.

    Many rows at a time are read, and copied to a GPU, while the blocks of those before are in work.
    A host that has memory for all raw samples leaves it to the system what to read, and keep, of
    the file.

    Parameters
    ----------
    work : function of the stretch and the rows of a block
    task : what progress is reported as
    n_beside : integrations beside those of the stretch that a block takes
    """
    segment = stretch.segment
    bytes_per_row = segment.n_groups * detector.N_COLS * 4 * (len(stretch.integrations) + n_beside)
    workers = job.workers.fitting(bytes_per_row)
    halo = block_halo(job.recipe, segment.readout)
    n_held = None if stretch.held is not None else job.rows_held(segment, halo)
    if stretch.held is None and job.maps(segment):
        segment.samples.ask_for()
    if n_held is None:
        parts, loaded = [rows], iter([(rows, stretch)])
    else:
        parts = evenly_cut(rows.start, rows.stop, n_held)
        loaded = read_ahead(lambda part: (part, stretch.holding(grown(part, halo), job)), parts)

    def blocks_of(part: slice) -> list[slice]:
        return workers.cut(part.start, part.stop, bytes_per_row)

    job.progress.start(task, sum(len(blocks_of(part)) for part in parts))
    for part, held in loaded:
        workers.run(
            lambda block, held=held: work(held, block), blocks_of(part), job.progress.advance
        )
        del held  # the next but one is being read then


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
    if raw_calibration.runs_on(stretch.travelling_dtype, block, stop):
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
        raw = read_raw(stretch.part(ints), outer, job)
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
    data = decode_samples(read_raw(stretch, rows, job), xp=xp)
    return Ramps(
        data=data,
        groupdq=xp.zeros(data.shape, dtype=xp.uint8),
        pixeldq=xp.zeros(data.shape[2:], dtype=xp.uint32),
    )


def read_raw(stretch: Stretch, rows: slice, job: Job) -> Array:
    """Read the samples of some rows to the device, as they travel: (n_ints, n_groups, rows, cols).

    What is on the device already stays where it is: where the host computes, in the file.
    """
    if stretch.held is None and not job.maps(stretch.segment):
        stretch = stretch.holding(rows, job)
    samples = stretch.samples(rows)
    return samples if isinstance(samples, job.backend.xp.ndarray) else job.backend.upload(samples)


def block_of(stretch: Stretch, rows: slice, job: Job) -> Block:
    """What belongs to some rows, beside their samples, on the device."""
    n_ints, start = len(stretch.integrations), stretch.first_measured
    frames = stretch.frames.cut(slice(start, start + n_ints), rows)
    if frames.dropped is None:
        dropped = job.backend.xp.asarray(job.plan.dropped_groups(n_ints, stretch.readout))
    else:
        dropped = regrouped(frames.dropped, job.recipe)
    return Block(
        recipe=job.recipe,
        calibration=job.calibration.rows(rows),
        readout=stretch.readout,
        dropped=dropped,
        median_gain=job.median_gain,
        frames=frames,
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
