"""The command line: its help, its errors of one line, and what it leaves behind."""

import gzip
import os
import re
import signal
import subprocess
import sys

import click
import numpy as np
import pytest
from click.testing import CliRunner
from shell_cases import edited

from miri_gpu import cli, products, ramps_to_rates, versions
from miri_gpu.errors import MiriGpuError
from miri_gpu.recipe import load_recipe, named_recipe
from miri_gpu.timeseries import load_timeseries


@pytest.fixture(autouse=True)
def _numpy(monkeypatch):
    monkeypatch.setenv("MIRI_GPU_BACKEND", "numpy")


@pytest.fixture
def no_figures(monkeypatch):
    monkeypatch.setattr(products, "save_all_figures", lambda *_: None)


def run(*arguments):
    return CliRunner().invoke(cli.main, [str(argument) for argument in arguments])


def error_of(*arguments) -> str:
    """The one line with which a command ends."""
    result = run(*arguments)
    assert result.exit_code == 2, result.output
    assert isinstance(result.exception, SystemExit), result.exception
    lines = result.stderr.splitlines()
    assert lines[-1].startswith("miri-gpu: error: ")
    assert [line for line in lines if "error" in line.lower() or "Traceback" in line] == lines[-1:]
    assert result.stdout == ""
    return lines[-1].removeprefix("miri-gpu: error: ")


# --- help


def commands(command=cli.main, path=("miri-gpu",)):
    yield path, command
    for name, below in getattr(command, "commands", {}).items():
        yield from commands(below, (*path, name))


@pytest.mark.parametrize(
    ("path", "command"), list(commands()), ids=[" ".join(path) for path, _ in commands()]
)
def test_every_command_and_every_option_has_help(path, command):
    assert (command.help or "").strip(), f"{' '.join(path)} has no help"
    for parameter in command.params:
        if isinstance(parameter, click.Option):
            assert (parameter.help or "").strip(), f"{' '.join(path)} {parameter.opts} has no help"
        else:
            assert parameter.make_metavar(click.Context(command)).strip("[].") in command.help or (
                isinstance(parameter.type, click.Choice)
            ), f"{' '.join(path)}: the help does not mention {parameter.name}"
    result = run(*path[1:], "--help")
    assert result.exit_code == 0
    assert run(*path[1:], "-h").output == result.output


def test_the_list_of_commands_is_not_cut_short():
    result = run()
    assert (result.exit_code, result.stderr) == (0, "")
    assert "..." not in result.stdout.partition("Commands:")[2]
    for name, command in cli.main.commands.items():
        assert f"{name} " in result.stdout and command.help[:20] in result.stdout


def test_help_is_quick_and_loads_nothing_heavy():
    code = (
        "import sys; from miri_gpu import cli\n"
        "try: cli.main(['reduce', '--help'])\n"
        "except SystemExit: pass\n"
        "print(*{n.split('.')[0] for n in sys.modules} & "
        "{'jwst', 'cupy', 'matplotlib', 'astropy', 'xarray', 'scipy'})"
    )
    answer = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert answer.returncode == 0, answer.stderr
    assert answer.stdout.splitlines()[-1] == ""


def test_version_and_info():
    assert run("--version").output.startswith("miri-gpu, version ")
    result = run("info")
    assert result.exit_code == 0
    assert "backend: numpy on CPU" in result.stdout and "numpy " in result.stdout


def test_info_says_what_is_not_installed(monkeypatch):
    monkeypatch.setattr(versions, "PACKAGES", ("no-such-package",))
    assert "no-such-package not installed" in run("info").stdout


def test_info_knows_a_cupy_that_was_built_from_source(tmp_path, monkeypatch):
    built = tmp_path / "cupy-14.5.0.dist-info"
    built.mkdir()
    (built / "METADATA").write_text("Name: cupy\nVersion: 14.5.0\n")
    monkeypatch.syspath_prepend(tmp_path)
    assert re.search(r"cupy +14\.5\.0", run("info").stdout)


def test_the_printed_recipe_is_one(tmp_path):
    for name in ("bright", "faint"):
        path = tmp_path / f"{name}.toml"
        path.write_text(run("recipe", name).stdout)
        assert load_recipe(path, 5) == named_recipe(name)


def test_inspect(observation):
    result = run("inspect", *observation.segments)
    assert result.exit_code == 0
    for expected in ("SIMULATED-STAR", "2 of 2", "raw ramps", "6, from number 7", "bright"):
        assert expected in result.stdout
    assert "no such file" in error_of("inspect", "absent.fits")


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        (["--wrong"], "--wrong"),
        (["redcue"], "redcue"),
        (["reduce"], "SEGMENTS"),
        (["reduce", "x", "--wokers", "3"], "--wokers"),
        (["reduce", "x", "--workers", "0"], "--workers"),
        (["reduce", "x", "--output", ""], "--output"),
        (["demo", "--output", ""], "--output"),
        (["simulate", ""], "DIRECTORY"),
        (["simulate", "x", "--n-ints", "many"], "--n-ints"),
        (["recipe"], "bright, faint"),
        (["recipe", "dim"], "'bright', 'faint'"),
    ],
)
def test_wrong_usage_is_one_line(arguments, named):
    assert named in error_of(*arguments)
    assert len(run(*arguments).stderr.splitlines()) == 1


# --- reduce


@pytest.fixture
def reduced(observation, tmp_path, no_figures):
    """Runs `reduce` on the observation, into a new directory."""

    def call(*arguments, segments=None, references=observation.references):
        paths = observation.segments if segments is None else segments
        return ("reduce", *paths, "-o", tmp_path / "out", "--references", references, *arguments)

    return call


def test_a_reduction(reduced, tmp_path):
    result = run(*reduced("--set", "jump.rejection_threshold=10", "--memory", "1GB"))
    assert result.exit_code == 0, result.output
    path = tmp_path / "out" / "timeseries.nc"
    assert result.stdout == f"time series: {path}\n"
    steps = ("ramps to rates", "rates to spectra")
    assert all(step in result.stderr for step in steps)
    assert "\x1b" not in result.stderr
    dataset = load_timeseries(path)
    assert dataset.sizes["integration_number"] == 12
    assert "rejection_threshold = 10.0" in dataset.attrs["recipe"]


def test_a_quiet_reduction_says_nothing(reduced):
    result = run(*reduced("-q", "--set", "regroup.skip=false", "--set", "regroup.n_groups=5"))
    assert result.exit_code == 0, result.output
    assert result.output == ""


def test_warnings_are_one_line_each(reduced, observation, tmp_path):
    path = edited(
        observation.segments[0],
        tmp_path / "x_uncal.fits",
        change=lambda hdus: hdus.pop(hdus.index_of("INT_TIMES")),
    )
    result = run(*reduced(segments=[path, observation.segments[1]]))
    assert result.exit_code == 0, result.output
    said = [line for line in result.stderr.splitlines() if "warning" in line.lower()]
    assert len(said) == 1
    assert said[0].startswith(f"miri-gpu: warning: {path}: expected INT_TIMES")
    assert "INT_TIMES" in (tmp_path / "out" / "reduce.log").read_text()


@pytest.fixture
def faulty(observation, tmp_path):
    """Makes a faulty file, or arguments, of each kind by name."""
    good = observation.segments[0]

    def write(name, content):
        (tmp_path / name).write_bytes(content)
        return tmp_path / name

    def one_group(hdus):
        hdus["SCI"].data = hdus["SCI"].data[:, :1]

    return {
        "no such file": lambda: tmp_path / "absent_uncal.fits",
        "directory": lambda: tmp_path,
        "empty": lambda: write("empty_uncal.fits", b""),
        "not FITS": lambda: write("text_uncal.fits", b"hello " * 1000),
        "truncated": lambda: write("cut_uncal.fits", good.read_bytes()[:1_000_000]),
        "compressed": lambda: write(
            "x_uncal.fits.gz", gzip.compress(good.read_bytes()[:100_000], 1)
        ),
        "instrument": lambda: edited(good, tmp_path / "x.fits", INSTRUME="NIRISS"),
        "exposure type": lambda: edited(good, tmp_path / "x.fits", EXP_TYPE="MIR_IMAGE"),
        "subarray": lambda: edited(good, tmp_path / "x.fits", SUBARRAY="FULL"),
        "observation": lambda: edited(good, tmp_path / "x.fits", OBSERVTN="002"),
        "one group": lambda: edited(good, tmp_path / "x.fits", change=one_group, NGROUPS=1),
        "no times": lambda: edited(
            good,
            tmp_path / "x.fits",
            change=lambda hdus: hdus.pop(hdus.index_of("INT_TIMES")),
            EXPSTART=None,
        ),
    }


KINDS = (
    "no such file", "directory", "empty", "not FITS", "truncated", "compressed", "instrument",
    "exposure type", "subarray", "observation", "one group", "no times",
)  # fmt: skip


@pytest.mark.parametrize("kind", KINDS)
def test_a_bad_segment_is_one_line_that_names_it(reduced, faulty, observation, tmp_path, kind):
    path = faulty[kind]()
    message = error_of(*reduced(segments=[path, observation.segments[1]]))
    assert str(path) in message
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        (["--set", "jump.threshold=3"], "jump.threshold"),
        (["--set", "jmp.threshold=3"], "'jmp'"),
        (["--set", "jump"], "STEP.KEY=VALUE"),
        (["--set", "jump.rejection_threshold=-3"], "jump.rejection_threshold"),
        (["--set", "drop_groups.drop_groups=[0,1,2,3,4,5,6,7,8,9,10,11]"], "drop_groups"),
        (["--set", "extract_1d_box.aperture_center=71"], "extract_1d_box.aperture_center"),
        (["--memory", "much"], "--memory"),
        (["--memory", "-4GB"], "--memory"),
        (["--memory", "nan"], "--memory"),
        (["--recipe", "brigth"], "recipe"),
        (["--recipe", "."], "not a TOML recipe"),
        (["--references", "absent"], "absent"),
        (["--backend", "cupy"], "CuPy"),
    ],
)
def test_bad_options_are_one_line_that_names_them(reduced, tmp_path, monkeypatch, arguments, named):
    if "cupy" in arguments:
        monkeypatch.setitem(sys.modules, "cupy", None)  # cannot be imported
    assert named in error_of(*reduced(*arguments))
    assert not (tmp_path / "out").exists()


def test_a_recipe_that_is_not_toml(reduced, tmp_path):
    path = tmp_path / "my.toml"
    path.write_text("[jump\n")
    assert str(path) in error_of(*reduced("--recipe", path))


def test_a_missing_segment(reduced, observation):
    assert "missing segment 2 of 2" in error_of(*reduced(segments=observation.segments[:1]))


def test_a_missing_reference(reduced, observation, tmp_path):
    for path in observation.references.glob("*.fits"):
        if "dark" not in path.name:
            (tmp_path / path.name).symlink_to(path)
    assert error_of(*reduced(references=tmp_path)).startswith("references: expected one dark file")
    assert not (tmp_path / "out").exists()


def test_crds_out_of_reach(observation, tmp_path, monkeypatch):
    monkeypatch.setenv("CRDS_PATH", str(tmp_path / "cache"))
    monkeypatch.setenv("CRDS_SERVER_URL", "http://127.0.0.1:9")
    monkeypatch.delenv("CRDS_CONTEXT")
    message = error_of("reduce", *observation.segments, "-o", tmp_path / "out")
    assert "CRDS_SERVER_URL" in message
    assert not (tmp_path / "out").exists()


def test_a_directory_that_cannot_be_written(observation, tmp_path):
    (tmp_path / "file").touch()
    for out in (tmp_path / "file", tmp_path / "file" / "below"):
        message = error_of(
            "reduce", *observation.segments, "-o", out, "--references", observation.references
        )
        assert message.startswith(f"{out}: cannot be written")


def test_another_product_is_only_replaced_when_asked(reduced, tmp_path):
    assert run(*reduced()).exit_code == 0
    assert "--overwrite" in error_of(*reduced())
    assert run(*reduced("--overwrite")).exit_code == 0


def test_rows_without_a_usable_pixel(reduced, observation, tmp_path):
    def spoil(samples):
        samples[:, :, 200] = 65535

    path = edited(observation.segments[1], tmp_path / "x_uncal.fits", samples=spoil)
    message = error_of(
        *reduced("--save-rates", "--save-ramps", segments=[observation.segments[0], path])
    )
    assert str(path) in message and "199 to 201" in message  # saturation grows by a pixel
    assert not (tmp_path / "out" / "timeseries.nc").exists()
    assert not list((tmp_path / "out").rglob(".partial*"))


@pytest.mark.parametrize("option", ["--save-rates", "--save-ramps"])
def test_rates_and_ramps_are_saved_of_ramps_only(reduced, tmp_path, option):
    assert run(*reduced("--save-rates")).exit_code == 0
    made = (tmp_path / "out").rename(tmp_path / "made")
    files = sorted((made / "rates").iterdir())
    message = error_of(*reduced(option, segments=files))
    assert message == f"{option}: expected raw ramps (*_uncal.fits), got rate images ({files[0]})"
    assert not (tmp_path / "out").exists()
    assert run(*reduced(segments=files)).exit_code == 0


def pressed_ctrl_c():
    raise KeyboardInterrupt


def ended_by_a_batch_system():
    os.kill(os.getpid(), signal.SIGTERM)


@pytest.mark.parametrize(
    ("stop", "codes"), [(pressed_ctrl_c, (1, 130)), (ended_by_a_batch_system, (143,))]
)
def test_an_interrupt_leaves_no_part_of_a_file(reduced, tmp_path, monkeypatch, stop, codes):
    finished, before = ramps_to_rates.rows_to_rates, signal.getsignal(signal.SIGTERM)

    def interrupted(stretch, rows, *others):
        if stretch.segment.number == 2 and rows.start > 0:
            stop()
        return finished(stretch, rows, *others)

    monkeypatch.setattr(ramps_to_rates, "rows_to_rates", interrupted)
    result = run(*reduced("--save-rates", "--save-ramps", "--memory", "50MB"))
    assert result.exit_code in codes
    assert signal.getsignal(signal.SIGTERM) is before
    assert "Traceback" not in result.output
    left = {path.name for path in (tmp_path / "out").rglob("*") if path.is_file()}
    assert left == {
        "reduce.log",
        "jw01234001001_04103_00001-seg001_mirimage_rateints.fits",  # whole
        "jw01234001001_04103_00001-seg001_mirimage_ramp.fits",
    }


def test_in_a_process_of_its_own_an_error_is_one_line(tmp_path):
    """Nothing that is imported on the way has a word to add."""
    answer = subprocess.run(
        [sys.executable, "-c", "from miri_gpu.cli import main; main()", "reduce", "absent.fits"],
        capture_output=True,
        text=True,
        cwd=tmp_path,
    )
    assert (answer.returncode, answer.stdout) == (2, "")
    assert answer.stderr == "miri-gpu: error: absent.fits: no such file\n"
    assert list(tmp_path.iterdir()) == []


def test_errors_of_the_disk_are_one_line(reduced, monkeypatch):
    def full(*_, **__):
        raise OSError(28, "No space left on device", "/data/big.nc")

    monkeypatch.setattr(products, "run_plan", full)
    assert error_of(*reduced()) == "/data/big.nc: No space left on device"


def test_no_memory_is_one_line(reduced, monkeypatch):
    def large(*_, **__):
        raise MemoryError("Unable to allocate 1.00 TiB")

    monkeypatch.setattr(products, "run_plan", large)
    message = "memory: expected room for what is kept of a segment, got none (Unable to allocate"
    assert error_of(*reduced()).startswith(message)


def test_errors_of_the_program_keep_their_traceback(reduced, monkeypatch):
    def broken(*_, **__):
        raise ZeroDivisionError("a bug")

    monkeypatch.setattr(products, "run_plan", broken)
    assert isinstance(run(*reduced()).exception, ZeroDivisionError)


# --- simulate


def test_simulate_then_reduce_as_it_says(tmp_path, monkeypatch, no_figures):
    folder = tmp_path / "sim"
    result = run(
        "simulate", folder, "--n-ints", 2, "--n-groups", 5, "--n-segments", 1, "--no-cosmic-rays"
    )
    assert result.exit_code == 0, result.output
    for setting in result.stdout.split("export ")[1].split():
        name, _, value = setting.partition("=")
        monkeypatch.setenv(name, value)
    result = run("reduce", *folder.glob("*_uncal.fits"), "-o", tmp_path / "out", "-q")
    assert result.exit_code == 0, result.output
    assert np.isfinite(load_timeseries(tmp_path / "out" / "timeseries.nc")["flux"].values).all()


def test_what_cannot_be_simulated(tmp_path):
    assert "n_groups" in error_of("simulate", tmp_path / "sim", "--n-groups", 1)
    assert "n_segments" in error_of("simulate", tmp_path / "sim", "--n-ints", 1)
    (tmp_path / "file").touch()
    message = error_of("simulate", tmp_path / "file" / "below", "--n-ints", 2, "--n-groups", 2)
    assert str(tmp_path / "file" / "below") in message


# --- sizes


@pytest.mark.parametrize(
    ("text", "n_bytes"),
    [
        ("4GB", 4_000_000_000),
        ("512MB", 512_000_000),
        ("1.5 GiB", 3 << 29),
        ("8e9", 8_000_000_000),
        ("2tb", 2_000_000_000_000),
        ("3000000b", 3_000_000),
        (" 7000kb ", 7_000_000),
        (None, None),
    ],
)
def test_sizes_are_read(text, n_bytes):
    assert cli.parse_size(text) == n_bytes


@pytest.mark.parametrize("text", ["", "GB", "4", "4XB", "0", "-1GB", "inf", "nan", "1 2 GB"])
def test_what_is_no_size(text):
    with pytest.raises(MiriGpuError, match="--memory: expected a size such as 4GB"):
        cli.parse_size(text)


def test_a_simulation_is_only_replaced_when_asked(tmp_path):
    arguments = ["simulate", tmp_path, "--n-ints", 2, "--n-groups", 3, "--n-segments", 1, "-q"]
    assert run(*arguments).exit_code == 0
    assert "--overwrite" in error_of(*arguments)
    assert run(*arguments, "--overwrite").exit_code == 0
