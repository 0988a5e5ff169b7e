"""What the reduction of every segment of an observation shares."""

from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Self

import numpy as np

from miri_gpu.backend import Backend, to_host
from miri_gpu.blocks import Workers, memory_to_take
from miri_gpu.calibration import Calibration
from miri_gpu.plan import Plan
from miri_gpu.progress import SILENT, Progress
from miri_gpu.ramps.emi import EmiModel
from miri_gpu.ramps.self_calibration import LinearityCalibration
from miri_gpu.recipe import Recipe
from miri_gpu.segments import Segment
from miri_gpu.storage import Room


@dataclass(frozen=True)
class Job:
    """What the reduction of every segment of an observation shares.

    Attributes
    ----------
    plan : Plan
    calibration : Calibration
        On the device of the backend.
    workers : Workers
        For the blocks in work.
    room : Room
        For what is kept of a segment.
    progress : Progress
    linearity : LinearityCalibration or None
        Where the non-linearity was measured on the observation, on the host.
    emi : dict of EmiModel by path of the segment
        The interference in all integrations of the segments in which it was measured so far.
    """

    plan: Plan
    calibration: Calibration
    workers: Workers
    room: Room
    progress: Progress = SILENT
    linearity: LinearityCalibration | None = None
    emi: dict[Path, EmiModel] = field(default_factory=dict)

    @classmethod
    def of(
        cls,
        plan: Plan,
        *,
        progress: Progress = SILENT,
        memory_bytes: int | None = None,
        n_sharing: int = 1,
        scratch: Path | None = None,
    ) -> Self:
        """With all cores, or a GPU, and their memory.

        Parameters
        ----------
        plan : Plan
        progress : Progress
        memory_bytes : int or None
            Caps what blocks and all that is kept take together, of the memory of the device; by
            default a part of what is free.
        n_sharing : int
            How many processes share the machine; each has a GPU of its own, if it has any.
        scratch : folder for what does not fit the memory, or None
        """
        backend, calibration = plan.backend, plan.calibration.to(plan.backend)
        n_bytes = memory_to_take(backend, memory_bytes, n_sharing)
        if backend.on_gpu and memory_bytes is not None:
            n_bytes = max(0, n_bytes - calibration.n_bytes)  # which the cap holds for, too
        return cls(
            plan=plan,
            calibration=calibration,
            workers=Workers.of(backend, n_bytes, n_sharing),
            room=Room.of(backend, n_bytes, n_sharing, scratch),
            progress=progress,
        )

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
        return n_such * segment.samples.n_bytes <= self.room.bytes_of_samples

    @cached_property
    def median_gain(self) -> float:
        """Median gain of the whole frame [e-/DN]."""
        return float(np.nanmedian(to_host(self.calibration.gain)))
