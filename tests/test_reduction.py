"""The whole reduction: independent of blocks, threads and backend; its ways in; what it refuses."""

import logging
from contextlib import contextmanager
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
from astropy.io import fits
from pretended_gpu import pretended_gpu
from shell_cases import STAND_IN, edited, gathered, same

from miri_gpu import (
    detector,
    kernels,
    ramps_to_rates,
    rates_to_spectra,
    reduction,
    stretches,
    uploads,
    whole_frames,
)
from miri_gpu import plan as plan_module
from miri_gpu.area import ALL_ROWS, Area
from miri_gpu.backend import select
from miri_gpu.blocks import Workers, memory_to_take
from miri_gpu.calibration import Calibration
from miri_gpu.containers import Readout
from miri_gpu.errors import BackendError, CalibrationError, MiriGpuError, RecipeError, SegmentError
from miri_gpu.groups_in_use import dropped_groups
from miri_gpu.job import Job
from miri_gpu.plan import make_plan
from miri_gpu.products import RATES, ToFiles, reduce_to_directory
from miri_gpu.ramp_blocks import load_ramps
from miri_gpu.ramp_steps import cut_ramps
from miri_gpu.ramps.rscd import FLUX_ESTIMATED
from miri_gpu.rate_files import load_rates, rate_writer
from miri_gpu.recipe import named_recipe
from miri_gpu.reduction import reduce, reduce_job, run_plan
from miri_gpu.row_walks import walks_ahead
from miri_gpu.segment_files import path_of
from miri_gpu.segments import open_segment, open_segments
from miri_gpu.simulate import SimulationSettings, simulate
from miri_gpu.storage import Room
from miri_gpu.stretches import MeasuredFrames, Stretch

LIBRARY = kernels.compiled()  # also where a test switches it off
OPTIMAL = {
    "extract_1d_box": {"skip": True},
    "extract_1d_optimal": {
        "skip": False,
        "trace_position": "gaussian_fits",
        "median_spatial_profile": True,
    },
}
EVERY_STEP = {
    "drop_integrations": {"skip": False, "drop_integrations": [1, -1]},
    "drop_groups": {"drop_groups": [0, -1]},
    "custom_linearity": {
        "skip": False,
        "group_idx_start_fit": 1,
        "group_idx_end_fit": 7,
        "group_idx_start_derive": 1,
        "group_idx_end_derive": -1,
        "row_idx_start_used": 300,
        "row_idx_end_used": 380,
    },
    "reference_pixel": {"skip": False, "smoothing_length": 21},
    "group_background_subtract": {"skip": False, "method": "row_wise", "smoothing_length": 9},
    "regroup": {"skip": False, "n_groups": 6},
    "jump": {
        "rejection_threshold": 5.0,
        "three_group_rejection_threshold": 6.0,
        "four_group_rejection_threshold": 5.0,
        "flag_4_neighbors": True,
        "min_jump_to_flag_neighbors": 5.0,
        "after_jump_flag_dn1": 500.0,
        "after_jump_flag_time1": 0.4,
    },
    "align_spectra": {"align_spectra": True},
}
RECIPES = {
    "bright": {},
    "every step": EVERY_STEP,
    "optimal": {
        **OPTIMAL,
        "group_background_subtract": {"skip": False, "method": "constant"},
    },
    "lines": {
        "background_subtract": {"method": "col_wise"},
        "group_background_subtract": {"skip": False, "method": "col_wise"},
        "reference_pixel": {"skip": False, "odd_even_rows": False},
    },
    "flags of STScI": {
        "emicorr": {"skip": False, "algorithm": "joint"},
        "firstframe": {"skip": False},
        "lastframe": {"skip": False},
        "rscd": {"skip": False},
        "drop_groups": {"skip": True},
        "time_jump": {"skip": False},
        "saturation": {"n_pix_grow_sat": 2},
    },
    "cut, without interference": {
        "drop_integrations": {"skip": False, "drop_integrations": [2]},
        "emicorr": {"skip": False, "algorithm": "sequential"},
        "rscd": {"skip": False, "group_skip1": 3, "group_skip": 2},
        "drop_groups": {"drop_groups_first_integration": [0, 1, 2]},
        "regroup": {"skip": False, "n_groups": 6},
        "group_background_subtract": {"skip": False, "method": "row_wise"},
    },
    "likelihood": {
        **OPTIMAL,
        "emicorr": {"skip": False, "fit_ints_separately": True},
        "drop_groups": {"drop_groups": [-1], "drop_groups_first_integration": [0, 1]},
        "firstframe": {"skip": False},
        "jump": {"skip": True},
        "ramp_fit": {"algorithm": "LIKELY", "lastgroup": 10},
    },
    "clipped jumps": {
        "jump": {"minimum_sigclip_groups": 5, "rejection_threshold": 2.4, "flag_4_neighbors": True},
        "group_background_subtract": {
            "skip": False,
            "method": "col_wise",
            "smoothing_length": 9,
        },
    },
}


@pytest.fixture(scope="module")
def rough(observation, tmp_path_factory):
    """Two segments of five integrations, with saturation and jumps in many rows."""
    folder = tmp_path_factory.mktemp("rough")
    rng = np.random.default_rng(5)

    def hit(samples):
        n_ints, n_groups, n_rows, n_cols = samples.shape
        for size in (40, 200, 2000):
            for _ in range(300):
                at = rng.integers((n_ints, n_rows, n_cols))
                after = rng.integers(1, n_groups)
                ramp = samples[at[0], after:, at[1], at[2]]
                ramp[:] = np.minimum(ramp.astype(np.int64) + size, 65535)
        for _ in range(100):
            at = rng.integers((n_ints, n_rows, n_cols))
            samples[at[0], rng.integers(2, n_groups) :, at[1], at[2]] = 65535

    def shorten(first):
        def change(hdus):
            hdus["SCI"].data = hdus["SCI"].data[:5]
            times = hdus["INT_TIMES"].data[:5]
            times["integration_number"] = first + np.arange(5)
            hdus["INT_TIMES"].data = times

        return change

    return tuple(
        edited(
            path,
            folder / path.name,
            samples=hit,
            change=shorten(first),
            INTSTART=first,
            INTEND=first + 4,
            NINTS=10,
        )
        for path, first in zip(observation.segments, (1, 6), strict=True)
    )


@pytest.fixture(scope="module")
def references(observation):
    return observation.references


BACKGROUNDS = ("background_subtract", "group_background_subtract")


def planned(segments, references, settings=None, recipe="bright"):
    return make_plan(segments, recipe, settings or {}, "numpy", references, len(segments) == 1)


def run_with(plan, workers, room=None):
    """Run a plan on these workers; returns the product, and the rates of its segments."""
    rates = []
    job = replace(Job.of(plan), workers=workers, room=room or Room())
    return reduce_job(job, on_rates=gathered(rates)), rates


def assert_same_products(first, second, but=()):
    assert set(first.variables) == set(second.variables)
    different = [n for n in first.variables if not same(first[n].values, second[n].values)]
    assert [name for name in different if name not in but] == []


def assert_same_rates(first, second):
    for ours, theirs in zip(first, second, strict=True):
        for name, plane in vars(ours).items():
            other = getattr(theirs, name)
            if plane is not None:
                plane, other = (getattr(a, "_hidden", a) for a in (plane, other))
                assert same(plane, other), name


# --- nothing depends on how the work is cut, or on what computes


@pytest.fixture(scope="module")
def whole(rough, references):
    """Products made in one block each, by recipe."""
    made = {}

    def get(name):
        if name not in made:
            plan = planned(rough, references, RECIPES[name])
            made[name] = plan, *run_with(plan, Workers(1, 1 << 40))
        return made[name]

    return get


@pytest.mark.parametrize("name", RECIPES)
def test_the_rough_segments_try_every_step(whole, name):
    """Otherwise the tests below would say little."""
    _, dataset, rates = whole(name)
    dq = np.concatenate([r.dq for r in rates])
    assert 500 < ((dq & detector.JUMP_DET) != 0).sum() < 0.9 * dq.size
    assert ((dq & detector.SATURATED) != 0).sum() > 50
    assert np.isfinite(dataset["flux"].values).mean() > 0.99
    assert np.isfinite(dataset["flux_error"].values).mean() > 0.99
    assert (dataset["n_outliers"].values > 0).any()


@pytest.mark.parametrize("name", RECIPES)
@pytest.mark.parametrize(
    "workers",
    [Workers(1, 300_000), Workers(3, 1_000_003)],
    ids=["small blocks", "odd blocks on threads"],
)
def test_results_do_not_depend_on_the_blocks(whole, monkeypatch, name, workers):
    plan, dataset, rates = whole(name)
    other, other_rates = run_with(plan, workers)
    assert_same_rates(rates, other_rates)
    assert_same_products(dataset, other)


def test_results_do_not_depend_on_blocks_of_a_single_row(whole, monkeypatch):
    plan = whole("every step")[0]
    plan = replace(plan, segments=plan.segments[1:])
    dataset, rates = run_with(plan, Workers(1, 1 << 40))
    other, other_rates = run_with(plan, Workers(1, 1))
    assert_same_rates(rates, other_rates)
    assert_same_products(dataset, other)


@pytest.mark.parametrize("name", ["every step", "flags of STScI", "cut, without interference"])
@pytest.mark.parametrize("by", ["compiled_kernels", "without_kernels"])
def test_an_area_is_what_the_whole_frame_has_there(whole, request, name, by):
    """Before the linearity, of any columns: those around lend what spills over, and no more."""
    request.getfixturevalue(by)
    plan = whole(name)[0]
    job = replace(Job.of(plan), workers=Workers(1, 1 << 40))
    stretch = Stretch(plan.segments[0], plan.integrations(plan.segments[0]))
    stretch = replace(stretch, frames=MeasuredFrames(emi=whole_frames.emi_of(stretch, job)))
    everywhere, _ = load_ramps(stretch, Area(), job, stop="linearity")
    for area in (Area(slice(380, 391), slice(31, 42)), Area(slice(0, 2), slice(71, 72))):
        ramps, block = load_ramps(stretch, area, job, stop="linearity")
        assert (block.first_row, block.first_column) == (area.rows.start, area.columns.start)
        expected = cut_ramps(everywhere, area)
        for found, there in zip(vars(ramps).values(), vars(expected).values(), strict=True):
            np.testing.assert_array_equal(found, there)
        with pytest.raises(ValueError, match="columns: expected all of them for the steps before"):
            load_ramps(stretch, area, job, stop="time_jump")


def test_little_memory_is_enough(whole):
    plan, dataset, _ = whole("optimal")
    assert_same_products(dataset, run_plan(plan, memory_bytes=50 << 20))


@pytest.mark.parametrize("how", ["n_workers", "memory_bytes"])
def test_no_worker_and_no_memory_are_refused_at_once(whole, tmp_path, how):
    """Before the segments are looked for."""
    absent = tmp_path / "absent.fits"
    for call in (
        lambda **none: run_plan(whole("bright")[0], **none),
        lambda **none: reduce([absent], **none),
        lambda **none: reduce_to_directory([absent], tmp_path / "out", **none),
    ):
        with pytest.raises(MiriGpuError, match=f"{how}: expected at least 1, got 0"):
            call(**{how: 0})


@pytest.mark.parametrize(
    ("name", "backend"),
    [(name, None) for name in ("bright", "every step", "flags of STScI", "optimal")]
    + [(name, STAND_IN) for name in ("cut, without interference", "likelihood")],
)
def test_what_does_not_fit_the_memory_is_read_by_rows_and_kept_in_files(
    whole, monkeypatch, tmp_path, name, backend
):
    plan, dataset, rates = whole(name)
    plan = replace(plan, backend=backend or plan.backend)
    room = Room(0, 0, bytes_of_samples=1_000_000, folder=tmp_path)
    other, other_rates = run_with(plan, Workers(2, 1_000_003), room)
    assert_same_rates(rates, other_rates)
    assert_same_products(dataset, other)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("backend", [None, STAND_IN])
def test_rates_are_handed_on_in_blocks(whole, monkeypatch, tmp_path, backend):
    """Whoever takes them never needs memory for all rates of a segment."""
    plan, _, rates = whole("bright")
    found, taken = [], []
    gather = gathered(found)

    @contextmanager
    def sink(origin):
        with gather(origin) as take:
            yield lambda ints, part: taken.append((ints, len(part.data))) or take(ints, part)

    monkeypatch.setattr(reduction, "_INTS_AT_ONCE", 2)
    job = Job.of(replace(plan, backend=backend or plan.backend))
    reduce_job(replace(job, room=Room(0, 0, folder=tmp_path)), on_rates=sink)
    assert taken == 2 * [(slice(0, 1), 1), (slice(1, 3), 2), (slice(3, 5), 2)]
    assert_same_rates(rates, found)


@pytest.mark.parametrize("name", RECIPES)
def test_a_gpu_computes_the_same_and_meets_no_host_array(whole, monkeypatch, name):
    """On the strict stand-in, which refuses what fails on a GPU."""
    plan, dataset, rates = whole(name)
    other, other_rates = run_with(replace(plan, backend=STAND_IN), Workers(1, 8 << 20))
    assert_same_rates(rates, other_rates)
    assert_same_products(dataset, other)


@pytest.mark.parametrize("n_bytes", [1 << 40, 3_000_000, 1], ids=["all", "parts", "blocks"])
@pytest.mark.parametrize("by", ["Python", "compiled code"])
@pytest.mark.parametrize("name", ["bright", "every step"])
def test_samples_take_any_way_to_a_gpu(whole, without_kernels, monkeypatch, name, by, n_bytes):
    """Segments in a few parts, in many, and by blocks where room is short."""
    plan, dataset, rates = whole(name)
    plan = replace(plan, backend=pretended_gpu(monkeypatch))
    if by == "compiled code":
        library = LIBRARY if hasattr(LIBRARY, "upload_frames") else pytest.skip("not compiled")
        monkeypatch.setattr(uploads, "kernels", SimpleNamespace(compiled=lambda: library))
    workers, room = Workers(2, 1 << 22, backend=plan.backend), Room(bytes_of_uploads=n_bytes)
    other, other_rates = run_with(plan, workers, room)
    assert_same_rates(rates, other_rates)
    assert_same_products(dataset, other)


@pytest.mark.parametrize(
    ("name", "n_rows", "n_segments", "parts"),
    [
        ("bright", 418, 1, [[125, 166, 125]]),
        ("bright", 418, 3, [[125, 291], [416], [291, 125]]),
        ("bright", 417, 1, [[416]]),  # the halos of the parts would not fit
        ("bright", 300, 2, [[208, 208], [208, 208]]),
        ("bright", 200, 1, [[139, 138, 139]]),
        ("bright", 100, 1, [[84, 83, 83, 83, 83]]),
        ("every step", 500, 2, [[416], [416]]),  # which measures whole frames first
    ],
)
def test_a_gpu_computes_with_parts_that_come_as_it_computes(
    whole, monkeypatch, name, n_rows, n_segments, parts
):
    """Even ones with one row of a halo; where all fit, a small one first of all and last of all."""
    plan = replace(whole(name)[0], backend=pretended_gpu(monkeypatch))
    one = plan.segments[0]
    room = Room(bytes_of_uploads=2 * n_rows * one.samples.n_bytes // detector.N_ROWS)
    walks = walks_ahead([one] * n_segments, replace(Job.of(plan), room=room))
    assert [[part.stop - part.start for part in walk.parts] for walk in walks] == parts


def test_references_count_among_what_a_cap_is_for(whole, monkeypatch):
    plan = whole("bright")[0]
    n_bytes = sum(
        array.nbytes for array in vars(plan.calibration).values() if hasattr(array, "nbytes")
    )
    gpu = replace(plan, backend=pretended_gpu(monkeypatch))
    for cap, left in ((n_bytes + 4000, 4000), (n_bytes - 1, 0)):
        assert Job.of(gpu, memory_bytes=cap).room.bytes_of_uploads == left // 4
    assert Job.of(plan, memory_bytes=4000).room.bytes_on_device == 1000  # a host has them anyway
    few = SimpleNamespace(on_gpu=True, free_memory_bytes=lambda: 800)
    assert memory_to_take(few, 1000) == 800


def test_a_gpu_without_room_gets_samples_by_blocks(whole, without_kernels, monkeypatch, caplog):
    plan, dataset, _ = whole("lines")
    gpu = pretended_gpu(monkeypatch)
    upload, n_calls = uploads.upload_array, iter(range(100))

    def fail_once(*args):
        if next(n_calls) == 0:
            raise MemoryError("no more")
        return upload(*args)

    monkeypatch.setattr(stretches, "upload_array", fail_once)
    with caplog.at_level(logging.WARNING, "miri_gpu"):
        workers = Workers(1, 1 << 22, backend=gpu)
        other, _ = run_with(replace(plan, backend=gpu), workers)
    assert_same_products(dataset, other)
    assert "read by blocks" in caplog.text


def test_a_block_of_frames_that_is_halved_leaves_nothing_behind(whole, monkeypatch):
    plan, dataset, _ = whole("bright")
    extract, n_calls = rates_to_spectra.extract_frames, iter(range(1000))

    def fail_once(*args):  # the last of what is done with a block
        if next(n_calls) == 0:
            raise MemoryError("no more")
        return extract(*args)

    monkeypatch.setattr(rates_to_spectra, "extract_frames", fail_once)
    assert_same_products(dataset, run_with(plan, Workers(1, 1 << 40))[0])
    assert next(n_calls) == len(plan.segments) + 2


def test_frames_come_in_as_few_blocks_as_memory_and_threads_allow(whole):
    job = Job.of(whole("bright")[0])
    for workers, n_blocks in ((Workers(1, 1 << 40), 1), (Workers(3, 1 << 40), 3)):
        blocks = rates_to_spectra.blocks_of_rates(300, replace(job, workers=workers))
        assert len(blocks) == n_blocks
    assert len(rates_to_spectra.blocks_of_rates(300, replace(job, workers=Workers(3, 1)))) == 300


def test_walks_have_an_order(whole):
    plan = whole("bright")[0]
    job = Job.of(plan)
    first, second = walks_ahead(plan.segments, job)
    with pytest.raises(RuntimeError, match="out of turn"):
        second.run(None, None, task="a test")
    assert first.parts == second.parts == [ALL_ROWS]


@pytest.mark.parametrize("memory_bytes", [None, 1 << 28], ids=["all", "256 MB"])
@pytest.mark.parametrize("name", RECIPES)
def test_cupy_computes_the_same(whole, name, memory_bytes):
    """On a real GPU, but for rounding, and what rounding decides."""
    try:
        gpu = select("cupy")
    except BackendError as error:
        pytest.skip(str(error))
    plan, dataset, rates = whole(name)
    found = []
    gpu_plan = replace(plan, backend=gpu)
    other = run_plan(gpu_plan, memory_bytes=memory_bytes, on_rates=gathered(found))
    for expected, ours in zip(rates, found, strict=True):
        assert (ours.dq != expected.dq).mean() < 1e-3
        differs = np.abs(ours.data - expected.data) > 1e-5 * np.abs(expected.data)
        assert differs[expected.dq == 0].mean() < 1e-2
    for variable in ("flux", "flux_error", "background"):
        expected, ours = dataset[variable].values, other[variable].values
        np.testing.assert_array_equal(np.isnan(ours), np.isnan(expected))
        differs = np.abs(ours - expected) > 1e-4 * np.nanmedian(np.abs(expected))
        assert differs.mean() < 1e-2, variable


@pytest.mark.parametrize("name", ["every step", "flags of STScI"])
def test_processes_give_the_same(whole, tmp_path, name):
    plan, dataset, rates = whole(name)
    sink = ToFiles(tmp_path / RATES, rate_writer)
    other = run_plan(plan, n_workers=2, on_rates=sink, scratch=tmp_path)
    assert_same_products(dataset, other)
    for segment, expected in zip(plan.segments, rates, strict=True):
        path = path_of(tmp_path / RATES, segment, "rateints")
        read = load_rates(open_segment(path), np.arange(len(expected.data)))
        assert_same_rates([expected], [read])
        linearity = fits.getval(path, "R_LINEAR")
        measured = f"measured on {plan.segments[-1].path.name}"
        assert linearity == (measured if name == "every step" else "jwst_miri_linearity_0001.fits")


def test_the_same_twice_and_in_any_order(rough, references, whole):
    again = reduce(rough[::-1], "bright", backend="numpy", references=references)
    assert_same_products(whole("bright")[1], again)


# --- its ways in


@pytest.fixture(scope="module")
def saved_rates(whole, tmp_path_factory):
    """Files of the rates that a recipe gave, made once."""
    made = {}

    def get(name="bright"):
        if name not in made:
            folder = tmp_path_factory.mktemp("rates")
            plan, _, rates = whole(name)
            made[name] = [path_of(folder, segment, "rateints") for segment in plan.segments]
            for path, segment, found in zip(made[name], plan.segments, rates, strict=True):
                with rate_writer(path, plan.origin(segment)) as write:
                    write(slice(None), found)
        return made[name]

    return get


def test_references_from_crds_and_from_a_folder_give_the_same(observation, references):
    from_folder = reduce(observation.segments, backend="numpy", references=references)
    from_crds = reduce(observation.segments, backend="numpy")
    assert_same_products(from_folder, from_crds)
    assert from_crds.attrs["crds_context"] == observation.crds_context
    assert (from_crds.attrs["references"], from_folder.attrs["crds_context"]) == ("", "")
    assert from_folder.attrs["references"] == str(references)
    assert from_crds.attrs["reference_files"] == from_folder.attrs["reference_files"]
    assert "dark: jwst_miri_dark_0001.fits" in from_crds.attrs["reference_files"]


@pytest.mark.parametrize("name", ["bright", "every step", "optimal"])
def test_rate_images_give_the_product_of_the_ramps_they_were_made_of(
    whole, references, saved_rates, name
):
    """Settings of the ramps no longer matter, but integrations that are gone cannot go again."""
    files = saved_rates(name)
    direct = whole(name)[1]
    settings = {**RECIPES[name], "drop_integrations": {"skip": True}}
    entered = reduce(files, "bright", settings=settings, backend="numpy", references=references)
    dropped = "drop_integrations" in RECIPES[name]
    direct = direct.drop_vars([n for n in direct.variables if n.startswith("linearity_")])
    assert_same_products(direct, entered, but=("integration_number",) if dropped else ())
    numbers = entered["integration_number"].values
    assert np.array_equal(numbers, 1 + np.arange(len(numbers)))
    segments = open_segments(files)
    for segment in segments:
        assert segment.primary["NINTS"] == len(numbers)
        assert segment.primary["INTEND"] == segment.first_integration + segment.n_ints


def test_rate_images_need_no_references_of_the_ramps(saved_rates, references, tmp_path, caplog):
    files = saved_rates()
    few = tmp_path / "few"
    few.mkdir()
    for kind in ("gain", "specwcs", "flat"):
        (few / f"{kind}.fits").symlink_to(references / f"jwst_miri_{kind}_0001.fits")
    caplog.clear()
    dataset = reduce(files, backend="numpy", references=few)
    assert not [record for record in caplog.records if record.levelno >= logging.WARNING]
    assert "dark" not in dataset.attrs["reference_files"]


def test_rates_and_ramps_do_not_mix(rough, references, saved_rates):
    second = saved_rates()[1]
    message = refusal(SegmentError, [rough[0], second], references=references)
    assert str(second) in message and "expected ramps" in message


def test_part_of_an_exposure(rough, references, whole):
    """A segment alone is cleaned and extracted as it is beside others."""
    whole_product = whole("bright")[1]
    with pytest.raises(SegmentError, match="missing segment 1 of 2"):
        reduce([rough[1]], "bright", references=references)
    part = reduce([rough[1]], "bright", backend="numpy", references=references, partial=True)
    assert np.array_equal(part["integration_number"], [6, 7, 8, 9, 10])
    assert same(part["flux"].values, whole_product["flux"].values[5:])
    assert same(part["bjd_tdb_mid"].values, whole_product["bjd_tdb_mid"].values[5:])


def test_a_pixel_of_unknown_gain_leaves_its_row_a_spectrum(whole):
    """The pixel's rates are replaced by a model, whose photons need a gain, too."""
    plan, dataset, _ = whole("optimal")
    gain = plan.calibration.gain.copy()
    gain[340, 36] = np.nan
    found = run_plan(replace(plan, calibration=replace(plan.calibration, gain=gain)))
    finite = np.isfinite(dataset["flux"].values)
    row = np.flatnonzero(dataset["row"].values == 340)
    assert finite[:, row].all() and same(np.isfinite(found["flux"].values), finite)
    assert np.all(found["flux_error"].values[:, row] < 2 * dataset["flux_error"].values[:, row])


def test_an_integration_whose_trace_is_not_found_is_unknown(rough, references):
    """Beside the trace, where there are no columns of it, some fits fail."""
    settings = {
        "extract_1d_box": {"trace_position": "gaussian_fits"},
        "trace": {"col_idx_start_used": 40},
    }
    dataset = reduce(
        rough, recipe="bright", settings=settings, references=references, backend="numpy"
    )
    lost = np.isnan(dataset["trace_centre"].values)
    assert 0 < lost.sum() < len(lost)
    assert np.isnan(dataset["flux"].values[lost]).all()
    np.testing.assert_array_equal(np.isnan(dataset["background"].values).all(axis=1), lost)


@pytest.mark.parametrize("sample", [0, 65535], ids=["dead", "saturated"])
def test_an_integration_without_a_usable_pixel_has_no_flux(
    observation, references, tmp_path, sample
):
    """Where cleaning fills its frame with 0."""

    def lose(samples):
        samples[2] = sample

    first = edited(observation.segments[0], tmp_path / "lost_uncal.fits", samples=lose)
    segments = [first, observation.segments[1]]
    dataset = reduce(segments, "bright", references=references, backend="numpy")
    lost = np.arange(12) == 2
    for name in ("flux", "flux_error", "background"):
        np.testing.assert_array_equal(np.isnan(dataset[name].values).all(axis=1), lost)


@pytest.mark.parametrize("algorithm", ["OLS_C", "LIKELY"])
def test_photons_of_a_background_that_groups_have_lost_count(observation, references, algorithm):
    """In the faint rows, where they are most of the noise."""
    errors = {}
    for step in BACKGROUNDS:
        settings = {name: {"skip": name != step} for name in BACKGROUNDS}
        settings["ramp_fit"] = {"algorithm": algorithm}
        dataset = reduce(observation.segments, "bright", settings=settings, references=references)
        errors[step] = dataset["flux_error"].values[:, dataset["row"].values < 200]
    ratio = errors["group_background_subtract"] / errors["background_subtract"]
    assert np.median(ratio) == pytest.approx(1, abs=0.03)  # 0.8 without


def test_a_product_without_any_flux_is_refused(rough, references):
    wide = {"trace_position": "gaussian_fits", "aperture_left_width": 60}
    with pytest.raises(SegmentError, match="the aperture leaves the detector at every trace"):
        reduce(rough, "bright", settings={"extract_1d_box": wide}, references=references)


def test_an_optimal_extraction_knows_that_ramps_saturate(tmp_path):
    """Its weights gain little where a star is bright: its errors are those of a box as wide."""
    scene = {"star_peak_rate": 70000.0, "cosmic_rays": False, "bad_pixels": False}
    settings = SimulationSettings(n_ints=3, n_groups=7, n_segments=1, **scene)
    simulated = simulate(tmp_path, settings)
    box = {"extract_1d_box": {"aperture_left_width": 8, "aperture_right_width": 8}}
    optimal = {"extract_1d_box": {"skip": True}, "extract_1d_optimal": {"skip": False}}
    summed, weighed = (
        reduce(
            simulated.segments,
            "bright",
            settings=extraction,
            backend="numpy",
            references=simulated.references,
        )
        for extraction in (box, optimal)
    )
    rows = np.isin(summed["row"].values, np.arange(384, 388))  # the brightest
    ratio = (weighed["flux_error"] / summed["flux_error"]).values[:, rows]
    assert np.all((ratio > 0.95) & (ratio < 1.02)), ratio


def test_integrations_are_dropped_with_their_times(rough, references, whole):
    settings = {"drop_integrations": {"skip": False, "drop_integrations": [0, 6, -1]}}
    dataset = reduce(rough, "bright", settings=settings, backend="numpy", references=references)
    everything = whole("bright")[1]
    left = [1, 2, 3, 4, 5, 7, 8]
    assert np.array_equal(dataset["integration_number"], 1 + np.array(left))
    for name in ("flux", "mjd_utc_start", "bjd_tdb_mid", "bjd_tdb_end", "trace_centre"):
        assert same(dataset[name].values, everything[name].values[left]), name


def test_regrouped_integrations_have_times_of_their_own(rough, references):
    settings = {"regroup": {"skip": False, "n_groups": 4}}
    plan = planned(rough, references, settings)
    dataset = run_plan(plan)
    assert np.array_equal(dataset["integration_number"], 1 + np.arange(30))
    assert dataset.attrs["n_groups"] == 4
    assert dataset.attrs["group_time_s"] == detector.FRAME_TIME_S
    assert dataset.attrs["gain_e_per_dn"] == np.float32(3.1)
    frame_days = detector.FRAME_TIME_S / 86400
    times = plan.segments[0].times
    for scale, name in (("MJD_UTC", "mjd_utc"), ("BJD_TDB", "bjd_tdb")):
        zero = 2400000.5 if name == "bjd_tdb" else 0.0
        start = dataset[f"{name}_start"].values[:15].reshape(5, 3) - zero
        expected = times[f"int_start_{scale}"][:, None] + 4 * frame_days * np.arange(3)
        np.testing.assert_allclose(start, expected, rtol=0, atol=1e-3 / 86400)
        end = dataset[f"{name}_end"].values[:15].reshape(5, 3)[:, -1] - zero
        np.testing.assert_allclose(end, times[f"int_end_{scale}"], rtol=0, atol=1e-3 / 86400)
        middle = dataset[f"{name}_mid"].values
        halfway = (dataset[f"{name}_start"].values + dataset[f"{name}_end"].values) / 2
        np.testing.assert_allclose(middle, halfway, rtol=0, atol=1e-4 / 86400)


def test_the_measured_linearity_needs_no_reference(observation, references, tmp_path):
    for path in references.glob("*.fits"):
        if "linearity" not in path.name:
            (tmp_path / path.name).symlink_to(path)
    settings = {"custom_linearity": EVERY_STEP["custom_linearity"]}
    segments = observation.segments
    dataset = reduce(segments, "bright", settings=settings, backend="numpy", references=tmp_path)
    assert f"linearity: measured on {segments[-1].name}" in dataset.attrs["reference_files"]
    usual = reduce(segments, "bright", backend="numpy", references=references)
    bright = dataset["wavelength"].values < 8.0
    flux, usual = dataset["flux"].values[:, bright], usual["flux"].values[:, bright]
    assert abs(np.median(flux / usual) - 1) < 0.03


def test_the_product_says_how_it_was_made(rough, whole):
    plan, dataset, _ = whole("every step")
    attributes = dataset.attrs
    assert attributes["recipe"] == plan.recipe.to_toml()
    assert "drop_integrations = [1, -1]" in attributes["recipe"]
    assert attributes["backend"] == "numpy"
    assert attributes["target"] == "SIMULATED-STAR"
    assert attributes["input_files"].split("\n") == [path.name for path in rough]


# --- what cannot be reduced


def refusal(error, *args, **kwargs) -> str:
    """The message with which a reduction is refused, which is one line."""
    with pytest.raises(error) as caught:
        reduce(*args, backend="numpy", **kwargs)
    message = str(caught.value)
    assert "\n" not in message
    return message


@pytest.mark.parametrize(
    ("settings", "named"),
    [
        ({"drop_groups": {"drop_groups": list(range(12))}}, "drop_groups.drop_groups"),
        ({"drop_groups": {"drop_groups": list(range(11))}}, "drop_groups.drop_groups"),
        ({"drop_groups": {"drop_groups": [12]}}, "drop_groups.drop_groups"),
        ({"drop_groups": {"drop_groups": [-13]}}, "drop_groups.drop_groups"),
        (
            {"drop_integrations": {"skip": False, "drop_integrations": [10]}},
            "drop_integrations.drop_integrations",
        ),
        (
            {"drop_integrations": {"skip": False, "drop_integrations": [0, 1, 2, 3, 4]}},
            "drop_integrations.drop_integrations",
        ),
        ({"regroup": {"skip": False, "n_groups": 13}}, "regroup.n_groups"),
        ({"regroup": {"skip": False, "n_groups": 1}}, "regroup.n_groups"),
        (
            {
                "regroup": {"skip": False, "n_groups": 4},
                "drop_groups": {"drop_groups": [0, 1, 2, 3]},
            },
            "regroup.n_groups",
        ),
        ({"extract_1d_box": {"aperture_center": 70}}, "extract_1d_box.aperture_center"),
        ({"extract_1d_box": {"aperture_center": 3}}, "extract_1d_box.aperture_center"),
        (
            {
                "extract_1d_box": {
                    "aperture_center": 3,
                    "aperture_left_width": 3,
                    "aperture_right_width": 3,
                }
            },
            "extract_1d_box.aperture_center: expected the trace on a column with wavelengths",
        ),
        ({"trace": {"row_idx_end_used": 417}}, "trace.row_idx_end_used"),
        ({"clean_outliers": {"spatial_profile_right_idx": 73}}, "spatial_profile_right_idx"),
        (
            {"background_subtract": {"bkg_col_right_start": 80, "bkg_col_right_end": 90}},
            "background_subtract.bkg_col_right_start",
        ),
        (
            {"custom_linearity": {"skip": False, "group_idx_start_fit": 11}},
            "custom_linearity.group_idx_start_fit",
        ),
        (
            {
                "custom_linearity": {
                    **EVERY_STEP["custom_linearity"],
                    "row_idx_start_used": 380,
                    "row_idx_end_used": 300,
                }
            },
            "custom_linearity.row_idx_start_used",
        ),
        ({"ramp_fit": {"firstgroup": 10, "lastgroup": 11}}, "ramp_fit.firstgroup"),
        (
            {"drop_groups": {"drop_groups_first_integration": [-13]}},
            "drop_groups.drop_groups_first_integration",
        ),
        (
            {"drop_groups": {"drop_groups_first_integration": list(range(11))}},
            "drop_groups.drop_groups_first_integration",
        ),
        (
            {
                "rscd": {"skip": False, "group_skip1": 9, "group_skip": 9},
                "lastframe": {"skip": False},
                "drop_groups": {"drop_groups": [10]},
            },
            "rscd.group_skip",
        ),
        (
            {
                "emicorr": {
                    "skip": False,
                    "onthefly_corr_freq": [390.6],
                    "algorithm": "sequential",
                    "fit_ints_separately": True,
                }
            },
            "emicorr.fit_ints_separately",
        ),
        ({"jump": {"threshold": 3}}, "jump.threshold"),
    ],
)
def test_settings_that_do_not_fit_the_ramps_are_refused_at_once(
    rough, references, settings, named, monkeypatch
):
    """Before a pixel is read."""
    monkeypatch.setattr(reduction, "run_plan", lambda *_, **__: pytest.fail("it started"))
    message = refusal(RecipeError, rough, "bright", settings=settings, references=references)
    assert named in message


def test_faint_does_not_fit_few_groups(rough, references):
    assert "drop_groups" in refusal(RecipeError, rough, "faint", references=references)


def test_a_setting_that_a_step_refuses_later_is_an_error_of_the_recipe(
    rough, references, monkeypatch
):
    def refuses(*_):
        raise ValueError("jump.rejection_threshold: expected something else")

    monkeypatch.setattr(reduction, "segment_to_rates", refuses)
    message = refusal(RecipeError, rough, "bright", references=references)
    assert message == "jump.rejection_threshold: expected something else"


def test_other_errors_of_a_step_are_not_hidden(rough, references, monkeypatch):
    def broken(*_):
        raise ValueError("operands could not be broadcast together")

    monkeypatch.setattr(reduction, "segment_to_rates", broken)
    with pytest.raises(ValueError, match="operands"):
        reduce(rough, "bright", backend="numpy", references=references)


@pytest.mark.parametrize("value", [65535, 0])
def test_rows_without_a_usable_pixel_are_refused_by_number(rough, references, tmp_path, value):
    """Saturated from the first group on; a ramp that is all zero is at the floor of the ADC."""

    def spoil(samples):
        samples[:, :, 200:202] = value
        samples[:, :, 250] = value
        samples[:, :, 2] = value  # no part of the spectrum
        samples[0, :, 300] = value  # only in one integration

    path = edited(rough[1], tmp_path / "spoiled_uncal.fits", samples=spoil)
    settings = {"saturation": {"n_pix_grow_sat": 0}}
    message = refusal(
        SegmentError, [rough[0], path], "bright", settings=settings, references=references
    )
    assert str(path) in message and message.endswith("rows 200 to 201, 250")


def test_a_row_without_background_has_the_error_of_its_neighbours(
    saved_rates, references, tmp_path
):
    """Its flux is that of a replaced row, so its error must be known, too."""

    def spoil(hdus):
        for columns in (slice(12, 22), slice(50, 68)):
            hdus["SCI"].data[:, 200, columns] = hdus["ERR"].data[:, 200, columns] = np.nan
            hdus["DQ"].data[:, 200, columns] |= 1

    files = [edited(path, tmp_path / path.name, change=spoil) for path in saved_rates("bright")]
    dataset = reduce(files, "bright", backend="numpy", references=references)
    known = np.isfinite(dataset["flux"].values)
    assert known[:, dataset["row"].values == 200].all()
    assert np.array_equal(known, np.isfinite(dataset["flux_error"].values))


def test_rate_images_of_nan_are_refused(saved_rates, references, tmp_path):
    first, second = saved_rates()

    def spoil(rates):
        rates[:, 250] = np.nan

    spoiled = edited(second, tmp_path / "spoiled_rateints.fits", samples=spoil)
    message = refusal(SegmentError, [first, spoiled], "bright", references=references)
    assert str(spoiled) in message and message.endswith("row 250")


def test_rate_images_without_errors_are_refused(saved_rates, references, tmp_path):
    rates = saved_rates()[0]
    cut = edited(rates, tmp_path / "x.fits", change=lambda hdus: hdus.pop(hdus.index_of("ERR")))
    message = refusal(SegmentError, [cut], "bright", references=references, partial=True)
    assert message == f"{cut}: expected an extension ERR, got none"


@pytest.mark.parametrize("kind", ["dark", "gain", "specwcs"])
def test_a_missing_reference_is_named(rough, references, tmp_path, kind):
    for path in references.glob("*.fits"):
        if kind not in path.name:
            (tmp_path / path.name).symlink_to(path)
    message = refusal(CalibrationError, rough, references=tmp_path)
    assert message == f"references: expected one {kind} file in {tmp_path}, got none"


def test_a_step_that_is_left_out_needs_no_reference(rough, references, tmp_path):
    for path in references.glob("*.fits"):
        if "dark" not in path.name:
            (tmp_path / path.name).symlink_to(path)
    settings = {"dark_current": {"skip": True}}
    reduce(rough, "bright", settings=settings, backend="numpy", references=tmp_path)


def test_crds_out_of_reach(rough, tmp_path, monkeypatch):
    monkeypatch.setenv("CRDS_PATH", str(tmp_path))
    monkeypatch.setenv("CRDS_SERVER_URL", "http://127.0.0.1:9")
    monkeypatch.delenv("CRDS_CONTEXT")
    message = refusal(MiriGpuError, rough)
    assert "CRDS" in message and "--references" in message


def test_steps_without_a_reference_for_this_mode_are_left_out(rough, references, tmp_path, caplog):
    """CRDS says N/A; unless the settings say what the reference would."""
    for path in references.iterdir():
        if path.is_file() and "rscd" not in path.name and "emicorr" not in path.name:
            (tmp_path / path.name).symlink_to(path)
    absent = dict.fromkeys(("rscd", "emicorr"))
    settings = {
        "emicorr": {"skip": False, "onthefly_corr_freq": [390.625]},
        "rscd": {"skip": False, "group_skip1": 3, "group_skip": 1},
    }
    plan = planned(rough, tmp_path, settings)
    assert plan.recipe.runs("emicorr") and plan.recipe.runs("rscd")
    left = plan_module._without_absent_references(
        plan.recipe.updated(
            {"emicorr": {"onthefly_corr_freq": None}, "rscd": {"group_skip": None}}, "x"
        ),
        replace(plan.calibration, **absent),
        True,
    )
    assert not left.runs("emicorr") and not left.runs("rscd")
    assert "emicorr is left out: there is no emicorr reference for this mode" in caplog.text


# --- groups that are dropped


@pytest.mark.parametrize("first_integration", [0, 5])
def test_first_groups_dropped_by_integration(first_integration):
    recipe = named_recipe("bright").updated(
        {
            "drop_groups": {"drop_groups": [-2], "drop_groups_first_integration": [5]},
            "rscd": {"skip": False, "group_skip1": 4, "group_skip": 2},
            "lastframe": {"skip": False},
        },
        "x",
    )
    readout = Readout(first_integration=first_integration)
    first = {0: [0, 1, 2, 3, 5, 10, 11], 5: [0, 1, 10, 11]}[first_integration]
    expected = np.zeros((3, 12), dtype=bool)
    expected[0, first] = expected[1:, [0, 1, 10, 11]] = True
    assert np.array_equal(dropped_groups(recipe, 3, 12, readout=readout), expected)
    expected[0, :4] = (True, first_integration == 0, False, False)
    reference = Calibration(rscd=(2, 1))  # what the settings leave open, the reference says
    recipe = recipe.updated({"rscd": {"group_skip1": None, "group_skip": None}}, "x")
    expected[1:, 1] = False
    assert np.array_equal(dropped_groups(recipe, 3, 12, reference, readout), expected)


def test_a_group_is_dropped_where_every_pixel_of_the_frame_leaves_it(whole, monkeypatch):
    """Bright pixels keep first groups: where one does, the frame has not dropped them."""
    plan = whole("flags of STScI")[0]
    seen = {}
    measured = ramps_to_rates.measure_frames

    def watched(stretch, *how):
        frames = measured(stretch, *how)
        seen[stretch.segment.number] = frames.dropped
        return frames

    monkeypatch.setattr(ramps_to_rates, "measure_frames", watched)
    _, rates = run_with(plan, Workers(1, 1 << 40))
    dq = np.concatenate([r.dq for r in rates])
    assert ((dq & FLUX_ESTIMATED) != 0).any()
    nominal = dropped_groups(plan.recipe, 5, 12, plan.calibration, Readout())
    assert nominal[0].sum() == 6 and (nominal[1:].sum(axis=1) == 5).all()
    assert not (seen[1] & ~nominal).any() and (nominal & ~seen[1]).any()


# --- what only some recipes measure


def test_the_interference_is_measured_and_goes(whole):
    dataset = whole("likelihood")[1]
    assert np.allclose(dataset["frequency"], [390.625, 10.039216])
    before, after = dataset["emi_amplitude_before"], dataset["emi_amplitude_after"]
    assert before.dims == after.dims == ("frequency", "integration_number")
    assert before.shape == (2, 10)
    strong = before.values[0]
    assert np.all((strong > 3.5) & (strong < 6.0))
    assert np.all(after.values[0] < 0.3 * strong)


def test_the_amplitudes_of_cut_integrations_are_those_of_the_whole_ones(whole):
    dataset = whole("cut, without interference")[1]
    before = dataset["emi_amplitude_before"].values
    assert before.shape == (2, 18)
    assert np.array_equal(before[:, ::2], before[:, 1::2])


def test_neighbouring_segments_lend_integrations_without_their_interference(whole, monkeypatch):
    """The wave of a segment is measured on all of it, and once."""
    plan, calls = whole("flags of STScI")[0], []
    measure = whole_frames._measure_emi
    monkeypatch.setattr(
        whole_frames,
        "_measure_emi",
        lambda *args: calls.append(args[0].segment.number) or measure(*args),
    )
    run_with(plan, Workers(1, 1 << 40))
    assert sorted(calls) == [1, 2]


def test_the_likelihood_has_a_chi_square_of_one_per_degree_of_freedom(whole):
    dataset = whole("likelihood")[1]
    chi_square = dataset["chi_square"]
    assert chi_square.dims == ("integration_number", "wavelength")
    faint = dataset["wavelength"].values > 9.0
    assert 0.7 < np.nanmedian(chi_square.values[:, faint]) < 1.4


def test_the_measured_linearity_is_in_the_product(whole):
    dataset = whole("every step")[1]
    assert dataset["linearity_coefficients"].dims == ("power", "amplifier")
    coefficients = dataset["linearity_coefficients"].values
    error = dataset["linearity_coefficients_error"].values
    assert np.array_equal(coefficients[:2], [[0] * 4, [1] * 4])
    assert np.all(error[:2] == 0) and np.all(error[2:] > 0)
    assert dataset["linearity_residual"].shape == (12, 4)
    assert np.array_equal(np.flatnonzero(dataset["linearity_in_fit"]), np.arange(1, 11))
    assert np.all(dataset["linearity_n_ramps"] > 100)
    assert not dataset["linearity_n_rejected"].any()


def test_what_was_not_measured_is_absent(whole):
    names = set(whole("bright")[1].variables)
    assert not [n for n in names if n.startswith(("emi_", "linearity_", "chi", "freq"))]


def test_dropped_groups_follow_the_regrouping():
    recipe = named_recipe("bright").updated(
        {"drop_groups": {"drop_groups": [0, -1]}, "regroup": {"skip": False, "n_groups": 5}}, "x"
    )
    expected = np.zeros((6, 5), dtype=bool)
    expected[::2, 0] = True  # the last group is among those left over
    assert np.array_equal(dropped_groups(recipe, 3, 12), expected)
