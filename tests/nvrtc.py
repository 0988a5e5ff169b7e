"""NVIDIA's run-time compiler without a GPU: does a kernel compile, and what would it use?

python tests/nvrtc.py       # registers, stack and spills of every kernel and architecture
"""

import ctypes
import importlib.util
import re
from dataclasses import dataclass
from functools import cache
from pathlib import Path

ARCHITECTURES = ("sm_75", "sm_80", "sm_90", "sm_100", "sm_120")


@dataclass(frozen=True)
class Usage:
    """What a thread of a kernel uses."""

    registers: int
    stack_bytes: int
    spill_bytes: int


@cache
def load() -> ctypes.CDLL:
    """The compiler of the wheel nvidia-cuda-nvrtc; ImportError where it is not installed."""
    spec = importlib.util.find_spec("nvidia")
    folders = spec.submodule_search_locations if spec else []
    for folder in folders:
        for file in sorted(Path(folder).glob("**/libnvrtc.so.*[0-9]")):
            return ctypes.CDLL(str(file))
    raise ImportError("the package nvidia-cuda-nvrtc is not installed")


def compile_source(source: str, architecture: str) -> dict[str, Usage]:
    """Compile CUDA source to machine code as CuPy would; what each of its kernels uses.

    Raises
    ------
    SyntaxError
        With the compiler's words, where the source is not CUDA.
    """
    nvrtc = load()
    program = ctypes.c_void_p()
    nvrtc.nvrtcCreateProgram(ctypes.byref(program), source.encode(), b"kernel.cu", 0, None, None)
    options = [
        f"--gpu-architecture={architecture}".encode(),
        b"--fmad=false",
        b"-ftz=true",
        b"--std=c++17",
        b"--ptxas-options=-v",
    ]
    failed = nvrtc.nvrtcCompileProgram(
        program, len(options), (ctypes.c_char_p * len(options))(*options)
    )
    size = ctypes.c_size_t()
    nvrtc.nvrtcGetProgramLogSize(program, ctypes.byref(size))
    log = ctypes.create_string_buffer(size.value)
    nvrtc.nvrtcGetProgramLog(program, log)
    nvrtc.nvrtcDestroyProgram(ctypes.byref(program))
    text = log.value.decode()
    if failed:
        raise SyntaxError(text)
    return usages(text)


def usages(log: str) -> dict[str, Usage]:
    """Read what `--ptxas-options=-v` says of each kernel."""
    found = {}
    for part in re.split(r"Compiling entry function '", log)[1:]:
        stack = re.search(r"(\d+) bytes stack frame, (\d+) bytes spill stores", part)
        registers = re.search(r"Used (\d+) registers", part)
        found[part.split("'")[0]] = Usage(int(registers[1]), int(stack[1]), int(stack[2]))
    return found


def main() -> None:
    """Print a table of all kernels."""
    from miri_gpu import kernels

    print(f"{'kernel':24} {'GPU':8} registers  stack [B]  spills [B]")
    for file in sorted({kernel.file for kernel in kernels.sources().values()}):
        for architecture in ARCHITECTURES:
            for name, u in compile_source(kernels.source_text(file), architecture).items():
                print(
                    f"{name:24} {architecture:8} {u.registers:9} {u.stack_bytes:10} "
                    f"{u.spill_bytes:11}"
                )


if __name__ == "__main__":
    main()
