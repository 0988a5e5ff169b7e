"""The whole reduction at named sizes: seconds by stage, samples per second, memory.

Each measurement is a process of its own, from opening the segments to the finished time series in
memory; imports, simulation and writing are not counted. Beside it stands the ceiling: how fast the
raw samples can be read from the system's cache, or copied to where they are computed with,
whichever is slower.
"""

from pathlib import Path
from statistics import median

import click

from bench.apart import run_apart
from bench.ceilings import input_ceiling
from bench.observations import Observed, data_folder, observe
from bench.options import chosen, computed_by, options, report
from bench.sizes import ALL_SIZES, SIZES, n_samples, raw_bytes
from miri_gpu.backend import Backend


@click.command(help=__doc__)
@options([*ALL_SIZES, "all"], default="all")
@click.option("--repeat", type=click.IntRange(1), default=3, help="Measurements of each size.")
def main(size: str, backend: str | None, data: Path | None, results: Path, repeat: int) -> None:
    """Measure, print, write."""
    with data_folder(data) as folder:
        for name, where in chosen(size, SIZES, backend):
            entry = measure_reduction(observe(ALL_SIZES[name], folder), where, repeat)
            report("reduction", f"{name}/{computed_by(where)}", entry, where, results, summary)


def measure_reduction(observed: Observed, backend: Backend, repeat: int, **task) -> dict:
    """Reduce an observation several times, each in a fresh process: medians, and every run.

    `task` adds to what `bench.run_ours` is asked to do.
    """
    asked = observed.task(backend.name, **task)
    runs = [run_apart("bench.run_ours", asked, observed.crds) for _ in range(repeat)]
    total_s = median(run["total_s"] for run in runs)
    ceiling = input_ceiling(observed.segment, backend)
    return {
        **observed.describe(),
        "backend": backend.name,
        "recipe": runs[0]["recipe"],
        "seconds": {
            stage: median(run["seconds"][stage] for run in runs) for stage in runs[0]["seconds"]
        },
        "total_s": total_s,
        "samples_per_second": n_samples(observed.settings) / total_s,
        "ceiling_bytes_per_second": ceiling,
        "of_ceiling": raw_bytes(observed.settings) / total_s / ceiling,
        "peak_memory_bytes": max(run["peak_memory_bytes"] for run in runs),
        "peak_anonymous_bytes": _most(run["anonymous_memory_bytes"]["peak"] for run in runs),
        "runs": runs,
    }


def _most(found) -> int | None:
    """The largest of what was measured; None where it was not."""
    return max((n for n in found if n is not None), default=None)


def summary(case: str, entry: dict) -> str:
    """A few lines for people."""
    spread = sorted(run["total_s"] for run in entry["runs"])
    lines = [
        f"{case} ({entry['shape'][0]} x {entry['shape'][1]}, {entry['recipe']}): "
        f"{entry['total_s']:.2f} s ({spread[0]:.2f} to {spread[-1]:.2f} in {len(spread)}), "
        f"{entry['samples_per_second'] / 1e6:.1f} million samples/s, "
        f"{100 * entry['of_ceiling']:.1f} % of {entry['ceiling_bytes_per_second'] / 1e9:.1f} GB/s, "
        f"peak {entry['peak_memory_bytes'] / 1e9:.2f} GB"
    ]
    lines += [f"  {seconds:8.3f} s  {stage}" for stage, seconds in entry["seconds"].items()]
    return "\n".join(lines)


if __name__ == "__main__":
    main()
