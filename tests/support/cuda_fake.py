"""A CUDA runtime in Python: memory is bytes at made-up addresses, and a stream's work waits until somebody does.

A stream that captures has its earlier work put aside: what is queued meanwhile is the graph's. The thread that captures
must neither wait nor allocate; if it does, the capture is lost, as with the real one.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from typing import Any

NAMES = {
    2: "cudaErrorMemoryAllocation",
    100: "cudaErrorNoDevice",
    700: "cudaErrorIllegalAddress",
    900: "cudaErrorStreamCaptureUnsupported",
    901: "cudaErrorStreamCaptureInvalidated",
}
UNSUPPORTED, INVALIDATED = 900, 901
NOT_IN_A_CAPTURE = (
    "cudaMalloc",
    "cudaFree",
    "cudaMallocHost",
    "cudaFreeHost",
    "cudaStreamSynchronize",
    "cudaEventSynchronize",
)
MEBIBYTE = 1 << 20
L2_CACHE_BYTES = 1 << 10  # small, so that a few buffers of a test exceed it


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
        if self.name.startswith("cudaGet") and "Error" in self.name:
            return self.work(*arguments)
        code = self.library.failing.get(self.name, 0)
        if not code and self.library.capturing and self.name in NOT_IN_A_CAPTURE:
            self.library.capture_is_lost = True
            return UNSUPPORTED
        if self.name == "cudaStreamEndCapture":  # ends the capture also where it fails
            return self.work(*arguments, code)
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
        self.host: dict[int, Any] = {}
        self.graphs: dict[int, list[Callable[[], object]]] = {}
        self.executables: dict[int, list[Callable[[], object]]] = {}
        self.capturing: dict[int, list[Callable[[], object]]] = {}  # stream -> what was queued before
        self.capture_is_lost = False
        self.next_handle, self.time = 0x7F00_0000_0000, 0

        def give(value: int) -> Callable[..., None]:
            return lambda target, *_: setattr(target._obj, "value", value)

        functions: dict[str, Callable[..., object]] = {
            "cudaGetDeviceCount": give(devices),
            "cudaDeviceGetAttribute": lambda target, which, device: give(self._attribute(which))(target),
            "cudaRuntimeGetVersion": give(runtime),
            "cudaDriverGetVersion": give(driver),
            "cudaMemGetInfo": lambda free, total: (give(3 * MEBIBYTE)(free), give(4 * MEBIBYTE)(total)),
            "cudaMalloc": lambda target, nbytes: self._new(target, self.memory, bytearray(b"\xff" * nbytes)),
            "cudaFree": self._free,
            "cudaMallocHost": self._new_host,
            "cudaFreeHost": self.host.pop,
            "cudaMemcpyAsync": self._copy,
            "cudaStreamCreateWithFlags": lambda target, flags: self._new(target, self.streams, []),
            "cudaStreamSynchronize": self.synchronize,
            "cudaStreamDestroy": self.streams.pop,
            "cudaEventCreate": lambda target: self._new(target, self.events, 0),
            "cudaEventRecord": lambda event, stream: self.streams[stream].append(lambda: self._tick(event)),
            "cudaEventSynchronize": lambda event: self._synchronize_all(),
            "cudaEventElapsedTime": lambda target, a, b: give(self.events[b] - self.events[a])(target),
            "cudaEventDestroy": self.events.pop,
            "cudaStreamBeginCapture": self._begin_capture,
            "cudaStreamEndCapture": self._end_capture,
            "cudaGraphInstantiateWithFlags": lambda target, graph, flags: self._new(
                target, self.executables, list(self.graphs[graph])
            ),
            "cudaGraphLaunch": lambda executable, stream: self.streams[stream].extend(self.executables[executable]),
            "cudaGraphExecDestroy": self.executables.pop,
            "cudaGraphDestroy": self.graphs.pop,
            "cudaGetLastError": lambda: 0,
            "cudaGetErrorName": lambda code: NAMES.get(code, "unrecognized").encode(),
            "cudaGetErrorString": lambda code: f"message {code}".encode(),
        }
        for name, work in functions.items():
            setattr(self, name, Function(self, name, work))

    def _new(self, target: Any, table: dict[int, Any], value: Any) -> None:
        self.next_handle += 16 * MEBIBYTE
        table[self.next_handle] = value
        target._obj.value = self.next_handle

    def _attribute(self, which: int) -> int:
        return {38: L2_CACHE_BYTES, 75: self.capability[0], 76: self.capability[1]}[which]

    def _new_host(self, target: Any, nbytes: int) -> None:
        content = ctypes.create_string_buffer(b"\xff" * nbytes, nbytes)
        self.host[ctypes.addressof(content)] = content
        target._obj.value = ctypes.addressof(content)

    def _begin_capture(self, stream: int, mode: int) -> None:
        assert mode == 1 and stream not in self.capturing
        self.capturing[stream], self.streams[stream] = self.streams[stream], []

    def _end_capture(self, stream: int, target: Any, code: int) -> int:
        captured, self.streams[stream] = self.streams[stream], self.capturing.pop(stream)
        code, self.capture_is_lost = INVALIDATED if self.capture_is_lost else code, False
        if not code:
            self._new(target, self.graphs, captured)
        return code

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

        def across() -> None:
            self.memory[to][:nbytes] = self.memory[source][:nbytes]

        for address in {1: [to], 2: [source], 3: [to, source]}[direction]:
            assert nbytes <= len(self.memory[address])
        self.streams[stream].append({1: up, 2: down, 3: across}[direction])

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
        return [*self.memory, *self.streams, *self.events, *self.host, *self.graphs, *self.executables]
