"""The part of the CUDA runtime that running an engine takes, through ctypes: memory, streams, copies, events.
Graphs are in `graph.py`.

Every return code is checked. Memory, streams and events are context managers: they are released once, whatever happens
in the block. Importing this module loads nothing; `load_cuda` does.
"""

from __future__ import annotations

import contextlib
import ctypes
from types import TracebackType
from typing import TYPE_CHECKING, Any

import numpy as np

from slimexport.target.cuda.library import INSTALL, libraries
from slimexport.target.errors import MissingBackend

if TYPE_CHECKING:  # a Triton repository gets a copy of this file, which stands alone
    from slimexport.target.arrays import Array

# Values of the CUDA runtime's interface, the same since CUDA 5
NON_BLOCKING_STREAM = 1
HOST_TO_DEVICE, DEVICE_TO_HOST, DEVICE_TO_DEVICE = 1, 2, 3
L2_CACHE_SIZE, COMPUTE_CAPABILITY_MAJOR, COMPUTE_CAPABILITY_MINOR = 38, 75, 76

ADVICE = {
    "cudaErrorNoDevice": "Is the GPU visible here (CUDA_VISIBLE_DEVICES, a container without --gpus)?",
    "cudaErrorInsufficientDriver": "Update the NVIDIA driver, or install an older CUDA runtime.",
    "cudaErrorMemoryAllocation": "Use a smaller --batch, or end what else uses the GPU.",
}

_int, _pointer, _size = ctypes.c_int, ctypes.c_void_p, ctypes.c_size_t
SIGNATURES: dict[str, tuple[Any, ...]] = {
    "cudaGetDeviceCount": (_pointer,),
    "cudaDeviceGetAttribute": (_pointer, _int, _int),
    "cudaRuntimeGetVersion": (_pointer,),
    "cudaDriverGetVersion": (_pointer,),
    "cudaMemGetInfo": (_pointer, _pointer),
    "cudaMalloc": (_pointer, _size),
    "cudaFree": (_pointer,),
    "cudaMallocHost": (_pointer, _size),
    "cudaFreeHost": (_pointer,),
    "cudaMemcpyAsync": (_pointer, _pointer, _size, _int, _pointer),
    "cudaStreamCreateWithFlags": (_pointer, ctypes.c_uint),
    "cudaStreamSynchronize": (_pointer,),
    "cudaStreamDestroy": (_pointer,),
    "cudaEventCreate": (_pointer,),
    "cudaEventRecord": (_pointer, _pointer),
    "cudaEventSynchronize": (_pointer,),
    "cudaEventElapsedTime": (_pointer, _pointer, _pointer),
    "cudaEventDestroy": (_pointer,),
    "cudaStreamBeginCapture": (_pointer, _int),
    "cudaStreamEndCapture": (_pointer, _pointer),
    "cudaGraphInstantiateWithFlags": (_pointer, _pointer, ctypes.c_ulonglong),
    "cudaGraphLaunch": (_pointer, _pointer),
    "cudaGraphExecDestroy": (_pointer,),
    "cudaGraphDestroy": (_pointer,),
}
SINCE_11_4 = ("cudaGraphInstantiateWithFlags",)  # cudaGraphInstantiate takes other arguments from CUDA 12 on


class CudaError(MissingBackend):
    """A call of the CUDA runtime failed: `what` was being done, and CUDA's `code`, `name` and message."""

    def __init__(self, what: str, code: int, name: str, message: str) -> None:
        super().__init__(" ".join(filter(None, (f"CUDA: {what} failed: {message} ({name}, {code}).", ADVICE.get(name)))))
        self.what, self.code, self.name = what, code, name


class Cuda:
    """A loaded CUDA runtime (`library`). Everything is about the thread's current device, the first visible one.

    All methods raise CudaError where CUDA reports a failure.
    """

    def __init__(self, library: Any) -> None:
        self.library = library
        for name, arguments in SIGNATURES.items():
            if name not in SINCE_11_4 or hasattr(library, name):
                function = getattr(library, name)
                function.argtypes, function.restype = arguments, ctypes.c_int
        library.cudaGetLastError.argtypes, library.cudaGetLastError.restype = (), ctypes.c_int
        for name in ("cudaGetErrorName", "cudaGetErrorString"):
            function = getattr(library, name)
            function.argtypes, function.restype = (ctypes.c_int,), ctypes.c_char_p

    def call(self, what: str, function: str, *arguments: Any) -> None:
        """Call the runtime's `function`; CudaError, saying `what` was being done, unless it succeeds."""
        code = getattr(self.library, function)(*arguments)
        if code != 0:
            name, message = self.library.cudaGetErrorName(code), self.library.cudaGetErrorString(code)
            raise CudaError(what, code, (name or b"unknown").decode(), (message or b"no message").decode(errors="replace"))

    def _number(self, what: str, function: str, *arguments: Any) -> int:
        value = ctypes.c_int()
        self.call(what, function, ctypes.byref(value), *arguments)
        return value.value

    def device_count(self) -> int:
        """How many GPUs are visible; 0 where there is none."""
        try:
            return self._number("counting the GPUs", "cudaGetDeviceCount")
        except CudaError as error:
            if error.name == "cudaErrorNoDevice":
                return 0
            raise

    def compute_capability(self, device: int = 0) -> tuple[int, int]:
        """(9, 0) for an sm_90."""
        what = "asking for the compute capability"
        major = self._number(what, "cudaDeviceGetAttribute", COMPUTE_CAPABILITY_MAJOR, device)
        return major, self._number(what, "cudaDeviceGetAttribute", COMPUTE_CAPABILITY_MINOR, device)

    def l2_cache_bytes(self, device: int = 0) -> int:
        """The size of a GPU's last-level cache."""
        return self._number("asking for the cache's size", "cudaDeviceGetAttribute", L2_CACHE_SIZE, device)

    def runtime_version(self) -> int:
        """12040 for CUDA 12.4."""
        return self._number("asking for the runtime's version", "cudaRuntimeGetVersion")

    def driver_version(self) -> int:
        """The newest CUDA that the driver runs, as 12040; 0 where there is no driver."""
        return self._number("asking for the driver's version", "cudaDriverGetVersion")

    def memory_info(self) -> tuple[int, int]:
        """Free and total device memory in bytes."""
        free, total = ctypes.c_size_t(), ctypes.c_size_t()
        self.call("asking for the free memory", "cudaMemGetInfo", ctypes.byref(free), ctypes.byref(total))
        return free.value, total.value

    def memory(self, nbytes: int) -> DeviceMemory:
        """`nbytes` of device memory, for a `with` block."""
        return DeviceMemory(self, nbytes)

    def pinned_memory(self, nbytes: int) -> PinnedMemory:
        """`nbytes` of the host's memory that the device copies from and to by itself, for a `with` block."""
        return PinnedMemory(self, nbytes)

    def staging(self, shape: tuple[int, ...], number: str = "float32") -> Staging:
        """An array that is filled and then copied to the device, for a `with` block."""
        return Staging(self, shape, number)

    def stream(self) -> Stream:
        """A stream that does not wait for the default one, for a `with` block."""
        return Stream(self)

    def event(self) -> Event:
        """An event that keeps time, for a `with` block."""
        return Event(self)


class Resource:
    """Something of the device that is released at the end of a `with` block, once."""

    kind, destroy = "", ""

    def __init__(self, cuda: Cuda, create: str, *arguments: Any) -> None:
        self.cuda = cuda
        handle = ctypes.c_void_p()
        cuda.call(f"making {self.kind}", create, ctypes.byref(handle), *arguments)
        self.handle: int | None = handle.value

    @property
    def address(self) -> int:
        """The device's address of it, or its handle as a number."""
        assert self.handle is not None, f"{self.kind} was released"
        return self.handle

    def close(self) -> None:
        """Release it; nothing happens the second time."""
        handle, self.handle = self.handle, None
        if handle is not None:
            self.cuda.call(f"releasing {self.kind}", self.destroy, handle)

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        with contextlib.suppress(CudaError) if error is not None else contextlib.nullcontext():  # the first error is told
            self.close()


class DeviceMemory(Resource):
    """Bytes on the device."""

    destroy = "cudaFree"

    def __init__(self, cuda: Cuda, nbytes: int) -> None:
        assert nbytes > 0
        self.kind, self.nbytes = f"{nbytes} bytes of device memory", nbytes
        super().__init__(cuda, "cudaMalloc", nbytes)

    def __enter__(self) -> DeviceMemory:
        return self


class PinnedMemory(Resource):
    """Page-locked bytes of the host."""

    destroy = "cudaFreeHost"

    def __init__(self, cuda: Cuda, nbytes: int) -> None:
        assert nbytes > 0
        self.kind, self.nbytes = f"{nbytes} bytes of page-locked memory", nbytes
        super().__init__(cuda, "cudaMallocHost", nbytes)

    def __enter__(self) -> PinnedMemory:
        return self

    def array(self, shape: tuple[int, ...], number: str = "float32") -> Array:
        """The memory as an array of this NumPy type. It must not be used after the memory is released."""
        nbytes = int(np.prod(shape)) * np.dtype(number).itemsize
        assert nbytes <= self.nbytes
        return np.ctypeslib.as_array((ctypes.c_byte * nbytes).from_address(self.address)).view(number).reshape(shape)


class Staging:
    """An array of the host that is filled and copied to the device, for a `with` block. It is page-locked where the system
    gives such memory: the device then copies by itself, several times as fast as from what must be copied before."""

    def __init__(self, cuda: Cuda, shape: tuple[int, ...], number: str = "float32") -> None:
        self._memory: PinnedMemory | None = None
        try:
            self._memory = cuda.pinned_memory(int(np.prod(shape)) * np.dtype(number).itemsize)
            self.array = self._memory.array(shape, number)
        except CudaError:  # as where a limit of the system's on locked memory is low
            cuda.library.cudaGetLastError()  # which the next to ask would take for its own
            self.array = np.empty(shape, number)

    def close(self) -> None:
        """Release it; nothing happens the second time."""
        memory, self._memory = self._memory, None
        if memory is not None:
            memory.close()

    def __enter__(self) -> Staging:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        memory, self._memory = self._memory, None
        if memory is not None:
            memory.__exit__(kind, error, trace)


class Stream(Resource):
    """A queue of work on the device. Arrays that it copies are held until `synchronize`."""

    kind, destroy = "a stream", "cudaStreamDestroy"

    def __init__(self, cuda: Cuda) -> None:
        super().__init__(cuda, "cudaStreamCreateWithFlags", NON_BLOCKING_STREAM)
        self.held: list[Array] = []

    def __enter__(self) -> Stream:
        return self

    def upload(self, memory: DeviceMemory, array: Array) -> None:
        """Begin to copy a contiguous array to the device."""
        self._copy(memory, array, HOST_TO_DEVICE, memory.address, array.ctypes.data)

    def download(self, array: Array, memory: DeviceMemory) -> None:
        """Begin to fill a contiguous array from the device; its values are there after `synchronize`."""
        assert array.flags.writeable
        self._copy(memory, array, DEVICE_TO_HOST, array.ctypes.data, memory.address)

    def copy(self, to: DeviceMemory, source: DeviceMemory) -> None:
        """Begin to copy all of `source` to `to`, on the device."""
        assert source.nbytes <= to.nbytes
        what = f"copying {source.nbytes} bytes on the device"
        self.cuda.call(what, "cudaMemcpyAsync", to.address, source.address, source.nbytes, DEVICE_TO_DEVICE, self.address)

    def _copy(self, memory: DeviceMemory, array: Array, direction: int, to: int, source: int) -> None:
        assert isinstance(array, np.ndarray) and array.flags.c_contiguous and array.nbytes <= memory.nbytes
        self.held.append(array)
        what = f"copying {array.nbytes} bytes {'to' if direction == HOST_TO_DEVICE else 'from'} the device"
        self.cuda.call(what, "cudaMemcpyAsync", to, source, array.nbytes, direction, self.address)

    def synchronize(self) -> None:
        """Wait for all that was queued; failures of earlier calls come up here."""
        self.cuda.call("waiting for the device", "cudaStreamSynchronize", self.address)
        self.held.clear()


class Event(Resource):
    """A point in a stream's work, with its time."""

    kind, destroy = "an event", "cudaEventDestroy"

    def __init__(self, cuda: Cuda) -> None:
        super().__init__(cuda, "cudaEventCreate")

    def __enter__(self) -> Event:
        return self

    def record(self, stream: Stream) -> None:
        self.cuda.call("recording an event", "cudaEventRecord", self.address, stream.address)

    def synchronize(self) -> None:
        self.cuda.call("waiting for an event", "cudaEventSynchronize", self.address)

    def elapsed_ms(self, end: Event) -> float:
        """Milliseconds from this event to `end`; both lie in the past (`end.synchronize()` was called)."""
        value = ctypes.c_float()
        self.cuda.call(
            "reading the time between events", "cudaEventElapsedTime", ctypes.byref(value), self.address, end.address
        )
        return value.value


def load_cuda() -> Cuda:
    """The newest CUDA runtime that is installed and that the driver runs.

    MissingBackend where there is no runtime, no driver, or none that fits the driver.
    """
    newer = []
    for library in libraries():
        cuda = Cuda(library)
        driver, runtime = cuda.driver_version(), cuda.runtime_version()
        if driver == 0:
            raise MissingBackend(
                "no NVIDIA driver was found, so nothing can run on a GPU here. Run this on a machine with one."
            )
        if runtime // 1000 <= driver // 1000:  # within a major version, runtimes run on older drivers
            return cuda
        newer.append(version_text(runtime))
    driver_text = version_text(driver)
    raise MissingBackend(
        f"the NVIDIA driver runs CUDA up to {driver_text}, but only CUDA {', '.join(newer)} was found. Update the driver, or "
        f"install a runtime for CUDA {driver_text.split('.')[0]}: {INSTALL}."
    )


def version_text(version: int) -> str:
    """`12.4` for 12040."""
    return f"{version // 1000}.{version % 1000 // 10}"
