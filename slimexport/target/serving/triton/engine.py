"""A TensorRT engine that runs in a Triton model: the least part of `slimexport.target.tensorrt.engine`, which stands alone
beside `slimexport.target.cuda`. A model repository of engines gets a copy of this file.
"""

from __future__ import annotations

import importlib
from typing import Any

import numpy as np

from slimexport.target.cuda.runtime import load_cuda

NUMBERS = {"FLOAT": "float32", "INT32": "int32", "INT64": "int64", "BOOL": "bool"}  # as NumPy calls them; 8.6 has no INT64


class Engine:
    """Images float32 [N, ...], N up to the largest batch of its profile -> its outputs by name, of the engine's types.

    `host_code`: the plan brings code of its own (a version-compatible one does), so its SHA-256 was to be checked before.
    ValueError where TensorRT does not take it: it was built by another version, or for another GPU.
    """

    def __init__(self, plan: bytes, name: str, host_code: bool) -> None:
        trt = importlib.import_module("tensorrt")
        self.name = name
        self._cuda = load_cuda()
        self._logger = _logger(trt)
        self._runtime = trt.Runtime(self._logger)
        if host_code:
            self._runtime.engine_host_code_allowed = True
        trt.init_libnvinfer_plugins(self._logger, "")
        self._engine = self._runtime.deserialize_cuda_engine(plan)
        if self._engine is None:
            raise ValueError(
                f"{name}: TensorRT {trt.__version__} does not load it ({self._said()}). Build it with the server's TensorRT, "
                "on its GPU."
            )
        self._context = self._engine.create_execution_context()
        if self._context is None:
            raise ValueError(f"{name}: TensorRT cannot prepare to run it, for lack of memory perhaps ({self._said()}).")
        names = [self._engine.get_tensor_name(index) for index in range(self._engine.num_io_tensors)]
        (self._input,) = [one for one in names if self._engine.get_tensor_mode(one) == trt.TensorIOMode.INPUT]
        least, _, largest = (tuple(shape) for shape in self._engine.get_tensor_profile_shape(self._input, 0))
        self._least, self._largest = int(least[0]), int(largest[0])
        shapes = {one: tuple(self._engine.get_tensor_shape(one))[1:] for one in names}
        self._shapes = {one: shape for one, shape in shapes.items() if one != self._input}
        self._stream = self._cuda.stream()
        self._staging = self._cuda.staging(tuple(largest))
        self._memory, self._numbers = {}, {}
        for one in names:
            kind = self._engine.get_tensor_dtype(one)
            number = next((known for its, known in NUMBERS.items() if kind == getattr(trt.DataType, its, None)), None)
            if number is None or (one == self._input and number != "float32"):
                expected = "float32" if one == self._input else ", ".join(NUMBERS.values())
                raise ValueError(f"{name}: {one} is {kind}, expected {expected}.")
            self._numbers[one] = np.dtype(number)
            numbers = self._largest * int(np.prod(largest[1:] if one == self._input else self._shapes[one]))
            self._memory[one] = self._cuda.memory(numbers * self._numbers[one].itemsize)
            if not self._context.set_tensor_address(one, self._memory[one].address):
                raise ValueError(f"{name}: TensorRT does not take an address for {one} ({self._said()}).")

    def __call__(self, images: Any) -> dict[str, Any]:
        size = max(len(images), self._least)
        shape = (size, *self._staging.array.shape[1:])
        if size > self._largest or not self._context.set_input_shape(self._input, shape):
            raise ValueError(f"{self.name}: does not take {size} images at once, {self._largest} at most.")
        batch = self._staging.array[:size]
        batch[: len(images)] = images
        batch[len(images) :] = images[-1]  # fewer than its least
        arrays = {name: np.empty((len(batch), *shape), self._numbers[name]) for name, shape in self._shapes.items()}
        self._stream.upload(self._memory[self._input], batch)
        if not self._context.execute_async_v3(self._stream.address):
            raise ValueError(f"{self.name}: TensorRT does not run it ({self._said()}).")
        for name, array in arrays.items():
            self._stream.download(array, self._memory[name])
        self._stream.synchronize()
        return {name: array[: len(images)] for name, array in arrays.items()}

    def close(self) -> None:
        """Free what it holds: TensorRT's objects go before the memory that they were given."""
        self._context = self._engine = self._runtime = None
        for memory in self._memory.values():
            memory.close()
        self._staging.close()
        self._stream.close()

    def _said(self) -> str:
        return " | ".join(self._logger.errors[-3:]) or "it gives no reason"


def _logger(trt: Any) -> Any:
    """Keeps the errors that TensorRT tells."""

    class Collector(trt.ILogger):  # type: ignore[misc]
        def __init__(self) -> None:
            trt.ILogger.__init__(self)
            self.errors: list[str] = []

        def log(self, severity: Any, msg: str) -> None:
            if severity in (trt.ILogger.ERROR, trt.ILogger.INTERNAL_ERROR):
                self.errors.append(" ".join(msg.split()))

    return Collector()
