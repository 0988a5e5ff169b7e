"""What the tests of the shell share: segments with a fault, and a stand-in for a GPU backend."""

import warnings
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import standin
from astropy.io import fits

from miri_gpu.backend import Backend, to_host
from miri_gpu.containers import Rates

STAND_IN = Backend("standin", standin.xp, "a pretended device", "a test asks for it")


def edited(source: Path, target: Path, *, change=None, samples=None, **cards) -> Path:
    """Copy a segment with other header cards (None removes one), and more changed as a test likes.

    Parameters
    ----------
    source, target : Path
    change : function of the HDUList, which it changes
    samples : function of the (n_ints, n_groups, n_rows, n_cols) uint16 samples, changed in place
    cards : keywords of the primary header, or of SCI where only that has it
    """
    with warnings.catch_warnings(), fits.open(source, uint=True) as hdus:
        warnings.simplefilter("ignore", fits.verify.VerifyWarning)
        if samples is not None:
            samples(hdus["SCI"].data)
        for keyword, value in cards.items():
            in_science = keyword in hdus["SCI"].header and keyword not in hdus[0].header
            header = hdus["SCI" if in_science else 0].header
            if value is None:
                del header[keyword]
            else:
                header[keyword] = value
        if change is not None:
            change(hdus)
        target.parent.mkdir(parents=True, exist_ok=True)
        hdus.writeto(target)
    return target


def gathered(found: list):
    """A sink of rates that appends those of each segment, whole and on the host, to a list."""

    @contextmanager
    def sink(_):
        blocks = []
        yield lambda _, rates: blocks.append(rates.map(to_host))
        found.append(Rates.concatenated(blocks))

    return sink


def same(first, second) -> bool:
    """Whether two arrays are equal bit by bit, where NaN equals NaN."""
    first, second = np.asarray(first), np.asarray(second)
    if first.dtype != second.dtype or first.shape != second.shape:
        return False
    return first.tobytes() == second.tobytes()
