"""Latencies as they are now: the table that was measured at the start, corrected by every run since.

A noisy neighbor or a throttled clock slows every width by about the same factor, quickly; a width whose row was wrong is off
by a factor of its own, which is learned slowly. Both follow the percentile of the table: a run that took longer raises their
logarithms by `step * percentile`, one that did not lowers them by `step * (1 - percentile)`, which stands still where so many
runs take less (stochastic approximation of a quantile, Robbins and Monro 1951). Coming down takes hundreds of runs. Where
everything is refused there are none but a trial now and then, so of a trial what it took is believed at once."""

from __future__ import annotations

import math
from dataclasses import replace

from slimexport.target.serving.policy import Latencies

COMMON_STEP = 0.1
OWN_STEP = 0.02
LEAST, MOST = 0.05, 100.0


class Corrected:
    """`table` at a `percentile` (0.95), and what was seen since. One thread changes it."""

    def __init__(self, table: Latencies, percentile: float) -> None:
        self.table, self.percentile = table, percentile
        self._common = 1.0
        self._own = [1.0] * len(table.widths)
        self._now = table

    def seen(self, width: int, images: int, ms: float) -> None:
        """A run of a width took so long."""
        expected = self.table.of(width, images)
        if not (0 < ms < float("inf") and expected > 0):
            return
        # both of the same comparison: of two in turn the second would be the rarer one, and the factors would part for ever
        longer = ms > expected * self._common * self._own[width]
        direction = self.percentile if longer else self.percentile - 1
        self._own[width] = _moved(self._own[width], OWN_STEP * direction)
        self._common = _moved(self._common, COMMON_STEP * direction)
        self._renew()

    def tried(self, width: int, images: int, ms: float) -> None:
        """A run took so long that was made because everything was refused."""
        expected = self._now.of(width, images)
        if 0 < ms < expected:
            self._common = _moved(self._common, math.log(ms / expected))
            self._renew()
        else:
            self.seen(width, images, ms)

    def _renew(self) -> None:
        self._now = replace(
            self.table,
            ms=tuple(
                tuple(value * self._common * own for value in row) for row, own in zip(self.table.ms, self._own, strict=True)
            ),
        )

    def now(self) -> Latencies:
        """The latencies as they are now."""
        return self._now

    def without(self, width: int) -> Corrected:
        """The same of the other widths."""
        keep = [index for index in range(len(self.table.widths)) if index != width]
        table = replace(
            self.table,
            widths=tuple(self.table.widths[index] for index in keep),
            ms=tuple(self.table.ms[index] for index in keep),
        )
        other = Corrected(table, self.percentile)
        other._common, other._own = self._common, [self._own[index] for index in keep]
        return other


def _moved(factor: float, step: float) -> float:
    return min(MOST, max(LEAST, factor * math.exp(step)))
