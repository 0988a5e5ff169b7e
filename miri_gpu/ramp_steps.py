"""The steps before the ramp fit, in order, and what each needs beside the samples."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

from miri_gpu.area import Area
from miri_gpu.backend import namespace
from miri_gpu.background import subtract_background
from miri_gpu.calibration import Calibration
from miri_gpu.containers import Array, Ramps, Readout
from miri_gpu.ramps.dark import dark_correction
from miri_gpu.ramps.dq import initialize_dq
from miri_gpu.ramps.emi import EmiModel, subtract_emi
from miri_gpu.ramps.first_frame import flag_first_frame
from miri_gpu.ramps.groups import drop_groups, regroup
from miri_gpu.ramps.jumps import flag_jumps
from miri_gpu.ramps.last_frame import flag_last_frame
from miri_gpu.ramps.linearity import linearity_correction
from miri_gpu.ramps.reference_pixels import subtract_reference_pixels
from miri_gpu.ramps.reset import reset_correction
from miri_gpu.ramps.rscd import flag_rscd
from miri_gpu.ramps.sample_corrections import SampleCorrection, correct_samples
from miri_gpu.ramps.saturation import flag_saturation
from miri_gpu.ramps.scale import scale_groups
from miri_gpu.ramps.time_jumps import flag_time_jumps
from miri_gpu.recipe import Recipe


@dataclass(frozen=True)
class Block:
    """What the steps need beside the samples of a block: all of it cut to the block's area."""

    recipe: Recipe
    calibration: Calibration
    readout: Readout
    dropped: Array  # (n_ints, n_groups) bool: groups that are dropped on the whole frame
    median_gain: float  # of the whole frame [e-/DN]
    frames: "FrameCorrections"
    first_row: int = 0  # of the block, in the frame
    first_column: int = 0
    before: Ramps | None = None  # the integrations around, which the time_jump step looks at
    after: Ramps | None = None

    def cut(self, area: Area) -> "Block":
        """Cut to an area within the block."""
        return replace(
            self,
            calibration=self.calibration.cut(area),
            frames=self.frames.rows(area.rows),
            first_row=self.first_row + area.rows.start,
            first_column=self.first_column + area.columns.start,
            before=None if self.before is None else cut_ramps(self.before, area),
            after=None if self.after is None else cut_ramps(self.after, area),
        )


def cut_ramps(ramps: Ramps, area: Area) -> Ramps:
    """Cut ramps to an area within theirs."""
    return Ramps(
        data=ramps.data[..., *area],
        groupdq=ramps.groupdq[..., *area],
        pixeldq=ramps.pixeldq[*area],
    )


@dataclass(frozen=True)
class FrameCorrections:
    """What was measured on whole frames, before the blocks: None where a step does not run.

    Attributes
    ----------
    emi : EmiModel or None
        The interference in the integrations at hand.
    reference_pixels : (n_ints, n_groups, n_rows, n_amplifiers) [DN] or None
    background : background of each group, by row, as measure_background gives it, or None
    """

    emi: EmiModel | None = None
    reference_pixels: Array | None = None
    background: Array | None = None

    def rows(self, rows: slice) -> "FrameCorrections":
        """Cut to some rows."""
        cut = {
            name: None if getattr(self, name) is None else getattr(self, name)[:, :, rows]
            for name in ("reference_pixels", "background")
        }
        return replace(self, **cut)


@dataclass(frozen=True)
class SampleStep:
    """A step that changes nothing but samples, each by itself: others can be taken with it.

    `prepare` says what it does to the (n_ints, n_groups) of a block.
    """

    prepare: Callable[[tuple[int, int], Block], SampleCorrection]

    def __call__(self, ramps: Ramps, block: Block) -> Ramps:
        """Apply this step alone."""
        return correct_samples(ramps, self.prepare(ramps.data.shape[:2], block))


# Every step before the ramp fit, in order: the container of the block in, a new one out.
RAMP_STEPS: Mapping[str, Callable[[Ramps, Block], Ramps]] = {
    "group_scale": lambda ramps, b: scale_groups(ramps, readout=b.readout),
    "dq_init": lambda ramps, b: initialize_dq(ramps, b.calibration.mask),
    "emicorr": lambda ramps, b: subtract_emi(
        ramps, b.frames.emi, row_start=b.first_row, col_start=b.first_column
    ),
    "saturation": lambda ramps, b: flag_saturation(
        ramps,
        b.calibration.saturation,
        b.calibration.saturation_dq,
        params=b.recipe["saturation"],
        readout=b.readout,
    ),
    "firstframe": lambda ramps, b: flag_first_frame(ramps, params=b.recipe["firstframe"]),
    "lastframe": lambda ramps, b: flag_last_frame(ramps),
    "reset": SampleStep(
        lambda shape, b: reset_correction(
            shape[0], b.calibration.reset, b.calibration.reset_dq, readout=b.readout
        )
    ),
    "drop_groups": lambda ramps, b: drop_groups(
        ramps, params=b.recipe["drop_groups"], readout=b.readout
    ),
    "linearity": SampleStep(
        lambda _, b: linearity_correction(b.calibration.linearity, b.calibration.linearity_dq)
    ),
    "rscd": lambda ramps, b: flag_rscd(
        ramps, b.calibration.rscd, params=b.recipe["rscd"], readout=b.readout
    ),
    "dark_current": SampleStep(
        lambda shape, b: dark_correction(
            *shape, b.calibration.dark, b.calibration.dark_dq, b.readout
        )
    ),
    "reference_pixel": lambda ramps, b: subtract_reference_pixels(ramps, b.frames.reference_pixels),
    "group_background_subtract": lambda ramps, b: replace(
        ramps, data=subtract_background(ramps.data, b.frames.background)
    ),
    "regroup": lambda ramps, b: regroup(ramps, params=b.recipe["regroup"]),
    "time_jump": lambda ramps, b: flag_time_jumps(
        ramps,
        b.calibration.read_noise,
        b.calibration.gain,
        params=b.recipe["time_jump"],
        readout=b.readout,
        before=b.before,
        after=b.after,
        dropped=b.dropped,
    ),
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
BLIND_STEPS = ("drop_groups",)  # look at no sample, and set no flag that a correction looks at
MEASURED_ON_FRAMES = ("emicorr", "reference_pixel", "group_background_subtract")


def steps_before(stop: str) -> list[str]:
    """The steps before one of them, in order."""
    steps = list(RAMP_STEPS)
    return steps[: steps.index(stop)]


def apply_steps(ramps: Ramps, block: Block, start: str | None = None, stop: str | None = None):
    """Apply the steps that the recipe runs, from `start` up to and without `stop`.

    Successive steps that change samples only are applied in one pass.
    """
    steps = list(RAMP_STEPS)
    first = 0 if start is None else steps.index(start)
    last = len(steps) if stop is None else steps.index(stop)
    waiting: SampleCorrection | None = None
    for step in steps[first:last]:
        if not block.recipe.runs(step):
            continue
        run = RAMP_STEPS[step]
        if isinstance(run, SampleStep):
            correction = run.prepare(ramps.data.shape[:2], block)
            waiting = correction if waiting is None else waiting.then(correction)
            continue
        if waiting is not None and step not in BLIND_STEPS:
            ramps, waiting = correct_samples(ramps, waiting), None
        ramps = run(ramps, block)
    return ramps if waiting is None else correct_samples(ramps, waiting)


def sample_correction(shape: tuple[int, int], block: Block, stop: str) -> SampleCorrection:
    """All that the steps before `stop` do to each sample by itself.

    Parameters
    ----------
    shape : (n_ints, n_groups) of the samples
    block : Block
    stop : str
    """
    xp = namespace(block.calibration.gain)
    total = SampleCorrection(pixeldq=xp.zeros(block.calibration.gain.shape, dtype=xp.uint32))
    for step in steps_before(stop):
        run = RAMP_STEPS[step]
        if isinstance(run, SampleStep) and block.recipe.runs(step):
            total = total.then(run.prepare(shape, block))
    return total
