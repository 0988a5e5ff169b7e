"""Named sizes of observations."""

from miri_gpu import detector
from miri_gpu.simulate import SimulationSettings

# What is small enough to be simulated in a moment: --size all.
SIZES = {
    "tiny": SimulationSettings(n_ints=4, n_groups=5, n_segments=1),
    "faint": SimulationSettings(n_ints=40, n_groups=64, n_segments=1),
    "bright": SimulationSettings(n_ints=200, n_groups=9, n_segments=1),
}
# And with a file as large as the archive's largest: 9 GB of raw samples.
ALL_SIZES = {**SIZES, "large": SimulationSettings(n_ints=2400, n_groups=64, n_segments=1)}


def shape(settings: SimulationSettings) -> tuple[int, int, int, int]:
    """(n_ints, n_groups, n_rows, n_cols) of the whole exposure."""
    return settings.n_ints, settings.n_groups, detector.N_ROWS, detector.N_COLS


def n_samples(settings: SimulationSettings) -> int:
    """How many samples the exposure has."""
    return settings.n_ints * settings.n_groups * detector.N_ROWS * detector.N_COLS


def raw_bytes(settings: SimulationSettings) -> int:
    """What the samples take on disk."""
    return 2 * n_samples(settings)


def describe_size(settings: SimulationSettings) -> dict:
    """What the entry of a result says of the data."""
    return {
        "shape": list(shape(settings)),
        "raw_dtype": "uint16",
        "dtype": "float32",
        "samples": n_samples(settings),
        "segments": settings.n_segments,
    }
