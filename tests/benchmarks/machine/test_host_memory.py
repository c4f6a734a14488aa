"""What is left of the host's memory."""

from __future__ import annotations

from typing import Any

from benchmarks.machine.host_memory import HostMemory


def test_host_memory_is_read_as_linux_tells_it(tmp_path: Any) -> None:
    memory = HostMemory(tmp_path)
    assert (memory.left_bytes(), memory.held_bytes()) == (None, None)
    (tmp_path / "proc/self").mkdir(parents=True)
    (tmp_path / "proc/meminfo").write_text("MemTotal: 900000 kB\nMemAvailable:   524288 kB\n")
    (tmp_path / "proc/self/status").write_text("Name: python\nVmRSS:\t  102400 kB\n")
    assert (memory.left_bytes(), memory.held_bytes()) == (512 << 20, 100 << 20)
    (tmp_path / "proc/self/cgroup").write_text("0::/\n")
    (tmp_path / "sys/fs/cgroup").mkdir(parents=True)
    (tmp_path / "sys/fs/cgroup/memory.max").write_text(f"{1 << 30}\n")
    assert memory.left_bytes() == 512 << 20
    (tmp_path / "sys/fs/cgroup/memory.max").write_text(f"{300 << 20}\n")
    assert memory.left_bytes() == 200 << 20
