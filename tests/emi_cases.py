"""Ramps with a known interference, and the same ramps as STScI's emicorr step takes them."""

import warnings
from functools import cache

import numpy as np

from miri_gpu.containers import Ramps
from miri_gpu.detector import N_COLS, N_ROWS
from miri_gpu.ramps.emi import EmiReference, EmiWave
from miri_gpu.simulate.detector_effects import integration_samples
from miri_gpu.simulate.scene import build_scene, electron_rates
from miri_gpu.simulate.settings import SimulationSettings
from miri_gpu.simulate.true_detector import build_detector, emi, emi_waves


@cache
def simulated(n_ints: int, n_groups: int, **settings):
    """A segment with all that a detector does: Ramps, reference, settings."""
    settings = SimulationSettings(n_ints=n_ints, n_groups=n_groups, n_segments=1, **settings)
    scene, detector = build_scene(settings), build_detector(settings)
    samples = [
        integration_samples(i, electron_rates(scene, i, i + 1)[0], detector, settings)[0]
        for i in range(n_ints)
    ]
    data = np.stack(samples).astype(np.float32)
    ramps = ramps_of(data, detector.mask.astype(np.uint32))
    return ramps, reference_of(settings), settings


def ramps_of(data, pixeldq=None) -> Ramps:
    pixeldq = np.zeros(data.shape[2:], dtype=np.uint32) if pixeldq is None else pixeldq
    return Ramps(data=data, groupdq=np.zeros(data.shape, dtype=np.uint8), pixeldq=pixeldq)


def reference_of(settings) -> EmiReference:
    return EmiReference(
        waves=tuple(
            EmiWave(name=f"Hz{int(hz)}", frequency_hz=hz, shape_dn=tuple(shape.tolist()))
            for hz, shape in emi_waves(settings).items()
        )
    )


def true_interference(settings) -> np.ndarray:
    """What was added to the samples (n_ints, n_groups, n_rows, n_cols) [DN]."""
    frames = np.arange(settings.n_ints)[:, None] * (settings.n_groups + 1)
    frames = (frames + np.arange(settings.n_groups)).ravel()
    return emi(frames, settings).reshape(settings.n_ints, settings.n_groups, N_ROWS, N_COLS)


def varying_rms(samples) -> np.ndarray:
    """How much the ramps of an integration vary, (n_ints,): a level of each pixel is harmless."""
    return (samples - samples.mean(axis=1, keepdims=True)).std(axis=(1, 2, 3))


def jwst_emicorr(ramps: Ramps, reference: EmiReference, **keywords):
    """The data that STScI's emicorr gives."""
    from jwst.emicorr import emicorr
    from stdatamodels.jwst import datamodels

    model = datamodels.RampModel(
        data=ramps.data.copy(), groupdq=ramps.groupdq.copy(), pixeldq=ramps.pixeldq.copy()
    )
    model.meta.instrument.name, model.meta.instrument.detector = "MIRI", "MIRIMAGE"
    model.meta.exposure.readpatt, model.meta.exposure.nsamples = "FASTR1", 1
    subarray = model.meta.subarray
    subarray.name, subarray.xstart, subarray.xsize = "SLITLESSPRISM", 1, ramps.data.shape[-1]
    waves = datamodels.EmiModel()
    waves.frequencies = {
        wave.name: {"frequency": wave.frequency_hz, "phase_amplitudes": list(wave.shape_dn)}
        for wave in reference.waves
    }
    case = {
        "rowclocks": 28,
        "frameclocks": 15904,
        "freqs": {"FAST": [wave.name for wave in reference.waves]},
    }
    waves.subarray_cases = {"SLITLESSPRISM": case}
    keywords = {k: list(v) if isinstance(v, tuple) else v for k, v in keywords.items()}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return emicorr.apply_emicorr(model, waves, **keywords).data
