"""Settings: a value is normalised or refused with a message that names it."""

from dataclasses import FrozenInstanceError, dataclass
from typing import ClassVar

import pytest

from miri_gpu.parameters import Parameters, option


@dataclass(frozen=True, kw_only=True)
class ToyParams(Parameters):
    step: ClassVar[str] = "toy"
    n_groups: int = option(10, "Groups.", at_least=1)
    threshold: float = option(4.0, "Threshold.", above=0, at_most=100)
    method: str = option("row", "Method.", choices=("row", "column"))
    draw: bool = option(False, "Draw.")
    windows: tuple[int, ...] = option((150, 100), "Windows.", at_least=2)
    weights: tuple[float, ...] = option((1.0,), "Weights.")
    smoothing: int | None = option(None, "Smoothing.", at_least=1)
    end: int | float | None = option(None, "End.")
    names: tuple[str, ...] = option(("a",), "Names.")


def test_defaults_are_allowed_and_cannot_be_changed():
    params = ToyParams()
    assert params.windows == (150, 100)
    with pytest.raises(FrozenInstanceError):
        params.n_groups = 3
    with pytest.raises(TypeError):
        ToyParams(3)


def test_equal_settings_are_equal():
    assert ToyParams(n_groups=3) == ToyParams(n_groups=3) != ToyParams()


@pytest.mark.parametrize(
    ("given", "kept"),
    [
        ({"threshold": 5}, 5.0),  # a whole number where a number is meant
        ({"windows": [3, 4]}, (3, 4)),  # a TOML array
        ({"windows": ()}, ()),
        ({"weights": [1.5]}, (1.5,)),
        ({"smoothing": 7}, 7),
        ({"smoothing": None}, None),
        ({"end": 7}, 7),
        ({"end": 7.5}, 7.5),
        ({"method": "column"}, "column"),
        ({"draw": True}, True),
    ],
)
def test_allowed_values_are_kept_in_the_declared_type(given, kept):
    value = getattr(ToyParams(**given), next(iter(given)))
    assert value == kept
    assert type(value) is type(kept)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"n_groups": 0}, "toy.n_groups: expected a whole number (at least 1), got 0"),
        ({"n_groups": 2.5}, "toy.n_groups: expected a whole number (at least 1), got 2.5"),
        ({"n_groups": True}, "toy.n_groups: expected a whole number (at least 1), got True"),
        ({"n_groups": None}, "toy.n_groups: expected a whole number (at least 1), got nothing"),
        ({"threshold": 0}, "toy.threshold: expected a number (above 0, at most 100), got 0.0"),
        ({"threshold": 101.0}, "toy.threshold: expected a number (above 0, at most 100), got"),
        ({"threshold": float("nan")}, "toy.threshold: expected a number (above 0, at most 100)"),
        ({"threshold": "4"}, "toy.threshold: expected a number (above 0, at most 100), got '4'"),
        ({"method": "diagonal"}, "toy.method: expected one of row, column, got 'diagonal'"),
        ({"draw": 1}, "toy.draw: expected true or false, got 1"),
        ({"windows": [3, 1]}, "toy.windows: expected a list of whole numbers (at least 2), got"),
        ({"windows": [3, 2.5]}, "toy.windows: expected a list of whole numbers (at least 2)"),
        ({"windows": 5}, "toy.windows: expected a list of whole numbers (at least 2), got 5"),
        (
            {"n_groups": 2**63},
            "toy.n_groups: expected a whole number (at least 1), got one of over",
        ),
        (
            {"end": -(10**400)},
            "toy.end: expected a whole number or a number or nothing, got one of",
        ),
        ({"threshold": 10**5000}, "toy.threshold: expected a number (above 0, at most 100), got"),
        ({"windows": [3, 10**400]}, "toy.windows: expected a list of whole numbers (at least 2),"),
        (
            {"weights": [10**400]},
            "toy.weights: expected a list of numbers, got one of over 64 bits",
        ),
        ({"names": [1]}, "toy.names: expected a list of texts, got (1,)"),
        ({"smoothing": 0}, "toy.smoothing: expected a whole number (at least 1) or nothing, got"),
    ],
)
def test_refused_values_are_named_with_what_was_expected(given, message):
    with pytest.raises(ValueError) as error:
        ToyParams(**given)
    assert str(error.value).startswith(message)


def test_whole_numbers_fit_a_list_of_numbers():
    assert ToyParams(weights=[1, 2.5]).weights == (1.0, 2.5)


def test_infinity_is_a_number():
    assert ToyParams(end=float("inf")).end == float("inf")
