"""The benches run, at the tiniest size, and write valid JSON; nothing here looks at a clock."""

import json
import platform
import sys
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner

sys.path.append(str(Path(__file__).parents[1]))  # bench/ is not part of the installed package

from bench import agreement, competition, functions, machine, reduction, results, sizes
from bench.apart import BenchError, run_apart
from bench.clock import Stopwatch, peak_memory_bytes
from bench.run_ours import reduce_once
from miri_gpu import backend as backends


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> Path:
    """A folder that keeps the tiny observation for all tests."""
    folder = tmp_path_factory.mktemp("bench")
    sizes.observation_of("tiny", folder)
    return folder


def run(command, data, results_folder, *options) -> tuple[str, dict]:
    """Run a bench's command line; what it printed, and the entries that it wrote."""
    arguments = ["--data", str(data), "--results", str(results_folder), "--backend", "numpy"]
    done = CliRunner().invoke(command, ["--size", "tiny", *arguments, *options])
    assert done.exit_code == 0, done.output
    (path,) = results_folder.glob("*.json")
    return done.output, json.loads(path.read_text())["entries"]


def ours_runs_here(data, monkeypatch):
    """Let the competition run our side in this process, which has the imports behind it."""
    observation = sizes.observation_of("tiny", data)
    monkeypatch.setenv("CRDS_PATH", str(observation.crds_path))
    monkeypatch.setenv("CRDS_CONTEXT", observation.crds_context)

    def run_one(module, task, *others):
        if module == "bench.run_ours":
            return reduce_once(json.loads(json.dumps(task)))
        return run_apart(module, task, *others)

    monkeypatch.setattr(competition, "run_apart", run_one)


def test_reduction(data, tmp_path):
    output, entries = run(reduction.main, data, tmp_path, "--repeat", "1")
    entry = entries["tiny/numpy"]
    assert entry["shape"] == [4, 5, 416, 72]
    assert entry["recipe"] == "bright"
    assert {"plan", "ramps to rates", "cleaning", "extraction", "rest"} <= set(entry["seconds"])
    assert all(seconds >= 0 for seconds in entry["seconds"].values())
    assert sum(entry["seconds"].values()) == pytest.approx(entry["total_s"], rel=1e-3)
    assert entry["samples_per_second"] == pytest.approx(
        4 * 5 * 416 * 72 / entry["total_s"], rel=1e-3
    )
    assert entry["peak_memory_bytes"] > 4 * 5 * 416 * 72 * 4
    assert "million samples/s" in output


def test_functions(data):
    """The steps of the recipe are timed, and what the reduction calls beside them."""
    effort = functions.Effort(seconds=0.0, calls=1)
    observation = sizes.observation_of("tiny", data)
    entry = functions.measure_functions("tiny", observation, backends.select("numpy"), effort)
    for name, found in entry["functions"].items():
        assert found["ns"] > 0, name
        assert found["items"] == np.prod(found["shape"]), name
    steps = {name.partition(": ")[2] for name in entry["functions"]}
    assert {"jump", "ramp_fit", "flat_field", "clean_outliers", "fit_trace"} <= steps
    assert {"extract_1d_box", "extract_1d_optimal", "measure_shifts", "align_spectra"} <= steps
    assert functions.summary("tiny", entry).count("\n") == len(entry["functions"])


def test_competition_of_stage_1(data, tmp_path, monkeypatch):
    """jwst's own steps run on the same segment, and give the same rates."""
    ours_runs_here(data, monkeypatch)
    output, entries = run(competition.main, data, tmp_path, "--steps", "stage1")
    entry = entries["tiny/stage1/numpy"]
    assert set(entry["phases"]) == {"stage1"}
    assert entry["phases"]["stage1"]["ratio"] > 0
    assert len(entry["ours"]) == len(entry["theirs"]) + 1 == 2
    assert {"saturation", "jump", "ramp_fit"} <= set(entry["theirs"][0]["seconds"])
    assert entry["agreement"]["fraction_of_pixels_with_equal_dq"] == 1
    assert entry["agreement"]["largest_relative_difference_of_rates"] < 1e-5
    assert "times as fast" in output


def test_agreement_with_stsci(tmp_path, monkeypatch):
    """Every step has its row, agrees within the bars, and the table finds its place."""
    readme = tmp_path / "README.md"
    readme.write_text(f"before\n{agreement.TABLE_BEGINS}\nold\n{agreement.TABLE_ENDS}\nafter\n")
    monkeypatch.setattr(agreement.write_readme, "__defaults__", (readme,))
    options = [
        "--case",
        "2 x 5",
        "--data",
        str(tmp_path / "data"),
        "--results",
        str(tmp_path / "r"),
    ]
    done = CliRunner().invoke(agreement.main, [*options, "--readme"])
    assert done.exit_code == 0, done.output
    (path,) = (tmp_path / "r").glob("*.json")
    entries = {e["step"]: e for e in json.loads(path.read_text())["entries"].values()}
    steps = {step.partition(" (")[0] for step in entries}
    assert steps >= {twin[2] for twin in agreement.RAMP_TWINS} | {"ramp_fit", "flat_field"}
    for step, found in entries.items():
        if step != agreement.LIKELY:
            assert found["n_dq_differ"] == found["n_nan_differ"] == 0, step
            assert found["largest"] < 1e-5 and (found["largest_variance"] or 0) < 1e-4, step
    text = readme.read_text()
    assert text.startswith("before\n") and text.endswith("after\n") and "old" not in text
    assert all(f"| {step} |" in text for step in entries)


def test_competition_says_how_to_install_what_is_missing(data, tmp_path, monkeypatch):
    monkeypatch.setattr(competition, "has_exotic", lambda python: False)
    options = ["--size", "tiny", "--steps", "cleaning", "--data", str(data)]
    done = CliRunner().invoke(competition.main, [*options, "--results", str(tmp_path)])
    assert done.exit_code == 2
    assert "exotic_miri is not installed" in done.output
    assert "pip install" in done.output
    assert list(tmp_path.iterdir()) == []


def test_no_such_interpreter():
    with pytest.raises(BenchError, match="--exotic-python: expected a Python, got 'no-python'"):
        competition.has_exotic("no-python")


def test_the_phases_of_a_run_with_everything():
    """Ratios are taken against the mean of our runs on either side of theirs."""
    ours = [
        {"seconds": {"plan": 1.0, "ramps to rates": n, "cleaning": 1.0, "rest": 1.0}, "total_s": n}
        for n in (1.0, 3.0, 5.0)
    ]
    theirs = [
        {"seconds": {"jump": 6.0, "clean_outliers": 7.0, "align_spectra": 2.0}, "total_s": 60.0},
        {"seconds": {"jump": 5.0, "clean_outliers": 7.0, "align_spectra": 2.0}, "total_s": 60.0},
    ]
    phases = competition.compare_phases(ours, theirs)
    assert phases["stage1"]["ratios"] == [6.0 / 3.0, 5.0 / 5.0]
    assert phases["cleaning"]["ratio"] == 7.0
    assert phases["extraction"]["ratio"] == 2.0
    assert phases["all"]["ratios"] == [30.0, 15.0]
    assert phases["all"]["ours_s"] == 3.0


def test_arrays_that_differ_are_reported(tmp_path):
    ours, theirs = str(tmp_path / "ours.npz"), str(tmp_path / "theirs.npz")
    rates = np.full((1, 2, 2), 100.0)
    np.savez(
        ours, rates=rates * 1.01, dq=np.array([[[0, 1], [0, 0]]]), flux=[[9.0]], rows=np.array([1])
    )
    np.savez(theirs, rates=rates, dq=np.zeros((1, 2, 2)), flux=[[0.0, 8.0]], flux_err=[[1.0, 2.0]])
    agreement = competition.compare_arrays(ours, theirs)
    assert agreement["fraction_of_pixels_with_equal_dq"] == 0.75
    assert agreement["largest_relative_difference_of_rates"] == pytest.approx(0.01)
    assert agreement["largest_difference_of_flux_in_errors"] == pytest.approx(0.5)


def test_a_failed_measurement_says_why(data):
    with pytest.raises(BenchError, match=r"(?s)bench\.nothing failed.*No module named"):
        run_apart("bench.nothing", {}, sizes.observation_of("tiny", data))


# --- sizes, results, machine, clock


def test_an_observation_is_simulated_once(data):
    observation = sizes.observation_of("tiny", data)
    before = observation.segments[0].stat().st_mtime_ns
    assert sizes.observation_of("tiny", data).segments[0].stat().st_mtime_ns == before


def test_an_observation_of_another_simulator_is_made_anew(data, tmp_path, monkeypatch):
    kept = json.loads((data / "tiny" / sizes.KEPT).read_text())
    kept["origin"]["simulator"] = "of an earlier version"
    (tmp_path / "tiny").mkdir()
    (tmp_path / "tiny" / sizes.KEPT).write_text(json.dumps(kept))

    class SimulatedError(Exception):
        pass

    def simulate(directory, settings):
        assert not (directory / sizes.KEPT).exists()  # nothing vouches for what is half made
        raise SimulatedError

    monkeypatch.setattr(sizes, "simulate", simulate)
    with pytest.raises(SimulatedError):
        sizes.observation_of("tiny", tmp_path)


def test_results_of_other_cases_stay(tmp_path):
    numpy = backends.select("numpy")
    results.write_results("reduction", {"faint/numpy": {"total_s": 1.23456789}}, numpy, tmp_path)
    path = results.write_results("reduction", {"bright/numpy": {"total_s": 2}}, numpy, tmp_path)
    content = json.loads(path.read_text())
    assert path.name == f"{content['machine_kind']}-reduction.json"
    assert list(content["entries"]) == ["bright/numpy", "faint/numpy"]
    assert content["entries"]["faint/numpy"]["total_s"] == 1.2346
    assert content["entries"]["faint/numpy"]["measured"]["time_utc"].endswith("+00:00")
    assert content["entries"]["faint/numpy"]["machine"]["packages"]["numpy"] == np.__version__


def test_a_machine_has_a_kind_and_no_name():
    text = json.dumps(machine.describe_machine(backends.select("numpy")))
    assert platform.node() not in text
    assert str(Path.home()) not in text
    cpu = {"gpu": None, "cores": 2, "cpu": "Intel(R) Xeon(R) Platinum 8481C CPU @ 2.70GHz"}
    assert machine.machine_kind(cpu) == "2-cores-intel-xeon-platinum-8481c-cpu"
    assert machine.machine_kind({**cpu, "gpu": {"name": "NVIDIA H200"}}) == "nvidia-h200"


def test_a_stage_lasts_until_its_last_piece():
    stopwatch = Stopwatch()
    stopwatch.start("segment.fits: cleaning", 2)
    stopwatch.advance()
    stopwatch.advance()
    first = stopwatch.seconds["cleaning"]
    stopwatch.start("other.fits: cleaning", 1)
    stopwatch.advance()
    with stopwatch.stage("jump"):
        pass
    assert list(stopwatch.seconds) == ["cleaning", "jump"]
    assert stopwatch.seconds["cleaning"] > first > 0


def test_memory_is_that_of_this_process():
    assert peak_memory_bytes() > 10_000_000
