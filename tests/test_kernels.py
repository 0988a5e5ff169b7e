"""What brings kernels to arrays: compiled libraries, launches, and NVIDIA's compiler."""

import numpy as np
import nvrtc
import pytest
from click.testing import CliRunner

from miri_gpu import kernels
from miri_gpu.cli import main

MOST_SPILLED = {"find_jumps": 512}  # bytes: faster so, with more threads at once (on an H200)
FILES = sorted({kernel.file for kernel in kernels.sources().values()})


def probe(x, y, factor=2.0, xp=np):
    kernels.launch(xp, "probe", x.size, x, factor, y)


def test_a_kernel_runs_on_arrays(compiled_kernels):
    x, y = np.arange(5, dtype=np.float32), np.empty(5, np.float32)
    x.flags.writeable = False
    probe(x, y)
    np.testing.assert_array_equal(y, 2 * x)
    probe(x[:0], y[:0])


def test_arguments_that_are_not_what_the_source_declares_are_refused(compiled_kernels):
    x = np.arange(6, dtype=np.float32)
    fixed = x.copy()
    fixed.flags.writeable = False
    for y, message in (
        (np.empty(6), "probe: y: expected float32, got float64"),
        (np.empty((6, 2), np.float32)[:, 0], "probe: y: expected a C-contiguous array"),
        (fixed, "probe: y: expected an array that can be written to"),
        ([0.0] * 6, "probe: y: expected an array of numpy, got list"),
    ):
        with pytest.raises(TypeError, match=message):
            probe(x, y)
    with pytest.raises(TypeError, match="probe: expected 3 arguments, got 1"):
        kernels.launch(np, "probe", 6, x)


def test_a_variable_switches_kernels_off(monkeypatch, xp):
    monkeypatch.setenv(kernels.ENVIRONMENT_VARIABLE, "0")
    assert not kernels.available(xp)
    assert kernels.status() == "switched off by MIRI_GPU_KERNELS=0"
    answer = CliRunner().invoke(main, ["info", "--backend", "numpy"])
    assert answer.exit_code == 0
    assert "kernels: switched off by MIRI_GPU_KERNELS=0" in answer.output


def test_info_says_what_runs_kernels(monkeypatch):
    monkeypatch.delenv(kernels.ENVIRONMENT_VARIABLE, raising=False)
    answer = CliRunner().invoke(main, ["info", "--backend", "numpy"])
    assert f"kernels: {kernels.status()}" in answer.output


def test_a_library_of_other_sources_is_not_used(compiled_kernels, monkeypatch):
    monkeypatch.setattr(kernels, "_digest", lambda: "of other sources")
    library, reason = kernels._load("_cpu")
    assert library is None
    assert "install the package again" in reason
    monkeypatch.setattr(kernels, "_FOLDER", kernels._FOLDER / "nowhere")
    library, reason = kernels._load("_cpu")
    assert library is None and reason.startswith(f"not compiled: no library in {kernels._FOLDER}")


def test_every_level_of_processor_computes_the_same(compiled_kernels, rng):
    """The kernel with the most arithmetic, from each library that runs here."""
    from miri_gpu.rates.outlier_fits import clean_windows

    data = rng.normal(0, 1, (2, 70, 11)).astype(np.float32)
    data[rng.random(data.shape) < 0.02] = 100
    dq, windows = (data < -3).astype(np.uint32), ((0, 50), (50, 70))
    settings = {"masked": 1, "order": 4, "threshold": 4.0, "modelled": slice(None)}
    level = kernels._load("_cpu")[0].processor_level()
    results = []
    for needed, name in kernels._LIBRARIES.items():
        library, _ = kernels._load(name)
        if library is None or needed > level:
            continue
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(kernels, "_library", lambda library=library: (library, ""))
            kernels._host_function.cache_clear()
            results.append(clean_windows(data, dq, windows, **settings)[2])
    kernels._host_function.cache_clear()
    assert results
    for result in results[1:]:
        np.testing.assert_array_equal(result, results[0])


class FakeGpu:
    """What CuPy is asked for when a kernel is launched."""

    ndarray = np.ndarray
    __name__ = "fake"

    def __init__(self):
        self.launches = []

    def RawKernel(self, source, name, options):
        assert f"KERNEL void {name}(" in source and '#include "' not in source
        assert options == ("--fmad=false",)
        return lambda grid, block, arguments, shared_mem: self.launches.append(
            (grid, block, arguments, shared_mem)
        )


def test_a_gpu_gets_typed_arguments_and_enough_threads(monkeypatch):
    monkeypatch.delenv(kernels.ENVIRONMENT_VARIABLE, raising=False)
    gpu = FakeGpu()
    assert kernels.available(gpu)
    x = np.zeros(1000, np.float32)
    probe(x, x.copy(), factor=2, xp=gpu)
    kernels.launch(
        gpu, "probe", 1000, x, 2, x.copy(), threads_per_item=8, shared_bytes_per_item=5000
    )
    kernels.launch(gpu, "probe", 0, x[:0], 2, x[:0].copy())  # nothing to do, nothing launched
    (grid, block, arguments, shared), (few_grid, few_block, _, much_shared) = gpu.launches
    assert grid[0] * block[0] >= 1000 and shared == 0
    assert [type(a) for a in arguments] == [np.int64, np.ndarray, np.float64, np.ndarray]
    assert few_block == (64,) and few_grid == (125,) and much_shared == 40000  # whole warps


def test_sources_are_read_as_they_are_declared():
    kernel = kernels.sources()["clean_windows"]
    assert [p.name for p in kernel.parameters if p.is_written] == ["cleaned", "flagged", "model"]
    assert [p.dtype.name for p in kernel.parameters[:4]] == ["int64"] * 3 + ["int32"]
    for text in ("int x[3]", "const float **x", "float"):
        with pytest.raises(ValueError, match="expected a parameter such as"):
            kernels._parameter(text)


@pytest.mark.parametrize("architecture", nvrtc.ARCHITECTURES)
@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_compiles_for_gpus(file, architecture, record_property):
    """Registers and spills go into the report; `python tests/nvrtc.py` prints them."""
    try:
        nvrtc.load()
    except (ImportError, OSError) as error:
        pytest.skip(f"NVIDIA's compiler cannot be loaded: {error}")
    used = nvrtc.compile_source(kernels.source_text(file), architecture)
    assert set(used) == {k.name for k in kernels.sources().values() if k.file == file}
    for name, usage in used.items():
        record_property(f"{name} on {architecture}", str(usage))
        assert usage.spill_bytes <= MOST_SPILLED.get(name, 0), f"{name} spills: {usage}"


def test_the_compiler_refuses_what_is_no_cuda():
    try:
        nvrtc.load()
    except (ImportError, OSError) as error:
        pytest.skip(f"NVIDIA's compiler cannot be loaded: {error}")
    with pytest.raises(SyntaxError, match="undefined"):
        nvrtc.compile_source('extern "C" __global__ void f(float *x) { x[0] = y; }', "sm_90")
