"""What control groups allow, of both versions."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks.machine.cgroups import cpu_quota, memory_limit_mib, quota_stops
from tests.support.fake_machine import lay

GROUPS = "sys/fs/cgroup"


def test_groups_of_version_2_are_bound_by_those_above(tmp_path: Path) -> None:
    lay(tmp_path, {"proc/self/cgroup": "0::/outer/inner\n", f"{GROUPS}/outer/inner/cpu.max": "max 100000\n"})
    lay(tmp_path, {f"{GROUPS}/outer/cpu.max": "250000 100000\n", f"{GROUPS}/outer/memory.max": "max"})
    lay(tmp_path, {f"{GROUPS}/cpu.max": "400000 100000\n", f"{GROUPS}/memory.max": 2**30})
    lay(
        tmp_path,
        {f"{GROUPS}/outer/inner/memory.max": 512 * 2**20, f"{GROUPS}/outer/cpu.stat": "usage_usec 9\nnr_throttled 4\n"},
    )
    lay(tmp_path, {f"{GROUPS}/outer/inner/cpu.stat": "nr_periods 1\nnr_throttled 3\n"})
    assert (cpu_quota(tmp_path), memory_limit_mib(tmp_path), quota_stops(tmp_path)) == (2.5, 512.0, 7)


@pytest.mark.parametrize("folder", ["cpu", "cpu,cpuacct"])
def test_groups_of_version_1(tmp_path: Path, folder: str) -> None:
    lay(
        tmp_path,
        {"proc/self/cgroup": f"5:memory:/box\n4:{'cpu,cpuacct' if ',' in folder else 'cpu'}:/box\n1:name=systemd:/\n0::/\n"},
    )
    lay(tmp_path, {f"{GROUPS}/{folder}/box/cpu.cfs_quota_us": 150000, f"{GROUPS}/{folder}/box/cpu.cfs_period_us": 100000})
    lay(tmp_path, {f"{GROUPS}/{folder}/cpu.cfs_quota_us": -1, f"{GROUPS}/{folder}/cpu.cfs_period_us": 100000})
    lay(
        tmp_path, {f"{GROUPS}/memory/box/memory.limit_in_bytes": 2**63 - 4096, f"{GROUPS}/{folder}/cpu.stat": "nr_throttled 0"}
    )
    assert (cpu_quota(tmp_path), memory_limit_mib(tmp_path), quota_stops(tmp_path)) == (1.5, None, 0)
    lay(tmp_path, {f"{GROUPS}/memory/memory.limit_in_bytes": 2**30})
    assert memory_limit_mib(tmp_path) == 1024


@pytest.mark.parametrize("path", ["/kubepods/of/the/host", "/../../elsewhere"])
def test_in_a_container_the_group_is_the_root_that_it_sees(tmp_path: Path, path: str) -> None:
    lay(tmp_path, {"proc/self/cgroup": f"0::{path}\n", f"{GROUPS}/cpu.max": "200000 100000", "sys/cpu.max": "1 1"})
    assert cpu_quota(tmp_path) == 2


@pytest.mark.parametrize("content", ["", "max", "max max", "0 100000", "1 0", "a b", "1 2 3", "nan nan", "-1 100000"])
def test_no_limit_and_nonsense_are_no_quota(tmp_path: Path, content: str) -> None:
    lay(
        tmp_path,
        {"proc/self/cgroup": "nonsense\n0::/\n", f"{GROUPS}/cpu.max": content, f"{GROUPS}/cpu.stat": "nr_throttled x"},
    )
    assert (cpu_quota(tmp_path), quota_stops(tmp_path)) == (None, None)
