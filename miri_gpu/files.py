"""Files appear whole or not at all: written beside their place, then renamed."""

import os
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from miri_gpu.errors import OutputError


def write_beside(path: Path, write: Callable[[Path], object]) -> None:
    """Let `write` fill a file beside the path, then rename it; nothing stays if that fails.

    Raises
    ------
    OutputError
        Where the file cannot be written.
    """
    beside = path.with_name(f".partial-{path.name}")
    try:
        write(beside)
        os.replace(beside, path)
    except OSError as error:
        raise OutputError(f"{path}: cannot be written ({error.strerror or error})") from None
    finally:
        with suppress(OSError):
            beside.unlink(missing_ok=True)


def write_text(path: Path, text: str) -> None:
    """Write a text file, whole or not at all."""
    write_beside(path, lambda beside: beside.write_text(text, encoding="utf-8"))
