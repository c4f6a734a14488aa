"""A runtime at a part of its capacity for long: that it grows in nothing, and that every request has one answer, its own."""

from __future__ import annotations

import os
import tempfile
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.cells.cell import Array
from benchmarks.load.capacity import capacity_of, median_times
from benchmarks.load.figures import figures
from benchmarks.load.in_process import facts_of, images_of, play
from benchmarks.load.traces import POISSON, draw
from benchmarks.machine.environment import environment, study_command
from benchmarks.studies.serving.bundles import published_bundle
from slimexport.target.serving.answer import Answer, Snapshot
from slimexport.target.serving.policy import FIXED
from slimexport.target.serving.runtime import Runtime
from slimtrain.base.errors import ResourceError
from slimtrain.base.text import duration

SELF = Path("/proc/self")
EVERY_S = 10.0
LOOKS = 20  # at least, in a run
SETTLED = 0.25  # of a run, after which nothing may grow: rings fill, allocators find their size
MOST_GROWTH_MIB = 16.0
TOLERANCE = 1e-3  # of an answer, relative to its largest number: batches round otherwise
IMAGES = 16
DEADLINE_MS = 60_000.0
PAGE_MIB = os.sysconf("SC_PAGE_SIZE") / 2**20 if hasattr(os, "sysconf") else 0.0


@dataclass(frozen=True)
class Held:
    """What this process holds, so long after the beginning."""

    at_s: float
    memory_mib: float
    threads: int
    handles: int


def held(at_s: float) -> Held:
    """Now. ResourceError where the system does not tell."""
    try:
        pages = int((SELF / "statm").read_text().split()[1])
        return Held(at_s, pages * PAGE_MIB, len(os.listdir(SELF / "task")), len(os.listdir(SELF / "fd")))
    except OSError as error:
        raise ResourceError(f"{SELF}: cannot be read ({error.strerror}). A soak needs Linux.") from error


def growth(looks: Sequence[Held]) -> dict[str, float]:
    """By how much the most that was held in the second half exceeds the most in the first, once all has settled."""
    settled = [look for look in looks if look.at_s >= SETTLED * looks[-1].at_s]
    middle = len(settled) // 2
    earlier, later = settled[:middle], settled[middle:]
    if not earlier:
        return {}
    names = ("memory_mib", "threads", "handles")
    return {name: max(getattr(look, name) for look in later) - max(getattr(look, name) for look in earlier) for name in names}


def grows(by: Mapping[str, float]) -> bool:
    """Whether that is more than noise."""
    return by.get("memory_mib", 0.0) > MOST_GROWTH_MIB or by.get("threads", 0) > 0 or by.get("handles", 0) > 0


def unaccounted(before: Snapshot, after: Snapshot, sent: int) -> int:
    """Requests that the runtime's own books, which know nothing of who sent them, have more or fewer of than were sent: as
    submitted, or as ended."""

    def ended(now: Snapshot) -> int:
        return now.answered + now.failed + sum(now.refused.values()) + now.cancelled

    return abs(after.submitted - before.submitted - sent) + abs(ended(after) - ended(before) - sent)


class Answers:
    """Whether answers are those of their images, by what every width gives of every image alone."""

    def __init__(self, runtime: Runtime, images: Sequence[Array]) -> None:
        self.compared = self.wrong = 0
        self._count = len(images)
        self._right: dict[str, list[Array]] = {}
        before = runtime.policy
        for info in runtime.widths:
            runtime.policy = f"{FIXED}:{info.label}"
            self._right[info.label] = [_one(runtime.submit(image, DEADLINE_MS).result()) for image in images]
        runtime.policy = before

    def __call__(self, number: int, answer: Answer) -> None:
        right = self._right[answer.name][number % self._count]
        given = _one(answer)
        self.compared += 1
        if given.shape != right.shape or not np.abs(given - right).max() <= TOLERANCE * np.abs(right).max():
            self.wrong += 1


def _one(answer: Answer) -> Array:
    """An answer's numbers in a row, those of several outputs after each other."""
    parts = answer.output.values() if isinstance(answer.output, dict) else [answer.output]
    return np.concatenate([np.asarray(part, np.float64).ravel() for part in parts])


class Looking(threading.Thread):
    """Looks at what this process holds until it is ended."""

    def __init__(self, every_s: float) -> None:
        super().__init__(name="soak looks", daemon=True)
        self.every_s = every_s
        self.looks: list[Held] = []
        self._ended = threading.Event()
        self._began = time.monotonic()

    def run(self) -> None:
        while not self._ended.wait(self.every_s):
            self.looks.append(held(time.monotonic() - self._began))

    def end(self) -> list[Held]:
        self._ended.set()
        self.join()
        return self.looks


def soak(given: Path | None, seconds: float, load: float, slo_ms: float, seed: int) -> dict[str, Any]:
    """A Poisson trace of `load` of the widest's capacity; printed, and given as plain values."""
    before = environment()
    held(0.0)
    with tempfile.TemporaryDirectory() as name:
        bundle = published_bundle(Path(name), given)
        with Runtime(bundle, slo_ms=slo_ms) as runtime:
            images = images_of(runtime.manifest.input.input_shape, seed, IMAGES)
            facts = facts_of(runtime.widths)
            capacity = capacity_of(median_times(runtime, facts[-1].label, images[0]))
            checked = Answers(runtime, images)
            earlier = runtime.stats()
            trace = draw(POISSON, load * capacity, seconds, seed)
            print(f"{len(trace):,} requests at {trace.rate:.1f} per second, {duration(seconds)}", flush=True)
            looking = Looking(min(EVERY_S, seconds / LOOKS))
            looking.start()
            samples = play(runtime, trace.times_s, images, slo_ms, on_answer=checked)
            looks = looking.end()
            counts = runtime.stats()
    of_policy = figures("drain", [samples], samples, slo_ms, seconds, facts)
    by = growth(looks)
    lost = {
        "lost": of_policy.lost,
        "doubled": of_policy.doubled,
        "wrong": checked.wrong,
        "failed": of_policy.failed,
        "not_compared": of_policy.answered - checked.compared,
        "not_accounted": unaccounted(earlier, counts, of_policy.requests),
    }
    print(f"grown by: {', '.join(f'{name} {value:g}' for name, value in by.items()) or 'not seen, the run was too short'}")
    print(f"{of_policy.requests:,} requests, {100 * of_policy.attainment:.3f} % in time; {lost}")
    return {
        "command": study_command("benchmarks.studies.serving"),
        "environment": before,
        "seconds": seconds,
        "trace": trace.as_dict(),
        "figures": of_policy.as_dict(),
        "answers": lost,
        "runtime": {"answered": counts.answered, "failed": counts.failed, "refused": dict(counts.refused)},
        "growth": by,
        "holds": bool(by) and not grows(by) and not any(lost.values()),  # what was not seen does not hold
        "held": [asdict(look) for look in looks],
    }
