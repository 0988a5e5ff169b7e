"""From what is left of each segment to the product of the whole observation."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from miri_gpu.backend import to_host
from miri_gpu.background import rows_sharing
from miri_gpu.containers import Spectra
from miri_gpu.doubts import doubt_aperture
from miri_gpu.errors import SegmentError
from miri_gpu.job import Job
from miri_gpu.plan import Plan
from miri_gpu.rates_to_spectra import Extraction, last_background
from miri_gpu.segments import Segment
from miri_gpu.spectra.align import align_spectra, measure_shifts
from miri_gpu.spectra.box import spectrum_wavelengths

if TYPE_CHECKING:
    import xarray

    from miri_gpu.timeseries import Provenance


@dataclass(frozen=True)
class Part:
    """What is left of one segment, on the host.

    Attributes
    ----------
    extraction : Extraction
    emi : dict of name in the product to array, where the interference was measured
    """

    extraction: Extraction
    emi: dict[str, np.ndarray]


def assemble(job: Job, parts: Sequence[Part]) -> "xarray.Dataset":
    """Align the spectra of the whole observation and make the product.

    Raises
    ------
    SegmentError
        Where no integration has any flux.
    """
    from miri_gpu.timeseries import build_timeseries

    plan = job.plan
    extraction = Extraction.concatenated([part.extraction for part in parts])
    wavelength = spectrum_wavelengths(
        plan.calibration.wavelength, extraction.trace_centre, params=plan.recipe.extraction
    )
    if not np.isfinite(extraction.flux).any():
        raise SegmentError(
            f"{plan.segments[0].path}: expected flux in some row and integration, got none: the "
            "aperture leaves the detector at every trace, or there is no background anywhere"
        )
    doubt_aperture(plan.recipe, extraction.trace_centre)
    y_shift = measure_shifts(extraction.flux)
    spectra = align_spectra(
        Spectra(
            flux=extraction.flux,
            flux_err=extraction.flux_err,
            background_err=extraction.background_err,
        ),
        y_shift,
        params=plan.recipe["align_spectra"],
    )
    times = [plan.integration_times(segment) for segment in plan.segments]
    return build_timeseries(
        wavelength=wavelength,
        times={name: np.concatenate([part[name] for part in times]) for name in times[0]},
        integration_number=plan.integration_numbers(),
        provenance=provenance(job),
        flux=spectra.flux,
        flux_error=spectra.flux_err,
        background=extraction.background,
        n_outliers=extraction.n_outliers,
        n_jumps=extraction.n_jumps,
        x_shift=measure_shifts(extraction.cross_dispersion),
        y_shift=y_shift,
        trace_centre=extraction.trace_centre,
        psf_sigma=extraction.psf_sigma,
        **({} if extraction.chi_square is None else {"chi_square": extraction.chi_square}),
        **noise_of_background(spectra, plan),
        **joined_interference(parts),
        **measured_linearity(job),
    )


def noise_of_background(spectra: Spectra, plan: Plan) -> dict[str, Any]:
    """What the product says of the noise of the background, where one was subtracted."""
    last = last_background(plan)
    if last is None:
        return {}
    return {
        "background_flux_error": spectra.background_err,
        "rows_sharing_background": rows_sharing(last),
    }


def interference(segment: Segment, job: Job) -> dict[str, np.ndarray]:
    """What the product says of the interference in a segment, where it was measured."""
    model = job.emi.get(segment.path)
    if model is None:
        return {}
    found = {"frequency": np.array(model.frequencies_hz)}
    for name in ("amplitude_before", "amplitude_after"):
        amplitudes = to_host(getattr(model, name))
        found[f"emi_{name}"] = np.repeat(amplitudes, job.plan.n_parts, axis=1)
    return found


def joined_interference(parts: Sequence[Part]) -> dict[str, np.ndarray]:
    """The same of all segments; the waves are the same in all."""
    first = parts[0].emi
    return {
        name: value if name == "frequency" else np.concatenate([p.emi[name] for p in parts], axis=1)
        for name, value in first.items()
    }


def measured_linearity(job: Job) -> dict[str, np.ndarray]:
    """What the product says of the non-linearity, where it was measured."""
    found = job.linearity
    if found is None:
        return {}
    return {
        "linearity_coefficients": found.coefficients,
        "linearity_coefficients_error": found.coefficients_err,
        "linearity_residual": found.residual,
        "linearity_residual_error": found.residual_err,
        "linearity_in_fit": found.in_fit,
        "linearity_n_ramps": found.n_ramps,
        "linearity_n_rejected": found.n_rejected,
    }


def provenance(job: Job) -> "Provenance":
    """How the time series was made, for its attributes."""
    from miri_gpu.timeseries import Provenance

    plan, first = job.plan, job.plan.segments[0]
    return Provenance(
        recipe=plan.recipe.to_toml(),
        backend=plan.backend.name,
        device=plan.backend.device,
        crds_context=plan.calibration.context,
        references=plan.calibration.folder,
        reference_files=plan.calibration.files,
        input_files=[segment.path.name for segment in plan.segments],
        target=first.target,
        program=str(first.primary.get("PROGRAM", "")),
        observation=str(first.primary.get("OBSERVTN", "")),
        n_groups=plan.shape_of_parts[1],
        group_time_s=first.readout.group_time_s,
        gain_e_per_dn=job.median_gain,
    )
