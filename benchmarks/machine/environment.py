"""The machine, its state, and the versions that a figure was measured with, in plain values: what cannot be read is None.

Environment variables that change speed are kept with their values; none that may hold a secret or a place on the disk.
"""

from __future__ import annotations

import importlib.metadata
import os
import platform
import re
import shlex
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from benchmarks.machine import cpu_info
from benchmarks.machine.cgroups import cpu_quota, memory_limit_mib
from benchmarks.machine.cpu_sensors import clock_when_busy_mhz, cpu_temperature_c, usable_cpus
from benchmarks.machine.cpu_state import between, read_counters
from benchmarks.machine.gpu_choice import anonymous
from benchmarks.machine.gpu_state import describe_gpu
from benchmarks.machine.plain_files import RunCommand, command, field, to_number
from slimtrain.base.version import __version__

PACKAGES = (
    "torch",
    "onnx",
    "onnxruntime-gpu",
    "onnxruntime",
    "onnxscript",
    "numpy",
    "tensorrt",
    "tensorrt-cu12",
    "tensorrt-cu13",
    "tensorrt-rtx-cu12-bindings",
    "nvidia-ml-py",
    "matplotlib",
)
OURS = "slimmable-deploy"
SPEED = ("OMP_", "MKL_", "OPENBLAS_", "GOMP_", "KMP_", "CUDA_", "TORCH", "PYTORCH_", "ORT", "NVIDIA_TF32_OVERRIDE")
PRIVATE = re.compile(r"TOKEN|SECRET|KEY|PASSW|CREDENTIAL|AUTH|(?:^|_)(?:URL|HOME|PATH|DIR|USER)(?:_|$)")
CHECKOUT = Path(__file__).resolve().parents[2]
LOOK_S = 0.3  # how long other processes are watched


def environment(root: Path = Path("/")) -> dict[str, Any]:
    """CPU, memory, limits, clocks, GPU, system, package versions and what other processes do. Takes half a second.

    `root` stands in for the machine's /proc and /sys in tests. Keys: see `benchmarks.machine.notes`, which reads them.
    """
    cpus = usable_cpus()
    total_kib = to_number((field(root / "proc/meminfo", "MemTotal") or "").partition(" ")[0])
    gpu, gpu_reason = describe_gpu(root=root)
    return {
        "cpu": cpu_info.model(root),
        "machine": cpu_info.board(root),
        "cores": os.cpu_count(),
        **cpu_info.topology(root),
        "usable_cpus": len(cpus),
        "affinity": numbered(cpus),
        "cpu_quota_cores": cpu_quota(root),
        "caches": cpu_info.caches(root),
        "memory": field(root / "proc/meminfo", "MemTotal"),
        "memory_mib": None if total_kib is None else round(total_kib / 1024),
        "memory_limit_mib": memory_limit_mib(root),
        "virtual": cpu_info.is_virtual(root),
        "on_battery": cpu_info.on_battery(root),
        "load_average": _load_average(),
        **_cpu_state(root),
        "clocks": {**cpu_info.clock_policy(root), "busy_mhz": clock_when_busy_mhz(root)},
        "cpu_temperature_c": cpu_temperature_c(root),
        "gpu": gpu,
        "gpu_reason": gpu_reason,
        "system": platform.platform(),
        "python": platform.python_version(),
        "packages": _versions(),
        "commit": commit(),
        "variables": speed_variables(os.environ),
    }


def command_line() -> str:
    """The command that was given, as a user would type it: it measures again where it was run, and names what was compared."""
    return shlex.join(["python", "-m", "benchmarks", *sys.argv[1:]])


def study_command(module: str) -> str:
    """The command that was given to the study `module`: shown to others, it tells no folder of this machine."""
    return shlex.join(["python", "-m", module, *map(portable, sys.argv[1:])])


def portable(word: str) -> str:
    """A word of a command: a path from the root is one from the working folder, or, where it leads elsewhere, its last
    name."""
    option, sign, path = word.rpartition("=")
    if not os.path.isabs(path):
        return word
    place, here = Path(path), Path.cwd()
    return f"{option}{sign}{place.relative_to(here) if place.is_relative_to(here) else place.name or place}"


def speed_variables(variables: Mapping[str, str]) -> dict[str, str]:
    """Those of `variables` that change speed, sorted; GPUs' UUIDs are replaced by hashes."""
    kept = [name for name in sorted(variables) if name.startswith(SPEED) and not PRIVATE.search(name)]
    return {name: anonymous(variables[name]) for name in kept if "://" not in variables[name]}


def commit(folder: Path = CHECKOUT, run: RunCommand = command) -> str | None:
    """The commit of this project's checkout, `-dirty` with changes that are not committed; None for an installed package."""
    if not os.path.exists(folder / ".git"):  # an installed package may lie in another project's checkout
        return None
    words = ["git", "--no-optional-locks", "-C", str(folder), "describe", "--always", "--abbrev=40", "--exclude=*", "--dirty"]
    answer = run(words)
    return answer[1].strip() or None if answer is not None and answer[0] == 0 else None


def numbered(cpus: list[int]) -> str:
    """`0-3,8` for [0, 1, 2, 3, 8], as the kernel writes lists of CPUs."""
    runs: list[list[int]] = []
    for cpu in cpus:
        if runs and cpu == runs[-1][1] + 1:
            runs[-1][1] = cpu
        else:
            runs.append([cpu, cpu])
    return ",".join(str(first) if first == last else f"{first}-{last}" for first, last in runs)


def _cpu_state(root: Path) -> dict[str, Any]:
    before = read_counters(root)
    time.sleep(LOOK_S)
    after = read_counters(root)
    seen = between(before, after)
    return {
        "other_load": seen.get("other_load"),
        "steal": seen.get("steal"),
        "throttle_counts": {"thermal": after.thermal, "quota": after.quota},
    }


def _load_average() -> list[float] | None:
    try:
        return list(os.getloadavg())
    except (AttributeError, OSError):  # Windows has none
        return None


def _versions() -> dict[str, str]:
    versions = {OURS: __version__}
    for package in PACKAGES:
        try:
            versions[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            continue
    return versions
