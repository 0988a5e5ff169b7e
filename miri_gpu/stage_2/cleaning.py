"""Steps that look at rate images and clean them: flags, outliers, background."""

import logging

import numpy as np
from jwst.datamodels import CubeModel

from miri_gpu.background import (
    BackgroundParams,
    evaluate_background,
    measure_background,
    subtract_background,
)
from miri_gpu.containers import Array
from miri_gpu.detector import DQ_NAMES
from miri_gpu.rates.dq_report import count_dq_flags
from miri_gpu.rates.outliers import CleanOutliersParams, clean_outliers
from miri_gpu.steps import MiriStep, in_blocks, rates_of, spec_of

log = logging.getLogger(__name__)


class InspectDQFlagsStep(MiriStep):
    """Say in the log how many pixels carry each data-quality flag."""

    class_alias = "inspect_dq_flags"
    spec = spec_of(draw_dq_flags="where on the detector each flag is set")

    def process(self, input):  # noqa: A002 - ExoTiC-MIRI's name
        """Count the flags.

        Parameters
        ----------
        input : CubeModel, or path of a file with rate images

        Returns
        -------
        CubeModel
            The same as came in.
        """
        model = self.opened(input, CubeModel)
        _, dq = rates_of(model)
        found = count_dq_flags(dq)
        for bit, (name, count) in enumerate(zip(DQ_NAMES, found.counts, strict=True)):
            log.info("DQ bit %2d, %s: %d pixels", bit, name, count)
        log.info("DQ: %.3f %% of the pixels carry a flag", 100 * found.fraction)
        if self.draw_dq_flags:
            from miri_gpu.plots import plot_dq_flags

            self.present(model, {"dq_flags": plot_dq_flags(dq)})
        return model


class CleanOutliersStep(MiriStep):
    """Replace outliers and flagged pixels by a smooth spatial profile (Horne 1986)."""

    class_alias = "clean_outliers"
    settings = CleanOutliersParams
    spec = spec_of(
        CleanOutliersParams,
        draw_cleaning_col="the polynomials and outliers of one column",
        draw_spatial_profiles="the spatial profile",
    )

    def process(self, input):  # noqa: A002 - ExoTiC-MIRI's name
        """Clean all integrations.

        Parameters
        ----------
        input : CubeModel, or path of a file with rate images

        Returns
        -------
        cleaned : CubeModel
            Replaced pixels carry the DQ bit OUTLIER.
        profile : (n_ints, n_rows, n_cols) float64
            Spatial profiles, of sum 1 in each row; NaN where nothing was cleaned (`no_clean`).
        n_outliers : (n_ints, n_rows, 5) int64
            Flagged pixels within 0 .. 4 columns of column 36.
        """
        params = self.parameters()
        model = self.opened(input, CubeModel)
        data, dq = rates_of(model)

        def clean(data: Array, dq: Array):
            return clean_outliers(data, dq, params=params)

        cleaned = in_blocks(clean, (data, dq))
        if self.draw_cleaning_col or self.draw_spatial_profiles:
            self._draw(model, data, dq, cleaned.profile, params)
        model.data, model.dq = cleaned.data, cleaned.dq
        return (
            self.complete(model),
            cleaned.profile.astype(np.float64),
            cleaned.n_outliers.astype(np.int64),
        )

    def _draw(self, model, data, dq, profile, params: CleanOutliersParams) -> None:
        from miri_gpu.plots import plot_cleaning, plot_spatial_profile

        drawn = self.drawn_integration(len(data))
        figures = {}
        if self.draw_cleaning_col:
            figures["cleaning"] = plot_cleaning(
                data[drawn], dq[drawn], params=params, integration=drawn
            )
        if self.draw_spatial_profiles:
            figures["spatial_profile"] = plot_spatial_profile(profile[drawn], integration=drawn)
        self.present(model, figures)


class BackgroundSubtractStep(MiriStep):
    """Subtract the background of each frame, measured either side of the trace."""

    class_alias = "background_subtract"
    settings = BackgroundParams
    spec = spec_of(BackgroundParams)

    def process(self, input):  # noqa: A002 - ExoTiC-MIRI's name
        """Measure the background, and subtract it.

        Parameters
        ----------
        input : CubeModel, or path of a file with rate images

        Returns
        -------
        subtracted : CubeModel
        background : (n_ints, n_rows, n_cols) float32, of `col_wise` float64 [DN/s]
        """
        params = self.parameters()
        model = self.opened(input, CubeModel)
        data, dq = rates_of(model)

        def measure(data: Array, dq: Array) -> Array:
            return measure_background(data, dq, params=params)

        background = in_blocks(measure, (data, dq))
        model.data = subtract_background(data, background)
        background = evaluate_background(background, data.shape[-1])
        dtype = np.float64 if params.method == "col_wise" else np.float32  # as in ExoTiC-MIRI
        return self.complete(model, "bkg_subtract"), background.astype(dtype)
