"""From raw samples in the memory of a device to spectra; and, to compare, from a file.

First the work of the reduction alone: nothing is read from a disk, nothing copied to a GPU. Then
the same with the samples in a file: they are read, copied and computed with, in whatever order the
reduction does so. For a GPU once more with four segments, all of them that file. Neither astropy
nor jwst is needed: samples and references are simulated in memory (`bench.plain`). The recipe is
the one that the number of groups chooses, with the linearity of the reference.
"""

import shutil
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from statistics import median

import click
import numpy as np

from bench import ceilings, plain
from bench.clock import Stopwatch
from bench.observations import data_folder, observe
from bench.options import chosen, computed_by, options, report
from bench.sizes import ALL_SIZES, SIZES, describe_size, raw_bytes
from bench.source import Source, job_of
from miri_gpu.backend import Backend
from miri_gpu.reduction import reduce_ramps, reduce_segments
from miri_gpu.simulate import SimulationSettings

KINDS = {  # of measurements, and where their samples lie
    "from_memory": "the memory of the device",
    "from_file": "a file",
    "from_4_files": "four such files",
}


@click.command(help=__doc__)
@options([*ALL_SIZES, "all"], default="all")
@click.option("--repeat", type=click.IntRange(1), default=3, help="Measurements of each.")
def main(size: str, backend: str | None, data: Path | None, results: Path, repeat: int) -> None:
    """Measure, print, write."""
    with data_folder(data) as folder:
        for name, where in chosen(size, SIZES, backend):
            n_free = min(where.free_memory_bytes(), shutil.disk_usage(folder).free)
            if 2 * raw_bytes(ALL_SIZES[name]) > n_free:
                click.echo(f"{name}: left out, there is no room for it", err=True)
                continue
            entry = measure_compute(ALL_SIZES[name], where, folder, repeat)
            report("compute", f"{name}/{computed_by(where)}", entry, where, results, summary)


def measure_compute(
    settings: SimulationSettings, backend: Backend, folder: Path, repeat: int
) -> dict:
    """All measurements of one observation."""
    backend.reuse_memory()
    source = Source.simulated(settings, backend)
    entry = {
        **describe_size(settings),
        "distinct_integrations": source.n_distinct,
        "backend": backend.name,
        "recipe": source.job.recipe.name,
        "threads": source.job.workers.n_threads,
        "from_memory": from_memory(source, repeat),
    }
    del source  # what comes now has the memory for itself
    backend.release_memory()
    entry["from_file"] = from_file(settings, backend, folder, repeat)
    if backend.on_gpu:  # to which a segment is copied while it computes with the one before
        entry["from_4_files"] = from_file(settings, backend, folder, repeat, n_segments=4)
    return entry


def from_memory(source: Source, repeat: int) -> dict:
    """Samples on the device to spectra on the host."""
    backend, workers = source.job.backend, source.job.workers

    def reduce(stopwatch: Stopwatch) -> None:
        told = replace(source, job=replace(source.job, progress=stopwatch))
        reduce_ramps(told.walk())

    ceiling = ceilings.memory_ceiling(backend, workers.n_threads)
    found = _measured(reduce, repeat, source.raw.nbytes, ceiling)
    if backend.on_gpu:  # its pool lets go of nothing by itself
        found["device_memory_bytes"] = backend.held_memory_bytes()
    return found


def from_file(
    settings: SimulationSettings, backend: Backend, folder: Path, repeat: int, n_segments: int = 1
) -> dict:
    """The segment in a file, which the system has in its cache, to spectra on the host.

    Several segments are the same file, as often as that.
    """
    path = observe(settings, folder, stsci=False).segment
    segments = tuple(
        plain.segment(path, settings, number, n_segments) for number in range(1, n_segments + 1)
    )
    job = job_of(segments[0], settings, backend)
    kept = np.ones(n_segments * settings.n_ints, dtype=bool)
    job = replace(job, plan=replace(job.plan, segments=segments, kept=kept))
    ceiling = ceilings.input_ceiling(path, backend)

    def reduce(stopwatch: Stopwatch) -> None:
        reduce_segments(segments, replace(job, progress=stopwatch))

    return _measured(reduce, repeat, n_segments * raw_bytes(settings), ceiling)


def _measured(
    reduce: Callable[[Stopwatch], None], repeat: int, n_bytes: int, ceiling: float
) -> dict:
    """Seconds by stage and in all, medians of some times after a first that compiles kernels."""
    runs = []
    for _ in range(repeat + 1):
        stopwatch, start = Stopwatch(), time.perf_counter()
        reduce(stopwatch)
        runs.append({**stopwatch.seconds, "total": time.perf_counter() - start})
    seconds = {stage: median(run[stage] for run in runs[1:]) for stage in runs[0]}
    total_s = seconds.pop("total")
    return {
        "seconds": seconds,
        "total_s": total_s,
        "samples_per_second": n_bytes / 2 / total_s,
        "ceiling_bytes_per_second": ceiling,
        "of_ceiling": n_bytes / total_s / ceiling,
        "totals_s": [run["total"] for run in runs[1:]],
    }


def summary(case: str, entry: dict) -> str:
    """A few lines for people."""
    lines = [f"{case} ({entry['shape'][0]} x {entry['shape'][1]}, {entry['recipe']})"]
    for kind in KINDS:
        if kind not in entry:
            continue
        found = entry[kind]
        lines.append(
            f"  {kind.replace('_', ' ')}: {found['total_s']:.3f} s, "
            f"{found['samples_per_second'] / 1e6:.1f} million samples/s, "
            f"{100 * found['of_ceiling']:.1f} % of "
            f"{found['ceiling_bytes_per_second'] / 1e9:.1f} GB/s"
        )
        lines += [f"    {seconds:8.3f} s  {stage}" for stage, seconds in found["seconds"].items()]
    return "\n".join(lines)


if __name__ == "__main__":
    main()
