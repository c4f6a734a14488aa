"""What the tests of runners on GPUs share: images, a board with a made-up TensorRT, and an onnxruntime whose CUDA provider
works on the memory and streams of a `FakeCudart`."""

from __future__ import annotations

import functools
import types
import weakref
from collections.abc import Callable
from dataclasses import dataclass, field
from importlib.machinery import ModuleSpec
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from benchmarks.cells.backends import ONNXRUNTIME_CUDA, TENSORRT
from benchmarks.cells.cell import Cell
from slimexport.target.cuda import device
from slimexport.target.cuda.runtime import Cuda
from slimexport.target.manifest import read_manifest
from tests.support.bench_helpers import cell
from tests.support.cuda_fake import FakeCudart
from tests.support.trt_helpers import CLASSES, SIZE, build, write_bundle

PROVIDER = "CUDAExecutionProvider"
Model = Callable[[dict[str, NDArray[Any]]], dict[str, NDArray[Any]]]


class Images:
    """`count` buffers, all different; `asked` has the (batch, cache) of every call."""

    def __init__(self, count: int = 5, size: int = SIZE) -> None:
        self.count, self.size = count, size
        self.asked: list[tuple[int, int]] = []

    def buffers(self, batch: int, cache_bytes: int) -> list[NDArray[Any]]:
        self.asked.append((batch, cache_bytes))
        drawing = np.random.default_rng(batch)
        buffers = [drawing.standard_normal((batch, 3, self.size, self.size), np.float32) for _ in range(self.count)]
        for array in buffers:
            array.setflags(write=False)
        return buffers


def engine_bundle(folder: Path, **options: Any) -> Path:
    """A bundle with engines for the board at hand, of batches 1 to 6."""
    bundle = write_bundle(folder)
    build(bundle, **options)
    return bundle


def engine_cell(bundle: Path, batch: int = 2, **changes: Any) -> Cell:
    """The cell of a bundle's first engine."""
    artifact = read_manifest(bundle).of_format("trt")[0]
    return cell(artifact.name, file=artifact.file, backend=TENSORRT, batch=batch, image_size=SIZE, **changes)


# ----------------------------------------------------------------------------------------------------- onnxruntime


@dataclass
class Runtime:
    """What the made-up onnxruntime does, and what it saw."""

    library: FakeCudart
    model: Model
    shapes: tuple[tuple[Any, ...], tuple[Any, ...]] = (("batch", 3, SIZE, SIZE), ("batch", CLASSES))
    others: tuple[tuple[str, tuple[Any, ...], str], ...] = ()  # outputs beside the first: names, shapes and types
    available: tuple[str, ...] = (PROVIDER, "CPUExecutionProvider")
    loads: bool = True  # else every session is on the CPU
    takes_stream: bool = True
    fails: str = ""  # what a run raises
    fails_to_open: str = ""
    tells: bool = True  # sessions say where their nodes run
    on_cpu: tuple[str, ...] = ()  # operators that do on the CPU
    opened: list[tuple[Any, Any, dict[str, str]]] = field(default_factory=list)  # model, entries of its options, provider's
    runs: list[dict[str, str]] = field(default_factory=list)  # entries of the run's options
    bound: list[tuple[str, int]] = field(default_factory=list)
    sessions: weakref.WeakSet[Any] = field(default_factory=weakref.WeakSet)
    outlived: list[str] = field(default_factory=list)  # what was released while a session on its stream was still there

    def __post_init__(self) -> None:
        for name in ("cudaFree", "cudaStreamDestroy"):
            function = getattr(self.library, name)
            function.work = functools.partial(self._release, name, function.work)

    def _release(self, name: str, work: Callable[[int], object], handle: int) -> None:
        if len(self.sessions):
            self.outlived.append(name)
        work(handle)


def fake_onnxruntime(monkeypatch: pytest.MonkeyPatch, runtime: Runtime) -> Any:
    """onnxruntime's module, as far as runners use it, in the real one's place."""

    class Options:
        def __init__(self) -> None:
            self.entries: dict[str, str] = {}
            self.graph_optimization_level = types.SimpleNamespace(name="ORT_ENABLE_ALL")

        def add_session_config_entry(self, name: str, value: str) -> None:
            self.entries[name] = value

        add_run_config_entry = add_session_config_entry

    class Binding:
        def __init__(self) -> None:
            self.inputs: dict[str, Any] = {}
            self.outputs: dict[str, Any] = {}

        def bind_input(self, name: str, kind: str, index: int, element: Any, shape: Any, address: int) -> None:
            assert (kind, index) == ("cuda", 0)
            self.inputs[name] = (element, shape, address)
            runtime.bound.append((name, address))

        def bind_output(self, name: str, kind: str, index: int, element: Any, shape: Any, address: int) -> None:
            assert (kind, index) == ("cuda", 0)
            self.outputs[name] = (element, shape, address)

    class Session:
        def __init__(self, model: Any, options: Any, providers: list[Any]) -> None:
            if runtime.fails_to_open:
                raise RuntimeError(runtime.fails_to_open)
            self.name, self.provider = providers[0] if isinstance(providers[0], tuple) else (providers[0], {})
            runtime.opened.append((model, options.entries, self.provider))
            if "user_compute_stream" in self.provider:
                runtime.sessions.add(self)
            self.loaded = runtime.loads

        def get_providers(self) -> list[str]:
            return [self.name, "CPUExecutionProvider"] if self.loaded else ["CPUExecutionProvider"]

        def get_provider_options(self) -> dict[str, dict[str, str]]:
            options = self.provider if runtime.takes_stream else {**self.provider, "user_compute_stream": "0"}
            return {PROVIDER: options}

        def get_inputs(self) -> list[Any]:
            return [types.SimpleNamespace(name="input", shape=list(runtime.shapes[0]))]

        def get_outputs(self) -> list[Any]:
            first = ("output", ("batch", *runtime.shapes[1][1:]), "tensor(float)")
            return [
                types.SimpleNamespace(name=name, shape=list(shape), type=kind)
                for name, shape, kind in (first, *runtime.others)
            ]

        def _assigned(self) -> list[Any]:
            def part(provider: str, *operators: str) -> Any:
                nodes = [types.SimpleNamespace(op_type=operator) for operator in operators]
                return types.SimpleNamespace(ep_name=provider, get_nodes=lambda: nodes)

            return [part(PROVIDER, "Conv", "Relu"), *(part("CPUExecutionProvider", name) for name in runtime.on_cpu)]

        def io_binding(self) -> Binding:
            return Binding()

        def run_with_iobinding(self, binding: Binding, options: Any) -> None:
            if runtime.fails:
                raise RuntimeError(runtime.fails)
            runtime.runs.append(options.entries)
            memory = runtime.library.memory

            def read(element: Any, shape: Any, address: int) -> NDArray[Any]:
                return np.frombuffer(memory[address], element, int(np.prod(shape))).reshape(shape)

            def work() -> None:
                outputs = runtime.model({name: read(*value) for name, value in binding.inputs.items()})
                for name, (element, shape, address) in binding.outputs.items():
                    content = outputs[name].astype(element).reshape(shape).tobytes()
                    memory[address][: len(content)] = content

            runtime.library.streams[int(self.provider["user_compute_stream"])].append(work)

    if runtime.tells:
        Session.get_provider_graph_assignment_info = Session._assigned  # type: ignore[attr-defined]
    module = types.ModuleType("onnxruntime")
    module.__spec__ = ModuleSpec("onnxruntime", None)
    for name, value in {
        "__version__": "1.31.1",
        "SessionOptions": Options,
        "RunOptions": Options,
        "InferenceSession": Session,
        "get_available_providers": lambda: list(runtime.available),
        "set_default_logger_severity": lambda level: None,
        "preload_dlls": lambda: None,
    }.items():
        setattr(module, name, value)
    from benchmarks.runners import ort, ort_cuda

    monkeypatch.setattr(ort, "require_onnxruntime", lambda: module)
    monkeypatch.setattr(device, "load_cuda", lambda: Cuda(runtime.library))
    monkeypatch.setattr(device, "device_name", lambda: "NVIDIA Test GPU")
    ort_cuda.require_cuda_provider.cache_clear()
    monkeypatch.setattr(ort_cuda, "require_cuda_provider", ort_cuda.require_cuda_provider.__wrapped__)
    return module


def cuda_cell(bundle: Path, batch: int = 2, **changes: Any) -> Cell:
    """The cell of a bundle's first ONNX file on CUDA."""
    artifact = read_manifest(bundle).artifacts[0]
    changes = {"batch": batch, "image_size": SIZE, **changes}
    return cell(artifact.name, file=artifact.file, backend=ONNXRUNTIME_CUDA, **changes)
