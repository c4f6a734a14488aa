"""Free memory as /proc and control groups tell it, the tightest of them counting."""

from __future__ import annotations

import os
from pathlib import Path

from slimtrain.base.free_memory import GIB, free_memory, gib


def machine(root: Path, files: dict[str, str]) -> Path:
    for name, text in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return root


MEMINFO = {"proc/meminfo": f"MemTotal: {32 * 2**20} kB\nMemFree: 1000 kB\nMemAvailable:   {16 * 2**20} kB\n"}


def test_the_machine_alone(tmp_path: Path) -> None:
    assert free_memory(machine(tmp_path, MEMINFO)) == 16 * GIB


def test_nothing_is_known(tmp_path: Path) -> None:
    assert free_memory(tmp_path) is None


def test_a_container_counts_where_it_has_less(tmp_path: Path) -> None:
    group = {"memory.max": str(4 * GIB), "memory.current": str(3 * GIB), "memory.stat": f"anon 5\ninactive_file {GIB}\n"}
    files = {**MEMINFO, "proc/self/cgroup": "0::/\n", **{f"sys/fs/cgroup/{name}": text for name, text in group.items()}}
    assert free_memory(machine(tmp_path, files)) == 2 * GIB  # cached files are given back
    (tmp_path / "sys/fs/cgroup/memory.max").write_text("max\n")
    assert free_memory(tmp_path) == 16 * GIB
    (tmp_path / "sys/fs/cgroup/memory.max").write_text(str(GIB))
    assert free_memory(tmp_path) == 0


def test_a_group_above_may_be_tighter(tmp_path: Path) -> None:
    files = {
        **{**MEMINFO, "proc/self/cgroup": "1:name=systemd:/x\n0::/user.slice/job\n"},
        **{"sys/fs/cgroup/user.slice/job/memory.max": "max\n", "sys/fs/cgroup/user.slice/memory.max": str(2 * GIB)},
    }
    assert free_memory(machine(tmp_path, files)) == 2 * GIB


def test_the_first_version_of_control_groups(tmp_path: Path) -> None:
    group = {
        "memory.limit_in_bytes": str(3 * GIB),
        "memory.usage_in_bytes": str(2 * GIB),
        "memory.stat": "total_inactive_file 1024\n",
    }
    files = {**MEMINFO, **{f"sys/fs/cgroup/memory/{name}": text for name, text in group.items()}}
    assert free_memory(machine(tmp_path, files)) == GIB + 1024
    (tmp_path / "sys/fs/cgroup/memory/memory.limit_in_bytes").write_text(str(2**63 - 4096))  # none
    assert free_memory(tmp_path) == 16 * GIB


def test_here_it_is_known_and_less_than_all() -> None:
    free = free_memory()
    assert free is None or 0 < free < 2**45
    assert gib(3 * GIB // 2) == "1.5 GiB"


def test_the_limit_of_a_process(tmp_path: Path) -> None:
    limits = "Limit                     Soft Limit    Hard Limit    Units\nMax address space         {}   unlimited   bytes\n"
    files = {**MEMINFO, "proc/self/statm": f"{GIB // os.sysconf('SC_PAGE_SIZE')} 5 5 5 0 5 0\n"}
    assert free_memory(machine(tmp_path, {**files, "proc/self/limits": limits.format(3 * GIB)})) == 2 * GIB
    assert free_memory(machine(tmp_path, {**files, "proc/self/limits": limits.format("unlimited")})) == 16 * GIB
