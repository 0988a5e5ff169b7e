"""How many pixels carry which data-quality flag (ExoTiC-MIRI: inspect_dq_flags)."""

from dataclasses import dataclass

from miri_gpu.backend import namespace
from miri_gpu.containers import Array, ArrayBundle
from miri_gpu.detector import DQ_NAMES


@dataclass(frozen=True, eq=False, kw_only=True)
class DqCounts(ArrayBundle):
    """Counts of flagged pixels; those of several blocks add up.

    Attributes
    ----------
    counts : (32,) int64
        Pixels that carry each bit, in the order of `detector.DQ_NAMES`.
    n_flagged : () int64
        Pixels that carry any bit.
    n_pixels : () int64
        All pixels.
    """

    counts: Array
    n_flagged: Array
    n_pixels: Array

    @property
    def fraction(self) -> float:
        """Fraction of the pixels that carry any bit; NaN where there are none."""
        n_pixels = int(self.n_pixels)
        return int(self.n_flagged) / n_pixels if n_pixels else float("nan")


def count_dq_flags(dq: Array) -> DqCounts:
    """Count the pixels that carry each of the 32 data-quality bits.

    Parameters
    ----------
    dq : (...) uint8 or uint32

    Returns
    -------
    DqCounts
    """
    xp = namespace(dq)
    dq = dq.astype(xp.uint32)
    counts = [xp.count_nonzero(dq & (1 << bit)) for bit in range(len(DQ_NAMES))]
    return DqCounts(
        counts=xp.stack([xp.asarray(count) for count in counts]),
        n_flagged=xp.asarray(xp.count_nonzero(dq)),
        n_pixels=xp.asarray(dq.size),
    )
