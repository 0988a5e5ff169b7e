"""Steps from clean rate images to spectra."""

from dataclasses import replace
from typing import Any

import numpy as np
from jwst.datamodels import CubeModel, GainModel

from miri_gpu.backend import namespace
from miri_gpu.containers import Array, Spectra
from miri_gpu.detector import COL_START, ROW_START
from miri_gpu.numerics import masked_median
from miri_gpu.rates.errors import fill_unknown_errors
from miri_gpu.rates.gain import fill_unknown_gain
from miri_gpu.rates.trace import Trace, TraceParams, fit_trace
from miri_gpu.segment_files import USED_TIME
from miri_gpu.spectra.box import (
    Extract1DBoxParams,
    extract_box,
    spectrum_wavelengths,
)
from miri_gpu.spectra.optimal import Extract1DOptimalParams, extract_optimal
from miri_gpu.steps import MiriStep, as_float32, group_time_s, in_blocks, rates_of, spec_of

_DRAWINGS = {
    "draw_psf_fits": "the Gaussian fitted across the trace",
    "draw_aperture": "the aperture on a frame",
    "draw_spectra": "the spectra",
}


class Extract1DBoxStep(MiriStep):
    """Extract spectra by summing an aperture around the trace."""

    class_alias = "extract_1d_box"
    settings = Extract1DBoxParams
    spec = spec_of(Extract1DBoxParams, **_DRAWINGS)

    def process(self, input, wavelength_map):  # noqa: A002 - ExoTiC-MIRI's name
        """Extract all integrations.

        Parameters
        ----------
        input : CubeModel, or path of a file with rate images
            Clean and free of background.
        wavelength_map : (n_rows, n_cols) float [um]
            From GetWavelengthMap.

        Returns
        -------
        wavelengths : (n_rows,) float64 [um]
        spectra, spectra_uncertainties : (n_ints, n_rows) float32 [DN/s]
            NaN where a pixel of the aperture is NaN.
        trace_sigmas : (n_ints,) float64 [pixel]
            Width of the trace; NaN where its fit failed.
        """
        params = self.parameters()
        model = self.opened(input, CubeModel)
        data, _ = rates_of(model)
        err = _cube(np.nan if model.err is None else model.err, data.shape, "err")
        trace = _fitted_trace(data)
        wavelengths = _wavelengths(wavelength_map, data, trace, params)

        def extract(data: Array, err: Array, centres: Array) -> Spectra:
            return extract_box(data, err, params=params, centres=centres)

        spectra = in_blocks(extract, (data, err, trace.centre))
        _draw(self, model, data, trace, wavelengths, spectra)
        return wavelengths, spectra.flux, spectra.flux_err, trace.sigma


class Extract1DOptimalStep(MiriStep):
    """Extract spectra with the weights that make their noise smallest (Horne 1986)."""

    class_alias = "extract_1d_optimal"
    settings = Extract1DOptimalParams
    reference_file_types = ["gain"]  # noqa: RUF012 - stpipe's way to declare `override_gain`
    spec = (
        spec_of(Extract1DOptimalParams, **_DRAWINGS)
        + "integration_time_s = float(default=None)  # from the first to the last group that was "
        "fitted; nothing: as the file says, or else of all groups [s]\n"
    )

    def process(self, input, wavelength_map, P, readnoise, background=None):  # noqa: A002
        """Extract all integrations.

        Parameters
        ----------
        input : CubeModel, or path of a file with rate images
            Clean and free of background.
        wavelength_map : (n_rows, n_cols) float [um]
            From GetWavelengthMap.
        P : (n_ints, n_rows, n_cols) float
            Spatial profiles, from CleanOutliersStep.
        readnoise : float, or array that broadcasts to (n_ints, n_rows, n_cols) [DN/s]
            Standard deviation of the rates from read noise alone: the root of `var_rnoise`.
            Where it is not finite, that of the neighbours along the column is taken.
        background : (n_ints, n_rows, n_cols) float [DN/s], or None
            What was subtracted, from BackgroundSubtractStep: its photons are noise too.

        Returns
        -------
        wavelengths : (n_rows,) float64 [um]
        spectra, spectra_uncertainties : (n_ints, n_rows) float64 [DN/s]
            NaN where a pixel of the aperture, or its profile, is NaN.
        trace_sigmas : (n_ints,) float64 [pixel]
            Width of the trace; NaN where its fit failed.

        Notes
        -----
        The gain is that of CRDS, or what `override_gain` gives (see SetCustomGain).
        """
        params = self.parameters()
        model = self.opened(input, CubeModel)
        data, _ = rates_of(model)
        cubes = [data, _cube(P, data.shape, "P"), _cube(readnoise, data.shape, "readnoise")]
        cubes.append(_cube(0.0 if background is None else background, data.shape, "background"))
        trace = _fitted_trace(data)
        wavelengths = _wavelengths(wavelength_map, data, trace, params)
        time_s = self._time_s(model)
        block_params = params
        if params.median_spatial_profile:  # of all integrations, not of a block
            cubes[1] = np.broadcast_to(masked_median(cubes[1], axis=0), data.shape)
            block_params = replace(params, median_spatial_profile=False)

        def extract(data, profile, read_noise, background, centres, gain) -> Spectra:
            xp = namespace(data)
            known = xp.isfinite(read_noise)
            return extract_optimal(
                data,
                profile,
                xp.where(known, read_noise, fill_unknown_errors(read_noise)),
                params=block_params,
                gain=gain,
                integration_time_s=time_s,
                background=background,
                centres=centres,
            )

        spectra = in_blocks(extract, (*cubes, trace.centre), (self._gain(model),))
        _draw(self, model, data, trace, wavelengths, spectra)
        flux, flux_err = (a.astype(np.float64) for a in (spectra.flux, spectra.flux_err))
        return wavelengths, flux, flux_err, trace.sigma

    def _gain(self, model) -> np.ndarray:
        """Gain of the pixels of the model, (n_rows, n_cols) [e-/DN]; unknown ones filled."""
        with GainModel(self.get_reference_file(model, "gain")) as reference:
            gain = as_float32(reference.data)
        shape, subarray = model.data.shape[1:], model.meta.subarray
        if gain.shape != shape:
            row, col = (
                default if start is None else start - 1
                for start, default in ((subarray.ystart, ROW_START), (subarray.xstart, COL_START))
            )
            gain = gain[row : row + shape[0], col : col + shape[1]]
        return fill_unknown_gain(_cube(gain, shape, "gain reference"))

    def _time_s(self, model) -> float:
        if self.integration_time_s is not None:
            return self.integration_time_s
        unknown_keywords = model.extra_fits.instance if hasattr(model, "extra_fits") else {}
        for keyword, value, *_ in unknown_keywords.get("PRIMARY", {}).get("header", []):
            if keyword == USED_TIME:
                return value
        n_groups = model.meta.exposure.ngroups
        if n_groups is None or n_groups < 2:
            raise ValueError(
                f"{self.class_alias}.integration_time_s: expected a time, as the input states no "
                f"number of groups (meta.exposure.ngroups: {n_groups}), got nothing"
            )
        return (n_groups - 1) * group_time_s(model)


def trace_params(data: np.ndarray) -> TraceParams:
    """The usual rows and columns of the trace; of frames that are smaller, all of them."""
    usual = TraceParams()
    n_rows, n_cols = data.shape[-2:]
    if usual.row_idx_end_used <= n_rows and usual.col_idx_end_used <= n_cols:
        return usual
    return TraceParams(
        row_idx_start_used=0,
        row_idx_end_used=n_rows,
        col_idx_start_used=0,
        col_idx_end_used=n_cols,
    )


def _fitted_trace(data: np.ndarray) -> Trace:
    params = trace_params(data)
    return in_blocks(lambda block: fit_trace(block, params=params), (data,))


def _wavelengths(wavelength_map: Any, data: np.ndarray, trace: Trace, params) -> np.ndarray:
    wavelength_map = np.asarray(wavelength_map, dtype=np.float64)
    if wavelength_map.ndim != 2 or len(wavelength_map) != data.shape[1]:
        raise ValueError(
            f"{params.step}: wavelength_map: expected 2 axes with the {data.shape[1]} rows of the "
            f"input, got the shape {wavelength_map.shape}"
        )
    return spectrum_wavelengths(wavelength_map, trace.centre, params=params)


def _cube(values: Any, shape: tuple[int, ...], name: str) -> np.ndarray:
    """Values for every pixel, as float32."""
    try:
        return np.broadcast_to(as_float32(values), shape)
    except ValueError:
        raise ValueError(
            f"{name}: expected the shape {shape} of the input, got {np.shape(values)}"
        ) from None


def _draw(step: MiriStep, model, data, trace: Trace, wavelengths, spectra: Spectra) -> None:
    """The figures of an extraction that were asked for."""
    if not (step.draw_psf_fits or step.draw_aperture or step.draw_spectra):
        return
    from miri_gpu.plots import plot_aperture, plot_psf_fit, plot_spectra

    drawn = step.drawn_integration(len(data))
    frame, figures = data[drawn], {}
    if step.draw_psf_fits:
        figures["psf_fit"] = plot_psf_fit(
            frame, trace, params=trace_params(data), integration=drawn
        )
    if step.draw_aperture:
        fitted = step.trace_position == "gaussian_fits"
        centre = float(trace.centre[drawn]) if fitted else step.aperture_center
        figures["aperture"] = plot_aperture(
            frame,
            np.rint(centre - step.aperture_left_width),
            np.rint(centre + step.aperture_right_width),
            integration=drawn,
        )
    if step.draw_spectra:
        figures["spectra"] = plot_spectra(wavelengths, spectra.flux, spectra.flux_err)
    step.present(model, figures)
