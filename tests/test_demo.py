"""The proof on a known observation, from end to end."""

import glob

import numpy as np
import pytest
from click.testing import CliRunner

from miri_gpu import cli, demo
from miri_gpu.demo import run_demo
from miri_gpu.light_curves import spectroscopic_light_curves
from miri_gpu.progress import SILENT
from miri_gpu.timeseries import load_timeseries


@pytest.fixture(scope="module")
def done(tmp_path_factory):
    """The demonstration, as `miri-gpu demo` runs it, and what the command printed."""
    folder = tmp_path_factory.mktemp("demo")
    kept = []

    def run_and_keep(*args, **kwargs):
        kept.append(run_demo(*args, **kwargs))
        return kept[0]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(demo, "run_demo", run_and_keep)
        patch.setenv("MIRI_GPU_BACKEND", "numpy")
        result = CliRunner().invoke(cli.main, ["demo", "-o", str(folder)])
    assert result.exit_code == 0, result.output
    return kept[0], result.stdout


def test_the_depths_agree_with_the_truth(done):
    """Seven bands: each within 4 standard deviations, all together as chance would have it."""
    deviations = np.array([band.deviation for band in done[0].bands])
    assert len(deviations) == 7
    assert np.abs(deviations).max() < 4
    assert 0.9 < (deviations**2).sum() < 24.3  # 0.4 % and 99.9 % of chi-square with 7


def test_the_errors_of_the_depths_are_not_padded(done):
    """A depth is known about as well as so many photons allow."""
    for band in done[0].bands:
        n_in, n_out = 0.4 * 120, 0.6 * 120
        expected = band.expected_scatter * np.sqrt(1 / n_in + 1 / n_out)
        assert 0.8 * expected < band.depth_error < 1.5 * expected
        assert band.depth > 10 * band.depth_error


def test_the_scatter_is_that_of_the_noise(done):
    """The ratio of one band is known to 7 % from 120 integrations: their mean to 2.5 %."""
    ratios = np.array([band.noise_ratio for band in done[0].bands])
    assert abs(ratios.mean() - 1) < 0.1
    assert np.all((ratios > 0.75) & (ratios < 1.3))


def test_the_errors_of_the_flux_are_those_of_the_noise(done):
    """The product's own errors, with the noise of the subtracted background, beside the truth's."""
    curves = spectroscopic_light_curves(load_timeseries(done[0].product), demo.BAND_EDGES_UM)
    stated = np.sqrt((curves["flux_error"] ** 2).mean("integration_number"))
    relative = stated / curves["flux"].median("integration_number")
    expected = [band.expected_scatter for band in done[0].bands]
    np.testing.assert_allclose(relative, expected, rtol=0.06)


def test_a_faint_star_comes_back_too(tmp_path, monkeypatch):
    """With the recipe `faint`: many groups, a self-calibrated linearity, several segments."""
    monkeypatch.setattr("miri_gpu.products.save_all_figures", lambda *_: None)
    settings = demo.SimulationSettings(n_ints=48, n_groups=40, n_segments=3, seed=4)
    result = run_demo(tmp_path, settings=settings, backend="numpy", progress=SILENT)
    recipe = load_timeseries(result.product).attrs["recipe"]
    assert "miri_gpu recipe: faint" in recipe
    deviations = np.array([band.deviation for band in result.bands])
    assert np.abs(deviations).max() < 4
    assert 0.9 < (deviations**2).sum() < 24.3
    # from 48 integrations, less the 3 that the fit takes: 11 % for a band, 4 % for their mean
    assert abs(np.mean([band.noise_ratio for band in result.bands]) - 1) < 0.1


def test_what_is_printed(done):
    result, text = done
    lines = text.splitlines()
    assert "depth" in lines[0] and "truth" in lines[0]
    assert len(lines) == 1 + 7 + 3
    for band, line in zip(result.bands, lines[1:8], strict=True):
        assert f"{band.depth * 1e6:.0f}" in line and f"{band.true_depth * 1e6:.0f}" in line
    assert str(result.product) in lines[8] and str(result.figures) in lines[9]


def test_what_it_says_to_do_next_can_be_done(done, tmp_path, monkeypatch):
    monkeypatch.setattr("miri_gpu.products.save_all_figures", lambda *_: None)
    command = done[1].splitlines()[-1].removeprefix("next: miri-gpu ").split()
    typed = [found for word in command for found in sorted(glob.glob(word)) or [word]]
    arguments = [*typed, "-o", str(tmp_path / "out"), "--backend", "numpy"]
    result = CliRunner().invoke(cli.main, arguments)
    assert result.exit_code == 0, result.output
    assert (tmp_path / "out" / "timeseries.nc").exists()


def test_product_and_figures_are_where_it_says(done):
    result = done[0]
    dataset = load_timeseries(result.product)
    assert dataset.sizes["integration_number"] == demo.SETTINGS.n_ints
    assert len(list(result.figures.glob("*.png"))) >= 4


def test_it_may_be_run_again_in_the_same_place(tmp_path, monkeypatch):
    monkeypatch.setattr("miri_gpu.products.save_all_figures", lambda *_: None)
    settings = demo.SimulationSettings(n_ints=8, n_groups=5, n_segments=1)
    for _ in range(2):
        result = run_demo(tmp_path, settings=settings, backend="numpy", progress=SILENT)
    assert result.product.exists()


def test_a_place_with_anything_else_is_left_alone(tmp_path):
    """A real reduction, above all."""
    (tmp_path / "timeseries.nc").write_text("precious")
    result = CliRunner().invoke(cli.main, ["demo", "-o", str(tmp_path)])
    assert result.exit_code == 2
    assert result.stderr.startswith(f"miri-gpu: error: {tmp_path}: expected a new directory or")
    assert len(result.stderr.splitlines()) == 1
    assert [path.name for path in tmp_path.iterdir()] == ["timeseries.nc"]
    assert (tmp_path / "timeseries.nc").read_text() == "precious"


def test_a_place_that_cannot_be_written(tmp_path):
    (tmp_path / "file").touch()
    result = CliRunner().invoke(cli.main, ["demo", "-o", str(tmp_path / "file")])
    assert result.exit_code == 2
    assert result.stderr.splitlines()[-1].startswith("miri-gpu: error: ")
    assert str(tmp_path / "file") in result.stderr
