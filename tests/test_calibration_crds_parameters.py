"""What CRDS is told of an observation without a data model: the same as with one."""

import warnings

import pytest
from reference_cases import observation_header, write_references

from miri_gpu.calibration import crds_parameters as module
from miri_gpu.calibration.choose import choose_from_crds
from miri_gpu.calibration.crds_parameters import _KEYWORDS, asked_parameters, crds_parameters
from miri_gpu.calibration.load import TYPES

ORDINARY = {
    "TSOVISIT": True, "VISITYPE": "PRIME_TARGETED_FIXED", "LAMP": "OFF", "CORONMSK": "NONE",
    "BAND": "N/A", "CHANNEL": "N/A", "NGROUPS": 9,
}  # fmt: skip
NAMES = [*_KEYWORDS, "REFTYPE"]  # asked for by the rules, in upper case as there
# Rules like those of the operational contexts, which tell apart what only the header tells:
# parameters, and the file for each of their values.
RULES = {
    "gain": {
        ("META.VISIT.TSOVISIT", "META.EXPOSURE.NGROUPS"): "",
        ("T", "9.0"): "tso_9",
        ("F", "9.0"): "no_tso_9",
        ("T", "N/A"): "tso",
        ("N/A", "N/A"): "any",
    },
    "readnoise": {
        ("META.INSTRUMENT.BAND", "META.EXPOSURE.READPATT", "META.INSTRUMENT.LAMP_STATE"): "",
        ("N/A", "FASTR1", "OFF"): "off",
        ("N/A", "FASTR1", "ON"): "on",
        ("N/A", "SLOW", "N/A"): "slow",
    },
    "flat": {
        ("META.INSTRUMENT.FILTER", "META.INSTRUMENT.CORONAGRAPH"): "",
        ("P750L", "NONE"): "none",
        ("P750L", "UNDEFINED"): "absent",
        ("P750L", "LYOT"): "lyot",
        ("UNDEFINED", "NONE"): "no_filter",
    },
}


def model_of(header):
    """The data model of the jwst steps, of a header alone."""
    from astropy.io import fits
    from stdatamodels.jwst import datamodels

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return datamodels.RampModel(fits.HDUList([fits.PrimaryHDU(header=header)]))


@pytest.fixture
def no_model(monkeypatch):
    """Fails where a data model is built."""

    def fail(header):
        raise AssertionError("a data model was built")

    monkeypatch.setattr(module, "_parameters_of_model", fail)


@pytest.fixture(scope="module")
def cache(tmp_path_factory):
    """A local CRDS cache whose rules choose among files by many parameters."""
    from miri_gpu.simulate import crds_cache

    cache = tmp_path_factory.mktemp("crds")
    folder = crds_cache.reference_folder(cache)
    folder.mkdir(parents=True)
    names = write_references(folder)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(crds_cache, "parameter_types", list)  # no step is run here
        crds_cache.write_rules(cache, names)
    for kind, ((parameters, _), *choices) in ((k, list(v.items())) for k, v in RULES.items()):
        rules = cache / "mappings" / "jwst" / crds_cache.reference_name(kind, ".rmap")
        files = {values: f"jwst_miri_{kind}_{name}.fits" for values, name in choices}
        lines = [
            f"    {values!r} : UseAfter({{'2020-01-01 00:00:00' : {file!r}}}),"
            for values, file in files.items()
        ]
        text = rules.read_text().replace("('META.INSTRUMENT.DETECTOR',)", repr(parameters))
        start, end = text.index("Match({") + len("Match({\n"), text.rindex("})")
        rules.write_text(text[:start] + "\n".join(lines) + "\n" + text[end:])
        for file in files.values():
            (folder / file).touch()
    return cache


@pytest.fixture
def crds(cache, monkeypatch):
    """Points CRDS to the local cache."""
    monkeypatch.setenv("CRDS_PATH", str(cache))
    monkeypatch.setenv("CRDS_CONTEXT", "jwst_0001.pmap")
    monkeypatch.setenv("CRDS_IGNORE_MAPPING_CHECKSUM", "1")
    return monkeypatch


@pytest.mark.parametrize(
    "cards",
    [
        {},
        {"TSOVISIT": False, "NGROUPS": 64, "READPATT": "SLOW", "LAMP": "ON"},
        dict.fromkeys(ORDINARY),
        {"DATE-OBS": None, "TIME-OBS": None},
        {"FILTER": None, "READPATT": None},
    ],
)
def test_an_ordinary_header_needs_no_model(no_model, cards):
    header = observation_header(**(ORDINARY | cards))
    theirs = model_of(header).get_crds_parameters()
    ours = crds_parameters(header, NAMES)
    assert ours == {name: theirs[name] for name in _KEYWORDS if name in theirs}
    assert all(type(value) is type(theirs[name]) for name, value in ours.items())


@pytest.mark.parametrize(
    "cards",
    [
        {"TSOVISIT": "T"},  # text that a model refuses
        {"NGROUPS": 9.0},
        {"READPATT": "FASTR7"},  # in no schema
        {"BAND": "SHORT"},  # in the schema, but not of this mode
        {"CORONMSK": "LYOT"},
        {"FILTER": ""},
        {"DETECTOR": "MIRIFULONG"},
    ],
)
def test_an_odd_value_is_left_to_the_model(cards):
    header = observation_header(**(ORDINARY | cards))
    assert (
        crds_parameters(header, NAMES).items()
        >= {
            name: value
            for name, value in model_of(header).get_crds_parameters().items()
            if name in _KEYWORDS
        }.items()
    )


def test_a_keyword_without_value_is_left_to_the_model():
    header = observation_header(**ORDINARY)
    header["LAMP"] = None
    assert "meta.instrument.lamp_state" not in crds_parameters(header, NAMES)


def test_rules_that_ask_for_something_else():
    header = observation_header(PILIN=True)
    parameters = crds_parameters(header, ["META.INSTRUMENT.PUPIL_IMAGING_LENS"])
    assert parameters["meta.instrument.pupil_imaging_lens"] is True


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # stpipe's use of CRDS
@pytest.mark.parametrize(
    ("cards", "chosen"),
    [
        ({}, ["tso_9", "off", "none"]),
        ({"TSOVISIT": False, "LAMP": "ON"}, ["no_tso_9", "on", "none"]),
        ({"NGROUPS": 64, "CORONMSK": None}, ["tso", "off", "absent"]),
        ({"TSOVISIT": None, "READPATT": "SLOW"}, ["any", "slow", "none"]),
        ({"CORONMSK": "LYOT", "BAND": None}, ["tso_9", "off", "lyot"]),
        ({"FILTER": "P750X"}, ["tso_9", "off", "no_filter"]),
    ],
)
def test_the_files_are_those_of_the_jwst_steps(crds, cards, chosen):
    from jwst.dark_current import DarkCurrentStep

    header = observation_header(**(ORDINARY | {"READPATT": "FASTR1"} | cards))
    ours, _ = choose_from_crds(header, TYPES)
    expected = [f"jwst_miri_{k}_{n}.fits" for k, n in zip(RULES, chosen, strict=True)]
    assert [ours[kind].name for kind in RULES] == expected
    step, model = DarkCurrentStep(), model_of(header)
    for reftype in TYPES:
        assert step.get_reference_file(model, reftype) == str(ours[reftype])


def test_the_context_says_what_it_asks_for(crds, no_model):
    asked = asked_parameters("jwst_0001.pmap")
    assert {"meta.instrument.name", "META.VISIT.TSOVISIT", "META.OBSERVATION.DATE"} <= set(asked)
    assert choose_from_crds(observation_header(**ORDINARY), ["dark"])[0]["dark"].is_file()


@pytest.mark.parametrize("context", ["jwst_0666.pmap", "jwst_miri_dark_0001.rmap"])
def test_a_context_that_cannot_be_asked(crds, context):
    assert asked_parameters(context) is None


def test_a_server_is_told_all_that_a_model_knows(crds):
    from crds.core import heavy_client

    crds.setattr(
        heavy_client, "get_processing_mode", lambda observatory: ("remote", "jwst_0001.pmap")
    )
    assert asked_parameters("jwst_0001.pmap") is None
