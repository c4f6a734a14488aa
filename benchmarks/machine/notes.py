"""What a reader should know of a recorded environment: the lines at a report's head, and what makes figures doubtful.

Environments may come from files, of other versions too: whatever is missing is passed over.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from benchmarks.machine.gpu_reasons import IDLE, slowing
from slimtrain.base.text import count

CLOCK_CHANGE = 0.05
OTHER_LOAD = 0.2  # cores
STEAL = 0.1  # cores
CLOCKS = (("SM", "max_sm_clock_mhz"), ("memory", "max_memory_clock_mhz"))
STEADY = "performance"  # the governor that does not follow the load


def describe(environment: Mapping[str, Any]) -> list[str]:
    """Plain lines: CPU, its clocks, limits, GPU, system and versions."""
    lines = [_cpu_line(environment), _clock_line(environment), _limit_line(environment), _gpu_line(environment)]
    versions = _of(environment, "packages")
    system = [environment.get("system"), f"Python {environment['python']}" if environment.get("python") else None]
    lines.append(_listing("System", [*system, *(f"{name} {version}" for name, version in versions.items())]))
    lines.append(_listing("Set", [f"{name}={value}" for name, value in _of(environment, "variables").items()]))
    lines.append(_listing("Commit", [environment.get("commit")]))
    return [line for line in lines if line]


def notes(before: Mapping[str, Any], after: Mapping[str, Any]) -> list[str]:
    """What makes figures doubtful that were measured between two environments; empty if nothing is known to."""
    said = [*_setup_notes(before), *_load_notes(before, after), *_throttle_notes(before, after)]
    for name, old, new in _clocks(before, after):
        if abs(new - old) > CLOCK_CHANGE * old:
            said.append(f"the {name} clock was {old:.0f} MHz before and {new:.0f} MHz after: times drifted with it.")
    return said


def _of(environment: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    """A part of an environment, empty where it is missing."""
    part = environment.get(name)
    return part if isinstance(part, Mapping) else {}


def _listing(title: str, parts: Sequence[Any]) -> str:
    known = [str(part) for part in parts if part]
    return f"{title}: {', '.join(known)}" if known else ""


def _count(value: Any, name: str) -> str | None:
    return f"{value} {name}{'' if value == 1 else 's'}" if value else None


def _size(kib: Any) -> str:
    return f"{kib / 1024:g} MiB" if kib >= 1024 else f"{kib:g} KiB"


def _cpu_line(environment: Mapping[str, Any]) -> str:
    caches = _of(environment, "caches")
    named = [("L1d", caches.get("l1d_kib")), ("L2", caches.get("l2_kib"))]
    if (caches.get("last_level") or 0) > 2:
        named.append((f"L{caches['last_level']}", caches.get("last_level_kib")))
    memory = environment.get("memory_mib")
    parts = [
        environment.get("cpu"),
        environment.get("machine"),
        _count(environment.get("sockets"), "socket"),
        _count(environment.get("physical_cores"), "core"),
        _count(environment.get("cores"), "logical CPU"),
        *(f"{name} {_size(kib)}" for name, kib in named if kib),
        f"memory {memory / 1024:.1f} GiB" if memory else None,
        "a virtual machine" if environment.get("virtual") else None,
    ]
    return _listing("CPU", parts)


def _clock_line(environment: Mapping[str, Any]) -> str:
    clocks = _of(environment, "clocks")
    low, high, busy, turbo = (clocks.get(name) for name in ("min_mhz", "max_mhz", "busy_mhz", "turbo"))
    parts = [
        f"governor {clocks['governor']}" if clocks.get("governor") else None,
        f"{low:.0f} to {high:.0f} MHz" if low and high else None,
        f"{busy / 1000:.1f} GHz when busy" if busy else None,  # coarse: heads before and after a run are compared
        None if turbo is None else f"turbo {'on' if turbo else 'off'}",
    ]
    return _listing("CPU clocks", parts) or ("CPU clocks: not visible here" if "clocks" in environment else "")


def _limit_line(environment: Mapping[str, Any]) -> str:
    quota, memory, usable = (environment.get(name) for name in ("cpu_quota_cores", "memory_limit_mib", "usable_cpus"))
    parts = [
        f"CPUs {environment.get('affinity')}" if usable and usable < (environment.get("cores") or usable) else None,
        f"CPU time of {quota:g} cores" if quota else None,
        f"memory {memory / 1024:.1f} GiB" if memory else None,
    ]
    return _listing("Limited to", parts)


def _gpu_line(environment: Mapping[str, Any]) -> str:
    gpu, reason = _of(environment, "gpu"), environment.get("gpu_reason")
    if not gpu:
        return f"GPU: none seen ({reason})" if reason else ""
    limit, memory = gpu.get("power_limit_w"), gpu.get("memory_mib")
    parts = [
        gpu.get("name"),
        f"{memory / 1024:.0f} GiB" if memory else None,
        f"driver {gpu['driver']}" if gpu.get("driver") else None,
        *(f"{name} clock up to {gpu[key]:g} MHz" for name, key in CLOCKS if gpu.get(key)),
        f"power limit {limit:g} W" if limit else None,
        f"power mode {gpu['power_mode']}" if gpu.get("power_mode") else None,
        None if gpu.get("ecc") is None else f"ECC {'on' if gpu['ecc'] else 'off'}",
        "MIG on" if gpu.get("mig") else None,
    ]
    return _listing("GPU", parts)


def _setup_notes(before: Mapping[str, Any]) -> list[str]:
    said = []
    governor, quota, usable = _of(before, "clocks").get("governor"), before.get("cpu_quota_cores"), before.get("usable_cpus")
    if governor and governor != STEADY:
        said.append(f"the CPU's governor is {governor}, not {STEADY}: its clocks follow the load, times include ramps.")
    if before.get("virtual"):
        said.append("this is a virtual machine: other guests may use its cores, and its clocks and throttling may not show.")
    if quota and usable and quota < usable:
        said.append(
            f"only {quota:g} cores' worth of CPU time is allowed on {usable} CPUs: work of more threads is stopped at times."
        )
    if before.get("on_battery"):
        said.append("the computer runs from its battery, which may lower its clocks.")
    if _of(before, "gpu").get("sure") is False:
        said.append(
            f"which GPU CUDA used is not certain among different ones; {_of(before, 'gpu').get('name')} was read. "
            "Set CUDA_DEVICE_ORDER=PCI_BUS_ID."
        )
    return said


def _load_notes(before: Mapping[str, Any], after: Mapping[str, Any]) -> list[str]:
    said = []
    load, steal = (max(environment.get(name) or 0 for environment in (before, after)) for name in ("other_load", "steal"))
    others = _of(before, "gpu").get("other_processes")
    if load > OTHER_LOAD:
        said.append(f"other processes kept {load:.1f} cores busy before or after.")
    if steal > STEAL:
        said.append(f"the hypervisor gave {steal:.1f} cores' worth of this machine's time to others before or after.")
    if others:
        said.append(f"processes besides this one that had the GPU open: {others}.")
    return said


def _throttle_notes(before: Mapping[str, Any], after: Mapping[str, Any]) -> list[str]:
    said = []
    old, new = _of(before, "throttle_counts"), _of(after, "throttle_counts")
    for name, what in (("thermal", "slowed down for heat"), ("quota", "stopped because its CPU time was used up")):
        times = (new.get(name) or 0) - (old.get(name) or 0) if name in old else 0
        if times > 0:
            said.append(f"the CPU was {what} {count(times, 'time')} in between.")
    states = [_of(_of(environment, "gpu"), "state") for environment in (before, after)]
    reasons = slowing(name for state in states for name in state.get("reasons") or ())
    if reasons:
        said.append(f"the GPU's clocks were held down before or after: {', '.join(reasons)}.")
    return said


def _clocks(before: Mapping[str, Any], after: Mapping[str, Any]) -> list[tuple[str, float, float]]:
    """Clocks that can be compared: the CPU's when busy, and the GPU's where it was idle at neither end."""
    pairs = [("CPU's", _of(before, "clocks").get("busy_mhz"), _of(after, "clocks").get("busy_mhz"))]
    states = [_of(_of(environment, "gpu"), "state") for environment in (before, after)]
    if all(state.get("reasons") is not None and IDLE not in state["reasons"] for state in states):
        names = (("GPU's SM", "sm_clock_mhz"), ("GPU's memory", "memory_clock_mhz"))
        pairs += [(name, states[0].get(key), states[1].get(key)) for name, key in names]
    return [(name, old, new) for name, old, new in pairs if old and new]
