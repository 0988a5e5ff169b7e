"""The reduction: raw segments in, time series out. Read this file first.

`reduce` walks the path of the data:

    segments ──segment_to_rates──► Rates ──rates_to_extraction──► Extraction ──► time series

Ramps are calibrated and fitted in blocks of rows that hold all integrations
(`ramps_to_rates`); rates are cleaned and extracted in blocks of integrations that hold whole
frames (`rates_to_spectra`). No result depends on where the blocks are cut.
"""

import functools
import logging
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np

from miri_gpu.backend import to_host
from miri_gpu.blocks import evenly_cut
from miri_gpu.containers import Ramps, Rates, Spectra
from miri_gpu.job import Job
from miri_gpu.plan import Plan, check_limits, make_plan
from miri_gpu.progress import SILENT, Progress
from miri_gpu.ramps_to_rates import Fit, segment_to_rates, with_custom_linearity
from miri_gpu.rate_files import load_rates
from miri_gpu.rates_to_spectra import Extraction, rates_to_extraction
from miri_gpu.recipe import Recipe, settings_at_fault
from miri_gpu.row_walks import RowWalk, walks_ahead
from miri_gpu.segment_files import Origin
from miri_gpu.segments import Segment
from miri_gpu.spectra.align import align_spectra, measure_shifts
from miri_gpu.spectra.box import spectrum_wavelengths

if TYPE_CHECKING:
    import xarray

    from miri_gpu.timeseries import Provenance

log = logging.getLogger(__name__)

T = TypeVar("T")
# Opens where something of a segment goes, and gives what takes it, block by block.
Sink = Callable[[Origin], AbstractContextManager[Callable[[slice, T], None]]]

_INTS_AT_ONCE = 64  # whose rates, some 40 MB, a sink is given together


def reduce(
    segments: Sequence[str | Path],
    recipe: str | Path | Recipe | None = None,
    *,
    settings: Mapping[str, Mapping[str, Any]] | None = None,
    backend: str | None = None,
    references: str | Path | None = None,
    partial: bool = False,
    **how: Any,
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
    **how
        See `run_plan`: memory_bytes, n_workers, scratch, progress, on_rates, on_ramps.

    Returns
    -------
    xarray.Dataset
        See `miri_gpu.timeseries` for its variables.

    Raises
    ------
    MiriGpuError
        Where the input cannot be reduced: the message names the file or the parameter.
    """
    check_limits(**how)
    plan = make_plan(segments, recipe, settings or {}, backend, references, partial)
    return run_plan(plan, **how)


@settings_at_fault()
def run_plan(
    plan: Plan,
    *,
    memory_bytes: int | None = None,
    n_workers: int | None = None,
    scratch: Path | None = None,
    progress: Progress = SILENT,
    on_rates: Sink[Rates] | None = None,
    on_ramps: Sink[Ramps] | None = None,
) -> "xarray.Dataset":
    """Reduce segment after segment, or several at once, then align the whole observation.

    Parameters
    ----------
    plan : Plan
    memory_bytes : how much memory may be taken of the device; None asks it what is free
    n_workers : how many processes reduce segments; None takes one for each GPU, or just this one.
        A script that asks for several must be importable: `if __name__ == "__main__":`
    scratch : folder for what does not fit the memory; None: where temporary files go
    progress : where to report to; by default nowhere
    on_rates, on_ramps : called with the Origin of what is made of each raw segment; what the
        context that they return gives is called with blocks on the device: of integrations and
        their rates, one after the other, or of rows and their calibrated ramps, from several
        threads. With several workers both must be picklable.
    """
    check_limits(memory_bytes=memory_bytes, n_workers=n_workers)
    log.info("backend: %s", plan.backend)
    progress.say(f"backend: {plan.backend}")
    backend, n_processes = plan.backend, count_processes(plan, n_workers)
    backend.reuse_memory()
    how = {"memory_bytes": memory_bytes, "scratch": scratch}
    with backend.capped(memory_bytes):
        job = Job.of(plan, progress=progress, **how)
        if n_processes == 1:
            return reduce_job(job, on_rates, on_ramps)
        from miri_gpu.processes import map_in_processes

        job = with_custom_linearity(job)
        backend.release_memory()  # the others may want it
        how = {**how, "n_sharing": n_processes}
        one = functools.partial(_reduce_apart, plan=job.plan, how=how, sinks=(on_rates, on_ramps))
        numbers = range(len(plan.segments))
        return assemble(job, map_in_processes(one, numbers, n_processes, progress, backend.gpus()))


def reduce_job(
    job: Job, on_rates: Sink[Rates] | None = None, on_ramps: Sink[Ramps] | None = None
) -> "xarray.Dataset":
    """Reduce segment after segment in this process, then align the whole observation."""
    job = with_custom_linearity(job)
    parts = reduce_segments(job.plan.segments, job, on_rates, on_ramps)
    job.backend.release_memory()
    return assemble(job, parts)


def count_processes(plan: Plan, n_workers: int | None) -> int:
    """How many processes reduce segments: no more than there are segments, or GPUs if any."""
    n_gpus = len(plan.backend.gpus())
    n_wanted = max(1, n_gpus) if n_workers is None else n_workers
    if n_gpus and n_wanted > n_gpus:
        log.warning("workers: %d asked for, but one for each GPU: %d", n_wanted, n_gpus)
        n_wanted = n_gpus
    return min(n_wanted, len(plan.segments))


def _reduce_apart(
    number: int,
    progress: Progress,
    *,
    plan: Plan,
    how: Mapping[str, Any],
    sinks: tuple[Sink[Rates] | None, Sink[Ramps] | None],
) -> "Part":
    """Reduce one segment of a plan, in one of several processes."""
    plan.backend.reuse_memory()
    with plan.backend.capped(how["memory_bytes"]):
        job = Job.of(plan, progress=progress, **how)
        [part] = reduce_segments([plan.segments[number]], job, *sinks)
    return part


@dataclass(frozen=True)
class Part:
    """What is left of one segment, on the host.

    Attributes
    ----------
    extraction : Extraction
    emi : dict of name in the product to array, where the interference was measured
    """

    extraction: Extraction
    emi: dict[str, np.ndarray]


def reduce_segments(
    segments: Sequence[Segment],
    job: Job,
    on_rates: Sink[Rates] | None = None,
    on_ramps: Sink[Ramps] | None = None,
) -> list[Part]:
    """Reduce one segment after the other; the next is read, and copied to a GPU, meanwhile."""
    if not job.plan.from_ramps:
        return [reduce_rates(segment, job) for segment in segments]
    return [reduce_ramps(walk, on_rates, on_ramps) for walk in walks_ahead(segments, job)]


def reduce_rates(segment: Segment, job: Job) -> Part:
    """Reduce a segment that holds rate images already: stage 1 is left out."""
    kept = job.plan.integrations(segment)

    def take(ints: slice) -> Fit:
        rates = load_rates(segment, kept[ints])
        return Fit(rates=rates.map(job.backend.to_device))

    return Part(rates_to_extraction(take, len(kept), segment, job), {})


def reduce_ramps(
    walk: RowWalk, on_rates: Sink[Rates] | None = None, on_ramps: Sink[Ramps] | None = None
) -> Part:
    """Reduce a segment of raw ramps, walked over its rows."""
    segment, job = walk.segment, walk.job
    origin = job.plan.origin(segment)
    with nullcontext() if on_ramps is None else on_ramps(origin) as take_ramps:
        fits = segment_to_rates(walk, take_ramps)

    def take(ints: slice) -> Fit:
        return Fit.of(fits.take(ints))

    if on_rates is not None:
        with on_rates(origin) as take_rates:
            for ints in evenly_cut(0, origin.n_ints, _INTS_AT_ONCE):
                take_rates(ints, take(ints).rates)
    extraction = rates_to_extraction(take, origin.n_ints, segment, job)
    return Part(extraction, interference(segment, job))


def assemble(job: Job, parts: Sequence[Part]) -> "xarray.Dataset":
    """Align the spectra of the whole observation and make the product."""
    from miri_gpu.timeseries import build_timeseries

    plan = job.plan
    extraction = Extraction.concatenated([part.extraction for part in parts])
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
        provenance=provenance(job),
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
        **joined_interference(parts),
        **measured_linearity(job),
    )


def interference(segment: Segment, job: Job) -> dict[str, np.ndarray]:
    """What the product says of the interference in a segment, where it was measured."""
    model = job.emi.get(segment.path)
    if model is None:
        return {}
    found = {"frequency": np.array(model.frequencies_hz)}
    for name in ("amplitude_before", "amplitude_after"):
        amplitudes = to_host(getattr(model, name))
        found[f"emi_{name}"] = np.repeat(amplitudes, job.plan.n_parts, axis=1)
    return found


def joined_interference(parts: Sequence[Part]) -> dict[str, np.ndarray]:
    """The same of all segments; the waves are the same in all."""
    first = parts[0].emi
    return {
        name: value if name == "frequency" else np.concatenate([p.emi[name] for p in parts], axis=1)
        for name, value in first.items()
    }


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


def provenance(job: Job) -> "Provenance":
    """How the time series was made, for its attributes."""
    from miri_gpu.timeseries import Provenance

    plan, first = job.plan, job.plan.segments[0]
    return Provenance(
        recipe=plan.recipe.to_toml(),
        backend=plan.backend.name,
        device=plan.backend.device,
        crds_context=plan.calibration.context,
        references=plan.calibration.folder,
        reference_files=plan.calibration.files,
        input_files=[segment.path.name for segment in plan.segments],
        target=first.target,
        program=str(first.primary.get("PROGRAM", "")),
        observation=str(first.primary.get("OBSERVTN", "")),
        n_groups=plan.shape_of_parts[1],
        group_time_s=first.readout.group_time_s,
        gain_e_per_dn=job.median_gain,
    )
