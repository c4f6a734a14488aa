"""The GPU that CUDA calls device 0: what it is, and what it does at this moment, by whichever way this machine offers.

In this order: NVML (nvidia-ml-py, optional), a Jetson's own files, nvidia-smi. Nothing here changes a setting.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Protocol

from benchmarks.machine.gpu_choice import NoGpu
from benchmarks.machine.gpu_jetson import JetsonReader
from benchmarks.machine.gpu_nvml import NvmlReader
from benchmarks.machine.gpu_smi import SmiReader


class GpuReader(Protocol):
    """A GPU that can be read. Values that it does not tell are None.

    `in_background`: whether `state` is cheap enough to be called while something is measured. The state has `sm_clock_mhz`,
    `memory_clock_mhz`, `power_w`, `temperature_c`, `utilization_percent`, `pstate` and `reasons`, names of what holds the
    clocks where they are (see gpu_reasons); some only of these.
    """

    source: str
    in_background: bool

    def facts(self) -> dict[str, Any]: ...

    def state(self) -> dict[str, Any]: ...

    def other_processes(self) -> int | None: ...

    def close(self) -> None: ...


def open_gpu(device: int = 0, root: Path = Path("/"), variables: Mapping[str, str] | None = None) -> GpuReader:
    """The best reader of CUDA's device number `device`: the first that can tell its clock, else the first that opens.

    Raises NoGpu, with all reasons, where none opens.
    """
    seen = os.environ if variables is None else variables
    openers: tuple[Callable[[], GpuReader], ...] = (
        lambda: NvmlReader(device, seen),
        lambda: JetsonReader(device, seen, root),
        lambda: SmiReader(device, seen),
    )
    reasons: list[str] = []
    opened: list[GpuReader] = []
    best: GpuReader | None = None
    for opener in openers:
        try:
            opened.append(opener())
        except NoGpu as reason:
            reasons.append(str(reason))
            continue
        if opened[-1].state().get("sm_clock_mhz") is not None:
            best = opened[-1]
            break
    if not opened:
        raise NoGpu("; ".join(reasons))
    best = best or opened[0]
    for reader in opened:
        if reader is not best:
            reader.close()
    return best


def describe_gpu(
    device: int = 0, root: Path = Path("/"), variables: Mapping[str, str] | None = None
) -> tuple[dict[str, Any] | None, str | None]:
    """All about CUDA's device number `device`, with its `state` and `other_processes`; or None and the reason."""
    try:
        reader = open_gpu(device, root, variables)
    except NoGpu as reason:
        return None, str(reason)
    try:
        facts = {"source": reader.source, **reader.facts()}
        return {**facts, "state": reader.state(), "other_processes": reader.other_processes()}, None
    finally:
        reader.close()
