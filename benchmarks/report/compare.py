"""An earlier run next to this one: which cells changed, and which differences are noise.

A cell changed where its intervals do not overlap, each from the lowest to the highest median of a round. Rounds of one run
share a process and its memory layout, so a difference between two processes of the same code may be told as a change; and of
cells that did not change, some fall apart by chance (`chance`). More rounds make that rare.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from math import comb
from typing import Any

from benchmarks.cells.cell import Cell, Result
from benchmarks.cells.records import Recorded, json_line, key_of
from benchmarks.cells.statistics import Summary, overlap, summary

SLOWER, FASTER, NO_CHANGE = "slower", "faster", "no change"
ONE_ROUND = "unknown: one round"
OTHER_KIND = "unknown: one is by GPU events, the other by wall time"
ONLY_OLD, ONLY_NEW = "only in the baseline", "only in this run"
UNMEASURED_OLD, UNMEASURED_NEW = "not measured in the baseline", "not measured in this run"
UNMEASURED = "not measured in either"
# Words in names of what differs from one minute to the next.
PASSING = {
    *("load", "time", "date", "busy", "temperature", "temperatures", "free", "available", "uptime", "state", "pid"),
    *("processes", "steal", "throttle"),
}


@dataclass(frozen=True)
class Change:
    """A cell in both runs, or in one. `old` and `new` are None where it has no figures; `chance` is how likely the verdict
    SLOWER or FASTER comes about for a cell that did not change, None where there is no such verdict to be had. `warned`: one
    of the results has warnings, so the machine may have changed and not the network."""

    cell: Cell
    verdict: str
    old: Summary | None = None
    new: Summary | None = None
    chance: float | None = None
    warned: bool = False

    @property
    def ratio(self) -> float | None:
        """The new median over the old one."""
        return self.new.median_ms / self.old.median_ms if self.old and self.new else None


def compare(old: Recorded, new: Recorded) -> list[Change]:
    """The changes of all cells, in the order of the new run; cells of the old run alone come last. The same cell has the same
    network, name, backend, precision, batch and image size."""
    keys = [[key_of(result.cell) for result in run.results] for run in (old, new)]
    # Two bundles of one network are told apart by their names
    twice = any(len(set(of_run)) < len(of_run) for of_run in keys)
    before, after = (
        {(result.cell.bundle if twice else "", key_of(result.cell)): result for result in run.results} for run in (old, new)
    )
    changes = [
        _change(before[key], result) if key in before else Change(result.cell, ONLY_NEW, new=summary(result))
        for key, result in after.items()
    ]
    gone = (result for key, result in before.items() if key not in after)
    return changes + [Change(result.cell, ONLY_OLD, old=summary(result)) for result in gone]


def _change(old: Result, new: Result) -> Change:
    first, second = summary(old), summary(new)
    if first is None or second is None:
        verdict = UNMEASURED if first is second else UNMEASURED_OLD if first is None else UNMEASURED_NEW
        return Change(new.cell, verdict, first, second)
    if old.latency_kind != new.latency_kind:
        return Change(new.cell, OTHER_KIND, first, second)
    if min(first.rounds, second.rounds) < 2:
        return Change(new.cell, ONE_ROUND, first, second)
    chance = 2 / comb(first.rounds + second.rounds, first.rounds)  # all of one run's medians below all of the other's
    if overlap(first.interval_ms, second.interval_ms):
        verdict = NO_CHANGE
    else:
        verdict = SLOWER if second.interval_ms > first.interval_ms else FASTER
    return Change(new.cell, verdict, first, second, chance, bool(old.warnings or new.warnings))


def differences(old: Mapping[str, Any], new: Mapping[str, Any]) -> list[str]:
    """How two runs' settings and environments differ, a sentence each: what their figures may differ by other than the code.
    What changes from minute to minute is left out."""
    sentences = []
    for part in ("settings", "environment"):
        before, after = (dict(_leaves(json.loads(json_line(run.get(part) or {})))) for run in (old, new))
        for name in sorted(before.keys() | after.keys()):
            was, now = before.get(name), after.get(name)
            if was != now:
                sentences.append(f"{part}: {name} was {_shown(was)}, now it is {_shown(now)}.")
    return sentences


def _leaves(content: Mapping[str, Any], above: str = "") -> Iterator[tuple[str, Any]]:
    """The values below `content` with their dotted names."""
    for key, value in content.items():
        if PASSING & set(key.lower().split("_")):
            continue
        if isinstance(value, Mapping):
            yield from _leaves(value, f"{above}{key}.")
        else:
            yield f"{above}{key}", value


def _shown(value: Any) -> str:
    return "not told" if value is None else str(value)


COLUMNS = ("backend", "precision", "batch", "network", "width", "before ms", "now ms", "ratio", "verdict")


def table(changes: Sequence[Change]) -> str:
    """The changes as plain text, medians with their intervals, and the conclusion."""
    rows = [COLUMNS, *(_row(change) for change in changes)]
    widths = [max(len(row[column]) for row in rows) for column in range(len(COLUMNS))]
    lines = ["  ".join(text.ljust(width) for text, width in zip(row, widths, strict=True)).rstrip() for row in rows]
    return "\n".join([*lines, conclusion(changes)])


def _row(change: Change) -> tuple[str, ...]:
    cell, ratio = change.cell, change.ratio
    return (
        *(cell.backend, cell.precision, str(cell.batch), cell.network, cell.label),
        *(_figures(change.old), _figures(change.new)),
        *("" if ratio is None else f"{ratio:.3f}", change.verdict),
    )


def _figures(figures: Summary | None) -> str:
    if figures is None:
        return "-"
    low, high = figures.interval_ms
    return f"{figures.median_ms:.4g} [{low:.4g}, {high:.4g}]"


def conclusion(changes: Sequence[Change]) -> str:
    """One line: `3 slower, 1 faster, 20 within noise`, what could not be compared, and what chance would give."""
    count = {verdict: sum(change.verdict == verdict for change in changes) for verdict in (SLOWER, FASTER, NO_CHANGE)}
    said = f"{count[SLOWER]} slower, {count[FASTER]} faster, {count[NO_CHANGE]} within noise"
    if rest := len(changes) - sum(count.values()):
        said += f", {rest} not comparable"
    if count[SLOWER] + count[FASTER]:
        expected = sum(change.chance or 0 for change in changes)
        said += f"; if nothing had changed, {expected:.1f} would look changed by chance (more --repeats make it fewer)"
    if warned := sum(change.warned and change.verdict in (SLOWER, FASTER) for change in changes):
        said += f"; {warned} of the changed ones had warnings, measure them again"
    return said
