"""Leave out the last group of every integration (jwst: lastframe)."""

from dataclasses import replace

from miri_gpu.backend import namespace
from miri_gpu.containers import Ramps
from miri_gpu.detector import DO_NOT_USE

FEWEST_GROUPS = 3  # integrations with fewer groups need them all


def flag_last_frame(ramps: Ramps) -> Ramps:
    """Flag DO_NOT_USE on the last group of every integration, where there are more than two.

    Notes
    -----
    The lastframe step of the STScI pipeline.
    """
    namespace(ramps.data, ramps.groupdq, ramps.pixeldq)
    if ramps.data.shape[1] < FEWEST_GROUPS:
        return ramps
    groupdq = ramps.groupdq.copy()
    groupdq[:, -1] |= DO_NOT_USE
    return replace(ramps, groupdq=groupdq)
