"""Ramps of all quiet pixels that see an interfering wave at the same phase, added up.

The sums are all that a fit of the wave needs: they are small, and a segment's can be gathered
block by block.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from miri_gpu.area import Area
from miri_gpu.backend import namespace
from miri_gpu.containers import Array, ArrayBundle, Ramps
from miri_gpu.detector import N_AMPLIFIERS
from miri_gpu.numerics import masked_median
from miri_gpu.ramps.emi_waves import Clock

QUIET = 2.0  # pixels that scatter less than this many times the median take part
_HOT_GROUPS_OF_COLS = slice(1, 3)  # columns 4 to 11: the first ones beside the reference pixels


class Walk(Protocol):
    """Walks over the integrations of a segment in blocks of whole frames.

    Calls the function with the ramps of each block, and where in the segment it lies, and returns
    what the calls gave, in order. With `n_ints` the walk ends after so many integrations.
    """

    def __call__(
        self, function: Callable[[Ramps, slice], Any], n_ints: int | None = None
    ) -> Sequence[Any]: ...


@dataclass(frozen=True, eq=False, kw_only=True)
class PhaseSums(ArrayBundle):
    """Added ramps, by the phase of the wave when a pixel's first group is read.

    Attributes
    ----------
    data : (n_ints, n_groups, n_phases) float64 [DN]
    n_pixels : (n_ints, n_phases) float64
        How many pixels were added.
    phase : (n_phases,) float64 [cycles]
        Only phases that a pixel of the frame sees.
    """

    data: Array
    n_pixels: Array
    phase: Array


def phase_sums(
    walk: Walk, period: float, n_bins: int, clock: Clock, *, midpoints: bool, xp
) -> PhaseSums:
    """Add up the ramps of the quiet pixels, in two walks over the segment.

    A pixel is quiet in an integration where the standard deviation of its groups is below twice
    the median of all; pixels with any flag, or a NaN sample, take no part.

    Parameters
    ----------
    walk : Walk
    period : float
        Of the wave [clocks].
    n_bins : int
        Bins of phase.
    clock : Clock
    midpoints : bool
        Take the middle of a bin for its phase, as the STScI step does, or else the mean of the
        phases in it: with 256 clocks in 256 bins that differs by half a bin.

    Returns
    -------
    PhaseSums
    """
    scatter = xp.concatenate(list(walk(lambda ramps, ints: ramps.data.std(axis=1))))
    limit = QUIET * masked_median(scatter.reshape(-1), axis=0)
    frame = clock.in_frame(Area.of_shape(scatter.shape[1:]), xp=xp).reshape(-1)
    phase, order, starts = _bins(frame / period % 1, n_bins, midpoints, xp=xp)

    def add(ramps: Ramps, ints: slice) -> tuple[Array, Array]:
        # a comparison with NaN, of a pixel or of the limit, is false
        good = (scatter[ints] < limit) & (ramps.pixeldq == 0)
        by_clock = good.reshape(*good.shape[:2], -1, N_AMPLIFIERS)
        good = by_clock.copy()
        good[:, :, _HOT_GROUPS_OF_COLS] = False
        n_pixels = _added(good.astype(xp.float64), order, starts, xp=xp)
        sums = [
            _added(xp.where(good, samples.reshape(good.shape), 0), order, starts, xp=xp)
            for samples in (ramps.data[:, group] for group in range(ramps.data.shape[1]))
        ]
        return xp.stack(sums, axis=1), n_pixels

    parts = walk(add)
    return PhaseSums(
        data=xp.concatenate([part[0] for part in parts]),
        n_pixels=xp.concatenate([part[1] for part in parts]),
        phase=phase,
    )


def _bins(phase_in_frame: Array, n_bins: int, midpoints: bool, *, xp):
    """Which read-outs (of four pixels) of a frame fall in each bin of phase.

    Returns
    -------
    phase : (n_phases,) float64, of the bins that are seen
    order : read-outs in the order of their bins
    starts : (n_phases,) where in `order` each bin starts
    """
    place = (phase_in_frame * n_bins).astype(xp.int64)
    order = xp.argsort(place, kind="stable")
    place = place[order]
    first_of_bin = xp.concatenate((xp.ones(1, dtype=bool), place[1:] != place[:-1]))
    starts = xp.flatnonzero(first_of_bin)
    if midpoints:
        return (place[starts] + 0.5) / n_bins, order, starts
    total = xp.add.reduceat(phase_in_frame[order], starts)
    count = xp.add.reduceat(xp.ones(len(order)), starts)
    return total / count, order, starts


def _added(samples: Array, order: Array, starts: Array, *, xp) -> Array:
    """Sums over the pixels of each bin: (n_ints, n_rows, n_cols / 4, 4) to (n_ints, n_phases)."""
    four = samples[..., 0].astype(xp.float64)
    for amplifier in range(1, N_AMPLIFIERS):
        four = four + samples[..., amplifier]
    four = four.reshape(four.shape[0], -1)
    return xp.add.reduceat(four[:, order], starts, axis=-1)


def without_lines(sums: PhaseSums) -> tuple[Array, Array]:
    """What remains of the added ramps beside a straight line, and the times of the groups.

    Returns
    -------
    residual : (n_ints, n_groups, n_phases) float64 [DN]
    time : (n_groups,) float64, around 0
    """
    xp = namespace(sums.data)
    n_groups = sums.data.shape[1]
    time = xp.arange(n_groups, dtype=xp.float64) - (n_groups - 1) / 2
    level = sums.data.mean(axis=1, keepdims=True)
    residual = sums.data - level
    slope = (residual * time[:, None]).sum(axis=1, keepdims=True) / (time * time).sum()
    return residual - slope * time[:, None], time
