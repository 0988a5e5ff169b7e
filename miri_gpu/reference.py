"""Steps that get or make reference data: ExoTiC-MIRI's, by name and keyword.

from miri_gpu.reference import SetCustomGain
gain = SetCustomGain.call(ramps, gain_value=3.1)
ramps = JumpStep.call(ramps, override_gain=gain)
"""

import logging
from pathlib import Path

import numpy as np
from jwst.datamodels import CubeModel, GainModel, LinearityModel, RampModel, ReadnoiseModel

from miri_gpu.calibration import CustomGainParams
from miri_gpu.detector import DETECTOR_SHAPE
from miri_gpu.files import write_beside
from miri_gpu.integration_times import SECONDS_PER_DAY
from miri_gpu.ramps.self_calibration import (
    CustomLinearityParams,
    calibrate_linearity,
    expand_linearity,
)
from miri_gpu.steps import MiriStep, as_float32, ramps_of, spec_of

__all__ = [
    "GetDefaultGain",
    "GetDefaultReadNoise",
    "GetIntegrationTimes",
    "GetWavelengthMap",
    "SetCustomGain",
    "SetCustomLinearity",
]

log = logging.getLogger(__name__)

_SAVE_SPEC = """
save = boolean(default=False)  # save it as a FITS file
save_path = string(default=None)  # folder to save it in; nothing: the current one
"""


class GetIntegrationTimes(MiriStep):
    """Get the times of the integrations, and how long one takes."""

    class_alias = "get_integration_times"
    spec = ""

    def process(self, input):  # noqa: A002 - ExoTiC-MIRI's name
        """Read INT_TIMES.

        Parameters
        ----------
        input : RampModel or CubeModel, or path of a file with ramps or rate images

        Returns
        -------
        times : FITS_rec
            The table INT_TIMES: columns `int_mid_BJD_TDB` and so on [d].
        duration : float [s]
            Median time from one mid-integration to the next; of a single integration, from its
            start to its end.
        """
        model = self.opened(input, RampModel, CubeModel, slitless=False)
        times = model.int_times
        if times is None or len(times) == 0:
            raise ValueError(f"{self.class_alias}: input: INT_TIMES: expected a table, got none")
        mid, start, end = (times[f"int_{moment}_BJD_TDB"] for moment in ("mid", "start", "end"))
        duration_s = float(np.median(np.diff(mid) if len(mid) > 1 else end - start))
        duration_s *= SECONDS_PER_DAY
        log.info("an integration takes %.4f s", duration_s)
        return times, duration_s


class SetCustomGain(MiriStep):
    """Make a gain reference of one value, for `override_gain` of other steps."""

    class_alias = "set_custom_gain"
    settings = CustomGainParams
    reference_file_types = ["gain"]  # noqa: RUF012 - stpipe's way to declare `override_gain`
    spec = spec_of(CustomGainParams)

    def process(self, input):  # noqa: A002 - ExoTiC-MIRI's name
        """Fill the default gain reference with the value.

        Parameters
        ----------
        input : RampModel or CubeModel, or path of a file with ramps or rate images

        Returns
        -------
        GainModel
            Of the full detector, float32 [e-/DN].
        """
        params = self.parameters()
        model = self.opened(input, RampModel, CubeModel, slitless=False)
        gain = _reference(self, model, "gain", GainModel)
        gain.data = np.full(gain.data.shape, params.gain_value, dtype=np.float32)
        return gain


class SetCustomLinearity(MiriStep):
    """Measure the non-linearity on the ramps themselves, for `override_linearity`.

    Needs many groups, 40 or more. The ramps are best corrected as those that the result will be
    applied to, up to the linearity step: dq_init, saturation, reset.
    """

    class_alias = "set_custom_linearity"
    settings = CustomLinearityParams
    reference_file_types = ["linearity"]  # noqa: RUF012 - stpipe's way
    spec = spec_of(
        CustomLinearityParams, draw_corrections="samples and polynomial of each amplifier"
    )

    def process(self, input):  # noqa: A002 - ExoTiC-MIRI's name
        """Fit a polynomial for each amplifier.

        Parameters
        ----------
        input : RampModel, or path of a file with ramps
            Not yet corrected for non-linearity.

        Returns
        -------
        LinearityModel
            Of the full detector; all coefficients 0 in the reference columns.
        """
        params = self.parameters()
        model = self.opened(input, RampModel)
        ramps = ramps_of(model)
        rows = slice(params.row_idx_start_used, params.row_idx_end_used)
        used = ramps.data[:, :, rows]
        if used.shape[2] == 0:
            raise ValueError(
                f"{self.class_alias}.row_idx_start_used, row_idx_end_used: expected a range of "
                f"the {ramps.data.shape[2]} rows, got {rows.start}:{rows.stop}"
            )
        measured = calibrate_linearity(used, ramps.groupdq[:, :, rows], params=params)
        coefficients = measured.coefficients
        if not np.isfinite(coefficients).all():
            raise ValueError(
                f"{self.class_alias}: input: expected ramps that determine the polynomials, got "
                f"none for the amplifiers {np.flatnonzero(np.isnan(coefficients[-1])).tolist()}"
            )
        if self.draw_corrections:
            from miri_gpu.plots import plot_linearity

            self.present(model, {"linearity": plot_linearity(used, measured, params=params)})
        linearity = _reference(self, model, "linearity", LinearityModel)
        linearity.coeffs = expand_linearity(coefficients, *DETECTOR_SHAPE)
        linearity.dq = np.zeros(DETECTOR_SHAPE, dtype=np.uint32)
        return linearity


class GetWavelengthMap(MiriStep):
    """Get the wavelength of every pixel."""

    class_alias = "get_wavelength_map"
    spec = (
        "trim_col_start = integer(default=0)  # first column of the map\n"
        "trim_col_end = integer(default=72)  # end of its columns, itself not in it" + _SAVE_SPEC
    )

    def process(self, input):  # noqa: A002 - ExoTiC-MIRI's name
        """Evaluate the WCS that the STScI step assign_wcs has given the model.

        Parameters
        ----------
        input : CubeModel, or path of a file with rate images

        Returns
        -------
        (n_rows, n_cols) float64 [um]
            NaN outside the bounding box of the wavelength solution. Saved, it is called
            `..._wavelengthmap.fits`.
        """
        model = self.opened(input, CubeModel, slitless=False)
        wcs = model.meta.wcs
        if wcs is None:
            raise ValueError(
                f"{self.class_alias}: input: meta.wcs: expected the WCS of the step assign_wcs, "
                "got none: run that step first"
            )
        rows, cols = np.mgrid[: model.data.shape[1], : model.data.shape[2]]
        wavelengths = np.asarray(wcs(cols, rows)[-1], dtype=np.float64)
        wavelengths = wavelengths[:, self.trim_col_start : self.trim_col_end]
        if self.save:
            from astropy.io import fits

            stem = Path(model.meta.filename or "").stem
            name = f"{stem}_wavelengthmap.fits".removeprefix("_")
            path = _target(self.save_path, name)
            write_beside(path, fits.PrimaryHDU(wavelengths).writeto)
        return wavelengths


class GetDefaultGain(MiriStep):
    """Get the gain reference that CRDS chooses, or its median."""

    class_alias = "get_default_gain"
    reference_file_types = ["gain"]  # noqa: RUF012 - stpipe's way
    spec = "median_value = boolean(default=False)  # return the median only" + _SAVE_SPEC

    def process(self, input):  # noqa: A002 - ExoTiC-MIRI's name
        """Get the gain.

        Parameters
        ----------
        input : RampModel or CubeModel, or path of a file with ramps or rate images

        Returns
        -------
        GainModel, or with `median_value` a float [e-/DN]
            The median over the detector's known pixels. Saved, it is `default_gain.fits`.
        """
        return _default(self, input, "gain", GainModel, "default_gain.fits")


class GetDefaultReadNoise(MiriStep):
    """Get the read noise reference that CRDS chooses, or its median."""

    class_alias = "get_default_readnoise"
    reference_file_types = ["readnoise"]  # noqa: RUF012 - stpipe's way
    spec = "median_value = boolean(default=False)  # return the median only" + _SAVE_SPEC

    def process(self, input):  # noqa: A002 - ExoTiC-MIRI's name
        """Get the read noise.

        Parameters
        ----------
        input : RampModel or CubeModel, or path of a file with ramps or rate images

        Returns
        -------
        ReadnoiseModel, or with `median_value` a float [DN]
            The median over the detector's known pixels. Saved, it is `default_readnoise.fits`.
        """
        return _default(self, input, "readnoise", ReadnoiseModel, "default_readnoise.fits")


def _default(step: MiriStep, init, kind: str, model_type: type, name: str):
    """The reference of a kind, saved where the step wants it; or its median."""
    model = step.opened(init, RampModel, CubeModel, slitless=False)
    reference = _reference(step, model, kind, model_type)
    if step.save:
        reference.save(_target(step.save_path, name))
    median = float(np.nanmedian(as_float32(reference.data)))
    log.info("median %s: %.4f", kind, median)
    return median if step.median_value else reference


def _reference(step: MiriStep, model, kind: str, model_type: type):
    """A copy, in memory, of the reference file of a kind."""
    path = step.get_reference_file(model, kind)
    if path == "N/A":
        raise ValueError(f"{step.class_alias}: {kind}: expected a reference file, CRDS has none")
    with model_type(path) as reference:
        return reference.copy()


def _target(folder: str | None, name: str) -> Path:
    path = Path("." if folder is None else folder) / name
    path.parent.mkdir(parents=True, exist_ok=True)
    log.info("writing %s", path)
    return path
