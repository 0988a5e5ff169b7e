"""Rates from ramps by maximum likelihood, with jumps found by what the whole ramp says of them.

Read noise and photons make a known covariance of the differences between groups, so the likeliest
slope, its variance and its chi-square follow without binning or segments.

Source: Brandt 2024, PASP 136, 045004 and 045005 (arXiv 2309.08753, 2404.01326), and the LIKELY
algorithm of the STScI ramp_fit step (jwst 3.0, stcal 1.20), its second product, one rate for each
integration.
"""

from collections.abc import Iterator
from dataclasses import dataclass, fields, replace
from typing import ClassVar

from miri_gpu.backend import namespace, to_host
from miri_gpu.containers import Array, ArrayBundle, Ramps, Rates, Readout
from miri_gpu.detector import DO_NOT_USE, JUMP_DET, NO_GAIN_VALUE, SATURATED
from miri_gpu.parameters import Parameters, option
from miri_gpu.ramps.broken_ramps import union_of_flags
from miri_gpu.ramps.likelihood_jumps import omit_jumps
from miri_gpu.ramps.likelihood_sweeps import climb, covariance_of, descend, photon_lag
from miri_gpu.ramps.ramp_segments import PERSISTENCE
from miri_gpu.ramps.sorted_columns import median_of, sorted_columns

# Samples that are worked on at once: what stays in the cache of a CPU, and what keeps a GPU busy.
_SAMPLES_AT_ONCE = {"numpy": 1 << 18}
_SAMPLES_AT_ONCE_ELSEWHERE = 1 << 25


@dataclass(frozen=True, kw_only=True)
class LikelihoodParams(Parameters):
    """Settings of the likelihood ramp fit and its jump detection."""

    step: ClassVar[str] = "likelihood"

    find_jumps: bool = option(True, "leave out the differences that the likelihood says are jumps")
    rejection_threshold: float = option(
        4.5, "significance from which a difference is a jump", unit="sigma", above=0
    )
    two_differences: bool | None = option(
        None,
        "look for jumps that spoil two differences, too; by default where groups average several "
        "frames, as the STScI step does",
    )
    debias: bool = option(
        True,
        "take the photon noise from a first fit instead of the median difference, which biases "
        "faint rates",
    )
    as_stsci: bool = option(
        False,
        "as the STScI step, leave out the difference after a flagged jump, too, and take the "
        "median over unusable differences as well",
    )


@dataclass(frozen=True, eq=False, kw_only=True)
class LikelihoodFit:
    """Lines fitted to ramps.

    Attributes
    ----------
    rates : Rates
        Rates [DN/s] with their variances by photons and by read noise.
    chi_square : (n_ints, n_rows, n_cols) float32
        NaN where there is no rate.
    degrees_of_freedom : (n_ints, n_rows, n_cols) int16
        Expected value of chi_square: differences used, less one; 0 where there is no rate.
    pedestal : (n_ints, n_rows, n_cols) float32 [DN]
        The line at the time of the reset, as the first usable group sees it; NaN where there is
        no rate.
    groupdq : (n_ints, n_groups, n_rows, n_cols) uint8
        The flags of the ramps, with JUMP_DET where a jump was found.
    """

    rates: Rates
    chi_square: Array
    degrees_of_freedom: Array
    pedestal: Array
    groupdq: Array


def fit_ramps_likelihood(
    ramps: Ramps,
    read_noise: Array,
    gain: Array,
    *,
    params: LikelihoodParams,
    readout: Readout,
    dropped: Array | None = None,
    dark_current: Array | None = None,
) -> LikelihoodFit:
    """Find the likeliest count rate of each ramp, as the LIKELY algorithm of the STScI step does.

    Parameters
    ----------
    ramps : Ramps
        Samples that are NaN, or have any flag but JUMP_DET and PERSISTENCE, take no part; across
        a jump there is no difference. Samples must not be infinite.
    read_noise : (n_rows, n_cols) float32 [DN]
        Noise of a difference of two frames (the STScI reference file).
    gain : (n_rows, n_cols) float32 [e-/DN]
    params : LikelihoodParams
    readout : Readout
    dropped : (n_ints, n_groups) bool, optional
        Groups that are DO_NOT_USE on the whole frame; needed where the ramps are a block of its
        rows. By default what the ramps at hand show.
    dark_current : (n_rows, n_cols) float32 [e-/s], optional
        Mean dark current, whose noise is in the ramps though its signal is not; by default 0.

    Returns
    -------
    LikelihoodFit
        Ramps of which no two successive groups can be used, of a pixel that is DO_NOT_USE or
        SATURATED, or whose noise is unknown: NaN, with variances and error 0, and DO_NOT_USE.

    Raises
    ------
    ValueError
        Where fewer than two groups are in use.

    Notes
    -----
    Fitted with the noise that its own noisy data suggest, a rate is biased. With the rate of a
    first fit as the source of the noise the bias vanishes to first order, for the slope of an
    optimal fit is independent of its weights' errors (Brandt 2024, section 5): that is `debias`.

    Unlike the STScI step, this one does not let masked samples decide how noisy a ramp is (ramps
    that saturate half-way get hundreds of false jumps from that), lets a NaN spoil two differences
    and not the ramp, looks for no jumps among two differences, and gives bad pixels no rate.
    """
    xp = namespace(ramps.data, ramps.groupdq, ramps.pixeldq, read_noise, gain, dark_current)
    n_ints, _, n_rows, n_cols = ramps.data.shape
    shape = (n_ints, n_rows, n_cols)
    fits = _LineFits(
        **{name: xp.empty(shape, dtype=xp.float32) for name in _FLOATS},
        degrees_of_freedom=xp.empty(shape, dtype=xp.int16),
    )
    groupdq = ramps.groupdq.copy() if params.find_jumps else ramps.groupdq
    pixeldq = _with_bad_gain(ramps.pixeldq, gain, xp=xp)
    for piece in _pieces(ramps, read_noise, gain, dark_current, dropped, params, readout, xp=xp):
        used, slope = _search(piece, params, xp=xp)
        if params.find_jumps:
            piece.flag(groupdq, used, xp=xp)
        line = _fit(piece, used, slope, params, readout, xp=xp)
        for f in fields(line):
            target = getattr(fits, f.name)[piece.ints, piece.rows]
            target[...] = getattr(line, f.name).reshape(target.shape)
    return _finish(fits, groupdq, pixeldq, xp=xp)


def flag_jumps_likelihood(
    ramps: Ramps,
    read_noise: Array,
    gain: Array,
    *,
    params: LikelihoodParams,
    readout: Readout,
    dropped: Array | None = None,
) -> Ramps:
    """Flag the jumps that the likelihood fit finds, and fit nothing.

    Parameters and errors are those of `fit_ramps_likelihood`, whose `groupdq` this gives.

    Returns
    -------
    Ramps
        The same data; JUMP_DET in groupdq, and NO_GAIN_VALUE and DO_NOT_USE in pixeldq where the
        gain is not positive.
    """
    xp = namespace(ramps.data, ramps.groupdq, ramps.pixeldq, read_noise, gain)
    groupdq = ramps.groupdq.copy()
    params = replace(params, find_jumps=True)
    for piece in _pieces(ramps, read_noise, gain, None, dropped, params, readout, xp=xp):
        used, _ = _search(piece, params, xp=xp)
        piece.flag(groupdq, used, xp=xp)
    return replace(ramps, groupdq=groupdq, pixeldq=_with_bad_gain(ramps.pixeldq, gain, xp=xp))
