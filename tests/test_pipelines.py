"""Complete pipelines of Steps give what `reduce` gives; what differs has a cause that is named."""

import sys
from pathlib import Path

import numpy as np
import pytest
import xarray
from step_cases import quick_collection  # noqa: F401 - a fixture

from miri_gpu import rates_to_spectra, reduce
from miri_gpu.simulate import SimulationSettings, simulate

pytest.importorskip("jwst")

pytestmark = pytest.mark.usefixtures("quick_collection")

PIPELINES = Path(__file__).parent / "pipelines"
# the recipe `faint` fits the non-linearity otherwise than ExoTiC-MIRI's documentation, unless told
AS_DOCUMENTED = {
    "linear_truth": "fit_groups",
    "highest_power": 4,
    "col_idx_start_used": 34,
    "col_idx_end_used": 39,
}
TOLERANCE = 1e-5  # of the flux, or of its error where there is hardly any flux


@pytest.fixture
def pipelines(monkeypatch):
    """The scripts, importable as modules."""
    monkeypatch.syspath_prepend(PIPELINES)
    yield
    for name in ("bright", "faint"):
        sys.modules.pop(name, None)


@pytest.fixture(scope="module")
def long_ramps(tmp_path_factory, observation):
    """An observation of 44 groups, whose references CRDS finds until the module is done."""
    settings = SimulationSettings(n_ints=4, n_groups=44, n_segments=2, seed=7)
    made = simulate(tmp_path_factory.mktemp("long_ramps"), settings)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("CRDS_PATH", str(made.crds_path))
        patch.setenv("CRDS_CONTEXT", made.crds_context)
        yield made


def on_rows_of(dataset, product):
    """A pipeline's result, in the rows that have a wavelength."""
    with xarray.open_dataset(dataset) as opened:
        return opened.load().isel(wavelength=product["row"].values)


@pytest.fixture
def as_documented(monkeypatch):
    """Errors of `reduce` without the noise of the subtracted background, as the scripts' are."""
    unknown = rates_to_spectra.background_error

    def without(data, err, dq, params):
        return 1e-20 * unknown(data, err, dq, params=params)

    monkeypatch.setattr(rates_to_spectra, "background_error", without)


def flux_deviation(ours, product):
    """Largest difference of two fluxes, as a part of flux or error, whichever is larger."""
    scale = np.maximum(np.abs(product["flux"].values), product["flux_error"].values)
    return (np.abs(ours["flux"].values - product["flux"].values) / scale).max()


def assert_same(ours, product, half_width):
    """Two reductions agree, but for errors of replaced pixels and the template of the shifts."""
    assert flux_deviation(ours, product) < TOLERANCE
    np.testing.assert_allclose(ours["wavelength"], product["wavelength"], rtol=1e-9)
    np.testing.assert_allclose(ours["background"], product["background"], rtol=TOLERANCE)
    np.testing.assert_array_equal(ours["n_outliers"], product["n_outliers"])
    np.testing.assert_allclose(ours["psf_sigma"], product["psf_sigma"], rtol=TOLERANCE)

    # a pixel that was replaced counts with no error in the script, with its neighbours' in `reduce`
    error, expected = ours["flux_error"].values, product["flux_error"].values
    replaced = product["n_outliers"].values[:, :, half_width] > 0
    np.testing.assert_allclose(error[~replaced], expected[~replaced], rtol=TOLERANCE)
    assert (error[replaced] <= expected[replaced] * (1 + TOLERANCE)).all()


def test_with_too_few_arguments_they_say_how_they_are_used(pipelines):
    import bright

    for arguments in ([], ["output.nc"]):
        with pytest.raises(SystemExit, match=r"^usage: python .* OUTPUT SEGMENT_uncal\.fits"):
            bright.output_and_segments(arguments)
    assert bright.output_and_segments(["a.nc", "b", "c"]) == ("a.nc", ["b", "c"])


def test_the_bright_pipeline(pipelines, as_documented, observation, tmp_path):
    import bright

    output = tmp_path / "bright.nc"
    bright.main(output, [str(path) for path in observation.segments])
    product = reduce(observation.segments, "bright", backend="numpy")
    ours = on_rows_of(output, product)
    assert_same(ours, product, half_width=4)

    # the script has a template for each segment, `reduce` one for the observation: with the
    # spectra of both segments at once, the Step measures the same shifts
    from jwst.datamodels import CubeModel

    from miri_gpu.stage_2 import AlignSpectraStep

    with xarray.open_dataset(output) as whole:
        flux = whole["flux"].values
    frames = CubeModel(data=np.ones((*flux.shape, 72), np.float32))
    *_, y_shift = AlignSpectraStep.call(frames, flux, np.ones_like(flux))
    np.testing.assert_allclose(y_shift, product["y_shift"], atol=1e-5)
    for name in ("x_shift", "y_shift"):
        for segment in (slice(0, 6), slice(6, 12)):
            apart = (ours[name].values - product[name].values)[segment]
            assert np.ptp(apart) < 0.5 * np.abs(product[name].values).max() + 1e-3


def test_the_faint_pipeline(pipelines, as_documented, long_ramps, tmp_path):
    import faint

    segments = [str(path) for path in long_ramps.segments]
    settings = {"custom_linearity": AS_DOCUMENTED}
    product = reduce(long_ramps.segments, "faint", settings=settings, backend="numpy")
    faint.main(tmp_path / "corrected.nc", segments, corrected=True)
    assert_same(on_rows_of(tmp_path / "corrected.nc", product), product, half_width=3)

    # the documentation's script measures the non-linearity on raw ramps; `reduce` after the steps
    # that come before the correction, where it is applied: flagged pixels and the reset anomaly
    # are then out of it, and the polynomials differ a little
    faint.main(tmp_path / "raw.nc", segments[-1:])
    last = product.isel(integration_number=slice(2, None))
    deviation = flux_deviation(on_rows_of(tmp_path / "raw.nc", last), last)
    assert TOLERANCE < deviation < 0.01
