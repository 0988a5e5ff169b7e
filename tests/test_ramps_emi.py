"""Interference: as the STScI step removes it, and what is left of a known one."""

from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
import standin
from emi_cases import jwst_emicorr, ramps_of, simulated, true_interference, varying_rms

from miri_gpu.backend import to_host
from miri_gpu.containers import Readout
from miri_gpu.detector import CLOCKS_PER_FRAME, CLOCKS_PER_ROW, N_COLS, N_ROWS
from miri_gpu.ramps.emi import (
    EmiParams,
    EmiReference,
    EmiWave,
    check_emi,
    measure_emi,
    measure_emi_in_blocks,
    subtract_emi,
)
from miri_gpu.ramps.emi_phase_sums import phase_sums, without_lines
from miri_gpu.ramps.emi_sequential import _clipped_means_by_phase
from miri_gpu.ramps.emi_waves import Clock

ALGORITHMS = (
    {"algorithm": "joint"},
    {"algorithm": "joint", "fit_ints_separately": True},
    {"algorithm": "self_calibrated"},
    {"algorithm": "self_calibrated", "fit_ints_separately": True},
    {"algorithm": "sequential"},
)


def corrected(ramps, reference, **keywords):
    model = measure_emi(ramps, reference, params=EmiParams(**keywords))
    return subtract_emi(ramps, model)


@pytest.mark.parametrize(
    "keywords",
    [
        {"algorithm": "joint"},
        {"algorithm": "joint", "fit_ints_separately": True},
        {"algorithm": "sequential"},
        {"algorithm": "sequential", "scale_reference": False, "nints_to_phase": 2, "nbins": 50},
        {"algorithm": "sequential", "use_n_cycles": None, "onthefly_corr_freq": (218.52055,)},
        {"onthefly_corr_freq": (390.625, 10.039216)},
    ],
    ids=lambda keywords: "-".join(f"{key}={value}" for key, value in keywords.items()),
)
@pytest.mark.parametrize("n_groups", [4, 9])
def test_as_the_stsci_step(n_groups, keywords):
    ramps, reference, _ = simulated(2, n_groups)
    theirs = jwst_emicorr(ramps, reference, **keywords)
    ours = corrected(ramps, reference, **keywords)
    # the same arithmetic in another order: at most the last digit of a float32 may differ
    np.testing.assert_allclose(ours.data, theirs, rtol=1.2e-7)
    assert np.mean(ours.data != theirs) < 1e-4
    assert ours.data.dtype == np.float32


@pytest.mark.parametrize("keywords", ALGORITHMS, ids=str)
def test_every_backend_gives_the_same(on_backend, keywords):
    ramps, reference, _ = simulated(2, 9)
    on_host = corrected(ramps, reference, **keywords)
    with standin.syncs() as count:
        on_device = corrected(on_backend(ramps), reference, **keywords)
        n_syncs = count()
    np.testing.assert_allclose(to_host(on_device.data), on_host.data, rtol=1.2e-7)
    assert n_syncs <= 10 * len(reference.waves)  # none for each integration, group or pixel


@pytest.mark.parametrize("n_groups", [3, 5, 8, 9])
@pytest.mark.parametrize("separately", [False, True])
def test_what_is_left_of_a_known_wave(n_groups, separately):
    if separately and n_groups == 3:
        pytest.skip("refused")
    ramps, reference, settings = simulated(4, n_groups)
    truth = true_interference(settings)
    keywords = {"algorithm": "self_calibrated", "fit_ints_separately": separately}
    model = measure_emi(ramps, reference, params=EmiParams(**keywords))
    removed = -subtract_emi(replace(ramps, data=np.zeros_like(ramps.data)), model).data
    limit = {3: 0.25, 5: 0.15}.get(n_groups, 0.1)
    assert varying_rms(truth).min() > 2.0
    assert varying_rms(truth - removed).max() < limit
    strong, weak = model.amplitude_before
    sine = reference.waves[0].shape_dn
    np.testing.assert_allclose(
        strong, np.sqrt(2) * np.std(sine), rtol=0.15 if n_groups == 3 else 0.04
    )
    assert model.amplitude_after[0].max() < (0.8 if n_groups == 3 else 0.2)
    if n_groups >= 8:
        np.testing.assert_allclose(
            weak, np.sqrt(2) * np.std(reference.waves[1].shape_dn), atol=0.12
        )
    assert model.frequencies_hz == tuple(wave.frequency_hz for wave in reference.waves)


def test_the_reference_wave_need_not_be_known():
    ramps, _, settings = simulated(4, 8)
    params = EmiParams(algorithm="self_calibrated", onthefly_corr_freq=(390.625, 10.039216))
    model = measure_emi(ramps, params=params)
    removed = -subtract_emi(replace(ramps, data=np.zeros_like(ramps.data)), model).data
    assert varying_rms(true_interference(settings) - removed).max() < 0.1


@pytest.mark.parametrize("algorithm", ["joint", "self_calibrated"])
@pytest.mark.parametrize("n_groups", [8])
def test_phases_of_their_own(rng, n_groups, algorithm):
    """Where the wave does not run on from integration to integration each is fitted by itself."""
    ramps, reference, settings = simulated(4, n_groups, emi=False)
    reference = EmiReference(waves=reference.waves[:1])
    shape = np.asarray(reference.waves[0].shape_dn)
    frame = np.arange(N_ROWS)[:, None] * CLOCKS_PER_ROW + np.arange(N_COLS) // 4
    clock = frame + CLOCKS_PER_FRAME * np.arange(n_groups)[:, None, None]
    shift = rng.integers(0, 256, (settings.n_ints, 1, 1, 1))
    wave = shape[(clock + shift) % 256].astype(np.float32)
    ramps = replace(ramps, data=ramps.data + wave)
    params = EmiParams(algorithm=algorithm, fit_ints_separately=True)
    model = measure_emi(ramps, reference, params=params)
    removed = -subtract_emi(replace(ramps, data=np.zeros_like(ramps.data)), model).data
    assert varying_rms(wave - removed).max() < (0.1 if algorithm == "self_calibrated" else 0.4)
    shared = corrected(ramps, reference, algorithm=algorithm)
    assert varying_rms(wave - (ramps.data - shared.data)).max() > 2.0


def in_blocks(ramps, reference, params, edges):
    """Measured on blocks of integrations, subtracted from blocks of rows and columns."""

    def walk(function, n_ints=None):
        last = ramps.data.shape[0] if n_ints is None else n_ints
        cuts = [edge for edge in edges if edge < last] + [last]
        return [
            function(ramps_of(ramps.data[a:b], ramps.pixeldq), slice(a, b))
            for a, b in pairwise(cuts)
        ]

    n_ints = ramps.data.shape[0]
    model = measure_emi_in_blocks(
        walk, reference, params=params, integration=np.arange(n_ints), shape=ramps.data.shape
    )
    whole = np.empty_like(ramps.data)
    for rows in (slice(0, 7), slice(7, 200), slice(200, N_ROWS)):
        for columns in (slice(0, 4), slice(4, 40), slice(40, N_COLS)):
            part = ramps_of(ramps.data[:, :, rows, columns], ramps.pixeldq[rows, columns])
            start = {"row_start": rows.start, "col_start": columns.start}
            whole[:, :, rows, columns] = subtract_emi(part, model, **start).data
    return whole


@pytest.mark.parametrize("keywords", ALGORITHMS, ids=str)
def test_blocks_do_not_matter(keywords):
    ramps, reference, _ = simulated(4, 9)
    params = EmiParams(**keywords)
    whole = subtract_emi(ramps, measure_emi(ramps, reference, params=params)).data
    for edges in ((0, 1, 2, 3), (0, 3)):
        np.testing.assert_array_equal(in_blocks(ramps, reference, params, edges), whole)


def test_missing_integrations_do_not_break_the_phase():
    ramps, reference, settings = simulated(4, 9)
    kept = np.array([0, 3])
    part = ramps_of(ramps.data[kept], ramps.pixeldq)
    params = EmiParams(algorithm="self_calibrated")
    model = measure_emi(part, reference, params=params, integration=kept)
    removed = -subtract_emi(replace(part, data=np.zeros_like(part.data)), model).data
    assert varying_rms(true_interference(settings)[kept] - removed).max() < 0.1


@pytest.mark.parametrize("keywords", ALGORITHMS, ids=str)
def test_bad_pixels_and_integrations_spoil_nothing(on_backend, rng, keywords):
    ramps, reference, settings = simulated(4, 9)
    data = ramps.data.copy()
    data[:, :, 30:33, 20:40] = np.nan
    data[1, 4, 100] = np.nan
    data[3] = np.nan
    ruined = on_backend(replace(ramps, data=data))
    model = measure_emi(ruined, reference, params=EmiParams(**keywords))
    zero = replace(ramps, data=np.zeros_like(data))
    removed = -to_host(subtract_emi(on_backend(zero), model).data)
    assert np.isfinite(removed).all()
    limit = {"joint": 0.6, "self_calibrated": 0.1, "sequential": 2.0}[keywords["algorithm"]]
    assert varying_rms(true_interference(settings) - removed)[:3].max() < limit
    assert np.isnan(to_host(model.amplitude_before)[:, 3]).all()


@pytest.mark.parametrize("keywords", ALGORITHMS, ids=str)
@pytest.mark.parametrize("value", [np.nan, 1000.0])
def test_nothing_to_measure_changes_nothing(on_backend, keywords, value):
    ramps, reference, _ = simulated(2, 9)
    empty = ramps_of(np.full_like(ramps.data, value))
    result = corrected(on_backend(empty), reference, **keywords)
    np.testing.assert_array_equal(to_host(result.data), empty.data)


def test_the_best_phase_beside_zero():
    """Where STScI's parabola, which does not close the circle, goes astray."""
    ramps, reference, _ = simulated(2, 9, emi=False)
    reference = EmiReference(waves=reference.waves[:1])
    shape = np.asarray(reference.waves[0].shape_dn)
    frame = np.arange(N_ROWS)[:, None] * CLOCKS_PER_ROW + np.arange(N_COLS) // 4
    integration = np.arange(2)[:, None, None, None] * 10
    clock = frame + CLOCKS_PER_FRAME * (integration + np.arange(9)[:, None, None])
    left = []
    for shift in (-0.25, 0.25):  # clocks: STScI's phase is that of the middle of a bin
        wave = np.interp((clock + shift) % 256, np.arange(257), [*shape, shape[0]])
        data = (ramps.data + wave).astype(np.float32)
        fixed = corrected(replace(ramps, data=data), reference)
        left.append(varying_rms(data - fixed.data - wave).max())
    assert max(left) < 0.3


def test_phase_sums_as_the_slow_twin(rng):
    data = rng.normal(9000, 20, (2, 5, 24, 16)).astype(np.float32)
    data[0, 2, 3, 5] = np.nan
    ramps = ramps_of(data, rng.choice([0, 0, 0, 4], (24, 16)).astype(np.uint32))
    clock = Clock.of(EmiReference(), 5, 24)

    def walk(function):
        return [function(ramps, slice(0, 2))]

    sums = phase_sums(walk, 256.0, 40, clock, midpoints=True, xp=np)
    scatter = data.std(axis=1)
    limit = 2 * np.nanmedian(scatter)
    added, counted = np.zeros((2, 5, 40)), np.zeros((2, 40))
    for i, row, col in np.ndindex(2, 24, 16):
        if scatter[i, row, col] < limit and ramps.pixeldq[row, col] == 0 and not 4 <= col < 12:
            place = int((row * 28 + col // 4) / 256 % 1 * 40)
            added[i, :, place] += data[i, :, row, col]
            counted[i, place] += 1
    seen = np.unique((np.arange(24)[:, None] * 28 + np.arange(4)) % 256 * 40 // 256)
    np.testing.assert_array_equal(sums.n_pixels, counted[:, seen])
    np.testing.assert_allclose(sums.data, added[..., seen], rtol=1e-12)
    np.testing.assert_allclose(sums.phase, (seen + 0.5) / 40)
    residual, _ = without_lines(sums)
    line = np.polynomial.polynomial.polyfit(np.arange(5), added[1][:, seen], 1)
    expected = added[1][:, seen] - (line[0] + np.arange(5)[:, None] * line[1])
    np.testing.assert_allclose(residual[1], expected, atol=1e-6)


def test_clipped_means_as_the_slow_twin(rng):
    from astropy.stats import sigma_clipped_stats

    noise = rng.standard_t(2, 3000)
    phases = rng.uniform(size=3000) * 0.95
    phases[:3], noise[5] = 0.0, np.nan
    ours = _clipped_means_by_phase(noise, phases, 20, xp=np)
    for place in range(19):
        inside = (phases > place / 20) & (phases <= (place + 1) / 20) & np.isfinite(noise)
        np.testing.assert_allclose(ours[place], sigma_clipped_stats(noise[inside])[0], rtol=1e-12)
    assert np.isnan(ours[19])


def test_settings_that_cannot_work():
    readout = Readout()
    check_emi(EmiParams(), 3, readout)
    check_emi(EmiParams(fit_ints_separately=True), 8, readout)
    faults = (
        (EmiParams(), 2, readout, r"emicorr: expected at least 3 groups, got 2"),
        (EmiParams(algorithm="sequential"), 8, readout, r"emicorr\.algorithm: .* with 8 groups"),
        (EmiParams(onthefly_corr_freq=(390.6,)), 9, readout, r"got sequential, which needs 10"),
        (EmiParams(fit_ints_separately=True), 3, readout, r"fit_ints_separately: .* got true with"),
        (
            EmiParams(algorithm="sequential", fit_ints_separately=True),
            20,
            readout,
            r"fit_ints_separately: expected false with the sequential",
        ),
        (EmiParams(), 9, Readout(n_frames=4), r"groups of single frames, .* got 4 frames"),
    )
    for params, n_groups, how, message in faults:
        with pytest.raises(ValueError, match=message):
            check_emi(params, n_groups, how)
    with pytest.raises(ValueError, match=r"emicorr\.onthefly_corr_freq: expected frequencies"):
        check_emi(EmiParams(), 9, readout, has_reference=False)
    with pytest.raises(ValueError, match=r"emicorr\.onthefly_corr_freq: expected frequencies"):
        measure_emi(simulated(2, 9)[0], EmiReference())


@pytest.mark.parametrize("frequencies", [[], [0.0], [0.09], [390.6, 50001.0], [float("inf")]])
def test_frequencies_that_cannot_be_looked_for(frequencies):
    with pytest.raises(ValueError, match=r"emicorr\.onthefly_corr_freq: expected"):
        EmiParams(onthefly_corr_freq=frequencies)


@pytest.mark.parametrize("algorithm", ["sequential", "self_calibrated"])
@pytest.mark.parametrize("frequency", [0.1, 50000.0])
def test_the_slowest_and_the_fastest_wave_that_may_be_looked_for(algorithm, frequency):
    params = EmiParams(algorithm=algorithm, onthefly_corr_freq=(frequency,))
    ramps = simulated(2, 12)[0]
    cleaned = subtract_emi(ramps, measure_emi(ramps, params=params))
    assert np.isfinite(cleaned.data[np.isfinite(ramps.data)]).all()


def test_the_period_of_a_wave():
    assert EmiWave(name="strong", frequency_hz=390.625).period == pytest.approx(256)
