"""The compiled kernels, where a C compiler is; without one the package works all the same."""

import copy
import hashlib
import os
import platform
from pathlib import Path

from setuptools import Extension
from setuptools.command.build_ext import build_ext

FOLDER = Path("miri_gpu", "kernels")  # setuptools runs in the project's folder
# nothing here may change a result: no fast-math, no contraction
FLAGS = ["-O3", "-std=c99", "-ffp-contract=off", "-fno-math-errno", "-fno-trapping-math"]
FLAGS += ["-Wno-psabi"]  # vectors are never passed between functions
LEVELS = {"_cpu": [], "_cpu_v3": ["-march=x86-64-v3"], "_cpu_v4": ["-march=x86-64-v4"]}


def digest() -> str:
    """The digest by which Python knows that the library belongs to the sources beside it."""
    sources = sorted(path for path in FOLDER.rglob("*.[ch]"))
    together = b"".join(path.name.encode() + path.read_bytes() for path in sources)
    return hashlib.sha256(together).hexdigest()


def library(name: str, flags: list[str]) -> Extension:
    """One shared library of all kernels; it is no Python module, and needs no Python header."""
    return Extension(
        f"miri_gpu.kernels.{name}",
        sources=sorted(str(path) for path in (*FOLDER.glob("*.c"), *FOLDER.glob("cpu/*.c"))),
        depends=[str(path) for path in FOLDER.glob("*.h")],
        define_macros=[("SOURCES", f'"{digest()}"')],
        extra_compile_args=FLAGS + flags,
        libraries=[] if os.name == "nt" else ["m"],
        optional=True,
    )


class BuildKernels(build_ext):
    """Compile the kernels for each level of the processor; pyproject.toml names this class."""

    def finalize_options(self):
        levels = LEVELS if platform.machine() in ("x86_64", "AMD64") else {"_cpu": []}
        self.distribution.ext_modules = [library(name, flags) for name, flags in levels.items()]
        super().finalize_options()
        self.force = True  # object files may look fresh where their digest is not
        # whatever was asked for: with fewer at once a processor would wait for the last of them
        self.parallel = len(levels)

    def build_extension(self, extension):
        """Compile one library in a folder of its own: the objects of all have the same names."""
        alone = copy.copy(self)
        alone.build_temp = str(Path(self.build_temp, extension.name))
        build_ext.build_extension(alone, extension)
