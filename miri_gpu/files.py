"""Files appear whole or not at all: written beside their place, then renamed."""

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from miri_gpu.errors import OutputError


@contextmanager
def opened_beside(path: Path) -> Iterator[Path]:
    """Give the path of a file to fill, which then takes its place; nothing stays if that fails.

    Raises
    ------
    OutputError
        Where the file cannot be written.
    """
    beside = path.with_name(f".partial-{path.name}")
    try:
        yield beside
        os.replace(beside, path)
    except OSError as error:
        raise OutputError(f"{path}: cannot be written ({error.strerror or error})") from None
    finally:
        with suppress(OSError):
            beside.unlink(missing_ok=True)


def write_beside(path: Path, write: Callable[[Path], object]) -> None:
    """Let `write` fill a file beside the path, then rename it; nothing stays if that fails.

    Raises
    ------
    OutputError
        Where the file cannot be written.
    """
    with opened_beside(path) as beside:
        write(beside)


def write_text(path: Path, text: str) -> None:
    """Write a text file, whole or not at all."""
    write_beside(path, lambda beside: beside.write_text(text, encoding="utf-8"))
