"""The command line that the benches share."""

from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

import click

from bench.results import RESULTS
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


def chosen_backends(name: str | None) -> Iterator[Backend]:
    """The backend of that name; of "all", every one that runs here."""
    if name != "all":
        yield backends.select(name)
        return
    yield backends.select("numpy")
    try:
        yield backends.select("cupy")
    except BackendError as error:
        click.echo(f"not on a GPU: {error}", err=True)


def computed_by(backend: Backend) -> str:
    """What computes, in the names of cases: "numpy", or "numpy, no kernels" where none are."""
    return backend.name if kernels.available(backend.xp) else f"{backend.name}, no kernels"


def chosen_sizes(name: str, all_sizes: Iterable[str]) -> list[str]:
    """The size of that name; all of them for "all"."""
    return list(all_sizes) if name == "all" else [name]
