"""Every function of the core at named sizes, on each backend that runs here: ns per item.

Each is timed alone on a block as large as the reduction would give it, and on NumPy on one thread:
the samples of some rows and all integrations for ramps, whole frames of some integrations for
rates. What a function needs comes from the functions before it, on data simulated in memory.

Beside its time stands the least that it must read and write, from the sizes of its arrays, and two
fractions: of how fast a large copy moves the memory (`of_memory`), and of the speed of a copy of
just as many bytes (`of_copy`), which on a CPU stay in its cache.
"""

from collections.abc import Iterator
from pathlib import Path
from statistics import median

import click

from bench import ceilings
from bench.case import Case
from bench.clock import Effort, timings
from bench.options import chosen, computed_by, options, report
from bench.ramp_cases import ramp_cases, ramp_frame_cases
from bench.rate_cases import numerics_cases, rate_cases
from bench.sizes import ALL_SIZES, SIZES, describe_size
from bench.source import Source
from miri_gpu.backend import Backend
from miri_gpu.simulate import SimulationSettings


@click.command(help=__doc__)
@options([*ALL_SIZES, "all"], default="all", backend="all")
def main(size: str, backend: str | None, data: Path | None, results: Path) -> None:
    """Measure, print, write. Nothing is kept in --data."""
    for name, where in chosen(size, SIZES, backend):
        entry = measure_functions(ALL_SIZES[name], where, Effort())
        report("functions", f"{name}/{computed_by(where)}", entry, where, results, summary)


def measure_functions(settings: SimulationSettings, backend: Backend, effort: Effort) -> dict:
    """Time all functions on an observation of some size."""
    source = Source.simulated(settings, backend)
    memory = ceilings.memory_ceiling(backend)
    return {
        **describe_size(settings),
        "distinct_integrations": source.n_distinct,
        "backend": backend.name,
        "threads": 1 if backend.name == "numpy" else None,
        "recipe": source.job.recipe.name,
        "memory_bytes_per_second": memory,
        "functions": {
            case.name: measure_case(case, backend, effort, memory) for case in all_cases(source)
        },
    }


def all_cases(source: Source) -> Iterator[Case]:
    """Every function, each to be timed before the next is asked for."""
    yield from ramp_cases(source)
    yield from ramp_frame_cases(source)
    rates = source.rates()
    yield from rate_cases(rates, source.job)
    yield from numerics_cases(rates, source.job)


def measure_case(case: Case, backend: Backend, effort: Effort, memory: float) -> dict:
    """Nanoseconds per item, the median and the least of several calls, beside what it moves."""
    seconds = timings(case.run, backend.synchronize, effort)
    moved, took = case.traffic_bytes(backend.xp), median(seconds)
    found = {
        "per": case.per,
        "items": case.n_items,
        "shape": list(case.shape),
        "ns": 1e9 * took / case.n_items,
        "ns_least": 1e9 * min(seconds) / case.n_items,
        "calls": len(seconds),
        "traffic_bytes": moved,
        "of_memory": None,
        "of_copy": None,
    }
    if moved:
        short = Effort(effort.seconds / 10, effort.calls)
        found["of_memory"] = moved / took / memory
        found["of_copy"] = ceilings.copy_seconds(moved, backend, short) / took
    return found


def summary(case: str, entry: dict) -> str:
    """A table for people."""
    lines = [
        f"{case} ({entry['shape'][0]} x {entry['shape'][1]}; memory: "
        f"{entry['memory_bytes_per_second'] / 1e9:.1f} GB/s)",
        "         ns     least  per      bytes  of memory  of copy",
    ]
    for function, found in entry["functions"].items():
        fractions = [
            "      --" if found[name] is None else f"{100 * found[name]:6.1f} %"
            for name in ("of_memory", "of_copy")
        ]
        lines.append(
            f"  {found['ns']:9.2f} {found['ns_least']:9.2f}  {found['per']:6s} "
            f"{found['traffic_bytes'] / found['items']:7.2f}  {'  '.join(fractions)}  {function}"
        )
    return "\n".join(lines)


if __name__ == "__main__":
    main()
