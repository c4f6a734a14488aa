"""Measuring more networks than memory holds at once, in turns all the same: in each round every network is opened, measured
and closed, forth in one round and back in the next, so that a drift of the machine reaches all alike. What a turn gave is kept
at once in a file, from which a run that was interrupted goes on.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from benchmarks.cells.cell import MEASURED, NOT_MEASURED, Cell, Result
from benchmarks.cells.records import json_line, key_of
from benchmarks.cells.statistics import warnings
from benchmarks.measure.progress import OnProgress
from benchmarks.measure.turns import CellSource, Method, StateWatcher, measure
from slimtrain.base.errors import UserError
from slimtrain.base.files import Advice, disk_error, write_atomically

ADVICE = Advice("What was measured before stays. Free some space and run again.", "Choose another folder.")
PLACES = 4  # of milliseconds that are kept: 0.1 us
Key = tuple[Any, ...]


@dataclass
class Turns:
    """The turns that were taken: for every cell a result of one round each, by round; and what they were measured with."""

    path: Path
    run: dict[str, Any] = field(default_factory=dict)
    taken: dict[tuple[int, Key], Result] = field(default_factory=dict)

    @staticmethod
    def at(path: Path) -> Turns:
        """Those in the file at `path`, none where there is none. A last line that is cut off counts as not taken. UserError
        where the file is another."""
        turns = Turns(path)
        if not path.exists():
            return turns
        lines = path.read_text(encoding="utf-8").split("\n")
        try:
            for content in map(json.loads, lines[:-1]):
                if content["kind"] == "run":
                    turns.run = content
                else:
                    result = Result.from_dict(content)
                    turns.taken[content["round"], key_of(result.cell)] = result
        except (KeyError, TypeError, ValueError) as error:
            raise UserError(f"{path}: is no file of turns ({error}). Remove it, or choose another folder.") from error
        if lines[-1]:  # the next line is to begin where this one did
            write_atomically(path, "\n".join([*lines[:-1], ""]).encode())
        return turns

    def begin(self, run: Mapping[str, Any]) -> None:
        """Keep how and where they are measured; an interrupted run keeps what it began with. UserError where its settings were
        others."""
        if self.run:
            same_settings(self.path, self.run, run)
        else:
            self.run = {"kind": "run", **run}
            self._write(self.run)

    def lack(self, cell: Cell, number: int) -> bool:
        """Whether a turn is still to be taken: a cell that could not be measured in one round is not tried in the others."""
        key = key_of(cell)
        refused = any(of == key and result.status == NOT_MEASURED for (_, of), result in self.taken.items())
        return not refused and (number, key) not in self.taken

    def add(self, number: int, result: Result) -> None:
        """Keep what a turn gave."""
        rounds = tuple(
            replace(
                of, samples_ms={kind: [round(value, PLACES) for value in values] for kind, values in of.samples_ms.items()}
            )
            for of in result.rounds
        )
        result = replace(result, rounds=rounds)
        self.taken[number, key_of(result.cell)] = result
        self._write({"kind": "turn", "round": number, **result.as_dict()})

    def _write(self, content: Mapping[str, Any]) -> None:
        try:
            with self.path.open("a", encoding="utf-8") as lines:
                lines.write(json_line(content) + "\n")
        except OSError as error:
            raise disk_error(self.path, error, ADVICE) from error

    def results(self, cells: Sequence[Cell]) -> list[Result]:
        """The rounds of every cell together, one result for each."""
        return [self._joined(cell) for cell in cells]

    def _joined(self, cell: Cell) -> Result:
        key = key_of(cell)
        parts = [self.taken[place] for place in sorted(self.taken, key=lambda place: place[0]) if place[1] == key]
        if refused := [part for part in parts if part.status == NOT_MEASURED]:
            return refused[0]
        notes = [note for part in parts for note in part.warnings if note not in warnings(replace(part, warnings=()))]
        rounds = tuple(round_ for part in parts for round_ in part.rounds)
        whole = Result(cell, MEASURED, "", rounds, parts[0].settings)
        return replace(whole, warnings=(*dict.fromkeys(notes), *warnings(whole)))


def same_settings(path: Path, before: Mapping[str, Any], now: Mapping[str, Any]) -> None:
    """UserError where what stands in `path` was measured otherwise than asked for now."""
    was, asked = (json.loads(json_line(run["settings"])) for run in (before, now))
    if changed := [key for key in was | asked if was.get(key) != asked.get(key)]:
        differences = ", ".join(f"{key} was {was.get(key)} and is {asked.get(key)}" for key in changed)
        raise UserError(f"{path}: was measured with other settings ({differences}). Choose another --output-dir, or --again.")


def take_turns(
    cells: Sequence[Cell],
    source: CellSource,
    method: Method,
    turns: Turns,
    progress: OnProgress,
    watcher: StateWatcher | None = None,
    clock: Callable[[], float] = time.perf_counter,
) -> None:
    """Measure `cells` in the rounds of `method`, but for the turns that were taken before. Outputs are checked in the first
    round. Ctrl-C leaves what is in `turns`."""
    share = -(-method.least_iterations // method.repeats)
    part = replace(method, duration_s=method.duration_s / method.repeats, repeats=1, least_iterations=share)
    total = len(cells) * method.repeats
    for number in range(method.repeats):
        checked = source if number == 0 else replace(source, reference_of=None)
        for cell in cells if number % 2 == 0 else reversed(cells):
            if turns.lack(cell, number):
                doing = f"round {number + 1} of {method.repeats}: {cell.name}, batch {cell.batch}"
                progress(doing, len(turns.taken), total)
                (result,) = measure([cell], checked, part, watcher=watcher, clock=clock)
                turns.add(number, result)


def settings_of(method: Method, **more: Any) -> dict[str, Any]:
    """What turns must share to be joined."""
    return {"method": asdict(method), **more}
