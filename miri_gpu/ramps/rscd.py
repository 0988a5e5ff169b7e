"""Leave out the first groups of each integration, which the last reset upsets (jwst: rscd)."""

from dataclasses import dataclass, replace
from typing import ClassVar

from miri_gpu.backend import namespace
from miri_gpu.containers import Array, Ramps, Readout
from miri_gpu.detector import DO_NOT_USE, DQ_NAMES, SATURATED
from miri_gpu.parameters import Parameters, option

FLUX_ESTIMATED = 1 << DQ_NAMES.index("FLUX_ESTIMATED")

_FEWEST_GROUPS = 3  # of which one is left out, so that two remain for a slope
_FEW_GROUPS = 5  # up to here one group is left out, whatever the reference says
_LEFT_IN = 3  # groups that must remain: two for a slope and the last, which is left out too


@dataclass(frozen=True, kw_only=True)
class RscdParams(Parameters):
    """Settings of the rscd step, which take the place of the reference's numbers."""

    step: ClassVar[str] = "rscd"

    group_skip1: int | None = option(
        None,
        "groups to leave out at the start of the exposure's first integration; "
        "nothing: as many as the reference says",
        at_least=0,
    )
    group_skip: int | None = option(
        None,
        "groups to leave out at the start of every later integration; "
        "nothing: as many as the reference says",
        at_least=0,
    )


def skipped_groups(
    n_groups: int, group_skip: tuple[int, int] | None, *, params: RscdParams | None = None
) -> tuple[int, int]:
    """How many first groups are left out: in the exposure's first integration, in later ones.

    Parameters
    ----------
    n_groups : int
        Groups of an integration.
    group_skip : (first, later) or None
        What the reference says; None where there is no reference.
    params : RscdParams

    Raises
    ------
    ValueError
        Where neither the reference nor the settings say a number.
    """
    params = RscdParams() if params is None else params
    wanted = [params.group_skip1, params.group_skip]
    for place, name in enumerate(("group_skip1", "group_skip")):
        if wanted[place] is None:
            if group_skip is None:
                raise ValueError(
                    f"rscd.{name}: expected a number of groups where there is no rscd reference, "
                    "got nothing"
                )
            # a table without a number for the first integration holds -1 there
            wanted[place] = int(group_skip[place]) if group_skip[place] >= 0 else 1
    if n_groups < _FEWEST_GROUPS:
        return 0, 0
    if n_groups <= _FEW_GROUPS:
        wanted = [1, 1]
    first, later = (min(number, n_groups - _LEFT_IN) for number in wanted)
    return first, later


def flag_rscd(
    ramps: Ramps,
    group_skip: tuple[int, int] | None = None,
    *,
    params: RscdParams | None = None,
    readout: Readout = Readout(),  # noqa: B008 - frozen
) -> Ramps:
    """Flag DO_NOT_USE on the first groups of each integration, on fewer where a pixel fills up.

    A pixel that saturates before two groups would be left keeps the two groups before, or the one
    there is, and gets FLUX_ESTIMATED; one that saturates in its first group is beyond help.

    Parameters
    ----------
    ramps : Ramps
        Integrations that follow one another in the exposure, with saturated samples flagged.
    group_skip : (first, later) or None
        Groups that the reference leaves out in the exposure's first and in its later integrations.
    params : RscdParams
    readout : Readout
        Says which integration of the exposure comes first.

    Returns
    -------
    Ramps : the same data, more flags

    Raises
    ------
    ValueError
        Where neither the reference nor the settings say how many groups to leave out.

    Notes
    -----
    The rscd step of the STScI pipeline, release 3.0. It counts from a pixel's first saturated
    group: SATURATED is taken to last to the end of an integration.
    """
    xp = namespace(ramps.data, ramps.groupdq, ramps.pixeldq)
    n_ints, n_groups = ramps.data.shape[:2]
    first, later = skipped_groups(n_groups, group_skip, params=params)
    wanted = xp.full((n_ints, 1, 1), later, dtype=xp.int32)
    if readout.first_integration == 0:
        wanted[:1] = first
    n_most = max(first, later)

    full_at = _first_saturated(ramps.groupdq, n_most + 2, xp=xp)
    too_early = (full_at > 0) & (full_at < wanted + 2)
    n_skipped = xp.where(too_early, xp.maximum(full_at - 2, 0), wanted)
    estimated = (n_skipped < wanted).any(axis=0)

    groupdq = ramps.groupdq.copy()
    for group in range(n_most):
        groupdq[:, group] |= (n_skipped > group).astype(xp.uint8) * DO_NOT_USE
    return replace(
        ramps,
        groupdq=groupdq,
        pixeldq=ramps.pixeldq | estimated.astype(xp.uint32) * FLUX_ESTIMATED,
    )


def _first_saturated(groupdq: Array, n_looked_at: int, *, xp) -> Array:
    """The first saturated group of each pixel and integration, or `n_looked_at` or more."""
    n_ints, n_groups = groupdq.shape[:2]
    first = xp.full((n_ints, *groupdq.shape[2:]), n_looked_at, dtype=xp.int32)
    for group in reversed(range(min(n_looked_at, n_groups))):
        saturated = (groupdq[:, group] & SATURATED) != 0
        first = xp.where(saturated, group, first)
    return first.astype(xp.int32)
