"""Figures of a time series, for a paper or a first look; no window is ever opened.

Each `plot_*` function takes the product (see `miri_gpu.timeseries`) and returns a matplotlib
Figure; :func:`save_figures` writes them all.
"""

from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from miri_gpu.files import write_beside
from miri_gpu.light_curves import median_of_known, normalised, white_light_curve
from miri_gpu.plots.style import BLUE, DPI, GREEN, GREY, ORANGE, RED, note, stacked_panels, styled

if TYPE_CHECKING:
    import xarray
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

TRUSTED_UM = (5.0, 12.0)  # below, the dispersion folds over; above, the star is faint
_MAX_POINTS = 100  # binned points in a light curve
_BAND_UM = 0.14  # height of a cell in the map; every band of 5-12 um then holds a row
_MAX_TIMES = 200  # columns of cells in the map


def save_figures(dataset: "xarray.Dataset", directory: str | Path) -> list[Path]:
    """Write all figures of a time series as PNG, and return where they are."""
    directory = Path(directory)
    directory.mkdir(parents=True, exist_ok=True)
    figures = {
        "white_light_curve": plot_white_light_curve,
        "spectroscopic_map": plot_spectroscopic_map,
        "median_spectrum": plot_median_spectrum,
        "shifts": plot_shifts,
    }
    paths = []
    for name, plot in figures.items():
        path = directory / f"{name}.png"
        write_beside(path, partial(plot(dataset).savefig, dpi=DPI))
        paths.append(path)
    return paths


@styled
def plot_white_light_curve(dataset: "xarray.Dataset") -> "Figure":
    """Relative flux of 5-12 um against time: each integration, and means of runs of them."""
    figure, (axes,) = stacked_panels(1, height_in=3.4)
    low, high = TRUSTED_UM
    curve = normalised(
        white_light_curve(dataset, wavelength_min=low, wavelength_max=high),
        _ends(dataset.sizes["integration_number"]),
    )
    time, _ = _elapsed(dataset)
    flux, error = curve["flux"].values, curve["flux_error"].values
    label = f"each integration ({_noise(curve)})"
    n_per_bin = -(-len(flux) // _MAX_POINTS)
    if n_per_bin > 1:
        grey = {"color": GREY, "alpha": 0.4, "rasterized": True, "zorder": 1}
        axes.plot(time, flux, ".", ms=1.5, label=label, **grey)
        time, flux = _binned(time, n_per_bin), _binned(flux, n_per_bin)
        error, label = _binned(error, n_per_bin) / np.sqrt(n_per_bin), f"mean of {n_per_bin}"
    blue = {"color": BLUE, "elinewidth": 0.8, "capsize": 0, "zorder": 2}
    axes.errorbar(time, flux, error, fmt="o", ms=3, label=label, **blue)
    axes.set_ylabel(f"Relative flux, {low:g}–{high:g} µm")
    axes.yaxis.get_major_formatter().set_useOffset(False)
    axes.margins(x=0.02, y=0.08)
    bottom, top = axes.get_ylim()
    axes.set_ylim(bottom, top + 0.1 * (top - bottom))  # room for the legend, where it hides no data
    axes.legend(loc="upper left", ncols=2)
    return _finish(figure, [axes], dataset)


@styled
def plot_spectroscopic_map(dataset: "xarray.Dataset") -> "Figure":
    """Relative flux against wavelength and time, as an image."""
    figure, (axes,) = stacked_panels(1, height_in=4.2)
    relative, edges_um, time = _map_cells(dataset)
    known = relative[np.isfinite(relative)]
    limits = np.percentile(known, (1, 99)) if known.size else (0.99, 1.01)
    image = axes.pcolormesh(
        _edges(time),
        edges_um,
        relative,
        cmap="cividis",
        vmin=limits[0],
        vmax=limits[1],
        rasterized=True,
    )
    bar = figure.colorbar(image, ax=axes, extend="both", pad=0.015, aspect=30)
    bar.set_label("Relative flux")
    bar.minorticks_on()
    bar.ax.yaxis.get_major_formatter().set_useOffset(False)
    axes.set_ylabel("Wavelength (µm)")
    axes.tick_params(which="both", color="white")
    return _finish(figure, [axes], dataset)


@styled
def plot_median_spectrum(dataset: "xarray.Dataset") -> "Figure":
    """Median over time of flux and background; below, the signal-to-noise of an integration."""
    figure, (top, bottom) = stacked_panels(2, height_in=4.4, ratios=(2.4, 1))
    order = np.argsort(dataset["wavelength"].values)
    part = dataset.isel(wavelength=order)
    wavelength_um = part["wavelength"].values
    flux, error, background = (
        median_of_known(part[name].values.astype(np.float64), axis=0)
        for name in ("flux", "flux_error", "background")
    )
    top.plot(wavelength_um, _positive(flux), color=BLUE, lw=1.4, label="star, in the aperture")
    top.plot(
        wavelength_um, _positive(background), color=ORANGE, lw=1.2, label="background, per pixel"
    )
    top.set_yscale("log")
    trusted = (TRUSTED_UM[0] <= wavelength_um) & (wavelength_um <= TRUSTED_UM[1])
    shown = np.concatenate([_positive(flux[trusted]), _positive(background[trusted])])
    if np.isfinite(shown).any():  # at the ends of the spectrum the star falls out of any scale
        top.set_ylim(0.3 * np.nanmin(shown), 3.0 * np.nanmax(shown))
    top.set_ylabel("Rate (DN/s)")
    top.legend(loc="upper right")
    noise = np.where(error > 0, error, np.nan)
    bottom.plot(wavelength_um, flux / noise, color=BLUE, lw=1.2)
    bottom.set_ylabel("S/N per\nintegration")
    bottom.set_ylim(bottom=0)
    for axes in (top, bottom):
        axes.axvspan(min(4.0, wavelength_um.min(initial=4.0)), TRUSTED_UM[0], color="0.93", lw=0)
        axes.margins(x=0)
    bottom.set_xlabel("Wavelength (µm)")
    top.set_title(_title(dataset))
    figure.align_ylabels([top, bottom])
    return figure


@styled
def plot_shifts(dataset: "xarray.Dataset") -> "Figure":
    """Shifts along and across the dispersion, and the width of the trace, against time."""
    figure, panels = stacked_panels(3, height_in=5.0)
    time, _ = _elapsed(dataset)
    rows = (
        ("x_shift", "x shift (mpx)\nacross dispersion", BLUE, 0.0),
        ("y_shift", "y shift (mpx)\nalong dispersion", RED, 0.0),
        ("psf_sigma", "PSF σ − median\n(mpx)", GREEN, None),
    )
    for axes, (name, label, colour, zero) in zip(panels, rows, strict=True):
        values = dataset[name].values.astype(np.float64)
        middle = float(median_of_known(values, axis=0)) if zero is None else zero
        offsets = 1e3 * (values - middle)
        n_per_bin = -(-len(values) // _MAX_POINTS)
        if n_per_bin > 1:
            axes.plot(time, offsets, ".", ms=1.5, color=GREY, alpha=0.4, rasterized=True)
        axes.plot(_binned(time, n_per_bin), _binned(offsets, n_per_bin), "o", ms=3, color=colour)
        axes.axhline(0.0, color=GREY, lw=0.6, zorder=0)
        axes.set_ylabel(label)
        axes.margins(x=0.02, y=0.12)
        text = f"standard deviation {_scatter(offsets):.1f} mpx"
        note(axes, text if zero is not None else f"median {middle:.3f} px, {text}")
    figure.align_ylabels(panels)
    return _finish(figure, panels, dataset)


def _finish(figure: "Figure", panels: list["Axes"], dataset: "xarray.Dataset") -> "Figure":
    """Title above and time axis below."""
    start = dataset["bjd_tdb_mid"].values[0]
    _, unit = _elapsed(dataset)
    panels[-1].set_xlabel(f"Time since BJD$_{{\\rm TDB}}$ {start:.5f} ({unit})")
    panels[0].set_title(_title(dataset))
    return figure


def _title(dataset: "xarray.Dataset") -> str:
    names = {"target": "", "program": "program ", "observation": "observation "}
    known = [what + dataset.attrs[n] for n, what in names.items() if dataset.attrs.get(n)]
    return " · ".join([*known, "MIRI LRS"])


def _elapsed(dataset: "xarray.Dataset") -> tuple[np.ndarray, str]:
    """Time since the first integration, in the unit that suits its length."""
    days = dataset["bjd_tdb_mid"].values - dataset["bjd_tdb_mid"].values[0]
    span_h = 24 * float(np.nanmax(days, initial=0.0))
    factor, unit = (24, "h") if span_h > 2 else (1440, "min") if span_h > 2 / 60 else (86400, "s")
    return days * factor, unit


def _ends(n_ints: int) -> np.ndarray:
    """The first and last tenth of an observation, most often out of transit."""
    n_each = max(1, n_ints // 10)
    position = np.arange(n_ints)
    return (position < n_each) | (position >= n_ints - n_each)


def _binned(values: np.ndarray, n_per_bin: int) -> np.ndarray:
    """Means of the known values of each run of n_per_bin along the last axis; the rest is left."""
    n_bins = max(1, values.shape[-1] // n_per_bin)
    runs = values[..., : n_bins * n_per_bin].reshape(*values.shape[:-1], n_bins, -1)
    known = np.isfinite(runs)
    n_known = known.sum(axis=-1)
    means = np.where(known, runs, 0.0).sum(axis=-1) / np.maximum(n_known, 1)
    return np.where(n_known > 0, means, np.nan)


def _map_cells(dataset: "xarray.Dataset") -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Relative flux (n_bands, n_times) in cells that a figure can show, band edges, times."""
    edges_um = np.linspace(*TRUSTED_UM, round((TRUSTED_UM[1] - TRUSTED_UM[0]) / _BAND_UM) + 1)
    flux = dataset["flux"].values.astype(np.float64)
    known = np.isfinite(flux).mean(axis=0) > 0.5
    band = np.digitize(dataset["wavelength"].values, edges_um) - 1
    n_bands = len(edges_um) - 1
    sums = np.stack([flux[:, known & (band == k)].sum(axis=1) for k in range(n_bands)])
    n_per_bin = -(-flux.shape[0] // _MAX_TIMES)
    time, _ = _elapsed(dataset)
    level = median_of_known(sums[:, _ends(flux.shape[0])], axis=1)
    relative = sums / np.where(level > 0, level, np.nan)[:, None]
    return _binned(relative, n_per_bin), edges_um, _binned(time, n_per_bin)


def _edges(centres: np.ndarray) -> np.ndarray:
    """Edges of cells: half-way between their centres, and as far beyond the outer ones."""
    if len(centres) == 1:
        return centres[0] + np.array([-0.5, 0.5])
    between = 0.5 * (centres[1:] + centres[:-1])
    return np.concatenate([[2 * centres[0] - between[0]], between, [2 * centres[-1] - between[-1]]])


def _positive(values: np.ndarray) -> np.ndarray:
    """What a logarithmic axis can show."""
    return np.where(values > 0, values, np.nan)


def _scatter(values: np.ndarray) -> float:
    known = values[np.isfinite(values)]
    return float(np.std(known)) if known.size else float("nan")


def _noise(curve: "xarray.Dataset") -> str:
    """Scatter of an integration about the mean of its neighbours, and what is expected.

    A second difference does not see a slope, such as ingress; it has 6 times the variance of a
    single value.
    """
    bends = np.diff(curve["flux"].values, 2)
    scatter = 1.4826 * median_of_known(np.abs(bends), axis=0) / np.sqrt(6) if bends.size else np.nan
    expected = median_of_known(curve["flux_error"].values, axis=0)
    return f"scatter about neighbours {1e6 * scatter:.0f} ppm, expected {1e6 * expected:.0f} ppm"
