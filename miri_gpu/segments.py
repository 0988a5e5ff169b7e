"""Segments of an observation on disk: what they are, when they were taken, where their pixels are.

A segment is never opened as a whole: its headers and times are read once, its pixels block by block
(`raw_samples`).
"""

import warnings
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import pairwise
from pathlib import Path

import numpy as np

from miri_gpu import detector
from miri_gpu.containers import Readout
from miri_gpu.errors import SegmentError
from miri_gpu.integration_times import integration_times
from miri_gpu.raw_samples import SampleFile

_STEPS_ON_RAMPS = ("S_RESET", "S_LINEAR", "S_DARK", "S_JUMP")
_IDENTITY = ("PROGRAM", "OBSERVTN", "VISIT", "VISITGRP", "SEQ_ID", "ACT_ID", "EXPOSURE")
_READOUT = ("NGROUPS", "TGROUP", "TFRAME", "NFRAMES", "GROUPGAP", "READPATT")
# numbers that may be absent: times [s], and counts with the least that they can be
_TIMES = ("TGROUP", "TFRAME")
_COUNTS = {"NFRAMES": 1, "GROUPGAP": 0, "DRPFRMS1": 0, "FRMDIVSR": 1, "NRESETS": 0, "INTSTART": 1}


@dataclass(frozen=True, eq=False)
class Segment:
    """One file of an observation: raw ramps (4 axes) or rate images (3 axes).

    Attributes
    ----------
    path : Path
    primary, science : astropy.io.fits.Header
        Headers of the file and of its SCI extension.
    offset : int
        Of the first pixel in the file [bytes].
    times : dict[str, (n_ints,) float64]
        The columns of INT_TIMES [days].
    """

    path: Path
    primary: object
    science: object
    offset: int
    times: dict[str, np.ndarray]

    @cached_property
    def shape(self) -> tuple[int, ...]:
        """(n_ints, n_groups, n_rows, n_cols), or without groups for rate images."""
        n_axes = self.science["NAXIS"]
        return tuple(self.science[f"NAXIS{axis}"] for axis in range(n_axes, 0, -1))

    @property
    def holds_ramps(self) -> bool:
        """Whether the segment is raw ramps rather than rate images."""
        return len(self.shape) == 4

    @property
    def is_flat_fielded(self) -> bool:
        """Whether rate images are divided by the flat field already."""
        return not self.holds_ramps and self.primary.get("S_FLAT") == "COMPLETE"

    @property
    def n_ints(self) -> int:
        """Number of integrations in this segment."""
        return self.shape[0]

    @cached_property
    def n_groups(self) -> int:
        """Number of groups of each integration, as observed."""
        return self.primary["NGROUPS"]

    @property
    def number(self) -> int:
        """Which segment of the exposure this is, from 1."""
        return self._number("EXSEGNUM", 1)

    @cached_property
    def first_integration(self) -> int:
        """Index in the whole exposure, from 0, of the segment's first integration."""
        return self._number("INTSTART", 1) - 1

    def _number(self, keyword: str, otherwise):
        """A keyword's number; what it otherwise would be where it is absent or has no value."""
        value = self.primary.get(keyword)
        return value if isinstance(value, int | float) else otherwise

    @property
    def target(self) -> str:
        """Name of the target, as in a catalogue or else as the proposer called it."""
        return self.primary.get("TARGNAME") or self.primary.get("TARGPROP", "unnamed target")

    @cached_property
    def readout(self) -> Readout:
        """How the samples were taken."""
        frame_time_s = self._number("TFRAME", detector.FRAME_TIME_S)
        n_frames = self._number("NFRAMES", 1)
        group_gap = self._number("GROUPGAP", 0)
        return Readout(
            group_time_s=self._number("TGROUP", (n_frames + group_gap) * frame_time_s),
            frame_time_s=frame_time_s,
            n_frames=n_frames,
            frame_divisor=self._number("FRMDIVSR", None),
            group_gap=group_gap,
            drop_frames1=self._number("DRPFRMS1", 0),
            first_integration=self.first_integration,
            segment_start=self.first_integration,
        )

    def readout_of(self, integrations: np.ndarray) -> Readout:
        """How the samples of some of the integrations, by their indices here, were taken."""
        numbers = self.first_integration + np.asarray(integrations)
        return replace(
            self.readout, first_integration=int(numbers[0]), numbers=tuple(numbers.tolist())
        )

    @cached_property
    def samples(self) -> SampleFile:
        """Where the SCI pixels lie on disk."""
        dtype = ">i2" if self.science["BITPIX"] == 16 else ">f4"
        return SampleFile(self.path, self.offset, np.dtype(dtype), self.shape)

    @cached_property
    def raw(self) -> np.ndarray:
        """The SCI pixels as they lie on disk, mapped and not read."""
        return self.samples.mapped()

    def __getstate__(self):
        """What travels to another process, which maps the pixels by itself."""
        return {name: value for name, value in vars(self).items() if name != "raw"}


def open_segments(
    paths: str | Path | Sequence[str | Path], *, partial: bool = False
) -> tuple[Segment, ...]:
    """Open the segments of one observation, in any order, and check that they belong together.

    Parameters
    ----------
    paths : files `*_uncal.fits` or `*_rateints.fits`, or one of them
    partial : bool
        Accept that segments of the exposure are missing.

    Returns
    -------
    tuple of Segment, sorted by segment number

    Raises
    ------
    SegmentError
        Naming the file: what was expected of it, and what came.
    """
    paths = [paths] if isinstance(paths, str | Path) else paths
    if not paths:
        raise SegmentError("segments: expected at least one file, got none")
    segments = sorted((open_segment(path) for path in paths), key=lambda s: s.number)
    _check_same_observation(segments)
    _check_numbers(segments, partial)
    return tuple(segments)


def open_segment(path: str | Path) -> Segment:
    """Open one file and check that it is a segment of a SLITLESSPRISM time series."""
    from astropy.io import fits

    path = Path(path)
    if not path.exists():
        raise SegmentError(f"{path}: no such file")
    if path.is_dir():
        raise SegmentError(f"{path}: expected a FITS file, got a folder{_files_at(path)}")
    if not path.is_file():  # a pipe, which would be waited for
        raise SegmentError(f"{path}: expected a FITS file, got something else")
    try:
        _check_start(path)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", fits.verify.VerifyWarning)
            warnings.filterwarnings("ignore", "File may have been truncated")
            with fits.open(path, memmap=True) as hdus:
                primary, science, offset, times = _read_headers(path, hdus)
    except (OSError, TypeError, ValueError, fits.VerifyError) as error:
        raise SegmentError(f"{path}: not a readable FITS file ({error})") from None
    segment = Segment(path, primary, science, offset, {})
    _check_mode(segment)
    _check_readout(segment)
    _check_complete(segment)
    return Segment(path, primary, science, offset, integration_times(segment, times))


def _files_at(folder: Path) -> str:
    """Advice which files to give instead of a folder: those in it, or else beside it."""
    for place in (folder, folder.parent):
        for name in ("*_uncal.fits", "*_rateints.fits"):
            if any(place.glob(name)):
                return f" (give {place / name})"
    return ""


def _check_start(path: Path) -> None:
    with path.open("rb") as file:
        start = file.read(6)
    if start[:2] == b"\x1f\x8b":
        raise SegmentError(f"{path}: compressed: expected a plain FITS file, gunzip it first")
    if start != b"SIMPLE":
        raise SegmentError(f"{path}: not a FITS file")


def _read_headers(path: Path, hdus):
    if "SCI" not in hdus:
        raise SegmentError(f"{path}: expected an extension SCI with the samples, got none")
    times = None
    if "INT_TIMES" in hdus:
        times = np.array(hdus["INT_TIMES"].data)
    science = hdus["SCI"]
    return hdus[0].header.copy(), science.header.copy(), science.fileinfo()["datLoc"], times


def _check_mode(segment: Segment) -> None:
    expected = {
        "INSTRUME": detector.INSTRUMENT,
        "EXP_TYPE": detector.EXPOSURE_TYPE,
        "FILTER": detector.FILTER,
        "SUBARRAY": detector.SUBARRAY,
    }
    for keyword, value in expected.items():
        found = segment.primary.get(keyword)
        if found != value:
            raise SegmentError(f"{segment.path}: {keyword}: expected {value}, got {found}")
    if len(segment.shape) not in (3, 4):
        raise SegmentError(
            f"{segment.path}: SCI: expected 4 axes (raw ramps) or 3 (rate images), "
            f"got {len(segment.shape)}"
        )
    if segment.shape[-2:] != (detector.N_ROWS, detector.N_COLS):
        raise SegmentError(
            f"{segment.path}: SCI: expected {detector.N_ROWS} rows x {detector.N_COLS} columns, "
            f"got {segment.shape[-2]} x {segment.shape[-1]}"
        )
    if not isinstance(segment.primary.get("NGROUPS"), int):
        raise SegmentError(f"{segment.path}: NGROUPS: expected the number of groups, got none")
    if segment.holds_ramps:
        done = [key for key in _STEPS_ON_RAMPS if segment.primary.get(key) == "COMPLETE"]
        if done:
            raise SegmentError(
                f"{segment.path}: expected raw ramps (*_uncal.fits) or rate images, got ramps that "
                f"are calibrated already ({', '.join(done)} = COMPLETE)"
            )
        if segment.shape[1] != segment.n_groups:
            raise SegmentError(
                f"{segment.path}: SCI: expected NGROUPS = {segment.n_groups} groups, "
                f"got {segment.shape[1]}"
            )
        if segment.n_groups < 2:
            raise SegmentError(
                f"{segment.path}: NGROUPS: expected at least 2 groups to fit a slope, got 1"
            )
    elif segment.science.get("BUNIT", "DN/s").strip() != "DN/s":
        raise SegmentError(
            f"{segment.path}: BUNIT: expected rate images in DN/s, got {segment.science['BUNIT']}"
        )


def _check_readout(segment: Segment) -> None:
    """Refuse what cannot be; a number that is absent, or a card without a value, passes."""
    for keyword in (*_TIMES, *_COUNTS):
        value = segment.primary.get(keyword)
        if not isinstance(value, str | int | float):
            continue
        number = value if isinstance(value, int | float) else -1
        if keyword in _TIMES and not 0 < number < np.inf:
            raise SegmentError(f"{segment.path}: {keyword}: expected a time above 0 s, got {value}")
        if keyword in _COUNTS and number < _COUNTS[keyword]:
            raise SegmentError(
                f"{segment.path}: {keyword}: expected {_COUNTS[keyword]} or more, got {value}"
            )


def _check_complete(segment: Segment) -> None:
    header = segment.science
    kinds = {16: "raw integers", -32: "float32"}
    if header["BITPIX"] not in kinds:
        raise SegmentError(
            f"{segment.path}: SCI: expected 16-bit integers or float32, "
            f"got BITPIX = {header['BITPIX']}"
        )
    if header["BITPIX"] == 16 and header.get("BZERO", 0) != 32768:
        raise SegmentError(
            f"{segment.path}: SCI: expected unsigned integers (BZERO = 32768), "
            f"got BZERO = {header.get('BZERO', 0)}"
        )
    n_found = segment.path.stat().st_size - segment.samples.offset
    if n_found < segment.samples.n_bytes:
        raise SegmentError(
            f"{segment.path}: truncated: expected {segment.samples.n_bytes} bytes of SCI, "
            f"got {max(n_found, 0)}"
        )


def _check_same_observation(segments: Sequence[Segment]) -> None:
    first = segments[0]
    for segment in segments[1:]:
        for keyword in (*_IDENTITY, *_READOUT, "EXSEGTOT"):
            ours, theirs = first.primary.get(keyword), segment.primary.get(keyword)
            if ours != theirs:
                raise SegmentError(
                    f"{segment.path}: another observation than {first.path}: "
                    f"{keyword}: expected {ours}, got {theirs}"
                )
        if segment.holds_ramps != first.holds_ramps:
            raise SegmentError(
                f"{segment.path}: expected {'ramps' if first.holds_ramps else 'rate images'} "
                f"like {first.path}, got {'ramps' if segment.holds_ramps else 'rate images'}"
            )
        if segment.is_flat_fielded != first.is_flat_fielded:
            raise SegmentError(
                f"{segment.path}: S_FLAT: expected all rate images divided by the flat field, or "
                f"none, got {first.path} {'with' if first.is_flat_fielded else 'without'} it"
            )


def _check_numbers(segments: Sequence[Segment], partial: bool) -> None:
    for before, segment in pairwise(segments):
        if before.number == segment.number:
            raise SegmentError(
                f"{segment.path}: segment {segment.number} is repeated, it came as {before.path}"
            )
        begin, end = segment.first_integration, before.first_integration + before.n_ints
        if begin < end:
            raise SegmentError(
                f"{segment.path}: INTSTART: expected more than the {end} integrations up to the "
                f"end of {before.path}, got {begin + 1}"
            )
    n_segments = segments[0].primary.get("EXSEGTOT") or len(segments)
    for segment in segments:
        if not 1 <= segment.number <= n_segments:
            raise SegmentError(
                f"{segment.path}: EXSEGNUM: expected 1 to {n_segments} (EXSEGTOT), "
                f"got {segment.number}"
            )
    missing = sorted(set(range(1, n_segments + 1)) - {segment.number for segment in segments})
    if missing and not partial:
        which = ("segment " if len(missing) == 1 else "segments ") + ", ".join(map(str, missing))
        raise SegmentError(
            f"segments: expected the whole exposure, missing {which} of {n_segments} "
            "(reduce what there is with --partial)"
        )
