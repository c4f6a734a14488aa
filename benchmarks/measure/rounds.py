"""In which order cells take their turns, and how a turn is taken.

Machines drift: they warm up, throttle, get busy. Measured one after the other, the last network looks slower than the first
for no fault of its own. So the cells of a group take turns, in an order that reads the same backwards: around the middle of
the whole run, every cell has as much of its time before as after, at equal distances. A drift that is linear in time then
shifts all means alike, and all medians too, as far as it is small beside the noise within a round.
"""

from __future__ import annotations

import gc
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from benchmarks.cells.cell import Timing


@dataclass(frozen=True)
class Turn:
    """`share` of round `round` of the cell at place `cell` of its group."""

    cell: int
    round: int
    share: float = 1.0


def schedule(cells: int, repeats: int) -> list[Turn]:
    """The turns of a group of `cells` in `repeats` rounds: forth, back, forth, ...

    Of an odd number of rounds the middle one is taken in two halves, one each way, as there is no other round to mirror it: on
    a drifting machine the median lies in the middle round, and would favour the networks at one end of the group.
    """
    rounds = [(number, 1.0) for number in range(repeats)]
    if repeats % 2 and cells > 1:
        middle = repeats // 2
        rounds[middle : middle + 1] = [(middle, 0.5), (middle, 0.5)]
    turns = []
    for passes, (number, share) in enumerate(rounds):
        order = range(cells) if passes % 2 == 0 else range(cells - 1, -1, -1)
        turns += [Turn(cell, number, share) for cell in order]
    return turns


def warm_up(run: Callable[[int], Timing], index: int, seconds: float, clock: Callable[[], float]) -> int:
    """Iterations from input `index` on until `seconds` have passed; the next index."""
    end = clock() + seconds
    while clock() < end:
        run(index)
        index += 1
    return index


def iterate(
    run: Callable[[int], Timing], index: int, timings: list[Timing], seconds: float, least: int, clock: Callable[[], float]
) -> None:
    """Append to `timings` one iteration after the other, from input `index` on, until `seconds` have passed and there are
    `least`. What was appended stays when Ctrl-C or an error ends it."""
    append, last = timings.append, index + least - 1
    end = clock() + seconds
    while True:
        append(run(index))
        if index >= last and clock() >= end:
            return
        index += 1


@contextmanager
def collection_paused() -> Iterator[None]:
    """No garbage collection within the block, as `timeit` does; as it was afterwards, whatever happens."""
    was_on = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_on:
            gc.enable()


def join_states(first: Mapping[str, Any], second: Mapping[str, Any]) -> dict[str, Any]:
    """What was seen during a round, from what was seen during its two halves, which are equally long.

    Numbers are averages, so their mean is; those under `*_switches` are counts and add up. Three numbers are lowest, median
    and highest. The entries of other lists are kept, each once; whatever only one half tells is told.
    """
    return {**first, **second, **{key: _join(key, first[key], second[key]) for key in first.keys() & second.keys()}}


def _join(key: str, one: Any, other: Any) -> Any:
    if isinstance(one, Mapping) and isinstance(other, Mapping):
        return join_states(one, other)
    if isinstance(one, list) and isinstance(other, list):
        if len(one) == len(other) == 3 and all(map(_is_number, one + other)):
            return [min(one[0], other[0]), (one[1] + other[1]) / 2, max(one[2], other[2])]
        return one + [entry for entry in other if entry not in one]
    if _is_number(one) and _is_number(other):
        return one + other if key.endswith("_switches") else (one + other) / 2
    return one if other is None else other


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)
