"""What is timed of the core: each function with arguments as the reduction gives them.

Where a function is a step of the recipe, it is called through the table of steps, so that what is
timed is what runs.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from math import prod

import numpy as np

from miri_gpu import detector
from miri_gpu.background import (
    GroupBackgroundParams,
    evaluate_background,
    measure_background,
    subtract_background,
)
from miri_gpu.numerics import fit_gaussians, fit_polynomials, masked_median, moving_median
from miri_gpu.ramp_steps import MEASURED_ON_FRAMES, RAMP_STEPS, FrameCorrections, apply_steps
from miri_gpu.ramps.groups import RegroupParams, regroup
from miri_gpu.ramps.ramp_fit import fit_ramps
from miri_gpu.ramps.reference_pixels import measure_reference_pixels, subtract_reference_pixels
from miri_gpu.ramps.self_calibration import CustomLinearityParams, calibrate_linearity
from miri_gpu.ramps_to_rates import Job, Stretch, read_block, segment_to_rates
from miri_gpu.rates.dq_report import count_dq_flags
from miri_gpu.rates.errors import fill_unknown_errors
from miri_gpu.rates.flat import apply_flat
from miri_gpu.rates.gain import scale_gain
from miri_gpu.rates.outliers import clean_outliers
from miri_gpu.rates.trace import fit_trace
from miri_gpu.segments import Segment, decode_samples, encoded_samples
from miri_gpu.spectra.align import (
    AlignSpectraParams,
    align_spectra,
    cross_dispersion_profiles,
    measure_shifts,
)
from miri_gpu.spectra.box import extract_box
from miri_gpu.spectra.optimal import extract_optimal

_BRIGHT_ROW = 340  # in the part of the trace where the star is bright
_FEWEST_GROUPS_TO_CALIBRATE = 40  # of a self-calibrated linearity


@dataclass(frozen=True)
class Case:
    """One function to time.

    Attributes
    ----------
    name : str
        Room and function, "ramps: jump".
    per : str
        What its time is divided by: "sample", "pixel", "row" or "curve".
    shape : tuple of int
        Of what it works on.
    run : callable without arguments
    """

    name: str
    per: str
    shape: tuple[int, ...]
    run: Callable[[], object]

    @property
    def n_items(self) -> int:
        """How many samples, pixels, rows or curves there are."""
        return prod(self.shape)


def all_cases(segment: Segment, job: Job) -> Iterator[Case]:
    """Every case, each to be timed before the next is asked for."""
    yield from ramp_cases(segment, job)
    yield from ramp_frame_cases(segment, job)
    rates = segment_to_rates(segment, job).rates
    yield from rate_cases(rates, job)
    yield from numerics_cases(rates, job)


def ramp_cases(segment: Segment, job: Job) -> Iterator[Case]:
    """Steps on some rows of all integrations, in the order of the recipe, and the ramp fit."""
    kept, xp = job.plan.integrations(segment), job.backend.xp
    bytes_per_row = len(kept) * segment.n_groups * detector.N_COLS * 4
    blocks = job.workers.cut(0, detector.N_ROWS, bytes_per_row)
    rows = next(block for block in blocks if block.stop > _BRIGHT_ROW)
    ramps, block = read_block(Stretch(segment, kept, FrameCorrections()), rows, job)
    shape = ramps.data.shape

    raw = job.backend.to_device(encoded_samples(segment.read_samples(rows, kept)))
    yield Case("ramps: decode_samples", "sample", shape, lambda: decode_samples(raw, xp=xp))
    for step, run in RAMP_STEPS.items():
        if step in MEASURED_ON_FRAMES or not job.recipe.runs(step):
            continue
        before = ramps
        yield Case(f"ramps: {step}", "sample", shape, lambda: run(before, block))  # noqa: B023
        ramps = run(ramps, block)
    yield Case(
        "ramps: ramp_fit",
        "sample",
        shape,
        lambda: fit_ramps(
            ramps,
            block.calibration.read_noise,
            block.calibration.gain,
            params=job.recipe["ramp_fit"],
            readout=block.readout,
            dropped=block.dropped,
            dark_current=block.calibration.average_dark,
        ),
    )


def ramp_frame_cases(segment: Segment, job: Job) -> Iterator[Case]:
    """What works on whole frames of the ramps, of a few integrations, and regroups them."""
    kept = job.plan.integrations(segment)
    bytes_per_int = segment.n_groups * detector.N_ROWS * detector.N_COLS * 4
    ints = kept[job.workers.cut(0, len(kept), bytes_per_int)[0]]
    frame = slice(0, detector.N_ROWS)
    ramps, block = read_block(Stretch(segment, ints, FrameCorrections()), frame, job)
    ramps = apply_steps(ramps, block, stop="reference_pixel")
    data, shape = ramps.data, ramps.data.shape
    drifts = measure_reference_pixels(ramps)
    params = GroupBackgroundParams()
    background = measure_background(data, ramps.groupdq, params=params)
    parts = RegroupParams(n_groups=min(10, segment.n_groups))
    calls = {
        "measure_reference_pixels": lambda: measure_reference_pixels(ramps),
        "subtract_reference_pixels": lambda: subtract_reference_pixels(ramps, drifts),
        "measure_background": lambda: measure_background(data, ramps.groupdq, params=params),
        "subtract_background": lambda: subtract_background(data, background),
        "regroup": lambda: regroup(ramps, params=parts),
    }
    for name, run in calls.items():
        yield Case(f"ramps: {name}", "sample", shape, run)

    if segment.n_groups >= _FEWEST_GROUPS_TO_CALIBRATE:
        custom = job.recipe["custom_linearity"]
        assert isinstance(custom, CustomLinearityParams)
        used = slice(custom.row_idx_start_used, custom.row_idx_end_used)
        cut, dq = data[:, :, used], ramps.groupdq[:, :, used]
        run = lambda: calibrate_linearity(cut, dq, params=custom)  # noqa: E731
        yield Case("ramps: calibrate_linearity", "sample", cut.shape, run)


def rate_cases(rates, job: Job) -> Iterator[Case]:
    """What works on whole frames of the rates, of some integrations, up to aligned spectra."""
    recipe, calibration, xp = job.recipe, job.calibration, job.backend.xp
    n_ints = rates.data.shape[0]
    ints = job.workers.cut(0, n_ints, 2 * detector.N_ROWS * detector.N_COLS * 8)[0]
    rates = rates.map(lambda plane: plane[ints])
    flat = (calibration.flat, calibration.flat_err, calibration.flat_dq)
    flattened = apply_flat(rates, *flat)
    data, dq, shape = flattened.data, flattened.dq, rates.data.shape
    cleaning, levels = recipe["clean_outliers"], recipe["background_subtract"]
    cleaned = clean_outliers(data, dq, params=cleaning)
    background = measure_background(cleaned.data, cleaned.dq, params=levels)
    clean = clean_outliers(subtract_background(data, background), dq, params=cleaning)
    err = fill_unknown_errors(flattened.err)
    noise = fill_unknown_errors(xp.sqrt(flattened.var_rnoise))
    box, optimal = recipe["extract_1d_box"], recipe["extract_1d_optimal"]
    calls = {
        "rates: gain_scale": lambda: scale_gain(rates, 2.0),
        "rates: flat_field": lambda: apply_flat(rates, *flat),
        "rates: clean_outliers": lambda: clean_outliers(data, dq, params=cleaning),
        "rates: measure_background": lambda: measure_background(
            cleaned.data, cleaned.dq, params=levels
        ),
        "rates: subtract_background": lambda: subtract_background(data, background),
        "rates: fill_unknown_errors": lambda: fill_unknown_errors(flattened.err),
        "rates: count_dq_flags": lambda: count_dq_flags(dq),
        "rates: fit_trace": lambda: fit_trace(clean.data, params=recipe["trace"]),
        "spectra: extract_1d_box": lambda: extract_box(clean.data, err, params=box),
        "spectra: extract_1d_optimal": lambda: extract_optimal(
            clean.data,
            clean.profile,
            noise,
            params=optimal,
            gain=calibration.gain,
            integration_time_s=1.0,
            background=evaluate_background(background, detector.N_COLS),
        ),
        "spectra: cross_dispersion_profiles": lambda: cross_dispersion_profiles(
            clean.data, params=recipe["trace"]
        ),
    }
    for name, run in calls.items():
        yield Case(name, "pixel", shape, run)

    spectra = extract_box(clean.data, err, params=box)
    shifts, align = measure_shifts(spectra.flux), AlignSpectraParams(align_spectra=True)
    for name, run in {
        "spectra: measure_shifts": lambda: measure_shifts(spectra.flux),
        "spectra: align_spectra": lambda: align_spectra(spectra, shifts, params=align),
    }.items():
        yield Case(name, "row", spectra.flux.shape, run)


def numerics_cases(rates, job: Job) -> Iterator[Case]:
    """The maths beneath, on the frames of the rates."""
    xp = job.backend.xp
    n_ints = rates.data.shape[0]
    ints = job.workers.cut(0, n_ints, 2 * detector.N_ROWS * detector.N_COLS * 8)[0]
    data = rates.data[ints]
    good, curves = xp.isfinite(data), xp.where(xp.isfinite(data), data, 0)
    windows = xp.ascontiguousarray(xp.moveaxis(curves[:, 200:300], 1, -1))  # of 100 rows
    usable = xp.ones(windows.shape, dtype=bool)
    calls = {
        "masked_median, over columns": (data, lambda: masked_median(data, good, axis=2)),
        "masked_median, over integrations": (data, lambda: masked_median(data, good, axis=0)),
        "moving_median": (data, lambda: moving_median(data, good, radius=5, axis=1)),
        "fit_polynomials": (windows, lambda: fit_polynomials(windows, usable, 4)),
    }
    for name, (array, run) in calls.items():
        yield Case(f"numerics: {name}", "pixel", array.shape, run)

    columns = xp.arange(data.shape[2], dtype=xp.float64)
    profiles = 100.0 * xp.exp(-0.5 * ((columns - 36.3) / 1.5) ** 2) + 0 * curves[:, 200:300].mean(
        axis=1
    )
    start = xp.asarray(np.tile([90.0, 36.0, 1.6, 0.0], (len(profiles), 1)))
    yield Case(
        "numerics: fit_gaussians",
        "curve",
        profiles.shape[:1],
        lambda: fit_gaussians(profiles, columns, start),
    )
