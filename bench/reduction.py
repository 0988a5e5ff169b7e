"""The whole reduction at named sizes: seconds by stage, samples per second, peak memory.

Each measurement is a process of its own, from opening the segments to the finished time series in
memory; imports, simulation and writing are not counted.
"""

import statistics
from pathlib import Path

import click

from bench.apart import run_apart
from bench.results import RESULTS, write_results
from bench.sizes import SIZES, data_folder, describe_size, observation_of
from miri_gpu import backend as backends
from miri_gpu.simulate import Observation


@click.command(help=__doc__)
@click.option("--size", type=click.Choice([*SIZES, "all"]), default="all", help="What to reduce.")
@click.option("--backend", type=click.Choice(backends.BACKENDS), help="Where to compute.")
@click.option("--repeat", type=click.IntRange(1), default=3, help="Measurements of each size.")
@click.option("--data", type=click.Path(path_type=Path), help="Folder that keeps simulated data.")
@click.option(
    "--results", type=click.Path(path_type=Path), default=RESULTS, help="Where JSON goes."
)
def main(size: str, backend: str | None, repeat: int, data: Path | None, results: Path) -> None:
    """Measure, print, write."""
    chosen = backends.select(backend)
    with data_folder(data) as folder:
        for name in SIZES if size == "all" else [size]:
            observation = observation_of(name, folder)
            entry = measure_reduction(name, observation, chosen.name, repeat)
            path = write_results("reduction", {f"{name}/{chosen.name}": entry}, chosen, results)
            click.echo(summary(name, entry))
    click.echo(f"written to {path}")


def measure_reduction(name: str, observation: Observation, backend: str, repeat: int) -> dict:
    """Reduce the observation of a named size several times, each in a fresh process."""
    task = {"segments": [str(path) for path in observation.segments], "backend": backend}
    return reduction_entry(
        name, backend, [run_apart("bench.run_ours", task, observation) for _ in range(repeat)]
    )


def reduction_entry(name: str, backend: str, runs: list[dict]) -> dict:
    """Sum up the runs of a named size: medians, and every run as it was."""
    size = describe_size(SIZES[name])
    seconds = {
        stage: statistics.median(run["seconds"][stage] for run in runs)
        for stage in runs[0]["seconds"]
    }
    total_s = statistics.median(run["total_s"] for run in runs)
    return {
        "size": name,
        **size,
        "backend": backend,
        "recipe": runs[0]["recipe"],
        "seconds": seconds,
        "total_s": total_s,
        "samples_per_second": size["samples"] / total_s,
        "peak_memory_bytes": max(run["peak_memory_bytes"] for run in runs),
        "runs": runs,
    }


def summary(name: str, entry: dict) -> str:
    """A few lines for people."""
    spread = sorted(run["total_s"] for run in entry["runs"])
    lines = [
        f"{name} ({entry['shape'][0]} x {entry['shape'][1]}, {entry['recipe']}, "
        f"{entry['backend']}): {entry['total_s']:.2f} s "
        f"({spread[0]:.2f} to {spread[-1]:.2f} in {len(spread)}), "
        f"{entry['samples_per_second'] / 1e6:.1f} million samples/s, "
        f"peak {entry['peak_memory_bytes'] / 1e9:.2f} GB"
    ]
    lines += [f"  {seconds:8.3f} s  {stage}" for stage, seconds in entry["seconds"].items()]
    return "\n".join(lines)


if __name__ == "__main__":
    main()
