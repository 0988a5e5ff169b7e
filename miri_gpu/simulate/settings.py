"""What to simulate: size of the observation, the star and its transit, and each detector effect."""

import math
from dataclasses import dataclass
from itertools import pairwise
from typing import ClassVar

from miri_gpu.detector import FRAME_TIME_S
from miri_gpu.parameters import Parameters, option


@dataclass(frozen=True, kw_only=True)
class SimulationSettings(Parameters):
    """Everything that decides a simulated observation; the same settings give the same samples.

    Raises
    ------
    ValueError
        Where a value is out of range or infinite, or there are more segments than integrations.
    """

    step: ClassVar[str] = "simulate"

    # --- the exposure
    n_ints: int = option(40, "integrations in the exposure", at_least=1)
    n_groups: int = option(12, "groups in an integration", at_least=2)
    n_segments: int = option(2, "files the exposure is split into", at_least=1)
    seed: int = option(1, "seed of all random numbers", at_least=0)

    # --- the star and its planet
    star_peak_rate: float = option(
        3500.0, "rate of the star's brightest pixel", unit="DN/s", at_least=0
    )
    star_temperature: float = option(
        4400.0, "black-body temperature of the star", unit="K", above=0
    )
    transit_depth: float = option(
        0.025,
        "squared ratio of the radii of planet and star, outside the molecular bands",
        at_least=0,
        at_most=0.5,
    )
    depth_amplitude: float = option(
        0.004, "how far the depth rises in a molecular band", at_least=0, at_most=0.1
    )
    transit_duration: float = option(
        0.4, "first to last contact, as a fraction of the exposure", above=0
    )
    transit_centre: float = option(0.5, "mid-transit, as a fraction of the exposure")
    impact_parameter: float = option(
        0.2, "closest approach to the star's centre", unit="stellar radii", at_least=0, at_most=0.9
    )

    # --- the detector
    gain: float = option(3.1, "electrons in a data number", unit="e-/DN", above=0)
    read_noise_dn: float = option(6.0, "noise of a single read", unit="DN", at_least=0)
    dark_rate: float = option(0.2, "mean dark current", unit="e-/s", at_least=0)
    saturation_dn: float = option(
        57000.0, "level from which a pixel counts as saturated", unit="DN", above=15000, at_most=6e4
    )
    emi_amplitude: float = option(
        4.87, "amplitude of the 390.625 Hz wave in a read", unit="DN", at_least=0
    )
    drift_dn: float = option(
        0.15, "random walk of an amplifier from one group to the next", unit="DN", at_least=0
    )
    cosmic_ray_rate: float = option(
        0.3, "cosmic rays that hit the subarray in a frame time", at_least=0
    )
    cosmic_ray_electrons: float = option(
        3000.0, "median charge of a cosmic ray", unit="e-", above=0
    )
    jitter_px: float = option(0.004, "pointing jitter, along each axis", unit="pixels", at_least=0)
    drift_px: float = option(0.01, "pointing drift over the exposure", unit="pixels", at_least=0)

    # --- each effect on or off
    bias: bool = option(True, "bias that differs from pixel to pixel and amplifier to amplifier")
    odd_even_rows: bool = option(True, "even rows offset from odd rows")
    amplifier_drifts: bool = option(True, "amplifier levels drift, in the reference columns too")
    emi: bool = option(True, "390.625 Hz electromagnetic interference and a weak 10 Hz wave")
    nonlinearity: bool = option(True, "response that falls as charge gathers")
    saturation: bool = option(True, "samples stop at the full well")
    first_group: bool = option(True, "first groups sit low and settle")
    last_group: bool = option(True, "last frame sits high, odd rows more than even ones")
    reset_anomaly: bool = option(True, "decay after the reset, as in the reset reference")
    cosmic_rays: bool = option(True, "cosmic rays")
    bad_pixels: bool = option(True, "dead pixels, hot pixels, pixels unknown to the references")
    flat: bool = option(True, "sensitivity that differs from pixel to pixel")
    photon_noise: bool = option(True, "photon noise")
    read_noise: bool = option(True, "read noise")
    background: bool = option(True, "zodiacal and thermal background, hot first columns")
    dark: bool = option(True, "dark current")
    jitter: bool = option(True, "pointing jitter and drift")

    def __post_init__(self):
        super().__post_init__()
        for name, value in vars(self).items():
            if isinstance(value, float) and not math.isfinite(value):
                raise ValueError(f"simulate.{name}: expected a finite number, got {value}")
        if self.n_segments > self.n_ints:
            raise ValueError(
                f"simulate.n_segments: expected at most n_ints ({self.n_ints}), "
                f"got {self.n_segments}"
            )

    @property
    def integration_period_s(self) -> float:
        """From the start of one integration to the next: its groups and one reset frame."""
        return (self.n_groups + 1) * FRAME_TIME_S

    @property
    def segment_bounds(self) -> list[tuple[int, int]]:
        """First integration and end (excluded) of each segment, as even as they divide."""
        edges = [k * self.n_ints // self.n_segments for k in range(self.n_segments + 1)]
        return list(pairwise(edges))
