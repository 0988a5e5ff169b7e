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
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from miri_gpu.assembly import Part, assemble, interference
from miri_gpu.blocks import evenly_cut
from miri_gpu.containers import Ramps, Rates
from miri_gpu.job import Job
from miri_gpu.plan import Plan, check_limits, make_plan
from miri_gpu.progress import SILENT, Progress
from miri_gpu.ramps_to_rates import Fit, segment_to_rates, with_custom_linearity
from miri_gpu.rate_files import load_rates
from miri_gpu.rates_to_spectra import rates_to_extraction
from miri_gpu.recipe import Recipe, settings_at_fault
from miri_gpu.row_walks import RowWalk, walks_ahead
from miri_gpu.segment_files import Origin
from miri_gpu.segments import Segment

if TYPE_CHECKING:
    import xarray

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
) -> Part:
    """Reduce one segment of a plan, in one of several processes."""
    plan.backend.reuse_memory()
    with plan.backend.capped(how["memory_bytes"]):
        job = Job.of(plan, progress=progress, **how)
        [part] = reduce_segments([plan.segments[number]], job, *sinks)
    return part


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
