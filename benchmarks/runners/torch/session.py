"""A cell's network open in torch, with its images where torch reads them: eager, compiled, as a CUDA graph; and the slimmable
network that it comes from.

Importing this needs torch and onnx: the table of backends names what it offers, and loads it once a cell asks for it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, fx

from benchmarks.cells.backends import CUDA
from benchmarks.cells.cell import Array, Cell, Inputs, NotMeasured, Options, Timing
from benchmarks.runners.images import check_images
from benchmarks.runners.torch.errors import largest_bytes, torch_reasons
from benchmarks.runners.torch.forwards import Compiled, Eager, Graphed, Slimmed
from benchmarks.runners.torch.images import memory_format, open_buffers
from benchmarks.runners.torch.modes import Modes, held, modes_for
from benchmarks.runners.torch.onnx_to_torch import UnsupportedFile, dense_from_onnx
from benchmarks.runners.torch.slimmable import open_slimmable
from benchmarks.runners.torch.stopwatch import DeviceStopwatch, HostStopwatch
from slimexport.target.precision import PRECISIONS, row_of
from slimexport.target.runners import Given

TYPES = {name: getattr(torch, row.torch) for name, row in PRECISIONS.items() if row.torch}

Stopwatch = HostStopwatch | DeviceStopwatch


class TorchRunner:
    """A cell's runner (`cells.cell.CellRunner`): an open network, and how it is timed. `close` lets go of all of it."""

    def __init__(
        self, cell: Cell, options: Options, forward: Eager, stopwatch: Stopwatch, modes: Modes, closing: ExitStack
    ) -> None:
        self.cell, self.device, self.needed_bytes = cell, options.device, largest_bytes(cell)
        self.layout = memory_format(options.device, cell.precision, cell.shape is None)
        self.modes, self._closing = modes, closing
        self._open: tuple[Eager, Stopwatch] | None = (forward, stopwatch)
        settings = _settings(self.layout, options, modes)
        self.settings: Mapping[str, Any] = {**settings, **stopwatch.buffers.settings, **forward.settings}

    def run(self, index: int) -> Timing:
        """One iteration on buffer `index`, modulo their number."""
        assert self._open is not None, "the runner is closed"
        forward, stopwatch = self._open
        self.modes.apply()
        with torch_reasons(self.device, self.needed_bytes), torch.inference_mode(), forward.active():
            timing = stopwatch.time(forward, index)
        forward.check()
        return timing

    def logits(self, images: Array) -> Given:
        """float32 images [batch, C, H, W] -> float32 logits [batch, classes], several outputs by name, by the very call that
        is timed."""
        assert self._open is not None, "the runner is closed"
        forward = self._open[0]
        self.modes.apply()
        with torch_reasons(self.device, self.needed_bytes), torch.inference_mode(), forward.active():
            own = torch.from_numpy(check_images(images, self.cell).copy())
            own = own.to(self.device).contiguous(memory_format=self.layout)
            target = forward.target(own)
            if target is not own:
                target.copy_(own)
            given = forward.named(forward.call(target))
            if isinstance(given, Tensor):
                result: Given = _on_host(given)
            else:
                result = {name: _on_host(tensor) for name, tensor in given.items()}
        forward.check()
        return result

    def close(self) -> None:
        """Let go of the network, and of what torch keeps for later on a GPU: other backends need it."""
        self._open = None
        self._closing.close()
        if self.device == CUDA:
            torch.cuda.empty_cache()


def _on_host(tensor: Tensor) -> Array:
    values: Array = tensor.to("cpu", torch.float32 if tensor.is_floating_point() else None, copy=True).numpy()
    return values


def open_eager(cell: Cell, path: Path, inputs: Inputs, options: Options) -> TorchRunner:
    """The network of the ONNX file at `path`, run as it is, on `options.device`.

    What takes time once, such as compiling, is over when this and its like return. They raise NotMeasured, with the reason,
    where torch cannot run the network here, and OutOfMemory.
    """
    return _open(cell, inputs, options, partial(_dense, Eager, cell, path, options))


def open_compiled(cell: Cell, path: Path, inputs: Inputs, options: Options) -> TorchRunner:
    """As `open_eager`, in torch.compile."""
    return _open(cell, inputs, options, partial(_dense, Compiled, cell, path, options))


def open_graphed(cell: Cell, path: Path, inputs: Inputs, options: Options) -> TorchRunner:
    """As `open_eager`, replayed as a CUDA graph."""
    return _open(cell, inputs, options, partial(_dense, Graphed, cell, path, options))


def open_slimmed(cell: Cell, path: Path, inputs: Inputs, options: Options) -> TorchRunner:
    """The slimmable network of `options.checkpoint` at the cell's plan, which the manifest beside `path` tells.

    Raises as `open_eager`, and BundleError (exit code 2) where the checkpoint is not the bundle's, CheckpointError where it
    cannot be read.
    """
    return _open(cell, inputs, options, partial(_slimmed, cell, path, options))


def _open(cell: Cell, inputs: Inputs, options: Options, network: Callable[[Tensor], Eager]) -> TorchRunner:
    """The runner of what `network` makes for images like those that it is given."""
    if options.device == CUDA and not torch.cuda.is_available():
        raise NotMeasured(
            f"torch {torch.__version__} finds no GPU here. Measure with --device cpu, or see what nvidia-smi says."
        )
    if row_of(cell.precision).tf32 and options.device != CUDA:
        raise NotMeasured("TF32 is a GPU's way to compute float32")
    modes = modes_for(options.device, cell.precision, options.threads)
    with ExitStack() as closing, torch_reasons(options.device, largest_bytes(cell)):
        closing.enter_context(held(modes))
        stopwatch = _stopwatch(cell, inputs, options)
        forward = network(stopwatch.buffers.images[0])
        return TorchRunner(cell, options, forward, stopwatch, modes, closing.pop_all())


@torch.inference_mode()
def _stopwatch(cell: Cell, inputs: Inputs, options: Options) -> Stopwatch:
    """The cell's images where its network reads them, and what times it there."""
    layout = memory_format(options.device, cell.precision, cell.shape is None)
    buffers = open_buffers(inputs, cell.batch, layout, options.device, options.transfers)
    return DeviceStopwatch(buffers) if options.device == CUDA else HostStopwatch(buffers)


def _dense(way: type[Eager], cell: Cell, path: Path, options: Options, images: Tensor) -> Eager:
    """The network of an ONNX file, run in a `way` on images like these."""
    layout = memory_format(options.device, cell.precision, cell.shape is None)
    network = read_dense(path, cell.precision)
    network = network.to(device=options.device, memory_format=layout)  # type: ignore[call-overload]
    with torch.inference_mode():
        return way(network, images)


def _slimmed(cell: Cell, path: Path, options: Options, images: Tensor) -> Eager:
    """The slimmable network at the cell's plan."""
    layout = memory_format(options.device, cell.precision, cell.shape is None)
    network, plan = open_slimmable(cell, path.parent, options.checkpoint, options.device, layout)
    with torch.inference_mode():
        return Slimmed(network, plan, images)


def read_dense(path: Path, precision: str) -> fx.GraphModule:
    """The network of an ONNX file. NotMeasured where it is none that torch can run in `precision`."""
    try:
        dense = dense_from_onnx(path)
    except UnsupportedFile as error:
        raise NotMeasured(str(error)) from error
    kind = next(dense.parameters()).dtype
    if kind != TYPES[precision]:
        raise NotMeasured(f"{path.name}: its weights are {kind}, expected those of {precision}. Export again.")
    return dense


def _settings(layout: torch.memory_format, options: Options, modes: Modes) -> dict[str, Any]:
    """How a network runs, in plain values; `forward` adds what it does."""
    on_gpu = options.device == CUDA
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
