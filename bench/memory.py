"""Whether a reduction keeps to the memory that it is given: `--memory` and what was taken of it.

Each cap is tried in a fresh process. Counted is the most that the process holds of its own beyond
what it held before the reduction, on a GPU what CuPy holds. Not counted are pages of the raw file,
which the system drops when it needs the room, and what CUDA takes of a GPU for itself.
"""

from pathlib import Path

import click

from bench.observations import data_folder, observe
from bench.options import chosen, computed_by, options, report
from bench.reduction import measure_reduction
from bench.sizes import ALL_SIZES
from miri_gpu.cli import parse_size


@click.command(help=__doc__)
@options([*ALL_SIZES, "all"], default="large")
@click.option("--memory", "caps", multiple=True, default=("1GB", "2GB", "4GB"), show_default=True)
def main(
    size: str, backend: str | None, data: Path | None, results: Path, caps: tuple[str, ...]
) -> None:
    """Measure, print, write."""
    with data_folder(data) as folder:
        for name, where in chosen(size, ALL_SIZES, backend):
            observed = observe(ALL_SIZES[name], folder)
            for cap in caps:
                n_bytes = parse_size(cap)
                entry = measure_reduction(observed, where, 1, memory_bytes=n_bytes)
                entry |= {"memory_bytes": n_bytes, **taken(entry["runs"][0], n_bytes)}
                case = f"{name}/{computed_by(where)}/{cap}"
                report("memory", case, entry, where, results, summary)


def taken(run: dict, cap_bytes: int) -> dict:
    """What a run took of the memory that was capped, and as a fraction of the cap."""
    held = run.get("device_memory_bytes", run["anonymous_memory_bytes"])
    n_bytes = None if held["peak"] is None else held["peak"] - held["before"]
    return {"taken_bytes": n_bytes, "of_cap": n_bytes and n_bytes / cap_bytes}


def summary(case: str, entry: dict) -> str:
    """A line for people."""
    of_cap = "--" if entry["of_cap"] is None else f"{entry['of_cap']:.2f} of the cap"
    return (
        f"{case}: {of_cap}, {entry['total_s']:.1f} s, "
        f"peak {entry['peak_memory_bytes'] / 1e9:.2f} GB with the pages of files"
    )


if __name__ == "__main__":
    main()
