"""Loading a plan and running it: the TensorRT runner beside `runners.OnnxRuntimeRunner`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np

from slimexport.target.arrays import Array
from slimexport.target.cuda.device import GpuDevice, require_gpu
from slimexport.target.cuda.runtime import Cuda, DeviceMemory
from slimexport.target.errors import BundleError, MissingBackend
from slimexport.target.manifest import Artifact, check_sha256
from slimexport.target.runners import Given, alone
from slimexport.target.tensorrt.api import NUMBERS, create, load_plugins, logger, messages, number_of, said
from slimexport.target.tensorrt.inspector import LayerCount, count_layers
from slimexport.target.tensorrt.libraries import (
    LIBRARIES,
    RTX_LIBRARY,
    TRT_LIBRARY,
    Library,
    library_of,
    require_tensorrt,
    titled,
)
from slimexport.target.tensorrt.plan_header import check_plan


@dataclass(frozen=True)
class Tensors:
    """An engine's input and outputs: names, shapes without the batch (`outputs`: by name), their NumPy types (`numbers`, too:
    8.6 gives int32 where a network gives int64), and the batches that it takes."""

    input: str
    image_shape: tuple[int, ...]
    outputs: Mapping[str, tuple[int, ...]]
    numbers: Mapping[str, str]
    min_batch: int
    opt_batch: int
    max_batch: int


class TensorRTRunner:
    """A plan file on this machine's GPU, for a `with` block. Takes float32 images [N, C, H, W], gives float32 logits, or
    whatever the network takes and gives: several outputs by name.

    More images than the engine's largest batch are run one batch after the other, fewer than its least are padded.

    `artifact`: the manifest's entry, where there is one; then its SHA-256 is checked before TensorRT sees a byte (a plan
    can hold code), and its record of what it was built for. Without one the plan's own header tells its version.

    Raises BundleError for a damaged file, PlanMismatch for one that was built for another TensorRT or GPU, MissingBackend
    without TensorRT or a GPU, CudaError where the device fails.
    """

    def __init__(
        self, path: Path, artifact: Artifact | None = None, *, trt: Any = None, gpu: tuple[Cuda, GpuDevice] | None = None
    ) -> None:
        self.trt = require_tensorrt(library=_library(path, artifact)) if trt is None else trt
        library = library_of(self.trt)
        self.backend = library.backend
        self.cuda, self.device = require_gpu() if gpu is None else gpu  # first: without a GPU, 8.6's Runtime crashes
        self.name = path.name
        record = None if artifact is None else artifact.engine
        plan = _read_plan(path, artifact)
        check_plan(plan, path.name, record, self.trt.__version__, self.device, library)
        with ExitStack() as resources:
            resources.callback(self._forget)
            self._load(plan, trusted_code=record is not None and "VERSION_COMPATIBLE" in record.flags)
            del plan
            self.tensors = self._tensors()
            largest = self.tensors.max_batch
            self.stream = resources.enter_context(self.cuda.stream())
            self.input = resources.enter_context(self._memory(largest, self.tensors.image_shape))
            self.staging = resources.enter_context(self.cuda.staging((largest, *self.tensors.image_shape)))
            self.outputs = {
                name: resources.enter_context(self._memory(largest, shape, self.tensors.numbers[name]))
                for name, shape in self.tensors.outputs.items()
            }
            self._bind()
            resources.callback(self._forget)  # the context goes before the memory that it was given
            self.resources = resources.pop_all()

    def _memory(self, batch: int, shape: tuple[int, ...], number: str = "float32") -> DeviceMemory:
        return self.cuda.memory(batch * int(np.prod(shape)) * np.dtype(number).itemsize)

    def _load(self, plan: bytes, trusted_code: bool) -> None:
        with messages(self.trt) as collected:
            self.runtime = create("a runtime", self.trt.Runtime, logger(self.trt))
            if trusted_code:  # such plans bring a runtime of their own
                self.runtime.engine_host_code_allowed = True
            load_plugins(self.trt)
            self.engine = self.runtime.deserialize_cuda_engine(plan)
            if self.engine is None:
                reason = said(collected) or "it gives no reason"
                raise BundleError(f"{self.name}: {titled(self.trt)} does not load it ({reason}). Build it again here.")
            self.context = self.engine.create_execution_context()
            if self.context is None:
                reason = said(collected) or "TensorRT gives no reason"
                raise MissingBackend(
                    f"{self.name}: TensorRT cannot prepare to run it, for lack of memory perhaps ({reason}). Build it with a "
                    "smaller --batch, or end what else uses the GPU."
                )

    def _tensors(self) -> Tensors:
        """The engine's one input, and its outputs. BundleError where it is not a network of ours."""
        engine, trt = self.engine, self.trt
        names = [engine.get_tensor_name(index) for index in range(engine.num_io_tensors)]
        inputs = [name for name in names if engine.get_tensor_mode(name) == trt.TensorIOMode.INPUT]
        outputs = [name for name in names if engine.get_tensor_mode(name) == trt.TensorIOMode.OUTPUT]
        if len(inputs) != 1 or not outputs:
            raise BundleError(f"{self.name}: has inputs {inputs} and outputs {outputs}, expected images and logits.")
        shapes = {name: tuple(engine.get_tensor_shape(name)) for name in outputs}
        for name, shape in shapes.items():
            if not shape or min(shape[1:], default=1) < 1:
                raise BundleError(f"{self.name}: {name} is {list(shape)}, expected a row for each image. Run its ONNX file.")
        numbers = {name: number_of(trt, engine.get_tensor_dtype(name)) for name in names}
        for name, number in numbers.items():
            if number is None or (name in inputs and number != "float32"):
                expected = "float32" if name in inputs else ", ".join(NUMBERS.values())
                raise BundleError(
                    f"{self.name}: {name} is {engine.get_tensor_dtype(name)}, expected {expected}. Build it again."
                )
        least, usual, largest = (tuple(shape) for shape in engine.get_tensor_profile_shape(inputs[0], 0))
        return Tensors(
            input=inputs[0],
            image_shape=largest[1:],
            outputs={name: shape[1:] for name, shape in shapes.items()},
            numbers={name: number for name, number in numbers.items() if number is not None and name in shapes},
            min_batch=least[0],
            opt_batch=usual[0],
            max_batch=largest[0],
        )

    def _bind(self) -> None:
        for name, memory in ((self.tensors.input, self.input), *self.outputs.items()):
            if not self.context.set_tensor_address(name, memory.address):
                raise BundleError(f"{self.name}: TensorRT does not take an address for {name}. Build it again.")

    def set_batch(self, batch: int) -> None:
        """Prepare for `batch` images per call."""
        if not self.context.set_input_shape(self.tensors.input, (batch, *self.tensors.image_shape)):
            raise BundleError(
                f"{self.name}: does not take {batch} images at once, expected {self.tensors.min_batch} to "
                f"{self.tensors.max_batch}. Build it with another --batch."
            )

    def enqueue(self) -> None:
        """Queue one run on `stream`, from and to device memory."""
        with messages(self.trt) as collected:
            if not self.context.execute_async_v3(self.stream.address):
                raise MissingBackend(f"{self.name}: TensorRT does not run it ({said(collected) or 'it gives no reason'}).")

    def __call__(self, images: Array) -> Given:
        return self.together([images])

    def together(self, parts: Sequence[Array]) -> Given:
        """What it gives of several arrays after each other, which are copied once: to where the device copies them from."""
        expected, largest = self.tensors.image_shape, self.tensors.max_batch
        for images in parts:
            if images.shape[1:] != expected or not len(images):
                raise BundleError(f"{self.name}: takes images [N, {', '.join(map(str, expected))}], got {list(images.shape)}.")
        if sum(map(len, parts)) <= largest:
            return alone(self._run(parts))
        whole = parts[0] if len(parts) == 1 else np.concatenate(parts)
        given = [self._run([whole[start : start + largest]]) for start in range(0, len(whole), largest)]
        return alone({name: np.concatenate([part[name] for part in given]) for name in self.outputs})

    def _run(self, parts: Sequence[Array]) -> dict[str, Array]:
        staging, count = self.staging.array, 0
        for images in parts:
            staging[count : count + len(images)] = images
            count += len(images)
        size = max(count, self.tensors.min_batch)
        staging[count:size] = staging[count - 1]  # fewer than its least
        tensors = self.tensors
        arrays = {name: np.empty((size, *shape), tensors.numbers[name]) for name, shape in tensors.outputs.items()}
        self.set_batch(size)
        self.stream.upload(self.input, staging[:size])
        self.enqueue()
        for name, memory in self.outputs.items():
            self.stream.download(arrays[name], memory)
        self.stream.synchronize()
        return {name: array[:count] for name, array in arrays.items()}

    def device_memory_bytes(self) -> int:
        """What running the engine takes beside its inputs and outputs."""
        engine = self.engine
        return int(engine.device_memory_size_v2 if hasattr(engine, "device_memory_size_v2") else engine.device_memory_size)

    def layers(self) -> LayerCount:
        """The precisions of the engine's layers, at the batch that it is tuned for."""
        self.set_batch(self.tensors.opt_batch)
        inspector = self.engine.create_engine_inspector()
        inspector.execution_context = self.context
        information = inspector.get_engine_information(self.trt.LayerInformationFormat.JSON)
        return count_layers(information)

    def _forget(self) -> None:
        """TensorRT's objects free what they hold when the last reference goes: innermost first."""
        self.context = self.engine = self.runtime = None

    def close(self) -> None:
        """Release memory, stream, context and engine; nothing happens the second time."""
        self.resources.close()

    def __enter__(self) -> TensorRTRunner:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.resources.__exit__(kind, error, trace)


def _library(path: Path, artifact: Artifact | None) -> Library:
    """The library that a plan is for, by its entry or its name."""
    if artifact is not None:
        return LIBRARIES.get(artifact.format, TRT_LIBRARY)
    return RTX_LIBRARY if path.name.endswith(RTX_LIBRARY.suffix) else TRT_LIBRARY


def _read_plan(path: Path, artifact: Artifact | None) -> bytes:
    """The plan's bytes, once their SHA-256 is seen to be the manifest's."""
    if not path.is_file():
        raise BundleError(f"{path}: not there. Copy the whole bundle, or build the engine again.")
    if artifact is not None:
        check_sha256(path, artifact, "build the engine again")
    return path.read_bytes()
