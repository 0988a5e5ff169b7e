"""Figures of what the Steps see on rate images."""

from textwrap import fill
from typing import TYPE_CHECKING

import numpy as np

from miri_gpu.detector import DQ_NAMES, OUTLIER
from miri_gpu.numerics import masked_median
from miri_gpu.plots.style import (
    BLUE,
    GREEN,
    GREY,
    INK,
    ORANGE,
    RED,
    empty_figure,
    note,
    stacked_panels,
    styled,
)
from miri_gpu.rates.outlier_fits import clean_windows
from miri_gpu.rates.outliers import CleanOutliersParams, bit_mask, cut_windows
from miri_gpu.rates.trace import Trace, TraceParams

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_MAX_COLUMNS = 8  # panels beside one another
_N_CUTS = 4  # rows whose profiles are drawn


@styled
def plot_dq_flags(dq: np.ndarray) -> "Figure":
    """Where on the detector each data-quality bit is set, and in how many integrations.

    Parameters
    ----------
    dq : (n_ints, n_rows, n_cols) uint32
    """
    set_at = {bit: ((dq >> bit) & 1).mean(axis=0) for bit in range(len(DQ_NAMES))}
    found = {bit: share for bit, share in set_at.items() if share.any()}
    n_across = max(1, min(len(found), _MAX_COLUMNS))
    n_down = -(-max(1, len(found)) // n_across)
    figure = empty_figure(height_in=0.6 + 2.6 * n_down)
    panels = figure.subplots(n_down, n_across, sharex=True, sharey=True, squeeze=False)
    for axes in panels.flat[len(found) :]:
        axes.axis("off")
    if not found:
        panels[0, 0].text(0.5, 0.5, "no pixel carries a flag", ha="center", va="center")
        return figure
    for axes, (bit, share) in zip(panels.flat, found.items(), strict=False):
        image = axes.imshow(share, vmin=0, vmax=1, cmap="cividis", **_IMAGE)
        name = fill(f"{bit} {DQ_NAMES[bit].replace('_', ' ')}", 12)
        axes.set_title(f"{name}\n{100 * share.mean():.2g} %", fontsize=6.5)
        axes.tick_params(which="both", color="white")
    for axes in panels[:, 0]:
        axes.set_ylabel("Row")
    figure.supxlabel("Column", fontsize=9)
    bar = figure.colorbar(image, ax=panels, pad=0.01, aspect=40)
    bar.set_label("Share of the integrations")
    return figure


@styled
def plot_cleaning(
    frame: np.ndarray, dq: np.ndarray, *, params: CleanOutliersParams, integration: int
) -> "Figure":
    """The polynomials of the windows in one column of a frame, and the outliers they find.

    The column drawn is the one with the most outliers among those of the spatial profile.

    Parameters
    ----------
    frame : (n_rows, n_cols) float [DN/s]
    dq : (n_rows, n_cols) uint32
    params : CleanOutliersParams
    integration : int
        Its index, for the title.
    """
    column, fit, good, inliers = _worst_column(frame, dq, params)
    values, row = frame[:, column], np.arange(len(frame))
    figure, (top, bottom) = stacked_panels(2, height_in=4.6, ratios=(2, 1))
    dropped, masked = good & ~inliers, ~good & np.isfinite(values)
    top.plot(row[inliers], values[inliers], ".", ms=2.5, color=GREY, label="good pixels")
    top.plot(row[dropped], values[dropped], "x", ms=6, color=RED, label="outliers")
    top.plot(row[masked], values[masked], "s", ms=3.5, mfc="none", color=ORANGE, label="DQ flag")
    windows = cut_windows(len(frame), params.window_heights)
    residual = np.where(good, values - fit, np.nan)
    for start, stop in windows:
        part = slice(start, stop)
        label = f"polynomials of order {params.poly_order}" if start == 0 else None
        top.plot(row[part], fit[part], color=BLUE, lw=1.3, label=label)
        kept = residual[part][inliers[part]]
        sigma = kept.std() if kept.size else np.nan
        bottom.plot(row[part], residual[part] / (sigma or np.nan), ".", ms=2.5, color=GREY)
    for sign in (-1, 1):
        bottom.axhline(sign * params.outlier_threshold, color=RED, lw=0.8, ls="--")
    for axes in (top, bottom):
        for start, _ in windows[1:]:
            axes.axvline(start - 0.5, color=INK, lw=0.4, ls=":")
        axes.margins(x=0.01)
    level = values[inliers]
    if level.size:  # an outlier may be a thousand times brighter than all the rest
        span = np.ptp(level)
        top.set_ylim(level.min() - 0.3 * span - 1e-9, level.max() + 0.6 * span + 1e-9)
        note(top, _outside_note(values[dropped], top.get_ylim()))
    top.set_ylabel("Rate (DN/s)")
    top.set_title(f"Column {column}, integration {integration}")
    top.legend(loc="best")
    bottom.set_ylabel("Residual\n(standard deviations)")
    bottom.set_ylim(-2.5 * params.outlier_threshold, 2.5 * params.outlier_threshold)
    bottom.set_xlabel("Row")
    figure.align_ylabels([top, bottom])
    return figure


@styled
def plot_spatial_profile(profile: np.ndarray, *, integration: int) -> "Figure":
    """The spatial profile of one integration, as an image and as cuts along rows.

    Parameters
    ----------
    profile : (n_rows, n_cols)
    integration : int
        Its index, for the title.
    """
    figure = empty_figure(height_in=4.0)
    left, right = figure.subplots(1, 2, width_ratios=(1, 1.4))
    known = np.nan_to_num(profile)
    image = left.imshow(known, cmap="cividis", vmin=0, **_IMAGE)
    left.tick_params(which="both", color="white")
    left.set(xlabel="Column", ylabel="Row")
    left.set_title(f"Integration {integration}")
    figure.colorbar(image, ax=left, pad=0.02, aspect=40).set_label("Share of the row's light")
    rows = np.unique(np.linspace(0.15, 0.92, _N_CUTS) * (len(profile) - 1)).astype(int)
    styles = zip((BLUE, ORANGE, GREEN, RED), ("-", "--", "-.", ":"), strict=True)
    for row, (colour, dashes) in zip(rows, styles, strict=False):
        right.step(
            np.arange(profile.shape[1]), known[row], where="mid", color=colour, ls=dashes,
            label=f"row {row}",
        )  # fmt: skip
        left.axhline(row, color="white", ls=dashes, lw=0.8)
    lit = np.flatnonzero(known.any(axis=0))
    if lit.size:
        right.set_xlim(lit[0] - 1.5, lit[-1] + 1.5)
    right.set(xlabel="Column", ylabel="Share of the row's light")
    right.legend()
    return figure


@styled
def plot_psf_fit(
    frame: np.ndarray, trace: Trace, *, params: TraceParams, integration: int
) -> "Figure":
    """The Gaussian that was fitted across the trace of one integration.

    Parameters
    ----------
    frame : (n_rows, n_cols) [DN/s]
    trace : Trace
        Of all integrations.
    params : TraceParams
    integration : int
        Index of the frame.
    """
    curve = masked_median(params.cut(frame), axis=0)
    column = np.arange(params.col_idx_start_used, params.col_idx_end_used)
    amplitude, centre, sigma, base = (
        float(getattr(trace, name)[integration])
        for name in ("amplitude", "centre", "sigma", "base")
    )

    def gaussian(x):
        return base + amplitude * np.exp(-0.5 * ((x - centre) / sigma) ** 2)

    figure, (top, bottom) = stacked_panels(2, height_in=4.0, ratios=(2.4, 1))
    fine = np.linspace(column[0], column[-1], 800)
    top.plot(column, curve, "o", ms=3, color=INK, label="median over rows")
    top.plot(fine, gaussian(fine), color=BLUE, label="Gaussian fit")
    if np.isfinite(centre):
        for axes in (top, bottom):
            axes.axvline(centre, color=GREY, lw=0.8, ls="--", zorder=0)
    top.set_ylabel("Rate (DN/s)")
    top.legend()
    top.set_title(f"Integration {integration}")
    note(top, f"centre {centre:.3f} px, σ {sigma:.3f} px")
    bottom.plot(column, curve - gaussian(column), "o", ms=3, color=INK)
    bottom.axhline(0.0, color=BLUE, lw=0.8)
    bottom.set_ylabel("Residual (DN/s)")
    bottom.set_xlabel("Column")
    figure.align_ylabels([top, bottom])
    return figure


@styled
def plot_aperture(frame: np.ndarray, first: float, last: float, *, integration: int) -> "Figure":
    """The aperture on a frame, and on the median of its rows.

    Parameters
    ----------
    frame : (n_rows, n_cols) [DN/s]
    first, last : float
        First and last column in the aperture.
    integration : int
        Its index, for the title.
    """
    figure = empty_figure(height_in=4.0)
    left, right = figure.subplots(1, 2, width_ratios=(1, 1.4))
    image = left.imshow(frame, cmap="cividis", norm=_stretch(frame), **_IMAGE)
    left.tick_params(which="both", color="white")
    left.set(xlabel="Column", ylabel="Row")
    left.set_title(f"Integration {integration}")
    bar = figure.colorbar(image, ax=left, pad=0.02, aspect=40, extend="both")
    bar.set_label("Rate (DN/s)")
    right.step(np.arange(frame.shape[1]), masked_median(frame, axis=0), where="mid", color=INK)
    right.set(xlabel="Column", ylabel="Median over rows (DN/s)")
    right.set_yscale("asinh", linear_width=_linear_width(frame))
    _mark_aperture(left, first, last, colour="white")
    _mark_aperture(right, first, last, colour=ORANGE)
    right.axvspan(first - 0.5, last + 0.5, color=ORANGE, alpha=0.2, lw=0)
    right.margins(x=0)
    note(right, f"columns {first:g} to {last:g}")
    return figure


_IMAGE = {"origin": "lower", "aspect": "auto", "interpolation": "none"}


def _stretch(frame: np.ndarray):
    """Colours that show both the faint and the bright pixels."""
    from matplotlib.colors import AsinhNorm

    known = frame[np.isfinite(frame)]
    low, high = np.percentile(known, (1, 99.8)) if known.size else (0.0, 1.0)
    return AsinhNorm(10 * _linear_width(frame), vmin=low, vmax=max(high, low + 1e-6))


def _linear_width(frame: np.ndarray) -> float:
    """Up to where an asinh axis is linear: the noise of the faint pixels."""
    known = frame[np.isfinite(frame)]
    width = float(np.percentile(np.abs(known), 25)) if known.size else 1.0
    return width if width > 0 else 1.0


def _mark_aperture(axes: "Axes", first: float, last: float, *, colour: str) -> None:
    for edge in (first - 0.5, last + 0.5):
        axes.axvline(edge, color=colour, lw=1.0, ls="--")


def _outside_note(values: np.ndarray, limits: tuple[float, float]) -> str:
    n_outside = int(((values < limits[0]) | (values > limits[1])).sum())
    return f"{n_outside} outliers beyond the panel" if n_outside else ""


def _worst_column(frame: np.ndarray, dq: np.ndarray, params: CleanOutliersParams):
    """The column with the most outliers; its fit, and which of its pixels are good and stay so."""
    good = np.isfinite(frame) & ((dq & bit_mask(params.dq_bits_to_mask)) == 0)
    _, flagged, fits = clean_windows(
        frame[None],
        (~good).astype(np.uint32)[None],
        cut_windows(len(frame), params.window_heights),
        masked=1,
        order=params.poly_order,
        threshold=params.outlier_threshold,
        modelled=slice(None),
    )
    fits, kept = fits[0], (flagged[0] & OUTLIER) == 0
    left, right = params.spatial_profile_left_idx, params.spatial_profile_right_idx
    column = left + int((good & ~kept)[:, left:right].sum(axis=0).argmax())
    return column, fits[:, column], good[:, column], kept[:, column]
