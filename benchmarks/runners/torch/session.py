"""A cell's network open in torch, with its images where torch reads them.

Importing this needs torch and onnx: `torch_runners` does, once it is clear that they are there.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, fx

from benchmarks.cells.cell import (
    SLIMMABLE,
    TORCH_COMPILE,
    TORCH_EAGER,
    TORCH_GRAPH,
    Array,
    Cell,
    Inputs,
    NotMeasured,
    Options,
    Timing,
)
from benchmarks.runners.images import check_images
from benchmarks.runners.torch.errors import told
from benchmarks.runners.torch.forwards import Compiled, Eager, Graphed, Slimmed
from benchmarks.runners.torch.images import memory_format, open_buffers
from benchmarks.runners.torch.modes import Modes, held, modes_for
from benchmarks.runners.torch.onnx_to_torch import UnsupportedFile, dense_from_onnx
from benchmarks.runners.torch.slimmable import open_slimmable
from benchmarks.runners.torch.stopwatch import DeviceStopwatch, HostStopwatch

TYPES = {"fp32": torch.float32, "tf32": torch.float32, "fp16": torch.float16, "bf16": torch.bfloat16}
DENSE: Mapping[str, type[Eager]] = {TORCH_EAGER: Eager, TORCH_COMPILE: Compiled, TORCH_GRAPH: Graphed}


Stopwatch = HostStopwatch | DeviceStopwatch


class TorchRunner:
    """A cell's runner (`cells.cell.CellRunner`): an open network, and how it is timed. `close` lets go of all of it."""

    def __init__(
        self, cell: Cell, options: Options, forward: Eager, stopwatch: Stopwatch, modes: Modes, closing: ExitStack
    ) -> None:
        self.cell, self.device = cell, options.device
        self.layout = memory_format(options.device, cell.precision)
        self.modes, self._closing = modes, closing
        self._open: tuple[Eager, Stopwatch] | None = (forward, stopwatch)
        settings = _settings(self.layout, options, modes)
        self.settings: Mapping[str, Any] = {**settings, **stopwatch.buffers.settings, **forward.settings}

    def run(self, index: int) -> Timing:
        """One iteration on buffer `index`, modulo their number."""
        assert self._open is not None, "the runner is closed"
        forward, stopwatch = self._open
        self.modes.apply()
        with told(self.device), torch.inference_mode(), forward.active():
            timing = stopwatch.time(forward, index)
        forward.check()
        return timing

    def logits(self, images: Array) -> Array:
        """float32 images [batch, 3, H, W] -> float32 logits [batch, classes], by the very call that is timed."""
        assert self._open is not None, "the runner is closed"
        forward = self._open[0]
        self.modes.apply()
        with told(self.device), torch.inference_mode(), forward.active():
            own = torch.from_numpy(check_images(images, self.cell).copy())
            own = own.to(self.device).contiguous(memory_format=self.layout)
            target = forward.target(own)
            if target is not own:
                target.copy_(own)
            logits: Array = forward.call(target).to("cpu", torch.float32, copy=True).numpy()
        forward.check()
        return logits

    def close(self) -> None:
        """Let go of the network, and of what torch keeps for later on a GPU: other backends need it."""
        self._open = None
        self._closing.close()
        if self.device == "cuda":
            torch.cuda.empty_cache()


def open_runner(cell: Cell, folder: Path, inputs: Inputs, options: Options) -> TorchRunner:
    """As `torch_runners.open_torch`, for a cell that torch can run here."""
    modes = modes_for(options.device, cell.precision, options.threads)
    with ExitStack() as closing, told(options.device):
        closing.enter_context(held(modes))
        stopwatch = _stopwatch(cell, inputs, options)
        forward = _forward(cell, folder, options, stopwatch.buffers.images[0])
        return TorchRunner(cell, options, forward, stopwatch, modes, closing.pop_all())


@torch.inference_mode()
def _stopwatch(cell: Cell, inputs: Inputs, options: Options) -> Stopwatch:
    """The cell's images where its network reads them, and what times it there."""
    layout = memory_format(options.device, cell.precision)
    buffers = open_buffers(inputs, cell.batch, layout, options.device, options.transfers)
    return DeviceStopwatch(buffers) if options.device == "cuda" else HostStopwatch(buffers)


def _forward(cell: Cell, folder: Path, options: Options, images: Tensor) -> Eager:
    """The cell's network, ready to run on images like these."""
    layout = memory_format(options.device, cell.precision)
    if cell.backend == SLIMMABLE:
        network, plan = open_slimmable(cell, folder, options.checkpoint, options.device, layout)
        with torch.inference_mode():
            return Slimmed(network, plan, images)
    dense = _dense(folder / cell.file, cell.precision)
    dense = dense.to(device=options.device, memory_format=layout)  # type: ignore[call-overload]
    with torch.inference_mode():
        return DENSE[cell.backend](dense, images)


def _dense(path: Path, precision: str) -> fx.GraphModule:
    """The network of an ONNX file. NotMeasured where it is none that torch can run in `precision`."""
    try:
        dense = dense_from_onnx(path)
    except UnsupportedFile as error:
        raise NotMeasured(str(error)) from error
    found = next(dense.parameters()).dtype
    if found != TYPES[precision]:
        raise NotMeasured(f"{path.name}: its weights are {found}, expected those of {precision}. Export again.")
    return dense


def _settings(layout: torch.memory_format, options: Options, modes: Modes) -> dict[str, Any]:
    """How a network runs, in plain values; `forward` adds what it does."""
    on_gpu = options.device == "cuda"
    return {
        "device": options.device,
        "threads": None if on_gpu else modes.threads,
        "torch": str(torch.__version__),
        "memory_format": str(layout).removeprefix("torch.").removesuffix("_format"),
        "compile": False,
        "cudnn_benchmark": modes.cudnn_benchmark if on_gpu else None,
        "tf32": modes.matmul_tf32 if on_gpu else None,
        "cuda_graph": False,
        "transfers": on_gpu and options.transfers,
    }
