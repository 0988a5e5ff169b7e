"""The command line `miri-gpu`: a skin over the functions of the package."""

import logging
import signal
import sys
from contextlib import contextmanager
from dataclasses import fields
from functools import wraps
from pathlib import Path

import click

from miri_gpu import __version__
from miri_gpu.backend import BACKENDS, is_out_of_memory
from miri_gpu.errors import MiriGpuError, OutputError
from miri_gpu.simulate.settings import SimulationSettings

_BAD_INPUT = 2
_UNITS = {  # bytes; B comes last, since it ends all others
    "KB": 1e3, "MB": 1e6, "GB": 1e9, "TB": 1e12,
    "KIB": 2**10, "MIB": 2**20, "GIB": 2**30, "TIB": 2**40, "B": 1,
}  # fmt: skip
_LEAST_MEMORY = 1_000_000  # bytes; a number without its unit is less


def reports_errors(function):
    """Print an error that the user can mend as one line, and exit with 2."""

    @wraps(function)
    def run(*args, **kwargs):
        try:
            return function(*args, **kwargs)
        except MiriGpuError as error:
            message = str(error)
        except click.ClickException as error:  # of an option or an argument
            message = " ".join(error.format_message().split())
        except OSError as error:  # a full disk, a file that vanished
            message = f"{error.filename or 'input or output'}: {error.strerror or error}"
        except Exception as error:
            if not is_out_of_memory(error):
                raise
            # beside the blocks, which are halved
            message = f"memory: expected room for what is kept of a segment, got none ({error})"
        click.echo(f"miri-gpu: error: {message}", err=True)
        sys.exit(_BAD_INPUT)

    return run


class Commands(click.Group):
    """Commands that end with one line where their input is wrong."""

    make_context = reports_errors(click.Group.make_context)
    invoke = reports_errors(click.Group.invoke)


class Named(click.Path):
    """A path with a name: none at all would mean the current folder."""

    def convert(self, value, param, ctx):
        """The path."""
        if value == "":
            self.fail("expected a name, got none", param, ctx)
        return super().convert(value, param, ctx)


PATH = Named(path_type=Path)


@contextmanager
def ended_in_order():
    """Let a batch system that ends us (SIGTERM) find no half-written files, as after Ctrl-C."""

    def end(number, _):
        sys.exit(128 + number)

    before = signal.signal(signal.SIGTERM, end)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


@contextmanager
def warnings_shown(quiet: bool):
    """Print what the package warns of as one line each, or nothing."""
    handler = logging.NullHandler() if quiet else logging.StreamHandler()
    handler.addFilter(lambda record: record.levelno == logging.WARNING)
    handler.setFormatter(logging.Formatter("miri-gpu: warning: %(message)s"))
    logger = logging.getLogger("miri_gpu")
    logger.addHandler(handler)
    propagate, logger.propagate = logger.propagate, False  # older stpipe prints all it is told
    try:
        yield
    finally:
        logger.removeHandler(handler)
        logger.propagate = propagate


@click.group(
    cls=Commands,
    invoke_without_command=True,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
)
@click.version_option(__version__, prog_name="miri-gpu")
@click.pass_context
def main(context):
    """Reduce JWST MIRI LRS slitless time series: raw segments to light curves."""
    if context.invoked_subcommand is None:
        click.echo(context.get_help())


backend_option = click.option(
    "--backend",
    type=click.Choice(BACKENDS),
    help="What computes. Default: $MIRI_GPU_BACKEND, or auto: a GPU where one answers.",
)
quiet_option = click.option("-q", "--quiet", is_flag=True, help="Print errors only.")


@main.command()
@click.argument("segments", nargs=-1, required=True, type=PATH)
@click.option(
    "-o",
    "--output",
    type=PATH,
    default=Path("reduced"),
    show_default=True,
    help="Directory of the products.",
)
@click.option(
    "--recipe",
    metavar="bright|faint|FILE.toml",
    help="Steps and settings. Default: bright below 40 groups, else faint.",
)
@click.option(
    "--set",
    "settings",
    multiple=True,
    metavar="STEP.KEY=VALUE",
    help="Change one setting of the recipe; may be repeated.",
)
@backend_option
@click.option(
    "--references",
    type=PATH,
    help="Folder of reference files, or a CRDS cache, to use instead of asking CRDS.",
)
@click.option(
    "--memory",
    metavar="SIZE",
    help="Memory to take at most, such as 4GB. Default: three quarters of what is free.",
)
@click.option(
    "--workers",
    "n_workers",
    type=click.IntRange(1),
    help="Processes that reduce segments side by side. Default: one for each GPU, or just one.",
)
@click.option("--save-rates", is_flag=True, help="Save the rate images of each segment.")
@click.option("--save-ramps", is_flag=True, help="Save the ramps as they are fitted (large).")
@click.option("--partial", is_flag=True, help="Accept that segments are missing.")
@click.option("--overwrite", is_flag=True, help="Replace an earlier reduction.")
@quiet_option
@click.option("-v", "--verbose", is_flag=True, help="Log in more detail.")
def reduce(segments, output, recipe, settings, memory, quiet, verbose, **options):
    """Reduce SEGMENTS to a time series.

    They are *_uncal.fits (raw) or *_rateints.fits (rate images), in any order.
    """
    from miri_gpu import progress
    from miri_gpu.products import TIME_SERIES, reduce_to_directory
    from miri_gpu.recipe import parse_settings

    with ended_in_order(), progress.shown(quiet) as shown, warnings_shown(quiet):
        reduce_to_directory(
            segments,
            output,
            recipe,
            settings=parse_settings(settings),
            memory_bytes=parse_size(memory),
            verbose=verbose,
            progress=shown,
            **options,
        )
    if not quiet:
        click.echo(f"time series: {output / TIME_SERIES}")


@main.command()
@click.argument("name", type=click.Choice(["bright", "faint"]))
def recipe(name):
    """Print a complete recipe, to be edited and given to --recipe."""
    from miri_gpu.recipe import named_recipe

    click.echo(named_recipe(name).to_toml(), nl=False)


@main.command()
@click.argument("segments", nargs=-1, required=True, type=PATH)
def inspect(segments):
    """Say what SEGMENTS are, and the recipe they would get."""
    from miri_gpu.recipe import load_recipe
    from miri_gpu.segments import open_segment

    for path in segments:
        segment = open_segment(path)
        header = segment.primary
        starts, ends = segment.times["int_start_MJD_UTC"], segment.times["int_end_MJD_UTC"]
        click.echo(
            f"{path}\n"
            f"  target        {segment.target}\n"
            f"  segment       {segment.number} of {header.get('EXSEGTOT', 1)}\n"
            f"  holds         {'raw ramps' if segment.holds_ramps else 'rate images'}\n"
            f"  integrations  {segment.n_ints}, from number {segment.first_integration + 1}\n"
            f"  groups        {segment.n_groups}\n"
            f"  taken         MJD {starts[0]:.6f} to {ends[-1]:.6f} (UTC)\n"
            f"  recipe        {load_recipe(None, segment.n_groups).name}"
        )


@main.command()
@backend_option
def info(backend):
    """Say what would compute, and which versions are installed."""
    from miri_gpu import backend as backends
    from miri_gpu import kernels
    from miri_gpu.versions import PACKAGES, installed_versions

    click.echo(f"Python {sys.version.split()[0]}")
    versions = installed_versions()
    for package in dict.fromkeys((*versions, *PACKAGES)):
        click.echo(f"  {package:13} {versions.get(package, 'not installed')}")
    chosen = backends.select(backend)
    click.echo(f"backend: {chosen.name} on {chosen.device} ({chosen.reason})")
    click.echo(f"kernels: {kernels.status()}")


def parameter_options(cls):
    """Give a command one option for each field of a Parameters class."""

    def decorate(command):
        for f in reversed(fields(cls)):
            flag = f.name.replace("_", "-")
            unit = f" [{f.metadata['unit']}]" if f.metadata["unit"] else ""
            name = f"--{flag}/--no-{flag}" if isinstance(f.default, bool) else f"--{flag}"
            command = click.option(
                name,
                type=type(f.default),
                default=f.default,
                show_default=True,
                help=f.metadata["help"] + unit,
            )(command)
        return command

    return decorate


@main.command(name="simulate")
@click.argument("directory", type=PATH)
@parameter_options(SimulationSettings)
@click.option("--overwrite", is_flag=True, help="Replace an earlier simulation.")
@quiet_option
def simulate_observation(directory, overwrite, quiet, **settings):
    """Write a known observation into DIRECTORY.

    That is segments, a local CRDS cache with their reference files, and the truth.
    """
    from miri_gpu import progress
    from miri_gpu.simulate import TRUTH, simulate

    if (directory / TRUTH).exists() and not overwrite:
        raise OutputError(
            f"{directory}: holds a simulation already; choose another directory or give --overwrite"
        )
    try:
        settings = SimulationSettings(**settings)
    except ValueError as error:
        raise MiriGpuError(error) from None
    with progress.shown(quiet) as shown:
        shown.start("simulation", settings.n_ints)
        try:
            observation = simulate(directory, settings, lambda done, n: shown.advance())
        except OSError as error:
            raise OutputError(f"{directory}: cannot be written ({error.strerror})") from None
    if not quiet:
        click.echo(
            f"segments: {len(observation.segments)} in {observation.directory}\n"
            f"truth: {observation.truth}\n"
            "references, for miri-gpu and for jwst's own steps:\n"
            f"  export CRDS_PATH={observation.crds_path.resolve()} "
            f"CRDS_CONTEXT={observation.crds_context}"
        )


@main.command()
@click.option(
    "-o",
    "--output",
    type=PATH,
    default=Path("miri_gpu_demo"),
    show_default=True,
    help="Directory of the observation and its products.",
)
@backend_option
@quiet_option
def demo(output, backend, quiet):
    """Simulate a small observation, reduce it, compare with truth."""
    from miri_gpu import progress
    from miri_gpu.demo import run_demo

    with progress.shown(quiet) as shown, warnings_shown(quiet):
        result = run_demo(output, backend=backend, progress=shown)
    if not quiet:
        click.echo(comparison_table(result.bands))
        click.echo(f"time series: {result.product}\nfigures: {result.figures}")
        segments = result.observation.directory / "*_uncal.fits"
        references = result.observation.crds_path
        click.echo(f"next: miri-gpu reduce {segments} --references {references}")


def comparison_table(bands) -> str:
    """The bands of a demonstration as text."""
    lines = ["   band [um]   depth [ppm]         truth  deviation  scatter/expected"]
    lines += [
        f"{band.low_um:5.1f} - {band.high_um:4.1f}  {band.depth * 1e6:6.0f} +- "
        f"{band.depth_error * 1e6:4.0f}  {band.true_depth * 1e6:8.0f}  {band.deviation:+9.1f}"
        f"  {band.noise_ratio:16.2f}"
        for band in bands
    ]
    return "\n".join(lines)


def parse_size(text: str | None) -> int | None:
    """Bytes of a size such as 4GB, 512MB or 8e9."""
    if text is None:
        return None
    number, factor = text.strip().upper(), 1.0
    for unit, size in _UNITS.items():
        if number.endswith(unit):
            number, factor = number.removesuffix(unit), size
            break
    try:
        n_bytes = int(float(number) * factor)
    except (ValueError, OverflowError):
        n_bytes = 0
    if n_bytes < _LEAST_MEMORY:
        raise MiriGpuError(f"--memory: expected a size such as 4GB, of 1 MB or more, got {text!r}")
    return n_bytes
