"""Figures of what the Steps do to ramps."""

from typing import TYPE_CHECKING

import numpy as np

from miri_gpu.detector import N_AMPLIFIERS
from miri_gpu.numerics import fit_polynomials
from miri_gpu.plots.style import BLUE, GREY, INK, ORANGE, empty_figure, styled
from miri_gpu.ramps.self_calibration import CustomLinearityParams, LinearityCalibration

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_MAX_SAMPLES = 20_000  # points in a panel


@styled
def plot_reference_pixels(drifts: np.ndarray, *, integration: int) -> "Figure":
    """What the reference pixels say of one integration: an image and a curve for each amplifier.

    Parameters
    ----------
    drifts : (n_groups, n_rows, n_amplifiers) [DN]
        Of `miri_gpu.ramps.reference_pixels.measure_reference_pixels`.
    integration : int
        Its index, for the title.
    """
    figure = empty_figure(height_in=4.6)
    panels = figure.subplots(2, N_AMPLIFIERS, sharex=True, sharey="row", height_ratios=(2, 1))
    n_groups, n_rows, _ = drifts.shape
    limit = max(float(np.abs(drifts).max()), 1e-3)
    group = np.arange(n_groups)
    for amplifier, (top, bottom) in enumerate(panels.T):
        drift = drifts[..., amplifier]
        image = top.imshow(
            drift.T,
            origin="lower",
            aspect="auto",
            interpolation="none",
            cmap="PuOr_r",
            vmin=-limit,
            vmax=limit,
            extent=(-0.5, n_groups - 0.5, -0.5, n_rows - 0.5),
        )
        top.set_title(f"amplifier {amplifier}")
        for parity, colour, marker, label in ((0, BLUE, "o", "even rows"), (1, ORANGE, "s", "odd")):
            median = np.median(drift[:, parity::2], axis=1) if n_rows > parity else drift[:, 0]
            bottom.plot(group, median, marker, ls="-", lw=0.8, ms=2.5, color=colour, label=label)
        bottom.axhline(0.0, color=GREY, lw=0.6, zorder=0)
        bottom.set_xlabel("Group")
    panels[0, 0].set_ylabel("Row")
    panels[1, 0].set_ylabel("Median drift (DN)")
    panels[1, 0].legend(loc="best", handlelength=1.2)
    bar = figure.colorbar(image, ax=list(panels[0]), pad=0.01, aspect=30)
    bar.set_label("Drift since group 0 (DN)")
    figure.suptitle(f"Reference pixels, integration {integration}", x=0.01, ha="left", fontsize=9)
    return figure


@styled
def plot_linearity(
    ramps: np.ndarray, calibration: LinearityCalibration, *, params: CustomLinearityParams
) -> "Figure":
    """The correction of each amplifier with its samples, and what it leaves in each group.

    Parameters
    ----------
    ramps : (n_ints, n_groups, n_rows_used, n_cols) [DN]
        What the correction was measured on.
    calibration : LinearityCalibration
        Of `miri_gpu.ramps.self_calibration.calibrate_linearity`.
    params : CustomLinearityParams
    """
    figure = empty_figure(height_in=4.4)
    panels = figure.subplots(2, N_AMPLIFIERS, sharex="row", sharey="row")
    level, missing = _missing_charge(ramps, calibration, params)
    column = np.arange(params.col_idx_start_used, params.col_idx_end_used)
    group = np.arange(ramps.shape[1])
    for amplifier, (top, bottom) in enumerate(panels.T):
        own = column % N_AMPLIFIERS == amplifier
        dn, gap = (values[..., own, :].ravel() for values in (level, missing))
        thin = slice(None, None, -(-len(dn) // _MAX_SAMPLES))
        top.plot(dn[thin] / 1e3, gap[thin], ".", ms=1.2, color=GREY, alpha=0.15, rasterized=True)
        at = np.linspace(np.nanmin(dn), np.nanmax(dn), 300)
        correction = np.polynomial.polynomial.polyval(at, calibration.coefficients[:, amplifier])
        top.plot(at / 1e3, correction - at, color=BLUE, lw=1.5)
        top.set_title(f"amplifier {amplifier}")
        top.set_xlabel("Sample (10$^3$ DN)")
        for part, colour, face, label in (
            (calibration.in_fit, BLUE, BLUE, "fitted"),
            (~calibration.in_fit, ORANGE, "none", "left out"),
        ):
            left, left_err = calibration.residual, calibration.residual_err
            bottom.errorbar(
                group[part], left[part, amplifier], left_err[part, amplifier],
                fmt="o", ms=2.5, color=colour, mfc=face, elinewidth=0.6, label=label,
            )  # fmt: skip
        bottom.axhline(0.0, color=INK, lw=0.6, zorder=0)
        bottom.set_xlabel("Group")
    limit = 1.3 * np.nanpercentile(np.abs(missing), 99.5)
    panels[0, 0].set_ylim(-limit, limit)
    panels[0, 0].set_ylabel("Straight line − sample (DN)")
    _fit_scale(panels[1, 0], calibration)
    panels[1, 0].set_ylabel("Corrected − straight line,\nmean of the ramps (DN)")
    panels[1, 0].legend(loc="best")
    figure.align_ylabels(panels[:, 0])
    return figure


def _missing_charge(
    ramps: np.ndarray, calibration: LinearityCalibration, params: CustomLinearityParams
) -> tuple[np.ndarray, np.ndarray]:
    """Samples of the calibrated groups, and the straight lines through their ramps minus them."""
    curves = np.moveaxis(ramps[..., params.columns], 1, -1).astype(np.float64)
    groups = np.arange(curves.shape[-1])
    if params.linear_truth == "fit_groups":
        fitted = np.isin(groups, groups[params.group_idx_start_fit : params.group_idx_end_fit])
        lines = fit_polynomials(curves, np.isfinite(curves) & fitted, 1)
    else:  # lines through the corrected ramps
        columns = np.arange(ramps.shape[-1])[params.columns]
        of_column = calibration.coefficients[:, columns % N_AMPLIFIERS]
        corrected = sum(c[:, None] * curves**power for power, c in enumerate(of_column))
        lines = fit_polynomials(corrected, np.isfinite(curves) & calibration.in_fit, 1)
    return curves[..., calibration.in_fit], (lines - curves)[..., calibration.in_fit]


def _fit_scale(axes: "Axes", calibration: LinearityCalibration) -> None:
    """A vertical scale that suits the fitted groups; the first and last ones may lie far off."""
    left, err = (a[calibration.in_fit] for a in (calibration.residual, calibration.residual_err))
    reach = np.nan_to_num(np.abs(left) + err).max(initial=0.0)
    if reach > 0:
        axes.set_ylim(-3 * reach, 3 * reach)
