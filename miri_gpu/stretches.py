"""Stretches of a segment: successive integrations, their samples, and what belongs to them."""

import logging
from dataclasses import dataclass, replace

import numpy as np

from miri_gpu.backend import is_out_of_memory
from miri_gpu.containers import Array, Readout
from miri_gpu.job import Job
from miri_gpu.ramp_steps import FrameCorrections
from miri_gpu.ramps.emi import EmiModel
from miri_gpu.raw_samples import encoded_samples
from miri_gpu.segments import Segment
from miri_gpu.storage import Store
from miri_gpu.uploads import reads_by_itself, upload_array, upload_rows

log = logging.getLogger(__name__)


@dataclass(frozen=True, eq=False)
class MeasuredFrames:
    """What was measured on the whole frames of successive integrations.

    Attributes
    ----------
    emi : as FrameCorrections has it, or None
    dropped : (n_ints, n_groups) bool, or None
        Groups, as observed, that are DO_NOT_USE in every pixel of the frame; None where the recipe
        alone decides them.
    kept : Store of the other FrameCorrections, or None
    """

    emi: EmiModel | None = None
    dropped: Array | None = None
    kept: Store | None = None

    def cut(self, ints: slice, rows: slice) -> FrameCorrections:
        """What corrects some rows of some of the integrations, on the device."""
        return FrameCorrections(
            emi=None if self.emi is None else self.emi.integrations(ints),
            **({} if self.kept is None else self.kept.take((ints, slice(None), rows))),
        )


@dataclass(frozen=True, eq=False)
class Stretch:
    """Successive integrations of a segment, with what was measured on their whole frames.

    Attributes
    ----------
    segment : Segment
    integrations : (n_ints,) int
        Indices in the segment.
    frames : MeasuredFrames
        Of these integrations, and perhaps of more.
    first_measured : int
        Where these begin among those.
    held : (n_ints, n_groups, n_rows_held, n_cols) uint16 or float32, or None
        Samples of some rows as they travel, where these are in memory, or on the device already.
    held_from : int
        The first of these rows.
    """

    segment: Segment
    integrations: np.ndarray
    frames: MeasuredFrames = MeasuredFrames()
    first_measured: int = 0
    held: Array | None = None
    held_from: int = 0

    @property
    def readout(self) -> Readout:
        """The segment's readout, of these integrations."""
        return self.segment.readout_of(self.integrations)

    def part(self, ints: slice) -> "Stretch":
        """Some of the integrations."""
        return replace(
            self,
            integrations=self.integrations[ints],
            first_measured=self.first_measured + ints.start,
            held=None if self.held is None else self.held[ints],
        )

    def holding(self, rows: slice, job: Job) -> "Stretch":
        """The same, with the samples of some rows in memory, in that of a GPU if it computes.

        Where there is no room for them, they stay in their file.
        """
        try:
            held = read_samples(self, rows, job)
        except Exception as error:
            if not is_out_of_memory(error):
                raise
        else:
            return replace(self, held=held, held_from=rows.start)
        log.warning("out of memory with samples of %d rows: read by blocks", rows.stop - rows.start)
        job.backend.release_memory()
        return self

    def holds(self, rows: slice) -> bool:
        """Whether the samples of some rows are at hand."""
        if self.held is None:
            return False
        first, n_rows = self.held_from, self.held.shape[2]
        return first <= rows.start and rows.stop <= first + n_rows


def read_samples(stretch: Stretch, rows: slice, job: Job) -> Array:
    """Samples of some rows as they travel, where they are computed with.

    Those at hand stay where they are; a host computes with the file, where there is memory for it.

    Returns
    -------
    (n_ints, n_groups, n_rows, n_cols) uint16 or float32, perhaps a view
    """
    if stretch.holds(rows):
        return stretch.held[:, :, rows.start - stretch.held_from : rows.stop - stretch.held_from]
    samples, integrations, backend = stretch.segment.samples, stretch.integrations, job.backend
    if reads_by_itself(samples, backend):
        return upload_rows(samples, rows, integrations, backend)
    if job.fits_memory(stretch.segment):
        raw = np.asarray(stretch.segment.raw)[:, :, rows]
    else:
        raw, integrations = samples.read_rows(rows, integrations), np.arange(len(integrations))
    items: np.ndarray | None = integrations
    if follow_one_another(integrations):
        raw, items = raw[integrations[0] : integrations[-1] + 1], None
    if not backend.on_gpu:
        return backend.to_device(encoded_samples(raw if items is None else raw[items]))
    dtype = samples.travelling_dtype
    return upload_array(raw.view(dtype) if dtype == np.uint16 else raw, backend, dtype, items)


def follow_one_another(integrations: np.ndarray) -> bool:
    """Whether none is left out between the first and the last."""
    return bool(integrations[-1] - integrations[0] + 1 == len(integrations))
