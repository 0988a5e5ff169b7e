"""Samples as they lie on disk: read by rows, and decoded."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from astropy.io import fits
from shell_cases import edited

from miri_gpu import kernels
from miri_gpu.backend import to_host
from miri_gpu.errors import SegmentError
from miri_gpu.raw_samples import decode_samples, encoded_samples
from miri_gpu.segments import open_segment


def test_samples_are_decoded_on_every_backend(on_backend):
    samples = np.array([0, 1, 255, 256, 32767, 32768, 40000, 65535], dtype=np.uint16)
    on_disk = (samples ^ 0x8000).view(np.int16).astype(">i2").reshape(1, 2, 2, 2)
    on_disk.flags.writeable = False
    decoded = decode_samples(on_backend(encoded_samples(on_disk)), xp=on_backend.xp)
    assert decoded.dtype == np.float32
    assert np.array_equal(to_host(decoded).ravel(), samples.astype(np.float32))


@pytest.mark.parametrize("with_kernels", ["1", "0"])
def test_every_sample_is_decoded(monkeypatch, with_kernels):
    monkeypatch.setenv(kernels.ENVIRONMENT_VARIABLE, with_kernels)
    samples = np.arange(1 << 16, dtype=np.uint16).reshape(4, 8, 32, 64)
    on_disk = (samples ^ 0x8000).view(np.int16).astype(">i2")
    np.testing.assert_array_equal(decoded(on_disk), samples.astype(np.float32))
    cut = on_disk[1:3, ::2, 4:20]  # with gaps, as the rows of a file have
    np.testing.assert_array_equal(decoded(cut), samples[1:3, ::2, 4:20].astype(np.float32))


def test_float_samples_keep_their_values(on_backend):
    on_disk = np.array([[[[0.5, -3.25, np.nan, 1e5]]]], dtype=">f4")
    decoded = decode_samples(on_backend(encoded_samples(on_disk)), xp=on_backend.xp)
    assert decoded.dtype == np.dtype("=f4")
    np.testing.assert_array_equal(to_host(decoded), on_disk)


def decoded(raw):
    return decode_samples(encoded_samples(raw), xp=np)


@pytest.mark.parametrize("integrations", [[0, 1, 2, 3, 4, 5], [1, 4], [3]])
@pytest.mark.parametrize("rows", [slice(0, 416), slice(7, 8), slice(400, 416)])
def test_any_rows_of_any_integrations_are_read(observation, integrations, rows):
    """As astropy reads them, scaled; mapped, or read by themselves."""
    path = observation.segments[0]
    segment = open_segment(path)
    with fits.open(path) as hdus:
        expected = hdus["SCI"].data[integrations][:, :, rows].astype(np.float32)
    read = segment.samples.read_rows(rows, np.array(integrations))
    np.testing.assert_array_equal(decoded(read), expected)
    np.testing.assert_array_equal(decoded(segment.raw[integrations][:, :, rows]), expected)


def test_ramps_in_float32_are_read_too(observation, tmp_path):
    def as_float(hdus):
        hdus["SCI"].data = hdus["SCI"].data.astype(np.float32)

    path = edited(observation.segments[0], tmp_path / "x_uncal.fits", change=as_float)
    raw = open_segment(path).samples.read_rows(slice(10, 20), np.arange(2))
    integers = open_segment(observation.segments[0]).samples
    expected = integers.read_rows(slice(10, 20), np.arange(2))
    np.testing.assert_array_equal(decoded(raw), decoded(expected))


def test_a_file_that_loses_its_end_while_it_is_read_is_an_error(observation, tmp_path):
    path = edited(observation.segments[0], tmp_path / "x_uncal.fits")
    samples = open_segment(path).samples
    with path.open("r+b") as file:
        file.truncate(samples.offset + samples.n_bytes - 100)
    with pytest.raises(SegmentError, match="truncated while it was read"):
        samples.read_rows(slice(410, 416), np.arange(samples.shape[0]))


def test_a_file_that_is_gone_is_named(observation):
    samples = replace(open_segment(observation.segments[0]).samples, path=Path("gone_uncal.fits"))
    for read in (samples.mapped, lambda: samples.read_rows(slice(0, 2), np.arange(1))):
        with pytest.raises(SegmentError, match=r"gone_uncal\.fits: cannot be read \(No such file"):
            read()
