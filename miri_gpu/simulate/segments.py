"""Raw segments: FITS files as the observatory's archive delivers them, written in a stream."""

from collections.abc import Iterable
from io import BytesIO
from pathlib import Path
from typing import BinaryIO

import numpy as np

from miri_gpu.detector import (
    COL_START,
    DETECTOR,
    EXPOSURE_TYPE,
    FRAME_TIME_S,
    INSTRUMENT,
    N_COLS,
    N_ROWS,
    ROW_START,
    SUBARRAY,
)
from miri_gpu.simulate.settings import SimulationSettings

START_MJD = 60000.25  # 2023-02-25T06:00:00 UTC
BARYCENTRE_S = 69.184 + 123.4  # TDB - UTC and the light's way to the solar system's barycentre
PROGRAM, OBSERVATION, VISIT = "01234", "001", "001"
TIME_COLUMNS = (
    "int_start_MJD_UTC", "int_mid_MJD_UTC", "int_end_MJD_UTC",
    "int_start_BJD_TDB", "int_mid_BJD_TDB", "int_end_BJD_TDB",
)  # fmt: skip
BLOCK_BYTES = 2880  # FITS pads every part to whole blocks


def segment_name(segment: int | str) -> str:
    """File name of a segment, counted from 1 (or a pattern for all of them: "*")."""
    number = segment if isinstance(segment, str) else f"{segment:03d}"
    return f"jw{PROGRAM}{OBSERVATION}{VISIT}_04103_00001-seg{number}_mirimage_uncal.fits"


def write_segment(
    folder: Path, segment: int, settings: SimulationSettings, samples: Iterable[np.ndarray]
) -> Path:
    """Write one segment, an integration at a time; the file appears once it is complete.

    Parameters
    ----------
    segment : int
        Number of the segment, from 1.
    samples : iterable of (n_groups, n_rows, n_cols) uint16
        Each integration of the segment in turn.
    """
    from astropy.io import fits

    path = folder / segment_name(segment)
    partial = path.with_suffix(".part")
    first, end = settings.segment_bounds[segment - 1]
    primary = fits.PrimaryHDU(header=fits.Header(primary_cards(segment, settings)))
    times = integration_times(first, end, settings)
    try:
        with open(partial, "wb") as file:
            file.write(primary.header.tostring().encode("ascii"))
            file.write(science_header(end - first, settings).tostring().encode("ascii"))
            n_bytes = sum(file.write(as_stored(integration)) for integration in samples)
            file.write(bytes(-n_bytes % BLOCK_BYTES))
            append_table(file, "INT_TIMES", times)
            append_table(file, "ASDF", metadata_tree())
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)
    return path


def append_table(file: BinaryIO, name: str, table: np.ndarray) -> None:
    """Append a structured, big-endian array as a binary table."""
    from astropy.io import fits

    header = fits.BinTableHDU(table, name=name).header
    file.write(header.tostring().encode("ascii"))
    file.write(table.tobytes())
    file.write(bytes(-table.nbytes % BLOCK_BYTES))


def metadata_tree() -> np.ndarray:
    """The embedded ASDF tree that pipelines look for: next to nothing, the headers say it all."""
    import asdf

    buffer = BytesIO()
    asdf.AsdfFile({"meta": {"model_type": "Level1bModel", "telescope": "JWST"}}).write_to(buffer)
    content = np.frombuffer(buffer.getvalue(), np.uint8)
    return np.array([(content,)], [("ASDF_METADATA", np.uint8, content.shape)])


def as_stored(samples: np.ndarray) -> bytes:
    """Samples as FITS keeps unsigned 16-bit numbers: big-endian, 32768 (BZERO) taken off."""
    return (samples ^ np.uint16(0x8000)).astype(">u2").tobytes()


def integration_times(first: int, end: int, settings: SimulationSettings) -> np.ndarray:
    """The INT_TIMES table of integrations first..end-1: start, middle and end in two systems."""
    times = np.zeros(
        end - first, [("integration_number", ">i4"), *((c, ">f8") for c in TIME_COLUMNS)]
    )
    index = np.arange(first, end)
    times["integration_number"] = index + 1
    exposed_s = settings.n_groups * FRAME_TIME_S
    for moment, elapsed_s in (("start", 0.0), ("mid", exposed_s / 2), ("end", exposed_s)):
        mjd = START_MJD + (index * settings.integration_period_s + elapsed_s) / 86400
        times[f"int_{moment}_MJD_UTC"] = mjd
        times[f"int_{moment}_BJD_TDB"] = mjd + BARYCENTRE_S / 86400
    return times


def science_header(n_ints: int, settings: SimulationSettings):
    """Header of the SCI extension: its shape, and where the telescope points."""
    from astropy.io import fits

    shape = (n_ints, settings.n_groups, N_ROWS, N_COLS)
    axes = [(f"NAXIS{k + 1}", n) for k, n in enumerate(reversed(shape))]
    return fits.Header(
        [("XTENSION", "IMAGE", "Image extension"), ("BITPIX", 16), ("NAXIS", 4), *axes]
        + [("PCOUNT", 0), ("GCOUNT", 1), ("BSCALE", 1), ("BZERO", 32768), ("EXTNAME", "SCI")]
        + [("BUNIT", "DN"), ("SRCTYPE", "POINT"), *POINTING_CARDS]
    )


POINTING_CARDS = (
    ("RADESYS", "ICRS", "Name of the coordinate reference frame"),
    ("RA_V1", 98.74677933, "[deg] RA of telescope V1 axis"),
    ("DEC_V1", -66.96863002, "[deg] Dec of telescope V1 axis"),
    ("PA_V3", 144.41284641, "[deg] Position angle of telescope V3 axis"),
    ("WCSAXES", 3, "number of World Coordinate System axes"),
    ("CRPIX1", 38.5, "axis 1 coordinate of the reference pixel"),
    ("CRPIX2", 301.0, "axis 2 coordinate of the reference pixel"),
    ("CRPIX3", 0.0, "axis 3 coordinate of the reference pixel"),
    ("CRVAL1", 98.82255848, "first axis value at the reference pixel"),
    ("CRVAL2", -66.82945153, "second axis value at the reference pixel"),
    ("CRVAL3", 0.0, "third axis value at the reference pixel"),
    ("CTYPE1", "RA---TAN", "first axis coordinate type"),
    ("CTYPE2", "DEC--TAN", "second axis coordinate type"),
    ("CTYPE3", "WAVE", "third axis coordinate type"),
    ("CUNIT1", "deg", "first axis units"),
    ("CUNIT2", "deg", "second axis units"),
    ("CUNIT3", "um", "third axis units"),
    ("CDELT1", 3.06e-5, "first axis increment per pixel"),
    ("CDELT2", 3.06e-5, "second axis increment per pixel"),
    ("CDELT3", 0.02, "third axis increment per pixel"),
    ("PC1_1", -1.0, "linear transformation matrix element"),
    ("PC1_2", 0.0, "linear transformation matrix element"),
    ("PC2_1", 0.0, "linear transformation matrix element"),
    ("PC2_2", 1.0, "linear transformation matrix element"),
    ("DISPAXIS", 2, "Dispersion direction"),
    ("V2_REF", -378.832074, "[arcsec] v2 of the reference point"),
    ("V3_REF", -344.944543, "[arcsec] v3 of the reference point"),
    ("VPARITY", -1, "sense of rotation between Ideal xy and V2V3"),
    ("V3I_YANG", 4.83425324, "[deg] Angle from V3 axis to Ideal y axis"),
    ("RA_REF", 98.82255848, "[deg] Right ascension of the reference point"),
    ("DEC_REF", -66.82945153, "[deg] Declination of the reference point"),
    ("ROLL_REF", 144.34352079, "[deg] V3 roll angle at the ref point (N over E)"),
    ("VA_SCALE", 1.0, "Velocity aberration scale factor"),
    ("PA_APER", 149.17730897, "[deg] Position angle of aperture used"),
)


def primary_cards(segment: int, settings: SimulationSettings) -> list[tuple]:
    """Keywords of the primary header, grouped as the archive groups them."""
    from astropy.time import Time

    first, end = settings.segment_bounds[segment - 1]
    duration_s = settings.n_ints * settings.integration_period_s
    moments = [START_MJD, START_MJD + duration_s / 2 / 86400, START_MJD + duration_s / 86400]
    begin, middle, finish = Time(moments, format="mjd", scale="utc", precision=3).isot
    exposed_s = settings.n_groups * FRAME_TIME_S
    observation_id = PROGRAM + OBSERVATION + VISIT
    return [
        ("FILENAME", segment_name(segment)),
        ("FILETYPE", "UNCALIBRATED", "Type of data in the file"),
        ("DATAMODL", "Level1bModel", "Type of data model"),
        ("ORIGIN", "miri_gpu", "Organization responsible for creating file"),
        ("TELESCOP", "JWST", "Telescope used to acquire the data"),
        ("TIMESYS", "UTC", "principal time system for time-related keywords"),
        ("TITLE", "Simulated transit", "Proposal title"),
        ("DATE-OBS", begin[:10], "[yyyy-mm-dd] UTC date at start of exposure"),
        ("TIME-OBS", begin[11:], "[hh:mm:ss.sss] UTC time at start of exposure"),
        ("DATE-BEG", begin, "Date-time start of exposure"),
        ("DATE-AVG", middle, "Date-time middle of exposure"),
        ("DATE-END", finish, "Date-time end of exposure"),
        ("OBS_ID", f"V{observation_id}P0000000004103", "Programmatic observation identifier"),
        ("VISIT_ID", observation_id, "Visit identifier"),
        ("PROGRAM", PROGRAM, "Program number"),
        ("OBSERVTN", OBSERVATION, "Observation number"),
        ("VISIT", VISIT, "Visit number"),
        ("VISITGRP", "04", "Visit group identifier"),
        ("SEQ_ID", "1", "Parallel sequence identifier"),
        ("ACT_ID", "03", "Activity identifier"),
        ("EXPOSURE", "1", "Exposure request number"),
        ("TEMPLATE", "MIRI Low Resolution Spectroscopy", "Observation template used"),
        ("VISITYPE", "PRIME_TARGETED_FIXED", "Visit type"),
        ("TSOVISIT", True, "Time Series Observation visit indicator"),
        ("BKGDTARG", False, "Background target"),
        ("TARGPROP", "SIMULATED-STAR", "Proposer's name for the target"),
        ("TARGNAME", "SIMULATED-STAR", "Standard astronomical catalog name for target"),
        ("TARGTYPE", "FIXED", "Type of target (fixed, moving, generic)"),
        ("TARG_RA", 98.82255848, "Target RA at mid time of exposure"),
        ("TARG_DEC", -66.82945153, "Target Dec at mid time of exposure"),
        ("SRCTYAPT", "POINT", "Source type from APT (point/extended)"),
        ("INSTRUME", INSTRUMENT, "Instrument used to acquire the data"),
        ("DETECTOR", DETECTOR, "Name of detector used to acquire the data"),
        ("FILTER", "P750L", "Name of the filter element used"),
        ("CCCSTATE", "OPEN", "Contamination control cover state"),
        ("LAMP", "OFF", "Internal lamp state"),
        ("EXP_TYPE", EXPOSURE_TYPE, "Type of data in the exposure"),
        ("EXPRIPAR", "PRIME", "Prime or parallel exposure"),
        ("EXPSTART", moments[0], "UTC exposure start time"),
        ("EXPMID", moments[1], "UTC exposure mid time"),
        ("EXPEND", moments[2], "UTC exposure end time"),
        ("READPATT", "FASTR1", "Readout pattern"),
        ("NINTS", settings.n_ints, "Number of integrations in exposure"),
        ("NGROUPS", settings.n_groups, "Number of groups in integration"),
        ("NFRAMES", 1, "Number of frames per group"),
        ("FRMDIVSR", 1, "Divisor applied to frame-averaged groups"),
        ("GROUPGAP", 0, "Number of frames dropped between groups"),
        ("DRPFRMS1", 0, "Frames dropped at start of each integration"),
        ("DRPFRMS3", 0, "Frames dropped at end of each integration"),
        ("NSAMPLES", 1, "Number of A/D samples per pixel"),
        ("TSAMPLE", 10.0, "[us] Time between samples"),
        ("TFRAME", FRAME_TIME_S, "[s] Time between frames"),
        ("TGROUP", FRAME_TIME_S, "[s] Time between groups"),
        ("EFFINTTM", exposed_s, "[s] Effective integration time"),
        ("EFFEXPTM", exposed_s * settings.n_ints, "[s] Effective exposure time"),
        ("DURATION", duration_s, "[s] Total duration of exposure"),
        ("NRSTSTRT", 1, "Number of resets at start of exposure"),
        ("NRESETS", 1, "Number of resets between integrations"),
        ("ZEROFRAM", False, "Zero frame was downlinked separately"),
        ("DATAPROB", False, "Science telemetry indicated a problem"),
        ("EXSEGNUM", segment, "Sequential segment number"),
        ("EXSEGTOT", settings.n_segments, "Total number of segments"),
        ("INTSTART", first + 1, "Starting integration number in this segment"),
        ("INTEND", end, "Ending integration number in this segment"),
        ("SUBARRAY", SUBARRAY, "Subarray used"),
        ("SUBSTRT1", COL_START + 1, "Starting pixel in axis 1 direction"),
        ("SUBSTRT2", ROW_START + 1, "Starting pixel in axis 2 direction"),
        ("SUBSIZE1", N_COLS, "Number of pixels in axis 1 direction"),
        ("SUBSIZE2", N_ROWS, "Number of pixels in axis 2 direction"),
        ("FASTAXIS", 1, "Fast readout axis direction"),
        ("SLOWAXIS", 2, "Slow readout axis direction"),
        ("PATT_NUM", 1, "Position number in primary pattern"),
        ("NUMDTHPT", 1, "Total number of points in pattern"),
        ("XOFFSET", 0.0, "x offset from pattern starting position"),
        ("YOFFSET", 0.0, "y offset from pattern starting position"),
        ("APERNAME", "MIRIM_SLITLESSPRISM", "PRD science aperture used"),
        ("BARTDELT", BARYCENTRE_S, "Barycentric time correction"),
    ]
