"""A reduction into a directory: what it holds afterwards, and what it never holds."""

import logging
import warnings

import pytest
import xarray

from miri_gpu import products
from miri_gpu.errors import OutputError, SegmentError
from miri_gpu.products import logged, prepare, reduce_to_directory
from miri_gpu.recipe import load_recipe
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


@pytest.mark.parametrize("error", [KeyboardInterrupt, ValueError, OutputError])
def test_a_directory_with_a_time_series_is_complete(observation, tmp_path, monkeypatch, error):
    """What fails late leaves no product, and no part of a file."""

    def fail(*_):
        raise error("in the figures")

    monkeypatch.setattr(products, "save_all_figures", fail)
    with pytest.raises(error):
        reduce_into(tmp_path, observation)
    assert {path.name for path in tmp_path.iterdir()} == {"reduce.log", "recipe.toml"}
    expected = "interrupted" if error is KeyboardInterrupt else "in the figures"
    assert expected in (tmp_path / "reduce.log").read_text()


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
            prepare(directory, overwrite=True)
        assert str(directory) in str(caught.value)


def test_preparing_leaves_nothing_in_the_directory(tmp_path):
    assert prepare(str(tmp_path / "a" / "b"), overwrite=False) == tmp_path / "a" / "b"
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
