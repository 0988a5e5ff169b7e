"""Kernels: per-pixel functions in C, written once for a GPU and for compiled code on a CPU.

A kernel does in one pass over memory what array code does in many. It stands beside an array
version that defines what it computes, is chosen inside the same function, and is tested equal::

    if kernels.available(xp):
        kernels.launch(xp, "halve", x.size, x, out)

For NumPy arrays it runs in a library that was compiled when the package was installed; for CuPy
arrays the same source is compiled at its first use. Where there is no library, or where the
variable MIRI_GPU_KERNELS is 0, array code does the work. `kernel.h` says how a kernel is written.
"""

import ctypes
import hashlib
import importlib.machinery
import os
import re
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np

from miri_gpu.backend import compile_kernel

ENVIRONMENT_VARIABLE = "MIRI_GPU_KERNELS"

_FOLDER = Path(__file__).parent
_LIBRARIES = {4: "_cpu_v4", 3: "_cpu_v3", 1: "_cpu"}  # by the x86-64 level that they need
_THREADS_PER_BLOCK = 256  # at most, as kernel.h says, too
_THREADS_PER_WARP = 32
_SHARED_BYTES_PER_BLOCK = 48 << 10  # what every GPU has
_MOST_BLOCKS = 1 << 16
_C_TYPES = {"double": np.float64, "float": np.float32}
_SCALARS = {"int64": ctypes.c_int64, "float64": ctypes.c_double, "float32": ctypes.c_float}
_SIGNATURE = re.compile(r"^KERNEL void (\w+)\(([^)]*)\)", re.MULTILINE)
_PARAMETER = re.compile(r"(const )?(\w+) (?:(\*)(?:restrict )?)?(\w+)")


@dataclass(frozen=True)
class _Parameter:
    """One parameter of a kernel, as its source declares it."""

    name: str
    dtype: np.dtype
    is_array: bool
    is_written: bool


@dataclass(frozen=True, eq=False)
class _Kernel:
    """A kernel: its name, where its source is, and what it takes after the number of items."""

    name: str
    file: Path
    parameters: tuple[_Parameter, ...]


def available(xp: ModuleType) -> bool:
    """Whether kernels run on the arrays of this module, and nobody has switched them off."""
    if xp is np:
        return compiled() is not None
    return os.environ.get(ENVIRONMENT_VARIABLE) != "0" and hasattr(xp, "RawKernel")


def status() -> str:
    """What runs the kernels of NumPy arrays, or why nothing does, in words."""
    if os.environ.get(ENVIRONMENT_VARIABLE) == "0":
        return f"switched off by {ENVIRONMENT_VARIABLE}=0"
    return _library()[1]


def compiled() -> ctypes.CDLL | None:
    """The compiled library, for what it has beside kernels; None where none is used."""
    return None if os.environ.get(ENVIRONMENT_VARIABLE) == "0" else _library()[0]


def launch(
    xp: ModuleType,
    name: str,
    n_items: int,
    *arguments: Any,
    threads_per_item: int = 1,
    shared_bytes_per_item: int = 0,
    threads_per_block: int = _THREADS_PER_BLOCK,
) -> None:
    """Run a kernel on all items; it writes to those of its arguments that it declares so.

    Parameters
    ----------
    xp : module
        That the arrays belong to; `available(xp)` must hold.
    name : str
        Of the kernel, in any of the sources of this folder.
    n_items : int
    *arguments
        What the kernel declares after `n_items`, in its order: C-contiguous arrays of its types
        (bool passes for uint8_t), None for a null pointer, and numbers.
    threads_per_item, shared_bytes_per_item : int
        On a GPU: how many threads share an item, and its working memory.
    threads_per_block : int
        On a GPU, at most; small blocks leave less of its shared memory unused.

    Raises
    ------
    TypeError
        Where an argument is not what the kernel declares.
    """
    kernel = sources()[name]
    if len(arguments) != len(kernel.parameters):
        raise TypeError(
            f"{name}: expected {len(kernel.parameters)} arguments, got {len(arguments)}"
        )
    for parameter, argument in zip(kernel.parameters, arguments, strict=True):
        if parameter.is_array and argument is not None:
            _check_array(name, parameter, argument, xp)
    if xp is np:
        _host_function(kernel)(n_items, *(_host_argument(a) for a in arguments))
        return
    typed = (_device_argument(p, a) for p, a in zip(kernel.parameters, arguments, strict=True))
    per_block = max(threads_per_block // threads_per_item, 1)
    if shared_bytes_per_item:
        per_block = max(min(per_block, _SHARED_BYTES_PER_BLOCK // shared_bytes_per_item), 1)
        n_of_whole_warps = per_block - per_block % max(_THREADS_PER_WARP // threads_per_item, 1)
        per_block = n_of_whole_warps or per_block
    n_blocks = min(-(-n_items // per_block), _MOST_BLOCKS)
    if n_blocks:
        compile_kernel(xp, source_text(kernel.file), name)(
            (n_blocks,),
            (per_block * threads_per_item,),
            (np.int64(n_items), *typed),
            shared_mem=per_block * shared_bytes_per_item,
        )


@cache
def sources() -> dict[str, _Kernel]:
    """Every kernel of this folder by its name."""
    found = {}
    for file in sorted(_FOLDER.glob("*.c")):
        for name, declared in _SIGNATURE.findall(file.read_text(encoding="utf-8")):
            first, *others = [_parameter(text) for text in declared.split(",")]
            if first.name != "n_items" or name in found:
                raise ValueError(f"{file.name}: {name}: expected n_items first, and a new name")
            found[name] = _Kernel(name, file, tuple(others))
    return found


@cache
def source_text(file: Path) -> str:
    """A source with the headers that it includes put in, for a compiler without files."""
    text = file.read_text(encoding="utf-8")
    return re.sub(
        r'^#include "(.+)"$', lambda found: source_text(_FOLDER / found[1]), text, flags=re.M
    )


def _parameter(text: str) -> _Parameter:
    found = _PARAMETER.fullmatch(" ".join(text.split()))
    if found is None:
        raise ValueError(f"expected a parameter such as 'const float *restrict x', got {text!r}")
    is_const, c_type, star, name = found.groups()
    dtype = np.dtype(_C_TYPES.get(c_type) or c_type.removesuffix("_t"))
    return _Parameter(name, dtype, star is not None, star is not None and is_const is None)


def _check_array(kernel: str, parameter: _Parameter, array: Any, xp: ModuleType) -> None:
    expected = f"{kernel}: {parameter.name}: expected"
    if not isinstance(array, xp.ndarray):
        raise TypeError(f"{expected} an array of {xp.__name__}, got {type(array).__name__}")
    is_flag = array.dtype == np.bool_ and parameter.dtype == np.uint8
    if array.dtype != parameter.dtype and not is_flag:
        raise TypeError(f"{expected} {parameter.dtype}, got {array.dtype}")
    if not array.flags.c_contiguous:
        raise TypeError(f"{expected} a C-contiguous array, got strides {array.strides}")
    if parameter.is_written and xp is np and not array.flags.writeable:
        raise TypeError(f"{expected} an array that can be written to")


def _host_argument(argument: Any) -> Any:
    return argument.ctypes.data if isinstance(argument, np.ndarray) else argument


def _device_argument(parameter: _Parameter, argument: Any) -> Any:
    if argument is None:
        return np.uint64(0)  # a null pointer
    return argument if parameter.is_array else parameter.dtype.type(argument)


@cache
def _host_function(kernel: _Kernel):
    """The compiled function; ctypes lets go of the GIL while it runs."""
    function = getattr(_library()[0], kernel.name)
    function.restype = None
    function.argtypes = [
        ctypes.c_int64,
        *(ctypes.c_void_p if p.is_array else _SCALARS[p.dtype.name] for p in kernel.parameters),
    ]
    return function


@cache
def _library() -> tuple[ctypes.CDLL | None, str]:
    """The best compiled library for this processor, and what it is, or why there is none."""
    plain, reason = _load("_cpu")
    if plain is None:
        return None, reason
    level = plain.processor_level()
    for needed, name in _LIBRARIES.items():
        library, _ = _load(name) if needed <= level else (None, "")
        if library is not None:
            return library, "compiled" if needed == 1 else f"compiled, for x86-64-v{needed}"
    return plain, "compiled"


def _load(name: str) -> tuple[ctypes.CDLL | None, str]:
    for suffix in importlib.machinery.EXTENSION_SUFFIXES:
        file = _FOLDER / f"{name}{suffix}"
        if not file.exists():
            continue
        try:
            library = ctypes.CDLL(str(file))
            library.kernel_sources.restype = ctypes.c_char_p
            digest = library.kernel_sources().decode()
        except (OSError, AttributeError) as error:
            return None, f"not used: {file.name} cannot be loaded ({error})"
        if digest != _digest():
            return None, "not used: compiled from other sources; install the package again"
        return library, "compiled"
    return None, f"not compiled: no library in {_FOLDER} (pip makes it where a C compiler is)"


def _digest() -> str:
    """The same digest as in `build.py`: a library of other sources would take other arguments."""
    files = sorted(path for path in _FOLDER.rglob("*.[ch]"))
    together = b"".join(path.name.encode() + path.read_bytes() for path in files)
    return hashlib.sha256(together).hexdigest()
