"""Correct the detector's non-linear response (jwst: linearity)."""

from miri_gpu.backend import namespace
from miri_gpu.containers import Array, Ramps
from miri_gpu.detector import NO_LIN_CORR
from miri_gpu.ramps.sample_corrections import SampleCorrection, correct_samples


def correct_linearity(ramps: Ramps, coefficients: Array, coefficients_dq: Array) -> Ramps:
    """Replace each sample by a polynomial in it, with coefficients of its pixel.

    Saturated samples stay as they are, and so do pixels without a usable correction (flagged
    NO_LIN_CORR in the reference, any coefficient NaN, or a linear term of 0), which are flagged.

    Parameters
    ----------
    ramps : Ramps
    coefficients : (n_coeffs, n_rows, n_cols) float32
        From the constant term up: sum of c_k [DN^(1 - k)] x sample^k.
    coefficients_dq : (n_rows, n_cols) uint32

    Returns
    -------
    Ramps

    Notes
    -----
    The linearity step of the STScI pipeline (stcal's `linearity_correction`), group by group; its
    treatment of single frames inside averaged groups is left out, MIRI has no references for it.
    """
    return correct_samples(ramps, linearity_correction(coefficients, coefficients_dq))


def linearity_correction(coefficients: Array, coefficients_dq: Array) -> SampleCorrection:
    """What correct_linearity does; parameters as there."""
    xp = namespace(coefficients, coefficients_dq)
    unusable = (
        ((coefficients_dq & NO_LIN_CORR) != 0)
        | xp.isnan(coefficients).any(axis=0)
        | (coefficients[1] == 0)
    )
    identity = xp.zeros((coefficients.shape[0], 1, 1), dtype=xp.float32)
    identity[1] = 1.0
    return SampleCorrection(
        pixeldq=coefficients_dq | unusable.astype(xp.uint32) * NO_LIN_CORR,
        coefficients=xp.where(unusable, identity, coefficients.astype(xp.float32)),
    )
