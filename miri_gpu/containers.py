"""What flows through the reduction: ramps become rates, rates become spectra.

Each container holds arrays of one backend (NumPy or CuPy) that belong together, so that flux,
variance and data quality move as one. They are immutable: a step returns a new container, made
with :func:`dataclasses.replace`, and never writes into the arrays it was given.
"""

from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from typing import Any, Self

from miri_gpu.backend import namespace
from miri_gpu.detector import FRAME_TIME_S

Array = Any  # numpy.ndarray or cupy.ndarray


@dataclass(frozen=True, kw_only=True)
class Readout:
    """How the samples of a ramp were taken: times, averaging, and where in the exposure.

    Attributes
    ----------
    group_time_s : float
        Time from one group to the next [s].
    frame_time_s : float
        Time to read one frame [s].
    n_frames : int
        Frames averaged on board into a group.
    frame_divisor : int or None
        Divisor that the on-board averaging used (FRMDIVSR).
    group_gap : int
        Frames dropped between groups.
    drop_frames1 : int
        Frames dropped before the first group.
    first_integration : int
        Index, in the whole exposure and from 0, of the first integration at hand.
    numbers : tuple of int or None
        Indices of all integrations at hand; None where each follows the one before.
    segment_start : int or None
        Index of the first integration of the segment that these are a part of; None where they
        are all of it.
    """

    group_time_s: float = FRAME_TIME_S
    frame_time_s: float = FRAME_TIME_S
    n_frames: int = 1
    frame_divisor: int | None = 1
    group_gap: int = 0
    drop_frames1: int = 0
    first_integration: int = 0
    numbers: tuple[int, ...] | None = None
    segment_start: int | None = None

    @property
    def in_first_segment(self) -> bool:
        """Whether the segment that these integrations are a part of begins the exposure."""
        start = self.first_integration if self.segment_start is None else self.segment_start
        return start == 0

    def planes(self, n_ints: int, n_planes: int) -> list[int]:
        """Planes of a reference that has one for each of the first integrations of an exposure.

        Returns
        -------
        list of int
            The planes of the first integrations at hand, and at last the plane of all others.
        """
        first = self.first_integration
        numbers = range(first, first + n_ints) if self.numbers is None else self.numbers
        return [number for number in numbers if number < n_planes - 1] + [n_planes - 1]


class ArrayBundle:
    """Arrays that are moved and cut together."""

    def map(self, function) -> Self:
        """Apply a function to every array that is not None."""
        return replace(
            self,
            **{
                f.name: function(value)
                for f in fields(self)
                if (value := getattr(self, f.name)) is not None
            },
        )

    @classmethod
    def concatenated(cls, parts: Sequence[Self]) -> Self:
        """Join every array that is not None along its first axis."""
        first = parts[0]
        names = [name for name, array in vars(first).items() if array is not None]
        xp = namespace(*(getattr(first, name) for name in names))
        joined = {n: xp.concatenate([getattr(part, n) for part in parts]) for n in names}
        return replace(first, **joined)


def check_shapes(shape: tuple[int, ...], **arrays: Array | None) -> None:
    """Refuse arrays of another shape, since kernels trust that they have it; None passes.

    Raises
    ------
    ValueError
        Which names the array.
    """
    for name, array in arrays.items():
        if array is not None and tuple(array.shape) != tuple(shape):
            raise ValueError(f"{name}: expected the shape {shape}, got {array.shape}")


@dataclass(frozen=True, eq=False, kw_only=True)
class Ramps(ArrayBundle):
    """Detector ramps of a segment, or of an area of it.

    Attributes
    ----------
    data : (n_ints, n_groups, n_rows, n_cols) float32 [DN]
    groupdq : (n_ints, n_groups, n_rows, n_cols) uint8
        Data-quality bits of each sample.
    pixeldq : (n_rows, n_cols) uint32
        Data-quality bits of each pixel, valid for all its samples.

    Raises
    ------
    ValueError
        Where the shapes do not agree.
    """

    data: Array
    groupdq: Array
    pixeldq: Array

    def __post_init__(self):
        """Refuse arrays that do not belong together."""
        if self.data.ndim != 4:
            raise ValueError(f"data: expected 4 axes of ramps, got the shape {self.data.shape}")
        check_shapes(self.data.shape, groupdq=self.groupdq)
        check_shapes(self.data.shape[2:], pixeldq=self.pixeldq)


@dataclass(frozen=True, eq=False, kw_only=True)
class Rates(ArrayBundle):
    """Count rates of each integration.

    Attributes
    ----------
    data : (n_ints, n_rows, n_cols) float32 [DN/s]
    err : (n_ints, n_rows, n_cols) float32 [DN/s]
        Standard deviation: the root of the sum of the variances.
    var_poisson, var_rnoise : (n_ints, n_rows, n_cols) float32 [(DN/s)^2]
    var_flat : (n_ints, n_rows, n_cols) float32 [(DN/s)^2] or None
        Present once the flat field has been applied.
    dq : (n_ints, n_rows, n_cols) uint32

    Raises
    ------
    ValueError
        Where the shapes do not agree.
    """

    data: Array
    err: Array
    var_poisson: Array
    var_rnoise: Array
    dq: Array
    var_flat: Array | None = None

    def __post_init__(self):
        """Refuse arrays that do not belong together."""
        check_shapes(self.data.shape, **vars(self))


@dataclass(frozen=True, eq=False, kw_only=True)
class Spectra(ArrayBundle):
    """Extracted spectra, one for each integration.

    Attributes
    ----------
    flux : (n_ints, n_rows) float32 [DN/s]
    flux_err : (n_ints, n_rows) float32 [DN/s]
    background_err : (n_ints, n_rows) float32 [DN/s] or None
        What the subtracted background has of `flux_err`: rows may share it.
    """

    flux: Array
    flux_err: Array
    background_err: Array | None = None
