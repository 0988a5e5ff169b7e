"""Facts of the MIRI imager detector as read out in the SLITLESSPRISM subarray.

Rows are the dispersion direction (a high row is a short wavelength), columns the
cross-dispersion direction. Everything that is true of the hardware, and not a choice of the
reduction, lives here.
"""

from typing import Final

# --- the subarray and the detector it is cut from
N_ROWS: Final = 416
N_COLS: Final = 72
DETECTOR_SHAPE: Final = (1024, 1032)
ROW_START: Final = 528  # SUBSTRT2 - 1: first row of the subarray on the detector
COL_START: Final = 0  # SUBSTRT1 - 1

# --- how it is read
N_AMPLIFIERS: Final = 4  # outputs interleaved by column: amplifier k reads columns k, k + 4, ...
N_REFERENCE_COLS: Final = 4  # columns 0..3, one for each amplifier
FRAME_TIME_S: Final = 0.15904
CLOCK_S: Final = 1e-5
CLOCKS_PER_ROW: Final = 28
CLOCKS_PER_FRAME: Final = 15904
EMI_PERIOD_CLOCKS: Final = 256  # 390.625 Hz

# --- what identifies the mode
INSTRUMENT: Final = "MIRI"
DETECTOR: Final = "MIRIMAGE"
EXPOSURE_TYPE: Final = "MIR_LRS-SLITLESS"
FILTER: Final = "P750L"
SUBARRAY: Final = "SLITLESSPRISM"

# --- bits of the data-quality arrays, lowest first (groupdq holds the first eight)
# Source: the JWST data-quality flag table of the jwst documentation.
DQ_NAMES: Final = (
    "DO_NOT_USE", "SATURATED", "JUMP_DET", "DROPOUT", "OUTLIER", "PERSISTENCE", "AD_FLOOR",
    "CHARGELOSS", "RESERVED", "NON_SCIENCE", "DEAD", "HOT", "WARM", "LOW_QE", "RC", "TELEGRAPH",
    "NONLINEAR", "BAD_REF_PIXEL", "NO_FLAT_FIELD", "NO_GAIN_VALUE", "NO_LIN_CORR", "NO_SAT_CHECK",
    "UNRELIABLE_BIAS", "UNRELIABLE_DARK", "UNRELIABLE_SLOPE", "UNRELIABLE_FLAT", "OPEN",
    "ADJ_OPEN", "FLUX_ESTIMATED", "MSA_FAILED_OPEN", "OTHER_BAD_PIXEL", "REFERENCE_PIXEL",
)  # fmt: skip
DO_NOT_USE: Final = 1 << 0
SATURATED: Final = 1 << 1
JUMP_DET: Final = 1 << 2
OUTLIER: Final = 1 << 4
PERSISTENCE: Final = 1 << 5
AD_FLOOR: Final = 1 << 6
NO_FLAT_FIELD: Final = 1 << 18
NO_GAIN_VALUE: Final = 1 << 19
NO_LIN_CORR: Final = 1 << 20
NO_SAT_CHECK: Final = 1 << 21
REFERENCE_PIXEL: Final = 1 << 31

ATOD_LIMIT_DN: Final = 65535.0  # the largest value a 16-bit converter can give
