"""What is decided before the first pixel is read: the plan of a reduction.

Segments, recipe, references and backend are chosen and checked against each other, so that what
cannot be reduced is refused in a moment.
"""

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from miri_gpu import backend as backends
from miri_gpu.backend import Backend
from miri_gpu.calibration import Calibration, load_calibration
from miri_gpu.containers import Readout
from miri_gpu.errors import RecipeError
from miri_gpu.ramps.jumps import clipping_limit, jump_method
from miri_gpu.rate_files import USED_TIME
from miri_gpu.recipe import Recipe, load_recipe, settings_at_fault
from miri_gpu.rehearsal import rehearse
from miri_gpu.segments import Segment, open_segments

log = logging.getLogger(__name__)

_SECONDS_PER_DAY = 86400.0

# Steps that need a reference file: without one (N/A for this mode) they are left out.
_STAGE_1_REFERENCES = {
    "dq_init": "mask",
    "saturation": "saturation",
    "reset": "reset",
    "linearity": "linearity",
    "dark_current": "dark",
}
_REFERENCE_OF_STEP = {**_STAGE_1_REFERENCES, "flat_field": "flat"}


@dataclass(frozen=True)
class Plan:
    """All that is decided before the first pixel is read.

    Attributes
    ----------
    segments : tuple of Segment
    recipe : Recipe
    calibration : Calibration
        On the host.
    backend : Backend
    kept : (n_ints of the exposure,) bool
        The integrations that are not dropped.
    """

    segments: tuple[Segment, ...]
    recipe: Recipe
    calibration: Calibration
    backend: Backend
    kept: np.ndarray

    @property
    def from_ramps(self) -> bool:
        """Whether the segments hold raw ramps rather than rate images."""
        return self.segments[0].holds_ramps

    @property
    def n_parts(self) -> int:
        """How many integrations the recipe makes of one that was observed."""
        if not (self.from_ramps and self.recipe.runs("regroup")):
            return 1
        return self.segments[0].n_groups // self.recipe["regroup"].n_groups

    def integrations(self, segment: Segment) -> np.ndarray:
        """Indices, in the segment, of the integrations that are not dropped."""
        first = segment.first_integration
        return np.flatnonzero(self.kept[first : first + segment.n_ints])

    def readout(self, segment: Segment) -> Readout:
        """The segment's readout, from its first integration that is not dropped."""
        first = segment.first_integration + int(self.integrations(segment)[0])
        return replace(segment.readout, first_integration=first)

    def integration_numbers(self) -> np.ndarray:
        """Number in the exposure, from 1, of each integration of the product.

        Where the recipe cuts integrations, the parts are numbered anew, as if observed so.
        """
        kept = np.concatenate([s.first_integration + self.integrations(s) for s in self.segments])
        return (kept[:, None] * self.n_parts + np.arange(self.n_parts)).ravel() + 1

    def integration_times(self, segment: Segment) -> dict[str, np.ndarray]:
        """Times of the integrations that a segment gives, dropped ones left out, cut ones divided.

        Returns
        -------
        dict of (n_ints,) float64 [days]
            The columns of INT_TIMES.
        """
        kept = self.integrations(segment)
        times = {name: column[kept] for name, column in segment.times.items()}
        if self.n_parts == 1:
            return times
        n_new = self.recipe["regroup"].n_groups
        part_days = n_new * segment.readout.group_time_s / _SECONDS_PER_DAY
        offsets = part_days * np.arange(self.n_parts)
        divided = {}
        for scale in ("MJD_UTC", "BJD_TDB"):
            start = (times[f"int_start_{scale}"][:, None] + offsets).ravel()
            divided[f"int_start_{scale}"] = start
            divided[f"int_mid_{scale}"] = start + 0.5 * part_days
            divided[f"int_end_{scale}"] = start + part_days
        return divided


def make_plan(
    paths: Sequence[str | Path],
    recipe: str | Path | Recipe | None,
    settings: Mapping[str, Mapping[str, Any]],
    backend: str | None,
    references: str | Path | None,
    partial: bool,
) -> Plan:
    """Open the segments, choose recipe, references and backend, and check that they agree."""
    segments = open_segments(paths, partial=partial)
    if not isinstance(recipe, Recipe):
        recipe = load_recipe(recipe, segments[0].n_groups)
    recipe = recipe.updated(settings, "settings")
    chosen = backends.select(backend)
    calibration = load_calibration(
        segments[0].path,
        references=references,
        types=reference_types(recipe, from_ramps=segments[0].holds_ramps),
    )
    if recipe.runs("custom_gain"):
        calibration = calibration.with_gain(recipe["custom_gain"])
    recipe = _without_absent_references(recipe, calibration, segments[0].holds_ramps)
    kept = kept_integrations(segments, recipe)
    check_groups(recipe, segments)
    with settings_at_fault():
        rehearse(recipe, segments[0])
    warn_of_idle_jumps(recipe, segments)
    return Plan(segments, recipe, calibration, chosen, kept)


def kept_integrations(segments: Sequence[Segment], recipe: Recipe) -> np.ndarray:
    """Which integrations of the exposure are not dropped, (n_ints of the exposure,) bool."""
    last = segments[-1]
    n_ints = last.first_integration + last.n_ints
    kept = np.ones(n_ints, dtype=bool)
    if recipe.runs("drop_integrations"):
        dropped = recipe["drop_integrations"].drop_integrations
        _check_indices("drop_integrations.drop_integrations", dropped, n_ints, "integrations")
        kept[list(dropped)] = False
    for segment in segments:
        first = segment.first_integration
        if not kept[first : first + segment.n_ints].any():
            raise RecipeError(
                "drop_integrations.drop_integrations: expected to leave an integration of each "
                f"segment, got all of {segment.path} dropped"
            )
    return kept


def check_groups(recipe: Recipe, segments: Sequence[Segment]) -> None:
    """Raise RecipeError where the recipe asks for groups that the ramps do not have."""
    first = segments[0]
    if not first.holds_ramps and USED_TIME in first.primary:
        return  # they were dropped, and it is known how many
    n_groups = first.n_groups
    if recipe.runs("drop_groups"):
        _check_indices(
            "drop_groups.drop_groups", recipe["drop_groups"].drop_groups, n_groups, "groups"
        )
    n_new = n_groups
    if first.holds_ramps and recipe.runs("regroup"):
        n_new = recipe["regroup"].n_groups
        if n_new > n_groups:
            raise RecipeError(
                f"regroup.n_groups: expected at most the {n_groups} groups of {first.path}, "
                f"got {n_new}"
            )
        if n_groups % n_new:
            log.warning(
                "regroup.n_groups: the last %d of %d groups are left over and lost",
                n_groups % n_new,
                n_groups,
            )
    n_left = int(used_groups(recipe, first).sum(axis=1).min())
    if n_left < 2:
        raise RecipeError(
            "drop_groups.drop_groups, regroup.n_groups, ramp_fit.firstgroup, lastgroup: expected "
            f"to leave at least 2 of {n_new} groups of each integration of {first.path}, "
            f"got {n_left}"
        )


def dropped_groups(recipe: Recipe, n_ints: int, n_groups: int) -> np.ndarray:
    """Which groups the recipe drops, (n_ints, n_groups) bool, as the jump step sees them."""
    dropped = np.zeros((n_ints, n_groups), dtype=bool)
    if recipe.runs("drop_groups"):
        dropped[:, list(recipe["drop_groups"].drop_groups)] = True
    if recipe.runs("regroup"):
        n_new = recipe["regroup"].n_groups
        dropped = dropped[:, : n_groups // n_new * n_new].reshape(-1, n_new)
    return dropped


def used_groups(recipe: Recipe, segment: Segment) -> np.ndarray:
    """Which groups of an integration, or of the parts it is cut into, the ramp fit uses.

    Returns
    -------
    (n_parts, n_groups) bool
    """
    if not segment.holds_ramps:  # whatever was cut into them, rate images are cut no more
        recipe = recipe.updated({"regroup": {"skip": True}}, "rate images")
    used = ~dropped_groups(recipe, 1, segment.n_groups)
    first, last = recipe["ramp_fit"].firstgroup, recipe["ramp_fit"].lastgroup
    used[:, : first or 0] = False
    if last is not None:
        used[:, last + 1 :] = False
    return used


def used_time_s(recipe: Recipe, segment: Segment) -> float:
    """Time over which a ramp was fitted, from its first to its last used group [s].

    Of the parts of a cut integration, the median; of rate images, what their header says, or else
    what follows from the groups that the recipe drops.
    """
    if not segment.holds_ramps and USED_TIME in segment.primary:
        return segment.primary[USED_TIME]
    n_steps = [np.ptp(np.flatnonzero(used)) for used in used_groups(recipe, segment)]
    return float(np.median(n_steps)) * segment.readout.group_time_s


def reference_types(recipe: Recipe, *, from_ramps: bool) -> list[str]:
    """The types of reference file that a reduction with this recipe reads."""
    of_step = _REFERENCE_OF_STEP if from_ramps else {"flat_field": "flat"}
    types = [reference for step, reference in of_step.items() if recipe.runs(step)]
    if recipe.runs("custom_linearity") and "linearity" in types:
        types.remove("linearity")
    return [*types, "gain", "specwcs", *(["readnoise"] if from_ramps else [])]


def _without_absent_references(
    recipe: Recipe, calibration: Calibration, from_ramps: bool
) -> Recipe:
    """Leave out the steps that have no reference file for this mode, and say so."""
    wanted = reference_types(recipe, from_ramps=from_ramps)
    changes = {}
    for step, reference in _REFERENCE_OF_STEP.items():
        if recipe.runs(step) and reference in wanted and getattr(calibration, reference) is None:
            log.warning("%s is left out: there is no %s reference for this mode", step, reference)
            changes[step] = {"skip": True}
    return recipe.updated(changes, "references")


def warn_of_idle_jumps(recipe: Recipe, segments: Sequence[Segment]) -> None:
    """Say which way of finding jumps a segment gets, and warn where it cannot find any."""
    if not (segments[0].holds_ramps and recipe.runs("jump")):
        return
    params = recipe["jump"]
    for segment in segments:
        dropped = dropped_groups(recipe, segment.n_ints, segment.n_groups)
        method = jump_method(params, dropped)
        log.info("%s: jumps are sought by the method %r", segment.path.name, method)
        n_ints = len(dropped)
        if method == "none":
            log.warning("%s: too few groups to find jumps", segment.path.name)
        elif method == "sigma_clipping" and params.rejection_threshold >= clipping_limit(n_ints):
            log.warning(
                "%s: jump.rejection_threshold: among %d integrations nothing deviates by more than "
                "%.1f standard deviations, so that %g finds no jump",
                segment.path.name,
                n_ints,
                clipping_limit(n_ints),
                params.rejection_threshold,
            )


def _check_indices(name: str, indices: Sequence[int], n: int, what: str) -> None:
    for index in indices:
        if not -n <= index < n:
            raise RecipeError(
                f"{name}: expected {what} from {-n} to {n - 1}, as there are {n}, got {index}"
            )
