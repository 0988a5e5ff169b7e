"""Every function of the core at named sizes, on each backend that runs here: ns per item.

Each is timed alone on a block as large as the reduction would give it, and on NumPy on one thread:
the samples of some rows and all integrations for ramps, whole frames of some integrations for
rates. What a function needs comes from the functions before it, on simulated data.
"""

import statistics
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import click

from bench import cases
from bench.results import RESULTS, write_results
from bench.sizes import SIZES, data_folder, describe_size, observation_of
from miri_gpu import backend as backends
from miri_gpu.backend import Backend
from miri_gpu.blocks import Workers
from miri_gpu.errors import BackendError
from miri_gpu.plan import Plan, make_plan
from miri_gpu.progress import Silent
from miri_gpu.ramps_to_rates import Job, with_custom_linearity
from miri_gpu.segments import Segment
from miri_gpu.simulate import Observation


@dataclass(frozen=True)
class Effort:
    """How long to go on measuring one function: for so many seconds, and so many calls at least."""

    seconds: float = 0.5
    calls: int = 3


@click.command(help=__doc__)
@click.option("--size", type=click.Choice([*SIZES, "all"]), default="all", help="Of the data.")
@click.option("--backend", type=click.Choice(["numpy", "cupy", "all"]), default="all")
@click.option("--data", type=click.Path(path_type=Path), help="Folder that keeps simulated data.")
@click.option(
    "--results", type=click.Path(path_type=Path), default=RESULTS, help="Where JSON goes."
)
def main(size: str, backend: str, data: Path | None, results: Path) -> None:
    """Measure, print, write."""
    with data_folder(data) as folder:
        for chosen in usable_backends() if backend == "all" else [backends.select(backend)]:
            for name in SIZES if size == "all" else [size]:
                entry = measure_functions(name, observation_of(name, folder), chosen, Effort())
                path = write_results("functions", {f"{name}/{chosen.name}": entry}, chosen, results)
                click.echo(summary(name, entry))
                click.echo(f"written to {path}")


def usable_backends() -> Iterator[Backend]:
    """NumPy, and CuPy where it runs."""
    yield backends.select("numpy")
    try:
        yield backends.select("cupy")
    except BackendError as error:
        click.echo(f"not on a GPU: {error}", err=True)


def measure_functions(
    name: str, observation: Observation, backend: Backend, effort: Effort
) -> dict:
    """Time all functions on the observation of a named size."""
    plan = make_plan(observation.segments, None, {}, backend.name, observation.references, False)
    segment = plan.segments[0]
    functions = {
        case.name: {
            "per": case.per,
            "items": case.n_items,
            "shape": list(case.shape),
            **timed(case.run, case.n_items, backend, effort),
        }
        for case in cases.all_cases(segment, job_of(plan, segment))
    }
    return {
        "size": name,
        **describe_size(SIZES[name]),
        "backend": backend.name,
        "threads": 1,
        "recipe": plan.recipe.name,
        "functions": functions,
    }


def job_of(plan: Plan, segment: Segment) -> Job:
    """What a reduction by this plan hands to its steps."""
    job = Job(
        plan=plan,
        calibration=plan.calibration.to(plan.backend),
        workers=Workers.of(plan.backend),
        progress=Silent(),
    )
    return with_custom_linearity(segment, job) if plan.recipe.runs("custom_linearity") else job


def timed(run: Callable[[], object], n_items: int, backend: Backend, effort: Effort) -> dict:
    """Nanoseconds per item, the median and the least of several calls after a first one."""
    run()  # compiles kernels, fills caches
    backend.synchronize()
    seconds: list[float] = []
    while len(seconds) < effort.calls or sum(seconds) < effort.seconds:
        start = time.perf_counter()
        run()
        backend.synchronize()
        seconds.append(time.perf_counter() - start)
    return {
        "ns": 1e9 * statistics.median(seconds) / n_items,
        "ns_least": 1e9 * min(seconds) / n_items,
        "calls": len(seconds),
    }


def summary(name: str, entry: dict) -> str:
    """A table for people."""
    lines = [f"{name} ({entry['shape'][0]} x {entry['shape'][1]}, {entry['backend']}, one thread)"]
    lines += [
        f"  {found['ns']:9.2f} ns (least {found['ns_least']:.2f}) per {found['per']:6s}  {function}"
        for function, found in entry["functions"].items()
    ]
    return "\n".join(lines)


if __name__ == "__main__":
    main()
