"""A function to time, and the least that it must move: measured from its own arrays."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, fields, is_dataclass
from math import prod

from miri_gpu.background import BackgroundParams
from miri_gpu.containers import Array, Rates, Spectra


@dataclass(frozen=True, eq=False)
class Case:
    """One function to time.

    Attributes
    ----------
    name : str
        Room and function, "ramps: jump".
    per : str
        What its time is divided by: "sample", "pixel", "row" or "curve".
    shape : tuple of int
        Of what it works on.
    run : callable without arguments
    reads : tuple of arrays
        What nothing that does the same can do without reading. Reference images, a few bytes for
        each pixel's thousands of samples, are left out.
    passes : tuple of arrays
        What it hands on as it came.
    """

    name: str
    per: str
    shape: tuple[int, ...]
    run: Callable[[], object]
    reads: tuple[Array, ...]
    passes: tuple[Array, ...] = ()

    @property
    def n_items(self) -> int:
        """How many samples, pixels, rows or curves there are."""
        return prod(self.shape)

    def traffic_bytes(self, xp) -> int:
        """The least that it moves: what it reads, and what it returns that was not there before.

        Nothing where nothing in what it returns is new.
        """
        old = (*self.reads, *self.passes)
        made = [
            array for array in arrays_of(self.run())
            if not any(_share_memory(array, other, xp) for other in old)
        ]  # fmt: skip
        return sum(array.nbytes for array in (*self.reads, *made)) if made else 0


def arrays_of(thing: object) -> Iterator[Array]:
    """Every array in a result: itself, or in its fields or items."""
    if hasattr(thing, "nbytes"):
        yield thing
    elif is_dataclass(thing):
        for f in fields(thing):
            yield from arrays_of(getattr(thing, f.name))
    elif isinstance(thing, tuple | list):
        for item in thing:
            yield from arrays_of(item)


def _share_memory(a: Array, b: Array, xp) -> bool:
    """Whether two arrays may overlap; one on the host never does with one on a device."""
    return isinstance(a, xp.ndarray) and isinstance(b, xp.ndarray) and xp.may_share_memory(a, b)


def planes_of(bundle: Rates | Spectra) -> tuple[Array, ...]:
    """Every array that is there."""
    return tuple(plane for plane in vars(bundle).values() if plane is not None)


def beside_the_trace(frames: Array, params: BackgroundParams) -> tuple[Array, Array]:
    """The columns from which the background is measured."""
    return (
        frames[..., params.bkg_col_left_start : params.bkg_col_left_end],
        frames[..., params.bkg_col_right_start : params.bkg_col_right_end],
    )
