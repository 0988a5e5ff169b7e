"""The functions of ramps that are timed, with arguments as the reduction gives them.

Where a function is a step of the recipe, it is called through the table of steps, so that what is
timed is what runs.
"""

from collections.abc import Callable, Iterator

from bench.case import Case, beside_the_trace
from bench.source import Source
from miri_gpu import detector
from miri_gpu.area import Area, grown
from miri_gpu.background import GroupBackgroundParams, measure_background, subtract_background
from miri_gpu.containers import Ramps
from miri_gpu.ramp_blocks import jump_halo, load_ramps
from miri_gpu.ramp_steps import MEASURED_ON_FRAMES, RAMP_STEPS, apply_steps
from miri_gpu.ramps.groups import RegroupParams, regroup
from miri_gpu.ramps.reference_pixels import measure_reference_pixels, subtract_reference_pixels
from miri_gpu.ramps.self_calibration import CustomLinearityParams, calibrate_linearity
from miri_gpu.ramps_to_rates import fit_block
from miri_gpu.raw_samples import decode_samples

_BRIGHT_ROW = 340  # in the part of the trace where the star is bright
_FEWEST_GROUPS_TO_CALIBRATE = 40  # of a self-calibrated linearity
_OF_ALL_INTEGRATIONS = ("time_jump", "jump")
_FLAGS_FROM_FLAGS = ("dq_init", "firstframe", "lastframe", "drop_groups", "rscd")


def ramp_cases(source: Source) -> Iterator[Case]:
    """Steps on some rows, in the order of the recipe, and the ramp fit.

    Up to the search for jumps of as many integrations as the reduction takes together, from there
    on of all of them.
    """
    xp, recipe = source.job.backend.xp, source.job.recipe
    _, [blocks] = source.walk().blocks()
    rows = next(block for block in blocks if block.stop > _BRIGHT_ROW)
    bytes_per_int = 4 * source.raw[0, :, rows].size
    ints = source.job.workers.passes(source.raw.shape[0], bytes_per_int)[0]
    raw = xp.ascontiguousarray(source.raw[ints, :, rows])
    decode = lambda: decode_samples(raw, xp=xp)  # noqa: E731
    yield Case("ramps: decode_samples", "sample", raw.shape, decode, (raw,))

    steps = [step for step in RAMP_STEPS if recipe.runs(step) and step not in MEASURED_ON_FRAMES]
    ramps, block = source.ramps(rows, ints), source.block(rows, ints)
    for step in steps:
        if step in _OF_ALL_INTEGRATIONS:
            continue
        yield _step_case(step, ramps, lambda given=ramps, s=step: RAMP_STEPS[s](given, block))
        ramps = RAMP_STEPS[step](ramps, block)

    area = Area(grown(rows, jump_halo(recipe)))
    load = lambda: load_ramps(source.stretch, area, source.job, stop="time_jump")  # noqa: E731
    raw = source.raw[:, :, area.rows]
    yield Case("ramps: all of these, as they run", "sample", raw.shape, load, (raw,))
    ramps, whole = load()
    for step in steps:
        if step in _OF_ALL_INTEGRATIONS:
            yield _step_case(step, ramps, lambda given=ramps, s=step: RAMP_STEPS[s](given, whole))
            ramps = RAMP_STEPS[step](ramps, whole)
    fit = lambda: fit_block(ramps, whole)  # noqa: E731
    yield Case("ramps: ramp_fit", "sample", ramps.data.shape, fit, (ramps.data, ramps.groupdq))


def _step_case(step: str, ramps: Ramps, run: Callable[[], Ramps]) -> Case:
    """A step: it reads samples and flags, but for those that make flags of flags alone."""
    reads = (ramps.groupdq,) if step in _FLAGS_FROM_FLAGS else (ramps.data, ramps.groupdq)
    passes = (ramps.data, ramps.groupdq, ramps.pixeldq)
    return Case(f"ramps: {step}", "sample", ramps.data.shape, run, reads, passes)


def ramp_frame_cases(source: Source) -> Iterator[Case]:
    """What works on whole frames of the ramps, of a few integrations, and regroups them."""
    job = source.job
    n_ints, n_groups = source.raw.shape[:2]
    bytes_per_int = n_groups * detector.N_ROWS * detector.N_COLS * 4
    ints = job.workers.cut(0, n_ints, bytes_per_int)[0]
    ramps = apply_steps(source.ramps(ints=ints), source.block(ints=ints), stop="reference_pixel")
    data, flags, shape = ramps.data, ramps.groupdq, ramps.data.shape
    drifts = measure_reference_pixels(ramps)
    references = tuple(a[..., : detector.N_REFERENCE_COLS] for a in (data, flags))
    params = GroupBackgroundParams()
    background = measure_background(data, flags, params=params)
    parts = RegroupParams(n_groups=min(10, n_groups))
    n_used = n_groups - n_groups % parts.n_groups
    calls = {
        "measure_reference_pixels": (lambda: measure_reference_pixels(ramps), references),
        "subtract_reference_pixels": (
            lambda: subtract_reference_pixels(ramps, drifts),
            (data, drifts),
        ),
        "measure_background": (
            lambda: measure_background(data, flags, params=params),
            (*beside_the_trace(data, params), *beside_the_trace(flags, params)),
        ),
        "subtract_background": (
            lambda: subtract_background(data, background),
            (data, background),
        ),
        "regroup": (
            lambda: regroup(ramps, params=parts),
            (data[:, :n_used], flags[:, :n_used]),
        ),
    }
    passes = (data, flags, ramps.pixeldq)
    for name, (run, reads) in calls.items():
        yield Case(f"ramps: {name}", "sample", shape, run, reads, passes)

    if n_groups >= _FEWEST_GROUPS_TO_CALIBRATE:
        custom = job.recipe["custom_linearity"]
        assert isinstance(custom, CustomLinearityParams)
        used = slice(custom.row_idx_start_used, custom.row_idx_end_used)
        cut, dq = data[:, :, used], flags[:, :, used]
        run = lambda: calibrate_linearity(cut, dq, params=custom)  # noqa: E731
        reads = (cut[..., custom.columns], dq[..., custom.columns])
        yield Case("ramps: calibrate_linearity", "sample", cut.shape, run, reads)
