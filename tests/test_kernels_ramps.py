"""The kernels of the steps before the ramp fit against the array versions, bit by bit."""

from dataclasses import replace

import jump_fit_cases
import numpy as np
import pytest
import ramp_cases
from kernel_cases import *  # noqa: F403
from ramp_cases import random_ramps

from miri_gpu import kernels
from miri_gpu.containers import Ramps, Readout
from miri_gpu.detector import DO_NOT_USE, JUMP_DET, NO_LIN_CORR, NO_SAT_CHECK, SATURATED
from miri_gpu.ramps import ramp_kernels
from miri_gpu.ramps.dark import subtract_dark
from miri_gpu.ramps.jumps import JumpParams, flag_jumps
from miri_gpu.ramps.linearity import correct_linearity
from miri_gpu.ramps.ramp_fit import RampFitParams, fit_ramps
from miri_gpu.ramps.ramp_fit_kernels import sorting_pairs
from miri_gpu.ramps.reset import subtract_reset
from miri_gpu.ramps.sample_corrections import SampleCorrection, correct_samples
from miri_gpu.ramps.saturation import SaturationParams, flag_saturation

READOUT = Readout()


@pytest.fixture
def both(kernel_xp, monkeypatch):
    """Calls a step on arrays that cannot be written to, by array code and by kernel."""

    def run(step, ramps, *references, **settings):
        for array in (*vars(ramps).values(), *references):
            array.flags.writeable = False
        monkeypatch.setenv("MIRI_GPU_KERNELS", "0")
        expected = step(ramps, *references, **settings)
        monkeypatch.delenv("MIRI_GPU_KERNELS")
        launched = []

        def launch(xp, name, *arguments, **options):
            launched.append(name)
            launch_kernel(kernel_xp, name, *arguments, **options)

        launch_kernel = kernels.launch
        monkeypatch.setattr(kernels, "launch", launch)
        monkeypatch.setattr(kernels, "available", lambda xp: True)
        found = step(ramps, *references, **settings)
        monkeypatch.undo()
        assert launched, "the kernel was not chosen"
        return found, expected

    return run


def assert_equal(pair) -> None:
    found, expected = pair
    for name, array in vars(expected).items():
        if array is None:
            continue
        assert getattr(found, name).dtype == array.dtype
        np.testing.assert_array_equal(getattr(found, name), array, err_msg=name)


def middle_rows(ramps: Ramps) -> Ramps:
    """A cut of the ramps, whose arrays have gaps in them."""
    return Ramps(
        data=ramps.data[:, :, 2:-3], groupdq=ramps.groupdq[:, :, 2:-3], pixeldq=ramps.pixeldq[2:-3]
    )


def every_second_column(ramps: Ramps) -> Ramps:
    return Ramps(
        data=ramps.data[..., ::2], groupdq=ramps.groupdq[..., ::2], pixeldq=ramps.pixeldq[..., ::2]
    )


def cut_all(cut, ramps, *images):
    """Cut ramps, and images of the same pixels."""
    cubes = (Ramps(data=i[None, None], groupdq=i[None, None], pixeldq=i) for i in images)
    return cut(ramps), *(cut(cube).pixeldq for cube in cubes)


CUTS = pytest.mark.parametrize("cut", [lambda ramps: ramps, middle_rows, every_second_column])


# --- calibration of samples


@CUTS
@pytest.mark.parametrize("n_coefficients", [2, 4, 5, 9])
def test_linearity(both, rng, cut, n_coefficients):
    ramps = cut(random_ramps(rng))
    image = ramps.pixeldq.shape
    powers = 1e-5 ** np.maximum(np.arange(n_coefficients) - 1, 0)
    coefficients = rng.normal(1, 0.1, (n_coefficients, *image)) * powers[:, None, None]
    coefficients[0] -= 1
    coefficients[:, 1, 2] = np.nan
    coefficients[1, 2, 3] = 0
    dq = ramp_cases.random_dq(rng, image, NO_LIN_CORR, DO_NOT_USE)
    assert_equal(both(correct_linearity, ramps, coefficients.astype(np.float32), dq))


@CUTS
@pytest.mark.parametrize("first", [0, 1, 5])
@pytest.mark.parametrize("n_ref_groups", [3, 7, 9])
def test_reset(both, rng, cut, first, n_ref_groups):
    ramps = cut(random_ramps(rng))
    reset = rng.normal(0, 9, (2, n_ref_groups, *ramps.pixeldq.shape)).astype(np.float32)
    reset[0, 1, 3, 4] = np.nan
    dq = ramp_cases.random_dq(rng, ramps.pixeldq.shape, DO_NOT_USE)
    readout = replace(READOUT, first_integration=first)
    assert_equal(both(subtract_reset, ramps, reset, dq, readout=readout))


@CUTS
@pytest.mark.parametrize("first", [0, 4])
@pytest.mark.parametrize("n_frames", [1, 2])
def test_dark(both, rng, cut, first, n_frames):
    ramps = cut(random_ramps(rng))
    dark = rng.normal(0, 9, (2, 11, *ramps.pixeldq.shape)).astype(np.float32)
    dark[0, 1, 3, 4] = np.nan
    dq = ramp_cases.random_dq(rng, ramps.pixeldq.shape, DO_NOT_USE)
    readout = replace(READOUT, first_integration=first, n_frames=n_frames)
    assert_equal(both(subtract_dark, ramps, dark, dq, readout=readout))


@CUTS
@pytest.mark.parametrize("n_ref_groups", [3, 9])
def test_all_corrections_at_once(both, rng, cut, n_ref_groups):
    def correct(ramps, reset, coefficients, dark):
        dq = ramps.pixeldq >> 1
        return correct_samples(
            ramps,
            SampleCorrection(pixeldq=dq, reset=reset, coefficients=coefficients, dark=dark),
        )

    ramps = cut(random_ramps(rng))
    n_groups, *image = ramps.data.shape[1:]
    reset = rng.normal(0, 9, (2, n_ref_groups, *image)).astype(np.float32)
    dark = rng.normal(0, 9, (3, n_groups, *image)).astype(np.float32)
    scale = np.array([3, 1, 1e-5, 1e-10])[:, None, None]
    coefficients = (scale * rng.normal(1, 0.1, (4, *image))).astype(np.float32)
    assert_equal(both(correct, ramps, reset, coefficients, dark))


# --- saturation


@CUTS
@pytest.mark.parametrize("reach", [0, 1, 2, 20])
@pytest.mark.parametrize("n_frames", [1, 4])
def test_saturation(both, rng, cut, reach, n_frames):
    ramps = cut(random_ramps(rng))
    image = ramps.pixeldq.shape
    threshold = rng.uniform(30000, 60000, image).astype(np.float32)
    threshold[0, 1] = np.nan
    dq = ramp_cases.random_dq(rng, image, NO_SAT_CHECK, DO_NOT_USE)
    params = SaturationParams(n_pix_grow_sat=reach)
    readout = replace(READOUT, n_frames=n_frames)
    assert_equal(both(flag_saturation, ramps, threshold, dq, params=params, readout=readout))


@pytest.mark.parametrize("value", [np.nan, 0.0, 70000.0])
def test_saturation_where_all_are_bad(both, rng, value):
    ramps = random_ramps(rng)
    ramps = replace(ramps, data=np.full_like(ramps.data, value))
    threshold = np.full(ramps.pixeldq.shape, 60000, dtype=np.float32)
    assert_equal(both(flag_saturation, ramps, threshold, np.zeros_like(ramps.pixeldq)))


# --- jumps


def jump_settings(rng) -> JumpParams:
    """Settings at random, that find few jumps or many."""
    limits = rng.choice([0.5, 3.0, 4.0, 6.0, 15.0], 3)
    return JumpParams(
        rejection_threshold=float(limits[0]),
        three_group_rejection_threshold=float(limits[1]),
        four_group_rejection_threshold=float(limits[2]),
        flag_4_neighbors=bool(rng.random() < 0.5),
        min_jump_to_flag_neighbors=float(rng.choice([3.0, 10.0])),
        min_diffs_single_pass=int(rng.choice([2, 10, 1000])),
        minimum_sigclip_groups=10**6,
    )


@CUTS
@pytest.mark.parametrize("sizes", [(1, 3), (1, 5), (2, 9), (7, 6), (3, 40), (12, 25), (40, 8)])
@pytest.mark.parametrize("trial", range(3))
def test_jumps(both, rng, cut, sizes, trial):
    rng = np.random.default_rng((trial, *sizes))
    n_ints, n_groups = sizes
    made = jump_fit_cases.troubled(
        rng,
        n_ints,
        n_groups,
        n_rows=8,
        n_cols=22,
        n_first=trial % 2 if n_groups > 3 else 0,
        n_last=1 if n_groups > 5 else 0,
    )
    ramps, read_noise, gain = made
    if trial == 2:  # coarse samples, many of whose differences are equal
        coarse = np.round(ramps.data / 64) * 64
        ramps = replace(ramps, data=coarse.astype(np.float32))
    ramps, read_noise, gain = cut_all(cut, ramps, read_noise, gain)
    params = jump_settings(rng)
    dropped = ((ramps.groupdq & DO_NOT_USE) != 0).all(axis=(2, 3))
    pair = both(
        flag_jumps, ramps, read_noise, gain, params=params, readout=READOUT, dropped=dropped
    )
    assert_equal(pair)


@pytest.mark.parametrize("n_ints", [1, 30])
@pytest.mark.parametrize("case", ["nan", "flagged", "equal", "two kinds", "rising"])
def test_jumps_where_all_are_alike(both, rng, n_ints, case):
    ramps, read_noise, gain = jump_fit_cases.faultless(rng, n_ints, 12)
    data, groupdq = ramps.data, ramps.groupdq
    if case == "nan":
        data[...] = np.nan
    elif case == "flagged":
        groupdq[...] = SATURATED
    elif case == "equal":
        data[...] = np.arange(12)[:, None, None] * 100
    elif case == "two kinds":
        data[...] = np.cumsum(rng.choice([0.0, 1e4], data.shape), axis=1)
    else:
        data[...] = np.arange(12)[:, None, None] ** 4 + rng.normal(0, 1, data.shape)
    for fewest in (5, 1000):
        params = JumpParams(min_diffs_single_pass=fewest, minimum_sigclip_groups=10**6)
        assert_equal(both(flag_jumps, ramps, read_noise, gain, params=params, readout=READOUT))


def many_differences(rng, kind, shape):
    """Differences whose middle is hard to find."""
    if kind == "whole numbers":
        return rng.integers(-9, 10, shape)
    if kind == "two values":
        return rng.choice([3.0, 4.0], shape)
    if kind == "half are zero":
        return rng.normal(0, 9, shape) * (rng.random(shape) < 0.5)
    if kind == "all magnitudes":
        return rng.choice([-1, 1], shape) * 10.0 ** rng.uniform(-30, 15, shape)
    if kind == "few usable":
        return np.where(rng.random(shape) < 0.01, rng.normal(5, 3, shape), np.nan)
    crowded = 5 + 1e-6 * rng.normal(0, 1, shape)  # "crowded"
    return np.where(rng.random(shape) < 0.9, crowded, rng.normal(0, 1e4, shape))


@pytest.mark.parametrize(
    "kind",
    ["whole numbers", "two values", "half are zero", "all magnitudes", "few usable", "crowded"],
)
@pytest.mark.parametrize("fewest", [5, 1000])
@pytest.mark.parametrize("n_ints", [30, 300])
def test_jumps_among_many_differences(both, rng, kernel_xp, kind, fewest, n_ints):
    n_ints = n_ints if kernel_xp is np else n_ints // 10
    ramps, read_noise, gain = jump_fit_cases.faultless(rng, n_ints, 60, 3, 9)
    data = np.zeros(ramps.data.shape, dtype=np.float32)
    data[:, 1::3] = many_differences(rng, kind, data[:, 1::3].shape)
    data[:, 2::3] = np.nan  # leaves each difference as it is
    ramps, gain = replace(ramps, data=data), np.ones_like(gain)
    least = 1e-3  # so that all depends on the very middle
    params = JumpParams(
        rejection_threshold=least,
        three_group_rejection_threshold=least,
        four_group_rejection_threshold=least,
        min_diffs_single_pass=fewest,
        minimum_sigclip_groups=10**6,
    )
    found = both(flag_jumps, ramps, read_noise, gain, params=params, readout=READOUT)
    assert_equal(found)
    assert found[0].groupdq.any()


# --- the ramp fit


FIT_SIZES = [(1, 2), (2, 3), (5, 9), (2, 10), (9, 40), (1, 131)]


@CUTS
@pytest.mark.parametrize("sizes", FIT_SIZES)
@pytest.mark.parametrize("suppressed", [True, False])
@pytest.mark.parametrize("trial", range(3))
def test_fit(both, cut, sizes, suppressed, trial):
    rng = np.random.default_rng((trial, *sizes))
    dropped = {"n_first": trial, "n_last": trial} if sizes[1] > 5 else {}
    made = jump_fit_cases.troubled(rng, *sizes, n_rows=8, n_cols=34, **dropped)
    ramps, read_noise, gain = cut_all(cut, *made)
    params = RampFitParams(suppress_one_group=suppressed)
    facts = {"params": params, "readout": READOUT}
    facts["dropped"] = ((ramps.groupdq & DO_NOT_USE) != 0).all(axis=(2, 3))
    facts["dark_current"] = rng.uniform(0, 1, gain.shape).astype(np.float32)
    assert_equal(both(fit_ramps, ramps, read_noise, gain, **facts))


@pytest.mark.parametrize("limits", [{"firstgroup": 2}, {"lastgroup": 6}, {"lastgroup": 1}])
def test_fit_of_some_groups(both, rng, limits):
    made = jump_fit_cases.troubled(rng, 3, 9, n_cols=19)
    assert_equal(both(fit_ramps, *made, params=RampFitParams(**limits), readout=READOUT))


@pytest.mark.parametrize("case", ["nan", "flagged", "jumps", "equal", "whole numbers", "faultless"])
@pytest.mark.parametrize("n_groups", [2, 5, 12])
def test_fit_where_all_are_alike(both, rng, case, n_groups):
    ramps, read_noise, gain = jump_fit_cases.faultless(rng, 4, n_groups, n_cols=5)
    data, groupdq = ramps.data, ramps.groupdq
    if case == "nan":
        data[...] = np.nan
    elif case == "flagged":
        groupdq[...] = SATURATED
    elif case == "jumps":
        groupdq[:, 1:] = JUMP_DET
    elif case == "equal":
        data[...] = 7.0
    elif case == "whole numbers":
        np.rint(data, out=data)
    facts = {"readout": READOUT, "dropped": np.zeros((4, n_groups), dtype=bool)}
    for suppressed in (True, False):
        params = RampFitParams(suppress_one_group=suppressed)
        assert_equal(both(fit_ramps, ramps, read_noise, gain, params=params, **facts))


@pytest.mark.parametrize("n", [1, 2, 3, 4, 7, 8, 13, 27, 64, 100])
def test_pairs_sort_both_halves(rng, n):
    values = rng.integers(0, 9, (2 * n, 50)) + np.array([[0]] * n + [[100]] * n)
    expected = np.sort(values.reshape(2, n, 50), axis=1).reshape(2 * n, 50)
    for i, j in sorting_pairs(n):
        values[[i, j]] = np.sort(values[[i, j]], axis=0)
    np.testing.assert_array_equal(values, expected)


# --- when kernels run


def test_other_types_are_left_to_array_code(rng):
    ramps = random_ramps(rng)
    doubles = replace(ramps, data=ramps.data.astype(np.float64))
    assert not ramp_kernels.run_on(doubles, xp=np)
    assert not ramp_kernels.run_on(ramps, ramps.data[0].astype(np.float64), xp=np)
    none = replace(ramps, data=ramps.data[:0], groupdq=ramps.groupdq[:0])
    assert not ramp_kernels.run_on(none, xp=np)
    assert not ramp_kernels.run_on(ramps, ramps.data[0, :, :1], xp=np)
    few = Ramps(
        data=ramps.data[:, :, :1, :9],
        groupdq=ramps.groupdq[:, :, :1, :9],
        pixeldq=ramps.pixeldq[:1, :9],
    )
    assert not ramp_kernels.run_on(few, xp=np)
