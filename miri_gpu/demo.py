"""The proof on a known observation: simulate it, reduce it, compare with the truth."""

from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import numpy as np

from miri_gpu.errors import OutputError
from miri_gpu.groups_in_use import dropped_groups
from miri_gpu.light_curves import spectroscopic_light_curves, transit_depths
from miri_gpu.products import FIGURES, TIME_SERIES, reduce_to_directory
from miri_gpu.progress import Progress
from miri_gpu.recipe import Recipe, load_recipe
from miri_gpu.simulate import TRUTH, Observation, SimulationSettings, simulate

OBSERVATION = "observation"
BAND_EDGES_UM = (5.0, 6.0, 7.0, 8.0, 9.0, 10.0, 11.0, 12.0)
SETTINGS = SimulationSettings(n_ints=120, n_groups=12, n_segments=2)


@dataclass(frozen=True, kw_only=True)
class BandComparison:
    """What was found in one band of wavelengths, beside what went in.

    Attributes
    ----------
    low_um, high_um : float
        Edges of the band.
    depth, depth_error, true_depth : float
        Transit depths.
    scatter, expected_scatter : float
        Relative scatter of the light curve about its fit, and that of photons and reads alone.
    """

    low_um: float
    high_um: float
    depth: float
    depth_error: float
    true_depth: float
    scatter: float
    expected_scatter: float

    @property
    def deviation(self) -> float:
        """How many standard deviations the depth lies from the truth."""
        return (self.depth - self.true_depth) / self.depth_error

    @property
    def noise_ratio(self) -> float:
        """Scatter over what is expected."""
        return self.scatter / self.expected_scatter


@dataclass(frozen=True, kw_only=True)
class Demo:
    """Where the demonstration lies, and how it went."""

    observation: Observation
    product: Path
    figures: Path
    bands: tuple[BandComparison, ...]


def run_demo(
    directory: Path,
    *,
    settings: SimulationSettings = SETTINGS,
    backend: str | None = None,
    progress: Progress,
) -> Demo:
    """Simulate an observation, reduce it and compare with the truth.

    Everything goes into the directory: the observation into `observation/`, the products beside.

    Raises
    ------
    OutputError
        Where the directory holds anything but an earlier demonstration, which is replaced.
    """
    if any(directory.glob("*")) and not (directory / OBSERVATION / TRUTH).exists():
        raise OutputError(
            f"{directory}: expected a new directory or an earlier demo, got other files; "
            "choose another directory with --output"
        )
    progress.start("simulation", settings.n_ints)
    observation = simulate(
        directory / OBSERVATION, settings, progress=lambda done, n: progress.advance()
    )
    dataset = reduce_to_directory(
        observation.segments,
        directory,
        backend=backend,
        references=observation.references,
        overwrite=True,
        progress=progress,
    )
    recipe = load_recipe(None, settings.n_groups)
    return Demo(
        observation=observation,
        product=directory / TIME_SERIES,
        figures=directory / FIGURES,
        bands=compare(dataset, observation, recipe),
    )


def compare(dataset, observation: Observation, recipe: Recipe) -> tuple[BandComparison, ...]:
    """Compare the transit depths and the scatter of a product with the truth, band by band."""
    truth = observation.load_truth()
    curves = spectroscopic_light_curves(dataset, BAND_EDGES_UM)
    shapes, true_depths, noises = zip(
        *(_true_band(dataset, truth, recipe, low, high) for low, high in pairwise(BAND_EDGES_UM)),
        strict=True,
    )
    fits = transit_depths(curves, np.stack(shapes))
    return tuple(
        BandComparison(
            low_um=low,
            high_um=high,
            depth=float(fits["depth"][k]),
            depth_error=float(fits["depth_error"][k]),
            true_depth=true_depths[k],
            scatter=float(fits["residual_scatter"][k]),
            expected_scatter=noises[k],
        )
        for k, (low, high) in enumerate(pairwise(BAND_EDGES_UM))
    )


def _true_band(dataset, truth, recipe: Recipe, low_um: float, high_um: float):
    """Shape of the transit, its depth and the relative noise of a band, from the truth."""
    from miri_gpu.simulate import expected_flux, expected_flux_error

    wavelength = dataset["wavelength"].values
    rows = dataset["row"].values[(low_um <= wavelength) & (wavelength < high_um)]
    star = truth["star"].values[rows]
    depth = float(star @ truth["depth"].values[rows] / star.sum())
    dips = (1.0 - truth["light_curve"].values[:, rows]) @ star / star.sum()
    params = recipe.extraction
    background = recipe["background_subtract"]
    box = {"half_width": params.aperture_left_width, "aperture_center": params.aperture_center}
    errors = expected_flux_error(
        truth,
        **box,
        n_groups_used=int((~dropped_groups(recipe, 1, truth.attrs["n_groups"])).sum()),
        n_background_columns=background.bkg_col_left_end
        - background.bkg_col_left_start
        + background.bkg_col_right_end
        - background.bkg_col_right_start,
    )
    noise = float(np.sqrt((errors[rows] ** 2).sum()) / expected_flux(truth, **box)[rows].sum())
    return dips / depth, depth, noise
