"""Which array library computes: NumPy on the host or CuPy on a GPU. The only file that names CuPy.

A function of the core asks :func:`namespace` for the module its arrays belong to and never
chooses one. The shell chooses once, with :func:`select`, and moves arrays with
:meth:`Backend.to_device` and :func:`to_host`.
"""

import importlib
import os
from dataclasses import dataclass
from types import ModuleType
from typing import Any

import numpy as np

BACKENDS = ("auto", "cupy", "numpy")
ENVIRONMENT_VARIABLE = "MIRI_GPU_BACKEND"

_MIN_COMPUTE_CAPABILITY = 75  # CuPy's CUDA 13 builds need Turing or newer


class BackendError(RuntimeError):
    """The backend that was asked for cannot run here; the message says what is missing."""


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

    def to_device(self, array: np.ndarray) -> Any:
        """Move a host array to where this backend computes (no copy for NumPy)."""
        return self.xp.asarray(array)

    def free_memory_bytes(self) -> int:
        """Memory that a reduction may still take on the device."""
        if self.name == "cupy":
            free, _ = self.xp.cuda.runtime.memGetInfo()
            return int(free + self.xp.get_default_memory_pool().free_bytes())
        return _free_host_memory_bytes()


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
    """Copy an array of any backend to the host (no copy for NumPy)."""
    return array if isinstance(array, np.ndarray) else array.get()


def select(name: str | None = None) -> Backend:
    """Choose the backend: "cupy", "numpy" or "auto" (a GPU where one answers, else NumPy).

    With no name the environment variable MIRI_GPU_BACKEND decides, and "auto" where it is unset.

    Raises
    ------
    BackendError
        Where "cupy" was asked for and cannot run here.
    ValueError
        Where the name is not one of the three.
    """
    source = "--backend"
    if name is None:
        name, source = os.environ.get(ENVIRONMENT_VARIABLE) or "auto", ENVIRONMENT_VARIABLE
    if name not in BACKENDS:
        raise ValueError(f"{source}: expected one of {', '.join(BACKENDS)}, got {name!r}")
    if name == "numpy":
        return _numpy_backend(f"{source} asks for it")
    try:
        return _cupy_backend("a GPU answers" if name == "auto" else f"{source} asks for it")
    except BackendError as error:
        if name == "cupy":
            raise
        return _numpy_backend(f"no GPU: {error}")


def _module_of(array: Any) -> ModuleType:
    if isinstance(array, np.ndarray | np.generic):
        return np
    if type(array).__module__.split(".")[0] == "cupy":
        return importlib.import_module("cupy")
    if hasattr(array, "__array_namespace__"):
        return array.__array_namespace__()
    raise TypeError(f"expected an array, got {type(array).__name__}")


def _numpy_backend(reason: str) -> Backend:
    n_cores = usable_cores()
    return Backend("numpy", np, f"CPU ({n_cores} core{'s' if n_cores > 1 else ''})", reason)


def usable_cores() -> int:
    """Number of CPU cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _cupy_backend(reason: str) -> Backend:
    """CuPy, once a small kernel has run; BackendError says what is missing and how to mend it."""
    try:
        import cupy
    except ImportError as error:
        raise BackendError(
            "the package CuPy is not installed "
            f'({error}); pip install "miri-gpu[cuda13]" (or [cuda12] for older drivers)'
        ) from error
    runtime = cupy.cuda.runtime
    try:
        n_devices = runtime.getDeviceCount()
    except runtime.CUDARuntimeError as error:
        raise BackendError(_no_device_reason(runtime, error)) from error
    if n_devices == 0:
        raise BackendError("the NVIDIA driver reports no device")
    device = cupy.cuda.Device()
    if int(device.compute_capability) < _MIN_COMPUTE_CAPABILITY:
        raise BackendError(
            f"the device has compute capability {int(device.compute_capability) / 10}, "
            f"7.5 or newer is needed"
        )
    try:
        _run_small_kernel(cupy)
    except (RuntimeError, ImportError, MemoryError, cupy.cuda.compiler.CompileException) as error:
        raise BackendError(
            f"a small kernel did not run ({type(error).__name__}: {str(error).splitlines()[0]}); "
            'pip install "miri-gpu[cuda13]" brings the CUDA libraries CuPy needs'
        ) from error
    name = runtime.getDeviceProperties(device.id)["name"].decode()
    return Backend("cupy", cupy, name, reason)


def _no_device_reason(runtime, error) -> str:
    if error.status == 35:
        if runtime.driverGetVersion() == 0:
            return "no NVIDIA driver is installed (install it from your system's packages)"
        return (
            "the NVIDIA driver is too old for this CuPy; update the driver, "
            'or pip install "miri-gpu[cuda12]"'
        )
    if error.status == 100:
        return "the NVIDIA driver finds no device"
    return f"CUDA does not start ({error})"


def _run_small_kernel(cupy) -> None:
    source = 'extern "C" __global__ void probe(float* x) { x[threadIdx.x] += 1.0f; }'
    x = cupy.zeros(32, dtype=cupy.float32)
    cupy.RawKernel(source, "probe")((1,), (32,), (x,))
    if float(x.sum()) != 32.0:
        raise RuntimeError("a small kernel gave a wrong result")


def _free_host_memory_bytes() -> int:
    try:
        with open("/proc/meminfo") as lines:
            for line in lines:
                if line.startswith("MemAvailable:"):
                    return int(line.split()[1]) * 1024
    except FileNotFoundError:  # not Linux
        pass
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // 2
