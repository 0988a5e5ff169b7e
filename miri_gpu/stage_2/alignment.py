"""The Step that measures how spectra move, and aligns them."""

import numpy as np
from jwst.datamodels import CubeModel

from miri_gpu.containers import Spectra
from miri_gpu.numerics import masked_median
from miri_gpu.spectra.align import (
    AlignSpectraParams,
    align_spectra,
    cross_dispersion_profiles,
    measure_shifts,
)
from miri_gpu.stage_2.extraction import trace_params
from miri_gpu.steps import MiriStep, in_blocks, rates_of, spec_of


class AlignSpectraStep(MiriStep):
    """Measure how the spectra move on the detector, and put them back on one grid of rows."""

    class_alias = "align_spectra"
    settings = AlignSpectraParams
    spec = spec_of(
        AlignSpectraParams,
        draw_cross_correlation_fits="the peaks of the cross-correlations",
        draw_trace_positions="the shifts of all integrations",
    )

    def process(self, input, spec, spec_unc):  # noqa: A002 - ExoTiC-MIRI's name
        """Measure the shifts against the median of the spectra given, and align.

        Parameters
        ----------
        input : CubeModel, or path of a file with rate images
            The frames that the spectra were extracted from.
        spec, spec_unc : (n_ints, n_rows) float
            Spectra and their uncertainties.

        Returns
        -------
        spectra, spectra_uncertainties : (n_ints, n_rows)
            Aligned, float64; or as they came, without `align_spectra`.
        x_shifts, y_shifts : (n_ints,) float64 [pixel]
            Across and along the dispersion; positive = moved towards higher index.
        """
        params = self.parameters()
        model = self.opened(input, CubeModel)
        data, _ = rates_of(model)
        spec, spec_unc = np.asarray(spec), np.asarray(spec_unc)
        for name, given in (("spec", spec), ("spec_unc", spec_unc)):
            if given.shape != data.shape[:2]:
                raise ValueError(
                    f"{self.class_alias}: {name}: expected the shape {data.shape[:2]} of the "
                    f"input's integrations and rows, got {given.shape}"
                )
        used = trace_params(data)
        profiles = in_blocks(lambda block: cross_dispersion_profiles(block, params=used), (data,))
        y_shifts, x_shifts = measure_shifts(spec), measure_shifts(profiles)
        if self.draw_cross_correlation_fits or self.draw_trace_positions:
            self._draw(model, {"x": (profiles, x_shifts), "y": (spec, y_shifts)})
        if params.align_spectra:
            moving = Spectra(flux=spec.astype(np.float64), flux_err=spec_unc.astype(np.float64))
            aligned = align_spectra(moving, y_shifts, params=params)
            spec, spec_unc = aligned.flux, aligned.flux_err
        return spec, spec_unc, x_shifts, y_shifts

    def _draw(self, model, measured: dict[str, tuple[np.ndarray, np.ndarray]]) -> None:
        from miri_gpu.plots import plot_cross_correlation, plot_trace_positions

        figures = {}
        if self.draw_cross_correlation_fits:
            drawn = self.drawn_integration(len(model.data))
            for axis, (curves, shifts) in measured.items():
                figures[f"cross_correlation_{axis}"] = plot_cross_correlation(
                    curves[drawn],
                    masked_median(curves, axis=0),
                    shifts[drawn],
                    title=f"{axis} shift, integration {drawn}",
                )
        if self.draw_trace_positions:
            figures["trace_positions"] = plot_trace_positions(measured["x"][1], measured["y"][1])
        self.present(model, figures)
