"""Figures on disk: one JSON file for each bench and kind of machine, an entry for each case."""

import json
from pathlib import Path

from bench.machine import describe_machine, describe_moment, machine_kind
from miri_gpu.backend import Backend
from miri_gpu.files import write_text

RESULTS = Path(__file__).resolve().parent / "results"


def write_results(bench: str, entries: dict[str, dict], backend: Backend, folder: Path) -> Path:
    """Add the entries of a bench to what is known of this kind of machine.

    Entries of other cases stay; each carries the machine, the time and the commit of its own
    measurement.

    Parameters
    ----------
    bench : str
        Name of the bench.
    entries : dict of case ("faint/numpy") to what was measured
    backend : Backend
        Where it was computed: a file for each kind of GPU, and of CPU.
    folder : Path
        Made where it does not exist.

    Returns
    -------
    Path : of the file, `<machine kind>-<bench>.json`
    """
    machine = describe_machine(backend)
    kind = machine_kind(machine)
    path = Path(folder) / f"{kind}-{bench}.json"
    known = json.loads(path.read_text(encoding="utf-8"))["entries"] if path.exists() else {}
    moment = describe_moment()
    for case, measured in entries.items():
        known[case] = {"measured": moment, "machine": machine, **measured}
    path.parent.mkdir(parents=True, exist_ok=True)
    entries = _rounded(dict(sorted(known.items())))
    content = {"bench": bench, "machine_kind": kind, "entries": entries}
    write_text(path, json.dumps(content, indent=2, allow_nan=False) + "\n")
    return path


def read_results(bench: str, folder: Path = RESULTS) -> dict[str, dict[str, dict]]:
    """The entries of a bench: by kind of machine, and then by case."""
    contents = [
        json.loads(path.read_text(encoding="utf-8"))
        for path in sorted(Path(folder).glob(f"*-{bench}.json"))
    ]
    return {content["machine_kind"]: content["entries"] for content in contents}


def _rounded(value):
    """Every float to five significant digits: no clock is better than that."""
    if isinstance(value, dict):
        return {key: _rounded(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_rounded(item) for item in value]
    return float(f"{value:.5g}") if isinstance(value, float) else value
