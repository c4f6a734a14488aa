"""A session for every batch size, where one that changes its size prepares for it anew.

A convolution of onnxruntime's on a GPU keeps one plan of cuDNN's, that of the last shape, and makes another when the shape
changes (`Conv::UpdateState` in onnxruntime's core/providers/cuda/nn/conv.cc, since 1.20): of a small network that takes a
hundred times as long as the run. A server changes its batch all the time.
"""

from __future__ import annotations

from collections.abc import Callable, Collection

from slimexport.target.arrays import Array
from slimexport.target.runners import Given, OpenRunner


class BySize:
    """A file that `open_one` opens, once for every number of images that runs. Each holds the weights."""

    def __init__(self, open_one: Callable[[], OpenRunner]) -> None:
        self._open_one = open_one
        self._unused: OpenRunner | None = open_one()  # what does not load is refused before anything runs
        self._runners: dict[int, OpenRunner] = {}
        self.backend = self._unused.backend

    def __call__(self, images: Array) -> Given:
        runner = self._runners.get(len(images))
        if runner is None:
            runner, self._unused = self._unused or self._open_one(), None
            self._runners[len(images)] = runner
        return runner(images)

    def keep(self, sizes: Collection[int]) -> None:
        """Close what no run will be of."""
        for size in self._runners.keys() - set(sizes):
            self._runners.pop(size).close()

    def close(self) -> None:
        """Free what it holds; it cannot run again."""
        for runner in (self._unused, *self._runners.values()):
            if runner is not None:
                runner.close()
        self._unused, self._runners = None, {}
