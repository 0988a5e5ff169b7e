"""Settings of a step: a frozen dataclass whose fields carry help, unit and allowed values.

A default lives once, in the dataclass beside the function it belongs to. The recipe, the jwst
Step's ``spec`` and the command line are all derived from these fields.
"""

import types
import typing
from dataclasses import dataclass, field, fields
from typing import Any, ClassVar

_MOST_BITS = 63  # of a whole number: the last of 64 is its sign


def option(
    default: Any,
    help: str,  # noqa: A002 - the word every command-line library uses
    *,
    unit: str = "",
    choices: tuple[str, ...] | None = None,
    at_least: float | None = None,
    at_most: float | None = None,
    above: float | None = None,
) -> Any:
    """Declare one setting of a step: its default, what it means and what it may be."""
    return field(
        default=default,
        metadata={
            "help": help,
            "unit": unit,
            "choices": choices,
            "at_least": at_least,
            "at_most": at_most,
            "above": above,
        },
    )


@dataclass(frozen=True, kw_only=True)
class Parameters:
    """Base of all settings; `step` names the section of the recipe they belong to.

    Raises
    ------
    ValueError
        Where a value has the wrong type or is out of range: the message names the field, what was
        expected and what came.
    """

    step: ClassVar[str]

    def __post_init__(self):
        for f in fields(self):
            # frozen: the one place where a value is normalised (list -> tuple, int -> float)
            object.__setattr__(self, f.name, checked(self, f, getattr(self, f.name)))


def checked(parameters: Parameters, f, value):
    """Return the value of a field in its declared type, or raise ValueError naming the field."""
    allowed = field_types(f)
    name = f"{parameters.step}.{f.name}"
    if value is None:
        if type(None) in allowed:
            return None
        raise ValueError(f"{name}: expected {describe(allowed, f)}, got nothing")
    if isinstance(value, list):
        value = tuple(value)
    numbers = value if isinstance(value, tuple) else (value,)
    if any(isinstance(item, int) and item.bit_length() > _MOST_BITS for item in numbers):
        raise ValueError(f"{name}: expected {describe(allowed, f)}, got one of over 64 bits")
    if isinstance(value, tuple) and tuple[float, ...] in allowed:
        value = tuple(float(item) if type(item) is int else item for item in value)
    if float in allowed and isinstance(value, int) and not isinstance(value, bool):
        value = value if int in allowed else float(value)
    fits = any(matches(value, kind) for kind in allowed)
    numbers = value if isinstance(value, tuple) else (value,)
    if not fits or not all(in_range(number, f.metadata) for number in numbers):
        raise ValueError(f"{name}: expected {describe(allowed, f)}, got {value!r}")
    return value


def field_types(f) -> tuple[Any, ...]:
    """The types a field may have, its union taken apart."""
    if typing.get_origin(f.type) in (typing.Union, types.UnionType):
        return typing.get_args(f.type)
    return (f.type,)


def matches(value: Any, kind: Any) -> bool:
    """Whether a value is of a declared type: a plain type, or a tuple[item, ...]."""
    if typing.get_origin(kind) is tuple:
        item = typing.get_args(kind)[0]
        return isinstance(value, tuple) and all(matches(element, item) for element in value)
    if isinstance(value, bool):
        return kind is bool
    return isinstance(value, kind)


def in_range(value: Any, metadata) -> bool:
    """Whether a value respects the choices and limits its field declares (NaN respects none)."""
    if metadata["choices"] is not None and isinstance(value, str):
        return value in metadata["choices"]
    if isinstance(value, int | float) and not isinstance(value, bool):
        return (
            value == value
            and (metadata["at_least"] is None or value >= metadata["at_least"])
            and (metadata["at_most"] is None or value <= metadata["at_most"])
            and (metadata["above"] is None or value > metadata["above"])
        )
    return True


def describe(allowed: tuple[Any, ...], f) -> str:
    """What a field may be, in words: "a whole number of at least 1", "one of a, b"."""
    words = {int: "a whole number", float: "a number", bool: "true or false", str: "text"}
    many = {int: "a list of whole numbers", float: "a list of numbers", str: "a list of texts"}
    metadata = f.metadata
    if metadata["choices"] is not None:
        parts = ["one of " + ", ".join(metadata["choices"])]
    else:
        parts = [
            many[typing.get_args(kind)[0]] if typing.get_origin(kind) is tuple else words[kind]
            for kind in allowed
            if kind is not type(None)
        ]
    limits = [
        f"{word} {metadata[key]:g}"
        for key, word in (("above", "above"), ("at_least", "at least"), ("at_most", "at most"))
        if metadata[key] is not None
    ]
    if limits:
        parts[-1] += " (" + ", ".join(limits) + ")"
    if type(None) in allowed:
        parts.append("nothing")
    return " or ".join(parts)
