"""How time and memory of the whole reduction grow with the observation; and a figure of it.

More and more integrations of few and of many groups, and more and more groups, each reduced in a
fresh process. What would be larger than --largest, or take more than the disk has to spare, is left
out. Of large observations only the first integrations are simulated; the others repeat them. Their
files are deleted as soon as they have been measured.
"""

import importlib.util
import json
import shutil
from itertools import cycle
from pathlib import Path

import click

from bench.observations import data_folder, observe
from bench.options import chosen, computed_by, options
from bench.reduction import measure_reduction
from bench.results import write_results
from bench.sizes import raw_bytes
from miri_gpu.backend import Backend
from miri_gpu.plots import style
from miri_gpu.simulate import SimulationSettings

_MANY = (10, 30, 100, 300, 1000, 3000, 10_000)
SWEEPS = {  # (n_ints, n_groups) of each point, and the recipe, which is the same for all of them
    "tiny": ("bright", [(2, 5), (4, 5)]),
    "bright": ("bright", [(n_ints, 9) for n_ints in _MANY]),
    "faint": ("faint", [(n_ints, 64) for n_ints in _MANY]),
    "groups": ("bright", [(40, n_groups) for n_groups in (5, 10, 20, 40, 80, 160, 320)]),
}
_SHARE_OF_DISK = 0.8


@click.command(help=__doc__)
@options([*SWEEPS, "all"], default="all")
@click.option("--repeat", type=click.IntRange(1), default=1, help="Measurements of each point.")
@click.option("--largest", default=6.0, show_default=True, help="Raw samples of a point [GB].")
def main(
    size: str,
    backend: str | None,
    data: Path | None,
    results: Path,
    repeat: int,
    largest: float,
) -> None:
    """Measure, print, write, draw."""
    sweeps = [name for name in SWEEPS if name != "tiny"]
    with data_folder(data) as folder:
        for name, where in chosen(size, sweeps, backend):
            sweep(name, where, folder, results, repeat, 1e9 * largest)


def sweep(
    name: str, backend: Backend, folder: Path, results: Path, repeat: int, largest_bytes: float
) -> None:
    """Measure every point of a sweep that there is room for, and write each when it is there."""
    recipe, points = SWEEPS[name]
    path = None
    for n_ints, n_groups in points:
        settings = SimulationSettings(n_ints=n_ints, n_groups=n_groups, n_segments=1)
        n_bytes = raw_bytes(settings)
        case = f"{name}/{computed_by(backend)}/{n_ints} x {n_groups}"
        if n_bytes > min(largest_bytes, _SHARE_OF_DISK * shutil.disk_usage(folder).free):
            click.echo(f"{case}: left out, its raw samples take {n_bytes / 1e9:.1f} GB", err=True)
            continue
        observed = observe(settings, folder / "growth")
        entry = measure_reduction(observed, backend, repeat, recipe=recipe)
        shutil.rmtree(observed.segment.parent)
        path = write_results("growth", {case: entry}, backend, results)
        click.echo(
            f"{case}: {entry['total_s']:.2f} s, "
            f"{1e9 / entry['samples_per_second']:.1f} ns per sample, "
            f"peak {entry['peak_memory_bytes'] / 1e9:.2f} GB"
        )
    if path is not None:
        click.echo(f"written to {path}, drawn in {draw(path)}")


def draw(path: Path) -> Path | None:
    """Draw the curves of a result beside it, as PNG; None where there is no matplotlib."""
    if importlib.util.find_spec("matplotlib") is None:
        return None
    content = json.loads(path.read_text(encoding="utf-8"))
    figure = _figure(content["machine_kind"], content["entries"])
    figure.savefig(path.with_suffix(".png"), dpi=style.DPI)
    return path.with_suffix(".png")


@style.styled
def _figure(machine_kind: str, entries: dict[str, dict]):
    figure, (times, memory) = style.stacked_panels(2, height_in=5.4)
    colours = cycle((style.BLUE, style.ORANGE, style.GREEN, style.RED))
    for curve in dict.fromkeys(case.rpartition("/")[0] for case in entries):
        points = [entry for case, entry in entries.items() if case.rpartition("/")[0] == curve]
        points.sort(key=lambda entry: entry["samples"])
        samples = [entry["samples"] for entry in points]
        look = {"color": next(colours), "marker": "o", "markersize": 3, "linewidth": 1}
        label = f"{_described(points)}, {points[0]['recipe']}, {curve.partition('/')[2]}"
        times.plot(samples, [entry["total_s"] for entry in points], label=label, **look)
        per_sample = points[-1]["total_s"] / samples[-1]
        if len(points) > 1:
            times.plot(samples, [per_sample * n for n in samples], ":", color=look["color"], lw=0.8)
        for name, line in (("peak_anonymous_bytes", "-"), ("peak_memory_bytes", "--")):
            found = [(e["samples"], e[name] / 1e9) for e in points if e[name] is not None]
            if found:
                memory.plot(*zip(*found, strict=True), line, **look)
    every = sorted({entry["samples"] for entry in entries.values()})
    memory.plot(every, [2 * n / 1e9 for n in every], ":", color=style.GREY, lw=0.8)
    times.set(ylabel="whole reduction [s]", xscale="log", yscale="log")
    memory.set(xlabel="samples", ylabel="peak memory [GB]", yscale="log")
    for panel in (times, memory):
        panel.yaxis.set_major_formatter("{x:g}")
        panel.yaxis.set_minor_formatter("")
    times.legend(title="dotted: constant time per sample", title_fontsize=8)
    measured = max(entry["measured"]["time_utc"] for entry in entries.values())[:10]
    style.note(times, f"{machine_kind}, {measured}")
    style.note(memory, "dashed: with pages of files; dotted: raw samples on disk")
    return figure


def _described(points: list[dict]) -> str:
    """What is the same in all points of a sweep."""
    n_ints, n_groups = ({entry["shape"][axis] for entry in points} for axis in (0, 1))
    if len(n_ints) == 1:
        return f"{n_ints.pop()} integrations"
    return f"{n_groups.pop()} groups"


if __name__ == "__main__":
    main()
