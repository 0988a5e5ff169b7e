"""A reduction into a directory: time series, figures, recipe, log; if wanted, rates and ramps."""

import logging
import shutil
import tempfile
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from logging.handlers import MemoryHandler
from pathlib import Path
from typing import TYPE_CHECKING, Any

from miri_gpu.errors import MiriGpuError, OutputError, SegmentError
from miri_gpu.files import write_text
from miri_gpu.plan import Plan, check_limits, make_plan
from miri_gpu.progress import SILENT, Progress
from miri_gpu.ramp_files import ramp_writer
from miri_gpu.rate_files import rate_writer
from miri_gpu.reduction import run_plan
from miri_gpu.segment_files import Origin, path_of
from miri_gpu.timeseries import save_timeseries

if TYPE_CHECKING:
    import xarray

TIME_SERIES = "timeseries.nc"
RECIPE = "recipe.toml"
LOG = "reduce.log"
FIGURES = "figures"
RATES = "rates"
RAMPS = "ramps"
UNFINISHED = "reduce.unfinished"  # where all of them are made
_KINDS = {RATES: "rateints", RAMPS: "ramp"}  # with which the names of the files in them end

log = logging.getLogger(__name__)


def reduce_to_directory(
    segments: Sequence[str | Path],
    directory: str | Path,
    recipe: str | Path | None = None,
    *,
    settings: Mapping[str, Mapping[str, Any]] | None = None,
    backend: str | None = None,
    references: str | Path | None = None,
    partial: bool = False,
    memory_bytes: int | None = None,
    n_workers: int | None = None,
    save_rates: bool = False,
    save_ramps: bool = False,
    overwrite: bool = False,
    verbose: bool = False,
    progress: Progress = SILENT,
) -> "xarray.Dataset":
    """Reduce an observation and write all its products; see `miri_gpu.reduce` for the arguments.

    Nothing is written before the input is known to be good. The products are made in a folder of
    their own, which stays where that fails; when they are complete they take the places of earlier
    ones. The time series comes last, so that a directory that holds one is complete.
    """
    check_limits(memory_bytes=memory_bytes, n_workers=n_workers)
    with logged(verbose) as log_to:
        plan = make_plan(segments, recipe, settings or {}, backend, references, partial)
        check_saved(plan, {"--save-rates": save_rates, "--save-ramps": save_ramps})
        directory = prepare(directory)
        check_replaced(directory, plan, recipe, overwrite=overwrite)
        inputs = {segment.path.resolve() for segment in plan.segments}
        made = clear_unfinished(
            directory, inputs if recipe is None else inputs | {Path(recipe).resolve()}
        )
        log_to(made / LOG)
        log_plan(plan)

        dataset = run_plan(
            plan,
            memory_bytes=memory_bytes,
            n_workers=n_workers,
            scratch=made,
            progress=progress,
            on_rates=ToFiles(made / RATES, rate_writer) if save_rates else None,
            on_ramps=ToFiles(made / RAMPS, ramp_writer) if save_ramps else None,
        )
        write_text(made / RECIPE, plan.recipe.to_toml())
        save_all_figures(dataset, made / FIGURES, progress)
        save_timeseries(dataset, made / TIME_SERIES)
        log.info("wrote %s", TIME_SERIES)
    supersede(directory, inputs)
    put_in_place(made, directory)
    return dataset


def check_saved(plan: Plan, wanted: Mapping[str, bool]) -> None:
    """Raise SegmentError where an option wants to save what rate images do not give."""
    for option in wanted:
        if wanted[option] and not plan.from_ramps:
            raise SegmentError(
                f"{option}: expected raw ramps (*_uncal.fits), "
                f"got rate images ({plan.segments[0].path})"
            )


@dataclass(frozen=True)
class ToFiles:
    """Writes what is made of each segment, its rates or its ramps, to a file of its own.

    Attributes
    ----------
    folder : Path
        By whose name the kind of the files is known.
    writer : function that opens such a file, and gives what writes blocks to it
    """

    folder: Path
    writer: Callable[[Path, Origin], AbstractContextManager[Callable[[slice, Any], None]]]

    @contextmanager
    def __call__(self, origin: Origin) -> Iterator[Callable[[slice, Any], None]]:
        """Open the file of one segment; gives what writes blocks to it."""
        self.folder.mkdir(exist_ok=True)
        path = path_of(self.folder, origin.segment, _KINDS[self.folder.name])
        with self.writer(path, origin) as write:
            yield write
        log.info("wrote %s", path.name)


def clear_unfinished(directory: Path, inputs: Collection[Path]) -> Path:
    """Make the folder of the products anew; what an earlier reduction left unfinished goes.

    Raises
    ------
    OutputError
        Where an input lies in what would go.
    """
    made = directory / UNFINISHED
    for path in inputs:
        if made.resolve() in path.parents:
            raise OutputError(f"{path}: expected elsewhere, since {made} is emptied; move it first")
    if made.exists():
        shutil.rmtree(made)
    made.mkdir()
    return made


def supersede(directory: Path, inputs: Collection[Path]) -> None:
    """Remove an earlier time series, and the rates and ramps saved with it that are no input."""
    if not (directory / TIME_SERIES).exists():
        return  # files of rates or ramps are somebody else's then
    (directory / TIME_SERIES).unlink()
    for folder, kind in _KINDS.items():
        for path in (directory / folder).glob(f"*_{kind}.fits"):
            if path.resolve() not in inputs:
                path.unlink()


def put_in_place(made: Path, directory: Path) -> None:
    """Move complete products from the folder where they were made, the time series last."""
    for path in sorted(made.rglob("*"), key=lambda path: path.name == TIME_SERIES):
        if path.is_file():
            place = directory / path.relative_to(made)
            place.parent.mkdir(exist_ok=True)
            shutil.move(path, place)  # a rename, unless a folder is a link to another disk
    shutil.rmtree(made)


def save_all_figures(dataset, directory: Path, progress: Progress) -> None:
    """Draw the figures of the product."""
    from miri_gpu.plots import save_figures

    progress.start("figures", 1)
    for path in save_figures(dataset, directory):
        log.info("wrote %s", path.name)
    progress.advance()


def log_plan(plan: Plan) -> None:
    """Say in the log what will be reduced, how, and with which references."""
    first = plan.segments[0]
    log.info(
        "%d segments of %s, %d groups, recipe %s",
        len(plan.segments),
        first.target,
        first.n_groups,
        plan.recipe.name,
    )
    for kind, name in sorted(plan.calibration.files.items()):
        log.info("reference %s: %s", kind, name)


def prepare(directory: str | Path) -> Path:
    """Make the directory and check that it can be written, before any work is done.

    Raises
    ------
    OutputError
        Where it cannot, or a folder stands in the place of a file, or a file in that of a folder.
    """
    directory = Path(directory)
    try:
        directory.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=directory):
            pass
    except OSError as error:
        raise OutputError(f"{directory}: cannot be written ({error.strerror})") from None
    for name in (TIME_SERIES, RECIPE, LOG, FIGURES, RATES, RAMPS):
        path, is_folder = directory / name, name in (FIGURES, RATES, RAMPS)
        if path.exists() and path.is_dir() != is_folder:
            what = ("a folder", "a file") if is_folder else ("a file", "a folder")
            raise OutputError(f"{path}: expected {what[0]} or nothing, got {what[1]}")
    return directory


def check_replaced(
    directory: Path, plan: Plan, recipe: str | Path | None, *, overwrite: bool
) -> None:
    """Refuse to replace a time series or another recipe, unless `overwrite` is given.

    Raises
    ------
    OutputError
        Also where that recipe is the one that was given, and is not yet complete.
    """
    there = directory / RECIPE
    other = there.exists() and there.read_text("utf-8", "replace") != plan.recipe.to_toml()
    if other and recipe is not None and Path(recipe).exists() and there.samefile(recipe):
        raise OutputError(
            f"{there}: expected a recipe elsewhere, since the complete one goes there; "
            "give a copy of it, or choose another directory"
        )
    found = {TIME_SERIES: (directory / TIME_SERIES).exists(), RECIPE: other}
    held = [name for name, is_there in found.items() if is_there]
    if held and not overwrite:
        raise OutputError(
            f"{directory}: holds {' and '.join(held)} already; "
            "choose another directory or give --overwrite"
        )


@contextmanager
def logged(verbose: bool):
    """Keep what the package logs, and warnings, until it is known which file they go to.

    Yields
    ------
    function of the path of that file
    """
    kept = MemoryHandler(capacity=1, flushLevel=logging.DEBUG)
    kept.setFormatter(logging.Formatter("%(asctime)s %(levelname)-7s %(message)s"))
    package, others = logging.getLogger("miri_gpu"), logging.getLogger("py.warnings")
    level = package.level
    package.setLevel(logging.DEBUG if verbose else logging.INFO)
    for logger in (package, others):
        logger.addHandler(kept)
    logging.captureWarnings(True)

    def log_to(path: Path) -> None:
        file = logging.FileHandler(path, mode="w", encoding="utf-8")
        file.setFormatter(kept.formatter)
        kept.setTarget(file)
        kept.flush()

    try:
        yield log_to
    except MiriGpuError as error:
        package.error("%s", error)
        raise
    except (KeyboardInterrupt, SystemExit):  # the latter from a batch system
        package.error("interrupted")
        raise
    except BaseException:
        package.exception("stopped")
        raise
    finally:
        logging.captureWarnings(False)
        for logger in (package, others):
            logger.removeHandler(kept)
        package.setLevel(level)
        if kept.target is not None:
            kept.target.close()
        kept.close()
