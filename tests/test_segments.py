"""Segments on disk: order, what is refused, times, and pixels by block."""

import gzip
import logging
import os
from pathlib import Path

import numpy as np
import pytest
from astropy.io import fits
from shell_cases import edited

from miri_gpu.errors import SegmentError
from miri_gpu.integration_times import TIME_COLUMNS
from miri_gpu.segments import open_segment, open_segments


@pytest.fixture(scope="module")
def small(observation, tmp_path_factory):
    """A raw segment of two integrations: quick to copy with a fault."""
    path = tmp_path_factory.mktemp("small") / "small_uncal.fits"

    def cut(hdus):
        hdus["SCI"].data = hdus["SCI"].data[:2, :3]
        hdus["INT_TIMES"].data = hdus["INT_TIMES"].data[:2]

    return edited(observation.segments[0], path, change=cut, NGROUPS=3, INTEND=2)


@pytest.fixture
def variant(small, tmp_path):
    """Writes the small segment with a fault."""

    def write(name="faulty_uncal.fits", **changes):
        return edited(small, tmp_path / name, **changes)

    return write


def refusal(*paths, partial=False) -> str:
    """The message with which segments are refused, which is one line."""
    with pytest.raises(SegmentError) as caught:
        open_segments(paths, partial=partial)
    message = str(caught.value)
    assert "\n" not in message
    return message


# --- which segments


def test_segments_are_sorted_by_number_and_know_what_they_are(observation):
    first, second = open_segments(observation.segments[::-1])
    assert (first.number, second.number) == (1, 2)
    assert first.path == observation.segments[0]
    assert (first.first_integration, second.first_integration) == (0, 6)
    assert first.shape == (6, 12, 416, 72)
    assert first.holds_ramps
    assert first.target == "SIMULATED-STAR"
    assert first.readout.group_time_s == 0.15904
    assert second.readout.first_integration == 6


def test_one_segment_needs_no_list(observation):
    (segment,) = open_segments(str(observation.segments[0]), partial=True)
    assert segment.number == 1


def test_no_segment_at_all_is_refused():
    assert "at least one" in refusal()


def test_a_missing_segment_is_refused_by_number_unless_partial(observation):
    assert "missing segment 1 of 2 " in refusal(observation.segments[1])
    assert "missing segment 2 of 2 " in refusal(observation.segments[0])
    (segment,) = open_segments([observation.segments[1]], partial=True)
    assert segment.number == 2


def test_missing_segments_are_all_named(variant):
    assert "missing segments 1, 3 of 3 " in refusal(variant(EXSEGNUM=2, EXSEGTOT=3, INTSTART=3))


def test_a_repeated_segment_is_refused_and_both_files_named(observation):
    first, second = observation.segments
    message = refusal(first, second, first)
    assert str(first) in message and "repeated" in message


@pytest.mark.parametrize("keyword", ["PROGRAM", "OBSERVTN", "VISIT", "ACT_ID", "EXPOSURE"])
def test_segments_of_different_observations_are_refused(variant, keyword):
    one = variant("one.fits", EXSEGNUM=1)
    two = variant("two.fits", EXSEGNUM=2, INTSTART=3, INTEND=4, **{keyword: "09"})
    message = refusal(one, two)
    assert str(two) in message and str(one) in message and keyword in message


@pytest.mark.parametrize(
    "other", [{"TGROUP": 2.77}, {"NFRAMES": 4}, {"READPATT": "SLOWR1"}, {"EXSEGTOT": 3}]
)
def test_segments_that_were_read_out_in_other_ways_are_refused(variant, other):
    one = variant("one.fits", EXSEGNUM=1)
    two = variant("two.fits", EXSEGNUM=2, INTSTART=3, INTEND=4, **other)
    [(keyword, value)] = other.items()
    message = refusal(one, two)
    assert f"{keyword}: expected " in message and f"got {value}" in message


def test_rate_images_with_and_without_the_flat_field_are_refused(variant):
    def fit(hdus):
        hdus["SCI"].data = hdus["SCI"].data[:, 0].astype(np.float32)
        hdus["SCI"].header["BUNIT"] = "DN/s"

    one = variant("one.fits", change=fit, EXSEGNUM=1, S_FLAT="COMPLETE")
    two = variant("two.fits", change=fit, EXSEGNUM=2, INTSTART=3, INTEND=4)
    message = refusal(one, two)
    assert str(two) in message and "S_FLAT: expected all" in message and str(one) in message
    assert len(open_segments([variant("three.fits", change=fit)], partial=True)) == 1


def test_a_pipe_is_not_waited_for(tmp_path):
    path = tmp_path / "pipe_uncal.fits"
    os.mkfifo(path)
    assert f"{path}: expected a FITS file" in refusal(path)


def test_a_segment_of_a_longer_exposure_is_refused(variant):
    one = variant("one.fits", EXSEGNUM=1)
    two = variant("two.fits", EXSEGNUM=2, EXSEGTOT=3, INTSTART=3)
    assert "EXSEGTOT: expected 2, got 3" in refusal(one, two)


def test_a_number_beyond_the_number_of_segments_is_refused(variant):
    message = refusal(variant(EXSEGNUM=3), partial=True)
    assert "EXSEGNUM: expected 1 to 2" in message and "got 3" in message


def test_segments_that_overlap_in_time_are_refused(variant):
    one, two = variant("one.fits"), variant("two.fits", EXSEGNUM=2, INTSTART=2)
    message = refusal(one, two)
    assert str(two) in message and "INTSTART" in message


def test_a_single_segment_needs_no_numbers(variant):
    path = variant(EXSEGNUM=None, EXSEGTOT=None, INTSTART=None, INTEND=None)
    (segment,) = open_segments([path])
    assert (segment.number, segment.first_integration) == (1, 0)


# --- what a file must be


def test_no_such_file(tmp_path):
    assert refusal(tmp_path / "absent.fits") == f"{tmp_path / 'absent.fits'}: no such file"


def test_a_directory(tmp_path):
    assert refusal(tmp_path) == f"{tmp_path}: expected a FITS file, got a folder"


def test_a_directory_with_segments_in_it_or_beside_it(tmp_path):
    (tmp_path / "crds").mkdir()
    for kind in ("rateints", "uncal"):  # where there are both, raw ones
        (tmp_path / f"x_{kind}.fits").touch()
        for folder in (tmp_path, tmp_path / "crds"):
            message = refusal(folder)
            assert message.endswith(f"got a folder (give {tmp_path}/*_{kind}.fits)")


@pytest.mark.parametrize("content", [b"", b"SIMPL", b"nonsense" * 1000, b"\x89HDF\r\n" * 600])
def test_not_fits(tmp_path, content):
    path = tmp_path / "note_uncal.fits"
    path.write_bytes(content)
    assert f"{path}: not a FITS file" in refusal(path)


@pytest.mark.parametrize("content", [b"SIMPLE", b"SIMPLE  =  T" + b" " * 3000, b"SIMPLE" * 2000])
def test_fits_in_its_first_letters_only(tmp_path, content):
    path = tmp_path / "note_uncal.fits"
    path.write_bytes(content)
    assert str(path) in refusal(path)


def test_compressed(small, tmp_path):
    path = tmp_path / "small_uncal.fits.gz"
    path.write_bytes(gzip.compress(small.read_bytes(), 1))
    assert "gunzip" in refusal(path)


def test_truncated_anywhere(small, tmp_path):
    """Cut at many places: refused, or whole in its pixels and with reconstructed times."""
    whole = small.read_bytes()
    with fits.open(small) as hdus:
        end_of_pixels = hdus["SCI"].fileinfo()["datLoc"] + hdus["SCI"].size
    cuts = {1, 80, 2880, 5000, *range(6000, len(whole), len(whole) // 15), end_of_pixels - 1}
    path = tmp_path / "cut_uncal.fits"
    for cut in sorted(cuts):
        path.write_bytes(whole[:cut])
        if cut < end_of_pixels:
            assert str(path) in refusal(path)
    for cut in (end_of_pixels, end_of_pixels + 100, len(whole) - 100_000, len(whole) - 2880):
        path.write_bytes(whole[:cut])
        try:
            segment = open_segment(path)
        except SegmentError as error:
            assert str(path) in str(error)
        else:
            assert np.isfinite(segment.times["int_mid_BJD_TDB"]).all()


@pytest.mark.parametrize(
    ("card", "expected"),
    [
        ({"INSTRUME": "NIRSPEC"}, "INSTRUME: expected MIRI, got NIRSPEC"),
        ({"EXP_TYPE": "MIR_IMAGE"}, "EXP_TYPE: expected MIR_LRS-SLITLESS, got MIR_IMAGE"),
        ({"EXP_TYPE": None}, "EXP_TYPE: expected MIR_LRS-SLITLESS, got None"),
        ({"FILTER": "F770W"}, "FILTER: expected P750L, got F770W"),
        ({"SUBARRAY": "FULL"}, "SUBARRAY: expected SLITLESSPRISM, got FULL"),
        ({"NGROUPS": None}, "NGROUPS: expected the number of groups"),
        ({"NGROUPS": 4}, "expected NGROUPS = 4 groups, got 3"),
        ({"TGROUP": 0.0}, "TGROUP: expected a time above 0 s, got 0.0"),
        ({"TGROUP": "abc"}, "TGROUP: expected a time above 0 s, got abc"),
        ({"TFRAME": -1}, "TFRAME: expected a time above 0 s, got -1"),
        ({"NFRAMES": "four"}, "NFRAMES: expected 1 or more, got four"),
        ({"GROUPGAP": -3}, "GROUPGAP: expected 0 or more, got -3"),
        ({"INTSTART": "x"}, "INTSTART: expected 1 or more, got x"),
        ({"NRESETS": "none"}, "NRESETS: expected 0 or more, got none"),
    ],
)
def test_another_mode(variant, card, expected):
    path = variant(**card)
    message = refusal(path)
    assert str(path) in message and expected in message


def test_no_samples(variant):
    assert "SCI" in refusal(variant(change=lambda hdus: hdus.pop(hdus.index_of("SCI"))))


def test_one_group(variant):
    def cut(hdus):
        hdus["SCI"].data = hdus["SCI"].data[:, :1]

    assert "NGROUPS: expected at least 2 groups" in refusal(variant(change=cut, NGROUPS=1))


def test_other_shapes(variant):
    def one_frame(hdus):
        hdus["SCI"].data = hdus["SCI"].data[0, 0]

    def fewer_rows(hdus):
        hdus["SCI"].data = hdus["SCI"].data[:, :, :400]

    def signed(hdus):
        hdus["SCI"].data = hdus["SCI"].data.astype(np.int16)

    def doubles(hdus):
        hdus["SCI"].data = hdus["SCI"].data.astype(np.float64)

    def empty(hdus):
        hdus["SCI"].data = None

    assert "4 axes" in refusal(variant("a.fits", change=one_frame))
    assert "400 x 72" in refusal(variant("b.fits", change=fewer_rows))
    assert "BITPIX = -64" in refusal(variant("c.fits", change=doubles))
    assert "4 axes" in refusal(variant("d.fits", change=empty))
    assert "BZERO = 0" in refusal(variant("e.fits", change=signed))


# --- times


def changed_times(change):
    """A function of the HDUList that changes its INT_TIMES table."""

    def apply(hdus):
        index = hdus.index_of("INT_TIMES")
        table = change(np.array(hdus[index].data))
        hdus[index] = fits.BinTableHDU(table, name="INT_TIMES")

    return apply


def without_times(hdus):
    hdus.pop(hdus.index_of("INT_TIMES"))


def not_set(table):
    for column in TIME_COLUMNS[3:]:
        table[column] = 0.0
    return table


def two_columns(table):
    return table[["integration_number", TIME_COLUMNS[0]]].copy()


@pytest.mark.parametrize(
    ("change", "found"),
    [
        (without_times, "got none"),
        (changed_times(lambda table: table[:1]), "got 1 others"),
        (changed_times(lambda table: table[:0]), "got 0 others"),
        (changed_times(two_columns), "got no int_mid_MJD_UTC"),
        (changed_times(not_set), "got none in BJD_TDB: barycentric times"),
    ],
)
def test_times_are_reconstructed_with_a_warning(observation, tmp_path, caplog, change, found):
    """From the header alone, to a millisecond, in the second segment of the exposure."""
    true = open_segment(observation.segments[1]).times
    path = edited(observation.segments[1], tmp_path / "x_uncal.fits", change=change)
    with caplog.at_level(logging.WARNING, "miri_gpu"):
        times = open_segment(path).times
    assert str(path) in caplog.text and found in caplog.text
    for column in TIME_COLUMNS:
        np.testing.assert_allclose(times[column], true[column], rtol=0, atol=1e-3 / 86400)


def test_times_of_a_longer_table_are_found_by_number(observation, tmp_path, caplog):
    tables = [fits.getdata(path, "INT_TIMES") for path in observation.segments]

    def whole_exposure(_):
        return np.concatenate([np.array(t) for t in tables])[::-1].copy()

    path = edited(
        observation.segments[1], tmp_path / "x_uncal.fits", change=changed_times(whole_exposure)
    )
    times = open_segment(path).times
    true = open_segment(observation.segments[1]).times
    assert all(np.array_equal(times[column], true[column]) for column in TIME_COLUMNS)
    assert not caplog.records


@pytest.mark.parametrize("keyword", ["EXPSTART", "TFRAME", "BARTDELT"])
def test_times_that_cannot_be_reconstructed_are_refused(variant, keyword):
    path = variant(change=without_times, **{keyword: None})
    message = refusal(path)
    assert str(path) in message and keyword in message


def test_the_barycentric_correction_may_drift_over_the_exposure(variant):
    drift_s = 2.0

    def drifting(hdus):
        without_times(hdus)
        header = hdus[0].header
        header["BSTRTIME"] = header["EXPSTART"] + 100.0 / 86400
        header["BENDTIME"] = header["EXPEND"] + (100.0 + drift_s) / 86400

    times = open_segment(variant(change=drifting)).times
    late_s = (times["int_start_BJD_TDB"] - times["int_start_MJD_UTC"]) * 86400
    assert abs(late_s[0] - 100.0) < 1e-3
    assert 0 < late_s[1] - late_s[0] < drift_s


def test_times_of_a_real_header(tmp_path, caplog):
    """STScI's own test file: INT_TIMES of 3 for 10 integrations, and no barycentric times in it."""
    import jwst

    source = Path(jwst.__file__).parent / "stpipe" / "tests" / "data" / "miri_data.fits"
    if not source.exists():
        pytest.skip("this jwst comes without its test data")
    segment = open_segment(edited(source, tmp_path / "real_rateints.fits", BUNIT="DN/s"))
    assert segment.shape == (10, 416, 72) and not segment.holds_ramps
    assert "got 3 others" in caplog.text
    header, times = segment.primary, segment.times
    cadence_s = np.diff(times["int_start_MJD_UTC"]) * 86400
    np.testing.assert_allclose(cadence_s, 6 * 0.15904, atol=1e-4)
    assert times["int_start_MJD_UTC"][0] == header["EXPSTART"]
    late_s = (times["int_start_BJD_TDB"] - times["int_start_MJD_UTC"]) * 86400
    np.testing.assert_allclose(late_s, header["BARTDELT"], atol=0.1)


# --- what is refused, what is made up for


def test_ramps_that_are_calibrated_already_are_refused(observation, tmp_path):
    """They would lose their dark, and be straightened, a second time."""
    path = edited(observation.segments[0], tmp_path / "x_ramp.fits", S_DARK="COMPLETE")
    with pytest.raises(SegmentError, match=r"x_ramp.fits: expected raw ramps.*S_DARK = COMPLETE"):
        open_segment(path)


def test_a_card_without_a_value_counts_as_absent(observation, tmp_path):
    def empty(hdus):
        for keyword in ("INTSTART", "TGROUP", "DRPFRMS1"):
            hdus[0].header[keyword] = fits.card.UNDEFINED

    path = edited(observation.segments[0], tmp_path / "x_uncal.fits", change=empty)
    segment = open_segment(path)
    assert segment.first_integration == 0
    assert segment.readout.group_time_s == pytest.approx(0.15904)
    assert segment.readout.drop_frames1 == 0
