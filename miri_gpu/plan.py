"""What is decided before the first pixel is read: the plan of a reduction.

Segments, recipe, references and backend are chosen and checked against each other, so that what
cannot be reduced is refused in a moment.
"""

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from miri_gpu import backend as backends
from miri_gpu.backend import Backend
from miri_gpu.calibration import Calibration, load_calibration
from miri_gpu.doubts import doubt_group_background
from miri_gpu.errors import MiriGpuError, RecipeError
from miri_gpu.groups_in_use import dropped_groups
from miri_gpu.idle_settings import (
    warn_of_idle_cleaning,
    warn_of_idle_jumps,
    warn_of_idle_settings,
)
from miri_gpu.integration_times import divided_times
from miri_gpu.ramps.emi import check_emi
from miri_gpu.ramps.groups import kept_integrations, regrouped_shape
from miri_gpu.ramps.ramp_fit import ignored_groups
from miri_gpu.recipe import Recipe, load_recipe, settings_at_fault
from miri_gpu.rehearsal import rehearse
from miri_gpu.sections import SECTIONS
from miri_gpu.segment_files import N_DROPPED, USED_TIME, Origin
from miri_gpu.segments import Segment, open_segments

log = logging.getLogger(__name__)

# Steps that need a reference file: without one (N/A for this mode) they are left out.
_REFERENCE_OF_STEP = {s.step: s.reference for s in SECTIONS if s.reference is not None}


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
    def shape_of_parts(self) -> tuple[int, int]:
        """How many integrations the recipe makes of one that was observed, and their groups."""
        n_groups = self.segments[0].n_groups
        if not (self.from_ramps and self.recipe.runs("regroup")):
            return 1, n_groups
        return regrouped_shape(1, n_groups, self.recipe["regroup"])

    @property
    def n_parts(self) -> int:
        """How many integrations the recipe makes of one that was observed."""
        return self.shape_of_parts[0]

    def integrations(self, segment: Segment) -> np.ndarray:
        """Indices, in the segment, of the integrations that are not dropped."""
        first = segment.first_integration
        return np.flatnonzero(self.kept[first : first + segment.n_ints])

    def dropped_groups(self, segment: Segment, integrations: np.ndarray) -> np.ndarray:
        """Which groups the recipe drops of some integrations of a segment.

        Returns
        -------
        (n_ints x n_parts, n_groups) bool
            Of the parts that the integrations are cut into.
        """
        recipe, readout = self.recipe, segment.readout_of(integrations)
        if not self.from_ramps:  # whatever was cut into them, rate images are cut no more
            recipe = recipe.updated({"regroup": {"skip": True}}, "rate images")
        n_ints, n_groups = len(integrations), segment.n_groups
        return dropped_groups(recipe, n_ints, n_groups, self.calibration, readout)

    def used_groups(self, segment: Segment) -> np.ndarray:
        """Which groups the ramp fit uses of the integrations of a segment that are not dropped.

        Returns
        -------
        (n_ints x n_parts, n_groups) bool
        """
        used = ~self.dropped_groups(segment, self.integrations(segment))
        used[:, ignored_groups(used.shape[1], self.recipe["ramp_fit"])] = False
        return used

    def used_time_s(self, segment: Segment) -> float:
        """Time over which a ramp was fitted, from its first to its last used group [s].

        The median of what the segment gives; of rate images, what their header says, or else what
        follows from the groups that the recipe drops.
        """
        if not self.from_ramps and USED_TIME in segment.primary:
            return segment.primary[USED_TIME]
        used = self.used_groups(segment)
        n_steps = used.shape[1] - 1 - used.argmax(axis=1) - used[:, ::-1].argmax(axis=1)
        return float(np.median(n_steps)) * segment.readout.group_time_s

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
        n_parts, n_groups = self.shape_of_parts
        return divided_times(times, n_parts, n_groups * segment.readout.group_time_s)

    def origin(self, segment: Segment) -> Origin:
        """How what is made of a segment's ramps comes to be, as if it had been observed so."""
        n_parts, n_groups = self.shape_of_parts
        return Origin(
            segment=segment,
            recipe=self.recipe,
            calibration=self.calibration,
            first_integration=int(self.kept[: segment.first_integration].sum()) * n_parts,
            n_ints_of_exposure=int(self.kept.sum()) * n_parts,
            n_dropped=int((~self.kept).sum()),
            n_groups=n_groups,
            used_time_s=self.used_time_s(segment),
            times=self.integration_times(segment),
        )


def check_limits(
    *, memory_bytes: int | None = None, n_workers: int | None = None, **_: Any
) -> None:
    """Refuse a reduction that is to take no memory or no worker.

    Raises
    ------
    MiriGpuError
        Naming the parameter.
    """
    for name, number in {"n_workers": n_workers, "memory_bytes": memory_bytes}.items():
        if number is not None and number < 1:
            raise MiriGpuError(f"{name}: expected at least 1, got {number}")


@settings_at_fault()
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
    warn_of_idle_settings(settings, recipe, segments[0])
    if segments[0].is_flat_fielded:
        log.warning("flat_field is left out: %s is divided by it already", segments[0].path)
        recipe = recipe.updated({"flat_field": {"skip": True}}, "rate images")
    chosen = backends.select(backend)
    calibration = load_calibration(
        (segments[0].primary, segments[0].science),
        references=references,
        types=reference_types(recipe, from_ramps=segments[0].holds_ramps),
    )
    if recipe.runs("custom_gain"):
        calibration = calibration.with_gain(recipe["custom_gain"])
    recipe = _without_absent_references(recipe, calibration, segments[0].holds_ramps)
    plan = Plan(segments, recipe, calibration, chosen, integrations_in_use(segments, recipe))
    check_groups(plan)
    rehearse(recipe, segments[0], calibration.wavelength)
    warn_of_idle_jumps(plan)
    warn_of_idle_cleaning(recipe)
    if plan.from_ramps:
        doubt_group_background(recipe)
    return plan


def integrations_in_use(segments: Sequence[Segment], recipe: Recipe) -> np.ndarray:
    """Which integrations of the exposure are not dropped, (n_ints of the exposure,) bool."""
    last = segments[-1]
    n_ints = max(last.first_integration + last.n_ints, last.primary.get("NINTS") or 0)
    kept = np.ones(n_ints, dtype=bool)
    if recipe.runs("drop_integrations") and last.primary.get(N_DROPPED):
        log.info("drop_integrations is left out: the rate images have lost theirs already")
    elif recipe.runs("drop_integrations"):
        kept = np.isin(np.arange(n_ints), kept_integrations(n_ints, recipe["drop_integrations"]))
    for segment in segments:
        first = segment.first_integration
        if not kept[first : first + segment.n_ints].any():
            raise RecipeError(
                "drop_integrations.drop_integrations: expected to leave an integration of each "
                f"segment, got all of {segment.path} dropped"
            )
    return kept


def check_groups(plan: Plan) -> None:
    """Refuse a recipe that asks for groups that the ramps do not have."""
    recipe, first = plan.recipe, plan.segments[0]
    if not plan.from_ramps and USED_TIME in first.primary:
        return  # they were dropped, and it is known how many
    if plan.from_ramps and recipe.runs("emicorr"):
        has_reference = plan.calibration.emicorr is not None
        check_emi(recipe["emicorr"], first.n_groups, first.readout, has_reference=has_reference)
    n_parts, n_groups = plan.shape_of_parts
    if n_lost := first.n_groups - n_parts * n_groups:
        log.warning(
            "regroup.n_groups: the last %d of %d groups are left over and lost",
            n_lost,
            first.n_groups,
        )
    n_left = min(int(plan.used_groups(segment).sum(axis=1).min()) for segment in plan.segments)
    if n_left < 2:
        raise RecipeError(
            "drop_groups.drop_groups, rscd.group_skip, regroup.n_groups, ramp_fit.firstgroup, "
            f"lastgroup: expected to leave at least 2 of {n_groups} groups of each integration of "
            f"{first.path}, got {n_left}"
        )


def reference_types(recipe: Recipe, *, from_ramps: bool) -> list[str]:
    """The types of reference file that a reduction with this recipe reads."""
    of_step = _REFERENCE_OF_STEP if from_ramps else {"flat_field": "flat"}
    types = [reference for step, reference in of_step.items() if recipe.runs(step)]
    if recipe.runs("custom_linearity") and "linearity" in types:
        types.remove("linearity")
    if "rscd" in types and None not in (recipe["rscd"].group_skip1, recipe["rscd"].group_skip):
        types.remove("rscd")
    if "emicorr" in types and recipe["emicorr"].onthefly_corr_freq is not None:
        types.remove("emicorr")
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
