"""What the kernels of the steps before the ramp fit take, and when kernels of ramps run."""

import math

from miri_gpu import kernels
from miri_gpu.containers import Array, Ramps

_FEWEST_PIXELS = 16  # the widest vector of a CPU
_PIXELS_AT_ONCE = 64  # of which a CPU holds the differences
_SHARES = 32  # threads of a GPU that share a pixel
_SHARE_OF_SPARE = 8  # of the differences, once more for those among which the median is sought
_BYTES_OF_HAND = 4100  # what they have in common, as brackets.h says


def run_on(ramps: Ramps, *references: Array, xp) -> bool:
    """Whether kernels run on ramps and references of the types that a reduction has."""
    floats = (ramps.data, *references)
    return (
        kernels.available(xp)
        and ramps.data.size > 0
        and math.prod(ramps.data.shape[-2:]) >= _FEWEST_PIXELS
        and all(array.dtype == xp.float32 for array in floats)
        and ramps.groupdq.dtype == xp.uint8
        and all(array.shape[-2:] == ramps.data.shape[-2:] for array in references)
    )


def images(cube: Array, *, xp) -> tuple[Array, int, int]:
    """A cube (n_ints, n_groups, n_rows, n_cols) as a kernel takes it, without a copy if possible.

    Returns
    -------
    flat : (n,) all memory from the first to the last sample, with what lies between its images
    int_step, group_step : samples from one integration, one group to the next
    """
    size, n_cols = cube.dtype.itemsize, cube.shape[-1]
    if cube.strides[-2:] != (n_cols * size, size) or min(cube.strides) < 0:
        cube = xp.ascontiguousarray(cube)
    steps = [stride // size for stride in cube.strides]
    extent = 1 + sum((n - 1) * step for n, step in zip(cube.shape, steps, strict=True))
    flat = xp.lib.stride_tricks.as_strided(cube, (extent,), (size,))
    return flat, steps[0], steps[1]


def flag_full_ramps(ramps: Ramps, limit: Array, reach: int, *, xp) -> Array:
    """New flags: SATURATED at the limit and after, `reach` pixels around too; A/D floor at 0 DN."""
    n_ints, n_groups, n_rows, n_cols = ramps.data.shape
    flagged = xp.empty(ramps.data.shape, dtype=xp.uint8)
    full = xp.empty((n_ints, n_rows, n_cols), dtype=xp.int32)
    had = xp.empty((n_ints, n_rows, n_cols), dtype=xp.uint8)
    flags = images(ramps.groupdq, xp=xp)
    kernels.launch(
        xp, "find_saturation", full.size,
        *images(ramps.data, xp=xp), *flags, xp.ascontiguousarray(limit), n_groups, n_rows * n_cols,
        flagged, full, had,
    )  # fmt: skip
    kernels.launch(
        xp, "grow_saturation", full.size,
        *flags, full, had, reach, n_groups, n_rows, n_cols, flagged,
    )  # fmt: skip
    return flagged


def flag_jumps(ramps, read_var, gain, groups, *, single_pass, limits, neighbours, xp) -> Array:
    """New flags: JUMP_DET on jumps and, where asked, their neighbours; never beside unusable ones.

    Parameters
    ----------
    ramps : Ramps
    read_var : (n_rows, n_cols) float64 [e-^2]
        Variance of a difference by read noise.
    gain : (n_rows, n_cols) float32 [e-/DN]
    groups : sequence of int
        The later group of each difference that is looked at.
    single_pass : bool
        Whether all jumps are found at once, or removed one by one.
    limits : (float, float, float)
        For pixels with two, three, and four or more values left, in standard deviations.
    neighbours : (float, float) or None
        Jumps of between these sizes flag their neighbours, in standard deviations.
    """
    n_ints, n_groups, n_rows, n_cols = ramps.data.shape
    least, most = neighbours or (0.0, 0.0)
    n_marked = 0 if neighbours is None else n_ints * n_groups
    sources = xp.zeros((n_marked, n_rows, n_cols), dtype=xp.uint8)
    any_source = xp.zeros(n_marked, dtype=xp.uint8)
    # a GPU has differences of all pixels at once; a CPU touches the first columns only
    n_columns = max(n_rows * n_cols, _PIXELS_AT_ONCE)
    n_values = n_ints * len(groups)
    n_rows_of_memory = _fours(n_values) + _fours(n_values // _SHARE_OF_SPARE)
    memory = xp.empty((n_rows_of_memory, n_columns), dtype=xp.float32)
    flagged = xp.empty(ramps.data.shape, dtype=xp.uint8)
    kernels.launch(
        xp, "find_jumps", n_rows * n_cols,
        *images(ramps.data, xp=xp), *images(ramps.groupdq, xp=xp),
        xp.ascontiguousarray(gain), xp.ascontiguousarray(read_var),
        xp.asarray(groups, dtype=xp.int32), n_ints, n_groups, len(groups),
        int(single_pass), *limits, int(neighbours is not None), least, most,
        memory, flagged, sources, any_source,
        threads_per_item=_SHARES, shared_bytes_per_item=_BYTES_OF_HAND,
    )  # fmt: skip
    if neighbours is not None:
        kernels.launch(
            xp, "flag_jump_neighbours", n_marked * n_rows,
            sources, any_source, n_rows, n_cols, flagged,
        )  # fmt: skip
    return flagged


def _fours(n: int) -> int:
    """The next multiple of four: numbers that a GPU reads at once."""
    return -(-n // 4) * 4
