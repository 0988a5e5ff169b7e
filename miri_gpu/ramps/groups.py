"""Leave out groups or integrations, and cut integrations into shorter ones.

The ExoTiC-MIRI steps drop_groups, drop_integrations and regroup, by their definition anew.
"""

from dataclasses import dataclass, replace
from typing import ClassVar

import numpy as np

from miri_gpu.backend import namespace
from miri_gpu.containers import Array, Ramps, Readout
from miri_gpu.detector import DO_NOT_USE
from miri_gpu.parameters import Parameters, option


@dataclass(frozen=True, kw_only=True)
class DropGroupsParams(Parameters):
    """Settings of the drop_groups step."""

    step: ClassVar[str] = "drop_groups"

    drop_groups: tuple[int, ...] = option(
        (), "groups to leave out, from 0; negative ones count from the end"
    )
    drop_groups_first_integration: tuple[int, ...] = option(
        (),
        "more groups to leave out in the first integration of the exposure, which settles for "
        "longer; counted likewise",
    )


@dataclass(frozen=True, kw_only=True)
class DropIntegrationsParams(Parameters):
    """Settings of the drop_integrations step."""

    step: ClassVar[str] = "drop_integrations"

    drop_integrations: tuple[int, ...] = option(
        (), "integrations to leave out, from 0; negative ones count from the end"
    )


@dataclass(frozen=True, kw_only=True)
class RegroupParams(Parameters):
    """Settings of the regroup step."""

    step: ClassVar[str] = "regroup"

    n_groups: int = option(10, "groups of each new, shorter integration", at_least=1)


def dropped_groups(
    n_ints: int,
    n_groups: int,
    *,
    params: DropGroupsParams,
    readout: Readout = Readout(),  # noqa: B008 - frozen
) -> np.ndarray:
    """Which groups drop_groups leaves out of integrations that follow one another.

    Returns
    -------
    (n_ints, n_groups) bool, on the host

    Raises
    ------
    ValueError
        Where a group does not exist, or none would be left.
    """
    everywhere, at_first = params.drop_groups, params.drop_groups_first_integration
    _kept("drop_groups.drop_groups", everywhere, n_groups, "groups")
    _kept("drop_groups.drop_groups_first_integration", at_first, n_groups, "groups")
    _kept("drop_groups.drop_groups_first_integration", everywhere + at_first, n_groups, "groups")
    dropped = np.zeros((n_ints, n_groups), dtype=bool)
    dropped[:, list(everywhere)] = True
    if readout.first_integration == 0:
        dropped[:1, list(at_first)] = True
    return dropped


def drop_groups(
    ramps: Ramps,
    *,
    params: DropGroupsParams,
    readout: Readout = Readout(),  # noqa: B008 - frozen
) -> Ramps:
    """Flag DO_NOT_USE on whole groups; the data stay as they are.

    Parameters
    ----------
    ramps : Ramps
    params : DropGroupsParams
    readout : Readout
        Says which integration of the exposure comes first.

    Returns
    -------
    Ramps

    Raises
    ------
    ValueError
        Where a group does not exist, or none would be left.
    """
    xp = namespace(ramps.data, ramps.groupdq)
    dropped = dropped_groups(*ramps.data.shape[:2], params=params, readout=readout)
    flags = xp.asarray(dropped.astype(np.uint8) * DO_NOT_USE)
    return replace(ramps, groupdq=ramps.groupdq | flags[:, :, None, None])


def kept_integrations(n_ints: int, params: DropIntegrationsParams) -> tuple[int, ...]:
    """The integrations that drop_integrations leaves, in order: what the times must follow.

    Raises
    ------
    ValueError
        Where an integration does not exist, or none would be left.
    """
    name = "drop_integrations.drop_integrations"
    return _kept(name, params.drop_integrations, n_ints, "integrations")


def drop_integrations(ramps: Ramps, *, params: DropIntegrationsParams) -> Ramps:
    """Take integrations out of the ramps (see kept_integrations for which remain).

    What depends on an integration's place in the exposure (reset, dark) is to be corrected first.

    Parameters
    ----------
    ramps : Ramps
    params : DropIntegrationsParams

    Returns
    -------
    Ramps : with n_kept integrations

    Raises
    ------
    ValueError
        Where an integration does not exist, or none would be left.
    """
    xp = namespace(ramps.data)
    kept = xp.asarray(kept_integrations(ramps.data.shape[0], params))
    return replace(ramps, data=ramps.data[kept], groupdq=ramps.groupdq[kept])


def regrouped_shape(n_ints: int, n_groups: int, params: RegroupParams) -> tuple[int, int]:
    """Number of integrations and of groups that regroup makes of a segment.

    The `n_groups % params.n_groups` groups left at the end of each integration are lost.

    Raises
    ------
    ValueError
        Where an integration has fewer groups than a new one should have.
    """
    if params.n_groups > n_groups:
        raise ValueError(
            f"regroup.n_groups: expected at most the {n_groups} groups of an integration, "
            f"got {params.n_groups}"
        )
    return n_ints * (n_groups // params.n_groups), params.n_groups


def regroup(ramps: Ramps, *, params: RegroupParams = RegroupParams()) -> Ramps:
    """Cut each integration into shorter ones of n_groups groups; drop the groups left over.

    Parameters
    ----------
    ramps : Ramps
    params : RegroupParams

    Returns
    -------
    Ramps : (n_ints x parts, params.n_groups, n_rows, n_cols), in time order

    Raises
    ------
    ValueError
        Where an integration has fewer groups than a new one should have.
    """
    data, groupdq = (regrouped(array, params) for array in (ramps.data, ramps.groupdq))
    return replace(ramps, data=data, groupdq=groupdq)


def regrouped(array: Array, params: RegroupParams) -> Array:
    """Cut an array (n_ints, n_groups, ...) as regroup cuts the integrations."""
    n_ints, n_groups, *image = array.shape
    shape = (*regrouped_shape(n_ints, n_groups, params), *image)
    return array[:, : n_groups - n_groups % params.n_groups].reshape(shape)


def _kept(name: str, dropped: tuple[int, ...], n: int, what: str) -> tuple[int, ...]:
    """What remains of range(n), after a check that the dropped ones exist and leave some."""
    for index in dropped:
        if not -n <= index < n:
            raise ValueError(
                f"{name}: expected {what} from {-n} to {n - 1}, as there are {n}, got {index}"
            )
    kept = tuple(sorted(set(range(n)) - {index % n for index in dropped}))
    if not kept:
        raise ValueError(f"{name}: expected to leave at least one of {n} {what}, got all dropped")
    return kept
