"""Files appear whole or not at all: written beside their place, then renamed."""

import os
from collections.abc import Callable
from pathlib import Path


def write_beside(path: Path, write: Callable[[Path], object]) -> None:
    """Let `write` fill a file beside the path, then rename it; nothing stays if that fails."""
    beside = path.with_name(f".partial-{path.name}")
    try:
        write(beside)
        os.replace(beside, path)
    finally:
        beside.unlink(missing_ok=True)


def write_text(path: Path, text: str) -> None:
    """Write a text file, whole or not at all."""
    write_beside(path, lambda beside: beside.write_text(text, encoding="utf-8"))
