"""A layer's time at any number of channels, from times measured at some. No torch.

Hardware computes channels in blocks: onnxruntime on a CPU with AVX-512 takes 80 channels' time for 72. So a count is first
rounded up to the layer's step, which was found by measuring; between measured counts time is then linear in either direction
(bilinear in both), as the work is in the number of blocks. Beyond them nothing is known.
"""

from __future__ import annotations

from bisect import bisect_left
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class Axis:
    """Channel counts that were measured, rising, and the step in which time rises (1: with every channel)."""

    counts: tuple[int, ...]
    step: int = 1

    def place(self, count: int) -> tuple[int, float]:
        """Where `count` lies: the index of a measured count, and what share of the way it is to the next one.

        Raises IndexError outside the measured counts.
        """
        at = bisect_left(self.counts, count)
        if at == len(self.counts) or count < self.counts[0]:
            raise IndexError(count)
        if self.counts[at] == count:
            return at, 0.0
        low, wanted, high = (-(-channels // self.step) for channels in (self.counts[at - 1], count, self.counts[at]))
        return at - 1, 1.0 if low == high else (wanted - low) / (high - low)


@dataclass(frozen=True)
class Times:
    """Milliseconds of a layer, `ms[i][j]` at `inputs.counts[i]` and `outputs.counts[j]` channels. Of a depthwise layer, whose
    outputs are its inputs, `outputs` is None and a row has one entry."""

    inputs: Axis
    outputs: Axis | None
    ms: tuple[tuple[float, ...], ...]

    @cached_property
    def _array(self) -> NDArray[np.float64]:
        return np.asarray(self.ms, np.float64)

    def at(self, inp: int, out: int) -> float:
        """Milliseconds at so many channels. Raises IndexError outside what was measured."""
        row, down = self.inputs.place(inp)
        column, across = (0, 0.0) if self.outputs is None else self.outputs.place(out)
        corner = self._array[row : row + 2, column : column + 2]
        rows = corner[0] if down == 0 else (1 - down) * corner[0] + down * corner[1]
        return float(rows[0] if across == 0 else (1 - across) * rows[0] + across * rows[1])
