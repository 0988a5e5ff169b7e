"""The choice of the backend, what is said when it cannot be had, and the rule against mixing."""

import sys
import types

import numpy as np
import pytest
import standin

from miri_gpu import backend, host
from miri_gpu.backend import Backend, BackendError, is_out_of_memory, namespace, select, to_host

PIP = 'pip install "miri-gpu[cuda1'


class CUDADriverError(RuntimeError):
    """As CuPy's, which launches kernels through the driver."""

    status = 2


class FakeCUDAError(RuntimeError):
    """As cupy.cuda.runtime.CUDARuntimeError: a RuntimeError with a status."""

    def __init__(self, status, message=""):
        super().__init__(message or f"cudaError {status}")
        self.status = status


FakeCUDAError.__name__ = "CUDARuntimeError"


class CompileException(Exception):
    """As cupy.cuda.compiler.CompileException, which is no RuntimeError."""


def fake_cupy(
    *, devices=1, driver=13000, capability="90", kernel=None, added=1.0, version="14.1.0", limit=0
):
    """A module that answers the questions `select` asks, as CuPy on some machine would.

    `devices` may be an exception; `kernel` is one that launching raises; `added` is what the
    kernel adds to each element; `limit` is that of its memory, or 0.
    """

    def get_device_count():
        if isinstance(devices, Exception):
            raise devices
        return devices

    def launch(grid, block, args):
        if kernel is not None:
            raise kernel
        args[0][...] += added

    runtime = types.SimpleNamespace(
        CUDARuntimeError=FakeCUDAError,
        getDeviceCount=get_device_count,
        driverGetVersion=lambda: driver,
        getDeviceProperties=lambda index: {"name": b"Fake GPU"},
        memGetInfo=lambda: (5000, 9000),
    )
    module = types.ModuleType("cupy")
    module.__version__ = version
    module.cuda = types.SimpleNamespace(
        runtime=runtime,
        Device=lambda: types.SimpleNamespace(id=0, compute_capability=capability),
        compiler=types.SimpleNamespace(CompileException=CompileException),
    )
    module.float32, module.zeros = np.float32, np.zeros
    module.RawKernel = lambda source, name: launch
    module.get_default_memory_pool = lambda: types.SimpleNamespace(
        free_bytes=lambda: 1000,
        total_bytes=lambda: 3000,
        used_bytes=lambda: 2000,
        get_limit=lambda: limit,
    )
    return module


@pytest.fixture
def machine(monkeypatch):
    """Replaces CuPy by a fake for the test: machine(devices=0) and so on."""

    def become(**facts):
        monkeypatch.setitem(sys.modules, "cupy", fake_cupy(**facts))

    return become


@pytest.fixture
def without_cupy(monkeypatch):
    """CuPy is not installed."""
    imported = backend.importlib.import_module

    def import_module(name):
        if name == "cupy":
            raise ModuleNotFoundError("No module named 'cupy'", name="cupy")
        return imported(name)

    monkeypatch.setattr(backend.importlib, "import_module", import_module)


# --- choosing


def test_auto_takes_the_gpu_where_one_answers(machine):
    machine()
    chosen = select("auto")
    assert (chosen.name, chosen.device) == ("cupy", "Fake GPU")
    assert str(chosen) == "cupy on Fake GPU: a GPU answers"
    assert chosen.free_memory_bytes() == 6000
    machine(limit=2500)  # CUPY_GPU_MEMORY_LIMIT
    assert select("auto").free_memory_bytes() == 500
    assert chosen.held_memory_bytes() == 3000
    assert chosen.other_memory_bytes() == 1000


def test_auto_falls_back_to_numpy_and_keeps_the_reason(machine):
    machine(devices=0)
    chosen = select("auto")
    assert chosen.xp is np
    assert "finds no device" in chosen.reason
    assert "\n" not in str(chosen)


def test_auto_falls_back_without_the_package(without_cupy):
    chosen = select()
    assert chosen.name == "numpy"
    assert "CuPy is not installed" in chosen.reason


def test_numpy_never_imports_cupy(monkeypatch):
    monkeypatch.setattr(backend, "_import_cupy", lambda: pytest.fail("CuPy was imported"))
    assert select("numpy").xp is np


@pytest.mark.parametrize("name", ["numpy", "cupy"])
def test_the_environment_chooses_where_nothing_was_asked(machine, monkeypatch, name):
    machine()
    monkeypatch.setenv("MIRI_GPU_BACKEND", name)
    chosen = select()
    assert chosen.name == name
    assert chosen.reason == "MIRI_GPU_BACKEND asks for it"
    assert select("numpy").reason == "--backend asks for it"


def test_an_empty_environment_variable_means_auto(machine, monkeypatch):
    machine()
    monkeypatch.setenv("MIRI_GPU_BACKEND", "")
    assert select().reason == "a GPU answers"


def test_an_unknown_name_is_refused_with_where_it_came_from(monkeypatch):
    with pytest.raises(BackendError, match=r"--backend: expected one of auto, .*got 'cuda'"):
        select("cuda")
    monkeypatch.setenv("MIRI_GPU_BACKEND", "gpu")
    with pytest.raises(BackendError, match=r"MIRI_GPU_BACKEND: expected one of .*got 'gpu'"):
        select()


# --- what is missing, and what mends it


def test_missing_package_names_the_pip_command(without_cupy):
    with pytest.raises(BackendError, match="CuPy is not installed") as error:
        select("cupy")
    assert PIP in str(error.value)


@pytest.mark.parametrize(
    ("series", "extra"), [("580.95.05", "cuda13"), ("550.54.14", "cuda12"), ("470.1", "cuda12")]
)
def test_the_pip_command_fits_the_driver(tmp_path, monkeypatch, series, extra):
    version = tmp_path / "version"
    version.write_text(f"NVRM version: NVIDIA UNIX x86_64 Kernel Module  {series}  Tue Mar\n")
    number = backend._driver_series(str(version))
    assert number == int(series[:3])
    monkeypatch.setattr(backend, "_driver_series", lambda: number)
    assert backend._pip_command() == f'pip install "miri-gpu[{extra}]"'


def test_a_machine_without_driver_gets_both_extras():
    assert backend._driver_series("/no/such/file") is None


@pytest.mark.parametrize(
    ("raised", "words"),
    [
        (ImportError("CuPy is not correctly installed.\nmany lines"), "cannot be imported"),
        (ModuleNotFoundError("No module named 'numpy.x'", name="numpy.x"), "incomplete"),
    ],
)
def test_broken_package_is_told_in_one_line(monkeypatch, raised, words):
    def import_module(name):
        raise raised

    monkeypatch.setattr(backend.importlib, "import_module", import_module)
    with pytest.raises(BackendError, match=words) as error:
        select("cupy")
    assert PIP in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("facts", "words"),
    [
        ({"devices": FakeCUDAError(35), "driver": 0}, ["no NVIDIA driver", "--backend numpy"]),
        ({"devices": FakeCUDAError(35), "driver": 11040}, ["driver is too old", PIP]),
        ({"devices": FakeCUDAError(100)}, ["finds no device", "--backend numpy"]),
        ({"devices": 0}, ["finds no device"]),
        ({"devices": FakeCUDAError(3)}, ["forked"]),
        ({"devices": FakeCUDAError(46)}, ["busy"]),
        ({"devices": FakeCUDAError(803)}, ["restart"]),
        ({"devices": FakeCUDAError(999, "unknown\nerror")}, ["CUDA does not start (unknown)"]),
        ({"capability": "61"}, ["Fake GPU", "6.1", "7.5 or newer"]),
        ({"kernel": RuntimeError("NVRTC not found\nsearched")}, ["NVRTC not found", PIP]),
        ({"kernel": ImportError("no cuBLAS")}, ["no cuBLAS", PIP]),
        ({"kernel": MemoryError()}, ["MemoryError", PIP]),
        ({"kernel": CompileException("no header")}, ["CompileException", PIP]),
        ({"added": 0.0}, ["wrong result"]),
        ({"version": "14.0.1"}, ["14.1 or newer", "14.0.1", PIP]),
    ],
)
def test_each_failure_says_what_is_missing_and_what_mends_it(machine, facts, words):
    machine(**facts)
    with pytest.raises(BackendError) as error:
        select("cupy")
    message = str(error.value)
    assert message.startswith("--backend: CuPy cannot run here: ")
    assert "\n" not in message
    assert [word for word in words if word not in message] == []
    assert select("auto").name == "numpy"


# --- arrays and their library


def test_namespace_is_the_library_of_the_arrays(on_backend, xp):
    a, b = on_backend(np.ones(3), np.zeros((2, 2)))
    assert namespace(a, None, 1.5, b, True) is xp


def test_namespace_refuses_mixed_libraries():
    with pytest.raises(TypeError, match="arrays of one library, got numpy, standin_xp"):
        namespace(np.ones(3), standin.xp.ones(3))


def test_namespace_refuses_what_is_no_array():
    with pytest.raises(TypeError, match="got list"):
        namespace([1.0, 2.0])
    with pytest.raises(TypeError, match="got no array"):
        namespace(None, 3.0)


def test_to_host_returns_the_values(on_backend):
    values = np.arange(6.0).reshape(2, 3)
    np.testing.assert_array_equal(to_host(on_backend(values)), values)


def test_to_host_takes_what_reductions_return(on_backend):
    total = to_host(on_backend(np.arange(4.0)).sum())
    assert isinstance(total, np.ndarray)
    assert (total.shape, float(total)) == ((), 6.0)


def test_to_host_does_not_copy_a_host_array():
    values = np.ones(3)
    assert to_host(values) is values


@pytest.mark.parametrize("dtype", [">u2", "<u2", ">f4", "=f8"])
def test_to_device_keeps_values_in_any_byte_order(on_backend, dtype):
    values = np.array([[0, 1, 256], [40000, 65535, 7]], dtype=dtype)
    chosen = Backend(on_backend.name, on_backend.xp, "test", "test")
    np.testing.assert_array_equal(to_host(chosen.to_device(values)), values)


def test_numpy_arrays_are_not_copied_to_the_device():
    values = np.arange(4, dtype=">u2")
    assert np.shares_memory(select("numpy").to_device(values), values)


# --- memory


def test_numpy_reports_free_memory():
    assert 2**20 < select("numpy").free_memory_bytes() < 2**50
    assert select("numpy").held_memory_bytes() is None
    assert select("numpy").other_memory_bytes() is None


def test_out_of_memory_is_recognised_on_either_backend():
    assert is_out_of_memory(MemoryError())
    assert is_out_of_memory(FakeCUDAError(2))
    assert is_out_of_memory(CUDADriverError())
    assert not is_out_of_memory(FakeCUDAError(700))
    assert not is_out_of_memory(ValueError())


def test_a_gpu_is_capped_and_freed_again():
    limits = [700]
    pool = types.SimpleNamespace(
        get_limit=lambda: limits[-1], set_limit=lambda size: limits.append(size)
    )
    cupy = types.SimpleNamespace(get_default_memory_pool=lambda: pool)
    gpu = Backend("cupy", cupy, "", "")
    with pytest.raises(MemoryError), gpu.capped(100):
        assert limits == [700, 100]
        raise MemoryError
    assert limits == [700, 100, 700]
    with gpu.capped(None), select("numpy").capped(100):
        assert limits == [700, 100, 700]
    with gpu.capped(800):  # who has set a limit for CuPy has a cap already
        assert limits[3:] == [700]


def test_the_host_keeps_freed_memory_and_returns_it_with_any_backend(monkeypatch):
    done = []
    monkeypatch.setattr(host, "keep_freed_memory", lambda: done.append("kept"))
    monkeypatch.setattr(host, "return_freed_memory", lambda: done.append("returned"))
    pool = types.SimpleNamespace(free_all_blocks=lambda: done.append("freed"))
    cupy = types.SimpleNamespace(
        get_default_memory_pool=lambda: pool, get_default_pinned_memory_pool=lambda: pool
    )
    for chosen in (select("numpy"), Backend("cupy", cupy, "", "")):
        chosen.reuse_memory()
        chosen.release_memory()
    assert done == ["kept", "returned", "kept", "freed", "freed", "returned"]


def test_synchronising_does_nothing_on_numpy():
    select("numpy").synchronize()


# --- the stand-in itself: a test on it must be able to fail


@pytest.fixture
def device():
    return standin.xp.asarray(np.arange(6.0).reshape(2, 3))


REFUSED = {
    "host + device": lambda d, h: h + d,
    "device + host": lambda d, h: d + h,
    "host += device": lambda d, h: h.__iadd__(d),
    "device == host": lambda d, h: d == h,
    "np.asarray": lambda d, h: np.asarray(d),
    "np.array of a list": lambda d, h: np.array([d, d]),
    "np.sum": lambda d, h: np.sum(d),
    "np.sin": lambda d, h: np.sin(d),
    "np.median": lambda d, h: np.median(d),
    "np.concatenate": lambda d, h: np.concatenate([d, d]),
    "host[device]": lambda d, h: h[d > 1],
    "device[host]": lambda d, h: d[h > 1],
    "device[slice to device]": lambda d, h: d[: standin.xp.asarray(1)],
    "device[...] = host": lambda d, h: d.__setitem__(0, h[0]),
    "host[...] = device": lambda d, h: h.__setitem__(0, d[0]),
    "xp.where with host": lambda d, h: standin.xp.where(d > 1, h, d),
    "xp.sum of host": lambda d, h: standin.xp.sum(h),
    "xp.stack with host": lambda d, h: standin.xp.stack([d, h]),
    "buffer": lambda d, h: memoryview(d),
    "iteration": lambda d, h: list(d),
    "len of range": lambda d, h: range(standin.xp.asarray(3)),
    "nanpercentile": lambda d, h: standin.xp.nanpercentile(d, 5),
    "nanquantile": lambda d, h: standin.xp.nanquantile(d, 0.5),
    "errstate": lambda d, h: standin.xp.errstate(all="ignore"),
    "masked arrays": lambda d, h: standin.xp.ma.masked_array(d),
    "maximum.reduce": lambda d, h: standin.xp.maximum.reduce(d),
    "bitwise_or.reduce": lambda d, h: standin.xp.bitwise_or.reduce(d.astype("u1")),
    "maximum.accumulate": lambda d, h: standin.xp.maximum.accumulate(d),
    "sum where": lambda d, h: standin.xp.sum(d, where=d > 1),
    "method with where": lambda d, h: d.mean(where=d > 1),
    "ufunc where": lambda d, h: standin.xp.add(d, 1.0, where=d > 1),
    "uint8 at": lambda d, h: standin.xp.add.at(d.astype("u1"), 0, 1),
    "NumPy scalars before": lambda d, h: np.float32(2) * d,
    "NumPy scalars compared": lambda d, h: np.float32(2) < d,
    "objects": lambda d, h: standin.xp.asarray(np.array([None])),
}


@pytest.mark.parametrize("what", REFUSED)
def test_the_stand_in_refuses(device, what):
    with pytest.raises((TypeError, ValueError, AttributeError, NotImplementedError)):
        REFUSED[what](device, np.ones((2, 3)))


def test_the_stand_in_computes_as_numpy_does(device):
    xp, host = standin.xp, np.arange(6.0).reshape(2, 3)
    pairs = [
        (2.0 - device, 2.0 - host),
        (device * np.float32(2), host * np.float32(2)),
        (device.T @ device, host.T @ host),
        (device[:, xp.asarray([2, 0])], host[:, [2, 0]]),
        (xp.where(device > 2, device, xp.nan), np.where(host > 2, host, np.nan)),
        (xp.median(device, axis=1), np.median(host, axis=1)),
        (xp.add.reduce(device), host.sum(axis=0)),
        (xp.linalg.inv(xp.eye(2) * 2.0), np.eye(2) / 2.0),
        (device.sum(), host.sum()),
        (device.astype("u1") | 3, host.astype("u1") | 3),
    ]
    for got, expected in pairs:
        assert isinstance(got, standin.StandInArray)
        assert got.dtype == np.asarray(expected).dtype
        np.testing.assert_array_equal(got.get(), expected)


def test_the_stand_in_writes_in_place(device):
    device += 1.0
    device[0] = 0.0
    device[device > 5.0] = -1.0
    out = standin.xp.empty(3)
    assert standin.xp.sum(device, axis=0, out=out) is out
    np.testing.assert_array_equal(device.get(), [[0, 0, 0], [4, 5, -1]])
    np.testing.assert_array_equal(out.get(), [4, 5, -1])


@pytest.mark.parametrize(
    ("what", "expected"),
    [
        (lambda d: d.sum(axis=0) * 2, 0),
        (lambda d: d.shape[0] + len(d) + d.ndim, 0),
        (lambda d: d.__setitem__(d > 1, 0.0), 0),
        (lambda d: float(d.sum()), 1),
        (lambda d: bool(d.any()), 1),
        (lambda d: d[d > 1], 1),
        (lambda d: d.get(), 1),
        (lambda d: standin.xp.where(d > 1), 1),
        (lambda d: standin.xp.unique(d), 1),
    ],
)
def test_the_stand_in_counts_waits(device, what, expected):
    with standin.syncs() as count:
        what(device)
    assert count() == expected


def test_the_fixture_hands_out_arrays_that_cannot_be_written_to(on_backend):
    if on_backend.name == "cupy":
        pytest.skip("CuPy has no read-only arrays")
    array = on_backend(np.ones(3))
    for write in (
        lambda: array.__setitem__(0, 2.0),
        lambda: array.__iadd__(1.0),
        lambda: array.sort(),
        lambda: on_backend.xp.add(array, 1.0, out=array),
        lambda: array.reshape(3, 1).__setitem__(0, 2.0),
    ):
        with pytest.raises(ValueError, match="read-only"):
            write()
