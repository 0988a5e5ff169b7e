"""The wavelength map is that of STScI's WCS."""

import numpy as np
import pytest

from miri_gpu.rates.wavelength import WavelengthTable, wavelength_map

N_ROWS, N_COLS, ROW_START = 40, 20, 528
X_REF, Y_REF = 9.0, 554.0  # on the detector, from 1


def synthetic_table():
    """A dispersion like the prism's, with scatter: columns y, wavelength; y falls."""
    y = np.arange(10.0, -21.0, -1.0)
    wavelength = 5 + 9 * ((10 - y) / 30) ** 0.7
    return y, wavelength + np.random.default_rng(1).normal(0, 0.01, len(y))


def our_table():
    y, wavelength = synthetic_table()
    return WavelengthTable(
        y_center=y, wavelength=wavelength, y_min=-20.5, y_max=10.5, reference_row=Y_REF - 1
    )


def stsci_map(velocity_m_s, tmp_path):
    """What jwst's own transform gives, from a table with the corners of its boxes."""
    from astropy.modeling import models
    from jwst.assign_wcs.miri import lrs_xytoabl
    from stdatamodels.jwst import datamodels

    y, wavelength = synthetic_table()
    names = ("x_center", "y_center", "wavelength", "x0", "y0", "x1", "y1", "x2", "y2", "x3", "y3")
    table = np.zeros(len(y), dtype=[(name, "f8") for name in names])
    table["x_center"], table["y_center"], table["wavelength"] = 0.1 + 0.01 * y, y, wavelength
    table["y0"] = table["y1"] = y + 0.5
    table["y2"] = table["y3"] = y - 0.5
    specwcs = datamodels.MiriLRSSpecwcsModel(
        wavetable=table, x_ref=1.0, y_ref=1.0, x_ref_slitless=X_REF, y_ref_slitless=Y_REF
    )
    specwcs.save(tmp_path / "specwcs.fits")
    flat_sky = models.Scale(0.11) & models.Scale(0.11)
    datamodels.DistortionModel(model=flat_sky, input_units="pixel", output_units="arcsec").save(
        tmp_path / "distortion.asdf"
    )
    model = datamodels.CubeModel((1, N_ROWS, N_COLS))
    model.meta.exposure.type = "MIR_LRS-SLITLESS"
    model.meta.subarray.xstart, model.meta.subarray.ystart = 1, ROW_START + 1
    model.meta.subarray.xsize, model.meta.subarray.ysize = N_COLS, N_ROWS
    model.meta.wcsinfo.velosys = velocity_m_s
    files = {name: str(tmp_path / f"{name}{end}") for name, end in
             (("specwcs", ".fits"), ("distortion", ".asdf"))}  # fmt: skip
    transform = lrs_xytoabl(model, files)
    rows, cols = np.indices((N_ROWS, N_COLS), dtype=float)
    return transform(cols, rows, with_bounding_box=True)[2]


@pytest.mark.filterwarnings("ignore")  # of jwst's data models, about headers left empty
@pytest.mark.parametrize("velocity_m_s", [None, -25000.0])
def test_as_the_stsci_step(tmp_path, velocity_m_s):
    theirs = stsci_map(velocity_m_s, tmp_path)
    ours = wavelength_map(
        our_table(),
        row_start=ROW_START,
        shape=(N_ROWS, N_COLS),
        velocity_m_s=velocity_m_s or 0.0,
    )
    assert np.isfinite(theirs).sum() == 31 * 16
    np.testing.assert_allclose(ours, theirs, rtol=0, atol=1e-9)  # NaN where theirs are


def test_rows_and_columns_of_the_subarray():
    ours = wavelength_map(our_table(), row_start=ROW_START, shape=(N_ROWS, N_COLS))
    finite = np.isfinite(ours)
    assert not finite[:, :4].any()
    # the reference row is row 25 of the subarray; the table goes from 20 below to 10 above
    np.testing.assert_array_equal(np.flatnonzero(finite[:, 4]), np.arange(5, 36))
    assert (ours[:, 4:] == ours[:, 4:5])[finite[:, 4]].all()
    np.testing.assert_allclose(ours[25, 10], 5 + 9 * (1 / 3) ** 0.7, atol=0.05)


def test_a_fractional_reference_row_is_interpolated():
    table = WavelengthTable(
        y_center=np.arange(10.0, -21.0, -1.0),
        wavelength=7.0 - 0.1 * np.arange(10.0, -21.0, -1.0),
        y_min=-20.5,
        y_max=10.5,
        reference_row=ROW_START + 25.25,
    )
    ours = wavelength_map(table, row_start=ROW_START, shape=(N_ROWS, N_COLS))
    np.testing.assert_allclose(ours[25, 4:], 7.0 + 0.1 * 0.25, atol=1e-9)
