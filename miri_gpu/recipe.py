"""Recipes: which steps run, and with which settings.

A recipe has one section for each step of the reduction, in the order in which they run. Its
values come from the steps' own defaults, changed by a named recipe (`bright`, `faint`), by the
user's TOML file and by single settings, in this order.
"""

import json
import math
import re
import tomllib
from collections.abc import Iterable, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

from miri_gpu.errors import RecipeError
from miri_gpu.parameters import Parameters, describe, field_types
from miri_gpu.sections import SECTIONS, Section
from miri_gpu.spectra.box import Extract1DBoxParams
from miri_gpu.spectra.optimal import Extract1DOptimalParams

FAINT_FROM_GROUPS = 40  # the recipe for observations with at least this many groups is `faint`

_SECTION = {section.step: section for section in SECTIONS}

_OFF = (
    "drop_integrations",
    "emicorr",
    "firstframe",
    "lastframe",
    "rscd",
    "custom_linearity",
    "reference_pixel",
    "group_background_subtract",
    "regroup",
    "time_jump",
    "extract_1d_optimal",
)
# The sigma clip across integrations, to which STScI's step changes over at 100 integrations,
# cannot reach a threshold of 15 below 227 of them: the recipes always compare groups.
_NEVER_ACROSS_INTEGRATIONS = 2**31 - 1
_BRIGHT: dict[str, dict[str, Any]] = {
    **{step: {"skip": True} for step in _OFF},
    # the shape that the wave has in the data; by sequential, all integrations are looked at
    "emicorr": {"skip": True, "algorithm": "self_calibrated", "use_n_cycles": None},
    "drop_groups": {"drop_groups": (-1,)},
    "jump": {
        "rejection_threshold": 15.0,
        "three_group_rejection_threshold": 15.0,
        "four_group_rejection_threshold": 15.0,
        "flag_4_neighbors": False,
        "minimum_sigclip_groups": _NEVER_ACROSS_INTEGRATIONS,
    },
    "clean_outliers": {
        "window_heights": (150, 100, 50, 40, 30, 24),
        "dq_bits_to_mask": (0,),
        "poly_order": 4,
        "outlier_threshold": 5.0,
    },
    "group_background_subtract": {"relative_to_first_group": True},  # else it is mostly noise
    "background_subtract": {
        "method": "row_wise",
        "bkg_col_left_start": 12,
        "bkg_col_left_end": 22,
        "bkg_col_right_start": 50,
        "bkg_col_right_end": 68,
    },
    "extract_1d_box": {"aperture_center": 36, "aperture_left_width": 4, "aperture_right_width": 4},
    # an integration's own profile follows its noise, of which the errors know nothing
    "extract_1d_optimal": {"median_spatial_profile": True},
    "align_spectra": {"align_spectra": False},
}
_FAINT = {
    **_BRIGHT,
    "drop_groups": {"drop_groups": (*range(10), -1)},
    "custom_linearity": {
        "skip": False,
        "linear_truth": "joint",
        "highest_power": 2,
        "group_idx_start_fit": 10,
        "group_idx_end_fit": 40,
        "group_idx_start_derive": 10,
        "group_idx_end_derive": -1,
        "row_idx_start_used": 300,
        "row_idx_end_used": 380,
        "col_idx_start_used": 32,
        "col_idx_end_used": 42,
    },
    "extract_1d_box": {"aperture_center": 36, "aperture_left_width": 3, "aperture_right_width": 3},
}
NAMED_RECIPES = {"bright": _BRIGHT, "faint": _FAINT}


@dataclass(frozen=True)
class Recipe:
    """Settings of every step, and which steps are left out.

    `recipe["jump"]` are the settings of a step, `recipe.runs("jump")` whether it runs.
    """

    name: str
    settings: Mapping[str, Parameters]
    skipped: frozenset[str]

    def __post_init__(self):
        if self.runs("time_jump") and self.runs("regroup"):
            raise RecipeError(
                "time_jump.skip, regroup.skip: expected at most one of them to run, since parts of "
                "one integration are no neighbours in time, got both"
            )
        if self.runs("extract_1d_optimal") and self["clean_outliers"].no_clean:
            raise RecipeError(
                "clean_outliers.no_clean: expected false, since extract_1d_optimal needs the "
                "spatial profile, got true"
            )
        n_extractions = self.runs("extract_1d_box") + self.runs("extract_1d_optimal")
        if n_extractions != 1:
            raise RecipeError(
                "extract_1d_box.skip, extract_1d_optimal.skip: expected exactly one of the two "
                f"extractions to run, got {n_extractions}"
            )

    def __getitem__(self, step: str) -> Parameters:
        return self.settings[step]

    def runs(self, step: str) -> bool:
        """Whether a step is part of the reduction."""
        return step not in self.skipped

    @property
    def extraction(self) -> Extract1DBoxParams | Extract1DOptimalParams:
        """Settings of the one extraction that runs."""
        return self["extract_1d_box" if self.runs("extract_1d_box") else "extract_1d_optimal"]

    def updated(self, changes: Mapping[str, Mapping[str, Any]], source: str) -> "Recipe":
        """Return the recipe with changed settings, `{"jump": {"rejection_threshold": 10}}`.

        Raises
        ------
        RecipeError
            Where a section or key is unknown or a value is not allowed; `source` says in the
            message where the settings came from.
        """
        settings, skipped = dict(self.settings), set(self.skipped)
        for step, values in changes.items():
            section = _known_section(step, values, source)
            values = dict(values)
            if "skip" in values:
                (skipped.add if _checked_skip(section, values.pop("skip"), source) else
                 skipped.discard)(step)  # fmt: skip
            for key in values:
                _check_key(section, key, source)
            try:
                if values:
                    settings[step] = replace(settings[step], **values)
            except ValueError as error:
                raise RecipeError(f"{source}: {error}") from None
        return replace(self, settings=settings, skipped=frozenset(skipped))

    def to_toml(self) -> str:
        """The complete recipe as commented TOML, which :func:`load_recipe` reads back."""
        lines = [
            f"# miri_gpu recipe: {self.name}",
            f"# {' or '.join(NAMED_RECIPES)}: the recipe that keys left out here are taken from",
            f"name = {json.dumps(self.name)}",
        ]
        for section in SECTIONS:
            lines += ["", f"# {section.summary}", f"[{section.step}]"]
            if not section.required:
                lines.append(f"skip = {_toml(not self.runs(section.step))}")
            if section.params is not None:
                lines += _toml_settings(self.settings[section.step])
        return "\n".join(lines) + "\n"


def load_recipe(recipe: str | Path | None, n_groups: int) -> Recipe:
    """A recipe by name or from a TOML file; with None the number of groups chooses.

    A file need not be complete: what it leaves out is taken from the recipe that its key `name`
    says, or else from the one that the number of groups chooses.

    Raises
    ------
    RecipeError
        Where there is no such recipe, or the file is not a recipe.
    """
    by_groups = "faint" if n_groups >= FAINT_FROM_GROUPS else "bright"
    if recipe is None:
        return named_recipe(by_groups)
    if str(recipe) in NAMED_RECIPES:
        return named_recipe(str(recipe))
    path = Path(recipe)
    try:
        content = tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        names = ", ".join(NAMED_RECIPES)
        raise RecipeError(
            f"recipe: expected one of {names} or a TOML file, got {str(recipe)!r} (no such file)"
        ) from None
    except (OSError, ValueError, RecursionError) as error:  # too many digits, or brackets
        raise RecipeError(f"{path}: not a TOML recipe ({error})") from None
    name = content.pop("name", by_groups)
    if not isinstance(name, str) or name not in NAMED_RECIPES:
        raise RecipeError(f"{path}: name: expected one of {', '.join(NAMED_RECIPES)}, got {name!r}")
    return named_recipe(name).updated(content, str(path))


def named_recipe(name: str) -> Recipe:
    """One of the recipes that come with the package: "bright" or "faint"."""
    defaults = Recipe(
        name=name,
        settings={s.step: s.params() for s in SECTIONS if s.params is not None},
        skipped=frozenset(_OFF),
    )
    return defaults.updated(NAMED_RECIPES[name], name)


def parse_settings(texts: Iterable[str]) -> dict[str, dict[str, Any]]:
    """Settings as typed at the shell, `jump.rejection_threshold=10`; the values are TOML."""
    settings: dict[str, dict[str, Any]] = {}
    for text in texts:
        target, equals, value = text.partition("=")
        step, dot, key = target.strip().partition(".")
        if not (equals and dot and step and key):
            raise RecipeError(f"--set: expected STEP.KEY=VALUE, got {text!r}")
        try:
            parsed = tomllib.loads(f"value = {value}")
        except (ValueError, RecursionError):  # no TOML, or too many digits or brackets
            parsed = {"value": value.strip() or None}  # an unquoted text, or nothing
        if len(parsed) > 1:
            raise RecipeError(f"--set: expected a single STEP.KEY=VALUE, got {text!r}")
        settings.setdefault(step, {})[key] = parsed["value"]
    return settings


@contextmanager
def settings_at_fault():
    """Turn the ValueError by which a step refuses its own settings into a RecipeError."""
    try:
        yield
    except ValueError as error:
        if re.split("[.:]", str(error))[0] not in _SECTION:
            raise
        raise RecipeError(str(error)) from None


def _known_section(step: str, values: Any, source: str) -> Section:
    if step not in _SECTION:
        raise RecipeError(f"{source}: unknown step {step!r}; expected one of {', '.join(_SECTION)}")
    if not isinstance(values, Mapping):
        raise RecipeError(f"{source}: {step}: expected a section [{step}], got {values!r}")
    return _SECTION[step]


def _checked_skip(section: Section, skip: Any, source: str) -> bool:
    if section.chosen_by is not None:
        step, key, value = section.chosen_by
        choice = f'{step}.{key} = "{value}" chooses it'
        raise RecipeError(f"{source}: {section.step} has no skip; {choice}")
    if section.required:
        raise RecipeError(f"{source}: {section.step} has no skip: it always runs")
    if not isinstance(skip, bool):
        raise RecipeError(f"{source}: {section.step}.skip: expected true or false, got {skip!r}")
    return skip


def _check_key(section: Section, key: str, source: str) -> None:
    allowed = [] if section.required else ["skip"]
    if section.params is not None:
        allowed += [f.name for f in fields(section.params)]
    if key not in allowed:
        raise RecipeError(
            f"{source}: unknown key {f'{section.step}.{key}'!r}; "
            f"expected one of {', '.join(allowed)}"
        )


def _toml_settings(params: Parameters) -> list[str]:
    lines = []
    for f in fields(params):
        value = getattr(params, f.name)
        unit = f" [{f.metadata['unit']}]" if f.metadata["unit"] else ""
        allowed = describe(field_types(f), f)
        lines.append(f"# {f.metadata['help']}{unit}; {allowed}")
        lines.append(f"# {f.name} =" if value is None else f"{f.name} = {_toml(value)}")
    return lines


def _toml(value: Any) -> str:
    if isinstance(value, tuple):
        return "[" + ", ".join(_toml(item) for item in value) + "]"
    if isinstance(value, float) and math.isinf(value):
        return "inf" if value > 0 else "-inf"
    return json.dumps(value)  # JSON's numbers, texts and booleans are TOML's
