"""One iteration on a GPU: inputs that rotate in the device's memory, events before and after the network's work.

What runs the network is a function without arguments that queues its work on the stream; onnxruntime's and TensorRT's
runners differ in it only.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from typing import Any

import numpy as np

from benchmarks.cells.cell import Array, Cell, Inputs, Timing
from benchmarks.runners.images import check_images, input_settings
from slimexport.target.cuda.runtime import Cuda, DeviceMemory, PinnedMemory, Stream
from slimexport.target.runners import Given, alone

MOST_BUFFERS = 256  # each has a graph or a binding of its own; of images of 224 x 224, 256 exceed every cache
MEMORY_SHARE = 1 / 16  # of what is free: the other widths of a group are open too

Launch = Callable[[], None]


def device_inputs(inputs: Inputs, batch: int, cuda: Cuda) -> list[Array]:
    """At least two buffers of images, together larger than twice the GPU's cache if its memory and MOST_BUFFERS allow it."""
    buffers = inputs.buffers(batch, cuda.l2_cache_bytes())
    fit = int(MEMORY_SHARE * cuda.memory_info()[0]) // buffers[0].nbytes
    return buffers[: max(2, min(MOST_BUFFERS, fit))]


class OnGpu:
    """A cell's inputs on the device, and its outputs, by name of these shapes for each image; with `transfers`, page-locked
    memory for both.

    `resources` releases everything. `memory`: of the outputs where the caller has it already; `numbers`: their NumPy types,
    float32 by default. Raises CudaError.
    """

    def __init__(
        self,
        stream: Stream,
        cell: Cell,
        inputs: Inputs,
        outputs: Mapping[str, tuple[int, ...]],
        transfers: bool,
        resources: ExitStack,
        memory: Mapping[str, DeviceMemory] | None = None,
        numbers: Mapping[str, str] | None = None,
    ) -> None:
        cuda, enter = stream.cuda, resources.enter_context
        self.stream, self.cell, self.transfers = stream, cell, transfers
        self.events = [enter(cuda.event()) for _ in range(4)]
        images = device_inputs(inputs, cell.batch, cuda)
        self.inputs = [enter(cuda.memory(image.nbytes)) for image in images]
        self.first, self.images = images[0], images
        self.shapes = {name: (cell.batch, *shape) for name, shape in outputs.items()}
        self.numbers = dict.fromkeys(outputs, "float32") if numbers is None else numbers
        self.outputs = memory or {name: enter(cuda.memory(array.nbytes)) for name, array in self._empty().items()}
        for place, image in zip(self.inputs, images, strict=True):
            stream.upload(place, image)
        stream.synchronize()
        self.host_inputs: list[Array] = []
        self.host_outputs = self._empty()
        if transfers:
            locked = [enter(cuda.pinned_memory(image.nbytes)) for image in images]
            self.host_inputs = [_filled(memory, image) for memory, image in zip(locked, images, strict=True)]
            self.host_outputs = {
                name: enter(cuda.pinned_memory(array.nbytes)).array(array.shape, array.dtype.name)
                for name, array in self.host_outputs.items()
            }
        self.settings: dict[str, Any] = {}
        self.keep(len(images))

    def keep(self, count: int) -> None:
        """Rotate among the first `count` buffers only."""
        self.inputs, self.host_inputs, self.images = self.inputs[:count], self.host_inputs[:count], self.images[:count]
        self.settings = {
            "transfers": self.transfers,
            **input_settings(self.images, self.stream.cuda.l2_cache_bytes()),
        }

    def _empty(self) -> dict[str, Array]:
        return {name: np.empty(shape, self.numbers[name]) for name, shape in self.shapes.items()}

    def _download(self, arrays: Mapping[str, Array]) -> None:
        for name, memory in self.outputs.items():
            self.stream.download(arrays[name], memory)

    def place(self, index: int) -> int:
        """Which buffer iteration `index` reads."""
        return index % len(self.inputs)

    def iteration(self, index: int, launch: Launch) -> Timing:
        """Run once on buffer `index`, which `launch` reads too, and wait for the end."""
        before, begin, end, after = self.events
        place, stream = self.place(index), self.stream
        started = time.perf_counter()
        if self.transfers:
            before.record(stream)
            stream.upload(self.inputs[place], self.host_inputs[place])
        begin.record(stream)
        called = time.perf_counter()
        launch()
        queued = time.perf_counter()
        end.record(stream)
        if self.transfers:
            self._download(self.host_outputs)
            after.record(stream)
        stream.synchronize()
        ended = time.perf_counter()
        return Timing(
            wall=ended - started,
            device=1e-3 * begin.elapsed_ms(end),
            enqueue=queued - called,
            upload=1e-3 * before.elapsed_ms(begin) if self.transfers else None,
            download=1e-3 * end.elapsed_ms(after) if self.transfers else None,
        )

    def logits(self, images: Array, launch: Launch) -> Given:
        """What `launch`, which reads buffer 0, computes of `images`; afterwards the buffer is as it was."""
        batch, arrays = check_images(images, self.cell), self._empty()
        self.stream.upload(self.inputs[0], batch)
        launch()
        self._download(arrays)
        self.stream.upload(self.inputs[0], self.first)
        self.stream.synchronize()
        return alone(arrays)


def _filled(memory: PinnedMemory, images: Array) -> Array:
    array = memory.array(images.shape)
    array[:] = images
    return array
