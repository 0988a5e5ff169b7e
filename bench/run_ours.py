"""One reduction by miri_gpu, measured from within: `python -m bench.run_ours TASK` prints JSON."""

import importlib
import json
import sys
import time
from pathlib import Path

from bench.clock import Stopwatch, peak_memory_bytes

# What a reduction imports when it gets there; imported beforehand, since imports do not count.
_IMPORTED_LATE = (
    "astropy.io.fits",
    "crds.core.utils",
    "stpipe.crds_client",
    "stdatamodels.jwst.datamodels",
    "asdf",
    "gwcs",
    "xarray",
    "miri_gpu.timeseries",
)


def reduce_once(task: dict) -> dict:
    """Reduce an observation and measure it.

    Parameters
    ----------
    task : dict
        `segments`: paths; `backend`: "numpy" or "cupy"; and, optional, `settings`: changes to the
        recipe; `memory_bytes`: cap of the blocks; `save_arrays`: .npz file for rates and spectra,
        whose writing is not measured.

    Returns
    -------
    dict : `seconds`, `peak_memory_bytes`, `recipe`
    """
    began = time.perf_counter()
    for name in ("miri_gpu.reduction", *_IMPORTED_LATE):
        importlib.import_module(name)
    from miri_gpu import plan as plans
    from miri_gpu.reduction import run_plan

    imported = time.perf_counter()
    stopwatch, kept_rates = Stopwatch(), []

    def keep(segment, rates):
        kept_rates.append(rates)

    n_modules = len(sys.modules)
    start = time.perf_counter()
    settings = task.get("settings", {})
    plan = plans.make_plan(task["segments"], None, settings, task["backend"], None, False)
    planned = time.perf_counter()
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
        "recipe": plan.recipe.name,
    }
    if "save_arrays" in task:
        _save_arrays(Path(task["save_arrays"]), dataset, kept_rates)
    return found


def _save_arrays(path: Path, dataset, kept_rates) -> None:
    import numpy as np

    from miri_gpu.backend import to_host

    arrays = {"flux": dataset["flux"].values, "rows": dataset["row"].values}
    if kept_rates:  # none where the segments hold rates already
        arrays["rates"] = np.concatenate([to_host(rates.data) for rates in kept_rates])
        arrays["dq"] = np.concatenate([to_host(rates.dq) for rates in kept_rates])
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
