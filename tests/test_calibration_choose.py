"""Which reference files are chosen: as CRDS does for jwst's steps, or the ones of a folder."""

import pytest
from reference_cases import observation_header, science_model, write_references

from miri_gpu.calibration import CalibrationError, load_calibration
from miri_gpu.calibration.choose import choose_from_folder
from miri_gpu.calibration.crds_parameters import crds_parameters
from miri_gpu.calibration.load import TYPES

WITHOUT_FLAT = "jwst_0002.pmap"


@pytest.fixture(scope="module")
def cache(tmp_path_factory):
    """A local CRDS cache with one file of each type, and the names of the files."""
    from miri_gpu.simulate import crds_cache

    cache = tmp_path_factory.mktemp("crds")
    crds_cache.reference_folder(cache).mkdir(parents=True)
    names = write_references(crds_cache.reference_folder(cache))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(crds_cache, "parameter_types", list)  # no step is run here
        crds_cache.write_rules(cache, names)
    rules = cache / "mappings" / "jwst"
    for kind in (".pmap", ".imap"):  # the same rules, but for a flat that does not apply
        first = rules / ("jwst_0001.pmap" if kind == ".pmap" else "jwst_miri_0001.imap")
        text = first.read_text().replace("'jwst_miri_flat_0001.rmap'", "'N/A'")
        text = text.replace("0001.imap", "0002.imap").replace("0001.pmap", "0002.pmap")
        (rules / first.name.replace("0001", "0002")).write_text(text)
    return cache, names


@pytest.fixture
def crds(cache, monkeypatch):
    """Points CRDS to the local cache."""
    monkeypatch.setenv("CRDS_PATH", str(cache[0]))
    monkeypatch.setenv("CRDS_CONTEXT", "jwst_0001.pmap")
    monkeypatch.setenv("CRDS_IGNORE_MAPPING_CHECKSUM", "1")
    return monkeypatch


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # stpipe's use of CRDS
def test_crds_chooses_as_for_the_jwst_steps(crds, cache):
    from jwst.dark_current import DarkCurrentStep

    ours = load_calibration(observation_header())
    assert (ours.context, ours.folder) == ("jwst_0001.pmap", "")
    assert ours.files == cache[1]
    model, step = science_model(), DarkCurrentStep()
    model.meta.observation.date, model.meta.observation.time = "2023-01-02", "03:04:05.000"
    for reftype in TYPES:
        theirs = step.get_reference_file(model, reftype)
        assert theirs.rpartition("/")[2] == ours.files[reftype]


def test_parameters_from_the_header_alone():
    """Those that CRDS asks for are there, without opening a segment."""
    parameters = crds_parameters(observation_header())
    expected = {
        "meta.instrument.name": "MIRI", "meta.instrument.detector": "MIRIMAGE",
        "meta.instrument.filter": "P750L", "meta.exposure.type": "MIR_LRS-SLITLESS",
        "meta.exposure.readpatt": "FASTR1", "meta.subarray.name": "SLITLESSPRISM",
        "meta.observation.date": "2023-01-02", "meta.observation.time": "03:04:05.000",
    }  # fmt: skip
    assert expected.items() <= parameters.items()


def test_the_environment_decides_at_every_call(crds):
    crds.setenv("CRDS_CONTEXT", WITHOUT_FLAT)
    ours = load_calibration(observation_header())
    assert ours.context == WITHOUT_FLAT
    assert ours.flat is None
    assert ours.files["flat"] == "N/A"
    crds.setenv("CRDS_CONTEXT", "jwst_0001.pmap")
    assert load_calibration(observation_header()).flat is not None


def test_crds_without_server_or_cache(crds, tmp_path, capfd):
    crds.setenv("CRDS_PATH", str(tmp_path))
    with pytest.raises(CalibrationError) as caught:
        load_calibration(observation_header())
    message = str(caught.value)
    assert message.startswith("CRDS: expected a server or a local cache, got neither")
    assert str(tmp_path) in message
    assert "CRDS_SERVER_URL" in message and "--references DIRECTORY/crds" in message
    assert "\n" not in message
    assert "Traceback" not in capfd.readouterr().err


def test_a_context_without_its_ending(crds):
    crds.setenv("CRDS_CONTEXT", "jwst_0001")
    with pytest.raises(CalibrationError, match=r"CRDS: expected .*\.pmap.*jwst_0001"):
        load_calibration(observation_header())


def test_a_context_or_file_that_the_cache_lacks(crds, cache, capfd):
    crds.setenv("CRDS_CONTEXT", "jwst_0666.pmap")
    with pytest.raises(CalibrationError, match=r"mask: expected .* \(jwst_0666\.pmap\), got: "):
        load_calibration(observation_header())
    crds.setenv("CRDS_CONTEXT", "jwst_0001.pmap")
    dark = cache[0] / "references" / "jwst" / "miri" / cache[1]["dark"]
    hidden = dark.rename(dark.with_suffix(".hidden"))
    try:
        with pytest.raises(CalibrationError, match=r"dark: expected .*CRDS_PATH"):
            load_calibration(observation_header())
    finally:
        hidden.rename(dark)
    assert "Traceback" not in capfd.readouterr().err


def test_an_observation_that_crds_has_no_rules_for(crds):
    with pytest.raises(CalibrationError, match="mask: expected a reference file from CRDS"):
        load_calibration(observation_header(DETECTOR="MIRIFULONG"))


def test_required_types_cannot_be_left_out(crds):
    with pytest.raises(CalibrationError, match=r"gain: expected a reference file, got N/A"):
        load_calibration(observation_header(), overrides={"gain": "N/A"})


def test_a_folder_must_have_one_file_of_each_type(cache, tmp_path):
    folder = cache[0] / "references" / "jwst" / "miri"
    for path in folder.iterdir():
        (tmp_path / path.name).symlink_to(path)
    (tmp_path / "notes.txt").write_text("not a reference")
    assert {t: p.name for t, p in choose_from_folder(tmp_path, TYPES).items()} == cache[1]
    (tmp_path / "a_dark.fits").symlink_to(folder / cache[1]["dark"])
    with pytest.raises(CalibrationError, match=r"one dark file .* got a_dark\.fits, jwst_"):
        choose_from_folder(tmp_path, TYPES)
    assert choose_from_folder(tmp_path, ["gain"])["gain"].name == cache[1]["gain"]
    (tmp_path / cache[1]["gain"]).unlink()
    expected = f"references: expected one gain file in {tmp_path}, got none$"
    with pytest.raises(CalibrationError, match=expected):
        choose_from_folder(tmp_path, ["mask", "gain"])


def test_a_cache_in_the_folder_is_pointed_out(cache, tmp_path):
    (tmp_path / "crds").symlink_to(cache[0])
    expected = rf"got none \(the CRDS cache {tmp_path / 'crds'} may be meant\)$"
    with pytest.raises(CalibrationError, match=expected):
        choose_from_folder(tmp_path, ["mask"])


def test_folders_and_files_that_do_not_exist(tmp_path):
    with pytest.raises(CalibrationError, match=r"references: expected a folder, got .*nowhere"):
        load_calibration(observation_header(), references=tmp_path / "nowhere")
    with pytest.raises(CalibrationError, match=r"dark: expected .* no such file: .*none\.fits"):
        load_calibration(
            observation_header(), overrides={"dark": tmp_path / "none.fits"}, types=["dark"]
        )
    (tmp_path / "broken.fits").write_bytes(b"hello" * 999)
    with pytest.raises(CalibrationError, match=r"broken\.fits: not a readable FITS file"):
        load_calibration(observation_header(), references=tmp_path)
    (tmp_path / "broken.fits").rename(tmp_path / "broken.asdf")
    with pytest.raises(CalibrationError, match=r"broken\.asdf: not a readable ASDF file"):
        load_calibration(observation_header(), references=tmp_path)
