"""The wavelength of every pixel of the SLITLESSPRISM subarray (jwst: assign_wcs)."""

from dataclasses import dataclass

import numpy as np

from miri_gpu.detector import COL_START, N_COLS, N_REFERENCE_COLS, N_ROWS, ROW_START
from miri_gpu.numerics.smoothing import smoothed

_LIGHT_SPEED_M_S = 299792458.0
_SMOOTHING_UM2 = 0.002  # summed square deviation that the STScI step lets its spline have


@dataclass(frozen=True, eq=False, kw_only=True)
class WavelengthTable:
    """The wavelength solution of a SPECWCS reference file, as tabulated.

    Attributes
    ----------
    y_center : (n,) float64 [pixel]
        Position along the dispersion relative to the reference row, in any order.
    wavelength : (n,) float64 [um]
    y_min, y_max : float [pixel]
        Lower and upper limit of the calibrated box, relative to the reference row.
    reference_row : float [pixel]
        The reference row on the detector, from 0.
    """

    y_center: np.ndarray
    wavelength: np.ndarray
    y_min: float
    y_max: float
    reference_row: float


def wavelength_map(
    table: WavelengthTable,
    *,
    row_start: int = ROW_START,
    col_start: int = COL_START,
    shape: tuple[int, int] = (N_ROWS, N_COLS),
    velocity_m_s: float = 0.0,
) -> np.ndarray:
    """Wavelength of each pixel, constant along a row.

    The tabulated solution is smoothed by a cubic spline and interpolated between its points.

    Parameters
    ----------
    table : WavelengthTable
    row_start, col_start : int
        First row and column of the subarray on the detector, from 0.
    shape : (n_rows, n_cols)
    velocity_m_s : float [m/s]
        Radial velocity towards the target relative to the barycentre (VELOSYS), whose Doppler
        shift is taken out.

    Returns
    -------
    (n_rows, n_cols) float64 [um], on the host
        NaN outside the calibrated box and on the reference columns.

    Notes
    -----
    What the WCS of the STScI step assign_wcs gives for MIR_LRS-SLITLESS.
    """
    reference_row = table.reference_row - row_start
    order = np.argsort(table.y_center)
    y = table.y_center[order] + reference_row
    smooth = smoothed(y, table.wavelength[order], _SMOOTHING_UM2)
    rows, cols = np.arange(shape[0]), np.arange(shape[1])
    wavelength = np.interp(rows, y, smooth, left=np.nan, right=np.nan)
    wavelength /= 1 + velocity_m_s / _LIGHT_SPEED_M_S

    lowest = np.floor(table.y_min + reference_row) - 0.5
    highest = np.ceil(table.y_max + reference_row) + 0.5
    in_rows = (rows >= lowest) & (rows <= highest)
    in_cols = cols >= col_start + N_REFERENCE_COLS
    return np.where(in_rows[:, None] & in_cols, wavelength[:, None], np.nan)
