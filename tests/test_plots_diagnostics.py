"""Figures of what the Steps do: they show what is there, and stand data with nothing in them."""

import logging
import sys
from dataclasses import replace
from types import SimpleNamespace

import matplotlib
import numpy as np
import pytest
from matplotlib import image
from matplotlib.figure import Figure

from miri_gpu import plots
from miri_gpu.ramps.self_calibration import CustomLinearityParams, calibrate_linearity
from miri_gpu.rates.outliers import CleanOutliersParams
from miri_gpu.rates.trace import TraceParams, fit_trace
from miri_gpu.spectra.align import measure_shifts

N_ROWS = 120
USED = TraceParams(row_idx_start_used=20, row_idx_end_used=110)
RANGES = CustomLinearityParams(
    group_idx_start_fit=2, group_idx_end_fit=8, group_idx_start_derive=2, group_idx_end_derive=-1
)


@pytest.fixture
def frames(rng):
    """Three frames with a star and its noise."""
    row, column = np.arange(N_ROWS)[:, None], np.arange(72)
    star = 20 * row * np.exp(-0.5 * ((column - 36.4) / 1.4) ** 2)
    return (star + rng.normal(0, 3, (3, N_ROWS, 72))).astype(np.float32)


def bent_ramps(rng):
    line = 10000 + rng.uniform(500, 2000, (2, 1, 6, 72)) * np.arange(20)[:, None, None]
    return (line - 1e-6 * line**2 + rng.normal(0, 6, line.shape)).astype(np.float32)


def linearity(ramps, params=RANGES):
    return plots.plot_linearity(ramps, calibrate_linearity(ramps, params=params), params=params)


def cleaning(frame, dq):
    return plots.plot_cleaning(frame, dq, params=CleanOutliersParams(), integration=0)


def psf_fit(frames):
    return plots.plot_psf_fit(frames[0], fit_trace(frames, params=USED), params=USED, integration=0)


def correlation(curves):
    template, shifts = np.median(curves, axis=0), measure_shifts(curves)
    return plots.plot_cross_correlation(curves[0], template, shifts[0], title="x shift")


def all_figures(frames, dq, rng):
    profile = np.clip(frames[0], 0, None)
    spectra, wavelength = frames[:, :, 30:43].sum(axis=2), np.linspace(14, 4, frames.shape[1])
    shifts = measure_shifts(spectra)
    return {
        "reference_pixels": plots.plot_reference_pixels(
            rng.normal(0, 1, (7, N_ROWS, 4)), integration=0
        ),
        "linearity": linearity(bent_ramps(rng)),
        "dq_flags": plots.plot_dq_flags(dq),
        "cleaning": cleaning(frames[0], dq[0]),
        "spatial_profile": plots.plot_spatial_profile(
            profile / np.maximum(profile.sum(axis=1, keepdims=True), 1e-9), integration=0
        ),
        "psf_fit": psf_fit(frames),
        "aperture": plots.plot_aperture(frames[0], 32, 40, integration=0),
        "spectra": plots.plot_spectra(wavelength, spectra, np.ones_like(spectra)),
        "cross_correlation": correlation(spectra),
        "trace_positions": plots.plot_trace_positions(shifts, shifts),
    }


def test_every_figure_has_labels_and_something_in_it(frames, rng, tmp_path):
    dq = np.zeros(frames.shape, np.uint32)
    dq[:, :, :4] = 1 << 31
    dq[0, 5:30, 20] = 1
    figures = all_figures(frames, dq, rng)
    plots.present_figures(figures, tmp_path)
    for name, figure in figures.items():
        pixels = image.imread(tmp_path / f"{name}.png")
        assert pixels.shape[1] == 1420
        assert np.std(pixels[..., :3]) > 0.04
        across = [axes.get_xlabel() for axes in figure.axes] + [figure.get_supxlabel()]
        upwards = [axes.get_ylabel() for axes in figure.axes]
        assert any(across), name
        assert any(upwards), name
        words = " ".join([*across, *upwards])
        units = ("DN", "DN/s", "px", "µm", "Share", "Column", "Row")
        assert any(unit in words for unit in units)


def test_data_with_nothing_in_them_can_be_drawn(frames, rng):
    nothing = np.full_like(frames, np.nan)
    figures = all_figures(nothing, np.ones(frames.shape, np.uint32), rng)
    figures["no_flags"] = plots.plot_dq_flags(np.zeros(frames.shape, np.uint32))
    figures["no_drift"] = plots.plot_reference_pixels(np.zeros((3, 1, 4)), integration=0)
    figures["one_shift"] = plots.plot_trace_positions(np.zeros(1), np.array([np.nan]))
    figures["no_light"] = plots.plot_spatial_profile(np.zeros((N_ROWS, 72)), integration=0)
    for figure in figures.values():
        figure.draw_without_rendering()


def test_the_flags_found_are_the_ones_drawn():
    dq = np.zeros((4, N_ROWS, 72), np.uint32)
    dq[0, 3, 5] |= 1 << 2
    dq[:, 8, 9] |= 1 << 11
    figure = plots.plot_dq_flags(dq)
    jumps, hot = figure.axes[:2]
    assert jumps.get_title(loc="left").startswith("2 JUMP DET")
    assert hot.get_title(loc="left").startswith("11 HOT")
    shares = [axes.images[0].get_array() for axes in (jumps, hot)]
    assert (shares[0][3, 5], shares[1][8, 9]) == (0.25, 1.0)


def test_the_column_with_the_outliers_is_the_one_drawn(frames):
    frame = frames[0].copy()
    frame[30, 40] += 1e4
    figure = cleaning(frame, np.zeros(frame.shape, np.uint32))
    top = figure.axes[0]
    assert top.get_title(loc="left") == "Column 40, integration 0"
    outliers = next(line for line in top.lines if line.get_label() == "outliers")
    np.testing.assert_array_equal(outliers.get_xdata(), [30])
    assert top.get_title(loc="right") == "1 outliers beyond the panel"


@pytest.mark.parametrize(("truth", "power"), [("fit_groups", 4), ("joint", 2)])
def test_the_correction_passes_through_the_samples_drawn(rng, truth, power):
    params = replace(RANGES, linear_truth=truth, highest_power=power)
    top = linearity(bent_ramps(rng), params).axes[0]
    (sample, missing), (at, correction) = (line.get_data() for line in top.lines)
    left = missing - np.interp(sample, at, correction)
    assert np.std(left) < 0.3 * np.std(missing)


def test_the_fit_is_the_one_drawn(frames):
    top = psf_fit(frames).axes[0]
    curve = next(line for line in top.lines if line.get_label() == "Gaussian fit")
    peak = curve.get_xdata()[curve.get_ydata().argmax()]
    assert peak == pytest.approx(36.4, abs=0.1)


def test_the_correlation_peaks_at_the_shift():
    row = np.arange(N_ROWS) - np.array([[1.0], [0.0], [0.0]])
    figure = correlation(1000 * np.exp(-0.5 * ((row - 60) / 5) ** 2))
    lag, values = figure.axes[1].lines[0].get_data()
    assert lag[values.argmax()] == pytest.approx(1000, abs=5)
    assert figure.axes[1].get_title(loc="right").endswith("mpx")


def test_drawing_leaves_the_users_style_alone(frames):
    with matplotlib.rc_context({"font.size": 31.0}):
        plots.plot_aperture(frames[0], 32, 40, integration=0)
        assert matplotlib.rcParams["font.size"] == 31.0


# --- where figures go


def test_a_path_is_a_file_or_a_folder(tmp_path):
    one, two = {"a": Figure()}, {"a": Figure(), "b": Figure()}
    assert plots.present_figures(one, tmp_path / "x.pdf") == [tmp_path / "x.pdf"]
    both = plots.present_figures(two, str(tmp_path / "y.svg"))
    assert both == [tmp_path / "y_a.svg", tmp_path / "y_b.svg"]
    assert plots.present_figures(one, tmp_path / "new" / "v1.2") == [tmp_path / "new/v1.2/a.png"]
    assert all(path.is_file() for path in both)


def test_a_figure_that_goes_nowhere_is_mentioned(monkeypatch, caplog):
    monkeypatch.delitem(sys.modules, "matplotlib.pyplot", raising=False)
    with caplog.at_level(logging.WARNING, "miri_gpu"):
        assert plots.present_figures({"a": Figure()}, None) == []
    assert "a: drawn, but not to be seen" in caplog.text


@pytest.mark.parametrize(("backend", "seen"), [("TkAgg", True), ("agg", False), ("inline", True)])
def test_figures_are_shown_where_somebody_looks(monkeypatch, caplog, backend, seen):
    """A user's pyplot gets the very figure, and nothing waits for the window."""
    shown = []
    pyplot = SimpleNamespace(
        figure=lambda FigureClass: shown.append(FigureClass(figsize=(6, 4))),
        show=lambda block: shown.append(block),
    )
    monkeypatch.setitem(sys.modules, "matplotlib.pyplot", pyplot)
    monkeypatch.setattr(matplotlib, "get_backend", lambda: backend)
    figure = Figure()
    plots.present_figures({"a": figure}, None)
    assert shown == ([figure, False] if seen else [])
    assert ("not to be seen" in caplog.text) is not seen


def test_pyplot_takes_a_figure_that_it_did_not_make(monkeypatch):
    """What `show_figure` relies on, with matplotlib's own pyplot."""
    from matplotlib import pyplot

    pyplot.switch_backend("agg")
    figure = Figure()
    assert pyplot.figure(FigureClass=lambda **_: figure) is figure
    assert pyplot.gcf() is figure
    pyplot.close("all")
