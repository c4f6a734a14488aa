"""Measuring cells: group by group, all networks of a group open at once and taking turns (see `rounds`).

As trtexec does, an iteration count and a duration must both be reached after a warm-up, which every turn begins with: a
network that waited for others has cold caches and, on GPUs, low clocks. What cannot be measured is a result with its reason,
and the rest goes on.
"""

from __future__ import annotations

import gc
import math
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from benchmarks.cells.cell import NOT_MEASURED, Cell, CellRunner, Inputs, Opener, Options, OutOfMemory, Result, Timing
from benchmarks.machine.host_memory import HostMemory
from benchmarks.measure.method import BadMethod, Method, by_group, expected_seconds
from benchmarks.measure.output_check import Reference, check_output
from benchmarks.measure.progress import OnProgress
from benchmarks.measure.rounds import Turn, collection_paused, iterate, schedule, warm_up
from benchmarks.measure.track import Track
from slimtrain.base.errors import UserError

__all__ = ["BadMethod", "CellSource", "Interrupted", "Method", "StateWatcher", "expected_seconds", "measure"]

ROOM = 2  # so many times what the largest network took must be left in the host's memory for the next one
BEFORE = "interrupted before it was measured"


class Interrupted(KeyboardInterrupt):
    """Ctrl-C while measuring; `results` has one for every cell, all of them reported."""

    def __init__(self, results: list[Result]) -> None:
        super().__init__("interrupted")
        self.results = results


class StateWatcher(Protocol):
    """Watches the machine between `start` and `stop`, which says what it saw (`Round.state`)."""

    def start(self) -> None: ...

    def stop(self) -> Mapping[str, Any]: ...


class Memory(Protocol):
    """The host's memory: left, and held by this process; None where that is unknown."""

    def left_bytes(self) -> int | None: ...

    def held_bytes(self) -> int | None: ...


class NothingWatched:
    """Watches nothing."""

    def start(self) -> None:
        """Nothing to begin."""

    def stop(self) -> Mapping[str, Any]:
        """Nothing seen."""
        return {}


@dataclass(frozen=True)
class CellSource:
    """Where the networks of cells come from. `folder_of`: a cell's bundle. `opener` loads it, with `options` and the images
    that `inputs_of` gives for it. `reference_of`: what its output is held against, see `check_output`; without it outputs
    are not checked."""

    folder_of: Callable[[Cell], Path]
    opener: Opener
    inputs_of: Callable[[Cell], Inputs]
    options: Options
    reference_of: Callable[[Cell], Reference | None] | None = None

    def open(self, cell: Cell) -> CellRunner:
        """Load a cell's network. Raises what the opener raises."""
        return self.opener(cell, self.folder_of(cell), self.inputs_of(cell), self.options)


def measure(
    cells: Sequence[Cell],
    source: CellSource,
    method: Method,
    *,
    on_result: Callable[[Result], None] = lambda result: None,
    progress: OnProgress = lambda doing, done, total: None,
    watcher: StateWatcher | None = None,
    clock: Callable[[], float] = time.perf_counter,
    memory: Memory | None = None,
) -> list[Result]:
    """Measure `cells`; one result for each, in their order. `on_result` gets each as soon as it is final; `progress` counts
    rounds.

    A cell is NOT_MEASURED, with the reason, where its opener, its network or the check of its output raises a UserError
    (NotMeasured, BundleError, MissingBackend, ...), or memory runs out although no other network is open. Other errors
    propagate, after what was measured so far was reported. Ctrl-C raises Interrupted, with the same: INTERRUPTED for cells
    that lack samples of some rounds. Runners are closed in all cases.
    """
    run = _Run(list(cells), source, method, on_result, progress, watcher or NothingWatched(), clock, memory or HostMemory())
    try:
        for places in by_group(cells):
            waiting = places
            alone: list[int] = []
            while waiting:
                waiting, ran_out = run.together(waiting)
                alone += ran_out
            for place in alone:
                run.together([place])
    except KeyboardInterrupt:
        run.keep()
        for place, cell in enumerate(cells):
            if place not in run.results:
                run.report(place, Result(cell, NOT_MEASURED, BEFORE))
        raise Interrupted([run.results[place] for place in range(len(cells))]) from None
    progress("done", run.done, run.total)
    return [run.results[place] for place in range(len(cells))]


@dataclass
class _Run:
    """A call of `measure` under way."""

    cells: list[Cell]
    source: CellSource
    method: Method
    on_result: Callable[[Result], None]
    progress: OnProgress
    watcher: StateWatcher
    clock: Callable[[], float]
    memory: Memory
    results: dict[int, Result] = field(default_factory=dict)
    notes: dict[int, str] = field(default_factory=dict)
    tracks: list[Track] = field(default_factory=list)

    @property
    def total(self) -> int:
        return len(self.cells) * self.method.repeats

    @property
    def done(self) -> float:
        """Rounds taken, or given up."""
        taken = sum(track.rounds_done for track in self.tracks if track.place not in self.results)
        return len(self.results) * self.method.repeats + taken

    def report(self, place: int, result: Result) -> None:
        self.results[place] = result
        self.on_result(result)

    def together(self, places: Sequence[int]) -> tuple[list[int], list[int]]:
        """Measure the cells at `places` in turns. Returns those that found no memory to be opened, to be tried without the
        others, and those that ran out of it while others were open, to be tried alone."""
        alone: list[int] = []
        with ExitStack() as closers:
            try:
                later = self._open_all(places, closers)
                for turn in schedule(len(self.tracks), self.method.repeats):
                    track = self.tracks[turn.cell]
                    if track.is_open and not self._take(track, turn):
                        alone.append(track.place)
            finally:
                self.keep()
        gc.collect()  # what a closed network leaves in reference cycles is memory that the next ones need
        return later, alone

    def keep(self) -> None:
        """Report what the open networks have, but for what is reported already: Ctrl-C may come in between."""
        for track in self.tracks:
            if track.is_open and track.samples and track.place not in self.results:
                self.report(track.place, track.result(self.method.repeats))
        self.tracks = []

    def _open_all(self, places: Sequence[int], closers: ExitStack) -> list[int]:
        """Open the cells at `places`, in `tracks`. Returns those from the first that found too little memory on."""
        largest = 0
        for at, place in enumerate(places):
            cell = self.cells[place]
            self.progress(f"opening {_description(cell)}", self.done, self.total)
            closer = ExitStack()
            closers.callback(closer.close)
            held = self.memory.held_bytes()
            try:
                self._require_room(largest)
                self.tracks.append(self._open(place, closer))
            except (UserError, MemoryError) as error:
                closer.close()
                if _is_memory(error) and self.tracks:
                    for later in places[at:]:
                        self.notes[later] = (
                            f"memory ran out with {len(self.tracks)} networks open, so it was measured apart from them: a "
                            "drift of the machine in between is not evened out."
                        )
                    return list(places[at:])
                self.report(place, _refused(cell, error))
            now = self.memory.held_bytes()
            if held is not None and now is not None:
                largest = max(largest, now - held)
        return []

    def _require_room(self, largest: int) -> None:
        """OutOfMemory where the host has too little left for another network like the largest: the kernel would not say so,
        it would end the process."""
        left = self.memory.left_bytes()
        if self.tracks and left is not None and left < ROOM * largest:
            raise OutOfMemory(f"the host has {left / 2**20:.0f} MiB left, the largest network took {largest / 2**20:.0f} MiB")

    def _open(self, place: int, closer: ExitStack) -> Track:
        cell = self.cells[place]
        reference_of = self.source.reference_of
        reference = reference_of(cell) if reference_of else None
        runner = self.source.open(cell)
        closer.callback(runner.close)
        notes = [self.notes[place]] if place in self.notes else []
        if reference is not None:
            notes += filter(None, [check_output(runner, cell, reference)])
        elif reference_of is not None:
            notes.append("its output was not checked: its bundle has no reference for it.")
        return Track(place, cell, runner, closer, notes)

    def _take(self, track: Track, turn: Turn) -> bool:
        """Warm up and measure a turn. False where memory ran out for it beside others; a failure else is reported."""
        self.progress(f"round {turn.round + 1} of {self.method.repeats}: {_description(track.cell)}", self.done, self.total)
        try:
            self._iterate(track, turn)
        except (UserError, MemoryError) as error:
            others = any(other.is_open and other is not track for other in self.tracks)
            track.close()
            if _is_memory(error) and others:
                self.notes[track.place] = (
                    "memory ran out while other networks were open, so it was measured alone: a drift of the machine in "
                    "between is not evened out."
                )
                return False
            self.report(track.place, _refused(track.cell, error, track.runner.settings))
        return True

    def _iterate(self, track: Track, turn: Turn) -> None:
        part = turn.share / self.method.repeats
        least = math.ceil(self.method.least_iterations / self.method.repeats * turn.share)
        run = track.runner.run
        track.next_input = warm_up(run, track.next_input, self.method.warmup_s, self.clock)
        timings: list[Timing] = []
        self.watcher.start()  # after the warm-up: what it sees is to be true of the samples
        try:
            with collection_paused():
                iterate(run, track.next_input, timings, self.method.duration_s * part, least, self.clock)
        finally:
            track.keep(turn, timings, self.watcher.stop())
        track.rounds_done += turn.share


def _is_memory(error: Exception) -> bool:
    return isinstance(error, MemoryError | OutOfMemory)


def _refused(cell: Cell, error: Exception, settings: Mapping[str, Any] | None = None) -> Result:
    """The result of a cell that an expected error ended; any other error is raised again."""
    code = error.exit_code if isinstance(error, UserError) else OutOfMemory.exit_code
    return Result(cell, NOT_MEASURED, _reason(error), settings=dict(settings or {}), exit_code=code)


def _reason(error: Exception) -> str:
    """What to say of an expected error; any other is raised again."""
    if isinstance(error, MemoryError):
        return f"the host's memory ran out: {error}" if str(error) else "the host's memory ran out"
    if not isinstance(error, UserError):
        raise error
    return str(error)


def _description(cell: Cell) -> str:
    return f"{cell.name} ({cell.backend}, {cell.precision}, batch {cell.batch})"
