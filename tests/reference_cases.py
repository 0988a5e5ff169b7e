"""A small detector with a subarray, and its reference files as STScI's data models write them."""

import numpy as np

ROW_START, COL_START, N_ROWS, N_COLS = 9, 0, 30, 16  # of the subarray, from 0
DETECTOR = (60, 24)
PATTERN = "FASTR1"
OWN_BITS = [(0, 1, "DO_NOT_USE"), (1, 2, "NO_LIN_CORR"), (2, 4, "HOT"), (3, 8, "NOT_A_FLAG")]


def observation_header(**cards):
    """Primary header of a segment that the small detector took."""
    from astropy.io import fits

    values = {
        "TELESCOP": "JWST", "INSTRUME": "MIRI", "DETECTOR": "MIRIMAGE", "FILTER": "P750L",
        "DATE-OBS": "2023-01-02", "TIME-OBS": "03:04:05.000", "EXP_TYPE": "MIR_LRS-SLITLESS",
        "READPATT": PATTERN, "SUBARRAY": "SLITLESSPRISM",
        "SUBSTRT1": COL_START + 1, "SUBSTRT2": ROW_START + 1,
        "SUBSIZE1": N_COLS, "SUBSIZE2": N_ROWS, "NGROUPS": 5, "NFRAMES": 1, "GROUPGAP": 0,
    }  # fmt: skip
    header = fits.Header(list((values | cards).items()))
    for keyword in [keyword for keyword, value in cards.items() if value is None]:
        del header[keyword]
    return header


def science_model():
    """The same exposure as a model of STScI's steps."""
    from stdatamodels.jwst import datamodels

    model = datamodels.RampModel((1, 5, N_ROWS, N_COLS))
    fill_meta(model, whole=False)
    return model


def fill_meta(model, whole: bool, reftype: str | None = None) -> None:
    """Keywords that STScI's reference models ask for."""
    describe(model, reftype)
    subarray = model.meta.subarray
    subarray.xstart, subarray.ystart = (1, 1) if whole else (COL_START + 1, ROW_START + 1)
    subarray.ysize, subarray.xsize = DETECTOR if whole else (N_ROWS, N_COLS)


def describe(model, reftype: str | None = None) -> None:
    """The keywords that also models without a place on the detector ask for."""
    model.meta.instrument.name, model.meta.instrument.detector = "MIRI", "MIRIMAGE"
    if reftype is not None:
        model.meta.reftype, model.meta.author, model.meta.pedigree = reftype, "test", "DUMMY"
        model.meta.useafter, model.meta.description = "2020-01-01T00:00:00", "test"


def write_references(folder) -> dict[str, str]:
    """Write one file of each type into a folder: type -> file name."""
    from stdatamodels.jwst import datamodels

    rng = np.random.default_rng(3)
    own = np.array(
        [(*row, "") for row in OWN_BITS],
        dtype=[("BIT", "u4"), ("VALUE", "u4"), ("NAME", "S40"), ("DESCRIPTION", "S80")],
    )

    def dq(shape):
        return rng.choice([0, 0, 0, 1, 1 << 20, 1 << 11 | 1], shape).astype(np.uint32)

    def own_dq(shape):  # in the bits that the file's own table names
        return rng.choice([0, 0, 0, 1, 2, 4, 4 | 1], shape).astype(np.uint32)

    def values(shape):
        return rng.normal(100, 5, shape).astype(np.float32)

    area = (N_ROWS, N_COLS)
    saturation = values(DETECTOR)
    saturation[ROW_START + 2, 3] = np.nan
    models = {
        "mask": datamodels.MaskModel(dq=own_dq(DETECTOR), dq_def=own),
        "saturation": datamodels.SaturationModel(data=saturation, dq=own_dq(DETECTOR), dq_def=own),
        "linearity": datamodels.LinearityModel(coeffs=values((4, *DETECTOR)), dq=dq(DETECTOR)),
        "gain": datamodels.GainModel(data=values(DETECTOR)),
        "readnoise": datamodels.ReadnoiseModel(data=values(DETECTOR)),
        "reset": datamodels.ResetModel(data=values((2, 9, *area)), dq=own_dq(area), dq_def=own),
        "dark": datamodels.DarkMIRIModel(data=values((2, 8, *area)), dq=dq((2, 1, *area))),
        "flat": datamodels.FlatModel(
            data=values(area), err=values(area), dq=own_dq(area), dq_def=own
        ),
    }
    models["reset"].meta.exposure.nints, models["reset"].meta.exposure.ngroups = 2, 7
    models["dark"].meta.exposure.nframes, models["dark"].meta.exposure.groupgap = 1, 0
    models["dark"].meta.exposure.average_dark_current = 0.25
    models["gain"].meta.exposure.gain_factor = 2.5
    names = {}
    for reftype, model in models.items():
        fill_meta(model, model.shape[-2:] == DETECTOR, reftype)
        names[reftype] = f"jwst_miri_{reftype}_0007.fits"
        model.save(folder / names[reftype])
    names["specwcs"] = write_specwcs(folder)
    names["rscd"], names["emicorr"] = write_rscd(folder), write_emicorr(folder)
    set_unknown_bit(folder / names["mask"])
    return names


def set_unknown_bit(path) -> None:
    """Set, in one pixel of the subarray, a bit whose name is no flag (models do not write it)."""
    from astropy.io import fits

    with fits.open(path, mode="update") as hdus:
        hdus["DQ"].data[ROW_START, 0] = 8


def write_specwcs(folder) -> str:
    """A straight dispersion of 0.1 um per row around the subarray's row 15."""
    from stdatamodels.jwst import datamodels

    y = np.arange(10.0, -11.0, -1.0)
    names = ("x_center", "y_center", "wavelength", "x0", "y0", "x1", "y1", "x2", "y2", "x3", "y3")
    table = np.zeros(len(y), dtype=[(name, "f8") for name in names])
    table["y_center"], table["wavelength"] = y, 8 - 0.1 * y
    table["y0"], table["y2"] = y + 0.5, y - 0.5
    model = datamodels.MiriLRSSpecwcsModel(
        wavetable=table, x_ref=1.0, y_ref=1.0, x_ref_slitless=5.0, y_ref_slitless=ROW_START + 16.0
    )
    fill_meta(model, False, "specwcs")
    name = "jwst_miri_specwcs_0007.fits"
    model.save(folder / name)
    return name


def write_rscd(folder) -> str:
    """Groups to skip of three read-out patterns."""
    from stdatamodels.jwst import datamodels

    columns = [
        ("subarray", "S17"),
        ("readpatt", "S12"),
        ("group_skip1", "i4"),
        ("group_skip", "i4"),
    ]
    rows = [
        ("FULL", PATTERN, 9, 9),
        ("SLITLESSPRISM", "SLOWR1", 8, 7),
        ("SLITLESSPRISM", PATTERN, 5, 4),
        ("MASK1140", PATTERN, -1, 3),
    ]
    model = datamodels.RSCDModel(rscd_group_skip_table=np.array(rows, dtype=columns))
    describe(model, "rscd")
    name = "jwst_miri_rscd_0007.fits"
    model.save(folder / name)
    return name


def emi_tree() -> dict:
    """Waves of the fast and the slow read-out."""
    waves = {
        "Hz390": {"frequency": 390.625, "phase_amplitudes": [0.0, 1.0, 0.5, -1.0, -0.5]},
        "Hz10": {"frequency": 10.039216, "phase_amplitudes": np.array([1.0, 2.0, 3.0, 4.0])},
    }
    speeds = {"FAST": ["Hz390", "Hz10"], "SLOW": {"MIRIMAGE": ["Hz10"], "MIRIFULONG": ["Hz390"]}}
    case = {"rowclocks": 28, "frameclocks": 15904, "freqs": speeds}
    full = {"rowclocks": 271, "frameclocks": 277504, "freqs": {"FAST": ["Hz10"]}}
    return {"frequencies": waves, "subarray_cases": {"SLITLESSPRISM": case, "FULL_FAST": full}}


def write_emicorr(folder, tree: dict | None = None, name="jwst_miri_emicorr_0007.asdf") -> str:
    """The waves as an ASDF file."""
    from stdatamodels.jwst import datamodels

    tree = emi_tree() if tree is None else tree
    model = datamodels.EmiModel()
    for key, value in tree.items():
        setattr(model, key, value)
    describe(model, "emicorr")
    model.save(str(folder / name))
    return name
