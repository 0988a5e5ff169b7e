"""The first steps of most recipes, in one pass over the samples as they lie on disk.

Where kernels run and the recipe has no other step among them, decoding, bad pixels, saturation,
reset, dropped groups, linearity and dark are one kernel; `ramp_steps` says what they do.
"""

import math
from dataclasses import dataclass, replace

import numpy as np

from miri_gpu import kernels
from miri_gpu.area import Area
from miri_gpu.backend import namespace
from miri_gpu.containers import Array, Ramps
from miri_gpu.detector import DO_NOT_USE
from miri_gpu.ramp_steps import Block, sample_correction, steps_before
from miri_gpu.ramps.groups import dropped_groups
from miri_gpu.ramps.ramp_kernels import images
from miri_gpu.ramps.sample_corrections import SampleCorrection
from miri_gpu.ramps.saturation import earliest_around, saturation_limit

_STEPS = {
    "group_scale", "dq_init", "saturation", "reset", "drop_groups", "linearity", "dark_current"
}  # fmt: skip


def runs_on(dtype: np.dtype, block: Block, stop: str) -> bool:
    """Whether the kernel does all that comes before a step, for samples that travel as a type."""
    readout = block.readout
    before = {step for step in steps_before(stop) if block.recipe.runs(step)}
    return (
        kernels.available(namespace(block.calibration.gain))
        and dtype == np.uint16
        and readout.n_frames == 1
        and readout.frame_divisor in (None, 1)  # or groups are scaled
        and before <= _STEPS
    )


@dataclass(frozen=True, eq=False)
class RawCalibration:
    """What happens to the samples of a block.

    Attributes
    ----------
    group_flags : (n_ints, n_groups) uint8
    pixel_flags : (n_rows, n_cols) uint8
    limit : (n_rows_outer, n_cols_outer) float32 [DN] or None
        Saturation, also of the pixels around that spill over; None where it is not looked for.
    reach : int
        How far saturation spills over.
    inner : Area
        The block's own, counted within the outer one.
    correction : SampleCorrection
        Its `pixeldq` are all flags of pixels.
    """

    group_flags: Array
    pixel_flags: Array
    limit: Array | None
    reach: int
    inner: Area
    correction: SampleCorrection

    @classmethod
    def of(
        cls, outer: Block, inner: Area, shape: tuple[int, int], stop: str, *, xp
    ) -> "RawCalibration":
        """From what belongs to the pixels of a block and to those around.

        Parameters
        ----------
        outer : Block
        inner : Area
            The block's own, counted within `outer`.
        shape : (n_ints, n_groups) of the samples
        stop : str
            The step before which to stop.
        """
        block, recipe = outer.cut(inner), outer.recipe
        correction = sample_correction(shape, block, stop)
        pixeldq = correction.pixeldq
        pixel_flags = xp.zeros(pixeldq.shape, dtype=xp.uint8)
        if recipe.runs("dq_init"):
            pixeldq = pixeldq | block.calibration.mask
            pixel_flags = (block.calibration.mask & DO_NOT_USE).astype(xp.uint8)
        limit, reach = None, 0
        if recipe.runs("saturation"):
            whole = outer.calibration
            limit, flags = saturation_limit(whole.saturation, whole.saturation_dq)
            pixeldq = pixeldq | flags[*inner]
            reach = recipe["saturation"].n_pix_grow_sat
        dropped = np.zeros(shape, dtype=bool)
        if recipe.runs("drop_groups"):
            params = recipe["drop_groups"]
            dropped = dropped_groups(*shape, params=params, readout=block.readout)
        return cls(
            group_flags=xp.asarray(dropped.astype(np.uint8) * np.uint8(DO_NOT_USE)),
            pixel_flags=pixel_flags,
            limit=limit,
            reach=reach,
            inner=inner,
            correction=replace(correction, pixeldq=pixeldq),
        )

    def __call__(self, raw: Array, first: int, out: Ramps, *, xp) -> None:
        """Calibrate some integrations.

        Parameters
        ----------
        raw : (n_ints, n_groups, n_rows_outer, n_cols_outer) uint16
            As samples travel; strides may be those of a file.
        first : int
            Which integration of the block the first one is.
        out : Ramps
            What is written: (n_ints, n_groups, n_rows, n_cols) without gaps.
        """
        n_ints, n_groups = raw.shape[:2]
        n_pixels = math.prod(self.pixel_flags.shape)
        full = None
        if self.limit is not None:
            n_outer = math.prod(self.limit.shape)
            full = xp.empty((n_ints, *self.limit.shape), dtype=xp.int16)
            kernels.launch(
                xp, "find_full", full.size, *images(raw, xp=xp), self.limit, n_groups, n_outer, full
            )
            full = earliest_around(full, self.reach, xp=xp)
            full = xp.ascontiguousarray(full[..., *self.inner])
        kernels.launch(
            xp, "calibrate_raw", n_ints * n_groups * n_pixels,
            *images(raw[..., *self.inner], xp=xp), first,
            self.group_flags, self.pixel_flags, full, *self.correction.arguments(xp=xp),
            n_groups, n_pixels, out.data, out.groupdq,
        )  # fmt: skip
