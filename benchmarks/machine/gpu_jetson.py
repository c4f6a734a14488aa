"""The GPU of an NVIDIA Jetson, which shares its chip with the CPU and of which NVML tells little: from devfreq and the thermal
zones in /sys. Power modes (`nvpmodel`) bound its clocks; `jetson_clocks` sets the lowest clock to the highest.

Source: the Jetson Linux developer guide, power and performance.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from benchmarks.machine.cpu_info import board
from benchmarks.machine.cpu_sensors import temperatures_c
from benchmarks.machine.gpu_choice import Listed, NoGpu, choose
from benchmarks.machine.plain_files import RunCommand, command, entries, number, text

GPU_NAMES = re.compile(r"gpu|ga10b|gv11b|gp10b|gm20b")  # Thor and newer kernels; Orin, Xavier, TX2, Nano
MODE = re.compile(r"NV Power Mode: *(\S.*)")
RELEASE = re.compile(r"# R(\d+).*?REVISION: *([\d.]+)")


class JetsonReader:
    """The board's GPU, as CUDA's device number `device`. Raises NoGpu, with the reason, where this is no Jetson."""

    source, in_background = "jetson", True  # a reading is a few small files

    def __init__(self, device: int, variables: Mapping[str, str], root: Path = Path("/"), run: RunCommand = command) -> None:
        if "nvidia" not in (text(root / "proc/device-tree/compatible") or ""):
            raise NoGpu("not a Jetson")
        folders = [folder for folder in entries(root / "sys/class/devfreq") if GPU_NAMES.search(folder.name)]
        if not folders:
            raise NoGpu("this board shows no GPU in /sys/class/devfreq")
        self._root, self._run, self._folder = root, run, folders[0]
        self._name = board(root) or "NVIDIA Jetson"
        choose([Listed(0, "", self._name)], device, variables)

    def facts(self) -> dict[str, Any]:
        """What does not change while work runs."""
        answer = self._run(["nvpmodel", "-q"])
        mode = MODE.search(answer[1]) if answer is not None else None
        release = RELEASE.search(text(self._root / "etc/nv_tegra_release") or "")
        lowest, highest = self._mhz("min_freq"), self._mhz("max_freq")
        return {
            "name": self._name,
            "index": 0,
            "sure": True,
            "driver": f"L4T {release[1]}.{release[2]}" if release else None,
            "min_sm_clock_mhz": lowest,
            "max_sm_clock_mhz": highest,
            "governor": text(self._folder / "governor"),
            "clocks_locked": lowest == highest if lowest is not None and highest is not None else None,
            "power_mode": mode[1].strip() if mode else None,
        }

    def state(self) -> dict[str, Any]:
        """What changes from moment to moment."""
        zones = [value for name, value in temperatures_c(self._root).items() if "gpu" in name.lower()]
        return {"sm_clock_mhz": self._mhz("cur_freq"), "temperature_c": max(zones, default=None)}

    def other_processes(self) -> int | None:
        """Not told."""
        return None

    def close(self) -> None:
        """Nothing is held."""

    def _mhz(self, name: str) -> float | None:
        hertz = number(self._folder / name)
        return None if hertz is None else round(hertz / 1e6, 1)
