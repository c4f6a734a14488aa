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
from benchmarks.machine.environment import (
    command_line,
    commit,
    environment,
    numbered,
    portable,
    speed_variables,
    study_command,
)
from benchmarks.machine.plain_files import command
from tests.support.fake_machine import CPUS, H200, fake_pynvml, lay, no_pynvml, stat_line

OLD_KEYS = {"cpu", "cores", "memory", "load_average", "system", "python", "packages"}


@pytest.fixture(autouse=True)
def short(monkeypatch: pytest.MonkeyPatch) -> None:
    """Other processes are not watched for long."""
    monkeypatch.setattr("benchmarks.machine.environment.LOOK_S", 0.0)


def test_this_machine_is_told_in_plain_values() -> None:
    machine = environment()
    assert set(machine) >= OLD_KEYS
    assert json.loads(json.dumps(machine, allow_nan=False)) == machine
    assert (machine["cores"], machine["python"]) == (os.cpu_count(), platform.python_version())
    assert machine["packages"]["slimmable-deploy"] == slimtrain.__version__
    assert (machine["gpu"] is None) == (machine["gpu_reason"] is not None)


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc and /sys")
def test_cores_here_are_no_more_than_logical_cpus() -> None:
    machine = environment()
    assert 1 <= (machine["sockets"] or 1) <= (machine["physical_cores"] or 1) <= machine["cores"]
    assert 1 <= machine["usable_cpus"] <= machine["cores"]
    assert machine["memory_mib"] == pytest.approx(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**20, rel=0.01)


def test_an_empty_machine_tells_what_python_knows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As on systems without /proc and /sys, and without what Python has on Linux only."""
    no_pynvml(monkeypatch)
    monkeypatch.setenv("PATH", "")
    monkeypatch.setitem(sys.modules, "resource", None)
    monkeypatch.delattr(os, "sched_getaffinity", raising=False)
    monkeypatch.delattr(os, "getloadavg", raising=False)
    machine = environment(tmp_path)
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
    assert {key for key, value in machine.items() if value is not None} == known
    for part in ("caches", "clocks", "throttle_counts"):
        assert set(machine[part].values()) == {None}
    json.dumps(machine, allow_nan=False)


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
    machine = environment(tmp_path)
    json.dumps(machine, allow_nan=False)
    assert (machine["memory"], machine["cpu_temperature_c"], machine["other_load"]) == (None, None, None)
    assert set(machine["clocks"].values()) == {None}


def test_a_machine_with_a_gpu_tells_its_state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    fake_pynvml(monkeypatch, [H200], SystemGetDriverVersion="575.57.08")
    machine = environment(tmp_path)
    assert machine["gpu_reason"] is None
    assert (machine["gpu"]["name"], machine["gpu"]["state"]["reasons"]) == ("NVIDIA H200", ["sw_power_cap"])
    assert str(H200["GetUUID"]) not in json.dumps(machine, allow_nan=False)


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
    machine = environment(tmp_path)
    assert (machine["other_load"], machine["steal"]) == (1.5, 0.5)


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
    variables = speed_variables({"CUDA_VISIBLE_DEVICES": "GPU-8932f937-d72c-4106-c12f-20bd9faed9f6,1"})
    assert variables["CUDA_VISIBLE_DEVICES"].startswith("GPU-#") and variables["CUDA_VISIBLE_DEVICES"].endswith(",1")
    assert "8932f937" not in variables["CUDA_VISIBLE_DEVICES"]


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


@pytest.mark.parametrize(("cpus", "shown"), [([], ""), ([3], "3"), ([0, 1], "0-1"), ([0, 1, 2, 5, 7, 8], "0-2,5,7-8")])
def test_lists_of_cpus(cpus: list[int], shown: str) -> None:
    assert numbered(cpus) == shown


def test_a_study_tells_no_folder_of_this_machine_and_a_users_own_command_stays_as_given(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    words = ["exports/a b", str(tmp_path / "exports" / "b"), "--json", "/elsewhere/deep/c.json", "--set=/elsewhere/d", "a=b"]
    monkeypatch.setattr(sys, "argv", ["here", *words])
    given = f"'exports/a b' {words[1]} --json /elsewhere/deep/c.json --set=/elsewhere/d a=b"
    assert command_line() == f"python -m benchmarks {given}"
    assert study_command("m") == "python -m m 'exports/a b' exports/b --json c.json --set=d a=b"
    assert portable("/") == "/"
