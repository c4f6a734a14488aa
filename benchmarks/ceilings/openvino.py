"""OpenVINO's ceilings: a large product (`onnx_models.tiny`), compiled as what is measured is, and a copy on the CPU."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from typing import Any

from benchmarks.ceilings.copies import copy_on_cpu
from benchmarks.ceilings.feeds import product_feed
from benchmarks.ceilings.probe import SIZES, Clocked, Copying
from benchmarks.cells.backends import CPU
from benchmarks.cells.cell import NotMeasured, Options
from benchmarks.onnx_models.tiny import BFLOAT16, PRODUCTS, product_model
from benchmarks.runners.openvino import compile_settings, readable
from benchmarks.runners.ort import NO_TF32
from slimexport.target.openvino import DEVICE, core, hint_of, require_openvino
from slimexport.target.precision import row_of

NO_PRODUCT = "OpenVINO multiplies the integers of a lone product in f32, which is no ceiling of int8 networks"
NO_CHAIN = "OpenVINO makes few layers of a chain of tiny products, so the cost of one cannot be told"


@contextmanager
def cpu_probe(precision: str, options: Options) -> Iterator[OnCpu]:
    """OpenVINO on the CPU."""
    if row_of(precision).tf32:
        raise NotMeasured(NO_TF32)
    yield OnCpu(precision, options.threads)


class OnCpu:
    """Products and copies with `threads` threads."""

    def __init__(self, precision: str, threads: int) -> None:
        self.precision, self.number, self.threads = precision, row_of(precision).number, threads
        self.sizes, self.lengths = SIZES[CPU], (0, 0)
        self.openvino = require_openvino()
        self.how: Mapping[str, Any] = {
            "library": f"OpenVINO {self.openvino.__version__}",
            "device": CPU,
            "threads": threads,
            "precision_hint": hint_of(precision),
        }

    @contextmanager
    def product(self, size: int) -> Iterator[Clocked]:
        if row_of(self.precision).calibrated:
            raise NotMeasured(NO_PRODUCT)
        settings = compile_settings(self.threads)
        with readable():
            model = core().read_model(product_model(self.number))
            settings |= {"INFERENCE_PRECISION_HINT": hint_of(self.precision)}
            request = core().compile_model(model, DEVICE, settings).create_infer_request()
        feed = {name: self._tensor(matrix) for name, matrix in product_feed(self.number, size).items()}

        def clocked() -> float:
            with readable():
                started = time.perf_counter()
                request.infer(feed, share_inputs=True)
                return time.perf_counter() - started

        yield clocked

    def _tensor(self, matrix: Any) -> Any:
        """A matrix as OpenVINO takes it; bfloat16 comes as its bits, which numpy has no number for."""
        if PRODUCTS[self.number][1] == BFLOAT16:
            return self.openvino.Tensor(matrix, list(matrix.shape), self.openvino.Type.bf16)
        return self.openvino.Tensor(matrix, shared_memory=True)

    def copy(self) -> AbstractContextManager[Copying]:
        return copy_on_cpu(self.threads)

    def chain(self, length: int) -> AbstractContextManager[Clocked]:
        raise NotMeasured(NO_CHAIN)
