"""Simulated observations: raw segments, the reference files that match them, and the truth.

``simulate(directory)`` writes what an observer would download, and beside it what the observer
would love to know.
"""

from miri_gpu.simulate.observation import TRUTH, Observation, simulate
from miri_gpu.simulate.settings import SimulationSettings
from miri_gpu.simulate.truth import expected_flux, expected_flux_error

__all__ = [
    "TRUTH",
    "Observation",
    "SimulationSettings",
    "expected_flux",
    "expected_flux_error",
    "simulate",
]
