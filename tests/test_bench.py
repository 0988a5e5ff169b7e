"""The benches run, at the tiniest size, and write valid JSON; nothing here looks at a clock."""

import json
import mmap
import os
import platform
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner

sys.path.append(str(Path(__file__).parents[1]))  # bench/ is not part of the installed package

from bench import (
    agreement,
    ceilings,
    competition,
    compute,
    functions,
    growth,
    machine,
    memory,
    observations,
    plain,
    readme,
    reduction,
    results,
    source,
    table,
)
from bench.__main__ import main as everything
from bench.apart import BenchError, run_apart
from bench.clock import (
    Effort,
    MemoryWatch,
    Stopwatch,
    anonymous_memory_bytes,
    memory_of_process,
    peak_memory_bytes,
)
from bench.options import computed_by
from bench.run_ours import reduce_once
from bench.sizes import SIZES
from miri_gpu import backend as backends
from miri_gpu import kernels

NUMPY = backends.select("numpy")
CASE = f"tiny/{computed_by(NUMPY)}"
ONCE = Effort(seconds=0.0, calls=1)


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> Path:
    """A folder that keeps the tiny observation for all tests."""
    folder = tmp_path_factory.mktemp("bench")
    observations.observe(SIZES["tiny"], folder)
    return folder


@pytest.fixture
def in_this_process(monkeypatch):
    """Reductions run in this process, which has the imports behind it."""

    def run(module, task, crds, *others):
        if module != "bench.run_ours":
            return run_apart(module, task, crds, *others)
        for name, value in crds.items():
            monkeypatch.setenv(name, value)
        return reduce_once(json.loads(json.dumps(task)))

    for bench in (reduction, competition):
        monkeypatch.setattr(bench, "run_apart", run)


def run(command, data, results_folder, *options) -> tuple[str, dict]:
    """Run a bench's command line; what it printed, and the entries that it wrote."""
    arguments = ["--data", str(data), "--results", str(results_folder), "--backend", "numpy"]
    options = ["--size", "tiny", *arguments, *options]
    done = CliRunner().invoke(command, options, catch_exceptions=False)
    assert done.exit_code == 0, done.output
    (path,) = results_folder.glob("*.json")
    return done.output, json.loads(path.read_text())["entries"]


# --- the whole reduction


def test_reduction(data, tmp_path):
    output, entries = run(reduction.main, data, tmp_path, "--repeat", "1")
    entry = entries[CASE]
    assert entry["shape"] == [4, 5, 416, 72]
    assert entry["recipe"] == "bright"
    assert {"plan", "ramps to rates", "rest"} <= set(entry["seconds"])
    assert all(seconds >= 0 for seconds in entry["seconds"].values())
    assert sum(entry["seconds"].values()) == pytest.approx(entry["total_s"], rel=1e-3)
    assert entry["samples_per_second"] == pytest.approx(
        4 * 5 * 416 * 72 / entry["total_s"], rel=1e-3
    )
    assert entry["peak_memory_bytes"] > 4 * 5 * 416 * 72 * 4
    assert entry["of_ceiling"] > 0
    assert "million samples/s" in output


def test_growth(data, tmp_path, in_this_process):
    """A point for each observation, its file gone again, and a figure."""
    _, entries = run(growth.main, data, tmp_path)
    assert [case.removeprefix(CASE) for case in entries] == ["/2 x 5", "/4 x 5"]
    assert [entry["samples"] for entry in entries.values()] == [2 * 149760, 4 * 149760]
    assert list((data / "growth").iterdir()) == []
    (figure,) = tmp_path.glob("*-growth.png")
    assert figure.read_bytes().startswith(b"\x89PNG")


def test_growth_leaves_out_what_is_too_large(data, tmp_path, in_this_process):
    output, entries = run(growth.main, data, tmp_path, "--largest", "0.001")
    assert list(entries) == [f"{CASE}/2 x 5"]
    assert "4 x 5: left out" in output


@pytest.mark.parametrize("total_s", [0.02033, 0.02202])
def test_a_single_point_of_a_curve_is_drawn(total_s):
    """Without a line beside it that differs from these in the last bit, too little for an axis."""
    entry = {
        "samples": 299520, "total_s": total_s, "shape": [2, 5], "recipe": "bright",
        "peak_anonymous_bytes": 8e7, "peak_memory_bytes": 3e8,
        "measured": {"time_utc": "2026-11-26T22:15:00"},
    }  # fmt: skip
    growth._figure("a machine", {"integrations/numpy/2 x 5": entry}).draw_without_rendering()


def test_memory(data, tmp_path, in_this_process):
    output, entries = run(memory.main, data, tmp_path, "--memory", "100MB", "--memory", "1GB")
    assert list(entries) == [f"{CASE}/100MB", f"{CASE}/1GB"]
    entry = entries[f"{CASE}/1GB"]
    assert entry["memory_bytes"] == 1e9
    assert entry["of_cap"] == pytest.approx(entry["taken_bytes"] / 1e9, rel=1e-3)
    assert output.count("of the cap") == 2


def test_what_a_gpu_run_took_is_of_the_device():
    device, host = {"before": 5, "peak": 35}, {"before": 1, "peak": 99}
    run = {"device_memory_bytes": device, "anonymous_memory_bytes": host}
    assert memory.taken(run, 60) == {"taken_bytes": 30, "of_cap": 0.5}


# --- functions, and what they are compared with


def test_functions():
    """The steps of the recipe are timed, and what the reduction calls beside them."""
    entry = functions.measure_functions(SIZES["tiny"], NUMPY, ONCE)
    for name, found in entry["functions"].items():
        assert found["ns"] > 0, name
        assert found["items"] == np.prod(found["shape"]), name
        assert (found["of_copy"] is None) == (found["traffic_bytes"] == 0), name
    steps = {name.partition(": ")[2] for name in entry["functions"]}
    assert {"jump", "ramp_fit", "flat_field", "clean_outliers", "fit_trace"} <= steps
    assert {"extract_1d_box", "extract_1d_optimal", "measure_shifts", "align_spectra"} <= steps
    assert functions.summary("tiny", entry).count("\n") == len(entry["functions"]) + 1


def test_the_traffic_of_a_function_is_that_of_its_arrays():
    """Of each sample 4 bytes and its flag; new flags written; what is passed on is not counted."""
    observation = source.Source.simulated(SIZES["tiny"], NUMPY)
    cases = {case.name: case for case in functions.all_cases(observation)}
    n_pixels = {name: case.n_items // 5 // 4 for name, case in cases.items()}
    expected = {
        "ramps: decode_samples": (2 + 4, 0),
        "ramps: group_scale": (0, 0),
        "ramps: drop_groups": (1 + 1, 0),
        "ramps: saturation": (4 + 1 + 1, 4),  # flags of pixels, too
        "ramps: jump": (4 + 1 + 1, 4),
    }
    for name, (per_sample, per_pixel) in expected.items():
        bytes_ = per_sample * cases[name].n_items + per_pixel * n_pixels[name]
        assert cases[name].traffic_bytes(np) == bytes_, name
    box = cases["spectra: extract_1d_box"]
    assert box.traffic_bytes(np) == 416 * box.shape[0] * (2 * 9 + 1 + 3) * 4


def test_steps_that_make_flags_of_flags_alone():
    from dataclasses import replace

    from bench.ramp_cases import _FLAGS_FROM_FLAGS
    from miri_gpu.ramp_steps import RAMP_STEPS

    samples = source.Source.simulated(SIZES["tiny"], NUMPY)
    ramps, block = samples.ramps(), samples.block()
    unknown = replace(ramps, data=np.full_like(ramps.data, np.nan))
    for step in set(_FLAGS_FROM_FLAGS) - {"rscd"}:  # which the calibration at hand does not have
        flags = [RAMP_STEPS[step](given, block).groupdq for given in (ramps, unknown)]
        np.testing.assert_array_equal(*flags)


def test_ceilings(data, tmp_path):
    output, entries = run(ceilings.main, data, tmp_path)
    found = entries[CASE]["bytes_per_second"]
    assert {"read, in the cache, 1 thread", "copy in host memory, 1 thread"} <= set(found)
    assert all(speed is None or speed > 0 for speed in found.values())
    assert output.count("GB/s") == len(found)
    assert list(data.glob("ceilings*")) == []


def test_a_file_that_the_system_does_not_forget_has_no_speed_from_disk(tmp_path, monkeypatch):
    path = tmp_path / "file"
    path.write_bytes(b"1234")
    monkeypatch.setattr(ceilings, "_forgotten", lambda path: False)
    assert ceilings.read_from_disk(path, 1) is None


def test_several_segments_are_one_file_so_many_times(data):
    found = compute.from_file(SIZES["tiny"], NUMPY, data, repeat=1, n_segments=3)
    one = compute.from_file(SIZES["tiny"], NUMPY, data, repeat=1)
    n_samples = [f["samples_per_second"] * f["total_s"] for f in (found, one)]
    assert n_samples[0] == pytest.approx(3 * n_samples[1])
    assert set(found["seconds"]) == set(one["seconds"])


def test_compute(data, tmp_path):
    output, entries = run(compute.main, data, tmp_path, "--repeat", "1")
    for kind in ("from_memory", "from_file"):
        found = entries[CASE][kind]
        assert found["samples_per_second"] > 0 and found["of_ceiling"] > 0
        assert set(found["seconds"])
    assert "from memory" in output and "from file" in output


# --- without astropy and jwst


@pytest.fixture(scope="module")
def plain_observation(data):
    return observations.observe(SIZES["tiny"], data, stsci=False)


def test_a_plain_segment_is_a_segment(plain_observation, data):
    """The same samples and times as the archive's file has; and any FITS reader opens it."""
    from miri_gpu.segments import open_segment

    ours = plain.segment(plain_observation.segment, SIZES["tiny"])
    opened = open_segment(plain_observation.segment)
    full = open_segment(observations.observe(SIZES["tiny"], data).segment)
    for other in (opened, full):
        np.testing.assert_array_equal(ours.raw, other.raw)
        assert ours.readout == other.readout and ours.shape == other.shape
    assert dict(opened.primary) == ours.primary and dict(opened.science) == ours.science
    for name, times in full.times.items():
        np.testing.assert_array_equal(ours.times[name], times)


def test_plain_references_are_those_of_the_files(data):
    from miri_gpu.calibration import load_calibration
    from miri_gpu.simulate.crds_cache import reference_folder

    observed = observations.observe(SIZES["tiny"], data)
    references = reference_folder(Path(observed.crds["CRDS_PATH"]))
    loaded = vars(load_calibration(observed.segment, references=references))
    ours = vars(plain.simulated_calibration(SIZES["tiny"]))
    for name in set(ours) - {"rscd", "emicorr", "files", "context", "folder"}:
        np.testing.assert_array_equal(ours[name], loaded[name], err_msg=name)
        assert getattr(ours[name], "dtype", None) == getattr(loaded[name], "dtype", None), name


def test_all_ways_lead_to_the_same_spectra(plain_observation, data, monkeypatch):
    """By the reduction of real files, of plain ones, and from memory, as is timed."""
    from miri_gpu.plan import make_plan
    from miri_gpu.reduction import reduce_ramps, run_plan

    observed = observations.observe(SIZES["tiny"], data)
    for name, value in observed.crds.items():
        monkeypatch.setenv(name, value)
    segment = plain.segment(plain_observation.segment, SIZES["tiny"])
    plans = (
        make_plan([observed.segment], None, {}, "numpy", None, False),
        plain.plan(segment, SIZES["tiny"], NUMPY),
    )
    flux = [run_plan(plan)["flux"] for plan in plans]
    np.testing.assert_array_equal(flux[0].values, flux[1].values)
    samples = source.Source.simulated(SIZES["tiny"], NUMPY)
    spectra = reduce_ramps(samples.walk()).extraction
    np.testing.assert_array_equal(flux[0].values, spectra.flux[:, flux[0]["row"].values])


WITHOUT = """
import sys
for name in ("astropy", "jwst", "stdatamodels", "stpipe", "stcal", "crds", "asdf", "gwcs", "rich",
             "matplotlib", "h5netcdf", "h5py"):
    sys.modules[name] = None  # importing it raises
"""


def test_where_only_array_libraries_are_installed(plain_observation, data):
    code = f"""
from pathlib import Path
from bench import compute, functions, growth, memory
from bench.clock import Effort
from bench.observations import observe
from bench.run_ours import reduce_once
from bench.sizes import SIZES
from miri_gpu import backend
tiny, numpy = SIZES["tiny"], backend.select("numpy")
folder = Path({str(data)!r})
assert functions.measure_functions(tiny, numpy, Effort(0.0, 1))["functions"]
assert compute.measure_compute(tiny, numpy, folder, 1)["from_file"]
observed = observe(tiny, folder)
assert observed.describe()["references"] == "in memory"
assert reduce_once(observed.task("numpy"))["total_s"]
assert growth.draw(folder) is None
"""
    answer = subprocess.run(
        [sys.executable, "-c", WITHOUT + code],
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": str(machine.ROOT)},
    )
    assert answer.returncode == 0, answer.stderr


def test_large_observations_repeat_small_ones(tmp_path, monkeypatch):
    from miri_gpu.segments import open_segment

    monkeypatch.setattr(observations, "MOST_SIMULATED", 2 * 5 * 416 * 72)
    raw = []
    for stsci in (True, False):
        observed = observations.observe(SIZES["tiny"], tmp_path, stsci=stsci)
        assert observed.describe()["distinct_integrations"] == 2
        segment = open_segment(observed.segment)
        assert segment.primary["NINTS"] == segment.primary["INTEND"] == 4
        assert (np.diff(segment.times["int_mid_BJD_TDB"]) > 0).all()
        raw.append(np.array(segment.raw))
    np.testing.assert_array_equal(*raw)
    np.testing.assert_array_equal(raw[0][:2], raw[0][2:])
    assert (raw[0][0] != raw[0][1]).any()


# --- the competition


def test_competition_of_stage_1(data, tmp_path, in_this_process):
    """jwst's own steps run on the same segment, and give the same rates."""
    output, entries = run(competition.main, data, tmp_path, "--steps", "stage1")
    entry = entries[f"tiny/stage1/{computed_by(NUMPY)}"]
    assert set(entry["phases"]) == {"stage1"}
    assert entry["phases"]["stage1"]["ratio"] > 0
    assert len(entry["theirs"]) == 1
    assert len(entry["ours"]) == 2 * competition.RUNS_OF_A_TURN
    assert {"saturation", "jump", "ramp_fit"} <= set(entry["theirs"][0]["seconds"])
    assert {"saturation", "jump", "ramp_fit"} <= set(entry["by_step"])
    assert entry["agreement"]["fraction_of_pixels_with_equal_dq"] == 1
    assert entry["agreement"]["largest_relative_difference_of_rates"] < 1e-5
    assert "times as fast" in output


def test_competition_says_how_to_install_what_is_missing(data, tmp_path, monkeypatch):
    monkeypatch.setattr(competition, "has_exotic", lambda python: False)
    options = ["--size", "tiny", "--steps", "stage2", "--data", str(data)]
    done = CliRunner().invoke(competition.main, [*options, "--results", str(tmp_path)])
    assert done.exit_code == 2
    assert "exotic_miri is not installed" in done.output
    assert "pip install" in done.output
    assert list(tmp_path.iterdir()) == []


def test_no_such_interpreter():
    with pytest.raises(BenchError, match="--exotic-python: expected a Python, got 'no-python'"):
        competition.has_exotic("no-python")


def test_the_phases_of_a_run_with_everything():
    """Ratios are taken against the mean of our turns on either side of theirs."""
    ours = [
        {
            "seconds": {"plan": 1.0, "ramps to rates": n, "rates to spectra": 1.0, "rest": 1.0},
            "total_s": n,
        }
        for turn in (1.0, 3.0, 5.0)
        for n in (turn, turn, 7.0)
    ]
    theirs = [
        {"seconds": {"jump": 6.0, "clean_outliers": 7.0, "align_spectra": 2.0}, "total_s": 60.0},
        {"seconds": {"jump": 5.0, "clean_outliers": 7.0, "align_spectra": 2.0}, "total_s": 60.0},
    ]
    phases = competition.compare_phases(ours, theirs)
    assert phases["stage1"]["ratios"] == [6.0 / 3.0, 5.0 / 5.0]
    assert phases["stage2"]["ratio"] == 9.0 / 2.0
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


def test_a_failed_measurement_says_why():
    with pytest.raises(BenchError, match=r"(?s)bench\.nothing failed.*No module named"):
        run_apart("bench.nothing", {}, {})


# --- tables in the README


def test_agreement_with_stsci(tmp_path, monkeypatch):
    """Every step has its row, agrees within the bars, and the table finds its place."""
    path = tmp_path / "README.md"
    path.write_text("before\n{}\nold\n{}\nafter\n".format(*readme.marks("agreement")))
    monkeypatch.setattr(readme, "README", path)
    options = ["--case", "2 x 5", "--data", str(tmp_path / "data")]
    options += ["--results", str(tmp_path / "r")]
    done = CliRunner().invoke(agreement.main, [*options, "--readme"])
    assert done.exit_code == 0, done.output
    (json_path,) = (tmp_path / "r").glob("*.json")
    entries = {e["step"]: e for e in json.loads(json_path.read_text())["entries"].values()}
    steps = {step.partition(" (")[0] for step in entries}
    assert steps >= {twin[2] for twin in agreement.RAMP_TWINS} | {"ramp_fit", "flat_field"}
    for step, found in entries.items():
        if step != agreement.LIKELY:
            assert found["n_dq_differ"] == found["n_nan_differ"] == 0, step
            assert found["largest"] < 1e-5 and (found["largest_variance"] or 0) < 1e-4, step
    text = path.read_text()
    assert text.startswith("before\n") and text.endswith("after\n") and "old" not in text
    assert all(f"| {step} |" in text for step in entries)


def test_the_readme_says_what_was_measured():
    assert readme.between("performance") == table.tables()


def test_a_readme_without_marks(tmp_path):
    (tmp_path / "README.md").write_text("nothing")
    with pytest.raises(Exception, match=r"README\.md: expected <!-- performance begins -->"):
        readme.put("performance", "text", tmp_path / "README.md")


def entry(total_s, day, gpu=None, **more) -> dict:
    """What the reduction bench writes, in short."""
    return {
        "measured": {"commit": "0123456789", "uncommitted_changes": False, "time_utc": day},
        "machine": {"gpu": gpu and {"name": gpu}, "cores": 2, "cpu": "Some CPU"},
        "shape": [40, 64, 416, 72],
        "recipe": "faint",
        "samples": 10,
        "total_s": total_s,
        "samples_per_second": 1e6 / total_s,
        "peak_memory_bytes": 2e9,
        **more,
    }


def written(folder, kind, entries, bench="reduction") -> None:
    content = {"bench": bench, "machine_kind": kind, "entries": entries}
    (folder / f"{kind}-{bench}.json").write_text(json.dumps(content))


def test_each_figure_says_where_it_was_measured(tmp_path):
    entries = {
        "faint/numpy": entry(2.0, "2026-01-02T"),
        "tiny/numpy": entry(9.0, "2026-01-02T"),
        "faint/numpy, no kernels": entry(4.0, "2026-01-03T", of_ceiling=0.012),
    }
    written(tmp_path, "some-cpu", entries)
    assert table.tables(tmp_path).splitlines() == [
        "| miri_gpu by itself | 2 cores, Some CPU | 2 cores, Some CPU, no kernels |",
        "| --- | ---: | ---: |",
        "| whole reduction, 40 x 64, `faint` | 2.00 s, 0.500 M samples/s, 2.00 GB <sup>1</sup> | "
        "4.00 s, 0.250 M samples/s (1.2 % of the ceiling), 2.00 GB <sup>2</sup> |",
        "",
        "<sup>1</sup> `0123456`, 2026-01-02; <sup>2</sup> `0123456`, 2026-01-03",
    ]


def test_a_gpu_has_a_column_once_it_was_measured(tmp_path):
    written(tmp_path, "some-cpu", {"faint/numpy": entry(2.0, "2026-01-02T")})
    assert "Some GPU" not in table.tables(tmp_path)
    written(tmp_path, "some-gpu", {"faint/cupy": entry(0.1, "2026-01-02T", "Some GPU")})
    assert "| miri_gpu by itself | 2 cores, Some CPU | Some GPU |" in table.tables(tmp_path)


def test_a_contest_says_who_took_part(tmp_path):
    theirs = {"peak_memory_bytes": 3e9, "packages": {"jwst": "3.0", "exotic-miri": "1.0"}}
    contest = {
        **entry(2.0, "2026-01-02T"),
        "changes": {},
        "phases": {"all": {"theirs_s": 100.0, "ours_s": 2.0, "ratio": 50.3}},
        "by_step": {"jump": {"per": "sample", "theirs_ns": 9.0, "ours_ns": 3.0, "ratio": 3.0}},
        "theirs": [theirs],
        "ours": [{"peak_memory_bytes": 1e9}],
    }
    entries = {"faint/all/numpy": contest, "faint/all/numpy, no kernels": contest}
    other = {"faint/all/numpy": {**contest, "changes": {"jump": {"skip": True}}}}
    written(tmp_path, "some-cpu", entries, bench="competition")
    written(tmp_path, "other-cpu", other, bench="competition")
    assert table.tables(tmp_path).splitlines() == [
        "| jwst and ExoTiC-MIRI → miri_gpu | 2 cores, Some CPU | 2 cores, Some CPU, no kernels |",
        "| --- | ---: | ---: |",
        "| whole reduction, 40 x 64, `faint` | 100 s → 2.00 s: **50** <sup>1</sup> | "
        "100 s → 2.00 s: **50** <sup>1</sup> |",
        "| peak memory, 40 x 64, `faint` | 3.00 GB → 1.00 GB <sup>1</sup> | "
        "3.00 GB → 1.00 GB <sup>1</sup> |",
        "",
        "<sup>1</sup> `0123456`, 2026-01-02, jwst 3.0 and ExoTiC-MIRI 1.0",
        "",
        "| a step alone, theirs → ours | 2 cores, Some CPU |",
        "| --- | ---: |",
        "| `jump`, 40 x 64, `faint` | 9.00 → 3.00 ns / sample: **3.0** <sup>1</sup> |",
        "",
        "<sup>1</sup> `0123456`, 2026-01-02, jwst 3.0 and ExoTiC-MIRI 1.0",
    ]


# --- everything


def test_everything_that_there_is_time_for(data, tmp_path):
    options = ["--size", "tiny", "--data", str(data), "--results", str(tmp_path)]
    done = CliRunner().invoke(everything, [*options, "--only", "ceilings", "--backend", "numpy"])
    assert done.exit_code == 0, done.output
    assert "reduction tiny: not asked for" in done.output
    (path,) = tmp_path.glob("*-ceilings.json")
    (case,) = json.loads(path.read_text())["entries"]
    assert case in ("tiny/numpy", "tiny/numpy, no kernels")  # a checkout may have none
    done = CliRunner().invoke(everything, [*options, "--minutes", "0"])
    assert "functions tiny: left out, no time is left" in done.output


# --- results, machine, clock


def test_an_observation_is_simulated_once(data):
    observed = observations.observe(SIZES["tiny"], data)
    before = observed.segment.stat().st_mtime_ns
    assert observations.observe(SIZES["tiny"], data).segment.stat().st_mtime_ns == before


def test_an_observation_of_another_simulator_is_made_anew(data, tmp_path, monkeypatch):
    kept = json.loads((data / "4x5" / observations.KEPT).read_text())
    kept["origin"]["simulator"] = "of an earlier version"
    (tmp_path / "4x5").mkdir()
    (tmp_path / "4x5" / observations.KEPT).write_text(json.dumps(kept))

    class SimulatedError(Exception):
        pass

    def simulate(directory, settings):
        assert not (directory / observations.KEPT).exists()  # nothing vouches for the half made
        raise SimulatedError

    monkeypatch.setattr(observations, "simulate", simulate)
    with pytest.raises(SimulatedError):
        observations.observe(SIZES["tiny"], tmp_path)


def test_results_of_other_cases_stay(tmp_path):
    results.write_results("reduction", {"faint/numpy": {"total_s": 1.23456789}}, NUMPY, tmp_path)
    path = results.write_results("reduction", {"bright/numpy": {"total_s": 2}}, NUMPY, tmp_path)
    content = json.loads(path.read_text())
    assert path.name == f"{content['machine_kind']}-reduction.json"
    assert list(content["entries"]) == ["bright/numpy", "faint/numpy"]
    assert content["entries"]["faint/numpy"]["total_s"] == 1.2346
    assert content["entries"]["faint/numpy"]["measured"]["time_utc"].endswith("+00:00")
    assert content["entries"]["faint/numpy"]["machine"]["packages"]["numpy"] == np.__version__
    assert results.read_results("reduction", tmp_path) == {
        content["machine_kind"]: content["entries"]
    }


def test_a_machine_has_a_kind_and_no_name():
    text = json.dumps(machine.describe_machine(NUMPY))
    assert platform.node() not in text
    assert str(Path.home()) not in text
    cpu = {"gpu": None, "cores": 2, "cpu": "Intel(R) Xeon(R) Platinum 8481C CPU @ 2.70GHz"}
    assert machine.machine_kind(cpu) == "2-cores-intel-xeon-platinum-8481c-cpu"
    assert machine.machine_kind({**cpu, "gpu": {"name": "NVIDIA H200"}}) == "nvidia-h200"


def test_cases_without_kernels_have_names_of_their_own(monkeypatch):
    monkeypatch.setenv(kernels.ENVIRONMENT_VARIABLE, "0")
    assert computed_by(NUMPY) == "numpy, no kernels"


def test_a_stage_lasts_until_its_last_piece():
    stopwatch = Stopwatch()
    stopwatch.start("segment.fits: median profile", 2)
    stopwatch.advance()
    stopwatch.advance()
    first = stopwatch.seconds["median profile"]
    stopwatch.start("other.fits: median profile", 1)
    stopwatch.advance()
    with stopwatch.stage("jump"):
        pass
    assert list(stopwatch.seconds) == ["median profile", "jump"]
    assert stopwatch.seconds["median profile"] > first > 0


def test_memory_is_that_of_this_process():
    assert peak_memory_bytes() > 10_000_000


@pytest.mark.skipif(memory_of_process("RssAnon") is None, reason="only Linux tells")
def test_memory_of_its_own_is_watched():
    size, fresh = 50_000_000, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS  # not what an array left free
    with mmap.mmap(-1, size, fresh) as held, MemoryWatch(anonymous_memory_bytes) as watch:
        held[:] = bytes(size)
    assert watch.seen_bytes["peak"] - watch.seen_bytes["before"] > 0.8 * size
