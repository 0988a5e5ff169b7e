"""The reduction: raw segments in, time series out. Read this file first.

`reduce` walks the path of the data:

    segments ──segment_to_rates──► Rates ──rates_to_extraction──► Extraction ──► time series

Ramps are calibrated and fitted in blocks of rows that hold all integrations
(`ramps_to_rates`); rates are cleaned and extracted in blocks of integrations that hold whole
frames (`rates_to_spectra`). No result depends on where the blocks are cut.
"""

import logging
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from miri_gpu.backend import to_host
from miri_gpu.blocks import Workers
from miri_gpu.containers import Ramps, Rates, Spectra
from miri_gpu.plan import Plan, make_plan
from miri_gpu.progress import Progress, Silent
from miri_gpu.ramp_blocks import Job
from miri_gpu.ramps_to_rates import Fit, segment_to_rates, with_custom_linearity
from miri_gpu.rate_files import load_rates
from miri_gpu.rates_to_spectra import Extraction, rates_to_extraction
from miri_gpu.recipe import Recipe, settings_at_fault
from miri_gpu.segments import Segment
from miri_gpu.spectra.align import align_spectra, measure_shifts
from miri_gpu.spectra.box import spectrum_wavelengths

if TYPE_CHECKING:
    import xarray

    from miri_gpu.timeseries import Provenance

log = logging.getLogger(__name__)

# Opens where the ramps of a segment go: rows and their ramps, as they are fitted, block by block.
RampSink = Callable[[Segment], AbstractContextManager[Callable[[slice, Ramps], None]]]


def reduce(
    segments: Sequence[str | Path],
    recipe: str | Path | Recipe | None = None,
    *,
    settings: Mapping[str, Mapping[str, Any]] | None = None,
    backend: str | None = None,
    references: str | Path | None = None,
    partial: bool = False,
    memory_bytes: int | None = None,
    progress: Progress | None = None,
    on_rates: Callable[[Segment, Rates], None] | None = None,
    on_ramps: RampSink | None = None,
) -> "xarray.Dataset":
    """Reduce the segments of one observation to its time series.

    Parameters
    ----------
    segments : files `*_uncal.fits` (raw ramps) or `*_rateints.fits` (rate images), in any order
    recipe : "bright", "faint", a TOML file or a Recipe; None lets the number of groups choose
    settings : changes to the recipe, `{"jump": {"rejection_threshold": 10}}`
    backend : "auto", "cupy" or "numpy"; None asks the environment variable MIRI_GPU_BACKEND
    references : a folder of reference files; None asks CRDS
    partial : accept that segments of the exposure are missing
    memory_bytes : how much memory blocks may take; None asks the device
    progress : where to report to; None reports nothing
    on_rates : called with each raw segment and its rates, on the device, when they are ready
    on_ramps : called with each raw segment; what the context that it returns gives is called, from
        several threads, with rows and their calibrated ramps, on the device

    Returns
    -------
    xarray.Dataset
        See `miri_gpu.timeseries` for its variables.

    Raises
    ------
    MiriGpuError
        Where the input cannot be reduced: the message names the file or the parameter.
    """
    plan = make_plan(segments, recipe, settings or {}, backend, references, partial)
    return run_plan(
        plan, memory_bytes=memory_bytes, progress=progress, on_rates=on_rates, on_ramps=on_ramps
    )


@settings_at_fault()
def run_plan(
    plan: Plan,
    *,
    memory_bytes: int | None = None,
    progress: Progress | None = None,
    on_rates: Callable[[Segment, Rates], None] | None = None,
    on_ramps: RampSink | None = None,
) -> "xarray.Dataset":
    """Reduce segment after segment, then align the whole observation."""
    progress = progress or Silent()
    log.info("backend: %s", plan.backend)
    progress.say(f"backend: {plan.backend}")
    job = Job(
        plan=plan,
        calibration=plan.calibration.to(plan.backend),
        workers=Workers.of(plan.backend, memory_bytes),
        progress=progress,
    )
    if plan.from_ramps and plan.recipe.runs("custom_linearity"):
        job = with_custom_linearity(plan.segments[-1], job)
    parts = [reduce_segment(segment, job, on_rates, on_ramps) for segment in plan.segments]
    return assemble(plan, job, Extraction.concatenated(parts))


def reduce_segment(
    segment: Segment,
    job: Job,
    on_rates: Callable[[Segment, Rates], None] | None = None,
    on_ramps: RampSink | None = None,
) -> Extraction:
    """Reduce one segment; where it already holds rate images, stage 1 is left out."""
    kept = job.plan.integrations(segment)
    if not segment.holds_ramps:

        def load(ints: slice) -> Fit:
            rates = load_rates(segment, kept[ints])
            return Fit(rates=rates.map(job.backend.to_device))

        return rates_to_extraction(load, len(kept), segment, job)

    with nullcontext() if on_ramps is None else on_ramps(segment) as take_ramps:
        fits = segment_to_rates(segment, job, take_ramps)
    if on_rates is not None:
        on_rates(segment, Fit.of(fits.arrays).rates.map(to_host))
    return rates_to_extraction(
        lambda ints: Fit.of(fits.take(ints)), len(kept) * job.plan.n_parts, segment, job
    )


def assemble(
    plan: Plan,
    job: Job,
    extraction: Extraction,
) -> "xarray.Dataset":
    """Align the spectra of the whole observation and make the product."""
    from miri_gpu.timeseries import build_timeseries

    y_shift = measure_shifts(extraction.flux)
    spectra = align_spectra(
        Spectra(flux=extraction.flux, flux_err=extraction.flux_err),
        y_shift,
        params=plan.recipe["align_spectra"],
    )
    times = [plan.integration_times(segment) for segment in plan.segments]
    return build_timeseries(
        wavelength=spectrum_wavelengths(
            plan.calibration.wavelength,
            extraction.trace_centre,
            params=plan.recipe.extraction,
        ),
        times={name: np.concatenate([part[name] for part in times]) for name in times[0]},
        integration_number=plan.integration_numbers(),
        provenance=provenance(plan, job),
        flux=spectra.flux,
        flux_error=spectra.flux_err,
        background=extraction.background,
        n_outliers=extraction.n_outliers,
        n_jumps=extraction.n_jumps,
        x_shift=measure_shifts(extraction.cross_dispersion),
        y_shift=y_shift,
        trace_centre=extraction.trace_centre,
        psf_sigma=extraction.psf_sigma,
        **({} if extraction.chi_square is None else {"chi_square": extraction.chi_square}),
        **interference(plan, job),
        **measured_linearity(job),
    )


def interference(plan: Plan, job: Job) -> dict[str, np.ndarray]:
    """What the product says of the interference, where it was measured."""
    models = [job.emi[segment.path] for segment in plan.segments if segment.path in job.emi]
    if not models:
        return {}
    found = {"frequency": np.array(models[0].frequencies_hz)}
    for name in ("amplitude_before", "amplitude_after"):
        amplitudes = np.concatenate([to_host(getattr(model, name)) for model in models], axis=1)
        found[f"emi_{name}"] = np.repeat(amplitudes, plan.n_parts, axis=1)
    return found


def measured_linearity(job: Job) -> dict[str, np.ndarray]:
    """What the product says of the non-linearity, where it was measured."""
    found = job.linearity
    if found is None:
        return {}
    return {
        "linearity_coefficients": found.coefficients,
        "linearity_coefficients_error": found.coefficients_err,
        "linearity_residual": found.residual,
        "linearity_residual_error": found.residual_err,
        "linearity_in_fit": found.in_fit,
        "linearity_n_ramps": found.n_ramps,
        "linearity_n_rejected": found.n_rejected,
    }


def provenance(plan: Plan, job: Job) -> "Provenance":
    """How the time series was made, for its attributes."""
    from miri_gpu.timeseries import Provenance

    header = plan.segments[0].primary
    return Provenance(
        recipe=plan.recipe.to_toml(),
        backend=plan.backend.name,
        device=plan.backend.device,
        crds_context=job.calibration.context,
        reference_files=job.calibration.files,
        input_files=[segment.path.name for segment in plan.segments],
        target=plan.segments[0].target,
        program=header.get("PROGRAM", ""),
        observation=header.get("OBSERVTN", ""),
    )
