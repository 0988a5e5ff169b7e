"""Figures are drawn without a window, from good data and from data with nothing in them."""

import os
import pickle
import re
import subprocess
import sys

import matplotlib
import numpy as np
import pytest
from matplotlib import image

from miri_gpu import plots
from miri_gpu.timeseries import Provenance, build_timeseries

N_ROWS = 40


def make_product(n_ints, *, duration_s=10.0):
    rng = np.random.default_rng(5)
    wavelength = np.linspace(14.0, 4.0, N_ROWS)
    time = 59791.0 + np.arange(n_ints) * duration_s / 86400
    names = [
        f"int_{moment}_{c}" for moment in ("start", "mid", "end") for c in ("BJD_TDB", "MJD_UTC")
    ]
    dip = 1 - 0.02 * (np.abs(np.arange(n_ints) - n_ints / 2) < n_ints / 4)
    star = 1e4 * (5 / wavelength) ** 3
    flux = dip[:, None] * star + rng.normal(size=(n_ints, N_ROWS)) * 10
    shape = flux.shape
    return build_timeseries(
        wavelength=wavelength,
        times=dict.fromkeys(names, time),
        integration_number=np.arange(1, n_ints + 1),
        provenance=Provenance(target="WASP-0", program="1234", observation="005"),
        flux=flux.astype("f4"),
        flux_error=np.full(shape, 10, "f4"),
        background=np.full(shape, 60, "f4"),
        n_outliers=np.zeros((*shape, 5), int),
        n_jumps=np.zeros(n_ints, int),
        x_shift=rng.normal(size=n_ints) * 1e-3,
        y_shift=rng.normal(size=n_ints) * 1e-3,
        trace_centre=np.full(n_ints, 37.0),
        psf_sigma=np.full(n_ints, 1.4),
    )


PLOTS = (
    plots.plot_white_light_curve,
    plots.plot_spectroscopic_map,
    plots.plot_median_spectrum,
    plots.plot_shifts,
)


def with_unknown_flux(dataset):
    for name in ("flux", "flux_error", "background"):
        dataset[name].values[:] = np.nan
    for name in ("x_shift", "y_shift", "psf_sigma"):
        dataset[name].values[:] = np.nan
    return dataset


def test_all_figures_are_saved_and_hold_something(tmp_path):
    paths = plots.save_figures(make_product(30), tmp_path / "figures")
    names = ["white_light_curve", "spectroscopic_map", "median_spectrum", "shifts"]
    assert [path.name for path in paths] == [f"{name}.png" for name in names]
    assert sorted(paths) == sorted((tmp_path / "figures").iterdir())
    for path in paths:
        pixels = image.imread(path)
        assert pixels.shape[1] == 1420
        assert np.std(pixels[..., :3]) > 0.05


@pytest.mark.parametrize("plot", PLOTS)
def test_axes_are_labelled_with_units(plot):
    figure = plot(make_product(30))
    labels = [axes.get_ylabel() for axes in figure.axes]
    assert all(labels)
    units = ("µm", "DN/s", "mpx", "S/N", "Relative flux")
    assert all(any(unit in label for unit in units) for label in labels)
    bottom = figure.axes[1 if plot is plots.plot_median_spectrum else 0]
    bottom = figure.axes[2] if plot is plots.plot_shifts else bottom
    assert any(unit in bottom.get_xlabel() for unit in ("(h)", "(min)", "(s)", "(µm)"))
    assert "WASP-0 · program 1234 · observation 005" in figure.axes[0].get_title(loc="left")


@pytest.mark.parametrize("plot", PLOTS)
@pytest.mark.parametrize(
    "dataset",
    [make_product(1), make_product(2), with_unknown_flux(make_product(12)), make_product(450)],
    ids=["one", "two", "unknown", "many"],
)
def test_any_product_can_be_drawn(plot, dataset, tmp_path):
    plot(dataset).savefig(tmp_path / "figure.png", dpi=40)


def test_the_light_curve_shows_the_dip():
    figure = plots.plot_white_light_curve(make_product(40))
    drawn = figure.axes[0].lines[0].get_ydata()
    assert drawn[:5].mean() == pytest.approx(1.0, abs=2e-3)
    assert drawn[20] == pytest.approx(0.98, abs=2e-3)


def test_many_integrations_are_drawn_as_points_and_means():
    figure = plots.plot_white_light_curve(make_product(450))
    every, means = (line.get_ydata() for line in figure.axes[0].lines[:2])
    assert (len(every), len(means)) == (450, 90)
    np.testing.assert_allclose(means, every.reshape(90, 5).mean(axis=1))
    named = legend_of(figure)
    assert named[0].startswith("each integration")
    assert named[1:] == ["mean of 5"]


def test_a_slope_does_not_lift_the_scatter():
    level, sloped = make_product(1000), make_product(1000)
    sloped["flux"].values[:] += np.arange(-500, 500)[:, None] * 1e-3 * level["flux"].values.mean(0)
    noises = [legend_of(plots.plot_white_light_curve(product))[0] for product in (level, sloped)]
    (scatter, expected), (same, _) = (map(int, re.findall(r"(\d+) ppm", text)) for text in noises)
    assert same == pytest.approx(scatter, abs=5)
    assert scatter == pytest.approx(expected, rel=0.15)


def legend_of(figure):
    return [text.get_text() for text in figure.axes[0].get_legend().get_texts()]


@pytest.mark.parametrize(("duration_s", "unit"), [(1.6, "(s)"), (30.0, "(min)"), (600.0, "(h)")])
def test_the_time_axis_suits_the_length(duration_s, unit):
    figure = plots.plot_shifts(make_product(40, duration_s=duration_s))
    assert figure.axes[-1].get_xlabel().endswith(unit)


def test_the_map_covers_the_trusted_wavelengths_without_gaps():
    figure = plots.plot_spectroscopic_map(make_product(20))
    cells = figure.axes[0].collections[0].get_array()
    assert cells.shape == (50, 20)
    assert figure.axes[0].get_ylim() == (5.0, 12.0)


@pytest.mark.parametrize("plot", PLOTS)
def test_drawing_leaves_the_users_style_alone(plot):
    with matplotlib.rc_context({"font.size": 31.0, "axes.linewidth": 5.0}):
        figure = plot(make_product(3))
        assert matplotlib.rcParams["font.size"] == 31.0
        assert figure.axes[0].spines["left"].get_linewidth() < 1.0


def test_drawing_needs_no_display(tmp_path):
    """Nothing asks matplotlib for a window system, even where one is set that cannot start."""
    product = tmp_path / "product.pickle"
    product.write_bytes(pickle.dumps(make_product(3)))
    code = (
        "import pickle, sys; from pathlib import Path; from miri_gpu.plots import save_figures; "
        f"save_figures(pickle.loads(Path({str(product)!r}).read_bytes()), {str(tmp_path)!r}); "
        "assert 'matplotlib.pyplot' not in sys.modules"
    )
    environment = {**os.environ, "MPLBACKEND": "tkagg", "DISPLAY": ""}
    done = subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr


def test_means_of_runs_pass_over_the_unknown():
    values = np.array([1.0, 3.0, np.nan, 5.0, np.nan, np.nan, 9.0])
    np.testing.assert_array_equal(plots.product._binned(values, 2), [2.0, 5.0, np.nan])
