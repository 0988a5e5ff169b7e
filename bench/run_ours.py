"""One reduction by miri_gpu, measured from within: `python -m bench.run_ours TASK` prints JSON."""

import importlib
import json
import sys
import time
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from bench.clock import MemoryWatch, Stopwatch, anonymous_memory_bytes, peak_memory_bytes
from bench.run_theirs import IMPORTED_BY_CRDS

# What a reduction imports when it gets there; imported beforehand, since imports do not count.
_IMPORTED_LATE = (
    "astropy.io.fits",
    "numpy.polynomial",
    "crds.core.utils",
    *IMPORTED_BY_CRDS,
    "stpipe.crds_client",
    "asdf",
    "xarray",
    "miri_gpu.timeseries",
)


def reduce_once(task: dict) -> dict:
    """Reduce an observation and measure it.

    Parameters
    ----------
    task : dict
        `segments`: paths; `backend`: "numpy" or "cupy"; and, optional, `recipe`: by name;
        `settings`: changes to it; `memory_bytes`: cap of what it may take; `plain`: settings of the
        simulation, where references are not in files; `save_arrays`: .npz file for rates and
        spectra, whose writing is not measured.

    Returns
    -------
    dict : `seconds` by stage, `total_s`, memory, `recipe`
    """
    began = time.perf_counter()
    for name in ("miri_gpu.reduction", *_IMPORTED_LATE):
        with suppress(ModuleNotFoundError):
            importlib.import_module(name)
    from miri_gpu.backend import to_host
    from miri_gpu.reduction import run_plan

    imported = time.perf_counter()
    stopwatch, kept_rates = Stopwatch(), []

    @contextmanager
    def keep(_):
        yield lambda _, rates: kept_rates.append(rates.map(to_host))

    n_modules = len(sys.modules)
    with MemoryWatch(anonymous_memory_bytes) as on_host:
        start = time.perf_counter()
        plan = _plan(task)
        planned = time.perf_counter()
        with MemoryWatch(plan.backend.held_memory_bytes) as on_device:
            dataset = run_plan(
                plan,
                memory_bytes=task.get("memory_bytes"),
                progress=stopwatch,
                on_rates=keep if "save_arrays" in task else None,
            )
            plan.backend.synchronize()
            end = time.perf_counter()
    seconds = {"plan": planned - start, **stopwatch.seconds}
    seconds["rest"] = end - start - sum(seconds.values())  # alignment and product, chiefly
    found = {
        "seconds": seconds,
        "total_s": end - start,
        "imports_s": imported - began,
        "modules_imported_meanwhile": len(sys.modules) - n_modules,
        "peak_memory_bytes": peak_memory_bytes(),
        "anonymous_memory_bytes": on_host.seen_bytes,
        "recipe": plan.recipe.name,
    }
    if plan.backend.on_gpu:
        found["device_memory_bytes"] = on_device.seen_bytes
        found["device_memory_beside_bytes"] = plan.backend.other_memory_bytes()
    if "save_arrays" in task:
        _save_arrays(Path(task["save_arrays"]), dataset, kept_rates)
    return found


def _plan(task: dict) -> Any:
    """The plan of the reduction: what `miri-gpu reduce` would make, or that of a plain segment."""
    recipe, settings = task.get("recipe"), task.get("settings", {})
    if "plain" not in task:
        from miri_gpu.plan import make_plan

        return make_plan(task["segments"], recipe, settings, task["backend"], None, False)
    from bench import plain
    from miri_gpu import backend as backends
    from miri_gpu.simulate import SimulationSettings

    simulated = SimulationSettings(**task["plain"])
    segment = plain.segment(Path(task["segments"][0]), simulated)
    return plain.plan(segment, simulated, backends.select(task["backend"]), recipe, settings)


def _save_arrays(path: Path, dataset, kept_rates) -> None:
    import numpy as np

    arrays = {"flux": dataset["flux"].values, "rows": dataset["row"].values}
    if kept_rates:  # none where the segments hold rates already
        arrays["rates"] = np.concatenate([rates.data for rates in kept_rates])
        arrays["dq"] = np.concatenate([rates.dq for rates in kept_rates])
    np.savez(path, **arrays)


def make_rates(task: dict) -> dict:
    """Reduce an observation into the folder `rates_folder`; `rate_files` are its rate images."""
    from miri_gpu.products import RATES, reduce_to_directory

    folder = Path(task["rates_folder"])
    reduce_to_directory(
        task["segments"],
        folder,
        settings=task.get("settings"),
        backend=task["backend"],
        save_rates=True,
        overwrite=True,
    )
    return {"rate_files": [str(path) for path in sorted((folder / RATES).glob("*.fits"))]}


if __name__ == "__main__":
    task = json.loads(sys.argv[1])
    print(json.dumps(make_rates(task) if "rates_folder" in task else reduce_once(task)))
