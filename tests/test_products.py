"""A reduction into a directory: what it holds afterwards, and what it never holds."""

import logging
import warnings

import pytest
import xarray

from miri_gpu import products
from miri_gpu.errors import OutputError, SegmentError
from miri_gpu.products import logged, prepare, reduce_to_directory
from miri_gpu.recipe import load_recipe, named_recipe
from miri_gpu.timeseries import load_timeseries

FIGURES = {"white_light_curve.png", "spectroscopic_map.png", "median_spectrum.png", "shifts.png"}


@pytest.fixture
def no_figures(monkeypatch):
    """Figures take longer than the reduction of so little."""
    monkeypatch.setattr(products, "save_all_figures", lambda *_: None)


def reduce_into(directory, observation, **changes):
    options = {"backend": "numpy", "references": observation.references, "overwrite": True}
    return reduce_to_directory(observation.segments, directory, **(options | changes))


def test_all_products_are_there(observation, tmp_path):
    dataset = reduce_into(
        tmp_path / "deep" / "out",
        observation,
        settings={"jump": {"rejection_threshold": 9}},
        save_rates=True,
    )
    folder = tmp_path / "deep" / "out"
    found = {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}
    rates = {path.name.replace("_uncal", "_rateints") for path in observation.segments}
    assert {name.removeprefix("figures/") for name in found} >= FIGURES
    assert {name for name in found if not name.startswith("figures/")} == {
        "timeseries.nc",
        "recipe.toml",
        "reduce.log",
        *(f"rates/{name}" for name in rates),
    }
    xarray.testing.assert_identical(load_timeseries(folder / "timeseries.nc"), dataset)
    recipe = load_recipe(folder / "recipe.toml", 64)
    assert recipe.name == "bright" and recipe["jump"].rejection_threshold == 9.0
    assert dataset.attrs["recipe"] == (folder / "recipe.toml").read_text()


def test_the_log_tells_the_whole_story(observation, tmp_path, no_figures):
    """From the warnings of the plan, which come before there is a directory, to the product."""
    reduce_into(tmp_path, observation, settings={"regroup": {"skip": False, "n_groups": 5}})
    text = (tmp_path / "reduce.log").read_text()
    for expected in (
        "the last 2 of 12 groups are left over",
        "2 segments of SIMULATED-STAR, 12 groups, recipe bright",
        "reference dark: jwst_miri_dark_0001.fits",
        "backend: numpy",
        "wrote",
    ):
        assert expected in text
    assert not logging.getLogger("miri_gpu").handlers


def test_the_same_reduction_again_gives_the_same(observation, tmp_path, no_figures):
    first = reduce_into(tmp_path, observation)
    second = reduce_into(tmp_path, observation)
    del first.attrs["created"], second.attrs["created"]
    xarray.testing.assert_identical(first, second)


def test_another_product_is_only_replaced_when_asked(observation, tmp_path, no_figures):
    (tmp_path / "timeseries.nc").write_text("precious")
    with pytest.raises(OutputError, match="--overwrite"):
        reduce_into(tmp_path, observation, overwrite=False)
    assert [path.name for path in tmp_path.iterdir()] == ["timeseries.nc"]
    assert (tmp_path / "timeseries.nc").read_text() == "precious"
    reduce_into(tmp_path, observation)
    load_timeseries(tmp_path / "timeseries.nc")


@pytest.fixture
def fails_late(monkeypatch):
    """Makes a reduction fail when all is computed."""

    def with_error(error):
        def fail(*_):
            raise error("in the figures")

        monkeypatch.setattr(products, "save_all_figures", fail)

    return with_error


def contents(directory):
    """The files of a directory by their path in it, and what is in them."""
    paths = [path for path in directory.rglob("*") if path.is_file()]
    return {str(path.relative_to(directory)): path.read_bytes() for path in paths}


@pytest.mark.parametrize("error", [KeyboardInterrupt, ValueError, OutputError])
def test_a_directory_with_a_time_series_is_complete(observation, tmp_path, fails_late, error):
    """What fails late leaves no product, no part of a file, and says what it is."""
    fails_late(error)
    with pytest.raises(error):
        reduce_into(tmp_path, observation)
    assert set(contents(tmp_path)) == {
        "reduce.unfinished/reduce.log",
        "reduce.unfinished/recipe.toml",
    }


def test_a_reduction_that_fails_leaves_the_one_before(
    observation, tmp_path, no_figures, fails_late
):
    reduce_into(tmp_path, observation, save_rates=True)
    before = contents(tmp_path)
    fails_late(ValueError)
    with pytest.raises(ValueError, match="figures"):
        reduce_into(tmp_path, observation, save_rates=True, save_ramps=True)
    after = contents(tmp_path)
    assert before == {n: c for n, c in after.items() if not n.startswith("reduce.unfinished/")}
    assert sum(name.startswith("reduce.unfinished/ramps/") for name in after) == 2
    assert b"ValueError: in the figures" in after["reduce.unfinished/reduce.log"]


def test_what_an_earlier_reduction_saved_goes_with_it(observation, tmp_path, no_figures):
    reduce_into(tmp_path, observation, save_rates=True, save_ramps=True)
    for name in ("rates/notes.txt", "ramps/seg001_x.fits", "mine_rateints.fits"):
        (tmp_path / name).write_text("mine")
    reduce_into(tmp_path, observation)
    assert set(contents(tmp_path)) == {
        "timeseries.nc", "recipe.toml", "reduce.log",
        "rates/notes.txt", "ramps/seg001_x.fits", "mine_rateints.fits",
    }  # fmt: skip


def test_files_of_rates_that_belong_to_no_reduction_stay(observation, tmp_path, no_figures):
    (tmp_path / "rates").mkdir()
    (tmp_path / "rates" / "mine_rateints.fits").write_text("mine")
    reduce_into(tmp_path, observation)
    assert (tmp_path / "rates" / "mine_rateints.fits").read_text() == "mine"


def test_saved_rates_can_be_reduced_in_their_place(observation, tmp_path, no_figures):
    reduce_into(tmp_path, observation, save_rates=True, save_ramps=True)
    rates = sorted((tmp_path / "rates").iterdir())
    before = contents(tmp_path / "rates")
    options = {"backend": "numpy", "references": observation.references, "overwrite": True}
    reduce_to_directory(rates, tmp_path, **options)
    assert contents(tmp_path / "rates") == before and len(before) == 2
    assert list((tmp_path / "ramps").iterdir()) == []


def test_what_is_left_unfinished_is_emptied_unless_it_is_the_input(
    observation, tmp_path, monkeypatch, no_figures
):
    with monkeypatch.context() as patch:
        patch.setattr(products, "save_timeseries", lambda *_: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            reduce_into(tmp_path, observation, save_rates=True)
    rates = sorted((tmp_path / "reduce.unfinished" / "rates").iterdir())
    assert len(rates) == 2
    with pytest.raises(OutputError, match="move it first") as caught:
        reduce_to_directory(rates, tmp_path, backend="numpy", references=observation.references)
    assert str(rates[0]) in str(caught.value) or str(rates[1]) in str(caught.value)
    reduce_into(tmp_path, observation, overwrite=False)
    assert set(contents(tmp_path)) == {"timeseries.nc", "recipe.toml", "reduce.log"}


# --- recipes in the directory


@pytest.mark.parametrize("name", ["figures", "timeseries.nc", "reduce.log"])
def test_a_folder_in_the_place_of_a_file_is_refused_beforehand(observation, tmp_path, name):
    if name == "figures":
        (tmp_path / name).touch()
    else:
        (tmp_path / name).mkdir()
    with pytest.raises(OutputError, match=rf"{name}: expected a .* or nothing, got a "):
        reduce_into(tmp_path, observation)
    assert [path.name for path in tmp_path.iterdir()] == [name]


def test_a_recipe_of_ones_own_is_only_replaced_when_asked(observation, tmp_path, no_figures):
    (tmp_path / "recipe.toml").write_text("[jump]\nrejection_threshold = 9\n")
    with pytest.raises(OutputError, match=r"holds recipe\.toml already; .* --overwrite"):
        reduce_into(tmp_path, observation, overwrite=False)
    assert set(contents(tmp_path)) == {"recipe.toml"}
    reduce_into(tmp_path, observation)
    assert "name = " in (tmp_path / "recipe.toml").read_text()


def test_the_recipe_that_is_given_is_never_replaced_by_another(observation, tmp_path, no_figures):
    mine = tmp_path / "recipe.toml"
    mine.write_text("# my own notes\n[jump]\nrejection_threshold = 9\n")
    (tmp_path / "link.toml").symlink_to(mine)
    for given in (mine, tmp_path / "link.toml"):
        with pytest.raises(OutputError, match="give a copy of it") as caught:
            reduce_into(tmp_path, observation, recipe=given)
        assert str(caught.value).startswith(f"{mine}: ")
    assert mine.read_text().startswith("# my own notes")
    mine.write_text(named_recipe("bright").to_toml())
    reduce_into(tmp_path, observation, recipe=mine, overwrite=False)  # the same text
    assert mine.read_text() == named_recipe("bright").to_toml()


def test_bad_input_writes_nothing(observation, tmp_path):
    out = tmp_path / "out"
    with pytest.raises(SegmentError):
        reduce_to_directory([tmp_path / "absent.fits"], out)
    assert not out.exists()
    assert not logging.getLogger("miri_gpu").handlers


def test_a_directory_that_cannot_be_written_is_named(observation, tmp_path):
    file = tmp_path / "file"
    file.touch()
    for directory in (file, file / "below"):
        with pytest.raises(OutputError, match="cannot be written") as caught:
            prepare(directory)
        assert str(directory) in str(caught.value)


def test_preparing_leaves_nothing_in_the_directory(tmp_path):
    assert prepare(str(tmp_path / "a" / "b")) == tmp_path / "a" / "b"
    assert list((tmp_path / "a" / "b").iterdir()) == []


def test_the_log_keeps_what_came_before_its_file(tmp_path):
    log = logging.getLogger("miri_gpu.test")
    with pytest.raises(RuntimeError), logged(verbose=False) as log_to:
        log.info("early")
        log.debug("detail")
        log_to(tmp_path / "a.log")
        with warnings.catch_warnings():
            warnings.simplefilter("always")
            warnings.warn("watch out", UserWarning, stacklevel=1)
        log.warning("late")
        raise RuntimeError("stop here")
    text = (tmp_path / "a.log").read_text()
    assert text.index("early") < text.index("watch out") < text.index("late")
    assert text.count("late") == 1 and "detail" not in text
    assert "stop here" in text


@pytest.mark.parametrize("error", [KeyboardInterrupt, SystemExit])
def test_an_interrupt_is_one_line_of_the_log(tmp_path, error):
    with pytest.raises(error), logged(verbose=False) as log_to:
        log_to(tmp_path / "a.log")
        raise error(143)
    (line,) = (tmp_path / "a.log").read_text().splitlines()
    assert line.endswith(" ERROR   interrupted")


def test_a_verbose_log_has_the_details(tmp_path):
    with logged(verbose=True) as log_to:
        log_to(tmp_path / "a.log")
        logging.getLogger("miri_gpu.test").debug("detail")
    assert "detail" in (tmp_path / "a.log").read_text()
