"""What the host has: its free memory, and that of a container."""

from miri_gpu import host


def test_a_containers_limit_bounds_the_free_memory(tmp_path):
    (tmp_path / "memory.max").write_text("4000\n")
    (tmp_path / "memory.current").write_text("3000\n")
    (tmp_path / "memory.stat").write_text("anon 5\nactive_file 7\ninactive_file 500\n")
    assert host._cgroup_free_bytes(str(tmp_path)) == 1500
    (tmp_path / "memory.max").write_text("max\n")
    assert host._cgroup_free_bytes(str(tmp_path)) is None
    assert host._cgroup_free_bytes(str(tmp_path / "none")) is None


def test_freed_memory_is_kept_and_returned():
    host.keep_freed_memory()
    host.return_freed_memory()
    assert 2**20 < host.free_memory_bytes() < 2**50
