"""Which groups of an integration a recipe drops."""

import numpy as np

from miri_gpu.calibration import Calibration
from miri_gpu.containers import Array, Readout
from miri_gpu.ramps import first_frame, groups, last_frame
from miri_gpu.ramps.rscd import skipped_groups
from miri_gpu.recipe import Recipe

DROPPING_STEPS = ("firstframe", "lastframe", "drop_groups", "rscd")


def dropped_groups(
    recipe: Recipe,
    n_ints: int,
    n_groups: int,
    calibration: Calibration | None = None,
    readout: Readout = Readout(),  # noqa: B008 - frozen
) -> np.ndarray:
    """Which groups the recipe drops, (n_ints, n_groups) bool, as the jump step sees them.

    Where `flags_differ`, single pixels may keep groups that are dropped here.

    Parameters
    ----------
    n_ints : int
        Integrations that follow one another, from the one that the readout says.
    calibration : Calibration or None
        Says what the rscd step leaves out, unless its settings do.
    """
    dropped = np.zeros((n_ints, n_groups), dtype=bool)
    if recipe.runs("firstframe") and n_groups >= first_frame.FEWEST_GROUPS:
        dropped[:, 0] = True
    if recipe.runs("lastframe") and n_groups >= last_frame.FEWEST_GROUPS:
        dropped[:, -1] = True
    if recipe.runs("drop_groups"):
        dropped |= groups.dropped_groups(
            n_ints, n_groups, params=recipe["drop_groups"], readout=readout
        )
    if recipe.runs("rscd"):
        first, later = _rscd_groups(recipe, n_groups, calibration)
        n_skipped = np.full((n_ints, 1), later)
        if readout.first_integration == 0:
            n_skipped[:1] = first
        dropped |= np.arange(n_groups) < n_skipped
    return regrouped(dropped, recipe)


def regrouped(dropped: Array, recipe: Recipe) -> Array:
    """Flags of groups, (n_ints, n_groups), cut as the recipe cuts the integrations."""
    return groups.regrouped(dropped, recipe["regroup"]) if recipe.runs("regroup") else dropped


def flags_differ(recipe: Recipe) -> bool:
    """Whether bright pixels may keep groups that other pixels of the frame leave out."""
    return recipe.runs("firstframe") or recipe.runs("rscd")


def _rscd_groups(recipe: Recipe, n_groups: int, calibration: Calibration | None) -> tuple[int, int]:
    """Groups that rscd leaves out of the first integration and of later ones."""
    params = recipe["rscd"]
    reference = None if calibration is None else calibration.rscd
    if reference is None and None in (params.group_skip1, params.group_skip):
        return 0, 0  # rate images, whose reference is not read
    return skipped_groups(n_groups, reference, params=params)
