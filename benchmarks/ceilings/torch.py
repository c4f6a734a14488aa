"""torch's ceilings on a CPU or a GPU: `torch.mm`, a tensor's copy, and chains of tiny products in each way of running."""

from __future__ import annotations

import functools
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from typing import Any

from benchmarks.ceilings.copies import copy_size
from benchmarks.ceilings.probe import SIZES, Clocked, Copying, require_room
from benchmarks.cells.backends import CPU, CUDA
from benchmarks.cells.cell import NotMeasured, Options
from benchmarks.cells.inputs import cache_bytes
from benchmarks.machine.host_memory import HostMemory
from benchmarks.onnx_models.tiny import orthogonal
from slimexport.target.precision import PRECISIONS, row_of

DTYPES = {name: row.torch for name, row in PRECISIONS.items() if row.torch}
LENGTHS = (16, 80)
Steps = Callable[[], Any]


def eager_probe(precision: str, options: Options) -> AbstractContextManager[WithTorch]:
    """torch on `options.device`, running what it is given as it is. NotMeasured where it is missing or finds no GPU."""
    return _probe(precision, options, lambda torch, steps: steps)


def compiled_probe(precision: str, options: Options) -> AbstractContextManager[WithTorch]:
    """As `eager_probe`, its chains compiled."""
    return _probe(precision, options, lambda torch, steps: torch.compile(steps))


def graphed_probe(precision: str, options: Options) -> AbstractContextManager[WithTorch]:
    """As `eager_probe`, its chains replayed as CUDA graphs."""
    return _probe(precision, options, _captured)


@contextmanager
def _probe(precision: str, options: Options, way: Callable[[Any, Steps], Steps]) -> Iterator[WithTorch]:
    if precision not in DTYPES or (row_of(precision).tf32 and options.device != CUDA):
        raise NotMeasured(f"torch computes no {precision} products on {options.device}")
    try:
        import torch

        from benchmarks.runners.torch.modes import held, modes_for
    except ImportError as error:
        raise NotMeasured(f"torch is not installed or does not load ({error}): pip install torch") from error
    if options.device == CUDA and not torch.cuda.is_available():
        raise NotMeasured(f"torch {torch.__version__} finds no GPU here")
    with held(modes_for(options.device, precision, options.threads)), torch.inference_mode():
        yield WithTorch(way, DTYPES[precision], options)


def _captured(torch: Any, steps: Steps) -> Steps:
    """`steps` as a CUDA graph."""
    steps()  # cuBLAS prepares itself at its first product, which cannot be captured
    torch.cuda.synchronize()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        steps()
    replay: Steps = graph.replay
    return replay


class WithTorch:
    """Products, copies and chains of torch tensors; chains run in the `way` that networks do."""

    def __init__(self, way: Callable[[Any, Steps], Steps], dtype: str, options: Options) -> None:
        import torch

        from benchmarks.runners.torch.errors import torch_reasons

        self.torch: Any = torch
        self.reasons = functools.partial(torch_reasons, options.device)
        self.way, self.device = way, options.device
        self.on_gpu = options.device == CUDA
        self.sizes, self.lengths = SIZES[options.device], LENGTHS
        self.dtype = getattr(torch, dtype)
        device = {"device": torch.cuda.get_device_name()} if self.on_gpu else {"device": CPU, "threads": options.threads}
        self.how: Mapping[str, Any] = {"library": f"torch {torch.__version__}", **device}

    def _random(self, *shape: int) -> Any:
        return self.torch.randn(shape, dtype=self.dtype, device=self.device)

    def _free_bytes(self) -> int | None:
        return int(self.torch.cuda.mem_get_info()[0]) if self.on_gpu else HostMemory().left_bytes()

    @contextmanager
    def product(self, size: int) -> Iterator[Clocked]:
        require_room(3 * size**2 * self.dtype.itemsize, self._free_bytes())
        with self.reasons():
            a, b, c = (self._random(size, size) for _ in range(3))
            yield self._clocked(lambda: self.torch.mm(a, b, out=c))

    @contextmanager
    def copy(self) -> Iterator[Copying]:
        cache = self.torch.cuda.get_device_properties().L2_cache_size if self.on_gpu else cache_bytes()
        count = copy_size(self.device, cache, self._free_bytes()) // 4
        with self.reasons():
            source = self.torch.rand(count, device=self.device)
            to = self.torch.ones_like(source)
            yield Copying(self._clocked(lambda: to.copy_(source)), 8 * count, cache)

    @contextmanager
    def chain(self, length: int) -> Iterator[Clocked]:
        weight = self.torch.from_numpy(orthogonal()).to(self.device, self.dtype)
        first = self._random(*weight.shape)

        def steps() -> Any:
            x = first
            for _ in range(length):
                x = self.torch.mm(x, weight)
            return x

        with self.reasons():
            yield self._clocked(self.way(self.torch, steps))

    def _clocked(self, run: Callable[[], Any]) -> Clocked:
        if not self.on_gpu:
            return lambda: _on_cpu(run)
        events = self.torch.cuda.Event
        start, end = events(enable_timing=True), events(enable_timing=True)

        def clocked() -> float:
            start.record()
            run()
            end.record()
            end.synchronize()
            return 1e-3 * float(start.elapsed_time(end))

        return clocked


def _on_cpu(run: Callable[[], Any]) -> float:
    started = time.perf_counter()
    run()
    return time.perf_counter() - started
