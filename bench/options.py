"""What the benches share: their command line, and what they do with what was measured."""

from collections.abc import Callable, Iterable, Iterator
from itertools import product
from pathlib import Path

import click

from bench.results import RESULTS, write_results
from miri_gpu import backend as backends
from miri_gpu import kernels
from miri_gpu.backend import Backend
from miri_gpu.errors import BackendError


def options(sizes: Iterable[str], default: str, backend: str | None = None) -> Callable:
    """The options of a bench: --size, --backend, --data, --results.

    Parameters
    ----------
    sizes : the names that --size takes
    default : what --size is where it is left out
    backend : what --backend is where it is left out; None asks the environment, as `select` does
    """
    declared = (
        click.option("--size", type=click.Choice(list(sizes)), default=default, show_default=True,
                     help="What to measure with."),
        click.option("--backend", type=click.Choice([*backends.BACKENDS, "all"]), default=backend,
                     help="Where to compute."),
        click.option("--data", type=click.Path(path_type=Path),
                     help="Folder that keeps the simulated data."),
        click.option("--results", type=click.Path(path_type=Path), default=RESULTS,
                     help="Where the JSON goes."),
    )  # fmt: skip

    def declare(command: Callable) -> Callable:
        for option in reversed(declared):
            command = option(command)
        return command

    return declare


def chosen(
    size: str, all_sizes: Iterable[str], backend: str | None
) -> Iterator[tuple[str, Backend]]:
    """The size and the backend of these names; of "all", every one, or every one that runs here."""
    names = all_sizes if size == "all" else [size]
    return product(names, _every_backend() if backend == "all" else [backends.select(backend)])


def _every_backend() -> Iterator[Backend]:
    yield backends.select("numpy")
    try:
        yield backends.select("cupy")
    except BackendError as error:
        click.echo(f"not on a GPU: {error}", err=True)


def computed_by(backend: Backend) -> str:
    """What computes, in the names of cases: "numpy", or "numpy, no kernels" where none are."""
    return backend.name if kernels.available(backend.xp) else f"{backend.name}, no kernels"


def report(
    bench: str,
    case: str,
    entry: dict,
    backend: Backend,
    results: Path,
    summary: Callable[[str, dict], str],
) -> None:
    """Write what was measured, as soon as it is, and print its summary for people."""
    path = write_results(bench, {case: entry}, backend, results)
    click.echo(summary(case, entry))
    click.echo(f"written to {path}")
