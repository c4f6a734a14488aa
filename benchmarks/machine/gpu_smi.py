"""A GPU read by `nvidia-smi --query-gpu`, which every driver brings along: for where nvidia-ml-py is not installed.

Names of fields come and go with drivers (`clocks_throttle_reasons.active` became `clocks_event_reasons.active`), and one that
is not known makes the whole query fail: it is left out and the rest asked again. Values that a GPU does not have are `[N/A]`,
`[Not Supported]`, `[Unknown Error]` or the like.
"""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Mapping, Sequence
from typing import Any

from benchmarks.machine.gpu_choice import Listed, NoGpu, choose, short_hash
from benchmarks.machine.gpu_reasons import reason_names
from benchmarks.machine.plain_files import RunCommand, command, to_number

NOT_A_FIELD = re.compile(r'Field "([^"]+)" is not a valid field')
UNAVAILABLE = ("", "N/A", "Not Supported", "Unknown Error")
EVENT_REASONS, THROTTLE_REASONS = "clocks_event_reasons.active", "clocks_throttle_reasons.active"
NUMBERS_OF_FACTS = {
    "memory_mib": "memory.total",
    "power_limit_w": "enforced.power.limit",
    "max_sm_clock_mhz": "clocks.max.sm",
    "max_memory_clock_mhz": "clocks.max.memory",
    "application_sm_clock_mhz": "clocks.applications.graphics",
    "application_memory_clock_mhz": "clocks.applications.memory",
    "pcie_generation": "pcie.link.gen.current",
    "pcie_generation_max": "pcie.link.gen.max",
    "pcie_width": "pcie.link.width.current",
    "pcie_width_max": "pcie.link.width.max",
}
SWITCHES = {"persistence": "persistence_mode", "ecc": "ecc.mode.current", "mig": "mig.mode.current"}
TEXTS = {"driver": "driver_version", "compute_capability": "compute_cap", "compute_mode": "compute_mode"}
NUMBERS_OF_STATE = {
    "sm_clock_mhz": "clocks.current.sm",
    "memory_clock_mhz": "clocks.current.memory",
    "power_w": "power.draw",
    "temperature_c": "temperature.gpu",
    "utilization_percent": "utilization.gpu",
}


class SmiReader:
    """CUDA's device number `device`. Raises NoGpu, with the reason, where nvidia-smi or the GPU is not there."""

    source, in_background = "nvidia-smi", False  # each reading starts a program

    def __init__(self, device: int, variables: Mapping[str, str], run: RunCommand = command) -> None:
        self._run, self._unknown = run, set[str]()
        names = ("nvidia-smi", "/usr/lib/wsl/lib/nvidia-smi") if sys.platform == "linux" else ("nvidia-smi",)
        for self._program in names:
            if (answer := run([self._program, "--query-gpu=index,uuid,name", "--format=csv,noheader,nounits"])) is not None:
                break
        else:
            raise NoGpu("nvidia-smi is not installed, or does not answer")
        code, output = answer
        rows = [row for row in _rows(output) if len(row) == 3 and row[0].isdigit()]
        if code != 0 or not rows:
            raise NoGpu(f"nvidia-smi: {' '.join(output.split())[:200] or f'exit status {code}'}")
        listed = [Listed(int(index), uuid, name) for index, uuid, name in rows]
        self._listed, self._sure = choose(listed, device, variables)

    def facts(self) -> dict[str, Any]:
        """What does not change while work runs."""
        values = self._query([*NUMBERS_OF_FACTS.values(), *SWITCHES.values(), *TEXTS.values()])
        texts: dict[str, Any] = {key: values.get(name) for key, name in TEXTS.items()}
        texts["compute_mode"] = texts["compute_mode"] and texts["compute_mode"].lower().replace("_", " ")
        return {
            "name": self._listed.name,
            "uuid_sha256": short_hash(self._listed.uuid) if self._listed.uuid.startswith("GPU-") else None,
            "index": self._listed.index,
            "sure": self._sure,
            **texts,
            **{key: _whole(to_number(values.get(name))) for key, name in NUMBERS_OF_FACTS.items()},
            **{key: {"Enabled": True, "Disabled": False}.get(values.get(name) or "") for key, name in SWITCHES.items()},
        }

    def state(self) -> dict[str, Any]:
        """What changes from moment to moment."""
        values = self._query([*NUMBERS_OF_STATE.values(), "pstate", EVENT_REASONS, THROTTLE_REASONS])
        mask = values.get(EVENT_REASONS) or values.get(THROTTLE_REASONS)
        return {
            **{key: _whole(to_number(values.get(name))) for key, name in NUMBERS_OF_STATE.items()},
            "reasons": reason_names(int(mask, 16)) if mask and re.fullmatch("0x[0-9A-Fa-f]+", mask) else None,
            "pstate": values.get("pstate"),
        }

    def other_processes(self) -> int | None:
        """How many other processes compute on the GPU. In a container, where numbers of processes differ from the driver's,
        this one counts too."""
        answer = self._run([*self._words(), "--query-compute-apps=pid", "--format=csv,noheader"])
        if answer is None or answer[0] != 0:
            return None
        return sum(row[0] != str(os.getpid()) for row in _rows(answer[1]) if row[0].isdigit())

    def close(self) -> None:
        """Nothing is held."""

    def _words(self) -> list[str]:
        return [self._program, f"--id={self._listed.index}"]

    def _query(self, names: Sequence[str]) -> dict[str, str]:
        """Values of the fields that this nvidia-smi knows and this GPU has."""
        while asked := [name for name in names if name not in self._unknown]:
            answer = self._run([*self._words(), f"--query-gpu={','.join(asked)}", "--format=csv,noheader,nounits"])
            if answer is None:
                return {}
            code, output = answer
            unknown = set(NOT_A_FIELD.findall(output)) & set(asked)
            if not unknown:
                rows = [row for row in _rows(output) if len(row) == len(asked)] if code == 0 else []
                pairs = zip(asked, rows[0], strict=True) if rows else ()
                return {name: value for name, value in pairs if value not in UNAVAILABLE and not value.startswith("[")}
            self._unknown |= unknown
        return {}


def _rows(output: str) -> list[list[str]]:
    return [[value.strip() for value in line.split(",")] for line in output.splitlines() if line.strip()]


def _whole(value: float | None) -> float | int | None:
    """Clocks are whole numbers: 1980, not 1980.0."""
    return int(value) if value is not None and value.is_integer() else value
