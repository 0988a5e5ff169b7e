"""The observations that are reduced: simulated once, kept in a folder, however large.

Simulating takes longer than reducing. Of a large observation only the first integrations are
simulated, and repeated until there are enough; times and numbers go on. Where STScI's packages are
missing, the same samples come in a file with few keywords, and the references in memory
(`bench.plain`).
"""

import hashlib
import importlib.util
import json
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from itertools import cycle, islice
from math import prod
from pathlib import Path

import miri_gpu.simulate
from bench import plain
from bench.sizes import describe_size, shape
from miri_gpu.simulate import SimulationSettings, simulate
from miri_gpu.simulate.segments import write_segment

MOST_SIMULATED = 100_000_000  # samples, a quarter of a minute's work
KEPT = "bench.json"  # beside an observation that is complete: where its parts are, and its origin
STSCI_PACKAGES = ("astropy", "crds", "stdatamodels", "asdf")  # to write, plan and reduce real files


@dataclass(frozen=True)
class Observed:
    """An observation in a folder, of one segment.

    Attributes
    ----------
    settings : SimulationSettings
    n_distinct : int
        Integrations that were simulated; the others repeat them.
    segment : Path
    crds : dict
        The variables by which CRDS finds its references; empty where these are kept in memory.
    """

    settings: SimulationSettings
    n_distinct: int
    segment: Path
    crds: dict[str, str]

    def describe(self) -> dict:
        """What the entry of a result says of the data."""
        return {
            **describe_size(self.settings),
            "distinct_integrations": self.n_distinct,
            "references": "CRDS" if self.crds else "in memory",
        }

    def task(self, backend: str, **more) -> dict:
        """What `bench.run_ours` is asked to do with it."""
        task = {"segments": [str(self.segment)], "backend": backend, **more}
        return task if self.crds else {**task, "plain": asdict(self.settings)}


def has_stsci_packages() -> bool:
    """Whether files are written and planned as the archive and CRDS would have it."""
    return all(importlib.util.find_spec(name) for name in STSCI_PACKAGES)


@contextmanager
def data_folder(folder: Path | None) -> Iterator[Path]:
    """The folder for simulated data: the one given, or one that goes away afterwards."""
    if folder is not None:
        folder.mkdir(parents=True, exist_ok=True)
        yield folder
    else:
        with tempfile.TemporaryDirectory(prefix="miri_gpu_bench_") as temporary:
            yield Path(temporary)


def observe(settings: SimulationSettings, folder: Path, stsci: bool | None = None) -> Observed:
    """Simulate an observation, or find it where it was simulated before.

    What another version of the simulator left in the folder is made anew. `stsci` says whether
    there are references in files, for STScI's packages; by default where these are installed.
    """
    stsci = has_stsci_packages() if stsci is None else stsci
    directory = folder / f"{settings.n_ints}x{settings.n_groups}{'' if stsci else '-plain'}"
    n_distinct = min(settings.n_ints, max(1, MOST_SIMULATED // prod(shape(settings)[1:])))
    origin = {
        "settings": asdict(settings),
        "n_distinct": n_distinct,
        "simulator": _simulator_checksum(),
    }
    kept = directory / KEPT
    if not _vouched_for(kept, origin):
        kept.unlink(missing_ok=True)
        segment, crds = (_simulate if stsci else _simulate_plain)(directory, settings, n_distinct)
        parts = {"origin": origin, "segment": segment.name, "crds": crds}
        kept.write_text(json.dumps(parts), encoding="utf-8")
    found = json.loads(kept.read_text(encoding="utf-8"))
    crds = found["crds"]
    if crds:
        crds = {**crds, "CRDS_PATH": str(directory / crds["CRDS_PATH"])}
    return Observed(settings, n_distinct, directory / found["segment"], crds)


def _simulate(directory: Path, settings: SimulationSettings, n_distinct: int) -> tuple[Path, dict]:
    """Segment and references, as the archive and CRDS have them."""
    observation = simulate(directory, replace(settings, n_ints=n_distinct))
    (segment,) = observation.segments
    if n_distinct < settings.n_ints:
        from astropy.io import fits

        simulated = fits.getdata(segment, "SCI")
        segment = write_segment(directory, 1, settings, islice(cycle(simulated), settings.n_ints))
    crds = {"CRDS_PATH": observation.crds_path.name, "CRDS_CONTEXT": observation.crds_context}
    return segment, crds


def _simulate_plain(
    directory: Path, settings: SimulationSettings, n_distinct: int
) -> tuple[Path, dict]:
    """The same samples in a file with few keywords; no references."""
    directory.mkdir(parents=True, exist_ok=True)
    segment = plain.segment(directory / plain.FILE_NAME, settings)
    samples = plain.simulated_samples(replace(settings, n_ints=n_distinct))
    plain.write_segment(segment, islice(cycle(samples), settings.n_ints))
    return segment.path, {}


def _vouched_for(kept: Path, origin: dict) -> bool:
    """Whether what lies beside a file is complete, and of this origin."""
    if not kept.exists():
        return False
    found = json.loads(kept.read_text(encoding="utf-8"))
    return found["origin"] == json.loads(json.dumps(origin))


def _simulator_checksum() -> str:
    """Changes whenever the source of the simulator does."""
    sources = [*Path(miri_gpu.simulate.__file__).parent.glob("*.py"), Path(plain.__file__)]
    return hashlib.sha256(b"".join(path.read_bytes() for path in sorted(sources))).hexdigest()
