"""Leave out the first group of every integration (jwst: firstframe)."""

from dataclasses import dataclass, replace
from typing import ClassVar

from miri_gpu.backend import namespace
from miri_gpu.containers import Ramps
from miri_gpu.detector import DO_NOT_USE, SATURATED
from miri_gpu.parameters import Parameters, option
from miri_gpu.ramps.rscd import FLUX_ESTIMATED

FEWEST_GROUPS = 4  # integrations with fewer groups need them all


@dataclass(frozen=True, kw_only=True)
class FirstFrameParams(Parameters):
    """Settings of the firstframe step."""

    step: ClassVar[str] = "firstframe"

    bright_use_group1: bool = option(
        True, "keep the first group of pixels that are saturated in their third"
    )


def flag_first_frame(ramps: Ramps, *, params: FirstFrameParams | None = None) -> Ramps:
    """Flag DO_NOT_USE on the first group of every integration, where there are more than three.

    Parameters
    ----------
    ramps : Ramps
        With saturated samples flagged.
    params : FirstFrameParams

    Returns
    -------
    Ramps
        A pixel that kept a first group, in any integration, has FLUX_ESTIMATED.

    Notes
    -----
    The firstframe step of the STScI pipeline, which since release 2.0 leaves it to rscd.
    """
    xp = namespace(ramps.data, ramps.groupdq, ramps.pixeldq)
    params = FirstFrameParams() if params is None else params
    if ramps.data.shape[1] < FEWEST_GROUPS:
        return ramps
    groupdq = ramps.groupdq.copy()
    if not params.bright_use_group1:
        groupdq[:, 0] |= DO_NOT_USE
        return replace(ramps, groupdq=groupdq)
    bright = (groupdq[:, 2] & SATURATED) != 0
    groupdq[:, 0] |= (~bright).astype(xp.uint8) * DO_NOT_USE
    estimated = bright.any(axis=0).astype(xp.uint32) * FLUX_ESTIMATED
    return replace(ramps, groupdq=groupdq, pixeldq=ramps.pixeldq | estimated)
