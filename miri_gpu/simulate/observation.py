"""A whole simulated observation, written to a directory segment by segment."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from miri_gpu.simulate import crds_cache, truth
from miri_gpu.simulate.detector_effects import CosmicRays, integration_samples
from miri_gpu.simulate.references import write_references
from miri_gpu.simulate.scene import Scene, build_scene, electron_rates
from miri_gpu.simulate.segments import segment_name, write_segment
from miri_gpu.simulate.settings import SimulationSettings
from miri_gpu.simulate.true_detector import TrueDetector, build_detector

TRUTH = "truth.nc"  # written last: where it is, the observation is whole


@dataclass(frozen=True, kw_only=True)
class Observation:
    """Where a simulated observation lies.

    Attributes
    ----------
    directory : Path
    segments : tuple of Path
        The raw segments, in order.
    crds_path : Path
        Local CRDS cache, for CRDS_PATH.
    crds_context : str
        The context that selects the simulated references, for CRDS_CONTEXT.
    truth : Path
        netCDF file with everything that went in.
    """

    directory: Path
    segments: tuple[Path, ...]
    crds_path: Path
    crds_context: str
    truth: Path

    @property
    def references(self) -> Path:
        """Folder of the reference files, for whoever does not ask CRDS."""
        return crds_cache.reference_folder(self.crds_path)

    def load_truth(self):
        """Read the truth as an xarray.Dataset."""
        import xarray

        with xarray.open_dataset(self.truth, engine="h5netcdf") as dataset:
            return dataset.load()


def simulate(
    directory: str | Path,
    settings: SimulationSettings | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> Observation:
    """Write a known observation: raw segments, a matching CRDS cache and the truth.

    Memory holds one integration at a time, whatever the size of the observation, and the
    samples depend on the settings only, not on how the exposure is cut into segments.

    Parameters
    ----------
    directory : path
        Made where it does not exist; an earlier simulation in it is replaced.
    settings : SimulationSettings, optional
    progress : callable, optional
        Called with (integrations done, integrations in all) after each one.

    Raises
    ------
    OSError
        Where the directory cannot be written.
    """
    settings = SimulationSettings() if settings is None else settings
    directory = Path(directory)
    directory.mkdir(parents=True, exist_ok=True)
    scene, detector = build_scene(settings), build_detector(settings)
    cache = directory / "crds"
    crds_cache.write_rules(cache, write_references(cache, detector, settings))
    rays: list[CosmicRays] = []
    segments = []
    for number, (first, end) in enumerate(settings.segment_bounds, start=1):
        samples = exposed(scene, detector, settings, first, end, rays, progress)
        segments.append(write_segment(directory, number, settings, samples))
    for stale in set(directory.glob(segment_name("*"))) - set(segments):
        stale.unlink()  # of an earlier, longer split: it would no longer belong
    return Observation(
        directory=directory,
        segments=tuple(segments),
        crds_path=cache,
        crds_context=crds_cache.CONTEXT,
        truth=truth.write_truth(directory / TRUTH, scene, detector, settings, rays),
    )


def exposed(
    scene: Scene,
    detector: TrueDetector,
    settings: SimulationSettings,
    first: int,
    end: int,
    rays: list[CosmicRays],
    progress: Callable[[int, int], None] | None,
) -> Iterator[np.ndarray]:
    """Yield the samples of integrations first..end-1; their cosmic rays are added to `rays`."""
    for integration in range(first, end):
        rate = electron_rates(scene, integration, integration + 1)[0]
        samples, hits = integration_samples(integration, rate, detector, settings)
        rays.append(hits)
        yield samples
        if progress is not None:
            progress(integration + 1, settings.n_ints)
