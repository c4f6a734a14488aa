"""Where time steps as channels grow: pure functions of counts and times.

On a staircase of step s all counts that round up to the same multiple of s, a tread, take the same time: neighbours on one
tread hardly differ, neighbours on two do. For each possible s every pair of neighbours is held against that: half of what the
middle one of the edges rises by tells "hardly" from "do". The step is the s that most pairs agree with, on treads and at edges
alike, if they are four fifths of both and edges stand out of the noise. Only neighbours are compared, because treads rise
unevenly, and they are counted, because a few that were disturbed are to decide nothing.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

STEPS = (2, 4, 8, 16, 32, 64, 128)
AGREEING = 0.8
FLAT = 0.5  # of an edge's rise
EDGES = 4  # a staircase has at least so many within the measured counts
SLOWER = 0.03  # how much slower a narrower layer is before it is told


def find_step(counts: Sequence[int], ms: Sequence[float], noise: Sequence[float] = ()) -> int:
    """The step of a staircase, in channels; 1 where time rises with every count that was measured, or nothing is clear.

    Given the counts' `noise`, a step is only seen where its edges stand out of it.
    """
    x, rises = np.asarray(counts), np.diff(np.asarray(ms, np.float64))
    best, most, least = 1, AGREEING, float(np.median(noise)) if len(noise) else 0.0
    for step in STEPS:
        edge = np.diff(-(-x // step)) > 0
        if edge.sum() < EDGES or (~edge).sum() < EDGES:
            continue
        limit = FLAT * np.median(rises[edge])
        agree = float((rises[edge] > limit).mean() + (np.abs(rises[~edge]) < limit).mean()) / 2
        if limit > least and agree > most:
            best, most = step, agree
    return best


@dataclass(frozen=True)
class Jump:
    """From `low` to `high` channels, neighbours among the counts, time grows by `share` of itself."""

    low: int
    high: int
    share: float


def jumps(counts: Sequence[int], ms: Sequence[float], step: int) -> list[Jump]:
    """The jumps from one tread to the next, of a staircase of `step`."""
    pairs = zip(counts, counts[1:], ms, ms[1:], strict=False)
    return [Jump(a, b, y / x - 1) for a, b, x, y in pairs if -(-a // step) != -(-b // step) and x > 0]


def tread(counts: Sequence[int], step: int, count: int) -> list[int]:
    """The counts that take the same time as `count`, on a staircase of `step`."""
    return [other for other in counts if -(-other // step) == -(-count // step)]


def narrower_but_slower(counts: Sequence[int], ms: Sequence[float], noise: Sequence[float]) -> list[Jump]:
    """Neighbours of which the narrower takes longer, by more than SLOWER and than the noise of both; `share` is negative."""
    slower = []
    for at in range(len(counts) - 1):
        lost = ms[at] - ms[at + 1]
        if lost > SLOWER * ms[at] and lost > noise[at] + noise[at + 1]:
            slower.append(Jump(counts[at], counts[at + 1], -lost / ms[at]))
    return slower


def sentence(counts: Sequence[int], ms: Sequence[float], noise: Sequence[float], step: int, what: str) -> str:
    """What a line says, in words: `steps of 16 output channels: flat between 56 and 64, +35% at 72`, which is the largest jump
    that is clear of noise."""
    if step == 1:
        apart = counts[1] - counts[0] if len(counts) > 1 else 1
        text = f"no steps of more than {apart} {what} are seen between {counts[0]} and {counts[-1]}"
    else:
        time, sure = dict(zip(counts, ms, strict=True)), dict(zip(counts, noise, strict=True))
        every = jumps(counts, ms, step)
        clear = [jump for jump in every if time[jump.high] - time[jump.low] > sure[jump.low] + sure[jump.high]]
        text = f"steps of {step} {what}"
        if clear:
            largest = max(clear, key=lambda jump: jump.share)
            alike = tread(counts, step, largest.low)
            flat = f"flat between {alike[0]} and {alike[-1]}, " if len(alike) > 1 else ""
            over = "" if flat else f" over {largest.low}"
            text += f": {flat}{largest.share:+.0%} at {largest.high}{over}"
    slower = narrower_but_slower(counts, ms, noise)
    if slower:
        worst = min(slower, key=lambda jump: jump.share)
        text += (
            f"; narrower is slower at {len(slower)} of {len(counts)} counts, most at {worst.low}: {worst.high} channels take "
            f"{-worst.share:.0%} less"
        )
    return text
