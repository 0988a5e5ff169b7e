"""Ramps cut into pieces for the likelihood fit, whose memory they bound.

A ramp is fitted by itself, so where the cube is cut decides nothing but speed.
"""

from collections.abc import Iterator
from dataclasses import dataclass

from miri_gpu.backend import to_host
from miri_gpu.containers import Array
from miri_gpu.detector import DO_NOT_USE, JUMP_DET
from miri_gpu.ramps.ramp_segments import PERSISTENCE

# Samples of a piece: what stays in the cache of a CPU, and what keeps a GPU busy, of which a few
# make up a block in any case: what is computed with them takes a multiple of their memory.
_SAMPLES_ON_CPU, _SAMPLES_ON_GPU, _PIECES_ON_GPU = 1 << 19, 1 << 25, 8


@dataclass(frozen=True, eq=False)
class RampPiece:
    """Some integrations of some rows; their ramps are the last axis of the arrays.

    Attributes
    ----------
    ints, groups, rows : slice
        Where the piece is in the cube.
    differences : (n_groups - 1, n_ramps) float32 [DN]
    used : (n_groups - 1, n_ramps) bool
        Whether a difference may be used.
    read_var, gain, dark_rise : (n_ramps,) float64
        Variance of a group by read noise [DN^2], NaN where the gain is unknown; gain [e-/DN], 1
        where it is unknown; dark signal of the time of a group.
    """

    ints: slice
    groups: slice
    rows: slice
    differences: Array
    used: Array
    read_var: Array
    gain: Array
    dark_rise: Array


def groups_in_use(groupdq, dropped, as_stsci) -> slice:
    """From the first to the last group that is not dropped everywhere; all, as the STScI step.

    Raises
    ------
    ValueError
        Where fewer than two groups are in use.
    """
    if dropped is None:
        dropped = ((groupdq & DO_NOT_USE) != 0).all(axis=(2, 3))
    in_use = (~to_host(dropped)).any(axis=0).nonzero()[0]
    if len(in_use) < 2:
        raise ValueError(
            f"likelihood: expected ramps of at least 2 groups that are in use, got {len(in_use)}"
        )
    if as_stsci:  # whose median is over dropped groups, too
        return slice(0, groupdq.shape[1])
    return slice(int(in_use[0]), int(in_use[-1]) + 1)


def cut_ramps(ramps, noise, groups, readout, as_stsci, *, xp) -> Iterator[RampPiece]:
    """Cut the ramps into pieces, and say which of their differences may be used.

    `noise` is read noise [DN], gain [e-/DN] and dark current, as the ramp fit is given them.
    """
    n_samples = _SAMPLES_ON_CPU
    if xp.__name__ != "numpy":
        n_samples = max(n_samples, min(_SAMPLES_ON_GPU, ramps.data.size // _PIECES_ON_GPU))
    images = _noise_images(*noise, readout, xp=xp)
    for ints, rows in _cuts(ramps.data.shape, n_samples):
        yield _piece(ramps, images, (ints, groups, rows), as_stsci, xp=xp)


def _piece(ramps, images, place, as_stsci, *, xp) -> RampPiece:
    data, flags = (
        xp.ascontiguousarray(xp.moveaxis(cube[place], 1, 0)) for cube in (ramps.data, ramps.groupdq)
    )
    n_groups, *shape = data.shape
    data, flags = data.reshape(n_groups, -1), flags.reshape(n_groups, -1)
    per_ramp = (xp.broadcast_to(image[place[-1]], shape).reshape(-1) for image in images)
    harmless = 0 if as_stsci else JUMP_DET | PERSISTENCE
    good = ((flags & (0xFF ^ harmless)) == 0) & ~xp.isnan(data)
    used = good[1:] & good[:-1] & ((flags[1:] & JUMP_DET) == 0)
    return RampPiece(*place, data[1:] - data[:-1], used, *per_ramp)


def _noise_images(read_noise, gain, dark_current, readout, *, xp):
    """Read variance, gain and dark signal, as a piece holds them, (n_rows, n_cols) float64."""
    known = gain > 0
    read_var = read_noise.astype(xp.float64) ** 2 / (2 * readout.n_frames)
    dark = xp.zeros(gain.shape) if dark_current is None else dark_current.astype(xp.float64)
    return (
        xp.where(known, read_var, xp.nan),
        xp.where(known, gain, 1).astype(xp.float64),
        dark * readout.group_time_s,
    )


def _cuts(shape, n_samples) -> Iterator[tuple[slice, slice]]:
    """Cut a cube into pieces of at most about `n_samples`: slices of integrations and of rows."""
    n_ints, n_groups, n_rows, n_cols = shape
    rows_at_once = min(max(n_samples // (n_groups * n_cols), 1), n_rows)
    ints_at_once = max(n_samples // (n_groups * n_cols * rows_at_once), 1)
    for row in range(0, n_rows, rows_at_once):
        rows = slice(row, min(row + rows_at_once, n_rows))
        for first in range(0, n_ints, ints_at_once):
            yield slice(first, min(first + ints_at_once, n_ints)), rows
