"""What a device does at best, as each library drives it: a large matrix product, a large copy, many tiny operators.

A network's achieved MACs per second mean something only beside what the same library reaches on the same device with the
same threads (the roofline of Williams, Waterman and Patterson, 2009). A ceiling is a maximum, so the fastest of many tries
counts. Nothing is computed from data sheets: what could not be measured is None, with its reason.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import Any

from benchmarks.ceilings.probe import Clocked, Probe
from benchmarks.cells.backends import BACKENDS
from benchmarks.cells.cell import NotMeasured, Options
from benchmarks.runners.failures import OF_THE_TARGET, first_line, reasons

ENOUGH_S = 0.02  # a product that takes this long is large enough
LEAST_SAMPLES = 3


@dataclass(frozen=True)
class Ceilings:
    """Of one backend in one precision: multiply-accumulates per second of a large matrix product, bytes per second (read and
    written) of a large copy, seconds per tiny operator. `how` tells library, device, sizes and samples, and under
    `unavailable` why a figure is None."""

    macs_per_s: float | None = None
    bytes_per_s: float | None = None
    seconds_per_operator: float | None = None
    how: Mapping[str, Any] = field(default_factory=dict)


def measure_ceilings(backend: str, precision: str, options: Options, seconds: float = 1.0) -> Ceilings:
    """The ceilings of `backend` in `precision`, each figure measured for about `seconds`, after finding sizes."""
    return ceilings_of(lambda: BACKENDS[backend].open_probe(precision, options), seconds)


def ceilings_of(opening: Callable[[], AbstractContextManager[Probe]], seconds: float) -> Ceilings:
    """The figures of the probe that `opening` opens; those that it cannot give are None, with their reasons."""
    figures: dict[str, float] = {}
    how: dict[str, Any] = {}
    unavailable: dict[str, str] = {}
    try:
        with reasons(*OF_THE_TARGET), opening() as probe:
            how |= probe.how
            for name, measure in FIGURES.items():
                try:
                    with reasons(*OF_THE_TARGET):
                        figures[name], how[name] = measure(probe, seconds)
                except NotMeasured as error:
                    unavailable[name] = first_line(error)
    except NotMeasured as error:
        unavailable = {name: first_line(error) for name in FIGURES if name not in figures} | unavailable
    return Ceilings(**figures, how=how | ({"unavailable": unavailable} if unavailable else {}))


def samples(clocked: Clocked, seconds: float, clock: Callable[[], float] = time.perf_counter) -> list[float]:
    """What `clocked` takes, again and again for `seconds`, at least LEAST_SAMPLES times; the first time does not count."""
    clocked()
    durations: list[float] = []
    until = clock() + seconds
    while len(durations) < LEAST_SAMPLES or clock() < until:
        durations.append(clocked())
    return durations


def best(durations: Sequence[float]) -> float:
    """The fastest sample. NotMeasured where a clock gave no time."""
    fastest = min(durations)
    if not 0 < fastest < math.inf:
        raise NotMeasured(f"its clock gave {fastest} s")
    return fastest


def _product(probe: Probe, seconds: float) -> tuple[float, dict[str, Any]]:
    """MACs per second, of the first size that takes long enough, or of the largest that works and has room."""
    works = None
    for size in probe.sizes:
        try:
            with reasons(*OF_THE_TARGET), probe.product(size) as clocked:
                if best([clocked() for _ in range(LEAST_SAMPLES)]) >= ENOUGH_S or size == probe.sizes[-1]:
                    return _rate(size, samples(clocked, seconds))
        except NotMeasured:
            if works is None:
                raise
            break
        works = size
    assert works is not None
    with probe.product(works) as clocked:
        return _rate(works, samples(clocked, seconds))


def _rate(size: int, durations: Sequence[float]) -> tuple[float, dict[str, Any]]:
    fastest = best(durations)
    return size**3 / fastest, {"size": size, "samples": len(durations), "best_ms": 1e3 * fastest}


def _copy(probe: Probe, seconds: float) -> tuple[float, dict[str, Any]]:
    """Bytes per second. NotMeasured where source and target fit in the cache: that would be the cache's speed."""
    with probe.copy() as copying:
        moved, cache = copying.moved_bytes, copying.cache_bytes
        if moved <= cache:
            raise NotMeasured(f"there is room to copy {moved >> 21} MiB only, and the cache holds {cache >> 20} MiB")
        durations = samples(copying.clocked, seconds)
    fastest, sizes = best(durations), {"bytes": moved, "cache_bytes": cache}
    return moved / fastest, {**sizes, "samples": len(durations), "best_ms": 1e3 * fastest}


def _chain(probe: Probe, seconds: float) -> tuple[float, dict[str, Any]]:
    """Seconds per operator: what a chain takes longer than a short one, by operator, so that the cost of a call cancels."""
    fastest, count = [], 0
    for length in probe.lengths:
        with probe.chain(length) as clocked:
            durations = samples(clocked, seconds / 2)
        fastest.append(best(durations))
        count += len(durations)
    (few, many), (short, long) = probe.lengths, fastest
    per_operator = (long - short) / (many - few)
    if per_operator <= 0:
        raise NotMeasured(f"{many} operators took no longer than {few}, so their cost cannot be told")
    return per_operator, {"operators": list(probe.lengths), "samples": count, "best_ms": [1e3 * short, 1e3 * long]}


FIGURES: dict[str, Callable[[Probe, float], tuple[float, dict[str, Any]]]] = {
    "macs_per_s": _product,
    "bytes_per_s": _copy,
    "seconds_per_operator": _chain,
}
