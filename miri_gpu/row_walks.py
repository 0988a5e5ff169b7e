"""Walks over the rows of segments: what is read while which blocks are in work.

A segment is read in parts of rows. While the blocks of one part are in work the next ones are read,
of the same segment or of the next, as many as there is room for, and copied to the GPU if there is
one.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise

from miri_gpu import detector
from miri_gpu.area import ALL_ROWS, grown
from miri_gpu.blocks import Workers
from miri_gpu.job import Job
from miri_gpu.ramp_blocks import block_halo
from miri_gpu.raw_samples import ask_for
from miri_gpu.read_ahead import read_ahead
from miri_gpu.segments import Segment
from miri_gpu.stretches import MeasuredFrames, Stretch
from miri_gpu.whole_frames import measures_frames

# A GPU has nothing to do until the first part of all has come, and nothing comes any more while it
# computes with the last one: both are small.
_ROWS_OF_A_SMALL_PART = round(0.3 * detector.N_ROWS)


@dataclass(frozen=True, eq=False)
class RowWalk:
    """Some rows of a segment, with all integrations that are kept, in parts that are read ahead.

    Attributes
    ----------
    segment : Segment
    job : Job
    parts : list of slice
        Rows that are read together.
    stretches : iterator of Stretch
        For each part, with its samples at hand, or in their file where that is better; of all
        walks that were made together.
    """

    segment: Segment
    job: Job
    parts: list[slice]
    stretches: Iterator[Stretch]

    def run(
        self,
        work: Callable[[Stretch, slice], None],
        measure: Callable[[Stretch], MeasuredFrames],
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
        job, frames = self.job, None
        workers, blocks = self.blocks(n_beside)
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

    def blocks(self, n_beside: int = 0) -> tuple[Workers, list[list[slice]]]:
        """The rows of each part, cut into blocks, and who works on them; `n_beside` as above."""
        n_ints = n_beside + len(self.job.plan.integrations(self.segment))
        bytes_per_row = n_ints * self.segment.n_groups * detector.N_COLS * 4
        workers = self.job.workers.fitting(bytes_per_row)
        return workers, [workers.cut(p.start, p.stop, bytes_per_row) for p in self.parts]


def walks_ahead(segments: Sequence[Segment], job: Job, rows: slice = ALL_ROWS) -> list[RowWalk]:
    """A walk over some rows of each segment, which must be run in this order."""
    parts = [
        _parts(segment, rows, job, n_before=number, is_last=number == len(segments) - 1)
        for number, segment in enumerate(segments)
    ]
    wanted = [part for of_segment in parts for part in of_segment]
    stretches = read_ahead(lambda part: part.read(job), wanted, size=lambda part: part.n_bytes)
    return [
        RowWalk(segment, job, [part.rows for part in of_segment], stretches)
        for segment, of_segment in zip(segments, parts, strict=True)
    ]


@dataclass(frozen=True)
class _Part:
    """Rows of a segment that are read together.

    Attributes
    ----------
    segment : Segment
    rows : slice
    held : slice or None
        These and their halo, which are brought to where they are computed with; None where samples
        are taken from the file, block by block.
    asks : bool
        Whether the system is asked for the whole file before.
    """

    segment: Segment
    rows: slice
    held: slice | None
    asks: bool

    @property
    def n_bytes(self) -> int:
        """Of the rows, in their file, but for their halo."""
        n_rows = self.rows.stop - self.rows.start
        return self.segment.samples.n_bytes * n_rows // detector.N_ROWS

    def read(self, job: Job) -> Stretch:
        """The stretch of all integrations that are kept."""
        if self.asks:
            ask_for(self.segment.samples)
        stretch = Stretch(self.segment, job.plan.integrations(self.segment))
        return stretch if self.held is None else stretch.holding(self.held, job)


def _parts(segment: Segment, rows: slice, job: Job, *, n_before: int, is_last: bool) -> list[_Part]:
    """The parts in which a segment is read: a single one, where samples stay in their file.

    A GPU gets as much of a segment as it can hold, which goes fastest, while it computes with what
    came before. The first segment begins with a small part, and the last one ends with one, unless
    whole frames are measured first.
    """
    n_halo = block_halo(job.recipe, segment.readout)
    n_held = _rows_held(segment, n_halo, job)
    cut = [rows] if n_held is None else _cut_evenly(rows, n_held, n_halo)
    has_room = n_held is not None and n_held >= detector.N_ROWS + 2 * n_halo
    if has_room and job.backend.on_gpu and rows == ALL_ROWS and not measures_frames(job.recipe):
        cut = _with_small_parts(is_first=n_before == 0, is_last=is_last)
    asks = job.fits_memory(segment, 2 if n_before else 1)  # beside the one that is in work then
    return [
        _Part(
            segment,
            part,
            held=None if n_held is None else grown(part, n_halo),
            asks=asks and part is cut[0],
        )
        for part in cut
    ]


def _rows_held(segment: Segment, n_halo: int, job: Job) -> int | None:
    """How many rows, beside as many that are in work, there is room for; None: they are not held.

    The host computes with what the system keeps of a file, where it can. A GPU without room for
    more than the halo of a part gets samples by blocks.
    """
    room, places = job.room, []
    if not job.fits_memory(segment):
        places.append(room.bytes_of_samples)
    if job.backend.on_gpu:
        places.append(room.bytes_of_uploads)
    if not places:
        return None
    n_rows = min(places) // 2 * detector.N_ROWS // segment.samples.n_bytes
    if n_rows <= 4 * n_halo and job.fits_memory(segment):
        return None
    return n_rows


def _with_small_parts(*, is_first: bool, is_last: bool) -> list[slice]:
    """All rows, a small part of the first segment first, and of the last one last."""
    begins = [_ROWS_OF_A_SMALL_PART] if is_first else []
    ends = [detector.N_ROWS - _ROWS_OF_A_SMALL_PART] if is_last else []
    return [slice(*pair) for pair in pairwise([0, *begins, *ends, detector.N_ROWS])]


def _cut_evenly(rows: slice, n_most: int, n_halo: int) -> list[slice]:
    """Cut rows into the fewest parts that are at most so many with their halo, or one row.

    They are of one size, so that each takes the place in memory that another has left, and takes as
    long to come as the one before is computed with.
    """
    n_parts = len(_cut(rows, n_most, n_halo))
    for n_held in range((rows.stop - rows.start) // n_parts, n_most):
        parts = _cut(rows, n_held, n_halo)
        if len(parts) == n_parts:
            return parts
    return _cut(rows, n_most, n_halo)


def _cut(rows: slice, n_held: int, n_halo: int) -> list[slice]:
    """Cut rows into parts that are so many with their halo, but for the last, or one row."""
    parts, start = [], rows.start
    while start < rows.stop:
        last_held = max(start - n_halo, 0) + n_held
        stop = rows.stop if last_held >= detector.N_ROWS else last_held - n_halo
        parts.append(slice(start, min(max(stop, start + 1), rows.stop)))
        start = parts[-1].stop
    return parts
