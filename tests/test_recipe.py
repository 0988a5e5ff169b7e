"""Recipes: named ones, TOML files, settings from the shell, and what is refused."""

import tomllib
from dataclasses import fields, replace

import pytest

from miri_gpu.errors import RecipeError
from miri_gpu.parameters import Parameters
from miri_gpu.recipe import NAMED_RECIPES, load_recipe, named_recipe, parse_settings
from miri_gpu.sections import SECTIONS


@pytest.fixture
def recipe_file(tmp_path):
    """Writes a recipe file, text or bytes."""

    def write(content):
        path = tmp_path / "my.toml"
        path.write_bytes(content.encode() if isinstance(content, str) else content)
        return path

    return write


def refusal(call, *args) -> str:
    """The message with which a recipe is refused, which is one line."""
    with pytest.raises(RecipeError) as caught:
        call(*args)
    message = str(caught.value)
    assert "\n" not in message
    return message


def changed(settings, name="bright"):
    return named_recipe(name).updated(settings, "settings")


# --- named recipes


def test_every_settings_class_has_its_section():
    sections = {section.params for section in SECTIONS if section.params}
    assert {params.step for params in sections} <= {section.step for section in SECTIONS}
    assert all(s.params is None or s.params.step == s.step for s in SECTIONS)
    assert all(issubclass(params, Parameters) for params in sections)


def test_the_number_of_groups_chooses():
    assert load_recipe(None, 39).name == "bright"
    assert load_recipe(None, 40).name == "faint"
    assert load_recipe("faint", 5).name == "faint"


def test_the_recipes_are_those_of_the_documentation():
    bright, faint = named_recipe("bright"), named_recipe("faint")
    assert bright["drop_groups"].drop_groups == (-1,)
    assert faint["drop_groups"].drop_groups == (*range(10), -1)
    assert faint.runs("custom_linearity") and not bright.runs("custom_linearity")
    assert faint["custom_linearity"].row_idx_start_used == 300
    for recipe in (bright, faint):
        assert recipe.runs("custom_gain") and recipe["custom_gain"].gain_value == 3.1
        assert recipe["saturation"].n_pix_grow_sat == 1
        assert not recipe["jump"].flag_4_neighbors
        assert recipe["jump"].rejection_threshold == 15
        assert recipe["clean_outliers"].window_heights == (150, 100, 50, 40, 30, 24)
        assert recipe["clean_outliers"].dq_bits_to_mask == (0,)
        assert not recipe["align_spectra"].align_spectra
    assert bright["extract_1d_box"].aperture_left_width == 4
    assert faint["extract_1d_box"].aperture_left_width == 3


# --- TOML


@pytest.mark.parametrize("name", NAMED_RECIPES)
def test_a_recipe_is_read_back_from_its_toml(recipe_file, name):
    recipe = named_recipe(name)
    other = {"bright": 64, "faint": 5}[name]  # the name in the file decides, not the groups
    assert load_recipe(recipe_file(recipe.to_toml()), other) == recipe


def test_a_changed_recipe_is_read_back_from_its_toml(recipe_file):
    recipe = changed(
        {
            "jump": {"rejection_threshold": float("inf"), "after_jump_flag_dn1": 1e-7},
            "reference_pixel": {"skip": False, "smoothing_length": 21},
            "drop_integrations": {"skip": False, "drop_integrations": [0, -1]},
            "extract_1d_box": {"skip": True},
            "extract_1d_optimal": {"skip": False, "median_spatial_profile": True},
        }
    )
    assert load_recipe(recipe_file(recipe.to_toml()), 5) == recipe


@pytest.mark.parametrize("name", NAMED_RECIPES)
def test_the_toml_is_complete_and_commented(name):
    text = named_recipe(name).to_toml()
    content = tomllib.loads(text)
    assert [key for key in content if key != "name"] == [section.step for section in SECTIONS]
    for section in SECTIONS:
        assert f"# {section.summary}\n[{section.step}]" in text
        for f in fields(section.params) if section.params else ():
            assert f"# {f.metadata['help']}" in text
            is_absent = getattr(named_recipe(name)[section.step], f.name) is None
            assert (f"# {f.name} =\n" in text) == is_absent or f.name in content[section.step]


@pytest.mark.parametrize("name", NAMED_RECIPES)
def test_what_may_be_nothing_is_nothing_in_the_named_recipes(name):
    """Otherwise TOML, which has no word for nothing, could not say it."""
    recipe = named_recipe(name)
    for section in SECTIONS:
        for f in fields(section.params) if section.params else ():
            try:
                replace(recipe[section.step], **{f.name: None})
            except ValueError:
                continue
            assert getattr(recipe[section.step], f.name) is None, f"{section.step}.{f.name}"


def test_a_partial_file_changes_what_it_says_and_nothing_else(recipe_file):
    path = recipe_file("[jump]\nrejection_threshold = 10\n")
    for n_groups, name in ((12, "bright"), (64, "faint")):
        assert load_recipe(path, n_groups) == changed({"jump": {"rejection_threshold": 10}}, name)
    assert load_recipe(str(path), 12)["jump"].rejection_threshold == 10


def test_an_empty_file_is_the_recipe_of_the_groups(recipe_file):
    assert load_recipe(recipe_file(""), 12) == named_recipe("bright")


def test_the_name_in_a_file_says_what_it_builds_on(recipe_file):
    assert load_recipe(recipe_file('name = "faint"'), 12) == named_recipe("faint")


@pytest.mark.parametrize("name", ['"dim"', "3", "[]", "{ a = 1 }"])
def test_an_unknown_name_in_a_file(recipe_file, name):
    path = recipe_file(f"name = {name}")
    message = refusal(load_recipe, path, 12)
    assert str(path) in message and "bright, faint" in message


def test_no_such_recipe():
    message = refusal(load_recipe, "brihgt", 12)
    assert message.endswith("bright, faint or a TOML file, got 'brihgt' (no such file)")


@pytest.mark.parametrize(
    "content",
    [
        "[jump\n",
        "jump rejection",
        "a = 1\na = 2",
        b"\xff\xfe\x00",
        b"x = '\xe4'",
        pytest.param(f"a = 1{'0' * 5000}", id="digits"),
        pytest.param(f"a = {'[' * 2000}", id="brackets"),
    ],
)
def test_not_toml(recipe_file, content):
    path = recipe_file(content)
    assert f"{path}: not a TOML recipe" in refusal(load_recipe, path, 12)


def test_a_directory_is_no_recipe(tmp_path):
    assert f"{tmp_path}: not a TOML recipe" in refusal(load_recipe, tmp_path, 12)


# --- what may be changed


@pytest.mark.parametrize(
    ("text", "named", "allowed"),
    [
        ("[jmp]\nx = 1", "'jmp'", "jump, ramp_fit"),
        ("jump = 3", "jump", "section [jump]"),
        ("[jump]\nthreshold = 3", "jump.threshold", "skip, rejection_threshold"),
        ('[jump]\n"new\\nline" = 3', "'jump.new\\nline'", "skip, rejection_threshold"),
        ("[linearity]\nx = 3", "linearity.x", "expected one of skip"),
        ('[jump]\nrejection_threshold = "x"', "jump.rejection_threshold", "a number"),
        ("[jump]\nrejection_threshold = true", "jump.rejection_threshold", "a number"),
        ("[jump]\nrejection_threshold = -1", "jump.rejection_threshold", "at least 0"),
        ("[jump]\nrejection_threshold = nan", "jump.rejection_threshold", "a number"),
        ("[jump]\nflag_4_neighbors = 1", "jump.flag_4_neighbors", "true or false"),
        ("[jump]\nskip = 1", "jump.skip", "true or false"),
        ("[jump.deep]\nskip = 1", "jump.deep", "skip, rejection_threshold"),
        ("[drop_groups]\ndrop_groups = 3", "drop_groups.drop_groups", "a list of whole numbers"),
        ("[drop_groups]\ndrop_groups = [1.5]", "drop_groups.drop_groups", "list of whole numbers"),
        ("[drop_groups]\ndrop_groups = [[1]]", "drop_groups.drop_groups", "list of whole numbers"),
        ("[regroup]\nn_groups = 0", "regroup.n_groups", "at least 1"),
        ("[regroup]\nn_groups = 2.0", "regroup.n_groups", "a whole number"),
        ("[custom_gain]\ngain_value = 0", "custom_gain.gain_value", "at least 0.01"),
        ("[custom_gain]\ngain_value = 1e300", "custom_gain.gain_value", "at most 1000"),
        ("[custom_gain]\ngain_value = inf", "custom_gain.gain_value", "at most 1000"),
        ("[custom_gain]\ngain_value = 1e-320", "custom_gain.gain_value", "at least 0.01"),
        ("[likelihood]\nrejection_threshold = 1e300", "likelihood.rejection", "at most 1e+06"),
        ("[custom_gain]\ngain_value = 2020-01-01", "custom_gain.gain_value", "a number"),
        ('[extract_1d_box]\ntrace_position = "x"', "trace_position", "constant, gaussian_fits"),
        ("[background_subtract]\nbkg_col_left_end = 5", "bkg_col_left_end", "bkg_col_left_start"),
        ("[clean_outliers]\nwindow_heights = []", "window_heights", "at least one"),
        ("[ramp_fit]\nskip = true", "ramp_fit has no skip", "it always runs"),
        ("[trace]\nskip = false", "trace has no skip", "it always runs"),
        ("[likelihood]\nskip = false", "likelihood has no skip", 'ramp_fit.algorithm = "LIKELY"'),
    ],
)
def test_what_is_not_allowed_is_named_with_what_is(recipe_file, text, named, allowed):
    path = recipe_file(text)
    message = refusal(load_recipe, path, 12)
    assert str(path) in message
    assert named in message and allowed in message


def test_whole_numbers_serve_as_numbers():
    value = changed({"jump": {"rejection_threshold": 10}})["jump"].rejection_threshold
    assert value == 10.0 and isinstance(value, float)


def test_several_settings_of_a_step_are_checked_together():
    """Neither end alone would fit the other's default."""
    recipe = changed({"background_subtract": {"bkg_col_left_start": 30, "bkg_col_left_end": 33}})
    assert recipe["background_subtract"].bkg_col_left_end == 33


def test_changes_leave_the_recipe_alone():
    bright = named_recipe("bright")
    bright.updated({"jump": {"skip": True, "rejection_threshold": 1}}, "settings")
    assert bright == named_recipe("bright")


def test_exactly_one_extraction_runs():
    optimal = {"extract_1d_box": {"skip": True}, "extract_1d_optimal": {"skip": False}}
    assert changed(optimal).runs("extract_1d_optimal")
    for wrong in ({"extract_1d_box": {"skip": True}}, {"extract_1d_optimal": {"skip": False}}):
        message = refusal(changed, wrong)
        assert "extract_1d_box.skip" in message and "exactly one" in message


# --- settings typed at the shell


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("jump.rejection_threshold=10", 10),
        ("jump.rejection_threshold = 1e1", 10.0),
        ("jump.rejection_threshold=[1, 2]", [1, 2]),
        ("jump.rejection_threshold=true", True),
        ("jump.rejection_threshold=col_wise", "col_wise"),
        ('jump.rejection_threshold="col_wise"', "col_wise"),
        ("jump.rejection_threshold=a=b", "a=b"),
        ("jump.rejection_threshold=", None),
    ],
)
def test_a_setting_is_read(text, value):
    assert parse_settings([text]) == {"jump": {"rejection_threshold": value}}


def test_settings_of_one_step_are_gathered_and_the_last_counts():
    settings = parse_settings(["a.b=1", "a.c=2", "d.e=3", "a.b=4"])
    assert settings == {"a": {"b": 4, "c": 2}, "d": {"e": 3}}


@pytest.mark.parametrize("text", ["", "jump", "jump.x", "jump=3", ".x=3", "jump.=3", "=", "."])
def test_what_is_no_setting(text):
    message = refusal(parse_settings, [text])
    assert "--set: expected STEP.KEY=VALUE" in message and repr(text) in message


@pytest.mark.parametrize("text", ["jump.skip=1\nx=2", "jump.skip=1\n[x]", "jump.skip=1\nx.y=2"])
def test_a_setting_is_a_single_one(text):
    message = refusal(parse_settings, [text])
    assert "--set: expected a single STEP.KEY=VALUE" in message and repr(text) in message


@pytest.mark.parametrize("value", ["1" + "0" * 5000, "[" * 2000], ids=["digits", "brackets"])
def test_what_is_too_long_for_toml_is_a_text(value):
    settings = parse_settings([f"jump.rejection_threshold={value}"])
    assert "jump.rejection_threshold: expected a number" in refusal(changed, settings)


def test_nothing_unsets_what_may_be_nothing():
    recipe = changed({"reference_pixel": {"smoothing_length": 21}})
    assert recipe.updated(parse_settings(["reference_pixel.smoothing_length="]), "x") == (
        named_recipe("bright")
    )
