"""Alignment: injected shifts are found and undone."""

import numpy as np
import pytest

from miri_gpu.backend import to_host
from miri_gpu.containers import Spectra
from miri_gpu.rates.trace import TraceParams
from miri_gpu.spectra.align import (
    AlignSpectraParams,
    align_spectra,
    cross_dispersion_profiles,
    measure_shifts,
)

TRUTH = np.array([0.0, 0.03, -0.02, 0.15, -0.3, 0.0, 0.01])


def spectra_at(shifts):
    row = np.arange(416) - np.asarray(shifts)[:, None]
    return 3000 * np.exp(-(((row - 385) / 80) ** 2)) / (1 + np.exp((row - 392) / 1.5))


def test_shifts_of_spectra_are_found(on_backend):
    shifts = to_host(measure_shifts(on_backend(spectra_at(TRUTH).astype(np.float32))))
    np.testing.assert_allclose(shifts - shifts[0], TRUTH, atol=5e-4)


def test_shifts_of_frames_are_found(on_backend):
    column = np.arange(72) - TRUTH[:, None, None]
    light = 1000 * np.exp(-0.5 * ((column - 37.2) / 1.4) ** 2)
    data = np.broadcast_to(light, (7, 416, 72)).astype(np.float32)
    profiles = cross_dispersion_profiles(on_backend(data))
    np.testing.assert_allclose(
        to_host(profiles),
        data[:, 200:390, 12:68].astype(float).sum(axis=1),
        rtol=1e-12,
        atol=1e-30,  # a GPU takes the smallest float32 numbers for 0
    )
    shifts = to_host(measure_shifts(profiles))
    np.testing.assert_allclose(shifts - shifts[0], TRUTH, atol=5e-4)


def test_one_template_serves_all_blocks(rng):
    curves = spectra_at(TRUTH) + rng.normal(0, 1, (7, 416))
    template = np.median(curves, axis=0)
    np.testing.assert_allclose(measure_shifts(curves, template), measure_shifts(curves), atol=1e-9)
    np.testing.assert_allclose(
        measure_shifts(curves[3:5], template), measure_shifts(curves)[3:5], atol=1e-9
    )


def test_unknown_spectra_have_no_shift(on_backend):
    curves = spectra_at(TRUTH)
    curves[2] = np.nan
    curves[:, :6] = np.nan
    shifts = to_host(measure_shifts(on_backend(curves)))
    assert np.isnan(shifts[2])
    assert np.isfinite(np.delete(shifts, 2)).all()


def test_aligned_is_interpolated_flux_and_variance(on_backend, rng):
    flux = spectra_at(TRUTH).astype(np.float32)
    flux_err = rng.uniform(1, 2, flux.shape).astype(np.float32)
    shifts = TRUTH.copy()
    shifts[6] = np.nan
    spectra = Spectra(flux=flux, flux_err=flux_err, background_err=flux_err / 2)
    moved = align_spectra(on_backend(spectra), on_backend(shifts))
    row = np.arange(416)
    for i in range(6):
        at = row + shifts[i]
        twin = np.interp(at, row, flux[i], left=np.nan, right=np.nan)
        variance = np.interp(at, row, flux_err[i].astype(float) ** 2, left=np.nan, right=np.nan)
        np.testing.assert_allclose(to_host(moved.flux)[i], twin, rtol=1e-6)
        np.testing.assert_allclose(to_host(moved.flux_err)[i], np.sqrt(variance), rtol=1e-6)
    np.testing.assert_allclose(
        to_host(moved.background_err), to_host(moved.flux_err) / 2, rtol=1e-6
    )
    assert np.isnan(to_host(moved.flux)[6]).all()
    assert to_host(moved.flux).dtype == to_host(moved.flux_err).dtype == np.float32


def test_alignment_undoes_a_shift(on_backend):
    still = spectra_at(np.zeros(7))
    moved = spectra_at(TRUTH)
    aligned = align_spectra(
        on_backend(Spectra(flux=moved, flux_err=np.ones_like(moved))), on_backend(TRUTH)
    )
    inner = slice(1, -1)
    left = np.abs(to_host(aligned.flux) - still)[:, inner].max()
    assert left < 0.2 * np.abs(moved - still)[:, inner].max()


def test_only_measured_where_not_asked_to_move(rng):
    flux = rng.normal(size=(7, 416)).astype(np.float32)
    spectra = Spectra(flux=flux, flux_err=np.abs(flux))
    still = align_spectra(spectra, TRUTH, params=AlignSpectraParams(align_spectra=False))
    assert still.flux is flux


def test_frames_too_small_are_named():
    with pytest.raises(ValueError, match="col_idx_end_used: expected at most 60"):
        cross_dispersion_profiles(np.ones((1, 416, 60)), params=TraceParams())
