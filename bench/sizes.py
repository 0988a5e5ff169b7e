"""Named sizes of observations, and a folder that keeps what was simulated of them."""

import hashlib
import json
import tempfile
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path

import miri_gpu.simulate
from miri_gpu import detector
from miri_gpu.simulate import Observation, SimulationSettings, simulate

SIZES = {
    "tiny": SimulationSettings(n_ints=4, n_groups=5, n_segments=1),
    "faint": SimulationSettings(n_ints=40, n_groups=64, n_segments=1),
    "bright": SimulationSettings(n_ints=200, n_groups=9, n_segments=1),
}
KEPT = "bench.json"  # beside a simulation that is complete: where its parts are, and its origin


def shape(settings: SimulationSettings) -> tuple[int, int, int, int]:
    """(n_ints, n_groups, n_rows, n_cols) of the whole exposure."""
    return settings.n_ints, settings.n_groups, detector.N_ROWS, detector.N_COLS


def describe_size(settings: SimulationSettings) -> dict:
    """What the entry of a result says of the data."""
    n_ints, n_groups, n_rows, n_cols = shape(settings)
    return {
        "shape": [n_ints, n_groups, n_rows, n_cols],
        "raw_dtype": "uint16",
        "dtype": "float32",
        "samples": n_ints * n_groups * n_rows * n_cols,
        "segments": settings.n_segments,
    }


@contextmanager
def data_folder(folder: Path | None):
    """The folder for simulated data: the one given, or one that goes away afterwards."""
    if folder is not None:
        folder.mkdir(parents=True, exist_ok=True)
        yield folder
    else:
        with tempfile.TemporaryDirectory(prefix="miri_gpu_bench_") as temporary:
            yield Path(temporary)


def observation_of(name: str, folder: Path) -> Observation:
    """Simulate the observation of a named size, or find it where it was simulated before.

    What another version of the simulator, or other settings, left in the folder is made anew.
    """
    settings, directory = SIZES[name], folder / name
    origin = {"settings": asdict(settings), "simulator": _simulator_checksum()}
    kept = directory / KEPT
    if kept.exists():
        found = json.loads(kept.read_text(encoding="utf-8"))
        if found["origin"] == json.loads(json.dumps(origin)):
            return Observation(
                directory=directory,
                segments=tuple(directory / segment for segment in found["segments"]),
                crds_path=directory / found["crds_path"],
                crds_context=found["crds_context"],
                truth=directory / found["truth"],
            )
        kept.unlink()
    observation = simulate(directory, settings)
    parts = {
        "origin": origin,
        "segments": [path.name for path in observation.segments],
        "crds_path": observation.crds_path.name,
        "crds_context": observation.crds_context,
        "truth": observation.truth.name,
    }
    kept.write_text(json.dumps(parts), encoding="utf-8")
    return observation


def _simulator_checksum() -> str:
    """Changes whenever the source of the simulator does."""
    sources = sorted(Path(miri_gpu.simulate.__file__).parent.glob("*.py"))
    return hashlib.sha256(b"".join(path.read_bytes() for path in sources)).hexdigest()
