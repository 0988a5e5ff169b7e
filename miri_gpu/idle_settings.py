"""What a recipe cannot do is said: settings without effect, thresholds that no data reach."""

import logging
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from miri_gpu.detector import N_ROWS
from miri_gpu.groups_in_use import DROPPING_STEPS
from miri_gpu.ramps.jumps import JumpParams, clipping_limit, jump_method, values_clipped
from miri_gpu.rates.outliers import largest_deviation
from miri_gpu.recipe import Recipe
from miri_gpu.sections import SECTIONS, STEPS_ON_RAMPS
from miri_gpu.segment_files import USED_TIME
from miri_gpu.segments import Segment

if TYPE_CHECKING:
    from miri_gpu.plan import Plan

log = logging.getLogger(__name__)

# Steps without `skip` that do not always run: the setting by which they are chosen, and its value.
_CHOSEN_BY = {s.step: s.chosen_by for s in SECTIONS if s.chosen_by is not None}


def warn_of_idle_settings(
    settings: Mapping[str, Mapping[str, Any]], recipe: Recipe, first: Segment
) -> None:
    """Warn of settings of steps that do not run."""
    for step, values in settings.items():
        for key in values:
            if reason := _why_idle(step, key, recipe, first):
                log.warning("settings: %s.%s: without effect, %s", step, key, reason)


def _why_idle(step: str, key: str, recipe: Recipe, first: Segment) -> str | None:
    groups_matter = USED_TIME not in first.primary and step in (*DROPPING_STEPS, "ramp_fit")
    if step in STEPS_ON_RAMPS and not (first.holds_ramps or groups_matter):
        return "rate images enter after the ramp fit"
    if key != "skip" and not recipe.runs(step):
        return f"{step}.skip is true"
    if step in _CHOSEN_BY:
        chooser, name, value = _CHOSEN_BY[step]
        if (found := getattr(recipe[chooser], name)) != value:
            return f'{chooser}.{name} is "{found}"'
    return None


def warn_of_idle_jumps(plan: "Plan") -> None:
    """Say which way of finding jumps a segment gets, and warn where it cannot find any."""
    if not (plan.from_ramps and plan.recipe.runs("jump")):
        return
    params = plan.recipe["jump"]
    for segment in plan.segments:
        dropped = plan.dropped_groups(segment, plan.integrations(segment))
        method = jump_method(params, dropped)
        log.info("%s: jumps are sought by the method %r", segment.path.name, method)
        if method == "none":
            log.warning("%s: too few groups to find jumps", segment.path.name)
        elif method == "sigma_clipping":
            _warn_of_idle_clipping(segment, params, values_clipped(params, dropped))


def _warn_of_idle_clipping(segment: Segment, params: JumpParams, n_values: int) -> None:
    limit = clipping_limit(n_values)
    if params.rejection_threshold >= limit:
        log.warning(
            "%s: jump.rejection_threshold: among %d differences nothing deviates by more than "
            "%.1f standard deviations, so that %g finds no jump",
            segment.path.name,
            n_values,
            limit,
            params.rejection_threshold,
        )


def warn_of_idle_cleaning(recipe: Recipe) -> None:
    """Say in which windows no pixel can be an outlier, and warn where that is all of them."""
    params = recipe["clean_outliers"]
    if params.no_clean:
        return
    limits = {
        height: largest_deviation(height, params.poly_order)
        for height in sorted({min(height, N_ROWS) for height in params.window_heights})
    }
    idle = [height for height, limit in limits.items() if limit <= params.outlier_threshold]
    if idle:
        log.log(
            logging.WARNING if len(idle) == len(limits) else logging.INFO,
            "clean_outliers.outlier_threshold: in windows of %s rows nothing deviates by %g "
            "standard deviations from a polynomial of order %d, so that no outlier is found there",
            ", ".join(str(height) for height in idle),
            params.outlier_threshold,
            params.poly_order,
        )
