"""Read an interfering wave off ramps from which a line and a level have been taken before."""

import numpy as np

from miri_gpu.area import Area
from miri_gpu.backend import to_host
from miri_gpu.containers import Array, Ramps
from miri_gpu.detector import N_AMPLIFIERS
from miri_gpu.numerics import masked_median
from miri_gpu.ramps.emi_phase_sums import Walk
from miri_gpu.ramps.emi_waves import Clock, EmiWave, TableWave, table_phase

CLIP_SIGMA = 3.0
CLIP_ITERATIONS = 5
_MOST_BINS = 501
_BINS_INSTEAD = 500
_GOOD_COLS_BESIDE_HOT = (0, 3)  # groups of four columns whose mean replaces those between
_HOT_GROUPS_OF_COLS = slice(1, 3)


def read_wave(
    walk: Walk,
    wave: EmiWave,
    clock: Clock,
    integration: Array,
    *,
    n_ints_to_phase: int,
    n_bins: int | None,
    scale_reference: bool,
    xp,
) -> TableWave:
    """Average what the samples have beside line and level by the phase of the wave.

    Parameters
    ----------
    walk : Walk
    wave : EmiWave
        With a shape, this is moved to the phase, and scaled to the amplitude, that is found;
        without, the wave that is found is itself the result.
    clock : Clock
    integration : (n_ints,) int64
        Place of each integration.
    n_ints_to_phase : int
        How many integrations, from the first, take part; a quarter of their samples is held.
    n_bins : int or None
        Bins of phase; None makes them two clocks wide.
    scale_reference : bool
        Scale the shape to the amplitude.

    Returns
    -------
    TableWave

    Notes
    -----
    The sequential algorithm of the STScI pipeline's emicorr step (after an IDL procedure by
    E. Bergeron). Unlike there a phase without samples, or a NaN sample, does not spoil the others.
    """
    noise = _noise(walk, n_ints_to_phase, xp=xp)
    period = wave.period
    n_bins = int(period / 2.0) if n_bins is None else n_bins
    n_bins = _BINS_INSTEAD if n_bins > _MOST_BINS else n_bins
    n_ints, n_groups, n_rows, n_cols = noise.shape
    in_frame = clock.in_frame(Area.of_shape((n_rows, n_cols * N_AMPLIFIERS)), xp=xp)
    taking_part = integration[:n_ints]
    phases = xp.stack(
        [table_phase(clock, taking_part, g, in_frame, period, xp=xp) for g in range(n_groups)],
        axis=1,
    )
    found = to_host(_clipped_means_by_phase(noise, phases, n_bins, xp=xp))
    found = np.where(np.isnan(found), 0.0, found - _median(found))
    table = _resampled(found, period)
    if wave.shape_dn:
        table = _matched(np.asarray(wave.shape_dn), found, table, period, scale_reference)
    return TableWave(wave=wave, table=xp.asarray(table), integration=integration)


def _noise(walk: Walk, n_ints_to_phase: int, *, xp) -> Array:
    """Mean of the four amplifiers less line and level, (n, n_groups, n_rows, n_cols / 4)."""

    def residual(ramps: Ramps, ints: slice) -> Array:
        return _residual(ramps.data, xp=xp)

    return xp.concatenate(list(walk(residual, n_ints_to_phase)))


def _residual(data: Array, *, xp) -> Array:
    n_ints, n_groups, n_rows, _ = data.shape
    inner = slice(1, n_groups - 1)  # the first and last groups sit low and high
    slope = _slope(data[:, inner], xp=xp)
    groups = xp.arange(n_groups, dtype=xp.float64)[:, None, None]
    data = (data - slope[:, None] * groups).astype(data.dtype)
    if n_groups <= 4:
        level = xp.fmin(data[:, 1], data[:, n_groups - 2])
    else:
        level = masked_median(data[:, inner], axis=1)
    four = (data - level[:, None]).reshape(n_ints, n_groups, n_rows, -1, N_AMPLIFIERS)
    mean = (four[..., 0] + four[..., 1] + four[..., 2] + four[..., 3]) / 4
    left, right = _GOOD_COLS_BESIDE_HOT
    mean[..., _HOT_GROUPS_OF_COLS] = ((mean[..., left] + mean[..., right]) / 2)[..., None]
    flat = mean.reshape(n_ints, n_groups, -1)
    return mean - masked_median(flat, axis=-1)[..., None, None]


def _slope(data: Array, *, xp) -> Array:
    """Slope of each ramp by least squares, per group, (n_ints, n_rows, n_cols) float64."""
    n_groups = data.shape[1]
    time_sum = time_square_sum = 0.0
    level = rise = 0.0
    for group in range(n_groups):
        samples = data[:, group].astype(xp.float64)
        level = level + samples
        rise = rise + float(group) * samples
        time_sum, time_square_sum = time_sum + group, time_square_sum + group**2
    spread = n_groups * time_square_sum - time_sum * time_sum
    if spread == 0:  # one inner group has no slope
        return xp.zeros(level.shape)
    return (n_groups * rise - time_sum * level) / spread


def _clipped_means_by_phase(noise: Array, phases: Array, n_bins: int, *, xp) -> Array:
    """Sigma-clipped mean of the samples in each bin of phase, (n_bins,) float64; NaN for none.

    A bin holds phases above its lower edge, up to and with its upper one.
    """
    edges = xp.asarray(np.arange(n_bins + 1) / n_bins)
    place = xp.searchsorted(edges, phases.reshape(-1), side="left") - 1
    values = noise.reshape(-1).astype(xp.float64)
    usable = (place >= 0) & xp.isfinite(values)
    place = xp.where(usable, place, n_bins)
    # sorted by value, then by bin: each bin's values lie together, in order
    by_value = xp.argsort(values)
    order = by_value[xp.argsort(place[by_value], kind="stable")]
    count = xp.bincount(place, minlength=n_bins + 1)[:n_bins]
    start = xp.cumsum(count) - count
    member = xp.arange(max(int(count.max()), 1))
    exists = member < count[:, None]
    members = xp.where(exists, start[:, None] + member, 0)
    return _clipped_mean(values[order[members]], exists, xp=xp)


def _clipped_mean(values: Array, exists: Array, *, xp) -> Array:
    """Mean of each row after clipping around its median, (n_rows,) float64; NaN where empty."""
    kept = exists
    for _ in range(CLIP_ITERATIONS):
        middle = masked_median(values, kept, axis=1)
        _, scatter = _mean_and_scatter(values, kept, xp=xp)
        # a comparison with NaN, of a row with nothing, is false
        inside = xp.abs(values - middle[:, None]) <= CLIP_SIGMA * scatter[:, None]
        kept = kept & inside
    return _mean_and_scatter(values, kept, xp=xp)[0]


def _mean_and_scatter(values: Array, kept: Array, *, xp) -> tuple[Array, Array]:
    n = kept.sum(axis=1)
    mean = xp.where(kept, values, 0.0).sum(axis=1) / xp.maximum(n, 1)
    mean = xp.where(n > 0, mean, xp.nan)
    deviation = xp.where(kept, values - mean[:, None], 0.0)
    return mean, xp.sqrt((deviation * deviation).sum(axis=1) / xp.maximum(n, 1))


def _median(values: np.ndarray) -> float:
    known = values[np.isfinite(values)]
    return float(np.median(known)) if len(known) else 0.0


def _resampled(values: np.ndarray, n_new: float) -> np.ndarray:
    """Values at equal steps along the same period, each the one at or before it."""
    step = len(values) / n_new
    return values[(np.arange(int(np.ceil(len(values) / step))) * step).astype(np.int32)]


def _matched(shape, found, table, period: float, scale: bool) -> np.ndarray:
    """The known shape as a table, at the phase and the amplitude of what was found."""
    n = len(shape)
    place = np.arange(n)
    shifted = shape[(place - place[:, None]) % n]  # row i: moved by i bins
    stretched = _resampled(found, n)
    likeness = shifted @ (stretched - stretched.mean())
    matched = _resampled(shifted[np.argmax(likeness)], period)
    if not scale:
        return matched
    centred = matched - matched.mean()
    spread = (centred * centred).sum()
    return matched * ((centred * (table - table.mean())).sum() / spread if spread > 0 else 0.0)
