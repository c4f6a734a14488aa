"""A CUDA runtime in Python: memory is bytes at made-up addresses, and a stream's work waits until somebody does."""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from typing import Any

NAMES = {2: "cudaErrorMemoryAllocation", 100: "cudaErrorNoDevice", 700: "cudaErrorIllegalAddress"}
MEBIBYTE = 1 << 20


class Function:
    """A function of a library: takes `argtypes`, checks its arguments against them as ctypes does, fails when told to."""

    def __init__(self, library: FakeCudart, name: str, work: Callable[..., object]) -> None:
        self.library, self.name, self.work = library, name, work
        self.argtypes: tuple[Any, ...] = ()
        self.restype: Any = None

    def __call__(self, *arguments: Any) -> Any:
        assert len(arguments) == len(self.argtypes), f"{self.name}: {arguments} for {self.argtypes}"
        for kind, argument in zip(self.argtypes, arguments, strict=True):
            kind.from_param(argument)
        self.library.calls.append(self.name)
        if self.name.startswith("cudaGetError"):
            return self.work(*arguments)
        code = self.library.failing.get(self.name, 0)
        if not code:
            self.work(*arguments)
        return code


class FakeCudart:
    """libcudart. `failing`: function -> code that it returns, without doing anything."""

    def __init__(self, devices: int = 1, capability: tuple[int, int] = (9, 0), runtime: int = 12040, driver: int = 12080):
        self.capability = capability
        self.calls: list[str] = []
        self.failing: dict[str, int] = {} if devices else {"cudaGetDeviceCount": 100}
        self.memory: dict[int, bytearray] = {}
        self.streams: dict[int, list[Callable[[], object]]] = {}
        self.events: dict[int, int] = {}
        self.next_handle, self.time = 0x7F00_0000_0000, 0

        def give(value: int) -> Callable[..., None]:
            return lambda target, *_: setattr(target._obj, "value", value)

        functions: dict[str, Callable[..., object]] = {
            "cudaGetDeviceCount": give(devices),
            "cudaDeviceGetAttribute": lambda target, which, device: give(self.capability[{75: 0, 76: 1}[which]])(target),
            "cudaRuntimeGetVersion": give(runtime),
            "cudaDriverGetVersion": give(driver),
            "cudaMemGetInfo": lambda free, total: (give(3 * MEBIBYTE)(free), give(4 * MEBIBYTE)(total)),
            "cudaMalloc": lambda target, nbytes: self._new(target, self.memory, bytearray(b"\xff" * nbytes)),
            "cudaFree": self._free,
            "cudaMemcpyAsync": self._copy,
            "cudaStreamCreateWithFlags": lambda target, flags: self._new(target, self.streams, []),
            "cudaStreamSynchronize": self.synchronize,
            "cudaStreamDestroy": self.streams.pop,
            "cudaEventCreate": lambda target: self._new(target, self.events, 0),
            "cudaEventRecord": lambda event, stream: self.streams[stream].append(lambda: self._tick(event)),
            "cudaEventSynchronize": lambda event: self._synchronize_all(),
            "cudaEventElapsedTime": lambda target, a, b: give(self.events[b] - self.events[a])(target),
            "cudaEventDestroy": self.events.pop,
            "cudaGetErrorName": lambda code: NAMES.get(code, "unrecognized").encode(),
            "cudaGetErrorString": lambda code: f"message {code}".encode(),
        }
        for name, work in functions.items():
            setattr(self, name, Function(self, name, work))

    def _new(self, target: Any, table: dict[int, Any], value: Any) -> None:
        self.next_handle += 16 * MEBIBYTE
        table[self.next_handle] = value
        target._obj.value = self.next_handle

    def _free(self, address: int) -> None:
        self._synchronize_all()  # as the real one does
        del self.memory[address]

    def _tick(self, event: int) -> None:
        self.time += 2
        if event in self.events:  # it may be gone by now
            self.events[event] = self.time

    def _copy(self, to: int, source: int, nbytes: int, direction: int, stream: int) -> None:
        def up() -> None:
            self.memory[to][:nbytes] = ctypes.string_at(source, nbytes)

        def down() -> None:
            ctypes.memmove(to, bytes(self.memory[source][:nbytes]), nbytes)

        assert nbytes <= len(self.memory[to if direction == 1 else source])
        self.streams[stream].append({1: up, 2: down}[direction])

    def synchronize(self, stream: int) -> None:
        """Do what was queued."""
        queue = self.streams[stream]
        while queue:
            queue.pop(0)()

    def _synchronize_all(self) -> None:
        for stream in self.streams:
            self.synchronize(stream)

    @property
    def leaks(self) -> list[int]:
        """Everything that was made and not released."""
        return [*self.memory, *self.streams, *self.events]
