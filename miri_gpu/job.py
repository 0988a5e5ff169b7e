"""What the reduction of every segment of an observation shares."""

from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

import numpy as np

from miri_gpu.backend import Backend, to_host
from miri_gpu.blocks import Workers
from miri_gpu.calibration import Calibration
from miri_gpu.plan import Plan
from miri_gpu.progress import Progress
from miri_gpu.ramps.emi import EmiModel
from miri_gpu.ramps.self_calibration import LinearityCalibration
from miri_gpu.recipe import Recipe
from miri_gpu.segments import Segment


@dataclass(frozen=True)
class Job:
    """What the reduction of every segment of an observation shares.

    Attributes
    ----------
    plan : Plan
    calibration : Calibration
        On the device of the backend.
    workers : Workers
    progress : Progress
    linearity : LinearityCalibration or None
        Where the non-linearity was measured on the observation, on the host.
    emi : dict of EmiModel by path of the segment
        The interference in all integrations of the segments in which it was measured so far.
    """

    plan: Plan
    calibration: Calibration
    workers: Workers
    progress: Progress
    linearity: LinearityCalibration | None = None
    emi: dict[Path, EmiModel] = field(default_factory=dict)

    @property
    def recipe(self) -> Recipe:
        """Which steps run, and how."""
        return self.plan.recipe

    @property
    def backend(self) -> Backend:
        """What computes."""
        return self.plan.backend

    def fits_memory(self, segment: Segment, n_such: int = 1) -> bool:
        """Whether there is memory for the raw samples of so many segments like this one.

        The system then keeps what was read of their files, and a host computes with that.
        """
        return n_such * segment.samples.n_bytes <= self.workers.room.bytes_of_samples

    @cached_property
    def median_gain(self) -> float:
        """Median gain of the whole frame [e-/DN]."""
        return float(np.nanmedian(to_host(self.calibration.gain)))
