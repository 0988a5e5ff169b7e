"""Files that appear whole or not at all."""

import pytest

from miri_gpu.errors import OutputError
from miri_gpu.files import write_beside, write_text


def test_a_text_is_written_and_replaced(tmp_path):
    path = tmp_path / "a.toml"
    write_text(path, "naïve\n")
    write_text(path, "größer\n")
    assert path.read_text(encoding="utf-8") == "größer\n"
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt])
def test_nothing_stays_of_a_file_that_could_not_be_finished(tmp_path, error):
    path = tmp_path / "a.toml"
    write_text(path, "old")

    def fail(beside):
        beside.write_text("half of it")
        raise error

    with pytest.raises(error):
        write_beside(path, fail)
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_the_name_keeps_its_ending(tmp_path):
    """Writers choose the format by it."""
    seen = []
    write_beside(tmp_path / "a.png", lambda beside: (seen.append(beside), beside.touch()))
    assert seen[0].suffix == ".png" and seen[0].parent == tmp_path


def test_where_it_cannot_be_written_the_file_is_named(tmp_path):
    (tmp_path / "file").touch()
    for path in (tmp_path / "file" / "a.toml", tmp_path / "absent" / "a.toml"):
        with pytest.raises(OutputError, match="cannot be written") as caught:
            write_text(path, "x")
        assert str(path) in str(caught.value)


def test_a_disk_that_is_full_is_reported(tmp_path):
    def fail(_):
        raise OSError(28, "No space left on device")

    with pytest.raises(OutputError, match="No space left on device"):
        write_beside(tmp_path / "a.nc", fail)
