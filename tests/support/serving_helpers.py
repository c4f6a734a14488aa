"""Bundles to serve, and runners that do as a test says: exact, slow, failing, hanging."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from torch import nn

from slimexport.target.arrays import Array
from slimexport.target.manifest import Accuracy
from slimexport.target.serving import opening
from slimexport.target.serving.policy import Latencies
from slimexport.target.serving.runtime import Runtime
from tests.support.bundle_helpers import artifact, manifest, with_file, write_manifest
from tests.support.onnx_writing import module_onnx

SIZE, CLASSES = 4, 5
SHAPE = (3, SIZE, SIZE)
PATIENCE_S = 60.0  # a test that waits longer has failed
WAIT = {"timeout": PATIENCE_S}  # for what a thread is waited for with
FOREVER_MS = 3_000_000.0  # a deadline that no busy machine misses


def toy_bundle(
    folder: Path,
    widths: Sequence[float] = (0.25, 0.5, 1.0),
    contents: Sequence[bytes] = (),
    accuracies: Sequence[float | None] = (),
    **changes: Any,
) -> Path:
    """A bundle of files that hold nothing, or `contents`; wider ones cost more."""
    files = []
    for number, width in enumerate(widths):
        name = f"net_x{width:g}".replace(".", "_")
        accuracy = accuracies[number] if accuracies else None
        entry = artifact(
            name,
            width,
            macs=1000 * (number + 1),
            accuracy=None if accuracy is None else Accuracy(top1=accuracy, images=100, data="made up"),
        )
        files.append(with_file(folder, entry, contents[number] if contents else b""))
    return write_manifest(folder, manifest(*files, image_size=SIZE, classes=CLASSES, **changes))


def real_bundle(folder: Path, widths: Sequence[float] = (0.25, 0.5, 1.0)) -> Path:
    """The same of networks that compute: one convolution and a mean over places, of other weights in every width."""
    contents = []
    for _ in widths:
        network = nn.Sequential(nn.Conv2d(3, CLASSES, 1), nn.AdaptiveAvgPool2d(1), nn.Flatten())
        contents.append(module_onnx(network, SIZE).SerializeToString())
    return toy_bundle(folder, widths, contents)


def images(count: int, seed: int = 0) -> Array:
    return np.random.default_rng(seed).standard_normal((count, *SHAPE)).astype(np.float32)


def logits(batch: Array, file: str) -> Array:
    """What the made-up runner of a file gives: sums that tell images and files apart."""
    sums = batch.reshape(len(batch), -1).sum(1, dtype=np.float64)
    return np.stack([sums * (number + 1) + len(file) for number in range(CLASSES)], 1).astype(np.float32)


class ToyRunner:
    """Stands for onnxruntime's runner. `before` is called with the images of a run, and may raise or wait; `give` makes its
    output."""

    backend = "onnxruntime-cpu"

    def __init__(self, path: Path, **options: Any) -> None:
        self.file, self.options = path.name, options
        self.before: Callable[[Array], object] = lambda batch: None
        self.give: Callable[[Array], Any] = lambda batch: logits(batch, self.file)
        self.runs: list[int] = []  # images
        self.closed = 0

    def __call__(self, batch: Array) -> Any:
        self.runs.append(len(batch))
        self.before(batch)
        return self.give(batch)

    def close(self) -> None:
        self.closed += 1


class Bench:
    """The runners that were opened. `prepare` is called with each when it is."""

    def __init__(self) -> None:
        self.runners: list[ToyRunner] = []
        self.prepare: Callable[[ToyRunner], object] = lambda toy: None

    def open(self, path: Path, **options: Any) -> ToyRunner:
        self.runners.append(ToyRunner(path, **options))
        self.prepare(self.runners[-1])
        return self.runners[-1]

    def of(self, width: str) -> ToyRunner:
        """The one of a width that serves."""
        return next(runner for runner in reversed(self.runners) if runner.file == f"net_x{width.replace('.', '_')}.onnx")


@pytest.fixture
def bench(monkeypatch: pytest.MonkeyPatch) -> Bench:
    """Bundles are run by made-up runners."""
    toys = Bench()
    monkeypatch.setattr(opening, "OnnxRuntimeRunner", toys.open)
    return toys


class Gate:
    """What a run waits at until a test opens it."""

    def __init__(self) -> None:
        self._reached, self._open = threading.Semaphore(0), threading.Event()

    def __call__(self, batch: Array) -> None:
        self._reached.release()
        assert self._open.wait(PATIENCE_S)

    def wait_for_a_run(self) -> None:
        assert self._reached.acquire(timeout=PATIENCE_S)

    def open(self) -> None:
        self._open.set()


@contextmanager
def held(runtime: Runtime, *runners: ToyRunner) -> Iterator[Gate]:
    """A runtime whose runs wait while the block goes on: one image is in one of them, the rest queues."""
    gate = Gate()
    for runner in runners:
        runner.before = gate
    runtime.submit(images(1)[0], FOREVER_MS)
    gate.wait_for_a_run()
    try:
        yield gate
    finally:
        gate.open()


def wait_until(condition: Callable[[], bool]) -> None:
    """Fails where it does not come true."""
    pause = threading.Event()
    for _ in range(int(PATIENCE_S / 0.005)):
        if condition():
            return
        pause.wait(0.005)
    raise AssertionError("what was waited for did not come true")


def latencies(ms: Sequence[Sequence[float]], batches: Sequence[int] = (1, 2, 4, 8), widths: Sequence[str] = ()) -> Latencies:
    """A table, of widths called 0, 1 and so on, or `widths`."""
    names = tuple(widths) or tuple(str(number) for number in range(len(ms)))
    return Latencies(names, tuple(batches), tuple(tuple(row) for row in ms))
