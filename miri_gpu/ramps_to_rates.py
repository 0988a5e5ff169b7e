"""Ramps to rates: the steps in order, walked over a segment in blocks of rows.

A block holds all integrations and groups of its rows. Steps that look at neighbouring pixels get
a halo of rows around it; steps that need whole frames are measured beforehand, in one pass over
blocks of integrations, and applied in the blocks of rows.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np

from miri_gpu import detector
from miri_gpu.backend import Backend, namespace, to_host
from miri_gpu.background import measure_background, subtract_background
from miri_gpu.blocks import Workers
from miri_gpu.calibration import Calibration
from miri_gpu.containers import Array, Ramps, Rates, Readout
from miri_gpu.errors import SegmentError
from miri_gpu.progress import Progress
from miri_gpu.ramps import jumps, saturation
from miri_gpu.ramps.dark import subtract_dark
from miri_gpu.ramps.dq import initialize_dq
from miri_gpu.ramps.groups import drop_groups, regroup
from miri_gpu.ramps.jumps import flag_jumps
from miri_gpu.ramps.linearity import correct_linearity
from miri_gpu.ramps.ramp_fit import fit_ramps
from miri_gpu.ramps.reference_pixels import measure_reference_pixels, subtract_reference_pixels
from miri_gpu.ramps.reset import subtract_reset
from miri_gpu.ramps.saturation import flag_saturation
from miri_gpu.ramps.scale import scale_groups
from miri_gpu.ramps.self_calibration import calibrate_linearity, expand_linearity
from miri_gpu.rates.gain import scale_gain
from miri_gpu.recipe import Recipe
from miri_gpu.segments import Segment, decode_samples, encoded_samples


@dataclass(frozen=True)
class Job:
    """What the reduction of every segment of an observation shares.

    Attributes
    ----------
    recipe : Recipe
    calibration : Calibration
        On the device of the backend.
    backend : Backend
    workers : Workers
    kept : (n_ints of the exposure,) bool
        The integrations that are not dropped.
    progress : Progress
    """

    recipe: Recipe
    calibration: Calibration
    backend: Backend
    workers: Workers
    kept: np.ndarray
    progress: Progress

    @cached_property
    def median_gain(self) -> float:
        """Median gain of the whole frame [e-/DN]."""
        return float(np.nanmedian(to_host(self.calibration.gain)))

    def integrations(self, segment: Segment) -> np.ndarray:
        """Indices, in the segment, of the integrations that are not dropped."""
        first = segment.first_integration
        return np.flatnonzero(self.kept[first : first + segment.n_ints])

    def readout(self, segment: Segment) -> Readout:
        """The segment's readout, from its first integration that is not dropped."""
        kept = self.integrations(segment)
        first = segment.first_integration + (int(kept[0]) if len(kept) else 0)
        return replace(segment.readout, first_integration=first)


@dataclass(frozen=True)
class Block:
    """What the steps need beside the samples of a block: all of it cut to the block's rows."""

    recipe: Recipe
    calibration: Calibration
    readout: Readout
    dropped: Array  # (n_ints, n_groups) bool: groups that are dropped on the whole frame
    median_gain: float  # of the whole frame [e-/DN]
    frames: "FrameCorrections"

    def rows(self, rows: slice) -> "Block":
        """Cut to fewer rows, counted within the block."""
        return replace(self, calibration=self.calibration.rows(rows), frames=self.frames.rows(rows))


@dataclass(frozen=True)
class FrameCorrections:
    """What was measured on whole frames, before the blocks: None where a step does not run.

    Attributes
    ----------
    reference_pixels : (n_ints, n_groups, n_rows, n_amplifiers) [DN] or None
    background : background of each group, by row, as measure_background gives it, or None
    """

    reference_pixels: Array | None = None
    background: Array | None = None

    def rows(self, rows: slice) -> "FrameCorrections":
        """Cut to some rows."""
        cut = {
            name: None if value is None else value[:, :, rows] for name, value in vars(self).items()
        }
        return FrameCorrections(**cut)


# Every step before the ramp fit, in order: the container of the block in, a new one out.
RAMP_STEPS: Mapping[str, Callable[[Ramps, Block], Ramps]] = {
    "group_scale": lambda ramps, b: scale_groups(ramps, readout=b.readout),
    "dq_init": lambda ramps, b: initialize_dq(ramps, b.calibration.mask),
    "saturation": lambda ramps, b: flag_saturation(
        ramps,
        b.calibration.saturation,
        b.calibration.saturation_dq,
        params=b.recipe["saturation"],
        readout=b.readout,
    ),
    "reset": lambda ramps, b: subtract_reset(
        ramps, b.calibration.reset, b.calibration.reset_dq, readout=b.readout
    ),
    "drop_groups": lambda ramps, b: drop_groups(ramps, params=b.recipe["drop_groups"]),
    "linearity": lambda ramps, b: correct_linearity(
        ramps, b.calibration.linearity, b.calibration.linearity_dq
    ),
    "dark_current": lambda ramps, b: subtract_dark(
        ramps, b.calibration.dark, b.calibration.dark_dq, readout=b.readout
    ),
    "reference_pixel": lambda ramps, b: subtract_reference_pixels(ramps, b.frames.reference_pixels),
    "group_background_subtract": lambda ramps, b: replace(
        ramps, data=subtract_background(ramps.data, b.frames.background)
    ),
    "regroup": lambda ramps, b: regroup(ramps, params=b.recipe["regroup"]),
    "jump": lambda ramps, b: flag_jumps(
        ramps,
        b.calibration.read_noise,
        b.calibration.gain,
        params=b.recipe["jump"],
        readout=b.readout,
        dropped=b.dropped,
        median_gain=b.median_gain,
    ),
}
MEASURED_ON_FRAMES = ("reference_pixel", "group_background_subtract")


def apply_steps(ramps: Ramps, block: Block, start: str | None = None, stop: str | None = None):
    """Apply the steps that the recipe runs, from `start` up to and without `stop`."""
    steps = list(RAMP_STEPS)
    first = 0 if start is None else steps.index(start)
    last = len(steps) if stop is None else steps.index(stop)
    for step in steps[first:last]:
        if block.recipe.runs(step):
            ramps = RAMP_STEPS[step](ramps, block)
    return ramps


def segment_to_rates(segment: Segment, job: Job) -> Rates:
    """Reduce the ramps of a segment to rates, on the device; the main loop of stage 1."""
    frames = measure_frames(segment, job)
    kept = job.integrations(segment)
    n_ints, n_groups = len(kept), segment.n_groups
    if job.recipe.runs("regroup"):
        n_ints *= n_groups // job.recipe["regroup"].n_groups
    rates = _empty_rates(n_ints, xp=job.backend.xp)
    bytes_per_row = len(kept) * n_groups * detector.N_COLS * 4
    blocks = job.workers.cut(0, detector.N_ROWS, bytes_per_row)

    def fit_rows(rows: slice) -> None:
        fitted = rows_to_rates(segment, rows, job, frames)
        for name, whole in vars(rates).items():
            if whole is not None:
                whole[:, rows] = getattr(fitted, name)

    job.progress.start(f"{segment.path.name}: ramps to rates", len(blocks))
    job.workers.run(fit_rows, blocks, job.progress.advance)
    return rates


def rows_to_rates(segment: Segment, rows: slice, job: Job, frames: FrameCorrections) -> Rates:
    """Reduce some rows of a segment's ramps to rates."""
    recipe = job.recipe
    ramps, block = load_rows(segment, rows, job, frames, stop="jump")
    n_halo = jump_halo(recipe)
    ramps = apply_steps(ramps, block, start="jump")
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


def load_rows(
    segment: Segment, rows: slice, job: Job, frames: FrameCorrections, stop: str
) -> tuple[Ramps, Block]:
    """Read some rows and apply the steps up to `stop`; the jump step's halo rows are kept."""
    recipe = job.recipe
    n_jump = jump_halo(recipe)
    n_grow = 0
    if recipe.runs("saturation"):
        n_grow = saturation.halo_rows(recipe["saturation"], segment.readout)
    outer, inner = _grown(rows, n_jump + n_grow), _grown(rows, n_jump)
    ramps, block = read_block(segment, outer, job.integrations(segment), job, frames)
    ramps = apply_steps(ramps, block, stop="reset")
    ramps, block = _cut(ramps, block, outer, inner)
    return apply_steps(ramps, block, start="reset", stop=stop), block


def read_block(
    segment: Segment,
    rows: slice,
    integrations: np.ndarray,
    job: Job,
    frames: FrameCorrections,
) -> tuple[Ramps, Block]:
    """Read some rows of some integrations to the device, with all that belongs to them."""
    xp = job.backend.xp
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
        readout=job.readout(segment),
        dropped=xp.asarray(dropped_groups(job.recipe, len(integrations), segment.n_groups)),
        median_gain=job.median_gain,
        frames=frames.rows(rows),
    )
    return ramps, block


def dropped_groups(recipe: Recipe, n_ints: int, n_groups: int) -> np.ndarray:
    """Which groups the recipe drops, (n_ints, n_groups) bool, as the jump step sees them."""
    dropped = np.zeros((n_ints, n_groups), dtype=bool)
    if recipe.runs("drop_groups"):
        dropped[:, list(recipe["drop_groups"].drop_groups)] = True
    if recipe.runs("regroup"):
        n_new = recipe["regroup"].n_groups
        dropped = dropped[:, : n_groups // n_new * n_new].reshape(-1, n_new)
    return dropped


def measure_frames(segment: Segment, job: Job) -> FrameCorrections:
    """Measure, in one pass over whole frames, what the blocks of rows cannot see."""
    recipe, xp = job.recipe, job.backend.xp
    if not any(recipe.runs(step) for step in MEASURED_ON_FRAMES):
        return FrameCorrections()
    kept = job.integrations(segment)
    bytes_per_int = segment.n_groups * detector.N_ROWS * detector.N_COLS * 4
    blocks = job.workers.cut(0, len(kept), bytes_per_int)
    measured: dict[int, FrameCorrections] = {}

    def measure(ints: slice) -> None:
        ramps, block = read_block(
            segment, slice(0, detector.N_ROWS), kept[ints], job, FrameCorrections()
        )
        first = job.readout(segment).first_integration + ints.start
        block = replace(block, readout=replace(block.readout, first_integration=first))
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
    bytes_per_row = len(job.integrations(segment)) * segment.n_groups * detector.N_COLS * 4
    blocks = job.workers.cut(start, stop, bytes_per_row)
    parts: dict[int, Ramps] = {}

    def collect(rows: slice) -> None:
        ramps, block = load_rows(segment, rows, job, FrameCorrections(), stop="linearity")
        n_halo = jump_halo(job.recipe)
        parts[rows.start], _ = _cut(ramps, block, _grown(rows, n_halo), rows)

    job.progress.start(f"{segment.path.name}: non-linearity", len(blocks))
    job.workers.run(collect, blocks, job.progress.advance)
    ordered = [parts[row] for row in sorted(parts)]
    coefficients = calibrate_linearity(
        xp.concatenate([part.data for part in ordered], axis=2),
        xp.concatenate([part.groupdq for part in ordered], axis=2),
        params=params,
    )
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
            f"row{'s' if len(dead) > 1 else ''} {', '.join(str(row) for row in dead)}"
        )


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
    cut = Ramps(
        data=ramps.data[:, :, rows],
        groupdq=ramps.groupdq[:, :, rows],
        pixeldq=ramps.pixeldq[rows],
    )
    return cut, block.rows(rows)
