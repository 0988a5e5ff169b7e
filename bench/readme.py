"""Tables that commands put into the README, each between its marks."""

from pathlib import Path

import click

from bench.machine import ROOT
from miri_gpu.files import write_text

README = ROOT / "README.md"


def put(name: str, text: str, path: Path | None = None) -> None:
    """Put a text between the marks `<!-- name begins -->` and `<!-- name ends -->`."""
    path = README if path is None else path
    before, _, after = _parts(name, path)
    begins, ends = marks(name)
    write_text(path, f"{before}{begins}\n{text}\n{ends}{after}")


def between(name: str, path: Path | None = None) -> str:
    """What stands between the marks."""
    return _parts(name, README if path is None else path)[1].strip("\n")


def marks(name: str) -> tuple[str, str]:
    """The lines that a text stands between."""
    return f"<!-- {name} begins -->", f"<!-- {name} ends -->"


def _parts(name: str, path: Path) -> tuple[str, str, str]:
    readme = path.read_text(encoding="utf-8")
    begins, ends = marks(name)
    before, found, rest = readme.partition(begins)
    text, also, after = rest.partition(ends)
    if not (found and also):
        raise click.ClickException(f"{path.name}: expected {begins} and {ends}")
    return before, text, after
