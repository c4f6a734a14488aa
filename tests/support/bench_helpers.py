"""A made-up machine for tests of measuring: its clock moves only when a network runs, its networks do what a test says.

    machine = Machine()
    machine.networks["a"] = Behaviour(takes=0.002)
    results = machine.measure([cell("a"), cell("b")], Method(duration_s=0.1, repeats=2, warmup_s=0.01))

`machine.log` has what happened in order: ("open", "a"), ("run", "a", 0), ("logits", "a", 4), ("close", "a").
Without a machine, `result([[1.0, 1.1], [1.2]])` makes a measured result from samples in milliseconds.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.cells.backends import ONNXRUNTIME_CPU
from benchmarks.cells.cell import MEASURED, Array, Cell, Inputs, Options, Result, Round, Timing
from benchmarks.measure.turns import CellSource, Method, measure

PROBES = np.random.default_rng(0).standard_normal((2, 3, 4, 4), np.float32)
CLASSES = 5
GIB = 1 << 30


def cell(name: str = "net_x1_0", **changes: Any) -> Cell:
    """A cell of a bundle `bundle`; `changes` to its fields."""
    plain = Cell(
        bundle="bundle",
        network="net",
        name=name,
        plan=name.removeprefix("net_"),
        width=1.0,
        label="1.0x",
        file=f"{name}.onnx",
        backend=ONNXRUNTIME_CPU,
        precision="fp32",
        batch=1,
        image_size=4,
        macs=1000,
        params=100,
        size_bytes=400,
    )
    return replace(plain, **changes)


def result(
    rounds_ms: Sequence[Sequence[float]], of: Cell | None = None, *, gpu: bool = False, enqueue: float = 0.1, **changes: Any
) -> Result:
    """A measured result. With `gpu`, samples are device times; wall times are 1 ms longer, and queueing takes `enqueue` of
    the device time. `changes` to its fields; `states` are the rounds' states."""
    states = changes.pop("states", [{}] * len(rounds_ms))

    def samples(values: Sequence[float]) -> dict[str, list[float]]:
        if not gpu:
            return {"wall": list(values)}
        return {"wall": [v + 1 for v in values], "device": list(values), "enqueue": [enqueue * v for v in values]}

    rounds = tuple(Round(samples(values), state) for values, state in zip(rounds_ms, states, strict=True))
    return replace(Result(of or cell(), MEASURED, rounds=rounds), **changes)


class FakeClock:
    """Seconds that pass when told to."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now

    def advance(self, seconds: float) -> None:
        self.now += seconds


def logits_of(images: Array) -> Array:
    """What the made-up networks compute, float64 [N, CLASSES]."""
    return np.stack([(images * (place + 1)).sum((1, 2, 3)) + place for place in range(CLASSES)], 1).astype(np.float64)


@dataclass
class Behaviour:
    """What a network does.

    `takes`: seconds of an iteration, or a function of the time at its start; more than 0, or the clock stands still and
    measuring has no end. `timer`: what its timer says of them. `at_open`, `at_run` (by number of the iteration, from 0, over
    all openings) and `at_logits` are raised. `needs_bytes` of memory while open. `logits`: its outputs, where they are wrong.
    """

    takes: float | Callable[[float], float] = 0.001
    timer: Callable[[float], float] = float
    at_open: BaseException | None = None
    at_run: Mapping[int, BaseException] = field(default_factory=dict)
    at_logits: BaseException | None = None
    needs_bytes: int = 0
    logits: Callable[[Array], Array] = logits_of
    runs: int = 0


class FakeRunner:
    """A network that is open on a machine."""

    def __init__(self, machine: Machine, name: str, behaviour: Behaviour) -> None:
        self.machine, self.name, self.behaviour = machine, name, behaviour
        self.settings: Mapping[str, Any] = {"threads": 1}
        self.closed = False

    def run(self, index: int) -> Timing:
        assert not self.closed, f"{self.name} runs although it is closed"
        count, self.behaviour.runs = self.behaviour.runs, self.behaviour.runs + 1
        if count in self.behaviour.at_run:
            raise self.behaviour.at_run[count]
        self.machine.log.append(("run", self.name, index))
        takes = self.behaviour.takes
        seconds = takes(self.machine.clock()) if callable(takes) else takes
        self.machine.clock.advance(seconds)
        return Timing(wall=self.behaviour.timer(seconds))

    def logits(self, images: Array) -> Array:
        self.machine.log.append(("logits", self.name, len(images)))
        if self.behaviour.at_logits is not None:
            raise self.behaviour.at_logits
        return self.behaviour.logits(images)

    def close(self) -> None:
        assert not self.closed, f"{self.name} is closed twice"
        self.closed = True
        self.machine.open.remove(self)
        self.machine.log.append(("close", self.name))


class NoInputs:
    """Images that no made-up network looks at."""

    def buffers(self, batch: int, cache_bytes: int) -> list[Array]:
        return []


class Machine:
    """Networks by the name of their cell, a clock, a log, the runners that are open, and memory that they take."""

    def __init__(self) -> None:
        self.clock = FakeClock()
        self.networks: dict[str, Behaviour] = {}
        self.log: list[tuple[Any, ...]] = []
        self.open: list[FakeRunner] = []
        self.reported: list[Result] = []
        self.memory_bytes = GIB
        self.held: int | None = None  # what the process holds besides networks; None: the system does not tell

    def opener(self, cell: Cell, folder: Path, inputs: Inputs, options: Options) -> FakeRunner:
        behaviour = self.networks.setdefault(cell.name, Behaviour())
        if behaviour.at_open is not None:
            raise behaviour.at_open
        if behaviour.needs_bytes > self._left():
            raise MemoryError(f"{behaviour.needs_bytes} bytes")
        runner = FakeRunner(self, cell.name, behaviour)
        self.open.append(runner)
        self.log.append(("open", cell.name))
        return runner

    def left_bytes(self) -> int | None:
        return None if self.held is None else self._left()

    def held_bytes(self) -> int | None:
        return None if self.held is None else self.held + self._taken()

    def _taken(self) -> int:
        return sum(runner.behaviour.needs_bytes for runner in self.open)

    def _left(self) -> int:
        return self.memory_bytes - (self.held or 0) - self._taken()

    def measure(self, cells: Sequence[Cell], method: Method, reference_of: Any = None, **changes: Any) -> list[Result]:
        """`measure` on this machine; `changes` to its arguments."""
        source = CellSource(lambda cell: Path(), self.opener, lambda size: NoInputs(), Options(), reference_of)
        arguments: dict[str, Any] = {"on_result": self.reported.append, "clock": self.clock, "memory": self}
        return measure(cells, source, method, **{**arguments, **changes})

    def visits(self) -> list[tuple[str, int]]:
        """The networks in the order in which they ran, with the number of iterations in one go."""
        visits: list[tuple[str, int]] = []
        for name in (entry[1] for entry in self.log if entry[0] == "run"):
            if visits and visits[-1][0] == name:
                visits[-1] = (name, visits[-1][1] + 1)
            else:
                visits.append((name, 1))
        return visits
