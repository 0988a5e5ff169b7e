"""Cosmic-ray jumps found in time: a difference unlike the same one of neighbouring integrations.

Every integration of a time series repeats the same ramp, so the difference between two groups has
the same expectation in all of them, whatever the ramp's shape: what remains of non-linearity or of
the first groups' settling cancels. A window that moves in time follows the transit and the
detector's drifts.

The search goes from cheap to exact: a bound that no jump escapes picks out the few samples that
may be jumps, and only for those are windows gathered and sorted.
"""

import math
from dataclasses import dataclass, replace
from typing import ClassVar

from miri_gpu.backend import namespace, to_host
from miri_gpu.containers import Array, Ramps, Readout, check_shapes
from miri_gpu.detector import DO_NOT_USE, JUMP_DET
from miri_gpu.parameters import Parameters, option
from miri_gpu.ramps.jump_flags import clear_unusable, first_differences
from miri_gpu.ramps.jump_search import noise
from miri_gpu.ramps.sorted_columns import count_valid, median_of

SIGMA_OF_MAD = 1.4826  # of a normal distribution
_FEWEST_NEIGHBOURS = 3  # with two, a jump in one of them would make both its neighbours suspect
_FEWEST_DIFFERENCES = 5  # of a ramp, from which their scatter says something
_GATHERED_SAMPLES = 1 << 20  # most samples that the windows at hand hold at once


@dataclass(frozen=True, kw_only=True)
class TimeJumpParams(Parameters):
    """Settings of the jump detection in time."""

    step: ClassVar[str] = "time_jump"

    method: str = option(
        "median_mad",
        "what a difference is compared with: median and scatter of its own window in time, or the "
        "running median of its neighbours and the scatter of what that leaves of its ramp",
        choices=("median_mad", "running_median"),
    )
    window: int = option(
        15, "integrations that are compared, the one in question included; odd",
        unit="integrations", at_least=5,
    )  # fmt: skip
    threshold: float = option(
        5.0, "size of a jump from which it is flagged", unit="sigma", above=0, at_most=1e6
    )

    def __post_init__(self):
        super().__post_init__()
        if self.window % 2 == 0:
            raise ValueError(f"time_jump.window: expected an odd number, got {self.window}")


def edge_integrations(params: TimeJumpParams) -> int:
    """Integrations of the segments before and after whose ramps decide flags within a segment."""
    return params.window // 2


def flag_time_jumps(
    ramps: Ramps,
    read_noise: Array,
    gain: Array,
    *,
    params: TimeJumpParams,
    readout: Readout,
    before: Ramps | None = None,
    after: Ramps | None = None,
    dropped: Array | None = None,
) -> Ramps:
    """Flag the samples of ramps that jump in one integration but not in those around it.

    Parameters
    ----------
    ramps : Ramps
        Samples that are NaN, DO_NOT_USE or SATURATED take no part. Samples must not be infinite.
    read_noise : (n_rows, n_cols) float32 [DN]
        Noise of a difference of two frames (the STScI reference file).
    gain : (n_rows, n_cols) float32 [e-/DN]
    params : TimeJumpParams
    readout : Readout
    before, after : Ramps, optional
        The integrations of the same rows that come before and after, calibrated like the ramps;
        the nearest `edge_integrations(params)` of them are used. None at the ends of the
        observation, where the window is clipped and compares with one side only.
    dropped : (n_ints, n_groups) bool, optional
        Groups that are DO_NOT_USE on the whole frame, in the ramps; only spares work.

    Returns
    -------
    Ramps
        The same data; JUMP_DET in groupdq, never beside DO_NOT_USE or SATURATED. A difference with
        fewer than three usable neighbours, or whose expected noise is unknown, is not judged.

    Raises
    ------
    ValueError
        Where `before` or `after` have other groups, rows or columns than the ramps.

    Notes
    -----
    A difference is a jump where it is more than `threshold` sigma from a median, up or down, and
    sigma is the larger of two: the noise that photons and reads explain, and the scatter that is
    measured. The first keeps a scatter that is small by chance from raising alarms; the second
    leaves alone pixels that are noisier than that, such as random telegraph pixels which flip in
    half of their differences. Rarer flips are found, as they should be: they break the ramp like
    any jump. The scatter is taken over all differences of the ramp, since the few of a window
    would measure it too badly: by a fifth for 15, and a jump of 7 sigma would be missed as often.

    `median_mad`: the median of the window, the integration itself included; the scatter is
    1.4826 MAD, from its own median, of each difference of the ramp in the window.

    `running_median` (Nikolov et al. 2014, MNRAS 437, 46, who take 5 integrations): the median of
    the differences between the integration and its neighbours, which is the difference from the
    median of the neighbours. It must stand out by itself, and from the other differences of the
    same ramp, treated alike: the scatter is 1.4826 MAD about their median. So a change that lasts
    for the whole integration is no jump. (The paper takes a box of pixels around, which here differ
    too much in brightness.) Fewer than five differences are judged by the expected noise alone.

    JUMP_DET flags that are set already are not looked at: they may depend on where the
    observation was cut.
    """
    xp = namespace(ramps.data, ramps.groupdq, read_noise, gain)
    check_shapes(ramps.data.shape[2:], read_noise=read_noise, gain=gain)
    _check_edges(ramps, before=before, after=after)
    groups = _groups_in_use(ramps.data.shape[1], dropped, before, after)
    half = _reach(ramps, before, after, params)
    if not groups:
        return ramps
    values = _padded_differences(ramps, before, after, gain, groups, half, xp=xp)
    read_var = ((read_noise * gain) ** 2).astype(xp.float64) / readout.n_frames
    suspects = _suspects(values, read_var, half, params.threshold, xp=xp)
    found = _judge(values, read_var.reshape(-1), suspects, half, params, xp=xp)
    is_jump = xp.zeros((ramps.data.shape[0], *values.shape[1:]), dtype=xp.uint8)
    is_jump.reshape(-1)[found] = JUMP_DET
    groupdq = ramps.groupdq.copy()
    for k, g in enumerate(groups):
        groupdq[:, g] |= is_jump[:, k]
    return replace(ramps, groupdq=clear_unusable(groupdq, xp=xp))


def _check_edges(ramps: Ramps, **edges: Ramps | None) -> None:
    shape = ramps.data.shape[1:]
    for name, edge in edges.items():
        if edge is not None and edge.data.shape[1:] != shape:
            raise ValueError(
                f"{name}: expected (n_groups, n_rows, n_cols) = {shape}, got {edge.data.shape[1:]}"
            )


def _groups_in_use(n_groups: int, dropped: Array | None, *edges: Ramps | None) -> list[int]:
    """The later group of each difference of two groups that are not dropped in all integrations.

    The integrations before and after may use what the ramps at hand have lost.
    """
    if dropped is None:
        return list(range(1, n_groups))
    always = to_host(dropped).all(axis=0)
    if always.any():
        for edge in (edge for edge in edges if edge is not None):
            always = always & to_host(((edge.groupdq & DO_NOT_USE) != 0).all(axis=(0, 2, 3)))
    return [g for g in range(1, n_groups) if not (always[g - 1] or always[g])]


def _reach(ramps, before, after, params) -> int:
    """Integrations on each side of one that its window may hold: no more than there can be."""
    n_beside = max(0 if edge is None else edge.data.shape[0] for edge in (before, after))
    return max(min(edge_integrations(params), ramps.data.shape[0] - 1 + n_beside), 1)


def _padded_differences(ramps, before, after, gain, groups, half, *, xp) -> Array:
    """Differences of the ramps and of `half` integrations on each side, NaN where there are none.

    Returns (half + n_ints + half, n_diffs, n_rows, n_cols) float32 [e-].
    """
    n_ints, _, *image = ramps.data.shape
    parts = [(half, ramps)]
    if before is not None:
        last = _integrations(before, slice(-half, None))
        parts.append((half - last.data.shape[0], last))
    if after is not None:
        parts.append((half + n_ints, _integrations(after, slice(half))))
    values = xp.full((n_ints + 2 * half, len(groups), *image), xp.nan, dtype=xp.float32)
    for start, part in parts:
        differences = first_differences(part.data, part.groupdq, gain, groups, xp=xp)
        values[start : start + part.data.shape[0]] = differences.values
    return values


def _integrations(ramps: Ramps, which: slice) -> Ramps:
    return replace(ramps, data=ramps.data[which], groupdq=ramps.groupdq[which])


def _suspects(values, read_var, half, threshold, *, xp) -> Array:
    """Places in (n_ints, n_diffs, n_rows, n_cols), flattened, of all that may be jumps.

    A median lies between the smallest and the largest value of its window. They bound from above
    how far a value is from it, and from below the noise that it lets expect: a value within
    `threshold` of that noise of both ends can be no jump.
    """
    n_ints = values.shape[0] - 2 * half
    # a hair less than the threshold, so that rounding hides no jump
    strict = xp.float32(0.9999 * threshold**2)
    read_var = (read_var * strict).astype(xp.float32)
    found = xp.empty((n_ints, *values.shape[1:]), dtype=bool)
    for k in range(values.shape[1]):
        window = xp.ascontiguousarray(values[:, k])
        own = window[half : half + n_ints]
        low = _moving(xp.fmin, window, 2 * half + 1)
        high = _moving(xp.fmax, window, 2 * half + 1)
        farthest = xp.maximum(own - low, high - own)
        farthest *= farthest
        faintest = xp.maximum(low, -high)  # of a median of either sign; below 0 where both may be
        xp.maximum(faintest, xp.float32(0), out=faintest)
        faintest *= strict
        faintest += read_var
        found[:, k] = farthest > faintest
    return xp.flatnonzero(found)


def _moving(extreme, values, length):
    """Smallest or largest value in a window of `length` along the first axis; NaN is ignored."""
    n = values.shape[0] - length + 1
    reach = 1
    while 2 * reach <= length:  # two windows make one of twice the length: few passes
        values = extreme(values[:-reach], values[reach:])
        reach *= 2
    rest = length - reach
    return extreme(values[:n], values[rest : rest + n])


def _judge(values, read_var, suspects, half, params, *, xp) -> Array:
    """Those of the suspects that are jumps: places as `_suspects` gives them."""
    n_diffs, n_image = values.shape[1], math.prod(values.shape[2:])
    window = 2 * half + 1

    def is_far(places):
        windows = _windows(values, places, window, xp=xp)
        from_median, median = _deviation(windows, params, xp=xp)
        expected = noise(median, read_var[places % n_image], xp=xp)
        return from_median, xp.abs(from_median) > params.threshold * expected

    def scatter(ramps):
        first = ramps // n_image * (n_image * n_diffs) + ramps % n_image
        every = first[:, None] + n_image * xp.arange(n_diffs)
        return _scatter(_windows(values, every, window, xp=xp), params, xp=xp)

    if suspects.size == 0:
        return suspects
    from_median, far = _by_parts(is_far, suspects, window, xp=xp)
    far = xp.flatnonzero(far)
    if far.size == 0:
        return far
    places, from_median = suspects[far], from_median[far]
    # whole ramps are worth gathering for those only that the first test leaves, and once for each
    ramps = places // (n_diffs * n_image) * n_image + places % n_image
    ramps, which = xp.unique(ramps, return_inverse=True)
    sigma, level = _by_parts(scatter, ramps, window * n_diffs, xp=xp)
    return places[xp.abs(from_median - level[which]) > params.threshold * sigma[which]]


def _by_parts(function, places, n_gathered, *, xp):
    """Two results for each place, of a function that gathers `n_gathered` samples for it."""
    n_at_once = max(_GATHERED_SAMPLES // n_gathered, 1)
    starts = range(0, places.shape[0], n_at_once)
    parts = [function(places[start : start + n_at_once]) for start in starts]
    return tuple(xp.concatenate(part) for part in zip(*parts, strict=True))


def _deviation(windows, params, *, xp):
    """What the middle of each window (..., n) has beyond the median, and the median: float64.

    NaN where the middle is unknown or has too few neighbours.
    """
    half = windows.shape[-1] // 2
    own = windows[..., half]
    others = xp.concatenate([windows[..., :half], windows[..., half + 1 :]], axis=-1)
    known = count_valid(others) >= _FEWEST_NEIGHBOURS
    compared = windows if params.method == "median_mad" else others
    median = xp.where(known, _median(compared, xp=xp), xp.nan)
    return own - median, median


def _scatter(windows, params, *, xp):
    """Scatter of the differences of ramps, whose windows are (n_ramps, n_diffs, n), and its centre.

    Both are (n_ramps,) float64, and 0 where the samples are too few.
    """
    if params.method == "median_mad":
        deviations = windows - _median(windows, xp=xp)[..., None]
        deviations = deviations.reshape(windows.shape[0], -1)
        level = xp.zeros(windows.shape[0])
    else:
        deviations, _ = _deviation(windows, params, xp=xp)
        level = _median(deviations, xp=xp)
    enough = count_valid(deviations) >= _FEWEST_DIFFERENCES
    scatter = SIGMA_OF_MAD * _median(xp.abs(deviations - level[:, None]), xp=xp)
    return xp.where(enough, scatter, 0.0), xp.where(enough, level, 0.0)


def _median(values, *, xp) -> Array:
    """Median along the last axis, float64; NaN takes no part."""
    rows = values.reshape(-1, values.shape[-1]).copy()
    rows.sort(axis=-1)
    return median_of(rows, xp=xp).reshape(values.shape[:-1])


def _windows(values, places, length, *, xp) -> Array:
    """The same difference of the integrations around each place, (..., length) float32."""
    n_sample = math.prod(values.shape[1:])
    # padded by half a window, an integration's own place is where its window begins
    return values.reshape(-1)[places[..., None] + n_sample * xp.arange(length)]
