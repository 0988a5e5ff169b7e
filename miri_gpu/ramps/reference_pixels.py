"""Subtract the drifts of the amplifiers that their reference pixels see."""

from dataclasses import dataclass, replace
from typing import ClassVar

from miri_gpu.backend import namespace
from miri_gpu.containers import Array, Ramps
from miri_gpu.detector import DO_NOT_USE, N_AMPLIFIERS, N_REFERENCE_COLS
from miri_gpu.numerics import masked_median, moving_median
from miri_gpu.parameters import Parameters, option


@dataclass(frozen=True, kw_only=True)
class ReferencePixelParams(Parameters):
    """How the drift of each amplifier is measured."""

    step: ClassVar[str] = "reference_pixel"

    smoothing_length: int | None = option(
        None,
        "length of a running median along the rows; nothing: one median of all rows",
        unit="row",
        at_least=1,
    )
    odd_even_rows: bool = option(True, "treat odd and even rows apart")


def measure_reference_pixels(ramps: Ramps, *, params: ReferencePixelParams | None = None) -> Array:
    """Measure how each amplifier drifts from an integration's first group to the others.

    Parameters
    ----------
    ramps : Ramps
        Whole frames; their columns from the first on, at least the reference columns. Reference
        pixels that are NaN or flagged DO_NOT_USE take no part.
    params : ReferencePixelParams

    Returns
    -------
    (n_ints, n_groups, n_rows, n_amplifiers) float32 [DN]
        0 where no reference pixel has a say: such rows, or groups, are left as they are.

    Raises
    ------
    ValueError
        Where the ramps lack reference columns.

    Notes
    -----
    ExoTiC-MIRI's ReferencePixelStep. The first group only sets the zero point, so it serves even
    where the whole group is flagged because it was dropped.
    """
    xp = namespace(ramps.data, ramps.groupdq, ramps.pixeldq)
    params = ReferencePixelParams() if params is None else params
    if ramps.data.shape[-1] < N_REFERENCE_COLS:
        raise ValueError(
            f"ramps: expected the {N_REFERENCE_COLS} reference columns, "
            f"got {ramps.data.shape[-1]} columns"
        )
    reference = slice(0, N_REFERENCE_COLS)
    pixels = ramps.data[..., reference]
    drift = pixels - pixels[:, :1]
    good = (ramps.groupdq[..., reference] & DO_NOT_USE) == 0
    good = good & ((ramps.pixeldq[:, reference] & DO_NOT_USE) == 0)

    correction = xp.empty_like(drift)
    n_parities = 2 if params.odd_even_rows else 1
    for parity in range(n_parities):
        rows = slice(parity, None, n_parities)
        correction[:, :, rows] = _level(drift[:, :, rows], good[:, :, rows], params)
    return xp.where(xp.isfinite(correction), correction, xp.float32(0))


def _level(drift: Array, good: Array, params: ReferencePixelParams) -> Array:
    if params.smoothing_length is None:
        return masked_median(drift, good, axis=2)[:, :, None]
    return moving_median(drift, good, radius=(params.smoothing_length - 1) // 2, axis=2)


def subtract_reference_pixels(ramps: Ramps, correction: Array) -> Ramps:
    """Subtract from every column the drift of the amplifier that reads it.

    Parameters
    ----------
    ramps : Ramps
        Whole frames, or a block of their rows; all columns.
    correction : (n_ints, n_groups, n_rows, n_amplifiers) float32 [DN]
        From `measure_reference_pixels`, cut to the same rows.

    Returns
    -------
    Ramps

    Raises
    ------
    ValueError
        Where the columns are not a whole number of columns for each amplifier.
    """
    namespace(ramps.data, correction)
    n_cols = ramps.data.shape[-1]
    if n_cols % N_AMPLIFIERS:
        raise ValueError(f"ramps: expected a multiple of {N_AMPLIFIERS} columns, got {n_cols}")
    # amplifier k reads columns k, k + 4, ...: the last axis of this view is the amplifier
    by_amplifier = ramps.data.reshape(*ramps.data.shape[:-1], -1, N_AMPLIFIERS)
    corrected = by_amplifier - correction[..., None, :]
    return replace(ramps, data=corrected.reshape(ramps.data.shape))
