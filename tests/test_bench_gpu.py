"""What the benches do on a GPU, on the strict stand-in for one; nothing here looks at a clock."""

import sys
import threading
import types
from pathlib import Path

import numpy as np
import pytest
import standin

sys.path.append(str(Path(__file__).parents[1]))  # bench/ is not part of the installed package

from bench import ceilings, compute, functions, machine, memory, results, run_ours, source
from bench.clock import Effort
from bench.sizes import SIZES
from miri_gpu import reduction
from miri_gpu.backend import Backend
from miri_gpu.recipe import load_recipe

ONCE = Effort(seconds=0.0, calls=1)


@pytest.fixture
def gpu(monkeypatch) -> Backend:
    """The stand-in, with as much of the CUDA runtime as the benches ask of CuPy."""
    pool = types.SimpleNamespace(
        total_bytes=lambda: 1000,
        free_bytes=lambda: 0,
        get_limit=lambda: 0,
        free_all_blocks=lambda: None,
    )
    stream = types.SimpleNamespace(synchronize=lambda: None, use=lambda: None)
    cuda = types.SimpleNamespace(
        Stream=lambda non_blocking: stream,
        alloc_pinned_memory=bytearray,
        get_current_stream=lambda: stream,
        runtime=types.SimpleNamespace(
            memGetInfo=lambda: (2**30, 2**31),
            driverGetVersion=lambda: 13000,
            runtimeGetVersion=lambda: 13000,
        ),
    )
    for name, value in {
        "cuda": cuda,
        "get_default_memory_pool": lambda: pool,
        "get_default_pinned_memory_pool": lambda: pool,
    }.items():
        monkeypatch.setattr(standin.xp, name, value, raising=False)

    def assign(array, values):
        assert isinstance(values, np.ndarray)
        array._hidden[...] = values

    monkeypatch.setattr(standin.StandInArray, "set", assign, raising=False)
    return Backend("cupy", standin.xp, "Some GPU", "a test asks for it")


def test_ceilings(gpu, tmp_path):
    found = ceilings.measure_ceilings(ceilings.SIZES["tiny"], gpu, tmp_path)["bytes_per_second"]
    copies = {
        f"copy to the {place}, {kind}"
        for place in ("device", "host")
        for kind in ("pinned", "pageable")
    }
    assert copies | {"copy in device memory"} <= set(found)
    assert all(speed is None or speed > 0 for speed in found.values())


def test_the_ceiling_of_what_comes_in(gpu, tmp_path):
    (tmp_path / "file").write_bytes(b"1234")
    assert ceilings.input_ceiling(tmp_path / "file", gpu) > 0


def test_functions(gpu):
    """Every function runs on arrays of the device, and what it moves is what it moves on a host."""
    entry = functions.measure_functions(SIZES["tiny"], gpu, ONCE)
    on_host = source.Source.simulated(SIZES["tiny"], Backend("numpy", np, "CPU", "a test"))
    for case in functions.all_cases(on_host):
        found = entry["functions"][case.name]
        assert found["ns"] > 0
        if case.shape == tuple(found["shape"]):
            assert found["traffic_bytes"] == case.traffic_bytes(np), case.name


def test_compute_from_memory(gpu):
    found = compute.from_memory(source.Source.simulated(SIZES["tiny"], gpu), repeat=1)
    assert set(found["seconds"]) == {"ramps to rates", "rates to spectra"}
    assert found["device_memory_bytes"] == 1000


def test_memory_that_a_run_gives_back_before_it_ends_was_taken(gpu, monkeypatch):
    held, looked = {"bytes": 1000}, threading.Event()

    def look():
        if held["bytes"] == 5000:
            looked.set()
        return held["bytes"]

    def run_plan(plan, **how):
        held["bytes"] = 5000
        assert looked.wait(10)
        held["bytes"] = 1000

    gpu.xp.get_default_memory_pool().total_bytes = look
    plan = types.SimpleNamespace(backend=gpu, recipe=load_recipe("bright", 5))
    monkeypatch.setattr(run_ours, "_plan", lambda task: plan)
    monkeypatch.setattr(reduction, "run_plan", run_plan)
    found = run_ours.reduce_once({})
    assert found["device_memory_bytes"] == {"before": 1000, "peak": 5000}
    assert found["device_memory_beside_bytes"] == 2**30 - 1000
    assert memory.taken(found, 8000) == {"taken_bytes": 4000, "of_cap": 0.5}


def test_results_are_those_of_the_gpu(gpu, tmp_path):
    path = results.write_results("compute", {"tiny/cupy": {}}, gpu, tmp_path)
    assert path.name == "some-gpu-compute.json"
    assert machine.describe_machine(gpu)["gpu"] == {
        "name": "Some GPU",
        "memory_gib": 2.0,
        "cuda_driver": 13000,
        "cuda_runtime": 13000,
    }
