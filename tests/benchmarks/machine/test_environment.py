"""The recorded machine: from files of made-up machines, from an empty one, and from this one."""

from __future__ import annotations

import json
import os
import platform
import subprocess
import sys
from importlib.metadata import PackageNotFoundError
from pathlib import Path
from typing import Any

import pytest

import slimtrain
from benchmarks.machine import cpu_info
from benchmarks.machine.cgroups import cpu_quota, memory_limit_mib, quota_stops
from benchmarks.machine.environment import commit, environment, numbered, speed_variables
from benchmarks.machine.plain_files import command, field, number, text, to_number
from tests.support.fake_machine import CPUS, H200, fake_pynvml, jetson, lay, no_pynvml, stat_line

OLD_KEYS = {"cpu", "cores", "memory", "load_average", "system", "python", "packages"}


@pytest.fixture(autouse=True)
def short(monkeypatch: pytest.MonkeyPatch) -> None:
    """Other processes are not watched for long."""
    monkeypatch.setattr("benchmarks.machine.environment.LOOK_S", 0.0)


# ---------------------------------------------------------------------------------------------------- this machine


def test_this_machine_is_told_in_plain_values() -> None:
    found = environment()
    assert set(found) >= OLD_KEYS
    assert json.loads(json.dumps(found, allow_nan=False)) == found
    assert (found["cores"], found["python"]) == (os.cpu_count(), platform.python_version())
    assert found["packages"]["slimmable-deploy"] == slimtrain.__version__
    assert (found["gpu"] is None) == (found["gpu_reason"] is not None)


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc and /sys")
def test_cores_here_are_no_more_than_logical_cpus() -> None:
    found = environment()
    assert 1 <= (found["sockets"] or 1) <= (found["physical_cores"] or 1) <= found["cores"]
    assert 1 <= found["usable_cpus"] <= found["cores"]
    assert found["memory_mib"] == pytest.approx(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**20, rel=0.01)


def test_an_empty_machine_tells_what_python_knows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As on systems without /proc and /sys, and without what Python has on Linux only."""
    no_pynvml(monkeypatch)
    monkeypatch.setenv("PATH", "")
    monkeypatch.setitem(sys.modules, "resource", None)
    monkeypatch.delattr(os, "sched_getaffinity", raising=False)
    monkeypatch.delattr(os, "getloadavg", raising=False)
    found = environment(tmp_path)
    known = {
        "cpu",
        "cores",
        "usable_cpus",
        "affinity",
        "caches",
        "throttle_counts",
        "clocks",
        "gpu_reason",
        "system",
        "python",
    }
    known |= {"packages", "variables"}
    assert {key for key, value in found.items() if value is not None} == known
    for part in ("caches", "clocks", "throttle_counts"):
        assert set(found[part].values()) == {None}
    json.dumps(found, allow_nan=False)


def test_an_unreadable_machine_tells_no_more(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Folders where files should be, and files full of nonsense."""
    no_pynvml(monkeypatch)
    monkeypatch.setenv("PATH", "")
    nonsense = "\0\n:::\nnan inf -1 K\n"
    for name in ("proc/cpuinfo", "proc/meminfo", "proc/self/cgroup", f"{CPUS}/cpu0/cache/index0/size", "proc/stat"):
        lay(tmp_path, {name: nonsense})
    for name in ("scaling_governor", "scaling_min_freq", "scaling_max_freq"):
        (tmp_path / CPUS / "cpu0/cpufreq" / name).mkdir(parents=True)
    lay(tmp_path, {"sys/class/thermal/thermal_zone0/temp": "nan", "sys/class/thermal/thermal_zone0/type": "cpu-thermal"})
    found = environment(tmp_path)
    json.dumps(found, allow_nan=False)
    assert (found["memory"], found["cpu_temperature_c"], found["other_load"]) == (None, None, None)
    assert set(found["clocks"].values()) == {None}


def test_a_machine_with_a_gpu_tells_its_state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    fake_pynvml(monkeypatch, [H200], SystemGetDriverVersion="575.57.08")
    found = environment(tmp_path)
    assert found["gpu_reason"] is None
    assert (found["gpu"]["name"], found["gpu"]["state"]["reasons"]) == ("NVIDIA H200", ["sw_power_cap"])
    assert str(H200["GetUUID"]) not in json.dumps(found, allow_nan=False)


def test_packages_that_are_not_installed_are_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    def version(name: str) -> str:
        if name == "numpy":
            return "2.0"
        raise PackageNotFoundError(name)

    monkeypatch.setattr("importlib.metadata.version", version)
    assert environment()["packages"] == {"slimmable-deploy": slimtrain.__version__, "numpy": "2.0"}


def test_what_other_processes_do_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("benchmarks.machine.environment.LOOK_S", 0.3)
    monkeypatch.setattr("benchmarks.machine.environment.time.sleep", lambda seconds: _a_stranger_works(tmp_path))
    monkeypatch.setattr("benchmarks.machine.environment.read_counters", _Clock())
    lay(tmp_path, {"proc/stat": stat_line(), f"proc/{os.getpid()}/stat": "1 (x) R " + "0 " * 30})
    found = environment(tmp_path)
    assert (found["other_load"], found["steal"]) == (1.5, 0.5)


def _a_stranger_works(root: Path) -> None:
    lay(root, {"proc/stat": stat_line(user=100, system=50, steal=50)})


class _Clock:
    """Reads counters one second apart."""

    def __init__(self) -> None:
        self.at = 0.0

    def __call__(self, root: Path) -> Any:
        from benchmarks.machine.cpu_state import read_counters

        self.at += 1
        return read_counters(root, clock=lambda: self.at)


# ------------------------------------------------------------------------------------------------------------- CPU


def two_sockets(root: Path) -> Path:
    """8 logical CPUs: 2 sockets of 2 cores of 2 threads, a last-level cache per socket."""
    for cpu in range(8):
        socket, core = cpu // 4, cpu % 4 // 2
        folder = f"{CPUS}/cpu{cpu}"
        lay(root, {f"{folder}/topology/physical_package_id": socket, f"{folder}/topology/core_id": core})
        pair, four = f"{cpu // 2 * 2}-{cpu // 2 * 2 + 1}", f"{socket * 4}-{socket * 4 + 3}"
        shapes = [(1, "Data", "48K", pair), (1, "Instruction", "32K", pair), (2, "Unified", "2048K", pair)]
        for index, (level, kind, size, shared) in enumerate([*shapes, (3, "Unified", "36864K", four)]):
            place = f"{folder}/cache/index{index}"
            lay(root, {f"{place}/level": level, f"{place}/type": kind, f"{place}/size": size})
            lay(root, {f"{place}/shared_cpu_list": shared})
    lay(root, {f"{CPUS}/cpufreq/boost": 1, f"{CPUS}/cpuidle/current_driver": "none"})
    return root


def test_sockets_cores_and_caches_are_counted(tmp_path: Path) -> None:
    two_sockets(tmp_path)
    assert cpu_info.topology(tmp_path) == {"sockets": 2, "physical_cores": 4}
    assert cpu_info.caches(tmp_path) == {
        "l1d_kib": 48,
        "l2_kib": 2048,
        "last_level_kib": 36864,
        "last_level": 3,
        "last_level_instances": 2,
    }


def test_the_policy_of_the_clocks(tmp_path: Path) -> None:
    for cpu, (governor, low, high) in enumerate([("performance", 800000, 4800000), ("powersave", 400000, 3600000)]):
        policy = f"{CPUS}/cpu{cpu}/cpufreq"
        lay(tmp_path, {f"{policy}/scaling_governor": f"{governor}\n", f"{policy}/scaling_driver": "intel_pstate\n"})
        lay(tmp_path, {f"{policy}/scaling_min_freq": low, f"{policy}/scaling_max_freq": high})
    lay(tmp_path, {f"{CPUS}/intel_pstate/no_turbo": "0\n", f"{CPUS}/cpufreq/boost": "0\n"})
    assert cpu_info.clock_policy(tmp_path) == {
        "governor": "performance, powersave",
        "driver": "intel_pstate",
        "min_mhz": 400.0,
        "max_mhz": 4800.0,
        "turbo": True,
    }


@pytest.mark.parametrize(
    ("files", "turbo"),
    [
        ({"intel_pstate/no_turbo": 1}, False),
        ({"intel_pstate/no_turbo": 0}, True),
        ({"cpufreq/boost": 1}, True),
        ({"cpufreq/boost": 0}, False),
        ({"cpufreq/boost": "?"}, None),
        ({}, None),
    ],
)
def test_turbo(tmp_path: Path, files: dict[str, object], turbo: bool | None) -> None:
    lay(tmp_path, {f"{CPUS}/{name}": value for name, value in files.items()})
    assert cpu_info.clock_policy(tmp_path)["turbo"] is turbo


@pytest.mark.parametrize(
    ("content", "name"),
    [
        ("processor : 0\nmodel name\t: AMD EPYC 9654\n", "AMD EPYC 9654"),
        ("processor : 0\nCPU implementer : 0x41\nCPU part : 0xd42\n", "Cortex-A78AE"),
        ("processor : 0\nCPU implementer : 0x51\nCPU part : 0x001\n", "Arm part 0x001 of 0x51"),
    ],
)
def test_the_cpus_name(tmp_path: Path, content: str, name: str) -> None:
    lay(tmp_path, {"proc/cpuinfo": content})
    assert cpu_info.model(tmp_path) == name


def test_a_cpu_without_a_name_is_at_least_an_architecture(tmp_path: Path) -> None:
    assert cpu_info.model(tmp_path) in (platform.processor(), platform.machine())


def test_a_jetson_names_its_board(tmp_path: Path) -> None:
    assert cpu_info.board(jetson(tmp_path)) == "NVIDIA Jetson AGX Orin Developer Kit"


@pytest.mark.parametrize(
    ("files", "virtual"),
    [
        ({"proc/cpuinfo": "flags : fpu hypervisor sse"}, True),
        ({"proc/cpuinfo": "flags : fpu sse"}, False),
        ({"sys/hypervisor/type": "xen"}, True),
        ({"sys/class/dmi/id/sys_vendor": "QEMU"}, True),
        ({"sys/class/dmi/id/sys_vendor": "Dell Inc."}, None),
        ({}, None),
    ],
)
def test_virtual_machines(tmp_path: Path, files: dict[str, object], virtual: bool | None) -> None:
    assert cpu_info.is_virtual(lay(tmp_path, files)) is virtual


@pytest.mark.parametrize(
    ("supplies", "on_battery"),
    [
        ([{"type": "Mains", "online": 1}, {"type": "Battery", "status": "Charging"}], False),
        ([{"type": "Mains", "online": 0}, {"type": "Battery", "status": "Discharging"}], True),
        ([{"type": "Battery", "status": "Discharging", "scope": "Device"}], None),
        ([{"type": "Battery", "status": "Full"}], False),
        ([{"type": "Mains", "online": 1}], False),
        ([], None),
    ],
)
def test_batteries(tmp_path: Path, supplies: list[dict[str, object]], on_battery: bool | None) -> None:
    for place, each in enumerate(supplies):
        lay(tmp_path, {f"sys/class/power_supply/S{place}/{name}": value for name, value in each.items()})
    assert cpu_info.on_battery(tmp_path) is on_battery


# --------------------------------------------------------------------------------------------------- control groups

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


# ------------------------------------------------------------------------------------------------- variables, commit


def test_variables_that_change_speed_are_kept_and_no_secrets() -> None:
    kept = {
        "OMP_NUM_THREADS": "2",
        "MKL_DIRECT_CALL": "1",
        "KMP_AFFINITY": "granularity=fine",
        "NVIDIA_TF32_OVERRIDE": "0",
        "TORCHINDUCTOR_FREEZING": "1",
        "PYTORCH_CUDA_ALLOC_CONF": "expandable_segments:True",
        "ORT_DISABLE_FUSION": "1",
        "CUDA_VISIBLE_DEVICES": "0",
    }
    dropped = {
        "HOME": "/home/me",
        "CUDA_HOME": "/home/me/cuda",
        "CUDA_CACHE_PATH": "/home/me",
        "TORCHINDUCTOR_CACHE_DIR": "/home/me",
        "TORCH_API_KEY": "s3cret",
        "ORT_TOKEN": "s3cret",
        "OMP_PASSWORD": "s3cret",
        "TORCH_MIRROR": "https://me:s3cret@host",
        "AWS_SECRET_ACCESS_KEY": "s3cret",
    }
    assert speed_variables({**kept, **dropped}) == dict(sorted(kept.items()))


def test_uuids_of_gpus_are_hashed_in_variables() -> None:
    found = speed_variables({"CUDA_VISIBLE_DEVICES": "GPU-8932f937-d72c-4106-c12f-20bd9faed9f6,1"})
    assert found["CUDA_VISIBLE_DEVICES"].startswith("GPU-#") and found["CUDA_VISIBLE_DEVICES"].endswith(",1")
    assert "8932f937" not in found["CUDA_VISIBLE_DEVICES"]


def test_the_commit_and_whether_files_were_changed(tmp_path: Path) -> None:
    def git(*words: str) -> str:
        line = ["git", "-C", str(tmp_path), "-c", "user.name=a", "-c", "user.email=a@b", *words]
        return subprocess.run(line, capture_output=True, text=True, check=True).stdout.strip()

    if command(["git", "--version"]) is None:
        pytest.skip("needs git")
    git("init", "-q")
    lay(tmp_path, {"a": 1})
    git("add", "a")
    git("commit", "-q", "-m", "one")
    git("tag", "-m", "v", "v1")
    head = git("rev-parse", "HEAD")
    assert commit(tmp_path) == head
    lay(tmp_path, {"new": 1})
    assert commit(tmp_path) == head
    lay(tmp_path, {"a": 2})
    assert commit(tmp_path) == f"{head}-dirty"
    (tmp_path / "inside").mkdir()
    assert commit(tmp_path / "inside") is None


@pytest.mark.parametrize("answer", [None, (128, "fatal: dubious ownership"), (0, "")])
def test_without_git_there_is_no_commit(tmp_path: Path, answer: tuple[int, str] | None) -> None:
    (tmp_path / ".git").mkdir()
    assert commit(tmp_path, lambda words: answer) is None


# ----------------------------------------------------------------------------------------------------- plain files


@pytest.mark.parametrize(("cpus", "shown"), [([], ""), ([3], "3"), ([0, 1], "0-1"), ([0, 1, 2, 5, 7, 8], "0-2,5,7-8")])
def test_lists_of_cpus(cpus: list[int], shown: str) -> None:
    assert numbered(cpus) == shown


def test_what_is_not_a_number_is_none(tmp_path: Path) -> None:
    assert [to_number(each) for each in (None, "", "x", "nan", "inf", "-inf", " 2.5\n")] == [None] * 6 + [2.5]
    assert (number(tmp_path), number(tmp_path / "none"), text(tmp_path), text(tmp_path / "none")) == (None,) * 4


def test_a_field_is_found_by_its_whole_name(tmp_path: Path) -> None:
    lay(tmp_path, {"f": "model name\t: Xeon : X\nmodel\t: 167\nmodel name : second\nempty :\nnothing"})
    assert [field(tmp_path / "f", name) for name in ("model name", "model", "empty", "nothing")] == [
        "Xeon : X",
        "167",
        None,
        None,
    ]


def test_commands_that_hang_or_fail_to_start_are_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert command([sys.executable, "-c", "import time; time.sleep(60)"], timeout_s=0.2) is None
    assert command([sys.executable, "-c", "print('ü'); raise SystemExit(3)"]) == (3, "ü\n")
    assert command(["no-such-program"]) is None
    bad = tmp_path / "bad"
    bad.write_text("nothing that runs")
    bad.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    assert command(["bad"]) is None
