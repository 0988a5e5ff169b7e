"""Figures of extracted spectra, and of how they move."""

from typing import TYPE_CHECKING

import numpy as np

from miri_gpu.light_curves import median_of_known
from miri_gpu.numerics import spline_terms
from miri_gpu.numerics.shifts import STEPS_PER_PIXEL
from miri_gpu.plots.style import BLUE, GREY, INK, ORANGE, RED, note, stacked_panels, styled

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_N_LAGS = 30  # steps drawn either side of the peak
_N_FITTED = 7  # steps either side of the peak that the parabola is fitted to


@styled
def plot_spectra(wavelength: np.ndarray, flux: np.ndarray, flux_err: np.ndarray) -> "Figure":
    """All spectra: their median, what lies between the extremes, and the signal-to-noise.

    Parameters
    ----------
    wavelength : (n_rows,) [um]
        NaN where a row has none: it is left out.
    flux, flux_err : (n_ints, n_rows) [DN/s]
    """
    figure, (top, bottom) = stacked_panels(2, height_in=4.2, ratios=(2.4, 1))
    rows = np.flatnonzero(np.isfinite(wavelength))
    rows = rows[np.argsort(wavelength[rows])]
    x, flux, flux_err = wavelength[rows], flux[:, rows], flux_err[:, rows]
    middle, noise = (median_of_known(np.asarray(a, np.float64), axis=0) for a in (flux, flux_err))
    known = np.isfinite(flux)
    lowest = np.where(known, flux, np.inf).min(axis=0, initial=np.inf)
    highest = np.where(known, flux, -np.inf).max(axis=0, initial=-np.inf)
    seen = known.any(axis=0)
    top.fill_between(
        x, lowest, highest, where=seen, color=ORANGE, alpha=0.5, lw=0,
        label=f"lowest to highest of {len(flux)}",
    )  # fmt: skip
    top.plot(x, middle, color=BLUE, lw=1.2, label="median")
    top.set_ylabel("Flux (DN/s)")
    top.legend(loc="upper right")
    bottom.plot(x, middle / np.where(noise > 0, noise, np.nan), color=BLUE, lw=1.2)
    bottom.set_ylabel("S/N per\nintegration")
    bottom.set_xlabel("Wavelength (µm)")
    for axes in (top, bottom):
        axes.margins(x=0.01)
    figure.align_ylabels([top, bottom])
    return figure


@styled
def plot_cross_correlation(
    curve: np.ndarray, template: np.ndarray, shift: float, *, title: str
) -> "Figure":
    """A curve beside its template, and the peak of their cross-correlation with its parabola.

    Parameters
    ----------
    curve, template : (n,)
        A spectrum, or a cross-dispersion profile.
    shift : float [pixel]
        What `miri_gpu.spectra.align.measure_shifts` found.
    title : str
    """
    from matplotlib.ticker import MaxNLocator

    from miri_gpu.plots.style import empty_figure

    figure = empty_figure(height_in=2.8)
    left, right = figure.subplots(1, 2)
    left.plot(curve, color=BLUE, lw=1.2, label="this integration")
    left.plot(template, color=INK, lw=0.8, ls="--", label="median of all")
    left.set(xlabel="Pixel", ylabel="Flux (DN/s)", title=title)
    left.legend()
    right.set(xlabel="Lag (mpx)", ylabel="Cross-correlation, relative")
    right.set_title("")
    if not np.isfinite(shift):
        right.text(0.5, 0.5, "no shift found", ha="center", transform=right.transAxes)
        return figure
    lag, correlation = _correlation(curve, template, shift)
    near = np.abs(lag - lag[correlation.argmax()]) <= _N_FITTED
    parabola = np.polynomial.Polynomial.fit(lag[near], correlation[near], 2)
    right.plot(lag * 1e3 / STEPS_PER_PIXEL, correlation, "o", ms=2.5, color=GREY)
    drawn = np.linspace(lag[near][0] - 4, lag[near][-1] + 4, 200)
    right.plot(drawn * 1e3 / STEPS_PER_PIXEL, parabola(drawn), color=BLUE, label="parabola")
    right.axvline(1e3 * shift, color=RED, lw=1.0, ls="--", label="shift")
    right.xaxis.set_major_locator(MaxNLocator(5))
    right.yaxis.get_major_formatter().set_useOffset(False)
    right.legend()
    note(right, f"{1e3 * shift:+.2f} mpx")
    return figure


@styled
def plot_trace_positions(x_shifts: np.ndarray, y_shifts: np.ndarray) -> "Figure":
    """Shifts across and along the dispersion, integration by integration.

    Parameters
    ----------
    x_shifts, y_shifts : (n_ints,) [pixel]
    """
    figure, panels = stacked_panels(2, height_in=3.8)
    rows = (
        (x_shifts, "x shift (mpx)\nacross dispersion", BLUE),
        (y_shifts, "y shift (mpx)\nalong dispersion", RED),
    )
    for axes, (shifts, label, colour) in zip(panels, rows, strict=True):
        axes.plot(1e3 * shifts, "o", ls="-", lw=0.5, ms=3, color=colour)
        axes.axhline(0.0, color=GREY, lw=0.6, zorder=0)
        axes.set_ylabel(label)
        axes.margins(x=0.02, y=0.12)
        known = shifts[np.isfinite(shifts)]
        note(axes, f"standard deviation {1e3 * known.std():.1f} mpx" if known.size else "")
    panels[-1].set_xlabel("Integration")
    panels[-1].xaxis.get_major_locator().set_params(integer=True)
    figure.align_ylabels(panels)
    return figure


def _correlation(curve: np.ndarray, template: np.ndarray, shift: float):
    """Lags [steps] around the shift and the correlations there, the largest of which is 1."""
    template = np.where(np.isfinite(template), template, 0.0)
    curve = np.where(np.isfinite(curve), curve, template)
    moved, still = (_levelled(values) for values in (curve, template))
    lag = round(shift * STEPS_PER_PIXEL) + np.arange(-_N_LAGS, _N_LAGS + 1)
    products = [
        moved[max(k, 0) : len(moved) + min(k, 0)] @ still[max(-k, 0) : len(still) - max(k, 0)]
        for k in lag
    ]
    return lag, np.array(products) / max(products)


def _levelled(values: np.ndarray) -> np.ndarray:
    """Interpolated at every 1/200 pixel, less the line through the ends."""
    terms = spline_terms(values[None].astype(np.float64))[0]
    step = np.arange(STEPS_PER_PIXEL) / STEPS_PER_PIXEL
    fine = sum(term[:, None] * step**k for k, term in enumerate(terms)).ravel()
    return fine - np.linspace(fine[0], fine[-1], len(fine))
