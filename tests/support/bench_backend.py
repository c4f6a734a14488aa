"""A backend that no library stands behind, as one row and a runner: what adding one takes.

    monkeypatch.setitem(BACKENDS, MADE_UP.name, MADE_UP)

It runs the networks of `trt_helpers.write_bundle`, whose logits follow from the image alone.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.ceilings.probe import Clocked, Copying
from benchmarks.cells.backends import ALWAYS, CPU, Backend
from benchmarks.cells.cell import Array, Cell, Inputs, Options, Timing
from tests.support.trt_fake import logits_of
from tests.support.trt_helpers import CLASSES

ITERATION_S = 1e-4
MACS_PER_S = 1e9
MADE_UP = Backend(
    name="made-up",
    title="nothing",
    packages=("numpy",),
    runner="tests.support.bench_backend:InventedRunner",
    probe="tests.support.bench_backend:invented_probe",
    no_files="has nothing to make up in {folder}{asked}",
    precisions=("fp32",),
    device=CPU,
    settings=("threads",),
    auto=ALWAYS,
)


class InventedRunner:
    """Takes ITERATION_S for an iteration; its settings are the options that it was given."""

    def __init__(self, cell: Cell, path: Path, inputs: Inputs, options: Options) -> None:
        assert path.is_file()
        self.settings = asdict(options)
        self.buffers = inputs.buffers(cell.batch, 1)

    def run(self, index: int) -> Timing:
        begin = time.perf_counter()
        while (wall := time.perf_counter() - begin) < ITERATION_S:
            pass
        return Timing(wall)

    def logits(self, images: Array) -> Array:
        return logits_of(images, CLASSES).astype(np.float32)

    def close(self) -> None:
        self.buffers = []


class InventedProbe:
    """A device of MACS_PER_S, whose memory moves a byte in a nanosecond and whose operators take a microsecond."""

    sizes, lengths = (1000,), (10, 20)

    def __init__(self, precision: str, options: Options) -> None:
        self.how: dict[str, Any] = {"library": "none", "precision": precision, "threads": options.threads}

    def product(self, size: int) -> AbstractContextManager[Clocked]:
        return nullcontext(lambda: size**3 / MACS_PER_S)

    def copy(self) -> AbstractContextManager[Copying]:
        return nullcontext(Copying(lambda: 1e-6, 1000, 10))

    def chain(self, length: int) -> AbstractContextManager[Clocked]:
        return nullcontext(lambda: 1e-6 * length)


@contextmanager
def invented_probe(precision: str, options: Options) -> Iterator[InventedProbe]:
    yield InventedProbe(precision, options)
