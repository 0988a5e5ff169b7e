"""The containers: arrays of one backend that move together and cannot be exchanged singly."""

from dataclasses import FrozenInstanceError, replace

import numpy as np
import pytest

from miri_gpu.backend import namespace, to_host
from miri_gpu.containers import Ramps, Rates, Readout, Spectra
from miri_gpu.detector import FRAME_TIME_S
from miri_gpu.ramps.dq import initialize_dq
from miri_gpu.ramps.jumps import JumpParams, flag_jumps
from miri_gpu.ramps.likelihood import LikelihoodParams, fit_ramps_likelihood
from miri_gpu.ramps.linearity import correct_linearity
from miri_gpu.ramps.ramp_fit import RampFitParams, fit_ramps
from miri_gpu.ramps.saturation import flag_saturation
from miri_gpu.ramps.time_jumps import TimeJumpParams, flag_time_jumps
from miri_gpu.rates.flat import apply_flat


def small_rates(**changed):
    values = np.arange(24, dtype=np.float32).reshape(2, 3, 4)
    dq = np.zeros(values.shape, np.uint32)
    arrays = {"data": values, "err": values, "var_poisson": values, "var_rnoise": values, "dq": dq}
    return Rates(**(arrays | changed))


def test_map_reaches_every_array_and_passes_over_the_absent():
    rates = small_rates().map(lambda array: array[:, 1:])
    assert rates.data.shape == rates.dq.shape == (2, 2, 4)
    assert rates.var_flat is None
    assert isinstance(rates, Rates)
    assert small_rates(var_flat=np.ones((2, 3, 4))).map(np.negative).var_flat[0, 0, 0] == -1.0


def test_map_makes_a_new_container():
    rates = small_rates()
    doubled = rates.map(lambda array: array * 2)
    assert doubled is not rates
    np.testing.assert_array_equal(doubled.data, 2 * rates.data)


def test_containers_are_joined_along_their_first_axis(on_backend):
    whole, parts = small_rates(), [small_rates().map(lambda a, i=i: a[i : i + 1]) for i in (0, 1)]
    joined = Rates.concatenated([on_backend(part) for part in parts])
    np.testing.assert_array_equal(to_host(joined.data), whole.data)
    assert joined.dq.dtype == np.uint32 and joined.var_flat is None


def test_containers_travel_to_the_backend_and_back(on_backend, xp):
    rates = on_backend(small_rates())
    assert namespace(rates.data, rates.err, rates.dq, rates.var_flat) is xp
    np.testing.assert_array_equal(rates.map(to_host).data, small_rates().data)


def test_containers_cannot_be_changed():
    spectra = Spectra(flux=np.ones((2, 3)), flux_err=np.ones((2, 3)))
    with pytest.raises(FrozenInstanceError):
        spectra.flux = np.zeros((2, 3))
    with pytest.raises(TypeError):
        Spectra(np.ones((2, 3)), np.ones((2, 3)))
    assert replace(spectra, flux=np.zeros((2, 3))).flux_err is spectra.flux_err


def test_containers_compare_by_identity():
    """Comparing arrays would give arrays; two containers are equal where they are the same one."""
    cube = np.ones((1, 2, 3, 4))
    ramps = Ramps(data=cube, groupdq=cube, pixeldq=cube[0, 0])
    assert ramps == ramps
    assert ramps != replace(ramps)


CUBE, IMAGE = np.ones((2, 5, 3, 4), np.float32), np.ones((3, 4), np.float32)
FLAGS, READOUT = np.zeros((3, 4), np.uint32), Readout()
SMALL_RAMPS = Ramps(data=CUBE, groupdq=np.zeros(CUBE.shape, np.uint8), pixeldq=FLAGS)


@pytest.mark.parametrize(
    "name, make",
    [
        ("data", lambda: Ramps(data=CUBE[0], groupdq=CUBE[0], pixeldq=IMAGE)),
        ("groupdq", lambda: Ramps(data=CUBE, groupdq=CUBE[:1], pixeldq=IMAGE)),
        ("groupdq", lambda: Ramps(data=CUBE, groupdq=CUBE[:, 1:], pixeldq=IMAGE)),
        ("pixeldq", lambda: Ramps(data=CUBE, groupdq=CUBE, pixeldq=IMAGE[:1])),
        ("err", lambda: small_rates(data=IMAGE)),
        ("err", lambda: small_rates(err=IMAGE)),
        ("dq", lambda: small_rates(dq=np.zeros((1, 3, 4), np.uint32))),
        ("mask", lambda: initialize_dq(SMALL_RAMPS, IMAGE[0])),
        ("threshold", lambda: flag_saturation(SMALL_RAMPS, IMAGE[:2], IMAGE)),
        ("pixeldq", lambda: correct_linearity(SMALL_RAMPS, CUBE[0, :, 1:], FLAGS[1:])),
        ("read_noise", lambda: flag_jumps(
            SMALL_RAMPS, IMAGE[:2], IMAGE, params=JumpParams(), readout=READOUT)),
        ("gain", lambda: flag_time_jumps(
            SMALL_RAMPS, IMAGE, IMAGE[:2], params=TimeJumpParams(), readout=READOUT)),
        ("gain", lambda: fit_ramps(
            SMALL_RAMPS, IMAGE, np.float32(5), params=RampFitParams(), readout=READOUT)),
        ("dark_current", lambda: fit_ramps_likelihood(
            SMALL_RAMPS, IMAGE, IMAGE, params=LikelihoodParams(), readout=READOUT,
            dark_current=IMAGE[:, 1:])),
        ("flat_err", lambda: apply_flat(small_rates(), IMAGE, IMAGE[1:], IMAGE)),
    ],
)  # fmt: skip
def test_arrays_that_do_not_belong_together_are_refused(name, make):
    with pytest.raises(ValueError, match=rf"{name}: expected .*got"):
        make()


def test_readout_is_fast_mode_unless_told():
    assert Readout() == Readout(group_time_s=FRAME_TIME_S, n_frames=1, group_gap=0)


@pytest.mark.parametrize(
    "readout, n_ints, planes",
    [
        (Readout(), 5, [0, 1, 2]),
        (Readout(), 1, [0, 2]),
        (Readout(first_integration=1), 4, [1, 2]),
        (Readout(first_integration=7), 4, [2]),
        (Readout(first_integration=1, segment_start=0), 4, [1, 2]),
        (Readout(numbers=(0, 2, 3)), 3, [0, 2]),  # one was dropped: 2 does not take 1's place
    ],
)
def test_integrations_take_the_reference_of_their_own_number(readout, n_ints, planes):
    """Whatever the block: the first at hand take these planes, all others the last."""
    assert readout.planes(n_ints, 3) == planes


def test_a_block_of_the_first_segment_knows_it():
    assert Readout().in_first_segment
    assert Readout(first_integration=3, segment_start=0).in_first_segment
    assert not Readout(first_integration=3).in_first_segment
