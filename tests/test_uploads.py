"""Samples arrive in the memory of a GPU as they are, by compiled code and without it."""

import numpy as np
import pytest
from pretended_gpu import Driver, OnDevice, pretended_gpu

from miri_gpu import backend, kernels, uploads
from miri_gpu.backend import select
from miri_gpu.errors import BackendError, SegmentError
from miri_gpu.raw_samples import SampleFile, encoded_samples

compiled = pytest.mark.skipif(
    not hasattr(kernels.compiled(), "upload_frames"), reason="needs the compiled library"
)
SHAPE = (12, 3, 10, 8)
OFFSET = 48


@pytest.fixture
def sample_file(tmp_path, rng):
    path = tmp_path / "samples.bin"
    path.write_bytes(bytes(OFFSET) + rng.integers(0, 1 << 16, SHAPE, np.uint16).tobytes() + b"end")
    return SampleFile(path, OFFSET, np.dtype(">i2"), SHAPE)


# --- from a file


@compiled
@pytest.mark.parametrize("n_bytes", [1, 500, 1 << 20])
@pytest.mark.parametrize("rows", [slice(0, 10), slice(3, 8), slice(9, 10)])
@pytest.mark.parametrize("integrations", [range(12), [2], [0, 1, 4, 9, 10]])
def test_rows_of_a_file_arrive(monkeypatch, sample_file, integrations, rows, n_bytes):
    """However much is read at a time; what is on its way is left alone."""
    monkeypatch.setattr(uploads, "_BYTES_OF_A_READ", n_bytes)
    gpu, integrations = pretended_gpu(monkeypatch), np.array(integrations)
    assert uploads.reads_by_itself(sample_file, gpu)
    found = uploads.upload_rows(sample_file, rows, integrations, gpu)
    expected = encoded_samples(np.asarray(sample_file.mapped())[integrations][:, :, rows])
    assert found.dtype == np.uint16
    np.testing.assert_array_equal(found, expected)


@compiled
def test_a_file_that_ends_too_early_is_named(monkeypatch, sample_file):
    content = sample_file.path.read_bytes()
    sample_file.path.write_bytes(content[: OFFSET + 5000])
    with pytest.raises(SegmentError, match=r"samples\.bin: truncated"):
        uploads.upload_rows(sample_file, slice(0, 10), np.arange(12), pretended_gpu(monkeypatch))


@compiled
def test_a_file_that_cannot_be_read_is_named(monkeypatch, sample_file):
    places = -np.ones(36, dtype=np.int64)  # nothing lies there
    monkeypatch.setattr(SampleFile, "frames", lambda *_: (places, 160))
    with pytest.raises(SegmentError, match=r"samples\.bin: Invalid argument"):
        uploads.upload_rows(sample_file, slice(0, 10), np.arange(12), pretended_gpu(monkeypatch))


@compiled
def test_an_error_of_the_driver_is_raised_and_nothing_left_on_its_way(monkeypatch, sample_file):
    monkeypatch.setattr(uploads, "_BYTES_OF_A_READ", 500)
    driver = Driver()
    gpu = pretended_gpu(monkeypatch, driver)
    for driver.error, expected in ((719, BackendError), (2, MemoryError)):
        with pytest.raises(expected, match="719" if driver.error == 719 else "none left"):
            uploads.upload_rows(sample_file, slice(0, 10), np.arange(12), gpu)
    assert not any(stream.waiting for stream in driver.streams)


@compiled
def test_compiled_code_reads_raw_samples_for_a_gpu_only(monkeypatch, sample_file):
    ramps = SampleFile(sample_file.path, OFFSET, np.dtype(">f4"), (6, *SHAPE[1:]))
    gpu = pretended_gpu(monkeypatch)
    assert not uploads.reads_by_itself(ramps, gpu)
    assert not uploads.reads_by_itself(sample_file, select("numpy"))
    with monkeypatch.context() as patch:
        patch.setenv(kernels.ENVIRONMENT_VARIABLE, "0")
        assert not uploads.reads_by_itself(sample_file, gpu)
    assert uploads.reads_by_itself(sample_file, gpu)
    monkeypatch.setattr(backend, "_driver", lambda: None)
    assert not uploads.reads_by_itself(sample_file, gpu)


# --- from memory


@pytest.mark.parametrize("items", [None, np.array([0, 2, 3, 90])], ids=["all", "some"])
@pytest.mark.parametrize("n_bytes", [1 << 10, 1 << 20])
@pytest.mark.parametrize("dtype", [">i2", ">f4", "<u2"])
def test_an_array_arrives(monkeypatch, rng, dtype, n_bytes, items):
    monkeypatch.setattr(uploads, "_BYTES_OF_A_PIECE", n_bytes)
    array = rng.integers(0, 1000, (100, 6, 20)).astype(dtype)[:, :, 3:14]
    native = array.dtype.newbyteorder("=")
    uploaded = uploads.upload_array(array, pretended_gpu(monkeypatch), native, items)
    assert uploaded.dtype == native and uploaded.flags.c_contiguous
    np.testing.assert_array_equal(uploaded, array if items is None else array[items])


def test_an_upload_that_fails_leaves_no_copy_on_its_way(monkeypatch):
    monkeypatch.setattr(uploads, "_BYTES_OF_A_PIECE", 1 << 10)
    driver = Driver()
    gpu = pretended_gpu(monkeypatch, driver)

    def fail(array, values, stream):
        stream.ask_for(lambda: None)
        raise MemoryError("no more")

    monkeypatch.setattr(OnDevice, "set", fail)
    with pytest.raises(MemoryError, match="no more"):
        uploads.upload_array(np.ones((1000, 10)), gpu, np.dtype(float))
    assert not any(stream.waiting for stream in driver.streams)
