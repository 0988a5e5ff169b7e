"""Walks over the rows of segments: what is read while which blocks are in work.

A segment is read in parts of rows. While the blocks of one part are in work the next ones are read,
of the same segment or of the next, as many as there is room for, and copied to the GPU if there is
one.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise

import numpy as np

from miri_gpu import detector
from miri_gpu.blocks import evenly_cut
from miri_gpu.job import Job
from miri_gpu.ramp_blocks import ALL_ROWS, block_halo, grown
from miri_gpu.raw_samples import ask_for
from miri_gpu.read_ahead import read_ahead
from miri_gpu.segments import Segment
from miri_gpu.stretches import MeasuredFrames, Stretch
from miri_gpu.whole_frames import measures_frames

# rows of the last segment, part by part: the last of them are computed with when all have come
_SHARES_OF_THE_LAST = (0.5, 0.3, 0.2)


@dataclass(frozen=True, eq=False)
class RowWalk:
    """Some rows of a segment, with all integrations that are kept, in parts that are read ahead.

    Attributes
    ----------
    segment : Segment
    following : Segment or None
        The one that is walked after this.
    parts : list of slice
        Rows that are read together.
    stretches : iterator of Stretch
        For each part, with its samples at hand, or in their file where that is better; of all
        walks that were made together.
    """

    segment: Segment
    following: Segment | None
    parts: list[slice]
    stretches: Iterator[Stretch]

    def run(
        self,
        work: Callable[[Stretch, slice], None],
        measure: Callable[[Stretch], MeasuredFrames],
        job: Job,
        *,
        task: str,
        n_beside: int = 0,
    ) -> None:
        """Run some work on every row, by blocks; once, and in the order of the walks.

        Parameters
        ----------
        work : function of a stretch and the rows of a block
        measure : what a stretch gets of its whole frames; called with the first one
        task : what progress is reported as
        n_beside : integrations beside those of the stretch that a block takes
        """
        n_ints = n_beside + len(job.plan.integrations(self.segment))
        bytes_per_row = n_ints * self.segment.n_groups * detector.N_COLS * 4
        workers = job.workers.fitting(bytes_per_row)
        blocks = [workers.cut(part.start, part.stop, bytes_per_row) for part in self.parts]
        if not job.backend.on_gpu:
            self._ask_for_files(job)
        frames = None
        for of_part in blocks:
            stretch = next(self.stretches)
            if stretch.segment is not self.segment:
                raise RuntimeError(f"{self.segment.path}: walked out of turn")
            if frames is None:
                frames = measure(stretch)
                job.progress.start(task, sum(map(len, blocks)))
            stretch = replace(stretch, frames=frames)
            workers.run(lambda rows, s=stretch: work(s, rows), of_part, job.progress.advance)
            del stretch  # there is room for what is read ahead, and one more

    def _ask_for_files(self, job: Job) -> None:
        """Ask the system for what a host reads of this file, then for the next one."""
        if job.fits_memory(self.segment):
            wanted = [self.segment]
            if self.following is not None and job.fits_memory(self.following, 2):
                wanted.append(self.following)
            ask_for([segment.samples for segment in wanted])


def walks_ahead(segments: Sequence[Segment], job: Job, rows: slice = ALL_ROWS) -> list[RowWalk]:
    """A walk over some rows of each segment, which must be run in this order."""
    cut = [_parts(segment, rows, job, segment is segments[-1]) for segment in segments]
    wanted = [(segment, part, part is parts[0])
              for segment, parts in zip(segments, cut, strict=True) for part in parts]  # fmt: skip
    stretches = read_ahead(lambda one: _read(*one, job), wanted, size=_bytes_of)
    following = [*segments[1:], None]
    return [RowWalk(*one, stretches) for one in zip(segments, following, cut, strict=True)]


def _parts(segment: Segment, rows: slice, job: Job, is_last: bool) -> list[slice]:
    """Rows that are read together; all of them, where samples stay in their file.

    A GPU gets a segment as a whole, which goes fastest, while it computes with the one before. It
    computes with parts of the last one while others come, since none is to be copied behind it;
    but not where whole frames are measured first.
    """
    if not segment.holds_ramps:
        return []
    n_most = _rows_held(segment, job)
    if n_most is None:
        return [rows]
    is_all = rows == ALL_ROWS and not measures_frames(job.recipe)
    if job.backend.on_gpu and is_last and is_all:
        edges = (np.cumsum([0, *_SHARES_OF_THE_LAST]) * detector.N_ROWS).round().astype(int)
        parts = [slice(*pair) for pair in pairwise(edges.tolist())]
        if all(part.stop - part.start <= n_most for part in parts):
            return parts
    return evenly_cut(rows.start, rows.stop, n_most)


def _rows_held(segment: Segment, job: Job) -> int | None:
    """How many rows, beside as many that are in work, there is room for; None: they are not held.

    The host computes with what the system keeps of a file, where it can. A GPU without room for
    more than the halo of a part gets samples by blocks.
    """
    room, places = job.workers.room, []
    if not job.fits_memory(segment):
        places.append(room.bytes_of_samples)
    if job.backend.on_gpu:
        places.append(room.bytes_of_uploads)
    if not places:
        return None
    n_rows = min(places) // 2 * detector.N_ROWS // segment.samples.n_bytes
    if n_rows >= detector.N_ROWS:
        return detector.N_ROWS
    n_halo = 2 * block_halo(job.recipe, segment.readout)
    if n_rows <= 2 * n_halo and job.fits_memory(segment):
        return None
    return max(1, n_rows - n_halo)


def _bytes_of(wanted: tuple[Segment, slice, bool]) -> int:
    """Of some rows, in their file, but for their halo."""
    segment, rows, _ = wanted
    return segment.samples.n_bytes * (rows.stop - rows.start) // detector.N_ROWS


def _read(segment: Segment, rows: slice, is_first: bool, job: Job) -> Stretch:
    """The stretch of all integrations that are kept; rows and their halo at hand, if held."""
    stretch = Stretch(segment, job.plan.integrations(segment))
    if _rows_held(segment, job) is None:
        return stretch
    if is_first and job.backend.on_gpu and job.fits_memory(segment):
        ask_for([segment.samples])
    return stretch.holding(grown(rows, block_halo(job.recipe, segment.readout)), job)
