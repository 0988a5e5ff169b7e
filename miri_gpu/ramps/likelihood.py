"""Rates from ramps by maximum likelihood, with jumps found by what the whole ramp says of them.

Read noise and photons make a known covariance of the differences between groups, so the likeliest
slope, its variance and its chi-square follow without binning or segments.

Source: Brandt 2024, PASP 136, 045004 and 045005 (arXiv 2309.08753, 2404.01326), and the LIKELY
algorithm of the STScI ramp_fit step (jwst 3.0, stcal 1.20), its second product, one rate for each
integration.
"""

from dataclasses import dataclass, fields
from typing import ClassVar

from miri_gpu.backend import namespace
from miri_gpu.containers import Array, Ramps, Rates, Readout, check_shapes
from miri_gpu.detector import DO_NOT_USE, JUMP_DET, NO_GAIN_VALUE, SATURATED
from miri_gpu.parameters import Parameters, option
from miri_gpu.ramps.broken_ramps import union_of_flags
from miri_gpu.ramps.likelihood_jumps import omit_jumps
from miri_gpu.ramps.likelihood_pieces import cut_ramps, groups_in_use
from miri_gpu.ramps.likelihood_sweeps import climb, covariance_of, descend, photon_lag
from miri_gpu.ramps.sorted_columns import median_of, sorted_columns


@dataclass(frozen=True, kw_only=True)
class LikelihoodParams(Parameters):
    """Settings of the likelihood ramp fit and its jump detection."""

    step: ClassVar[str] = "likelihood"

    find_jumps: bool = option(True, "leave out the differences that the likelihood says are jumps")
    rejection_threshold: float = option(
        4.5, "significance from which a difference is a jump", unit="sigma", above=0, at_most=1e6
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
    groupdq : (n_ints, n_groups, n_rows, n_cols) uint8
        The flags of the ramps, with JUMP_DET where a jump was found.
    """

    rates: Rates
    chi_square: Array
    degrees_of_freedom: Array
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

    Unlike the STScI step, this one keeps unusable samples from deciding how noisy a ramp is, and
    uses the difference after a flagged jump; `as_stsci` does as the step does, for comparison.
    (By the flat end of ramps that saturate before half of their groups the step takes them for
    faint, and finds false jumps in nearly all.) A NaN spoils two differences here, not the ramp;
    among two differences no jump is looked for; and what has no rate is DO_NOT_USE.
    """
    xp = namespace(ramps.data, ramps.groupdq, ramps.pixeldq, read_noise, gain, dark_current)
    check_shapes(ramps.data.shape[2:], read_noise=read_noise, gain=gain, dark_current=dark_current)
    n_ints, _, n_rows, n_cols = ramps.data.shape
    shape = (n_ints, n_rows, n_cols)
    fits = _LineFits(
        **{name: xp.empty(shape, dtype=xp.float32) for name in _FLOATS},
        degrees_of_freedom=xp.empty(shape, dtype=xp.int16),
    )
    groups = groups_in_use(ramps.groupdq, dropped, params.as_stsci)
    noise = (read_noise, gain, dark_current)
    groupdq = ramps.groupdq.copy() if params.find_jumps else ramps.groupdq
    pixeldq = _with_bad_gain(ramps.pixeldq, gain, xp=xp)
    for piece in cut_ramps(ramps, noise, groups, readout, params.as_stsci, xp=xp):
        used, rise = _search(piece, params, readout, xp=xp)
        if params.find_jumps:
            _flag(groupdq, piece, used, xp=xp)
        line = _fit(piece, used, rise, readout, xp=xp)
        for f in fields(line):
            target = getattr(fits, f.name)[piece.ints, piece.rows]
            target[...] = getattr(line, f.name).reshape(target.shape)
    return _finish(fits, groupdq, pixeldq, xp=xp)


@dataclass(frozen=True, eq=False)
class _LineFits:
    """Fitted lines, (n_ints, n_rows, n_cols) or (n_ramps,) each; NaN where there is no fit."""

    data: Array
    err: Array
    var_poisson: Array
    var_rnoise: Array
    chi_square: Array
    degrees_of_freedom: Array


_FLOATS = tuple(f.name for f in fields(_LineFits) if f.name != "degrees_of_freedom")


def _search(piece, params, readout, *, xp):
    """Which differences are no jumps, and the expected difference that their noise follows from."""
    counted = ~xp.isnan(piece.differences) if params.as_stsci else piece.used
    median = median_of(
        sorted_columns(xp.where(counted, piece.differences, xp.float32(xp.nan)), xp=xp), xp=xp
    )
    rise = xp.where(median > 0, median, 0.0)  # 0 where it is NaN, too
    if not (params.find_jumps or params.debias):
        return piece.used, rise
    covariance = covariance_of(rise, piece.read_var, piece.gain, photon_lag(readout), xp=xp)
    if not params.find_jumps:
        return piece.used, climb(piece.differences, piece.used, covariance, xp=xp).slope
    with_pairs = params.two_differences
    if with_pairs is None:
        with_pairs = readout.n_frames > 1
    used, slope = omit_jumps(
        piece.differences, piece.used, covariance, params.rejection_threshold, with_pairs, xp=xp
    )
    return used, slope if params.debias else rise


def _flag(groupdq, piece, used, *, xp):
    """Write JUMP_DET into the cube of flags where differences are no longer used."""
    jump = piece.used & ~used
    n_ints, n_rows = piece.ints.stop - piece.ints.start, piece.rows.stop - piece.rows.start
    for i in range(jump.shape[0]):
        flags = jump[i].reshape(n_ints, n_rows, -1) * xp.uint8(JUMP_DET)
        groupdq[piece.ints, piece.groups.start + i + 1, piece.rows] |= flags


def _fit(piece, used, rise, readout, *, xp) -> _LineFits:
    """Fit a line to each ramp, with the noise that goes with the expected difference `rise`."""
    lag, time = photon_lag(readout), readout.group_time_s
    rise = xp.maximum(rise, 0.0) + piece.dark_rise
    covariance = covariance_of(rise, piece.read_var, piece.gain, lag, xp=xp)
    climbed = climb(piece.differences, used, covariance, xp=xp)
    descent = descend(climbed, used, covariance, xp=xp)
    by_photons = (1 - 2 * lag) * descent.squares + 2 * lag * descent.products
    by_reading = 2 * (descent.squares - descent.products)
    n_used = used.sum(axis=0)
    known = covariance.known & (n_used > 0)
    values = {
        "data": climbed.slope / time,
        "err": xp.sqrt(1 / climbed.c) / time,
        "var_poisson": rise / piece.gain * by_photons / time**2,
        "var_rnoise": piece.read_var * by_reading / time**2,
        "chi_square": climbed.chi_square(xp=xp),
    }
    return _LineFits(
        **{name: xp.where(known, value, xp.nan) for name, value in values.items()},
        degrees_of_freedom=xp.where(known, n_used - 1, 0),
    )


def _finish(fits, groupdq, pixeldq, *, xp) -> LikelihoodFit:
    """Take the fits of bad pixels away, and say in the flags where there is none."""
    bad = (pixeldq & (DO_NOT_USE | SATURATED)) != 0
    none = xp.isnan(fits.data) | bad
    unknown = xp.float32(xp.nan)
    rates = {
        name: xp.where(none, xp.float32(0), getattr(fits, name))
        for name in ("err", "var_poisson", "var_rnoise")
    }
    flags = union_of_flags(groupdq, axis=1) & (JUMP_DET | SATURATED)
    dq = pixeldq | flags.astype(xp.uint32) | none * xp.uint32(DO_NOT_USE)
    return LikelihoodFit(
        rates=Rates(data=xp.where(none, unknown, fits.data), dq=dq, **rates),
        chi_square=xp.where(none, unknown, fits.chi_square),
        degrees_of_freedom=xp.where(none, xp.int16(0), fits.degrees_of_freedom),
        groupdq=groupdq,
    )


def _with_bad_gain(pixeldq, gain, *, xp):
    return pixeldq | ~(gain > 0) * xp.uint32(NO_GAIN_VALUE | DO_NOT_USE)
