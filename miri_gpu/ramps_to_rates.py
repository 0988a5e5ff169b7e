"""Ramps to rates: the steps in order, walked over a segment in blocks of rows.

A block holds all integrations and groups of its rows. Steps that look at neighbouring pixels get
a halo of rows around it; steps that need whole frames are measured beforehand, in one pass over
blocks of integrations, and applied in the blocks of rows.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Self

import numpy as np

from miri_gpu import detector
from miri_gpu.area import Area, grown, within
from miri_gpu.backend import namespace, to_host
from miri_gpu.background import evaluate_background
from miri_gpu.containers import Array, Ramps, Rates
from miri_gpu.doubts import doubt_linearity
from miri_gpu.errors import SegmentError
from miri_gpu.job import Job
from miri_gpu.numerics import masked_median
from miri_gpu.ramp_blocks import jump_halo, load_ramps
from miri_gpu.ramp_steps import Block, apply_steps, cut_ramps
from miri_gpu.ramps.likelihood import fit_ramps_likelihood
from miri_gpu.ramps.ramp_fit import fit_ramps, with_limits
from miri_gpu.ramps.self_calibration import (
    calibrate_kept,
    expand_linearity,
    kept_as,
    ramps_used,
)
from miri_gpu.ramps.time_jumps import edge_integrations
from miri_gpu.rates.gain import scale_gain
from miri_gpu.row_walks import RowWalk, walks_ahead
from miri_gpu.segments import Segment
from miri_gpu.storage import Planes, Store
from miri_gpu.stretches import MeasuredFrames, Stretch
from miri_gpu.whole_frames import emi_of, measure_frames


@dataclass(frozen=True, eq=False, kw_only=True)
class Fit:
    """What the ramp fit gives.

    Attributes
    ----------
    rates : Rates
    chi_square : (n_ints, n_rows, n_cols) float32, or None
        Of each ramp, where the likelihood was fitted; NaN where there is no rate.
    degrees_of_freedom : (n_ints, n_rows, n_cols) int16, or None
    """

    rates: Rates
    chi_square: Array | None = None
    degrees_of_freedom: Array | None = None

    def planes(self) -> dict[str, Array]:
        """Every array that is there, by name."""
        named = {**vars(self), **vars(self.rates)}
        named.pop("rates")
        return {name: array for name, array in named.items() if array is not None}

    @classmethod
    def of(cls, planes: Mapping[str, Array]) -> Self:
        """The fit that has these planes."""
        own = {name: planes[name] for name in ("chi_square", "degrees_of_freedom")
               if name in planes}  # fmt: skip
        return cls(rates=Rates(**{n: plane for n, plane in planes.items() if n not in own}), **own)


def segment_to_rates(
    walk: RowWalk, take_ramps: Callable[[slice, Ramps], None] | None = None
) -> Store:
    """Reduce the ramps of a segment, walked over its rows, to rates; the main loop of stage 1.

    `take_ramps` is called, from several threads, with rows and their ramps as they are fitted.

    Returns
    -------
    Store
        The planes of a Fit.
    """
    job = walk.job
    before, after = edge_stretches(walk.segment, job)
    planes = planes_of_fit(len(job.plan.integrations(walk.segment)) * job.plan.n_parts, job)
    fits = job.room.store(planes, xp=job.backend.xp)

    def fit_rows(stretch: Stretch, rows: slice) -> None:
        fit = rows_to_rates(stretch, rows, job, before, after, take_ramps)
        fits.put((slice(None), rows), fit.planes())

    walk.run(
        fit_rows,
        lambda stretch: measure_frames(stretch, job),
        task=f"{walk.segment.path.name}: ramps to rates",
        n_beside=sum(len(part.integrations) for part in (*before, *after)),
    )
    return fits


def rows_to_rates(
    stretch: Stretch,
    rows: slice,
    job: Job,
    before: Sequence[Stretch] = (),
    after: Sequence[Stretch] = (),
    take_ramps: Callable[[slice, Ramps], None] | None = None,
) -> Fit:
    """Reduce some rows of a segment's ramps to rates, given the stretches before and after it."""
    area = Area(grown(rows, jump_halo(job.recipe)))
    ramps, block = load_ramps(stretch, area, job, stop="time_jump")
    block = replace(block, before=load_edge(before, area, job), after=load_edge(after, area, job))
    ramps = apply_steps(ramps, block, start="time_jump")
    here = Area(rows).within(area)
    ramps, block = cut_ramps(ramps, here), block.cut(here)
    if take_ramps is not None:
        take_ramps(rows, ramps)
    fit = fit_block(ramps, block)
    if job.recipe.runs("gain_scale") and job.calibration.gain_factor is not None:
        fit = replace(fit, rates=scale_gain(fit.rates, job.calibration.gain_factor))
    return fit


def fit_block(ramps: Ramps, block: Block) -> Fit:
    """Fit the ramps of a block by the algorithm of the recipe."""
    recipe, params = block.recipe, block.recipe["ramp_fit"]
    noise = (block.calibration.read_noise, block.calibration.gain)
    facts = {
        "readout": block.readout,
        "dropped": block.dropped,
        "dark_current": current_taken_off(block),
    }
    if params.algorithm != "LIKELY":
        return Fit(rates=fit_ramps(ramps, *noise, params=params, **facts))
    groupdq, facts["dropped"] = with_limits(ramps.groupdq, block.dropped, params)
    ramps = replace(ramps, groupdq=groupdq)
    found = fit_ramps_likelihood(ramps, *noise, params=recipe["likelihood"], **facts)
    return Fit(
        rates=found.rates,
        chi_square=found.chi_square,
        degrees_of_freedom=found.degrees_of_freedom,
    )


def current_taken_off(block: Block) -> Array | None:
    """What the ramps have the noise of and not the signal: dark current, background of groups.

    Returns
    -------
    (n_rows, n_cols) float32, or None
        As the ramp fit takes a dark current; of the background the median of all integrations.
    """
    dark = block.calibration.average_dark if block.recipe.runs("dark_current") else None
    if block.frames.background is None:
        return dark
    levels = block.frames.background
    rise = masked_median(masked_median(levels[:, 1:] - levels[:, :-1], axis=1), axis=0)
    rate = evaluate_background(rise, detector.N_COLS) / block.readout.group_time_s
    xp = namespace(rate)
    rate = xp.where(rate > 0, rate, 0).astype(xp.float32)  # 0 where it is unknown
    return rate if dark is None else rate + dark


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
        stretch = Stretch(outer, kept)
        stretches.append(replace(stretch, frames=measure_frames(stretch, job)))
    return stretches


def load_edge(stretches: Sequence[Stretch], area: Area, job: Job) -> Ramps | None:
    """The ramps of some stretches, one after the other, as they enter the time_jump step."""
    parts = [load_ramps(stretch, area, job, stop="time_jump")[0] for stretch in stretches]
    if not parts:
        return None
    xp = job.backend.xp
    return Ramps(
        data=xp.concatenate([part.data for part in parts]),
        groupdq=xp.concatenate([part.groupdq for part in parts]),
        pixeldq=parts[0].pixeldq,
    )


def with_custom_linearity(job: Job) -> Job:
    """Replace the reference linearity by that of the last segment's own ramps, if the recipe does.

    In the calibration of the job, and in that of its plan, of which files and product speak.
    """
    if not (job.plan.from_ramps and job.recipe.runs("custom_linearity")):
        return job
    segment = job.plan.segments[-1]
    params, xp = job.recipe["custom_linearity"], job.backend.xp
    start, stop, _ = slice(params.row_idx_start_used, params.row_idx_end_used).indices(
        detector.N_ROWS
    )
    n_kept, dtype = kept_as(len(job.plan.integrations(segment)), params=params)
    used = Area(slice(start, stop), params.columns)
    shape = (n_kept, segment.n_groups, *used.shape)
    store = job.room.store({"data": (shape, dtype), "groupdq": (shape, np.uint8)}, xp=xp)

    def collect(stretch: Stretch, rows: slice) -> None:
        ramps, _ = load_ramps(stretch, Area(rows, used.columns), job, stop="linearity")
        data, groupdq = ramps_used(ramps.data, ramps.groupdq, params=params)
        place = (slice(None), slice(None), within(rows, used.rows))
        store.put(place, {"data": data, "groupdq": groupdq})

    [walk] = walks_ahead([segment], job, used.rows)
    walk.run(
        collect,
        lambda stretch: MeasuredFrames(emi=emi_of(stretch, job)),
        task=f"{segment.path.name}: non-linearity",
    )
    measured = calibrate_kept(
        lambda ints: tuple(store.take(ints).values()), shape, params=params, xp=xp
    )
    found = measured.map(to_host)
    if not np.isfinite(found.coefficients).all():
        raise SegmentError(
            f"{segment.path}: custom_linearity: the samples of the rows and groups used do not "
            f"determine powers up to {params.highest_power} (highest_power) for every amplifier; "
            "custom_linearity.skip = true takes those of the reference file"
        )
    doubt_linearity(found)
    terms = measured.coefficients[: params.highest_power + 1]  # the others are 0
    linearity = expand_linearity(terms, detector.N_ROWS, detector.N_COLS)
    calibration = replace(
        job.calibration,
        linearity=linearity,
        linearity_dq=xp.zeros(linearity.shape[1:], dtype=xp.uint32),
        files={**job.calibration.files, "linearity": f"measured on {segment.path.name}"},
    )
    plan = replace(job.plan, calibration=calibration.map(to_host))
    return replace(job, plan=plan, calibration=calibration, linearity=found)


def planes_of_fit(n_ints: int, job: Job) -> Planes:
    """Shape and type of what a Fit of so many integrations holds, by name."""
    planes = dict.fromkeys(("data", "err", "var_poisson", "var_rnoise"), np.float32)
    planes["dq"] = np.uint32
    if job.recipe["ramp_fit"].algorithm == "LIKELY":
        planes |= {"chi_square": np.float32, "degrees_of_freedom": np.int16}
    shape = (n_ints, detector.N_ROWS, detector.N_COLS)
    return {name: (shape, dtype) for name, dtype in planes.items()}
