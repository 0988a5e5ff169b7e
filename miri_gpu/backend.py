"""Which array library computes: NumPy on the host or CuPy on a GPU. The only file that names CuPy.

A function of the core asks :func:`namespace` for the module its arrays belong to and never
chooses one. The shell chooses once, with :func:`select`, and moves arrays with
:meth:`Backend.to_device` and :func:`to_host`.
"""

import ctypes
import importlib
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np

from miri_gpu import host
from miri_gpu.errors import BackendError

BACKENDS = ("auto", "cupy", "numpy")
ENVIRONMENT_VARIABLE = "MIRI_GPU_BACKEND"

_MIN_COMPUTE_CAPABILITY = 75  # CuPy's CUDA 13 builds need Turing or newer
_OLDEST_CUPY = (14, 1)  # older ones do not sort, and do not say so, where memory is short
_MIN_DRIVER_CUDA13 = 580  # the first driver series that runs CUDA 13


@dataclass(frozen=True)
class Backend:
    """A usable array library and why it was chosen.

    Attributes
    ----------
    name : "numpy" or "cupy"
    xp : the module itself
    device : what computes, in words
    reason : why this one, in words
    """

    name: str
    xp: ModuleType
    device: str
    reason: str

    @property
    def on_gpu(self) -> bool:
        """Whether a GPU computes."""
        return self.name == "cupy"

    def __str__(self) -> str:
        """One line for people: "numpy on CPU (8 cores): --backend asks for it"."""
        return f"{self.name} on {self.device}: {self.reason}"

    def to_device(self, array: np.ndarray) -> Any:
        """Move a host array to where this backend computes (no copy for NumPy).

        A GPU holds numbers in its own byte order only: others, as FITS files have them, are
        swapped on the host. (Raw samples travel as they are, see `raw_samples`.)
        """
        if self.xp is not np and not array.dtype.isnative:
            array = array.astype(array.dtype.newbyteorder("="))
        return self.xp.asarray(array)

    def __reduce__(self):
        """Another process chooses anew, by name: a module does not travel."""
        return select, (self.name,)

    def gpus(self) -> list[str]:
        """The GPUs that this process sees, as CUDA_VISIBLE_DEVICES names them; none for NumPy."""
        if not self.on_gpu:
            return []
        numbers = [str(gpu) for gpu in range(self.xp.cuda.runtime.getDeviceCount())]
        visible = os.environ.get("CUDA_VISIBLE_DEVICES")
        return numbers if visible is None else visible.split(",")[: len(numbers)]

    def use_stream(self, number: int) -> None:
        """Let this thread's work on a GPU go on beside that of other threads."""
        if self.on_gpu:
            self.stream(number).use()

    def stream(self, number: int) -> Any:
        """One stream of a GPU for each number, for good: what it has freed is kept for itself."""
        return _stream(self.xp, number)

    def event(self) -> Any:
        """Something to wait for, once a stream of a GPU has been told to record it."""
        return self.xp.cuda.Event(disable_timing=True)

    def pinned(self, n_bytes: int) -> np.ndarray:
        """Bytes of the host that a GPU copies by itself."""
        return np.frombuffer(self.xp.cuda.alloc_pinned_memory(n_bytes), np.uint8, n_bytes)

    def driver_functions(self) -> tuple[ctypes.c_void_p, ...] | None:
        """For compiled code: how a GPU's driver copies to it, records an event and waits for it.

        None where the driver is not where it should be.
        """
        names = ("cuMemcpyHtoDAsync_v2", "cuEventRecord", "cuEventSynchronize")
        driver = _driver()
        if not all(hasattr(driver, name) for name in names):
            return None
        return tuple(ctypes.cast(getattr(driver, name), ctypes.c_void_p) for name in names)

    def free_memory_bytes(self) -> int:
        """Memory that a reduction may still take on the device."""
        if not self.on_gpu:
            return host.free_memory_bytes()
        pool = self.xp.get_default_memory_pool()
        free = self.xp.cuda.runtime.memGetInfo()[0] + pool.free_bytes()
        limit = pool.get_limit()  # CUPY_GPU_MEMORY_LIMIT, or 0
        return int(min(free, limit - pool.used_bytes()) if limit else free)

    def held_memory_bytes(self) -> int | None:
        """Memory of a GPU that CuPy holds, for these arrays or the next; None for NumPy."""
        return self.xp.get_default_memory_pool().total_bytes() if self.on_gpu else None

    def other_memory_bytes(self) -> int | None:
        """Memory of a GPU that CUDA, or another process, has for itself; None for NumPy."""
        if not self.on_gpu:
            return None
        free, total = self.xp.cuda.runtime.memGetInfo()
        return total - free - self.held_memory_bytes()

    def reuse_memory(self) -> None:
        """Keep freed memory of the host for the next arrays; a GPU's is kept by CuPy itself."""
        host.keep_freed_memory()

    @contextmanager
    def capped(self, memory_bytes: int | None) -> Iterator[None]:
        """Let a GPU be one that has no more memory than this for arrays, in the meantime.

        What CuPy keeps for the next arrays counts, and goes when there is no room without it. Some
        hundred MB that CUDA takes for itself do not count. None: all there is.
        """
        if not self.on_gpu or memory_bytes is None:
            yield
            return
        pool = self.xp.get_default_memory_pool()
        before = pool.get_limit()
        pool.set_limit(size=min(memory_bytes, before or memory_bytes))
        try:
            yield
        finally:
            pool.set_limit(size=before)

    def release_memory(self) -> None:
        """Give memory that is kept for reuse back: to the device, and to the host's system."""
        if self.on_gpu:
            self.xp.get_default_memory_pool().free_all_blocks()
            self.xp.get_default_pinned_memory_pool().free_all_blocks()
        host.return_freed_memory()

    def synchronize(self) -> None:
        """Wait until the device has done all that this thread asked of it."""
        if self.on_gpu:
            self.xp.cuda.get_current_stream().synchronize()


def namespace(*arrays: Any) -> ModuleType:
    """Return the one module that all arrays belong to; None and Python scalars are passed over.

    Raises
    ------
    TypeError
        Where arrays of two libraries meet, or something is no array.
    """
    found = {
        _module_of(array)
        for array in arrays
        if array is not None and not isinstance(array, (bool, int, float))
    }
    if len(found) != 1:
        names = ", ".join(sorted(module.__name__ for module in found)) or "no array"
        raise TypeError(f"expected arrays of one library, got {names}")
    return found.pop()


def to_host(array: Any) -> np.ndarray:
    """Copy an array of any backend to the host (no copy for NumPy; its scalars become 0-d)."""
    if isinstance(array, np.ndarray | np.generic):
        return np.asarray(array)
    cuda = getattr(_module_of(array), "cuda", None)
    if cuda is not None:  # a copy that waits for its turn holds up all other threads
        cuda.get_current_stream().synchronize()
    return array.get()


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an exception of any backend means that the device has too little memory.

    The caller may then release memory and try again with a smaller block.
    """
    by_cuda = type(error).__name__ in ("CUDARuntimeError", "CUDADriverError")
    return isinstance(error, MemoryError) or (by_cuda and getattr(error, "status", None) == 2)


def select(name: str | None = None) -> Backend:
    """Choose the backend: "cupy", "numpy" or "auto" (a GPU where one answers, else NumPy).

    With no name the environment variable MIRI_GPU_BACKEND decides, and "auto" where it is unset.

    Raises
    ------
    BackendError
        Where the name is not one of the three, or "cupy" was asked for and cannot run here: the
        message says what is missing and how to get it.
    """
    source = "--backend"
    if name is None:
        name, source = os.environ.get(ENVIRONMENT_VARIABLE) or "auto", ENVIRONMENT_VARIABLE
    if name not in BACKENDS:
        raise BackendError(f"{source}: expected one of {', '.join(BACKENDS)}, got {name!r}")
    if name == "numpy":
        return _numpy_backend(f"{source} asks for it")
    try:
        return _cupy_backend("a GPU answers" if name == "auto" else f"{source} asks for it")
    except BackendError as error:
        if name == "cupy":
            raise BackendError(f"{source}: CuPy cannot run here: {error}") from error
        return _numpy_backend(f"no GPU, {error}")


@cache
def _driver() -> ctypes.CDLL | None:
    """The NVIDIA driver, which is loaded already where a GPU computes (on Linux)."""
    try:
        return ctypes.CDLL("libcuda.so.1")
    except OSError:
        return None


@cache
def _stream(xp: ModuleType, number: int) -> Any:
    return xp.cuda.Stream(non_blocking=True)


@cache
def compile_kernel(xp: ModuleType, source: str, name: str) -> Any:
    """A kernel of CuPy from CUDA source, compiled at its first launch and kept.

    Multiplications and additions are not fused: a CPU then computes the same to the last bit.
    """
    return xp.RawKernel(source, name, options=("--fmad=false",))


def _module_of(array: Any) -> ModuleType:
    if isinstance(array, np.ndarray | np.generic):
        return np
    if type(array).__module__.split(".")[0] == "cupy":
        return importlib.import_module("cupy")
    if hasattr(array, "__array_namespace__"):
        return array.__array_namespace__()
    raise TypeError(f"expected an array, got {type(array).__name__}")


def _numpy_backend(reason: str) -> Backend:
    n_cores = host.usable_cores()
    return Backend("numpy", np, f"CPU ({n_cores} core{'s' if n_cores > 1 else ''})", reason)


def _cupy_backend(reason: str) -> Backend:
    """CuPy, once a small kernel has run; BackendError says what is missing and how to mend it."""
    cupy = _import_cupy()
    if tuple(map(int, re.findall(r"\d+", cupy.__version__)[:2])) < _OLDEST_CUPY:
        oldest = ".".join(map(str, _OLDEST_CUPY))
        raise BackendError(
            f"expected CuPy {oldest} or newer, got {cupy.__version__}; {_pip_command()}"
        )
    runtime = cupy.cuda.runtime
    try:
        n_devices = runtime.getDeviceCount()
    except runtime.CUDARuntimeError as error:
        raise BackendError(_no_device_reason(runtime, error)) from error
    if n_devices == 0:
        raise BackendError(_NO_DEVICE)
    device = cupy.cuda.Device()
    capability = int(device.compute_capability)
    name = runtime.getDeviceProperties(device.id)["name"].decode()
    if capability < _MIN_COMPUTE_CAPABILITY:
        raise BackendError(
            f"the device {name} has compute capability {capability / 10}, 7.5 or newer is needed "
            "(Turing, 2018); use --backend numpy"
        )
    try:
        _run_small_kernel(cupy)
    except (RuntimeError, ImportError, MemoryError, cupy.cuda.compiler.CompileException) as error:
        raise BackendError(
            f"a small kernel did not run on {name} ({type(error).__name__}: {_first_line(error)}); "
            f"{_pip_command()} brings the CUDA libraries that CuPy needs"
        ) from error
    return Backend("cupy", cupy, name, reason)


def _import_cupy() -> ModuleType:
    try:
        return importlib.import_module("cupy")
    except ModuleNotFoundError as error:
        if error.name == "cupy":
            raise BackendError(f"the package CuPy is not installed; {_pip_command()}") from error
        raise BackendError(f"the package CuPy is incomplete ({error}); {_pip_command()}") from error
    except (ImportError, RuntimeError, AttributeError) as error:
        raise BackendError(
            f"the package CuPy cannot be imported ({_first_line(error)}); {_pip_command()}"
        ) from error


_NO_DEVICE = (
    "the NVIDIA driver finds no device (is CUDA_VISIBLE_DEVICES empty?); use --backend numpy"
)


def _no_device_reason(runtime, error) -> str:
    """What a CUDA error at the first question means, and what to do about it."""
    if error.status == 35:
        if runtime.driverGetVersion() == 0:
            return (
                "no NVIDIA driver is installed; get it from your system's packages, "
                "or use --backend numpy"
            )
        return (
            "the NVIDIA driver is too old for this CuPy; update the driver, or "
            'pip uninstall cupy-cuda13x && pip install "miri-gpu[cuda12]"'
        )
    reasons = {
        3: "CUDA could not be initialised (a process forked after CUDA has started cannot use it)",
        46: "the device is busy or reserved by another process",
        100: _NO_DEVICE,
        803: "the NVIDIA driver and its libraries have different versions; restart the machine",
        804: "the NVIDIA driver and its libraries do not fit together; reinstall the driver",
    }
    return reasons.get(error.status, f"CUDA does not start ({_first_line(error)})")


def _run_small_kernel(cupy) -> None:
    source = 'extern "C" __global__ void probe(float* x) { x[threadIdx.x] += 1.0f; }'
    x = cupy.zeros(32, dtype=cupy.float32)
    cupy.RawKernel(source, "probe")((1,), (32,), (x,))
    if float(x.sum()) != 32.0:
        raise RuntimeError("it gave a wrong result")


def _pip_command() -> str:
    """The command that installs CuPy for the NVIDIA driver of this machine."""
    version = _driver_series()
    if version is None:
        return 'pip install "miri-gpu[cuda13]" (or "miri-gpu[cuda12]" for drivers before 580)'
    return f'pip install "miri-gpu[{"cuda13" if version >= _MIN_DRIVER_CUDA13 else "cuda12"}]"'


def _driver_series(path: str = "/proc/driver/nvidia/version") -> int | None:
    """The first number of the NVIDIA driver's version; None where no driver says (Linux only)."""
    try:
        found = re.search(r"\b(\d{3})\.\d+", Path(path).read_text())
    except OSError:
        return None
    return int(found[1]) if found else None


def _first_line(error: BaseException) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0]
