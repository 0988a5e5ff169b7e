"""Which groups of an integration a recipe drops, and which are left for the ramp fit."""

import numpy as np

from miri_gpu.calibration import Calibration
from miri_gpu.containers import Array, Readout
from miri_gpu.ramps import first_frame, groups, last_frame
from miri_gpu.ramps.rscd import skipped_groups
from miri_gpu.recipe import Recipe
from miri_gpu.segment_files import USED_TIME
from miri_gpu.segments import Segment


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
    if not recipe.runs("regroup"):
        return dropped
    n_new = recipe["regroup"].n_groups
    return dropped[:, : dropped.shape[1] // n_new * n_new].reshape(-1, n_new)


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


def used_groups(
    recipe: Recipe, segment: Segment, calibration: Calibration | None = None
) -> np.ndarray:
    """Which groups of its integrations, or of the parts they are cut into, the ramp fit uses.

    Returns
    -------
    (n_ints x n_parts, n_groups) bool
    """
    if not segment.holds_ramps:  # whatever was cut into them, rate images are cut no more
        recipe = recipe.updated({"regroup": {"skip": True}}, "rate images")
    used = ~dropped_groups(recipe, segment.n_ints, segment.n_groups, calibration, segment.readout)
    first, last = recipe["ramp_fit"].firstgroup, recipe["ramp_fit"].lastgroup
    used[:, : first or 0] = False
    if last is not None:
        used[:, last + 1 :] = False
    return used


def used_time_s(recipe: Recipe, segment: Segment, calibration: Calibration | None = None) -> float:
    """Time over which a ramp was fitted, from its first to its last used group [s].

    The median of all integrations, and of the parts they are cut into; of rate images, what their
    header says, or else what follows from the groups that the recipe drops.
    """
    if not segment.holds_ramps and USED_TIME in segment.primary:
        return segment.primary[USED_TIME]
    used = used_groups(recipe, segment, calibration)
    n_steps = used.shape[1] - 1 - used.argmax(axis=1) - used[:, ::-1].argmax(axis=1)
    return float(np.median(n_steps)) * segment.readout.group_time_s
