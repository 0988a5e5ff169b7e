"""Reference data of one observation, cut to the subarray: from CRDS, or from a folder.

`load_calibration` chooses the files (:mod:`.choose`), reads and cuts them (:mod:`.read`), and
returns a `Calibration` of plain arrays.
"""

from miri_gpu.calibration.bundle import Calibration, CustomGainParams
from miri_gpu.calibration.load import load_calibration
from miri_gpu.errors import CalibrationError

__all__ = ["Calibration", "CalibrationError", "CustomGainParams", "load_calibration"]
