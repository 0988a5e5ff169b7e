"""Ramps to rates: the steps in order, walked over a segment in blocks of rows.

A block holds all integrations and groups of its rows. Steps that look at neighbouring pixels get
a halo of rows around it; steps that need whole frames are measured beforehand, in one pass over
blocks of integrations, and applied in the blocks of rows.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import pairwise

import numpy as np

from miri_gpu import detector
from miri_gpu.backend import Backend, namespace, to_host
from miri_gpu.background import measure_background
from miri_gpu.blocks import Workers
from miri_gpu.calibration import Calibration
from miri_gpu.containers import Array, Ramps, Rates, Readout
from miri_gpu.errors import SegmentError
from miri_gpu.plan import Plan, dropped_groups
from miri_gpu.progress import Progress
from miri_gpu.ramp_steps import MEASURED_ON_FRAMES, Block, FrameCorrections, apply_steps, cut_rows
from miri_gpu.ramps import jumps, saturation
from miri_gpu.ramps.ramp_fit import fit_ramps
from miri_gpu.ramps.reference_pixels import measure_reference_pixels, subtract_reference_pixels
from miri_gpu.ramps.self_calibration import calibrate_linearity, expand_linearity
from miri_gpu.ramps.time_jumps import edge_integrations
from miri_gpu.rates.gain import scale_gain
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
    """

    plan: Plan
    calibration: Calibration
    workers: Workers
    progress: Progress

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
        """The segment's readout, from the first of these integrations."""
        first = self.segment.first_integration + int(self.integrations[0])
        return replace(self.segment.readout, first_integration=first)


def segment_to_rates(segment: Segment, job: Job) -> Rates:
    """Reduce the ramps of a segment to rates, on the device; the main loop of stage 1."""
    kept = job.plan.integrations(segment)
    stretch = Stretch(segment, kept, measure_frames(segment, kept, job))
    before, after = edge_stretches(segment, job)
    n_read = sum(len(part.integrations) for part in (*before, stretch, *after))
    n_ints, n_groups = len(kept), segment.n_groups
    if job.recipe.runs("regroup"):
        n_ints *= n_groups // job.recipe["regroup"].n_groups
    rates = _empty_rates(n_ints, xp=job.backend.xp)
    bytes_per_row = n_read * n_groups * detector.N_COLS * 4
    blocks = job.workers.cut(0, detector.N_ROWS, bytes_per_row)

    def fit_rows(rows: slice) -> None:
        fitted = rows_to_rates(stretch, rows, job, before, after)
        for name, whole in vars(rates).items():
            if whole is not None:
                whole[:, rows] = getattr(fitted, name)

    job.progress.start(f"{segment.path.name}: ramps to rates", len(blocks))
    job.workers.run(fit_rows, blocks, job.progress.advance)
    return rates


def rows_to_rates(
    stretch: Stretch,
    rows: slice,
    job: Job,
    before: Sequence[Stretch] = (),
    after: Sequence[Stretch] = (),
) -> Rates:
    """Reduce some rows of a segment's ramps to rates, given the stretches before and after it."""
    recipe = job.recipe
    ramps, block = load_rows(stretch, rows, job, stop="time_jump")
    block = replace(block, before=load_edge(before, rows, job), after=load_edge(after, rows, job))
    n_halo = jump_halo(recipe)
    ramps = apply_steps(ramps, block, start="time_jump")
    ramps, block = _cut(ramps, block, _grown(rows, n_halo), rows)
    rates = fit_ramps(
        ramps,
        block.calibration.read_noise,
        block.calibration.gain,
        params=recipe["ramp_fit"],
        readout=block.readout,
        dropped=block.dropped,
        dark_current=block.calibration.average_dark if recipe.runs("dark_current") else None,
    )
    if recipe.runs("gain_scale") and job.calibration.gain_factor is not None:
        rates = scale_gain(rates, job.calibration.gain_factor)
    return rates


def edge_stretches(segment: Segment, job: Job) -> tuple[list[Stretch], list[Stretch]]:
    """The integrations before and after a segment that its time_jump step looks at.

    They are taken from as many segments as it needs, up to the first gap in the exposure.
    """
    if not job.recipe.runs("time_jump"):
        return [], []
    n_edge = edge_integrations(job.recipe["time_jump"])
    here = job.plan.segments.index(segment)
    before = _nearest(job.plan.segments[here::-1], job, n_edge, slice(-n_edge, None))[::-1]
    after = _nearest(job.plan.segments[here:], job, n_edge, slice(n_edge))
    return before, after


def _nearest(outward: Sequence[Segment], job: Job, n_wanted: int, which: slice) -> list[Stretch]:
    """The nearest kept integrations beyond the first of some segments, nearest segment first."""
    stretches = []
    for inner, outer in pairwise(outward):
        first, second = sorted((inner, outer), key=lambda s: s.first_integration)
        touch = first.first_integration + first.n_ints == second.first_integration
        if n_wanted <= 0 or not touch:
            break
        kept = job.plan.integrations(outer)
        kept = kept[-n_wanted:] if which.stop is None else kept[:n_wanted]
        n_wanted -= len(kept)
        stretches.append(Stretch(outer, kept, measure_frames(outer, kept, job)))
    return stretches


def load_edge(stretches: Sequence[Stretch], rows: slice, job: Job) -> Ramps | None:
    """The ramps of some stretches, one after the other, as they enter the time_jump step."""
    parts = [load_rows(stretch, rows, job, stop="time_jump")[0] for stretch in stretches]
    if not parts:
        return None
    xp = job.backend.xp
    return Ramps(
        data=xp.concatenate([part.data for part in parts]),
        groupdq=xp.concatenate([part.groupdq for part in parts]),
        pixeldq=parts[0].pixeldq,
    )


def load_rows(stretch: Stretch, rows: slice, job: Job, stop: str) -> tuple[Ramps, Block]:
    """Read some rows and apply the steps up to `stop`; the jump step's halo rows are kept."""
    recipe = job.recipe
    n_jump = jump_halo(recipe)
    n_grow = 0
    if recipe.runs("saturation"):
        n_grow = saturation.halo_rows(recipe["saturation"], stretch.segment.readout)
    outer, inner = _grown(rows, n_jump + n_grow), _grown(rows, n_jump)
    ramps, block = read_block(stretch, outer, job)
    ramps = apply_steps(ramps, block, stop="reset")
    ramps, block = _cut(ramps, block, outer, inner)
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
    block = Block(
        recipe=job.recipe,
        calibration=job.calibration.rows(rows),
        readout=stretch.readout,
        dropped=xp.asarray(dropped_groups(job.recipe, len(integrations), segment.n_groups)),
        median_gain=job.median_gain,
        frames=stretch.frames.rows(rows),
    )
    return ramps, block


def measure_frames(segment: Segment, kept: np.ndarray, job: Job) -> FrameCorrections:
    """Measure, in one pass over whole frames, what the blocks of rows cannot see."""
    recipe, xp = job.recipe, job.backend.xp
    if not any(recipe.runs(step) for step in MEASURED_ON_FRAMES):
        return FrameCorrections()
    bytes_per_int = segment.n_groups * detector.N_ROWS * detector.N_COLS * 4
    blocks = job.workers.cut(0, len(kept), bytes_per_int)
    measured: dict[int, FrameCorrections] = {}

    def measure(ints: slice) -> None:
        stretch = Stretch(segment, kept[ints], FrameCorrections())
        ramps, block = read_block(stretch, slice(0, detector.N_ROWS), job)
        ramps = apply_steps(ramps, block, stop="reference_pixel")
        drifts = background = None
        if recipe.runs("reference_pixel"):
            drifts = measure_reference_pixels(ramps, params=recipe["reference_pixel"])
            ramps = subtract_reference_pixels(ramps, drifts)
        if recipe.runs("group_background_subtract"):
            unusable = ramps.groupdq | (ramps.pixeldq & detector.DO_NOT_USE).astype(xp.uint8)
            background = measure_background(
                ramps.data, unusable, params=recipe["group_background_subtract"]
            )
        measured[ints.start] = FrameCorrections(drifts, background)

    job.progress.start(f"{segment.path.name}: whole-frame corrections", len(blocks))
    job.workers.run(measure, blocks, job.progress.advance)
    parts = [measured[start] for start in sorted(measured)]
    return FrameCorrections(
        *(
            None if getattr(parts[0], name) is None
            else xp.concatenate([getattr(part, name) for part in parts])
            for name in ("reference_pixels", "background")
        )
    )  # fmt: skip


def with_custom_linearity(segment: Segment, job: Job) -> Job:
    """Replace the reference linearity by the one measured on a segment's own ramps."""
    params, xp = job.recipe["custom_linearity"], job.backend.xp
    start, stop, _ = slice(params.row_idx_start_used, params.row_idx_end_used).indices(
        detector.N_ROWS
    )
    bytes_per_row = len(job.plan.integrations(segment)) * segment.n_groups * detector.N_COLS * 4
    blocks = job.workers.cut(start, stop, bytes_per_row)
    stretch = Stretch(segment, job.plan.integrations(segment), FrameCorrections())
    parts: dict[int, Ramps] = {}

    def collect(rows: slice) -> None:
        ramps, block = load_rows(stretch, rows, job, stop="linearity")
        n_halo = jump_halo(job.recipe)
        parts[rows.start], _ = _cut(ramps, block, _grown(rows, n_halo), rows)

    job.progress.start(f"{segment.path.name}: non-linearity", len(blocks))
    job.workers.run(collect, blocks, job.progress.advance)
    ordered = [parts[row] for row in sorted(parts)]
    coefficients = calibrate_linearity(
        xp.concatenate([part.data for part in ordered], axis=2),
        xp.concatenate([part.groupdq for part in ordered], axis=2),
        params=params,
    ).coefficients
    if not bool(xp.isfinite(coefficients).all()):
        raise SegmentError(
            f"{segment.path}: custom_linearity: the samples of the rows and groups used do not "
            "determine the non-linearity of every amplifier"
        )
    linearity = expand_linearity(coefficients, detector.N_ROWS, detector.N_COLS)
    calibration = replace(
        job.calibration,
        linearity=linearity,
        linearity_dq=xp.zeros(linearity.shape[1:], dtype=xp.uint32),
        files={**job.calibration.files, "linearity": f"measured on {segment.path.name}"},
    )
    return replace(job, calibration=calibration)


def check_rows(rates: Rates, segment: Segment, wavelength: Array) -> None:
    """Raise SegmentError where a row of the spectrum has no usable pixel in any integration."""
    xp = namespace(rates.data)
    usable = xp.isfinite(rates.data) & ((rates.dq & detector.DO_NOT_USE) == 0)
    usable = usable[:, :, detector.N_REFERENCE_COLS :].any(axis=(0, 2))
    in_spectrum = xp.isfinite(wavelength).any(axis=1)
    dead = np.flatnonzero(to_host(in_spectrum & ~usable))
    if len(dead):
        raise SegmentError(
            f"{segment.path}: every pixel is NaN, saturated or unusable in "
            f"row{'s' if len(dead) > 1 else ''} {_ranges(dead)}"
        )


def _ranges(numbers: np.ndarray) -> str:
    """Rising numbers in words: "7 to 147, 200"."""
    runs = np.split(numbers, np.flatnonzero(np.diff(numbers) > 1) + 1)
    return ", ".join(str(r[0]) if len(r) == 1 else f"{r[0]} to {r[-1]}" for r in runs)


def jump_halo(recipe: Recipe) -> int:
    """Rows beyond a block that the jump step needs to flag its neighbours."""
    return jumps.halo_rows(recipe["jump"]) if recipe.runs("jump") else 0


def _empty_rates(n_ints: int, *, xp) -> Rates:
    shape = (n_ints, detector.N_ROWS, detector.N_COLS)
    planes = {
        name: xp.empty(shape, dtype=xp.float32)
        for name in ("data", "err", "var_poisson", "var_rnoise")
    }
    return Rates(**planes, dq=xp.empty(shape, dtype=xp.uint32))


def _grown(rows: slice, n_halo: int) -> slice:
    return slice(max(rows.start - n_halo, 0), min(rows.stop + n_halo, detector.N_ROWS))


def _cut(ramps: Ramps, block: Block, outer: slice, inner: slice) -> tuple[Ramps, Block]:
    """Cut the ramps and all that belongs to them from the outer to the inner rows."""
    rows = slice(inner.start - outer.start, inner.stop - outer.start)
    return cut_rows(ramps, rows), block.rows(rows)
