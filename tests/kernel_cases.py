"""A GPU's side of a kernel, run on the CPU: one after the other in the place of CUDA's threads."""

import ctypes
import shutil
import subprocess
from functools import cache
from pathlib import Path

import numpy as np
import pytest

from miri_gpu import kernels

SHIM = Path(__file__).parent / "cuda_on_cpu.h"
# the C library's integer types are other names for the same types, and cannot be defined again
OWN_TYPES = "\n".join(
    f"#define {name}_t kernel_{name}"
    for name in ("int8", "uint8", "int16", "uint16", "int32", "uint32", "int64", "uint64")
)


def _block_of(name: str, declared: str) -> str:
    """A function that runs all threads of a block."""
    arguments = ", ".join(parameter.split()[-1].strip("*") for parameter in declared.split(","))
    return (
        f'extern "C" __global__ void block_of_{name}({declared})\n'
        f"{{\n    run_block([=] {{ {name}({arguments}); }});\n}}\n"
    )


@cache
def _library(file: Path, folder: Path) -> ctypes.CDLL:
    source, library = folder / f"{file.stem}.cpp", folder / f"{file.stem}.so"
    text = f'#include "{SHIM}"\n#undef NAN\n#undef INFINITY\n{OWN_TYPES}\n'
    text += kernels.source_text(file)
    source.write_text(
        text + "".join(_block_of(*found) for found in kernels._SIGNATURE.findall(text))
    )
    subprocess.run(
        ["g++", "-O1", "-std=c++17", "-ffp-contract=off", "-fvisibility=hidden", "-shared"]
        + ["-fPIC", "-w", str(source), "-o", str(library)],
        check=True,
    )
    return ctypes.CDLL(str(library))


class CudaOnCpu:
    """In the place of CuPy: its RawKernel runs one block of threads on the CPU."""

    def __init__(self, folder):
        self.folder = folder
        self.ndarray = np.ndarray
        self.__name__ = "cuda_on_cpu"

    def __getattr__(self, name):
        return getattr(np, name)

    def RawKernel(self, source, name, options):
        """As CuPy's, but that the launch waits for the result."""
        library = _library(kernels.sources()[name].file, self.folder)
        function = getattr(library, f"block_of_{name}")
        function.restype = None

        def launch(grid, block, arguments, shared_mem=0):
            assert shared_mem <= 48 << 10
            function(*(_as_c(argument) for argument in arguments))

        return launch


def _as_c(argument):
    if isinstance(argument, np.ndarray):
        return ctypes.c_void_p(argument.ctypes.data)
    return np.ctypeslib.as_ctypes_type(argument.dtype)(argument.item())


@pytest.fixture(scope="session")
def cuda_on_cpu(tmp_path_factory):
    """A module in the place of CuPy, whose kernels run as CUDA source on the CPU."""
    if shutil.which("g++") is None:
        pytest.skip("no C++ compiler to play a GPU with")
    return CudaOnCpu(tmp_path_factory.mktemp("cuda_on_cpu"))


@pytest.fixture(params=["compiled", "cuda"])
def kernel_xp(request):
    """The module to run a kernel with: NumPy with compiled kernels, and a GPU that is played."""
    if request.param == "cuda":
        return request.getfixturevalue("cuda_on_cpu")
    if not kernels.available(np):
        pytest.skip(f"kernels: {kernels.status()}")
    return np


__all__ = ["cuda_on_cpu", "kernel_xp"]
