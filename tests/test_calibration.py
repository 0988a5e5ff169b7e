"""Reference data: read, mapped to standard flags and cut as STScI's data models do."""

import dataclasses

import numpy as np
import pytest
from reference_cases import (
    COL_START,
    N_COLS,
    N_ROWS,
    ROW_START,
    emi_tree,
    observation_header,
    science_model,
    write_emicorr,
    write_references,
)

from miri_gpu.area import Area
from miri_gpu.backend import select, to_host
from miri_gpu.calibration import (
    Calibration,
    CalibrationError,
    CustomGainParams,
    load_calibration,
)

FIELDS = {  # type of reference: (model, attribute of the model -> name in Calibration)
    "mask": ("MaskModel", {"dq": "mask"}),
    "saturation": ("SaturationModel", {"data": "saturation", "dq": "saturation_dq"}),
    "linearity": ("LinearityModel", {"coeffs": "linearity", "dq": "linearity_dq"}),
    "gain": ("GainModel", {"data": "gain"}),
    "readnoise": ("ReadnoiseModel", {"data": "read_noise"}),
    "flat": ("FlatModel", {"data": "flat", "err": "flat_err", "dq": "flat_dq"}),
    "reset": ("ResetModel", {"data": "reset", "dq": "reset_dq"}),
    "dark": ("DarkMIRIModel", {"data": "dark", "dq": "dark_dq"}),
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    path = tmp_path_factory.mktemp("references")
    write_references(path)
    return path


@pytest.fixture(scope="module")
def calibration(folder):
    return load_calibration(observation_header(), references=folder)


@pytest.mark.parametrize("reftype", FIELDS)
def test_arrays_as_stsci_models_give_them(folder, calibration, reftype):
    from jwst.lib.reffile_utils import get_subarray_model, ref_matches_sci
    from stdatamodels.jwst import datamodels

    name, attributes = FIELDS[reftype]
    model, science = getattr(datamodels, name)(folder / calibration.files[reftype]), science_model()
    if not ref_matches_sci(science, model):
        model = get_subarray_model(science, model)
    for attribute, ours in attributes.items():
        theirs, array = getattr(model, attribute), getattr(calibration, ours)
        if reftype == "reset" and attribute == "data":
            theirs = theirs[:, :7]  # as many groups as the header says are meant
        if reftype == "dark":  # the groups of the exposure; the flags of any integration
            theirs = theirs[:, :5] if attribute == "data" else theirs[0, 0] | theirs[1, 0]
        np.testing.assert_array_equal(array, theirs)
        assert array.dtype == (np.uint32 if attribute == "dq" else np.float32)
        assert array.flags.c_contiguous


def test_what_is_no_array(calibration, folder):
    assert calibration.gain_factor == 2.5
    assert (calibration.context, calibration.folder) == ("", str(folder))
    assert set(calibration.files) == {*FIELDS, "specwcs", "rscd", "emicorr"}
    assert calibration.files["dark"] == "jwst_miri_dark_0007.fits"
    np.testing.assert_array_equal(calibration.average_dark, np.float32(0.25))
    np.testing.assert_allclose(calibration.wavelength[15, 4:], 8.0, rtol=1e-6)
    assert np.isnan(calibration.wavelength[15, :4]).all()


def test_groups_to_skip(folder, calibration):
    def skipped(**cards):
        header = observation_header(**cards)
        return load_calibration(header, references=folder, types=["rscd"]).rscd

    assert calibration.rscd == (5, 4)
    assert calibration.cut(Area(slice(3, 11))).rscd == (5, 4)
    assert skipped(READPATT="SLOWR1") == (8, 7)
    assert skipped(SUBARRAY="SUBPRISM") == (5, 4)  # what it was called once
    assert skipped(SUBARRAY="MASK1140") == (-1, 3)
    assert skipped(SUBARRAY="BRIGHTSKY") is None


def test_groups_to_skip_of_an_older_file(folder, tmp_path):
    from astropy.io import fits

    with fits.open(folder / "jwst_miri_rscd_0007.fits") as hdus:
        old = hdus["RSCD_GROUP_SKIP"].columns
        old.del_col("group_skip1")
        table = fits.BinTableHDU.from_columns(old, name="RSCD_GROUP_SKIP")
        fits.HDUList([hdus[0].copy(), table]).writeto(tmp_path / "rscd.fits")
    ours = load_calibration(
        observation_header(), overrides={"rscd": tmp_path / "rscd.fits"}, types=["rscd"]
    )
    assert ours.rscd == (-1, 4)


def test_interfering_waves(folder, calibration):
    def reference(**cards):
        header = observation_header(**cards)
        return load_calibration(header, references=folder, types=["emicorr"]).emicorr

    ours, stored = calibration.emicorr, emi_tree()["frequencies"]
    assert [wave.name for wave in ours.waves] == ["Hz390", "Hz10"]
    assert [wave.frequency_hz for wave in ours.waves] == [390.625, 10.039216]
    for wave in ours.waves:
        assert wave.shape_dn == tuple(stored[wave.name]["phase_amplitudes"])
    assert (ours.clocks_per_row, ours.clocks_per_sample, ours.clocks_per_reset) == (28, 1, 15904)
    assert calibration.cut(Area(slice(3, 11))).emicorr == ours
    slow = reference(READPATT="SLOW", NSAMPLES=9)
    assert [wave.name for wave in slow.waves] == ["Hz10"]
    assert (slow.clocks_per_sample, slow.clocks_per_reset) == (9, 0)
    assert reference(SUBARRAY="FULL").clocks_per_row == 271
    for cards in (
        {"SUBARRAY": "BRIGHTSKY"},
        {"READPATT": "NRS"},
        {"SUBARRAY": "FULL", "READPATT": "SLOW"},
    ):
        assert reference(**cards) is None


def test_waves_that_cannot_be_read(tmp_path):
    def fault(path):
        with pytest.raises(CalibrationError) as caught:
            load_calibration(observation_header(), overrides={"emicorr": path}, types=["emicorr"])
        assert str(path) in str(caught.value)
        return str(caught.value)

    tree = emi_tree()
    del tree["frequencies"]["Hz10"]
    assert "KeyError: 'Hz10'" in fault(tmp_path / write_emicorr(tmp_path, tree, "missing.asdf"))
    tree = emi_tree()
    tree["frequencies"]["Hz10"]["phase_amplitudes"] = [1.0, np.nan, 0.0, 2.0]
    assert "phase_amplitudes of Hz10" in fault(tmp_path / write_emicorr(tmp_path, tree, "nan.asdf"))
    (tmp_path / "text.asdf").write_text("hello")
    assert fault(tmp_path / "text.asdf").startswith("emicorr: expected an ASDF reference file")


def test_flags_of_unknown_names_are_dropped(calibration, folder):
    from astropy.io import fits

    path = folder / calibration.files["mask"]
    area = slice(ROW_START, ROW_START + N_ROWS), slice(COL_START, COL_START + N_COLS)
    stored = fits.getdata(path, "DQ")[area]
    standard = {1: 1, 2: 1 << 20, 4: 1 << 11, 8: 0}
    expected = sum(np.where(stored & own, new, 0) for own, new in standard.items())
    np.testing.assert_array_equal(calibration.mask, expected)
    assert stored[0, 0] == 8
    assert set(np.unique(calibration.mask)) == {0, 1, 1 << 20, 1 << 11, 1 << 11 | 1}


def test_areas_and_backends(calibration):
    cut = calibration.cut(Area(slice(3, 11), slice(20, 33))).to(select("numpy"))
    arrays = [
        (getattr(cut, f.name), getattr(calibration, f.name))
        for f in dataclasses.fields(Calibration)
        if isinstance(getattr(calibration, f.name), np.ndarray)
    ]
    assert len(arrays) == 16
    for part, whole in arrays:
        np.testing.assert_array_equal(part, whole[..., 3:11, 20:33])
    assert cut.files == calibration.files
    assert cut.gain_factor == 2.5


def test_custom_gain(on_backend, calibration):
    on_device = on_backend(calibration).with_gain(CustomGainParams(gain_value=4.0))
    np.testing.assert_array_equal(to_host(on_device.gain), np.full((N_ROWS, N_COLS), 4.0))
    assert on_device.files["gain"] == "4.0 e-/DN"
    np.testing.assert_array_equal(to_host(on_device.flat), calibration.flat)


def test_the_velocity_comes_from_the_segment(tmp_path, folder, calibration):
    from astropy.io import fits

    science = fits.ImageHDU(name="SCI")
    science.header["VELOSYS"] = 30000.0
    segment = tmp_path / "segment.fits"
    fits.HDUList([fits.PrimaryHDU(header=observation_header()), science]).writeto(segment)
    moving = load_calibration(segment, references=folder, types=["specwcs"])
    assert moving.gain is None
    shifted = calibration.wavelength / (1 + 30000 / 299792458)
    np.testing.assert_allclose(moving.wavelength, shifted, rtol=1e-12)
    at_rest = load_calibration(segment, references=folder, types=["specwcs"], velocity_m_s=0.0)
    np.testing.assert_array_equal(at_rest.wavelength, calibration.wavelength)


def test_left_out_and_replaced(folder, tmp_path):
    other = tmp_path / "mine.fits"
    other.write_bytes((folder / "jwst_miri_gain_0007.fits").read_bytes())
    ours = load_calibration(
        observation_header(), references=folder, overrides={"flat": "N/A", "gain": other}
    )
    assert ours.flat is ours.flat_err is ours.flat_dq is None
    assert ours.files["flat"] == "N/A"
    assert ours.files["gain"] == "mine.fits"
    assert ours.cut(Area(slice(0, 2))).flat is None


def test_missing_optional_planes_are_zero(folder, tmp_path):
    from astropy.io import fits

    with fits.open(folder / "jwst_miri_flat_0007.fits") as hdus:
        bare = fits.HDUList([hdus[0].copy(), hdus["SCI"].copy()])
        bare.writeto(tmp_path / "flat.fits")
    ours = load_calibration(
        observation_header(), references=folder, overrides={"flat": tmp_path / "flat.fits"}
    )
    for plane in (ours.flat_err, ours.flat_dq):
        assert plane.shape == (N_ROWS, N_COLS)
        assert not plane.any()


def test_the_first_header_counts_whatever_its_name_is(folder, tmp_path):
    from astropy.io import fits

    with fits.open(folder / "jwst_miri_gain_0007.fits") as hdus:
        hdus[0].header["EXTNAME"] = "GAIN"
        hdus[0].header["GAINFACT"] = 1.25
        hdus.append(fits.ImageHDU(np.zeros((2, 2)), name="SCI"))  # not the first of its name
        hdus.writeto(tmp_path / "gain.fits")
    ours = load_calibration(
        observation_header(), references=folder, overrides={"gain": tmp_path / "gain.fits"}
    )
    assert ours.gain_factor == 1.25
    assert ours.gain.shape == (N_ROWS, N_COLS)


def broken(folder, tmp_path, reftype, change):
    """An error of a reference file that was changed before it is read."""
    from astropy.io import fits

    path = tmp_path / f"{reftype}_{change.__name__}.fits"
    with fits.open(folder / f"jwst_miri_{reftype}_0007.fits") as hdus:
        change(hdus)
        hdus.writeto(path)
    with pytest.raises(CalibrationError) as caught:
        load_calibration(observation_header(), references=folder, overrides={reftype: path})
    message = str(caught.value)
    assert message.startswith(f"{reftype}: expected ")
    assert str(path) in message
    assert "\n" not in message
    return message


def test_unfit_files(folder, tmp_path):
    def elsewhere(hdus):
        hdus[0].header["SUBSTRT2"] = 30

    def unplaced(hdus):
        del hdus[0].header["SUBSTRT2"]

    def averaged(hdus):
        hdus[0].header["NFRAMES"] = 4

    def gappy(hdus):
        hdus["WAVETABLE"].data["WAVELENGTH"][3] = np.nan

    def without(extension):
        return lambda hdus: hdus.pop(hdus.index_of(extension))

    def flattened(hdus):
        hdus["SCI"].data = hdus["SCI"].data[0, 0]

    assert "rows 30 to 89" in broken(folder, tmp_path, "gain", elsewhere)
    assert "SUBSTRT1 and SUBSTRT2" in broken(folder, tmp_path, "flat", unplaced)
    assert "single frames" in broken(folder, tmp_path, "dark", averaged)
    assert "extension COEFFS" in broken(folder, tmp_path, "linearity", without("COEFFS"))
    assert "wavelengths at 4" in broken(folder, tmp_path, "specwcs", gappy)
    assert "WAVETABLE" in broken(folder, tmp_path, "specwcs", without("WAVETABLE"))
    assert "4 axes" in broken(folder, tmp_path, "reset", flattened)


def test_files_that_are_no_fits_or_cut_short(folder, tmp_path):
    whole = (folder / "jwst_miri_dark_0007.fits").read_bytes()
    for name, content in (
        ("text.fits", b"hello\n" * 999),
        ("short.fits", whole[: len(whole) // 3]),
    ):
        path = tmp_path / name
        path.write_bytes(content)
        with pytest.raises(CalibrationError, match=f"dark: expected a FITS .*{name}"):
            load_calibration(observation_header(), references=folder, overrides={"dark": path})


def test_unusable_observations(folder, tmp_path):
    with pytest.raises(CalibrationError, match=r"observation: .*SUBSTRT2.* expected whole numbers"):
        load_calibration(observation_header(SUBSTRT2=None), references=folder)
    with pytest.raises(CalibrationError, match=r"no\.fits: not a readable FITS file"):
        load_calibration(tmp_path / "no.fits", references=folder)
    with pytest.raises(CalibrationError, match=r"expected types among mask, .* got 'darks'"):
        load_calibration(observation_header(), references=folder, overrides={"darks": "N/A"})
