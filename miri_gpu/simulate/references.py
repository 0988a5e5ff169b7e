"""Reference files that describe the simulated detector, in the formats of the JWST pipeline."""

from pathlib import Path

import numpy as np

from miri_gpu.detector import (
    CLOCKS_PER_FRAME,
    CLOCKS_PER_ROW,
    COL_START,
    DETECTOR,
    DETECTOR_SHAPE,
    DO_NOT_USE,
    EXPOSURE_TYPE,
    FRAME_TIME_S,
    INSTRUMENT,
    N_COLS,
    N_REFERENCE_COLS,
    N_ROWS,
    NO_FLAT_FIELD,
    NO_LIN_CORR,
    NO_SAT_CHECK,
    REFERENCE_PIXEL,
    ROW_START,
    SUBARRAY,
)
from miri_gpu.simulate import crds_cache, scene
from miri_gpu.simulate.settings import SimulationSettings
from miri_gpu.simulate.true_detector import TrueDetector, emi_waves

X_REF, Y_REF = 38.5, 829.0  # reference point of the slitless aperture, full detector, from 1
PIXEL_ARCSEC = 0.11
SKIPPED_GROUPS = (5, 4)  # by the rscd reference: first integration, the others


def write_references(
    cache: Path, detector: TrueDetector, settings: SimulationSettings
) -> dict[str, str]:
    """Write all reference files into a CRDS cache; returns type -> file name."""
    folder = crds_cache.reference_folder(cache)
    folder.mkdir(parents=True, exist_ok=True)
    writer = ReferenceWriter(folder)
    write_pixel_references(writer, detector, settings)
    write_ramp_references(writer, detector, settings)
    write_rscd(writer)
    write_emicorr(writer, settings)
    write_specwcs(writer, settings)
    write_geometry(writer)
    return writer.names


class ReferenceWriter:
    """Writes reference files into one folder and remembers their names."""

    def __init__(self, folder: Path):
        self.folder = folder
        self.names: dict[str, str] = {}

    def fits(self, kind: str, model: str, extensions: dict, *, full_frame=False, cards=()) -> None:
        """Write image (array) or table (structured array) extensions as one FITS file."""
        from astropy.io import fits

        header = fits.Header([*common_cards(kind, model, full_frame), *cards])
        hdus = [fits.PrimaryHDU(header=header)]
        for name, data in extensions.items():
            hdu = fits.ImageHDU if data.dtype.names is None else fits.BinTableHDU
            hdus.append(hdu(data, name=name))
        self.names[kind] = header["FILENAME"]
        fits.HDUList(hdus).writeto(self.folder / self.names[kind], overwrite=True)

    def asdf(self, kind: str, model: str, tree: dict, **meta) -> None:
        """Write a tree as one ASDF file."""
        import asdf

        self.names[kind] = crds_cache.reference_name(kind, ".asdf")
        common = {
            "reftype": kind,
            "model_type": model,
            "filename": self.names[kind],
            "telescope": "JWST",
            "author": "miri_gpu",
            "pedigree": "DUMMY",
            "description": "Simulated reference",
            "useafter": crds_cache.USE_AFTER.replace(" ", "T"),
            "instrument": {"name": INSTRUMENT, "detector": DETECTOR},
        }
        asdf.AsdfFile({"meta": common | meta, **tree}).write_to(self.folder / self.names[kind])


def common_cards(kind: str, model: str, full_frame: bool) -> list[tuple]:
    """Keywords that every FITS reference needs."""
    if full_frame:
        corner, size, name = (1, 1), (DETECTOR_SHAPE[1], DETECTOR_SHAPE[0]), "FULL"
    else:
        corner, size, name = (COL_START + 1, ROW_START + 1), (N_COLS, N_ROWS), SUBARRAY
    return [
        ("FILENAME", crds_cache.reference_name(kind, ".fits")),
        ("DATAMODL", model),
        ("REFTYPE", kind.upper()),
        ("TELESCOP", "JWST"),
        ("AUTHOR", "miri_gpu"),
        ("PEDIGREE", "DUMMY"),
        ("DESCRIP", "Simulated reference"),
        ("USEAFTER", crds_cache.USE_AFTER.replace(" ", "T")),
        ("INSTRUME", INSTRUMENT),
        ("DETECTOR", DETECTOR),
        ("FILTER", "P750L" if kind == "flat" else "N/A"),
        ("EXP_TYPE", EXPOSURE_TYPE),
        ("READPATT", "FASTR1"),
        ("SUBARRAY", name),
        ("SUBSTRT1", corner[0]),
        ("SUBSTRT2", corner[1]),
        ("SUBSIZE1", size[0]),
        ("SUBSIZE2", size[1]),
        ("FASTAXIS", 1),
        ("SLOWAXIS", 2),
    ]


def on_detector(subarray: np.ndarray, elsewhere: float) -> np.ndarray:
    """Set a subarray (..., n_rows, n_cols) into the whole detector."""
    whole = np.full((*subarray.shape[:-2], *DETECTOR_SHAPE), elsewhere, subarray.dtype)
    whole[..., ROW_START : ROW_START + N_ROWS, COL_START : COL_START + N_COLS] = subarray
    return whole


def unknown_at(detector: TrueDetector, turn: int) -> tuple:
    """Index of the pixels that the turn-th reference (of four) does not know."""
    return tuple(detector.unknown[turn::4].T)


def flags(pixels: tuple, bits: int) -> np.ndarray:
    """Data-quality image (n_rows, n_cols) with `bits` set in some pixels."""
    image = np.zeros((N_ROWS, N_COLS), np.uint32)
    image[pixels] = np.uint32(bits)
    return image


def write_pixel_references(writer, detector, settings) -> None:
    """One value for each pixel: mask, saturation, linearity, gain, read noise and flat.

    A few pixels are NaN, with the flag that says so, in one of saturation, linearity, gain, flat.
    """
    shape = (N_ROWS, N_COLS)
    mask = on_detector(detector.mask, 0)
    mask[:, :N_REFERENCE_COLS] |= np.uint32(REFERENCE_PIXEL)
    mask[:, -N_REFERENCE_COLS:] |= np.uint32(REFERENCE_PIXEL)
    writer.fits("mask", "MaskModel", {"DQ": mask}, full_frame=True)

    pixels, saturation = unknown_at(detector, 0), detector.saturation.copy()
    saturation[pixels] = np.nan
    saturation_dq = flags(pixels, NO_SAT_CHECK)
    saturation_dq[:, :N_REFERENCE_COLS] |= np.uint32(NO_SAT_CHECK)
    images = {"SCI": on_detector(saturation, settings.saturation_dn)}
    images["DQ"] = on_detector(saturation_dq, 0)
    writer.fits("saturation", "SaturationModel", images, full_frame=True)

    pixels = unknown_at(detector, 1)
    terms = np.repeat(detector.linearity[:, None, :], N_ROWS, axis=1)
    terms[(slice(None), *pixels)] = np.nan
    images = {"COEFFS": on_detector(terms, 0.0), "DQ": on_detector(flags(pixels, NO_LIN_CORR), 0)}
    images["COEFFS"][1][images["COEFFS"][1] == 0] = 1.0
    writer.fits("linearity", "LinearityModel", images, full_frame=True)

    gain = np.full(shape, settings.gain, np.float32)
    gain[unknown_at(detector, 2)] = np.nan
    writer.fits("gain", "GainModel", {"SCI": on_detector(gain, settings.gain)}, full_frame=True)

    # the reference holds the noise of a difference of two reads
    read_noise = np.full(DETECTOR_SHAPE, settings.read_noise_dn * np.sqrt(2), np.float32)
    writer.fits("readnoise", "ReadnoiseModel", {"SCI": read_noise}, full_frame=True)

    pixels, flat = unknown_at(detector, 3), detector.flat.copy()
    flat[pixels] = np.nan
    images = {"SCI": flat, "DQ": flags(pixels, NO_FLAT_FIELD | DO_NOT_USE)}
    images["ERR"] = np.full(shape, 1e-4, np.float32)
    writer.fits("flat", "FlatModel", images)


def write_ramp_references(writer, detector, settings) -> None:
    """One value for each sample: reset anomaly and dark."""
    n_groups = detector.reset.shape[1]
    cards = [("NGROUPS", n_groups), ("NINTS", 2), ("NFRAMES", 1), ("GROUPGAP", 0)]
    no_flags = np.zeros((N_ROWS, N_COLS), np.uint32)
    images = {"SCI": detector.reset, "DQ": no_flags}
    writer.fits("reset", "ResetModel", images, cards=cards)

    seconds = FRAME_TIME_S * np.arange(1, settings.n_groups + 1)[:, None, None]
    dark = (detector.dark / settings.gain * seconds).astype(np.float32)
    cards[0] = ("NGROUPS", settings.n_groups)
    images = {"SCI": np.stack([dark, dark]), "DQ": np.stack([no_flags, no_flags])[:, None]}
    writer.fits("dark", "DarkMIRIModel", images, cards=cards)


def write_rscd(writer) -> None:
    """How many first groups of an integration to leave out."""
    columns = [
        ("subarray", "S17"),
        ("readpatt", "S12"),
        ("group_skip1", "i4"),
        ("group_skip", "i4"),
    ]
    table = np.array([(SUBARRAY, "FASTR1", *SKIPPED_GROUPS)], dtype=columns)
    writer.fits("rscd", "RSCDModel", {"RSCD_GROUP_SKIP": table}, full_frame=True)


def write_emicorr(writer, settings) -> None:
    """Frequencies of the interference, their waves, and the clocks of the subarray."""
    frequencies = {
        f"Hz{int(hz)}": {"frequency": float(hz), "phase_amplitudes": [float(a) for a in wave]}
        for hz, wave in emi_waves(settings).items()
    }
    case = {
        "rowclocks": CLOCKS_PER_ROW,
        "frameclocks": CLOCKS_PER_FRAME,
        "freqs": {"FAST": list(frequencies), "SLOW": {DETECTOR: list(frequencies)}},
    }
    tree = {"frequencies": frequencies, "subarray_cases": {SUBARRAY: case}}
    writer.asdf("emicorr", "EmiModel", tree)


def write_specwcs(writer, settings) -> None:
    """Wavelength and trace, row by row from the top, relative to the reference point."""
    rows, wavelength = scene.wavelength_table()
    rows, wavelength = rows[::-1], wavelength[::-1]
    x = scene.trace_column(rows) - (X_REF - 1 - COL_START)
    y = rows - (Y_REF - 1 - ROW_START)
    left, right, up, down = x - 20, x + 20, y + 0.5, y - 0.5
    names = ("X_CENTER", "Y_CENTER", "WAVELENGTH", *(f"{a}{k}" for k in range(4) for a in "XY"))
    values = (x, y, wavelength, left, up, right, up, right, down, left, down)
    table = np.rec.fromarrays([np.asarray(v, float) for v in values], names=names)
    cards = [("IMX", 326.13), ("IMY", 300.7), ("IMXSLTL", X_REF), ("IMYSLTL", Y_REF)]
    writer.fits(
        "specwcs", "MiriLRSSpecwcsModel", {"WAVETABLE": table.view(np.ndarray)}, cards=cards
    )


def write_geometry(writer) -> None:
    """A flat, undistorted sky: pixels to V2, V3 by a shift, a scale and a rotation."""
    from astropy import units
    from astropy.modeling import models

    angle = np.deg2rad(4.83425324)
    matrix = PIXEL_ARCSEC * np.array(
        [[-np.cos(angle), np.sin(angle)], [np.sin(angle), np.cos(angle)]]
    )
    model = (
        models.Shift(-(X_REF - 1)) & models.Shift(-(Y_REF - 1))
        | models.AffineTransformation2D(matrix)
        | models.Shift(-378.832074) & models.Shift(-344.944543)
    )
    writer.asdf(
        "distortion",
        "DistortionModel",
        {"model": model},
        exposure={"type": EXPOSURE_TYPE, "p_exptype": f"{EXPOSURE_TYPE}|"},
        input_units=units.pix,
        output_units=units.arcsec,
    )
    offsets = [{"filter": "P750L", "pupil": "N/A", "column_offset": 0.0, "row_offset": 0.0}]
    writer.asdf(
        "filteroffset",
        "FilteroffsetModel",
        {"filters": offsets},
        exposure={"type": EXPOSURE_TYPE},
        input_units="pixels",
    )
