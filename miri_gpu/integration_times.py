"""When the integrations of a segment were taken: from its table INT_TIMES, or from its header."""

import logging
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from miri_gpu.errors import SegmentError

if TYPE_CHECKING:
    from miri_gpu.segments import Segment

TIME_COLUMNS = (
    "int_start_MJD_UTC",
    "int_mid_MJD_UTC",
    "int_end_MJD_UTC",
    "int_start_BJD_TDB",
    "int_mid_BJD_TDB",
    "int_end_BJD_TDB",
)
_MOMENTS = ("start", "mid", "end")
SECONDS_PER_DAY = 86400.0

log = logging.getLogger(__name__)


def integration_times(segment: "Segment", table: np.ndarray | None) -> dict[str, np.ndarray]:
    """The times of a segment's integrations: from INT_TIMES, or reconstructed from the header.

    INT_TIMES may list more integrations than the segment holds; they are matched by number. Where
    the table is absent or does not cover the segment, the times follow from EXPSTART and the
    cadence; where it has no barycentric times, these follow from the UTC times. Either way this
    is logged as a warning.

    Raises
    ------
    SegmentError
        Where the header lacks what the reconstruction needs.
    """
    numbers = segment.first_integration + 1 + np.arange(segment.n_ints)
    times, found = _tabled_times(table, numbers)
    if times is None:
        times, what = _times_from_cadence(segment, numbers), "times"
    elif not all((times[f"int_{moment}_BJD_TDB"] > 0).all() for moment in _MOMENTS):
        found, what = "none in BJD_TDB", "barycentric times"
        times |= _barycentric(segment, times)
    else:
        return times
    log.warning(
        "%s: expected INT_TIMES of integrations %d to %d, got %s: %s are reconstructed from the "
        "header",
        segment.path, numbers[0], numbers[-1], found, what,
    )  # fmt: skip
    return times


def divided_times(
    times: Mapping[str, np.ndarray] | np.ndarray, n_parts: int, part_s: float
) -> dict[str, np.ndarray]:
    """Times of integrations that are cut into parts of equal length.

    Parameters
    ----------
    times : columns, or table, of INT_TIMES
    n_parts : int
        Parts of each integration.
    part_s : float [s]
        Length of a part.

    Returns
    -------
    dict of (n_ints x n_parts,) float64 [days]
        The columns of INT_TIMES.
    """
    part_days = part_s / SECONDS_PER_DAY
    offsets = part_days * np.arange(n_parts)
    divided = {}
    for scale in ("MJD_UTC", "BJD_TDB"):
        start = (times[f"int_start_{scale}"][:, None] + offsets).ravel()
        divided[f"int_start_{scale}"] = start
        divided[f"int_mid_{scale}"] = start + 0.5 * part_days
        divided[f"int_end_{scale}"] = start + part_days
    return divided


def _tabled_times(table: np.ndarray | None, numbers: np.ndarray):
    """The columns of INT_TIMES for these integrations, or None and what the table has instead."""
    if table is None:
        return None, "none"
    columns = {name.lower(): name for name in table.dtype.names or ()}
    absent = [n for n in ("integration_number", *TIME_COLUMNS) if n.lower() not in columns]
    if absent:
        return None, f"no {', '.join(absent)}"
    row_of = {int(number): row for row, number in enumerate(table[columns["integration_number"]])}
    if not all(int(number) in row_of for number in numbers):
        return None, f"{len(table)} others"
    rows = [row_of[int(number)] for number in numbers]
    times = {n: table[columns[n.lower()]][rows].astype(np.float64) for n in TIME_COLUMNS}
    if not all((times[f"int_{moment}_MJD_UTC"] > 0).all() for moment in _MOMENTS):
        return None, "times that are not set"
    return times, ""


def _times_from_cadence(segment: "Segment", numbers: np.ndarray) -> dict[str, np.ndarray]:
    header = segment.primary
    _require(segment, ("EXPSTART", "TFRAME"), "the times")
    integration_s = segment.n_groups * segment.readout.group_time_s
    cadence_s = integration_s + header.get("NRESETS", 1) * header["TFRAME"]
    start = header["EXPSTART"] + (numbers - 1) * cadence_s / SECONDS_PER_DAY
    elapsed_s = {"start": 0.0, "mid": 0.5 * integration_s, "end": integration_s}
    times = {
        f"int_{moment}_MJD_UTC": start + elapsed_s[moment] / SECONDS_PER_DAY for moment in _MOMENTS
    }
    return times | _barycentric(segment, times)


def _barycentric(segment: "Segment", times: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """The BJD_TDB of UTC times, by the correction that the header states for the exposure.

    Like the columns of INT_TIMES, as BJD_TDB - 2400000.5.
    """
    header = segment.primary
    utc, barycentric = ("EXPSTART", "EXPEND"), ("BSTRTIME", "BENDTIME")
    if all(header.get(keyword) for keyword in (*utc, *barycentric)):  # it drifts in between
        at = [header[keyword] for keyword in utc]
        late = [header[b] - header[u] for u, b in zip(utc, barycentric, strict=True)]
    else:
        _require(segment, ("BARTDELT",), "the barycentric times")
        at, late = [0.0], [header["BARTDELT"] / SECONDS_PER_DAY]
    return {
        f"int_{moment}_BJD_TDB": mjd + np.interp(mjd, at, late)
        for moment in _MOMENTS
        for mjd in [times[f"int_{moment}_MJD_UTC"]]
    }


def _require(segment: "Segment", keywords: Sequence[str], what: str) -> None:
    for keyword in keywords:
        if not isinstance(segment.primary.get(keyword), float | int):
            raise SegmentError(
                f"{segment.path}: {keyword}: expected, to reconstruct {what} that INT_TIMES "
                "lacks, got none"
            )
