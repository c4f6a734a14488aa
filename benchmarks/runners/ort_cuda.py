"""ONNX files in onnxruntime on CUDA, with inputs and output in the device's memory.

onnxruntime works on a stream that is given to it, so that events can be recorded before and after its work, and does not
wait for the device by itself. Its own CUDA graphs are off: they read one input buffer only, so inputs could not rotate.
"""

from __future__ import annotations

import functools
from collections import Counter
from collections.abc import Collection, Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.cells.cell import Array, Cell, Inputs, NotMeasured, Options, Timing
from benchmarks.onnx_models.tiny import product_model
from benchmarks.runners.failures import OF_THE_TARGET, reasons
from benchmarks.runners.on_gpu import Launch, OnGpu
from benchmarks.runners.ort import load_onnxruntime, onnxruntime_errors, open_session, session_options
from slimexport.target.backends import CUDA
from slimexport.target.cuda.device import require_gpu
from slimexport.target.cuda.runtime import Stream
from slimexport.target.precision import row_of
from slimexport.target.runners import PROVIDERS, Given, onnxruntime_package
from slimexport.target.tensors import DTYPES
from slimtrain.base.files import library_name

PROVIDER = "CUDAExecutionProvider"
TELLS = "get_provider_graph_assignment_info"  # of a session: which provider has which nodes
LAYERS = ("Conv", "Gemm", "MatMul", "Attention", "Pool", "RoiAlign")  # in the names of operators that compute for long
OTHERWISE = {"float32": "float", "float64": "double"}  # what onnxruntime calls NumPy's types; the others it calls the same
NUMBERS = {f"tensor({OTHERWISE.get(name, name)})": name for name in DTYPES}


def cuda_provider(stream: Stream, precision: str) -> tuple[str, dict[str, str]]:
    """The provider as exported files are verified with, on `stream`; TF32 where that is what is measured."""
    ((name, settings),) = PROVIDERS[CUDA]
    tf32 = {"use_tf32": "1"} if row_of(precision).tf32 else {}
    return name, {**settings, **tf32, "user_compute_stream": str(stream.address)}


@functools.cache
def require_cuda_provider() -> None:
    """Load onnxruntime's CUDA provider. NotMeasured, with what to install, where onnxruntime has none or it does not load."""
    onnxruntime = load_onnxruntime()
    onnxruntime.set_default_logger_severity(4)  # why CUDA cannot load is told below, in words
    if PROVIDER not in onnxruntime.get_available_providers():
        raise NotMeasured(
            f"this onnxruntime ({onnxruntime.__version__}) is built without CUDA: pip uninstall onnxruntime, then pip install "
            f"{onnxruntime_package()}."
        )
    if hasattr(onnxruntime, "preload_dlls"):
        onnxruntime.preload_dlls()
    open_session(product_model("float32"), session_options(1), PROVIDERS[CUDA])


def strict_options(threads: int) -> Any:
    """Options with which no operator runs on the CPU in the GPU's place: such a session is refused."""
    options = session_options(threads)
    options.add_session_config_entry("session.disable_cpu_ep_fallback", "1")
    return options


def told_options(threads: int) -> Any:
    """Options with which a session says which of its nodes run on the CPU, or, where this onnxruntime cannot say so, is
    refused if any does."""
    if not hasattr(load_onnxruntime().InferenceSession, TELLS):
        return strict_options(threads)
    options = session_options(threads)
    options.add_session_config_entry("session.record_ep_graph_assignment_info", "1")
    return options


def nodes_on_cpu(session: Any) -> Counter[str]:
    """The operators of a session's nodes that run on the CPU, as far as it tells. onnxruntime leaves there what has no kernel
    on the GPU, and arithmetic of shapes and indices for which copies would cost more."""
    if not hasattr(session, TELLS):
        return Counter()
    parts = [part for part in getattr(session, TELLS)() if part.ep_name != PROVIDER]
    return Counter(node.op_type for part in parts for node in part.get_nodes())


def layers_among(operators: Collection[str]) -> str:
    """Those that compute for long, in words."""
    return ", ".join(sorted(operator for operator in operators if any(word in operator for word in LAYERS)))


def _not_on_gpu(operators: Counter[str], numbers: Collection[str]) -> str:
    """Why a network with these operators on the CPU is not measured as the GPU's, or nothing. One that gives indices, as a
    detector does, may arrange these there; any other would have nothing to arrange. `numbers`: the types of its outputs."""
    chooses = any(not number.startswith("float") for number in numbers)
    where = layers_among(operators) if chooses else ", ".join(sorted(operators))
    return where and (
        f"onnxruntime has no kernel on the GPU for {where} and would run them on the CPU. Measure another precision there, or "
        "this one on the CPU."
    )


def open_on_stream(model: str | bytes, stream: Stream, precision: str, options: Any) -> Any:
    """A session that does all its work on `stream`. NotMeasured where onnxruntime would do it elsewhere."""
    provider = cuda_provider(stream, precision)
    session = open_session(model, options, [provider])
    address = session.get_provider_options()[PROVIDER].get("user_compute_stream")
    if address != str(stream.address):
        raise NotMeasured(
            f"onnxruntime {load_onnxruntime().__version__} does not work on a stream that is given to it, so events cannot "
            "time it. Expected 1.18 or later."
        )
    return session


def unsynchronized() -> Any:
    """Options of a run that does not wait for the device."""
    options = load_onnxruntime().RunOptions()
    options.add_run_config_entry("disable_synchronize_execution_providers", "1")
    return options


def _outputs(session: Any) -> tuple[dict[str, tuple[int, ...]], dict[str, str]]:
    """A session's outputs: their shapes without the batch, and their NumPy types. NotMeasured for those that are bound to no
    memory here."""
    shapes, numbers = {}, {}
    for result in session.get_outputs():
        batch, *own = result.shape
        known = isinstance(batch, str) and "*" not in batch and all(isinstance(size, int) for size in own)
        if result.type not in NUMBERS or not known:
            raise NotMeasured(
                f"output {result.name} is {result.type} {list(result.shape)}, expected {', '.join(DTYPES)}, and a row for "
                "each image. Measure it on the CPU."
            )
        shapes[result.name], numbers[result.name] = tuple(own), NUMBERS[result.type]
    return shapes, numbers


class OnnxRuntimeCuda:
    """An ONNX file on the GPU. Raises NotMeasured and OutOfMemory."""

    def __init__(self, cell: Cell, path: Path, inputs: Inputs, options: Options) -> None:
        version = load_onnxruntime().__version__
        errors: tuple[type[Exception], ...] = (*OF_THE_TARGET, *onnxruntime_errors())
        with reasons(*errors), ExitStack() as resources:
            cuda, _ = require_gpu()
            require_cuda_provider()
            stream = resources.enter_context(cuda.stream())
            settings = told_options(options.threads)
            resources.callback(self._forget)
            name = resources.enter_context(library_name(path))
            self.session: Any = open_on_stream(name, stream, cell.precision, settings)
            source = self.session.get_inputs()[0].name
            shapes, numbers = _outputs(self.session)
            on_cpu = nodes_on_cpu(self.session)
            if why := _not_on_gpu(on_cpu, numbers.values()):
                raise NotMeasured(f"{cell.file}: {why}")
            self.on_gpu = OnGpu(stream, cell, inputs, shapes, options.transfers, resources, numbers=numbers)
            without_waiting = unsynchronized()
            shape = (cell.batch, *cell.image_shape)
            resources.callback(self._forget)  # the session goes before its stream and memory
            self.launches: list[Launch] = []
            for memory in self.on_gpu.inputs:
                binding = self.session.io_binding()
                binding.bind_input(source, "cuda", 0, np.float32, shape, memory.address)
                for name, result in self.on_gpu.outputs.items():
                    number = np.dtype(numbers[name]).type
                    binding.bind_output(name, "cuda", 0, number, self.on_gpu.shapes[name], result.address)
                self.launches.append(functools.partial(self.session.run_with_iobinding, binding, without_waiting))
            self.errors = errors
            self.settings: Mapping[str, Any] = {
                "device": "cuda",
                "threads": options.threads,
                "provider": PROVIDER,
                "graph_optimization": settings.graph_optimization_level.name,
                "version": version,
                "tf32": row_of(cell.precision).tf32,
                **({"on_cpu": f"{on_cpu.total()} nodes: {', '.join(sorted(on_cpu))}"} if on_cpu else {}),
                "cuda_graph": False,
                "cuda_graph_why": "onnxruntime's CUDA graphs read one input buffer, so inputs could not rotate",
                **self.on_gpu.settings,
            }
            self.resources = resources.pop_all()

    def run(self, index: int) -> Timing:
        with reasons(*self.errors):
            return self.on_gpu.iteration(index, self.launches[self.on_gpu.place(index)])

    def logits(self, images: Array) -> Given:
        with reasons(*self.errors):
            return self.on_gpu.logits(images, self.launches[0])

    def _forget(self) -> None:
        self.session, self.launches = None, []

    def close(self) -> None:
        """Free everything on the device; nothing happens the second time."""
        self.resources.close()
