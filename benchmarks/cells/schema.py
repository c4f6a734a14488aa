"""What the lines of a `results.jsonl` hold: types and ranges of all that reports, tables and choices read of them.

Environments, settings and ceilings may come from other versions: what is missing is passed over, what is there is what this
says. Other keys are anything.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any

from benchmarks.cells.cell import INTERRUPTED, MEASURED, NOT_MEASURED, Result
from benchmarks.cells.shares import key_of
from slimexport.target.records import Count, EntryError, Name, Positive, Record, Share, Within, from_json
from slimexport.target.tensors import MOST_INPUT
from slimtrain.base.image_size import ImageSize

Number = Annotated[float, Within(-1e15, 1e15)]
Size = Annotated[float, Within(0, 1e15)]
Rate = Annotated[float, Within(1e-12, 1e24)]  # per second, or seconds
Milliseconds = Annotated[float, Within(0, 1e12)]
STATUSES = (MEASURED, INTERRUPTED, NOT_MEASURED)
LEAST_MS = 1e-6  # of a run: samples have six digits behind the point


@dataclass(frozen=True, kw_only=True)
class CachesEntry(Record):
    l1d_kib: Size | None = None
    l2_kib: Size | None = None
    last_level: Count | None = None
    last_level_kib: Size | None = None


@dataclass(frozen=True, kw_only=True)
class ClocksEntry(Record):
    governor: str | None = None
    min_mhz: Size | None = None
    max_mhz: Size | None = None
    busy_mhz: Size | None = None


@dataclass(frozen=True, kw_only=True)
class GpuStateEntry(Record):
    reasons: tuple[str, ...] | None = None
    sm_clock_mhz: Size | None = None
    memory_clock_mhz: Size | None = None


@dataclass(frozen=True, kw_only=True)
class GpuEntry(Record):
    name: str | None = None
    driver: str | None = None
    power_mode: str | None = None
    memory_mib: Size | None = None
    power_limit_w: Size | None = None
    max_sm_clock_mhz: Size | None = None
    max_memory_clock_mhz: Size | None = None
    state: GpuStateEntry | None = None


@dataclass(frozen=True, kw_only=True)
class ThrottleEntry(Record):
    thermal: Count | None = None
    quota: Count | None = None


@dataclass(frozen=True, kw_only=True)
class EnvironmentEntry(Record):
    """What `benchmarks.machine.notes` reads of a machine."""

    cpu: str | None = None
    machine: str | None = None
    system: str | None = None
    python: str | None = None
    commit: str | None = None
    affinity: str | None = None
    gpu_reason: str | None = None
    sockets: Count | None = None
    cores: Count | None = None
    physical_cores: Count | None = None
    usable_cpus: Count | None = None
    cpu_quota_cores: Size | None = None
    memory_mib: Size | None = None
    memory_limit_mib: Size | None = None
    other_load: Number | None = None
    steal: Number | None = None
    caches: CachesEntry | None = None
    clocks: ClocksEntry | None = None
    throttle_counts: ThrottleEntry | None = None
    gpu: GpuEntry | None = None
    packages: Mapping[str, Any] | None = None
    variables: Mapping[str, Any] | None = None


@dataclass(frozen=True, kw_only=True)
class MethodEntry(Record):
    duration_s: Size
    least_iterations: Count
    repeats: Count
    warmup_s: Size


@dataclass(frozen=True, kw_only=True)
class RunSettingsEntry(Record):
    method: MethodEntry | None = None
    inputs: Mapping[str, Any] | None = None
    threads: Mapping[str, Any] | None = None


@dataclass(frozen=True, kw_only=True)
class HowEntry(Record):
    unavailable: Mapping[str, str] | None = None


@dataclass(frozen=True, kw_only=True)
class CeilingEntry(Record):
    macs_per_s: Rate | None = None
    bytes_per_s: Rate | None = None
    seconds_per_operator: Rate | None = None
    how: HowEntry | None = None


@dataclass(frozen=True, kw_only=True)
class RunLine(Record):
    kind: str
    schema_version: int
    command: str
    environment: EnvironmentEntry | None = None
    settings: RunSettingsEntry | None = None
    ceilings: Mapping[str, CeilingEntry] | None = None


@dataclass(frozen=True, kw_only=True)
class EndLine(Record):
    kind: str
    environment_after: EnvironmentEntry | None = None
    seconds: Size | None = None
    interrupted: bool = False


@dataclass(frozen=True, kw_only=True)
class StateEntry(Record):
    """What was seen during a round: lowest and highest values, or with the median between them."""

    sm_clock_mhz: tuple[Size, ...] | None = None
    memory_clock_mhz: tuple[Size, ...] | None = None
    power_w: tuple[Size, ...] | None = None
    cpu_mhz: tuple[Size, ...] | None = None
    temperature_c: tuple[Number, ...] | None = None
    other_load: Number | None = None
    throttle: tuple[str, ...] | None = None


@dataclass(frozen=True, kw_only=True)
class RoundEntry(Record):
    samples_ms: Mapping[str, tuple[Milliseconds, ...]]
    state: StateEntry = StateEntry()


@dataclass(frozen=True, kw_only=True)
class AccuracyEntry(Record):
    top1: Share | None = None
    images: Count | None = None
    data: str | None = None
    ap: Share | None = None
    ap50: Share | None = None
    ap_masks: Share | None = None
    ap_keypoints: Share | None = None


@dataclass(frozen=True, kw_only=True)
class CellEntry(Record):
    bundle: Name
    network: Name
    name: Name
    plan: Name
    width: Annotated[float, Within(0, 1e6)] | None
    label: Name
    file: Name
    backend: Name
    precision: Name
    batch: Positive
    image_size: ImageSize
    macs: Count
    params: Count
    size_bytes: Count
    activations: Count | None = None
    layers: Count | None = None
    accuracy: AccuracyEntry | None = None
    channels: Positive = 3
    shape: tuple[Positive, ...] | None = None


@dataclass(frozen=True, kw_only=True)
class CellSettingsEntry(Record):
    cache_bytes: Size | None = None


@dataclass(frozen=True, kw_only=True)
class CellLine(Record):
    kind: str
    cell: CellEntry
    status: str
    reason: str
    rounds: tuple[RoundEntry, ...]
    settings: CellSettingsEntry
    warnings: tuple[str, ...]
    exit_code: int = 0


def check_run(line: Mapping[str, Any]) -> None:
    """EntryError where a run's line holds what nothing here can show."""
    from_json(RunLine, line)


def check_end(line: Mapping[str, Any]) -> None:
    """The same of a run's last line."""
    from_json(EndLine, line)


def result_of(line: Mapping[str, Any]) -> Result:
    """The result in a cell's line. EntryError, or what `Result.from_dict` raises."""
    from_json(CellLine, line)
    result = Result.from_dict(line)
    cell, kind = result.cell, result.latency_kind
    if math.prod(cell.image_shape) > MOST_INPUT or min(cell.image_shape, default=1) < 1:
        raise EntryError(f"cell.image_size is {cell.image_size}, expected at most {MOST_INPUT:,} numbers of one input")
    if cell.macs < 1:
        raise EntryError(f"cell.macs is {cell.macs}, expected 1 or more")
    if cell.accuracy is not None and cell.accuracy.get(key_of(cell.accuracy)) is None:
        raise EntryError("cell.accuracy has no figure, expected top1 or ap")
    if result.status not in STATUSES:
        raise EntryError(f"status is {result.status[:40]!r}, expected one of {', '.join(STATUSES)}")
    for number, round_ in enumerate(result.rounds):
        samples = round_.samples_ms.get(kind)
        if samples is None or (result.status == MEASURED and not samples):
            raise EntryError(f"rounds[{number}] has no samples of {kind}, expected as many as it was measured")
        if samples and min(samples) < LEAST_MS:
            raise EntryError(f"rounds[{number}] has a sample of {min(samples):g} ms, expected {LEAST_MS:g} or more")
    if result.status == MEASURED and not result.rounds:
        raise EntryError("rounds is [], expected some of what was measured")
    return result
