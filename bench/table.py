"""The README's tables of performance, from what lies in `bench/results/`: `python -m bench.table`.

Every figure has been measured, and says where: on which machine, with which state of the code, and
when. What was measured at the tiniest size, to see that a bench runs, is left out. With --readme
the tables take their place in README.md.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import click

from bench import readme
from bench.compute import KINDS
from bench.results import RESULTS, read_results

PHASES = {
    "stage1": "stage 1",
    "stage2": "stage 2",
    "all": "whole reduction",
}


@click.command(help=__doc__)
@click.option("--results", type=click.Path(path_type=Path), default=RESULTS)
@click.option("--readme", "into_readme", is_flag=True, help="Put the tables into README.md.")
def main(results: Path, into_readme: bool) -> None:
    """Print the tables; put them where they belong."""
    text = tables(results)
    click.echo(text)
    if into_readme:
        readme.put("performance", text)


def tables(results: Path = RESULTS) -> str:
    """All tables, one after the other, as Markdown."""
    parts = [
        by_device("jwst and ExoTiC-MIRI → miri_gpu", contests(results)),
        by_device("a step alone, theirs → ours", contests_of_steps(results)),
        by_device("miri_gpu by itself", [*reductions(results), *computations(results)]),
        by_device("what the machine can do", ceilings(results)),
        *growth(results),
    ]
    return "\n\n".join(part for part in parts if part)


@dataclass(frozen=True)
class Figure:
    """One cell: what was measured, where, and how much it is."""

    what: str
    device: str
    text: str
    measured: str


# --- figures


def contests(results: Path) -> Iterator[Figure]:
    """Stages and whole reductions of jwst and ExoTiC-MIRI, ours, and the ratio."""
    for case, entry in _contests(results):
        for phase, found in entry["phases"].items():
            both = _seconds(found["theirs_s"]), _seconds(found["ours_s"])
            yield _contested(f"{PHASES[phase]}, {_data(entry)}", case, entry, *both, found["ratio"])
        peaks = [max(r["peak_memory_bytes"] for r in entry[side]) for side in ("theirs", "ours")]
        yield _contested(f"peak memory, {_data(entry)}", case, entry, *map(_gb, peaks))


def contests_of_steps(results: Path) -> Iterator[Figure]:
    """Their steps and ours of the same name, each by itself.

    Without those measured with kernels switched off, which are in `bench/results/`.
    """
    for case, entry in _contests(results):
        for step, found in entry.get("by_step", {}).items():
            if not case[2].endswith("no kernels"):
                both = [_digits(found[side]) for side in ("theirs_ns", "ours_ns")]
                both[1] += f" ns / {found['per']}"
                yield _contested(f"`{step}`, {_data(entry)}", case, entry, *both, found["ratio"])


def _contests(results: Path) -> Iterator[tuple[list[str], dict]]:
    """What the competition has measured with the recipes as they are."""
    return (found for found in _entries("competition", results) if not found[1]["changes"])


def _contested(
    what: str, case: list[str], entry: dict, theirs: str, ours: str, ratio: float | None = None
) -> Figure:
    """Theirs, ours, and how many times as fast that is."""
    packages = entry["theirs"][0]["packages"]
    names = {"jwst": "jwst", "exotic-miri": "ExoTiC-MIRI"}
    versions = [f"{name} {packages[key]}" for key, name in names.items() if key in packages]
    text = f"{theirs} → {ours}" + ("" if ratio is None else f": **{_ratio(ratio)}**")
    measured = f"{_measured(entry)}, {' and '.join(versions)}"
    return Figure(what, _device(entry["machine"], case[2]), text, measured)


def reductions(results: Path) -> Iterator[Figure]:
    """The whole reduction, by itself, and with a cap on its memory."""
    for case, entry in _entries("reduction", results):
        text = f"{_seconds(entry['total_s'])}, {_rate(entry)}, {_gb(entry['peak_memory_bytes'])}"
        yield _figure(f"whole reduction, {_data(entry)}", case, entry, text)
    for case, entry in _entries("memory", results):
        text = f"{_seconds(entry['total_s'])}, takes {_gb(entry['taken_bytes'])}"
        what = f"whole reduction, {_data(entry)}, `--memory {case[2]}`"
        yield _figure(what, case, entry, text)


def computations(results: Path) -> Iterator[Figure]:
    """From samples in memory, or in a file, to spectra."""
    for case, entry in _entries("compute", results):
        for kind, where in KINDS.items():
            if kind not in entry:
                continue
            found = entry[kind]
            text = f"{_seconds(found['total_s'])}, {_rate(found)}"
            what = f"samples in {where} to spectra"
            yield _figure(f"{what}, {_data(entry)}", case, entry, text)


def ceilings(results: Path) -> Iterator[Figure]:
    """How fast files are read, and memory is moved."""
    for case, entry in _entries("ceilings", results):
        for what, found in entry["bytes_per_second"].items():
            if found is not None:
                yield _figure(what, case, entry, f"{_digits(found / 1e9)} GB/s")


def _entries(bench: str, results: Path) -> Iterator[tuple[list[str], dict]]:
    """What a bench has measured, with the parts of the case's name; the smallest data first."""
    found = [
        (case.split("/"), entry)
        for entries in read_results(bench, results).values()
        for case, entry in entries.items()
        if not case.startswith("tiny/")
    ]
    return iter(sorted(found, key=lambda item: item[1].get("samples", 0)))


def _figure(what: str, case: list[str], entry: dict, text: str) -> Figure:
    return Figure(what, _device(entry["machine"], case[1]), text, _measured(entry))


def _device(machine: dict, computed_by: str) -> str:
    """What computed: a GPU, or the cores of a CPU; and whether it did so without kernels."""
    _, comma, without = computed_by.partition(", ")
    name = (
        machine["gpu"]["name"] if machine["gpu"] else f"{machine['cores']} cores, {machine['cpu']}"
    )
    return f"{name}{comma}{without}"


def _measured(entry: dict) -> str:
    """State of the code, and day."""
    moment = entry["measured"]
    commit = f"`{moment['commit'][:7]}`" if moment["commit"] else "unknown commit"
    changed = " with uncommitted changes" if moment["uncommitted_changes"] else ""
    return f"{commit}{changed}, {moment['time_utc'][:10]}"


def _data(entry: dict) -> str:
    return f"{entry['shape'][0]} x {entry['shape'][1]}, `{entry['recipe']}`"


def _rate(found: dict) -> str:
    share = f" ({100 * found['of_ceiling']:.2g} % of the ceiling)" if "of_ceiling" in found else ""
    return f"{_digits(found['samples_per_second'] / 1e6)} M samples/s{share}"


def _seconds(seconds: float) -> str:
    return f"{_digits(seconds)} s"


def _digits(value: float) -> str:
    """Three significant digits, or all before the point."""
    return f"{value:.0f}" if value >= 1000 else f"{value:#.3g}".rstrip(".")


def _ratio(ratio: float) -> str:
    return f"{ratio:.0f}" if ratio >= 10 else f"{ratio:.1f}"


def _gb(n_bytes: int | None) -> str:
    return "unknown memory" if n_bytes is None else f"{n_bytes / 1e9:.2f} GB"


# --- tables


def by_device(title: str, found: Iterable[Figure]) -> str:
    """A row for what was measured, a column for each device; below, when and with which code."""
    figures = list(found)
    if not figures:
        return ""
    devices = list(dict.fromkeys(figure.device for figure in figures))
    notes = list(dict.fromkeys(figure.measured for figure in figures))
    cells = {
        (f.what, f.device): f"{f.text} <sup>{notes.index(f.measured) + 1}</sup>" for f in figures
    }
    rows = [
        [what, *(cells.get((what, device), "") for device in devices)]
        for what in dict.fromkeys(figure.what for figure in figures)
    ]
    lines = [f"<sup>{number}</sup> {note}" for number, note in enumerate(notes, start=1)]
    return f"{markdown([title, *devices], rows)}\n\n{'; '.join(lines)}"


def growth(results: Path) -> Iterator[str]:
    """The figures of how time and memory grow."""
    for path in sorted(results.glob("*-growth.png")):
        yield f"![Time and memory of the whole reduction](bench/results/{path.name})"


def markdown(head: list[str], rows: list[list[str]]) -> str:
    """A table whose first column is text, and the others figures."""
    lines = [head, ["---", *["---:"] * (len(head) - 1)], *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


if __name__ == "__main__":
    main()
